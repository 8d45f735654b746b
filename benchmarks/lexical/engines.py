"""This package's lexical search and others, each by the calls that its documentation shows.

All are given the same texts and the same questions. Others get English stemming where they have it
and the words of a question without its English stop words, joined by OR; ours gets the question.
"""

from __future__ import annotations

import importlib.metadata
import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from retriever import Document, Index, SearchOptions
from retriever.documents.words.stop_words import stop_words

DIMENSION = 4  # of the supplied embeddings: nothing is encoded
_WORDS = re.compile(r"\w+")


def words_of(question: str) -> list[str]:
    """Return the words of a question without English stop words, or all if those are all."""
    words = _WORDS.findall(question.lower())
    stops = stop_words("en")
    return [word for word in words if word not in stops] or words


class Engine:
    """A lexical index on disk, or in memory where an engine has no other.

    Args:
        folder: Where its files go.

    Attributes:
        package: What has to be installed for it.
        name: With its version.
    """

    package = ""

    def __init__(self, folder: Path) -> None:
        self.name = ""
        self._count = 0

    def add(self, texts: Sequence[str]) -> None:
        """Add texts, whose numbers go on from those that are there; they are found after it."""
        self._add(texts)
        self._count += len(texts)

    def search(self, question: str, k: int) -> list[tuple[int, float]]:
        """Return numbers of texts and their scores, best first."""
        return self._search(question, k)

    def close(self) -> None:
        """Release the files."""

    def _add(self, texts: Sequence[str]) -> None:
        raise NotImplementedError

    def _search(self, question: str, k: int) -> list[tuple[int, float]]:
        raise NotImplementedError


class Fts5(Engine):
    """SQLite's FTS5: `MATCH` and `ORDER BY rank`. Its k1 is 1.2 and its b .75."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.name = f"FTS5 (SQLite {sqlite3.sqlite_version})"
        self._file = sqlite3.connect(folder / "fts5.db")
        self._file.execute("PRAGMA journal_mode=WAL")
        self._file.execute("CREATE VIRTUAL TABLE t USING fts5(text, tokenize='porter unicode61')")

    def _add(self, texts: Sequence[str]) -> None:
        with self._file:
            rows = enumerate(texts, self._count)
            self._file.executemany("INSERT INTO t (rowid, text) VALUES (?, ?)", rows)

    def _search(self, question: str, k: int) -> list[tuple[int, float]]:
        match = " OR ".join(f'"{word}"' for word in words_of(question))
        query = "SELECT rowid, -rank FROM t WHERE t MATCH ? ORDER BY rank LIMIT ?"
        return self._file.execute(query, (match, k)).fetchall() if match else []


class Bm25s(Engine):
    """bm25s with PyStemmer, in memory: a change makes the index anew."""

    package = "bm25s"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import bm25s
        import Stemmer

        self.name = f"bm25s {bm25s.__version__}"
        self._stemmer = Stemmer.Stemmer("english")
        self._texts: list[str] = []
        self._index: Any = None
        self._library = bm25s

    def _tokens(self, texts: list[str]) -> Any:
        return self._library.tokenize(
            texts, stopwords="en", stemmer=self._stemmer, show_progress=False
        )

    def _add(self, texts: Sequence[str]) -> None:
        self._texts += texts
        self._index = self._library.BM25(method="lucene", k1=1.2, b=0.75)
        self._index.index(self._tokens(self._texts), show_progress=False)

    def _search(self, question: str, k: int) -> list[tuple[int, float]]:
        k = min(k, len(self._texts))
        found, scores = self._index.retrieve(self._tokens([question]), k=k, show_progress=False)
        return [
            (int(row), float(score))
            for row, score in zip(found[0], scores[0], strict=True)
            if score > 0
        ]


class Tantivy(Engine):
    """tantivy with its English stemmer: `parse_query_lenient`, whose default is OR."""

    package = "tantivy"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import tantivy

        self.name = f"tantivy {importlib.metadata.version('tantivy')}"
        self._library = tantivy
        builder = tantivy.SchemaBuilder()
        builder.add_integer_field("row", stored=True)
        builder.add_text_field("text", stored=False, tokenizer_name="en_stem")
        place = folder / "tantivy"
        place.mkdir()
        self._index = tantivy.Index(builder.build(), path=str(place))

    def _add(self, texts: Sequence[str]) -> None:
        writer = self._index.writer(heap_size=256 << 20, num_threads=1)
        for row, text in enumerate(texts, self._count):
            writer.add_document(self._library.Document(row=row, text=text))
        writer.commit()
        self._index.reload()

    def _search(self, question: str, k: int) -> list[tuple[int, float]]:
        query, _ = self._index.parse_query_lenient(" ".join(words_of(question)), ["text"])
        searcher = self._index.searcher()
        hits = searcher.search(query, k).hits
        return [(searcher.doc(address)["row"][0], score) for score, address in hits]


class Zvec(Engine):
    """zvec's full-text index with its standard tokenizer and English stemmer; it flushes."""

    package = "zvec"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import zvec

        self.name = f"zvec {importlib.metadata.version('zvec')}"
        self._library = zvec
        index = zvec.FtsIndexParam(filters=["lowercase", "stemmer"])
        schema = zvec.CollectionSchema(
            name="texts",
            fields=[zvec.FieldSchema("text", zvec.DataType.STRING, index_param=index)],
            vectors=[zvec.VectorSchema("vector", zvec.DataType.VECTOR_FP32, DIMENSION)],
        )
        self._collection = zvec.create_and_open(str(folder / "zvec"), schema)

    def _add(self, texts: Sequence[str]) -> None:
        doc, vector = self._library.Doc, [1.0] * DIMENSION
        for start in range(0, len(texts), 1000):
            part = texts[start : start + 1000]
            first = self._count + start
            self._collection.insert(
                [
                    doc(id=str(row), fields={"text": text}, vectors={"vector": vector})
                    for row, text in enumerate(part, first)
                ]
            )
        self._collection.flush()

    def _search(self, question: str, k: int) -> list[tuple[int, float]]:
        fts = self._library.Fts(match_string=" ".join(words_of(question)))
        query = self._library.Query(field_name="text", fts=fts)
        found = self._collection.query(query, topk=k, output_fields=[])
        return [(int(one.id), float(one.score)) for one in found]


class Ours(Engine):
    """An index of supplied embeddings, searched with `mode="lexical"`; a commit is fsynced."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.name = f"retriever {importlib.metadata.version('retriever')}"
        self._index = Index.open(folder / "ours.index", dimension=DIMENSION)
        self._vectors = np.random.default_rng(1)

    def _add(self, texts: Sequence[str]) -> None:
        vectors = self._vectors.standard_normal((len(texts), DIMENSION)).astype(np.float32)
        self._index.add(
            Document(text, id=str(row), embedding=vector)
            for row, (text, vector) in enumerate(zip(texts, vectors, strict=True), self._count)
        )

    def _search(self, question: str, k: int) -> list[tuple[int, float]]:
        options = cast(Any, SearchOptions)(k=k, mode="lexical", operators=False)
        found = self._index.search(question, options=options)
        return [(int(hit.document_id), hit.score) for hit in found]

    def close(self) -> None:
        """Close the index."""
        self._index.close()


ENGINES: tuple[type[Engine], ...] = (Ours, Fts5, Bm25s, Tantivy, Zvec)

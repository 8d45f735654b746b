"""Any sequence of calls leaves an index that a dict and NumPy agree with, by every way of reading.

RETRIEVER_MACHINE_EXAMPLES=10000 RETRIEVER_MACHINE_STEPS=50 pytest tests/test_state_machine.py
runs the long programme.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from retriever import Document, Index, Limits
from retriever.canonical import unit_vector
from retriever.config import Chunking
from retriever.documents.chunking import Chunker
from retriever.documents.languages import language_of
from retriever.documents.words import Term, question_terms, terms_of
from retriever.encoders.plugged import plug
from retriever.errors import DocumentNotFound, InvalidDocument
from retriever.ingest import rebuild
from retriever.search import dense, duplicates, lexical, query_encoding
from retriever.search.lexical_segment import LexicalKind
from retriever.storage import catalog
from retriever.testing import HashEncoder, exact_search
from retriever.types import Chunk, Results

EXAMPLES = int(os.environ.get("RETRIEVER_MACHINE_EXAMPLES", "60"))
STEPS = int(os.environ.get("RETRIEVER_MACHINE_STEPS", "30"))
DIMENSION = 8
ROW = DIMENSION * 4
# Small enough that a few documents make pages and second looks; and with the limits segments,
# merges and batches.
SMALL = [
    (duplicates, "MIN_COPIES", 2),
    (rebuild, "_PAGE", 2),
    (catalog.documents, "_PAGE", 3),
    (dense, "SLACK", 1),
    (dense, "_BATCH", 2),
    (LexicalKind, "bytes_per_row", lambda kind, space: ROW),
]
LIMITS = Limits(
    commit_documents=3,
    group_characters=150,
    encode_tokens=20,
    queued_characters=400,
    tail_rows=5,
    tail_texts=4,
    merge_bytes=60 * ROW,
    merge_segments=3,
    compact_bytes=25 * ROW,
)

ids = st.sampled_from([f"id-{number}" for number in range(12)] + ["ünï/cödé 1", "#n", "a\0b"])
words = st.lists(
    st.sampled_from(["pump", "reset", "water", "—", "harbour", "tide", "Öl", "東京"]), max_size=40
)
texts = st.one_of(
    words.map(" ".join),
    words.map("\n\n".join),
    st.sampled_from(["", " \n", "pump", "reset the pump", "reset the pump. " * 12]),
)
whole_vectors = st.lists(st.integers(-2, 2), min_size=DIMENSION, max_size=DIMENSION).filter(any)
near_ties = st.integers(-3, 3).map(lambda step: [1.0, 1.0 + step * 6e-8, *[0.5] * (DIMENSION - 2)])
vectors = st.one_of(whole_vectors, near_ties)
chunkings = st.sampled_from(
    [
        {"unit": "window", "tokens": None, "overlap": 4},
        {"unit": "window", "tokens": 8, "overlap": 0},
        {"unit": "window", "tokens": 9, "overlap": 3},
        {"unit": "document"},
    ]
)
drafts = st.builds(Document, text=texts, id=ids, embedding=st.one_of(st.none(), st.none(), vectors))
groups = st.sampled_from([None, "document"])
depths = st.integers(1, 12) | st.just(1000)
folds = st.booleans()


@dataclass
class Kept:
    """A document as the model keeps it: `born` orders documents as the index does."""

    document: Document
    born: int
    chunks: tuple[Chunk, ...]
    vectors: list[np.ndarray]


class CutShort(Exception):
    """Raised in a progress callback, as Ctrl-C would be."""


class IndexMachine(RuleBasedStateMachine):
    """An index, a reader that stays open, and the model."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")  # what fsync promises is tested elsewhere
        self.folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
        self.patch = pytest.MonkeyPatch()
        for owner, name, value in SMALL:
            self.patch.setattr(owner, name, value)
        self.encoder = HashEncoder(DIMENSION, max_tokens=12)
        self.kept: dict[str, Kept] = {}
        self.born = 0
        self.gone: list[str] = []
        self.erased: list[str] = []
        self.is_hurt = False
        self.meanings: dict[int, tuple[str, str, str]] = {}

    @initialize(chunking=chunkings)
    def create(self, chunking: dict[str, Any]) -> None:
        self.path = self.folder / "a b.index"
        self.chunking = chunking
        self.index = Index.open(self.path, model=self.encoder, chunking=chunking, limits=LIMITS)
        self.reader = Index.open(self.path, model=HashEncoder(DIMENSION, 12), read_only=True)

    # --- writing ----------------------------------------------------------------------------

    @rule(batch=st.lists(drafts, max_size=9), whole=st.booleans())
    def add(self, batch: list[Document], whole: bool) -> None:
        batch = [self._marked(document) for document in batch]
        if len({document.id for document in batch}) < len(batch):
            with pytest.raises(InvalidDocument, match="same id"):
                self.index.add(batch)
            return
        known = sum(document.id in self.kept for document in batch)
        report = self.index.add(batch if whole else iter(batch))
        assert (report.added, report.replaced) == (len(batch) - known, known)
        for document in batch:
            self._keep(document)
        self.is_hurt = self.is_hurt and not batch

    @rule(batch=st.lists(drafts, min_size=2, max_size=9, unique_by=lambda d: d.id))
    def add_until_an_error(self, batch: list[Document]) -> None:
        batch = [self._marked(document) for document in batch]
        broken = Document("", id="broken", embedding=[0.0] * DIMENSION)
        with pytest.raises(InvalidDocument, match="zeros") as caught:
            self.index.add(iter([*batch, broken]))
        written = caught.value.report.added + caught.value.report.replaced
        for document in batch[:written]:
            self._keep(document)
        for document in batch[written:]:
            found = self.index.get(document.id)
            assert found is None or found.title != document.title
        self.is_hurt = self.is_hurt and not written

    @rule(wanted=st.lists(ids, max_size=4), purge=st.booleans(), missing_ok=st.booleans())
    def delete(self, wanted: list[str], purge: bool, missing_ok: bool) -> None:
        there = {document_id for document_id in wanted if document_id in self.kept}
        if len(there) < len(set(wanted)) and not missing_ok:
            with pytest.raises(DocumentNotFound):
                self.index.delete(wanted, purge=purge)
            return
        assert self.index.delete(wanted, purge=purge, missing_ok=missing_ok) == len(there)
        for document_id in there:
            self._forget(document_id)
        self.is_hurt = False
        if purge and there:
            self._erase()

    @rule()
    def compact(self) -> None:
        self.index.compact()
        self._erase()
        self.is_hurt = False
        assert self.index.status().tail_rows == 0

    @rule(chunking=chunkings)
    def rebuild(self, chunking: dict[str, Any]) -> None:
        self.index.rebuild(chunking=chunking)
        self._rechunk(chunking)

    @rule(chunking=chunkings, after=st.integers(1, 3))
    def rebuild_cut_short(self, chunking: dict[str, Any], after: int) -> None:
        calls = 0

        def stop(_: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == after:
                raise CutShort

        try:
            self.index.rebuild(chunking=chunking, progress=stop)
        except CutShort:
            return
        self._rechunk(chunking)

    @rule()
    def reopen(self) -> None:
        self.index.close()
        self.index = Index.open(self.path, model=self.encoder, limits=LIMITS)

    @precondition(lambda self: not self.is_hurt)
    @rule(data=st.data())
    def lose_a_segment_file(self, data: st.DataObject) -> None:
        found = sorted(self.path.glob("segment-*"))
        if found:
            data.draw(st.sampled_from(found)).unlink()
            self.is_hurt = True

    @rule()
    def back_up(self) -> None:
        target = self.folder / "copy.index"
        self.index.backup(target)
        with Index.open(target, model=self.encoder, limits=LIMITS) as copy:
            assert copy.verify(deep=True).ok
            self._check_documents(copy)
            self._check_search(copy, unit_vector([1.0] * DIMENSION, DIMENSION), 7, None, True)
            self._check_words(copy, "reset the pump 東京")
        shutil.rmtree(target)

    # --- reading ----------------------------------------------------------------------------

    @rule(query=words.filter(any), k=depths, group=groups, fold=folds)
    def search_by_text(self, query: list[str], k: int, group: Any, fold: bool) -> None:
        text = " ".join(query)
        (asked,) = query_encoding.embed(plug(self.encoder), [text])
        vector = asked.vector
        for index in (self.index, self.reader):
            self._check(
                index.search(text, k=k, group=group, fold=fold, mode="dense"),
                vector,
                k,
                group,
                fold,
            )

    @rule(vector=vectors, k=depths, group=groups, fold=folds)
    def search_by_vector(self, vector: list[float], k: int, group: Any, fold: bool) -> None:
        for index in (self.index, self.reader):
            self._check_search(index, vector, k, group, fold)

    @rule(many=st.lists(vectors, max_size=5), k=depths, group=groups, fold=folds)
    def search_for_many(self, many: list[list[float]], k: int, group: Any, fold: bool) -> None:
        for index in (self.index, self.reader):
            found = index.search_many(vectors=many, k=k, group=group, fold=fold)
            assert len(found) == len(many)
            for results, vector in zip(found, many, strict=True):
                self._check(results, unit_vector(vector, DIMENSION), k, group, fold)

    @rule(query=words.filter(any))
    def search_by_words(self, query: list[str]) -> None:
        for index in (self.index, self.reader):
            self._check_words(index, " ".join(query))

    @rule(document_id=ids)
    def look(self, document_id: str) -> None:
        for index in (self.index, self.reader):
            kept = self.kept.get(document_id)
            assert index.get(document_id) == (kept and kept.document)
            if kept is None:
                with pytest.raises(DocumentNotFound):
                    index.chunks(document_id)
                continue
            found = index.chunks(document_id)
            assert [replace(c, id=None, document_id=None) for c in found] == list(kept.chunks)
            self._remember(found)

    @invariant()
    def readers_see_the_last_commit(self) -> None:
        if hasattr(self, "reader"):
            assert self.reader.count() == len(self.kept)
            self._check_search(self.reader, [1.0] + [0.25] * (DIMENSION - 1), 3, None, False)

    def teardown(self) -> None:
        try:
            if hasattr(self, "index"):
                self._check_at_the_end()
        finally:
            self.patch.undo()
            if hasattr(self, "index"):
                self.reader.close()
                self.index.close()
            self._grep()
            shutil.rmtree(self.folder)

    def _check_at_the_end(self) -> None:
        if self.is_hurt:
            assert not self.index.verify().ok
            self.compact()
        for index in (self.index, self.reader):
            self._check_documents(index)
            self._check_words(index, "reset the pump Öl")
        report = self.reader.verify(deep=True)
        assert report.ok, report.problems
        assert [line for line in report.warnings if not line.startswith("quarantine/")] == []
        status = self.index.status()
        assert status.documents == len(self.kept)
        assert status.chunks == sum(len(kept.chunks) for kept in self.kept.values())
        assert status.empty_documents == sum(not kept.chunks for kept in self.kept.values())

    def _grep(self) -> None:
        """Look for what was purged; only now, as no connection is open any more."""
        for path in self.folder.rglob("*"):
            if path.is_file():
                held = path.read_bytes()
                for marker in self.erased:
                    assert marker.encode() not in held, f"{marker} is still in {path.name}"

    # --- the model --------------------------------------------------------------------------

    def _marked(self, document: Document) -> Document:
        """Give each version of a document a mark of its own, to look for after a purge."""
        self.born += 1
        mark = f"mark<{self.born}>"
        # As a key too: the name of a field must go with the last document that has it.
        metadata = {"of": {"version": self.born, "x": [1.5]}, mark: True}
        return replace(document, title=mark, metadata=metadata)

    def _keep(self, document: Document) -> None:
        self._forget(document.id)
        self.born += 1
        self.kept[document.id] = Kept(document, self.born, (), [])
        self._chunk(self.kept[document.id])

    def _forget(self, document_id: str | None) -> None:
        old = self.kept.pop(document_id or "", None)
        if old is not None:
            self.gone.append(old.document.title or "")

    def _erase(self) -> None:
        self.erased += self.gone
        self.gone = []

    def _rechunk(self, chunking: dict[str, Any]) -> None:
        self.chunking = chunking
        self.is_hurt = False
        for kept in self.kept.values():
            self._chunk(kept)

    def _chunk(self, kept: Kept) -> None:
        document = kept.document
        chunking = Chunking.parse(self.chunking)
        if document.embedding is not None:
            whole = replace(chunking, unit="document", tokens=None)
            kept.vectors = [unit_vector(document.embedding, DIMENSION)]
            (made,) = Chunker(self.encoder.tokenizer, 12, whole).chunk(
                [replace(document, text="x")]
            )
            size = len(document.text)
            lines = (1, len(document.text.splitlines()) or 1)
            chunk = replace(made[0][0], span=(0, size), lines=lines, tokens=0, text=document.text)
            kept.chunks = (replace(chunk, byte_span=(0, len(document.text.encode()))),)
            return
        ((kept.chunks, _),) = Chunker(self.encoder.tokenizer, 12, chunking).chunk([document])
        encoded = self.encoder.encode_queries([chunk.text for chunk in kept.chunks])
        norms = np.linalg.norm(encoded.astype(np.float64), axis=1, keepdims=True)
        kept.vectors = list((encoded / norms).astype(np.float32))

    def _check_words(self, index: Index, query: str) -> None:
        """Compare every row that has a word, and its score, with BM25 by the formula."""
        rows = [
            (kept.document, chunk, language_of(kept.document))
            for kept in sorted(self.kept.values(), key=lambda kept: kept.born)
            for chunk in kept.chunks
        ]
        counts = [
            Counter(
                term
                for text in (chunk.text, document.title or "", *chunk.heading)
                for term in terms_of(text, language)
            )
            for document, chunk, language in rows
        ]
        (asked, found), names = self._words_found(index, query)
        assert found.scores.tolist() == pytest.approx(
            [score for score in _bm25(counts, asked) if score], rel=1e-9
        )
        expected = [rows[n][0].id for n, score in enumerate(_bm25(counts, asked)) if score]
        assert [names[one] for one in found.ids.tolist()] == expected

    def _words_found(
        self, index: Index, query: str
    ) -> tuple[tuple[list[Term], lexical.Matches], dict[int, str]]:
        while True:
            with index._pool.transaction() as connection:
                view = index._views.at(connection, patient=False)
                try:
                    asked = question_terms(query, view.lexical(connection).languages)
                    found = lexical.matches(view, connection, asked, view.live)
                except lexical.StaleView:  # a file is missing; the second time, the texts answer
                    continue
                owners = "SELECT c.id, d.id FROM chunks c JOIN documents d ON d.pk = c.document_pk"
                return (asked, found), dict(connection.execute(owners).fetchall())

    def _check_search(self, index: Index, vector: Any, k: int, group: Any, fold: bool) -> None:
        found = index.search(vector=vector, k=k, group=group, fold=fold)
        self._check(found, unit_vector(vector, DIMENSION), k, group, fold)

    def _check(self, results: Results, query: np.ndarray, k: int, group: Any, fold: bool) -> None:
        rows = [
            (kept.document, chunk, vector)
            for kept in sorted(self.kept.values(), key=lambda kept: kept.born)
            for chunk, vector in zip(kept.chunks, kept.vectors, strict=True)
        ]
        ranking = exact_search([vector for _, _, vector in rows], query, len(rows))
        texts = [_text(*row) for row in rows]
        ranking = _differing(ranking, rows, texts, group, fold)
        expected = [
            (rows[p][0].id, rows[p][0].title, rows[p][1].span, rows[p][1].text, score)
            for p, score in ranking[:k]
        ]
        found = [(h.document_id, h.metadata["title"], h.span, h.text, h.score) for h in results]
        assert found == expected
        for hit, (position, _) in zip(results, ranking, strict=False):
            copies = [row for row in range(len(rows)) if texts[row] == texts[position]]
            others = dict.fromkeys(rows[row][0].id for row in copies)
            others.pop(hit.document_id)
            is_folded = fold and hit.text
            assert hit.duplicates == (len(copies) - 1 if is_folded else 0)
            assert list(hit.also_in) == (list(others)[:10] if is_folded else [])
        assert [hit.rank for hit in results] == list(range(1, len(results) + 1))
        assert results.exact
        for hit in results:
            meaning = (hit.document_id, hit.metadata["title"], f"{hit.span} {hit.text}")
            assert self.meanings.setdefault(hit.chunk_id, meaning) == meaning

    def _remember(self, chunks: list[Chunk]) -> None:
        assert [chunk.id for chunk in chunks] == sorted({chunk.id or 0 for chunk in chunks})

    def _check_documents(self, index: Index) -> None:
        found = list(index.documents())
        assert found == [self.kept[name].document for name in sorted(self.kept)]
        assert index.count() == len(found)
        for name, kept in self.kept.items():
            assert index.get(name) == kept.document
            stored = [replace(c, id=None, document_id=None) for c in index.chunks(name)]
            assert stored == list(kept.chunks)


def _bm25(counts: list[Counter[str]], asked: list[Term]) -> list[float]:
    """Return the score of each row, 0 for those without any of the terms."""
    mean = sum(count.total() for count in counts) / max(len(counts), 1)
    scores = [0.0] * len(counts)
    for term in asked:
        found = [sum(count[form] for form in term.alternatives) for count in counts]
        df = sum(tf > 0 for tf in found)
        idf = math.log(1 + (len(counts) - df + 0.5) / (df + 0.5))
        for row, (tf, count) in enumerate(zip(found, counts, strict=True)):
            if tf:
                norm = lexical.K1 * (1 - lexical.B + lexical.B * count.total() / mean)
                scores[row] += term.weight * idf * (lexical.K1 + 1) * tf / (tf + norm)
    return scores


def _text(document: Document, chunk: Chunk, vector: np.ndarray) -> tuple[str, bytes | None]:
    """Return what identical chunks share."""
    return chunk.text, None if document.embedding is None else vector.tobytes()


def _differing(
    ranking: list[tuple[int, float]],
    rows: list[Any],
    texts: list[tuple[str, bytes | None]],
    group: Any,
    fold: bool,
) -> list[tuple[int, float]]:
    """Return what is left of a ranking when identical chunks, or those of a document, are one."""
    kept = []
    seen: set[Any] = set()
    for position, score in ranking:
        keys = [rows[position][0].id] if group else []
        keys += [texts[position]] if fold and texts[position][0] else []
        if seen.isdisjoint(keys):
            kept.append((position, score))
            seen.update(keys)
    return kept


IndexMachine.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.damages
@pytest.mark.timeout(0 if EXAMPLES > 1000 else 300)
class TestAnySequenceOfCallsAgreesWithADictAndNumpy(IndexMachine.TestCase):
    """The machine, as pytest finds it."""

"""Collections in BEIR layout: a corpus, queries and judgements, in a folder.

    scifact/
    ├── corpus.jsonl      {"_id": "4983", "title": "…", "text": "…", further keys}
    ├── queries.jsonl     {"_id": "0", "text": "…"}
    └── qrels/
        └── test.tsv      query-id, corpus-id and score, with tabs between; one file a split

Thakur et al., "BEIR: A Heterogeneous Benchmark for Zero-shot Evaluation of Information Retrieval
Models", 2021. Published figures are of documents whose title and text are joined by a space, and so
are those here.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever import arguments
from retriever.arguments import as_whole, shown
from retriever.documents.validation import to_document
from retriever.errors import InvalidEvaluation, UnreadableFile, UsageError
from retriever.evaluation.json_lines import Line, existing, read_objects
from retriever.evaluation.qrels import Qrels
from retriever.evaluation.text_lines import lines_of
from retriever.types import Document, Progress, ProgressCallback

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retriever.index.state import PathLike

_DOCUMENT = '{"_id": "d1", "title": "…", "text": "…"}'
_QUERY = '{"_id": "q1", "text": "…"}'
_FIELDS = ("_id", "title", "text", "metadata")
_REPORT_EVERY = 1_000
_SHOWN = 8


class DocumentIds:
    """The ids of a corpus, kept as 8 bytes each.

    An id that is in the corpus is always found to be. Of others, one in 2⁶⁴ for each document of
    the corpus is mistaken for one of its ids.

    Args:
        hashes: The hashes of the ids, int64 `(n,)`.
    """

    def __init__(self, hashes: NDArray[np.int64]) -> None:
        self._hashes = np.sort(hashes)

    def __len__(self) -> int:
        return len(self._hashes)

    def __contains__(self, document_id: object) -> bool:
        if not isinstance(document_id, str):
            return False
        wanted = _hash(document_id)
        place = int(np.searchsorted(self._hashes, wanted))
        return place < len(self) and int(self._hashes[place]) == wanted

    @property
    def repeated(self) -> set[int]:
        """Return the hashes that more than one id has."""
        again = self._hashes[1:][self._hashes[1:] == self._hashes[:-1]]
        return set(again.tolist())


@dataclass(frozen=True)
class Collection:
    """A collection in BEIR layout. Its files are read when they are asked for.

    Attributes:
        path: The folder, absolute; make one with `open`.
    """

    path: Path
    _ids: list[DocumentIds] = field(default_factory=list, init=False, repr=False, compare=False)

    @classmethod
    def open(cls, folder: PathLike) -> Collection:
        """Return the collection in a folder.

        Raises:
            UnreadableFile: There is no such folder, or it cannot be read.
            InvalidEvaluation: It is not in BEIR layout; the error says what is missing and what
                was found.
            InvalidConfig: `folder` is not a path.
        """
        path = arguments.path(folder, "folder").absolute()
        hint = "Name the folder that holds corpus.jsonl, queries.jsonl and qrels/."
        try:
            names = sorted(entry.name for entry in path.iterdir())
            missing = _missing(path)
        except OSError as exc:
            raise UnreadableFile(
                f"The collection {path} cannot be read: {exc.strerror}.", path=str(path), hint=hint
            ) from exc
        if missing:
            found = ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
            inner = [name for name in names if (path / name).is_dir() and not _missing(path / name)]
            raise InvalidEvaluation(
                f"is not a collection in BEIR layout: it lacks {_listed(missing)}, and holds "
                f"{found or 'nothing'}.",
                hint=f"Did you mean {path / inner[0]}?" if inner else hint,
                path=str(path),
            )
        return cls(path)

    @property
    def name(self) -> str:
        """Return the name of the folder."""
        return self.path.resolve().name

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits: those of the files in `qrels`, in alphabetical order."""
        names = [file.name.removesuffix(".gz") for file in (self.path / "qrels").iterdir()]
        return tuple(sorted({name[:-4] for name in names if name.endswith(".tsv")}))

    # ---- judgements and queries

    def qrels(self, split: str = "test") -> Qrels:
        """Read the judgements of a split.

        Raises:
            InvalidEvaluation: There is no such split, a line is malformed, or there is no
                judgement.
        """
        return Qrels.read(self._qrels_path(split))

    def queries(self, split: str | None = "test") -> dict[str, str]:
        """Read the queries that a split judges, by id, in the order of the file.

        Args:
            split: None reads all queries, whether or not they are judged.

        Raises:
            InvalidEvaluation: There is no such split, a line is malformed, two have one id, or a
                query that the split judges is missing. A query without text is kept.
        """
        path = existing(self.path / "queries.jsonl")
        judged = None if split is None else self.qrels(split)
        queries: dict[str, str] = {}
        lines: dict[str, int] = {}
        for line in read_objects(path, example=_QUERY):
            query_id = _id_of(line, path, _QUERY)
            if query_id in lines:
                raise _same_id("query", query_id, lines[query_id], line.number, path)
            lines[query_id] = line.number
            text = _text_of(line, path, _QUERY)
            if judged is None or query_id in judged:
                queries[query_id] = text
        if split is not None and judged is not None and len(queries) < len(judged):
            self._refuse_unknown_queries(split, [one for one in judged if one not in queries], path)
        return queries

    def _refuse_unknown_queries(self, split: str, missing: list[str], path: Path) -> None:
        tsv = self._qrels_path(split)
        number, query_id = _first_line_of(tsv, set(missing))
        others = f" (and {len(missing) - 1:,} more)" if len(missing) > 1 else ""
        raise InvalidEvaluation(
            f"judges the query {query_id!r}, which is not in {path.name}{others}.",
            hint=f"Add it to {path}, or remove its lines here.",
            path=str(tsv),
            line=number,
        )

    def _qrels_path(self, split: str) -> Path:
        if split not in self.splits:
            raise InvalidEvaluation(
                f"has no split {shown(split)}.",
                hint=f"Choose one of {', '.join(self.splits)}."
                if self.splits
                else f"Its folder qrels has no file that ends in .tsv; put {split}.tsv there.",
                path=str(self.path),
            )
        return existing(self.path / "qrels" / f"{split}.tsv")

    # ---- documents

    def documents(self) -> Iterator[Document]:
        """Yield the documents of the corpus, in the order of the file, reading as it goes.

        The text is title and text joined by one space, or the text alone if there is no title.
        Further keys are the metadata; the object under `metadata` is merged into it.

        Raises:
            InvalidEvaluation: A line is not a document. That two have one id is found by
                `document_ids`.
        """
        path = self._corpus
        for line in read_objects(path, example=_DOCUMENT):
            yield _document(line, path)

    def document_ids(self, progress: ProgressCallback | None = None) -> DocumentIds:
        """Read and check the whole corpus, and return the ids of its documents.

        The result is kept. It takes 8 bytes for each document.

        Args:
            progress: Called with a `Progress` from time to time.

        Raises:
            InvalidEvaluation: A line is not a document, two have one id, or there is none.
        """
        if self._ids:
            return self._ids[0]
        hashes = array("q")
        for document in self.documents():
            hashes.append(_hash(document.id or ""))
            if progress is not None and len(hashes) % _REPORT_EVERY == 0:
                progress(Progress("read", len(hashes), None, "documents", item=document.id or ""))
        if not hashes:
            raise InvalidEvaluation(
                "holds no document.",
                hint=f"Each line is one, such as {_DOCUMENT}.",
                path=str(self._corpus),
            )
        ids = DocumentIds(np.frombuffer(hashes, np.int64))
        if suspects := ids.repeated:
            self._refuse_repeated_ids(suspects)
        self._ids.append(ids)
        return ids

    def _refuse_repeated_ids(self, suspects: set[int]) -> None:
        """Raise if two documents have one id, and not only equal hashes of their ids."""
        path = self._corpus
        lines: dict[str, int] = {}
        for line in read_objects(path, example=_DOCUMENT):
            document_id = _id_of(line, path, _DOCUMENT)
            if _hash(document_id) not in suspects:
                continue
            if document_id in lines:
                raise _same_id("document", document_id, lines[document_id], line.number, path)
            lines[document_id] = line.number

    @property
    def _corpus(self) -> Path:
        return existing(self.path / "corpus.jsonl")


def _hash(document_id: str) -> int:
    """Return 64 bits of an id's hash, the same in every process."""
    digest = hashlib.blake2b(document_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} and {names[-1]}"


def _missing(folder: Path) -> list[str]:
    """Return what a folder lacks of the layout."""
    missing = [
        f"{name} (or {name}.gz)"
        for name in ("corpus.jsonl", "queries.jsonl")
        if not existing(folder / name).is_file()
    ]
    return missing + ([] if (folder / "qrels").is_dir() else ["qrels/"])


def _id_of(line: Line, path: Path, example: str) -> str:
    """Return the id of a document or query; one that is a whole number becomes its digits."""
    given = line.value.get("_id")
    number = as_whole(given)
    document_id = given if number is None else str(number)
    if isinstance(document_id, str) and document_id and len(document_id.split()) == 1:
        return document_id
    if "_id" not in line.value:
        what = f"has no _id; its keys are {_keys(line.value)}."
    elif isinstance(document_id, str) and document_id.strip():
        what = f"has the _id {shown(document_id)}; white space separates the columns of a run."
    else:
        what = f"has the _id {shown(given)}."
    raise InvalidEvaluation(
        what,
        hint=f"An _id is a string without white space, or a whole number: {example}.",
        path=str(path),
        line=line.number,
    )


def _text_of(line: Line, path: Path, example: str) -> str:
    text = line.value.get("text")
    if isinstance(text, str):
        return text
    what = f"has the text {shown(text)}, which is not a string."
    if "text" not in line.value:
        what = f"has no text; its keys are {_keys(line.value)}."
    raise InvalidEvaluation(
        what, hint=f'Write {example}; a text may be "".', path=str(path), line=line.number
    )


def _keys(value: Mapping[str, Any]) -> str:
    names = [shown(name, 40) for name in value]
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "") or "none"


def _document(line: Line, path: Path) -> Document:
    document_id, text = _id_of(line, path, _DOCUMENT), _text_of(line, path, _DOCUMENT)
    title = line.value.get("title")
    if title is not None and not isinstance(title, str):
        raise InvalidEvaluation(
            f"has the title {shown(title)}, which is not a string.",
            hint="Write it as a string; null, or no title, means that there is none.",
            path=str(path),
            line=line.number,
        )
    metadata = {key: value for key, value in line.value.items() if key not in _FIELDS}
    inner = line.value.get("metadata")
    if isinstance(inner, dict):
        metadata |= inner
    elif inner is not None:
        metadata["metadata"] = inner
    joined = f"{title} {text}" if title and title.strip() else text
    try:
        return to_document(Document(joined, id=document_id, metadata=metadata), line.number, 0)
    except UsageError as exc:
        raise InvalidEvaluation(
            f"cannot be indexed. {exc.message}", hint=exc.hint, path=str(path), line=line.number
        ) from exc


def _same_id(what: str, name: str, first: int, second: int, path: Path) -> InvalidEvaluation:
    return InvalidEvaluation(
        f"has the _id {name!r} of another {what}, that on line {first}.",
        hint="Give each its own _id, or remove one of the lines.",
        path=str(path),
        line=second,
    )


def _first_line_of(tsv: Path, queries: Iterable[str]) -> tuple[int | None, str]:
    """Return the first line of a file of judgements that judges one of some queries."""
    wanted = set(queries)
    with lines_of(tsv) as lines:
        for number, line in enumerate(lines, 1):
            columns = line.split(b"\t" if b"\t" in line else None)
            query = columns[0].decode("utf-8", "replace").strip() if columns else ""
            if query in wanted:
                return number, query
    return None, min(wanted)

"""The way in: documents to chunks to embeddings to commits.

A batch is committed after 1,000 documents or 5 seconds, so that a call which is killed keeps a
prefix. All documents of one file are in one commit. Embeddings of texts that the index already
holds are taken over, never computed again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from retriever.documents.chunking import Chunker, Chunking
from retriever.encoders.protocol import Encoder
from retriever.errors import ModelError
from retriever.storage import catalog, rows
from retriever.storage.records import FileRow, Space
from retriever.storage.segments import covered
from retriever.storage.transaction import Encoded, Transaction
from retriever.storage.writer import Writer
from retriever.types import Chunk, Document, IngestReport, Ledger, Progress, Span

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH_DOCUMENTS = 1_000
BATCH_SECONDS = 5.0
BATCH_CHUNKS = 16_384
GROUP_DOCUMENTS = 128
GROUP_CHARACTERS = 100_000
ENCODE_CHUNKS = 256

ProgressCallback: TypeAlias = Callable[[Progress], None]


@dataclass(slots=True)
class Unit:
    """What goes into one commit undivided: a file's documents, or one document.

    Attributes:
        documents: In order; none means that only the file's state is recorded.
        file: The file they came from.
        replaces_file: Whether documents the file gave earlier are removed.
        removes_file: Whether the file is gone and forgotten with its documents.
    """

    documents: Sequence[Document] = ()
    file: FileRow | None = None
    replaces_file: bool = False
    removes_file: bool = False


@dataclass(slots=True)
class _Batch:
    units: list[tuple[Unit, list[Encoded]]] = field(default_factory=list)
    vectors: dict[bytes, NDArray[np.float32]] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    documents: int = 0
    chunks: int = 0

    @property
    def is_due(self) -> bool:
        return (
            self.documents >= BATCH_DOCUMENTS
            or self.chunks >= BATCH_CHUNKS
            or time.monotonic() - self.began >= BATCH_SECONDS
        )


class EncodingPipeline:
    """Documents to `Encoded`: chunks, hashes, vectors and ledger, for one space.

    Embeddings are taken from this space and from `donors`, spaces of the same encoder, where
    they hold the text; without `reuse`, for an index that is not trusted, they never are.

    Attributes:
        encoded: Chunks that were encoded.
        tokens: Tokens in these.
    """

    def __init__(
        self,
        writer: Writer,
        space: Space,
        encoder: Callable[[], Encoder],
        donors: Sequence[Space] = (),
        reuse: bool = True,
        after_slice: Callable[[], None] = lambda: None,
    ) -> None:
        self._writer = writer
        self._space = space
        self._after_slice = after_slice
        self._donors = (space, *donors) if reuse else ()
        self._encoder = encoder
        self._chunking = Chunking.parse(space.chunking)
        self._chunker: Chunker | None = None
        self.encoded = 0
        self.tokens = 0

    def encode(
        self, documents: Sequence[Document], known: dict[bytes, NDArray[np.float32]]
    ) -> list[Encoded]:
        """Return what to store for each document; `known` vectors are used and added to."""
        chunked = self._chunk(documents)
        texts: dict[bytes, tuple[str, int]] = {}
        hashes: list[list[bytes]] = []
        for document, (chunks, _) in zip(documents, chunked, strict=True):
            wanted = [self._chunking.encoded_text(chunk) for chunk in chunks]
            hashes.append([rows.text_hash(text) for text in wanted])
            if document.embedding is None:
                sizes = (chunk.tokens for chunk in chunks)
                texts.update(zip(hashes[-1], zip(wanted, sizes, strict=True), strict=True))
        self._find_vectors(texts, known)
        return [
            _assemble(document, chunks, ledger, names, known, self._space.dimension)
            for document, (chunks, ledger), names in zip(documents, chunked, hashes, strict=True)
        ]

    def _chunk(self, documents: Sequence[Document]) -> list[tuple[tuple[Chunk, ...], Ledger]]:
        own = [d for d in documents if d.embedding is None and d.text and not d.text.isspace()]
        if own and self._chunker is None:
            encoder = self._encoder()
            self._chunker = Chunker(encoder.tokenizer, encoder.max_tokens, self._chunking)
        chunked = iter(self._chunker.chunk(own) if self._chunker else ())
        needs = {id(document) for document in own}
        return [
            next(chunked) if id(document) in needs else _single_chunk(document)
            for document in documents
        ]

    def _find_vectors(
        self, texts: dict[bytes, tuple[str, int]], known: dict[bytes, NDArray[np.float32]]
    ) -> None:
        wanted = [name for name in texts if name not in known]
        missing = wanted
        for donor in self._donors:
            stored = catalog.vectors_by_text(self._writer.connection, donor, missing)
            known.update({name: np.frombuffer(data, "<f4") for name, data in stored.items()})
            missing = [name for name in missing if name not in known]
        for start in range(0, len(missing), ENCODE_CHUNKS):
            names = missing[start : start + ENCODE_CHUNKS]
            vectors = self._encoder().encode_documents([texts[name][0] for name in names])
            known.update(zip(names, self._checked(vectors, len(names)), strict=True))
            self.encoded += len(names)
            self.tokens += sum(texts[name][1] for name in names)
            self._after_slice()

    def _checked(self, vectors: NDArray[np.float32], count: int) -> NDArray[np.float32]:
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.shape != (count, self._space.dimension) or not np.isfinite(vectors).all():
            raise ModelError(
                f"The encoder returned an array of shape {vectors.shape} or values that are not "
                f"finite; expected ({count}, {self._space.dimension}).",
                hint="Check the model, or open the index with the encoder it was built with.",
            )
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        if not norms.all():
            raise ModelError(
                "The encoder returned a zero vector, which has no direction.",
                hint="Check the model, or open the index with the encoder it was built with.",
            )
        unit: NDArray[np.float32] = (vectors / norms).astype(np.float32)
        return unit


def _single_chunk(document: Document) -> tuple[tuple[Chunk, ...], Ledger]:
    """Return the one chunk of a document that brings its embedding; none for an empty one."""
    if document.embedding is None:
        return (), Ledger()
    text = document.text
    size = Span(0, len(text.encode()))
    lines = (1, len(text.splitlines()) or 1)
    chunk = Chunk(0, Span(0, len(text)), size, lines, (), None, 0, text)
    return (chunk,), Ledger()


def _assemble(
    document: Document,
    chunks: tuple[Chunk, ...],
    ledger: Ledger,
    hashes: list[bytes],
    known: dict[bytes, NDArray[np.float32]],
    dimension: int,
) -> Encoded:
    if document.embedding is not None:
        return Encoded(chunks, hashes, document.embedding[None, :], ledger, supplied=True)
    if not chunks:
        return Encoded((), (), np.empty((0, dimension), np.float32), ledger)
    return Encoded(chunks, hashes, np.stack([known[name] for name in hashes]), ledger)


class Ingest:
    """One call of `add` or `add_files`: units in, commits out, a report of both."""

    def __init__(
        self,
        writer: Writer,
        space: Space,
        encoder: Callable[[], Encoder],
        after_commit: Callable[[], None],
        progress: ProgressCallback | None,
        *,
        reuse: bool,
    ) -> None:
        self._writer = writer
        self._space = space
        self._pipeline = EncodingPipeline(
            writer, space, encoder, reuse=reuse, after_slice=self._tell
        )
        self._after_commit = after_commit
        self._progress = progress
        self._batch = _Batch()
        self._read = self._finished = 0
        self._total: int | None = None
        self._unit = self._item = ""
        self._is_waiting = False
        self.report = IngestReport()

    def run(self, units: Iterable[Unit]) -> IngestReport:
        """Take in every unit; on failure the exception carries `.report`."""
        began = time.monotonic()
        try:
            for group in self._groups(units):
                self._take(group)
                if self._batch.is_due:
                    self._commit()
            self._commit()
        except BaseException as exc:
            exc.report = self.report  # type: ignore[attr-defined]
            raise
        finally:
            self.report.seconds = time.monotonic() - began
            self.report.encoded = self._pipeline.encoded
        return self.report

    def tell(self, read: int, total: int | None, unit: str, item: str) -> None:
        """Note that `read` files or documents were read; they are done once they are encoded."""
        self._read, self._total, self._unit, self._item = read, total, unit, item
        if not self._is_waiting:
            self._finished = read
        self._tell()

    def _tell(self) -> None:
        if self._progress is not None and self._unit:
            self._progress(
                Progress(
                    "index",
                    self._finished,
                    self._total,
                    self._unit,
                    self._pipeline.tokens,
                    self._item,
                )
            )

    def _groups(self, units: Iterable[Unit]) -> Iterator[list[Unit]]:
        """Collect units into groups that are worth one call of tokenizer and encoder."""
        group: list[Unit] = []
        documents = characters = 0
        for unit in units:
            group.append(unit)
            self._is_waiting = True
            documents += max(1, len(unit.documents))
            characters += sum(len(document.text) for document in unit.documents)
            full = documents >= GROUP_DOCUMENTS or characters >= GROUP_CHARACTERS
            if full or self._batch.documents + documents >= BATCH_DOCUMENTS or self._batch.is_due:
                yield group
                group, documents, characters = [], 0, 0
        if group:
            yield group

    def _take(self, group: list[Unit]) -> None:
        documents = [document for unit in group for document in unit.documents]
        encoded = iter(self._pipeline.encode(documents, self._batch.vectors))
        for unit in group:
            mine = [next(encoded) for _ in unit.documents]
            self._batch.units.append((unit, mine))
            self._batch.documents += len(mine)
            self._batch.chunks += sum(len(one.chunks) for one in mine)
        self._is_waiting = False
        self._finished = self._read + (self._read != self._total)
        self._tell()

    def _commit(self) -> None:
        batch, self._batch = self._batch, _Batch()
        if not batch.units:
            return
        tally = IngestReport(commits=1)
        change: Transaction | None = None
        try:
            with self._writer.transaction() as change:
                self._store_batch(change, batch, tally)
        finally:
            if change is not None and change.is_committed:
                self._add_up(tally)
        if change.is_committed:
            self._after_commit()

    def _store_batch(self, change: Transaction, batch: _Batch, tally: IngestReport) -> None:
        connection = self._writer.connection
        covered_to = covered(catalog.segments(connection, self._space.id))
        names = [document.id or "" for unit, _ in batch.units for document in unit.documents]
        there = catalog.existing_ids(connection, names)
        for unit, encoded in batch.units:
            self._store(change, unit, encoded, covered_to, there, tally)

    def _store(
        self,
        change: Transaction,
        unit: Unit,
        encoded: list[Encoded],
        covered_to: int,
        there: set[str],
        tally: IngestReport,
    ) -> None:
        gone = set()
        if unit.file is not None and (unit.replaces_file or unit.removes_file):
            for old in catalog.ids_of_file(self._writer.connection, unit.file.path):
                change.delete_document(old, covered_to)
                gone.add(old)
        file_id = None
        if unit.file is not None:
            if unit.removes_file:
                change.forget_file(unit.file.path)
                tally.removed += len(gone)
                return
            file_id = change.put_file(unit.file)
        for document, one in zip(unit.documents, encoded, strict=True):
            name = document.id or ""
            is_there = name in there and change.delete_document(name, covered_to)
            known = is_there or name in gone
            gone.discard(name)
            there.add(name)
            change.add_document(self._space, document, one, file_id)
            _count(tally, one, replaced=known)
        tally.removed += len(gone)

    def _add_up(self, tally: IngestReport) -> None:
        for name in (
            "added",
            "replaced",
            "removed",
            "empty",
            "chunks",
            "tokens",
            "cut",
            "commits",
        ):
            setattr(self.report, name, getattr(self.report, name) + getattr(tally, name))


def _count(tally: IngestReport, encoded: Encoded, *, replaced: bool) -> None:
    if replaced:
        tally.replaced += 1
    else:
        tally.added += 1
    tally.empty += not encoded.chunks
    tally.chunks += len(encoded.chunks)
    tally.tokens += encoded.ledger.tokens
    tally.cut += encoded.ledger.cut

"""The way in: what was read, by way of the pipeline, to commits.

A batch is committed after 1,000 documents or 5 seconds, so that a call which is killed keeps a
prefix. All documents of one file are in one commit.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from retriever.encoders.checked import CheckedEncoder
from retriever.errors import IndexBusy, RetrieverError
from retriever.ingest.pipeline import Done, EncodingPipeline
from retriever.ingest.repeats import Repeats
from retriever.storage import catalog, records
from retriever.storage.records import FileRow, Space
from retriever.storage.segments import covered
from retriever.storage.transaction import Encoded, Transaction
from retriever.storage.writer import Writer
from retriever.types import Document, FileOutcome, IngestReport, Progress, ProgressCallback

if TYPE_CHECKING:
    import sqlite3

_log = logging.getLogger("retriever")
BATCH_DOCUMENTS = 1_000
BATCH_SECONDS = 5.0
GIVE_WAY_SECONDS = 0.1
BATCH_CHUNKS = 16_384
BATCH_CHARACTERS = 16_000_000


@dataclass(slots=True)
class Unit:
    """What goes into one commit undivided: a file's documents, or one document.

    Attributes:
        documents: In order; none means that only the file's state is recorded.
        file: The file they came from.
        replaces_file: Whether documents the file gave earlier are removed.
        removes_file: Whether the file is gone and forgotten with its documents.
        renamed_from: What the file, and its documents, were called before.
        size: What encoding it is taken to cost, beside others of the call: bytes, or characters.
    """

    documents: Sequence[Document] = ()
    file: FileRow | None = None
    replaces_file: bool = False
    removes_file: bool = False

    renamed_from: bytes | None = None
    size: int = 0

    @property
    def is_something(self) -> bool:
        """Return whether there is anything to store."""
        return bool(self.documents) or self.file is not None

    def is_outdated(self, connection: sqlite3.Connection) -> bool:
        """Return whether it is only the record of a file whose documents are no longer the same.

        Another writer may have deleted, restored or replaced them since the file was looked at.
        """
        if self.file is None or self.replaces_file or self.removes_file:
            return False
        now, is_indexed = catalog.file_at(connection, self.file.path), self.file.state == "indexed"
        if now is None:
            return is_indexed
        if "deleted" in (now.state, self.file.state):
            return now.state != self.file.state
        return is_indexed and now.state == "indexed" and not now.is_whole


@dataclass(slots=True)
class _Batch:
    units: Done[Unit] = field(default_factory=list)
    seconds: float = 5.0
    began: float = field(default_factory=time.monotonic)
    documents: int = 0
    chunks: int = 0
    characters: int = 0

    def add(self, group: Done[Unit]) -> None:
        self.units += group
        for unit, encoded in group:
            self.documents += len(encoded)
            self.chunks += sum(len(one.chunks) for one in encoded)
            self.characters += sum(len(document.text) for document in unit.documents)

    @property
    def is_due(self) -> bool:
        return (
            self.documents >= BATCH_DOCUMENTS
            or self.chunks >= BATCH_CHUNKS
            or self.characters >= BATCH_CHARACTERS
            or time.monotonic() - self.began >= self.seconds
        )


def require_active(writer: Writer, space: Space) -> None:
    """Refuse to go on with a space that another writer has replaced meanwhile.

    Raises:
        IndexBusy: It is no longer the active one.
    """
    if catalog.active_space(writer.connection).id != space.id:
        raise IndexBusy(
            f"{writer.directory} was rebuilt by another writer while this call let it write.",
            hint="Repeat the call; what it had committed was rebuilt with the rest.",
        )


def share_of(done: float, work: int | None) -> float | None:
    """Return how much of some work is done, from 0 to 1, or None where there is none to do."""
    return min(1.0, done / work) if work else None


class Ingest:
    """One call of `add` or `add_files`: units in, commits out, a report of both."""

    def __init__(
        self,
        writer: Writer,
        space: Space,
        encoder: Callable[[], CheckedEncoder],
        after_commit: Callable[[], None],
        progress: ProgressCallback | None,
        *,
        reuse: bool,
        give_way: Callable[[], bool] = lambda: False,
    ) -> None:
        self._writer = writer
        self._space = space
        self._pipeline = EncodingPipeline(
            writer,
            space,
            encoder,
            reuse=reuse,
            after_slice=self._tell,
            while_waiting=self._let_others_write,
        )
        self._give_way = give_way
        self._gave_way = time.monotonic()
        self._ended_by: RetrieverError | None = None
        self._base: str | None = None
        self._after_commit = after_commit
        self._progress = progress
        self._repeats = Repeats(writer, space, reuse=reuse)
        self.report = IngestReport()
        self._batch = self._next_batch()
        self._refusal: RetrieverError | None = None
        self._ahead: deque[int] = deque()
        self._read = self._finished = self._taken = 0
        self._total: int | None = None
        self._work: int | None = None
        self._unit = self._item = ""

    def run(self, units: Iterable[Unit]) -> IngestReport:
        """Take in every unit; on failure the exception carries `.report`."""
        began = time.monotonic()
        try:
            groups = self._pipeline.encode(
                self._noted(units),
                documents=BATCH_DOCUMENTS,
                seconds=BATCH_SECONDS,
                refuse=self._refuse,
            )
            with closing(groups):
                for group in groups:
                    self._take(group)
                    if self._batch.is_due:
                        self._commit()
                        self._let_others_write()
                self._commit()
            self._require_some()
        except BaseException as exc:
            exc.report = self.report  # type: ignore[attr-defined]
            raise
        finally:
            self.report.seconds = time.monotonic() - began
            self.report.encoded = self._pipeline.encoded
        return self.report

    def note_base(self) -> None:
        """Note that the units are files, named relative to what is recorded as the base now."""
        self._base = catalog.setting(self._writer.connection, records.BASE)

    def tell(
        self, read: int, total: int | None, unit: str, item: str, work: int | None = None
    ) -> None:
        """Note that `read` files or documents were read; they are done once they are encoded.

        Args:
            read: How many.
            total: How many there are, if that is known.
            unit: `files` or `documents`.
            item: The name of the next.
            work: The sum of the sizes of all units that there are and will be, as far as anybody
                knows by now.
        """
        self._read, self._total, self._unit, self._item = read, total, unit, item
        self._work = work
        if not self._ahead and not self._batch.units:
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
                    share_of(self._pipeline.size, self._work),
                )
            )

    def require_consistent(self, document: Document, position: int) -> None:
        """Refuse a document if this call of `add` has brought another one with its id.

        Raises:
            InvalidDocument: Both positions are named, as far as they are known.
        """
        self._repeats.require_consistent(document, position)

    def is_unchanged(self, document: Document, position: int) -> bool:
        """Return whether a document of `add` is there as it is, and count it then."""
        is_there = self._repeats.is_there(document, position)
        self.report.unchanged += is_there
        return is_there

    def _refuse(self, unit: Unit, document: Document, error: RetrieverError) -> Unit:
        """Report a document that the encoder cannot do, and return what is stored instead."""
        name = document.id or ""
        self._repeats.forget(name)
        reason = str(error)
        if catalog.document_pk(self._writer.connection, name) is not None:
            reason = f"{reason} The version indexed before is kept."
        self.report.failed.append(FileOutcome(name, "failed", reason))
        _log.warning("%s is left out: %s", name, reason)
        if unit.file is None:
            self._refusal = error
            return Unit()
        return Unit(file=FileRow(unit.file.path, "failed", reason))

    def _require_some(self) -> None:
        """Raise what the encoder said of documents if it refused all that there were."""
        report = self.report
        if self._refusal and not (
            report.added or report.replaced or report.unchanged or report.empty
        ):
            raise self._refusal

    def _noted(self, units: Iterable[Unit]) -> Iterator[Unit]:
        """Yield units, noting for each how many files or documents are done when it is."""
        for unit in units:
            self._ahead.append(self._including_this())
            yield unit
            if time.monotonic() - self._gave_way > GIVE_WAY_SECONDS:
                self._let_others_write()

    def _let_others_write(self) -> None:
        """Give way to writers that wait, and see that the index is still the one begun with."""
        self._gave_way = time.monotonic()
        try:
            if self._give_way():
                require_active(self._writer, self._space)
                self._require_base()
        except RetrieverError as exc:
            self._ended_by = exc  # it is held back until what was read before is encoded
            raise

    def _require_base(self) -> None:
        """Refuse to go on with names that another writer has changed meanwhile.

        Raises:
            IndexBusy: They are relative to another folder now.
        """
        now = catalog.setting(self._writer.connection, records.BASE)
        if self._base is not None and now != self._base:
            raise IndexBusy(
                f"The files of {self._writer.directory} were given other names by another writer "
                "while this call let it write: their base has changed.",
                hint="Repeat the call; what it had committed was renamed with the rest.",
            )

    def _including_this(self) -> int:
        return self._read + (self._read != self._total)

    def _take(self, group: Done[Unit]) -> None:
        count = sum(len(encoded) for _, encoded in group)
        if self._batch.documents + count > BATCH_DOCUMENTS:
            self._commit()
        self._batch.add([(unit, encoded) for unit, encoded in group if unit.is_something])
        for _ in group:
            self._taken = self._ahead.popleft()

    def _next_batch(self) -> _Batch:
        """Return an empty batch; the first are short, so that little is lost early on too."""
        return _Batch(seconds=BATCH_SECONDS * min(1.0, 0.1 * 2**self.report.commits))

    def _commit(self) -> None:
        batch, self._batch = self._batch, self._next_batch()
        if self._ended_by is not None:
            raise self._ended_by
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
            for _, encoded in batch.units:
                self._pipeline.forget(encoded)
            self._repeats.note_stored(one for unit, _ in batch.units for one in unit.documents)
            self._after_commit()
        self._finished = self._taken if self._ahead else self._including_this()
        self._tell()

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
        connection = self._writer.connection
        gone = set()
        if unit.file is not None and unit.renamed_from is not None:
            change.rename_file(unit.renamed_from, unit.file.path, covered_to)
        if unit.file is not None and (unit.replaces_file or unit.removes_file):
            for old in catalog.ids_of_file(connection, unit.file.path):
                change.delete_document(old, covered_to)
                gone.add(old)
        file_id = None
        if unit.file is not None:
            if unit.is_outdated(connection):
                return
            if unit.removes_file:
                change.forget_file(unit.file.path)
                tally.removed += len(gone)
                return
            file_id = change.put_file(unit.file)
        for document, one in zip(unit.documents, encoded, strict=True):
            name = document.id or ""
            if unit.file is None and name in there:
                _take_from_file(change, name)
            is_there = name in there and change.delete_document(name, covered_to)
            if is_there and unit.file is not None:
                _log.warning("%s: the file replaces a document that was added under its name", name)
            known = is_there or name in gone
            gone.discard(name)
            there.add(name)
            change.add_document(self._space, document, one, file_id)
            tally.replaced += known
            tally.added += not known
            tally.note(name, len(one.chunks), one.ledger)
            if isinstance(doubt := document.metadata.get("encoding_doubt"), str):
                tally.doubtful.append(FileOutcome(name, "indexed", doubt))
        tally.removed += len(gone)

    def _add_up(self, tally: IngestReport) -> None:
        for name in (
            "added",
            "replaced",
            "removed",
            "empty",
            "doubtful",
            "unfamiliar",
            "chunks",
            "noise",
            "tokens",
            "cut",
            "commits",
        ):
            setattr(self.report, name, getattr(self.report, name) + getattr(tally, name))


def _take_from_file(change: Transaction, document_id: str) -> None:
    """Have a file whose document is replaced by hand be read by the next run, and be back then."""
    owner = catalog.file_of_document(change.connection, document_id)
    if owner is not None and owner.state == "indexed":
        change.put_file(owner._replace(reason=f"{document_id!r} was added"))

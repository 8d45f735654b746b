"""Run one call of `add` or `add_files`: have changes encoded, and commit them in batches.

A batch is committed after 1,000 documents or 5 seconds, so that a call which is killed keeps a
prefix. A change is in one commit as a whole.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

from retriever.encoders.checked import CheckedEncoder
from retriever.errors import IndexBusy, RetrieverError
from retriever.ingest.changes import Change
from retriever.ingest.pipeline import Done, EncodingPipeline
from retriever.ingest.repeats import Repeats
from retriever.ingest.storing import store
from retriever.ingest.tally import IngestTally
from retriever.limits import Limits
from retriever.reports import IngestReport
from retriever.storage import catalog, records
from retriever.storage.records import FileRow, Space
from retriever.storage.transaction import Transaction
from retriever.storage.writer import Writer
from retriever.types import Document, FileOutcome, Progress, ProgressCallback

_log = logging.getLogger("retriever")


@dataclass(slots=True)
class _Batch:
    """Changes that are encoded and go into the next commit."""

    limits: Limits
    seconds: float
    changes: Done[Change] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    documents: int = 0
    chunks: int = 0
    characters: int = 0

    def add(self, group: Done[Change]) -> None:
        self.changes += group
        for change, encoded in group:
            self.documents += len(encoded)
            self.chunks += sum(len(one.chunks) for one in encoded)
            self.characters += sum(len(document.text) for document in change.documents)

    @property
    def is_due(self) -> bool:
        return (
            self.documents >= self.limits.commit_documents
            or self.chunks >= self.limits.commit_chunks
            or self.characters >= self.limits.commit_characters
            or time.monotonic() - self.began >= self.seconds
        )


def require_active(writer: Writer, space: Space) -> None:
    """Raise if another writer has replaced a space while it was let write.

    Raises:
        IndexBusy: It is no longer the active one.
    """
    if catalog.active_space(writer.connection).id != space.id:
        raise IndexBusy(
            f"{writer.directory} was rebuilt by another writer while this call let it write.",
            hint="Repeat the call; what it had committed was rebuilt with the rest.",
        )


def share_of(done: float, size: int | None) -> float | None:
    """Return how much of a size is done, from 0 to 1, or None where there is nothing to do."""
    return min(1.0, done / size) if size else None


class Ingest:
    """One call of `add` or `add_files`.

    Args:
        writer: Where to.
        space: The space that is searched.
        encoder: Returns its encoder; called when the first text has to be encoded.
        after_commit: Called after each commit.
        progress: Called with a `Progress` now and then.
        give_way: Lets writers write that wait for the lock; returns whether any did.
        limits: How much is encoded and committed at a time.

    Attributes:
        writer: As given, and so are `space` and `limits`.
        tally: What was done so far.
    """

    def __init__(
        self,
        writer: Writer,
        space: Space,
        encoder: Callable[[], CheckedEncoder],
        after_commit: Callable[[], None],
        progress: ProgressCallback | None,
        *,
        give_way: Callable[[], bool] = lambda: False,
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.writer = writer
        self.space = space
        self._pipeline = EncodingPipeline(
            writer,
            space,
            encoder,
            after_slice=self._tell,
            while_waiting=self._let_others_write,
            limits=self.limits,
        )
        self._give_way = give_way
        self._gave_way = time.monotonic()
        self._ended_by: RetrieverError | None = None
        self._base: str | None = None
        self._after_commit = after_commit
        self._progress = progress
        self._repeats = Repeats(writer, space)
        self.tally = IngestTally()
        self._batch = self._next_batch()
        self._refusal: RetrieverError | None = None
        self._failed_files: dict[bytes, str] = {}
        # For each change that is read and not yet in a batch: how many files or documents are
        # done once it is committed.
        self._done_with: deque[int] = deque()
        self._read = self._finished = self._taken = 0
        self._total: int | None = None
        self._size: int | None = None
        self._unit = self._item = ""
        self._is_amid_file = False

    def run(self, changes: Iterable[Change]) -> IngestReport:
        """Encode and commit every change; on failure the exception carries `.report`."""
        began = time.monotonic()
        try:
            groups = self._pipeline.encode(
                self._noted(changes),
                documents=self.limits.commit_documents,
                seconds=self.limits.commit_seconds,
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
            exc.report = self._report(began)  # type: ignore[attr-defined]
            raise
        return self._report(began)

    def _report(self, began: float) -> IngestReport:
        self.tally.seconds = time.monotonic() - began
        self.tally.encoded = self._pipeline.encoded
        return self.tally.report()

    def note_base(self) -> None:
        """Note that the changes are of files, and what their names are relative to now."""
        self._base = catalog.setting(self.writer.connection, records.BASE)

    def tell(
        self, read: int, total: int | None, unit: str, item: str, size: int | None = None
    ) -> None:
        """Note that `read` files or documents were read. Done are those that are committed.

        Args:
            read: How many.
            total: How many there are, if that is known.
            unit: `files` or `documents`.
            item: The name of the next one.
            size: The sum of the sizes of all changes of the call, as far as is known by now.
        """
        self._read, self._total, self._unit, self._item = read, total, unit, item
        self._size, self._is_amid_file = size, False
        if not self._done_with and not self._batch.changes:
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
                    share_of(self._pipeline.size, self._size),
                )
            )

    def require_consistent(self, document: Document, position: int) -> None:
        """Raise if this call of `add` has brought another document with the same id.

        Raises:
            InvalidDocument: Both positions are named, as far as they are known.
        """
        self._repeats.require_consistent(document, position)

    def is_unchanged(self, document: Document, position: int) -> bool:
        """Return whether a document of `add` is stored as it is, and count it as unchanged then."""
        is_there = self._repeats.is_there(document, position)
        self.tally.unchanged += is_there
        return is_there

    def is_stored(self, document: Document, path: bytes) -> bool:
        """Return whether a document of a file is in the index as it is, from that file."""
        return self._repeats.is_stored_from(document, path)

    def _refuse(self, change: Change, document: Document, error: RetrieverError) -> Change:
        """Report a document that cannot be encoded, and return what is stored instead."""
        name = document.id or ""
        self._repeats.forget(name)
        reason = str(error)
        if catalog.document_pk(self.writer.connection, name) is not None:
            reason = f"{reason} The version indexed before is kept."
        self.tally.failed.append(FileOutcome(name, "failed", reason))
        _log.warning("%s is left out: %s", name, reason)
        if change.file is None:
            self._refusal = error
            return Change()
        self._failed_files[change.file.path] = reason  # parts of it may follow
        return Change(file=FileRow(change.file.path, "failed", reason))

    def _require_some(self) -> None:
        """Raise the encoder's error if it has refused every document of the call."""
        done = self.tally
        if self._refusal and not (done.added or done.replaced or done.unchanged or done.empty):
            raise self._refusal

    def _noted(self, changes: Iterable[Change]) -> Iterator[Change]:
        """Yield changes, noting for each how many files or documents are done when it is."""
        for change in changes:
            self._is_amid_file = change.is_partial
            self._done_with.append(self._including_this())
            yield change
            # A slow source of documents may be read for long before a commit is due.
            if time.monotonic() - self._gave_way > self.limits.give_way_seconds:
                self._let_others_write()

    def _let_others_write(self) -> None:
        """Let waiting writers write, and end the call if one of them has replaced what it uses."""
        self._gave_way = time.monotonic()
        try:
            if self._give_way():
                require_active(self.writer, self.space)
                self._require_base()
        except RetrieverError as exc:
            self._ended_by = exc  # raised again before the next commit, which must not be made
            raise

    def _require_base(self) -> None:
        """Raise if another writer has renamed the files while it was let write.

        Raises:
            IndexBusy: Names are relative to another folder now.
        """
        now = catalog.setting(self.writer.connection, records.BASE)
        if self._base is not None and now != self._base:
            raise IndexBusy(
                f"The files of {self.writer.directory} were given other names by another writer "
                "while this call let it write: their base has changed.",
                hint="Repeat the call; what it had committed was renamed with the rest.",
            )

    def _including_this(self) -> int:
        """Return how many files or documents are done with the change read last."""
        return self._read + (self._read != self._total and not self._is_amid_file)

    def _take(self, group: Done[Change]) -> None:
        count = sum(len(encoded) for _, encoded in group)
        if self._batch.documents + count > self.limits.commit_documents:
            self._commit()
        self._batch.add([(change, encoded) for change, encoded in group if change.has_effect])
        for _ in group:
            self._taken = self._done_with.popleft()

    def _next_batch(self) -> _Batch:
        """Return an empty batch. The first ones are short, so that a kill early on loses little."""
        seconds = self.limits.commit_seconds * min(1.0, 0.1 * 2**self.tally.commits)
        return _Batch(self.limits, seconds)

    def _commit(self) -> None:
        batch, self._batch = self._batch, self._next_batch()
        if self._ended_by is not None:
            raise self._ended_by
        if not batch.changes:
            return
        tally: IngestTally | None = None
        transaction: Transaction | None = None
        try:
            with self.writer.transaction() as transaction:
                tally = store(transaction, self.space, batch.changes, self._failed_files)
        finally:
            # An interrupt may come after the commit point: what is committed is counted.
            if transaction is not None and transaction.is_committed and tally is not None:
                self.tally.add(tally)
        if transaction.is_committed:
            for _, encoded in batch.changes:
                self._pipeline.forget(encoded)
            self._repeats.note_stored(
                one for change, _ in batch.changes for one in change.documents
            )
            self._after_commit()
        self._finished = self._taken if self._done_with else self._including_this()
        self._tell()

"""Write sessions: one at a time, across the threads of a process and across processes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retriever.config import Limits
from retriever.errors import IndexReadOnly, WriteFailed
from retriever.search.segment_kinds import KINDS
from retriever.search.view import Views
from retriever.storage import segments
from retriever.storage.connections import sqlite_errors
from retriever.storage.pool import ReadPool
from retriever.storage.records import Space
from retriever.storage.writer import Writer

_log = logging.getLogger("retriever")


class WriteSessions:
    """The write sessions of one `Index`, one after another; a thread may nest its own.

    A session holds LOCK and the one connection that writes.

    Args:
        directory: The index.
        pool: Its read connections.
        views: Its views, which know of segments that searches found wrong.
        limits: When segments are written and merged.
        lock_timeout_s: Seconds to wait for another thread, and for another process.

    Attributes:
        has_written: Whether there was a session since the index was opened.
    """

    def __init__(
        self,
        directory: Path,
        pool: ReadPool,
        views: Views,
        *,
        limits: Limits,
        lock_timeout_s: float,
    ) -> None:
        self._directory = directory
        self._limits = limits
        self._pool = pool
        self._views = views
        self._lock_timeout_s = lock_timeout_s
        self._depth = 0
        self._writer: Writer | None = None
        self._holder: int | None = None
        self.has_written = False

    @property
    def is_open(self) -> bool:
        """Return whether some thread is in a session."""
        return self._writer is not None

    @property
    def is_of_this_thread(self) -> bool:
        """Return whether this thread is in a session."""
        return self._writer is not None and self._holder == threading.get_ident()

    @contextmanager
    def session(self) -> Iterator[Writer]:
        """Open a session, or join that of this thread; it ends with the outermost block.

        Raises:
            IndexLocked: Another thread or process wrote for `lock_timeout_s`.
            IndexReadOnly: The index cannot be written.
        """
        if self._writer is not None and self.is_of_this_thread:
            self._depth += 1
            try:
                yield self._writer
            finally:
                self._depth -= 1
            return
        writer = self._open_writer()  # threads wait for one another here as processes do
        try:
            self._begin(writer)
            with sqlite_errors(self._directory, writing=True):
                segments.sweep(writer)
                yield writer
        finally:
            if self._writer is writer:
                self._writer = self._holder = None
            writer.close()

    def _begin(self, writer: Writer) -> None:
        self._depth = 1
        self._holder = threading.get_ident()
        self._writer = writer
        self.has_written = True

    def give_way(self) -> bool:
        """Let waiting writers write, in the order in which they asked; return whether any did.

        Long calls do this between their commits. A nested session is in a block of `writing()`,
        which was promised that nobody writes in between: then nothing is done.

        Raises:
            IndexLocked, WriteFailed: As `Writer.give_way`; the session is over.
        """
        writer = self._writer
        if writer is None or self._depth > 1 or not writer.is_wanted():
            return False
        self._writer = self._holder = None
        writer.give_way(self._lock_timeout_s)
        self._begin(writer)
        segments.sweep(writer)
        return True

    def _open_writer(self) -> Writer:
        """Open a writer, even if this process has read the index while it was read-only.

        SQLite's shared memory, once opened read-only, stays so for all connections of a process
        until the last of them is closed.
        """
        try:
            return Writer.open(self._directory, timeout_s=self._lock_timeout_s)
        except IndexReadOnly:
            self._pool.close_idle()
            return Writer.open(self._directory, timeout_s=self._lock_timeout_s)

    def maintain(self, writer: Writer, space: Space) -> None:
        """Build, merge and mend segments after a commit, which a failure here does not undo."""
        try:
            segments.maintain(writer, space, KINDS, self._limits, self._views.condemned)
        except (WriteFailed, IndexReadOnly) as exc:
            _log.warning("%s The change is committed; the tail stays longer.", exc.message)
        else:
            self._views.condemned.clear()

"""Write sessions: one at a time, across the threads of a process and across processes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.errors import IndexReadOnly, WriteFailed
from retriever.limits import Limits
from retriever.search.segment_kinds import KINDS
from retriever.search.view import Views
from retriever.storage import segments
from retriever.storage.connections import sqlite_errors
from retriever.storage.pool import ReadPool
from retriever.storage.records import Space

if TYPE_CHECKING:
    from retriever.storage.writer import Writer

_log = logging.getLogger("retriever")


class WriteSessions:
    """The write sessions of one `Index`, one at a time; a thread can nest its own sessions.

    A session holds LOCK and the read-write connection.

    Args:
        directory: The index.
        pool: Its read connections.
        views: Its views, which record segments that searches found damaged.
        limits: When segments are written and merged.
        lock_timeout_s: Seconds to wait for another thread, and for another process.

    Attributes:
        has_written: Whether there has been a session since the index was opened.
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
        """Return whether any thread is in a session."""
        return self._writer is not None

    @property
    def is_of_this_thread(self) -> bool:
        """Return whether this thread is in a session."""
        return self._writer is not None and self._holder == threading.get_ident()

    @contextmanager
    def session(self) -> Iterator[Writer]:
        """Open a session, or join this thread's; it ends with the outermost block.

        Raises:
            IndexLocked: Another thread or process held the lock for `lock_timeout_s`.
            IndexReadOnly: The index cannot be written.
        """
        if self._writer is not None and self.is_of_this_thread:
            self._depth += 1
            try:
                yield self._writer
            finally:
                self._depth -= 1
            return
        # Threads of one process wait for each other at the same lock as processes do: each session
        # opens descriptors of its own, and `flock` excludes these from one another.
        writer = self._open_writer()
        try:
            self._begin(writer)
            with sqlite_errors(self._directory, writing=True):
                segments.sweep(writer)
                yield writer
        finally:
            # After a `give_way` that failed, another thread may have begun a session.
            if self._writer is writer:
                self._writer = self._holder = None
            writer.close()

    def _begin(self, writer: Writer) -> None:
        self._depth = 1
        self._holder = threading.get_ident()
        self._writer = writer
        self.has_written = True

    def give_way(self) -> bool:
        """Let waiting writers write, first come, first served; return whether any did.

        Long calls do this between their commits. A nested session does nothing: it is inside a
        `writing()` block, which guarantees that nobody else writes until its end.

        Raises:
            IndexLocked, WriteFailed: As `Writer.give_way`; the session has ended.
        """
        writer = self._writer
        if writer is None or self._depth > 1 or not writer.is_wanted():
            return False
        # While the lock is free, another thread may begin a session.
        self._writer = self._holder = None
        writer.give_way(self._lock_timeout_s)
        self._begin(writer)
        segments.sweep(writer)
        return True

    def _open_writer(self) -> Writer:
        """Open a writer, even if this process read the index while it could not write to it.

        Once SQLite has mapped its shared memory read-only, it stays read-only for all connections
        of the process until the last one is closed. Closing the idle ones allows a second try.
        """
        from retriever.storage.writer import Writer  # searches do without it

        try:
            return Writer.open(self._directory, timeout_s=self._lock_timeout_s)
        except IndexReadOnly:
            self._pool.close_idle()
            return Writer.open(self._directory, timeout_s=self._lock_timeout_s)

    def maintain(self, writer: Writer, space: Space) -> None:
        """Build, merge and repair segments after a commit, which a failure here does not undo."""
        try:
            segments.maintain(writer, space, KINDS, self._limits, self._views.condemned)
        except (WriteFailed, IndexReadOnly) as exc:
            _log.warning(
                "%s The change is committed, but its rows are not in a segment yet.", exc.message
            )
        else:
            self._views.condemned.clear()

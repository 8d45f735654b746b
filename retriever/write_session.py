"""Who may write: one call at a time, across the threads of a process and across processes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retriever.errors import IndexReadOnly, WriteFailed
from retriever.search.segment_kinds import KINDS
from retriever.search.view import Views
from retriever.storage import segments
from retriever.storage.connections import sqlite_errors
from retriever.storage.pool import ReadPool
from retriever.storage.records import Space
from retriever.storage.writer import Writer

_log = logging.getLogger("retriever")


class Writing:
    """The turns at writing that the threads of one `Index` take; a thread may nest them.

    Args:
        directory: The index.
        pool: Its read connections.
        views: Its views, which know of segments that searches found wrong.
        lock_timeout_s: Seconds to wait for another thread, and for another process.

    Attributes:
        has_written: Whether there was a turn.
    """

    def __init__(
        self,
        directory: Path,
        pool: ReadPool,
        views: Views,
        *,
        lock_timeout_s: float,
    ) -> None:
        self._directory = directory
        self._pool = pool
        self._views = views
        self._lock_timeout_s = lock_timeout_s
        self._depth = 0
        self._writer: Writer | None = None
        self._holder: int | None = None
        self.has_written = False

    @property
    def is_going_on(self) -> bool:
        """Return whether some thread has its turn."""
        return self._writer is not None

    @property
    def is_mine(self) -> bool:
        """Return whether this thread has its turn."""
        return self._writer is not None and self._holder == threading.get_ident()

    @contextmanager
    def turn(self) -> Iterator[Writer]:
        """Lend the writer, with LOCK held until the outermost block ends.

        Raises:
            IndexLocked: Another thread or process wrote for `lock_timeout_s`.
            IndexReadOnly: The index cannot be written.
        """
        if self._writer is not None and self.is_mine:
            self._depth += 1
            try:
                yield self._writer
            finally:
                self._depth -= 1
            return
        writer = self._open_writer()  # threads wait for one another here as processes do
        try:
            self._take(writer)
            with sqlite_errors(self._directory, writing=True):
                segments.sweep(writer)
                yield writer
        finally:
            if self._writer is writer:
                self._writer = self._holder = None
            writer.close()

    def _take(self, writer: Writer) -> None:
        self._depth = 1
        self._holder = threading.get_ident()
        self._writer = writer
        self.has_written = True

    def give_way(self) -> bool:
        """Let those write who wait, in order of asking; return whether anybody did.

        For long calls, between their commits. A turn that is nested is in a block of `writing()`,
        which gives no way.

        Raises:
            IndexLocked, WriteFailed: As `Writer.give_way`; the turn is over.
        """
        writer = self._writer
        if writer is None or self._depth > 1 or not writer.is_wanted():
            return False
        self._writer = self._holder = None
        writer.give_way(self._lock_timeout_s)
        self._take(writer)
        segments.sweep(writer)
        return True

    def _open_writer(self) -> Writer:
        """Open a writer; readers from a time when nothing could be written must not stop it.

        SQLite's shared memory, once opened read-only, stays so for all connections of a process.
        """
        try:
            return Writer.open(self._directory, timeout_s=self._lock_timeout_s)
        except IndexReadOnly:
            self._pool.close_idle()
            return Writer.open(self._directory, timeout_s=self._lock_timeout_s)

    def maintain(self, writer: Writer, space: Space) -> None:
        """Bring segments in order; they are caches, so a failure only leaves a longer tail."""
        try:
            segments.maintain(writer, space, KINDS, self._views.condemned)
        except (WriteFailed, IndexReadOnly) as exc:
            _log.warning("%s The change is committed; the tail stays longer.", exc.message)
        else:
            self._views.condemned.clear()

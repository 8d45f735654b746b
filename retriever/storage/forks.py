"""Keep SQLite connections from crossing a fork (sqlite.org/howtocorrupt.html, 2.6).

SQLite counts its locks in the memory of the process. A forked child inherits its parent's count
but none of the locks, so a connection opened there would believe that it holds them: it could miss
commits, or write to a log that another process has removed. Idle connections are therefore closed
before a fork, and a child cannot open a database that was in use at that moment.

`close_lost` handles another way to lose the locks: opening the database as a file (2.2).
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from retriever.errors import IndexBusy, IndexClosed
from retriever.storage.layout import is_being_replaced


def log_of(database: str) -> int:
    """Return the inode of a database's log, or 0 if there is none."""
    try:
        return os.lstat(database + "-wal").st_ino
    except FileNotFoundError:
        return 0


class Connection(sqlite3.Connection):
    """A connection that belongs to one process; `close` in a forked child does nothing.

    Attributes:
        path: The database.
        user: The thread that uses it.
        opened: The inodes of the database and of the log that it reads; None before the first read.
    """

    def __init__(self, path: Path, options: str, **keywords: Any) -> None:
        self.path = path.absolute()
        self.user = threading.get_ident()
        self.opened: tuple[int, int] | None = None
        self._pid = os.getpid()
        with _guard:
            # Before it is opened, so that a fork in between knows of it.
            _open.add(self)
        try:
            super().__init__(f"{self.path.as_uri()}?{options}", uri=True, **keywords)
        except BaseException:
            _open.discard(self)
            raise

    def reads(self, database: int) -> bool:
        """Return whether it reads the database with this inode, whatever its path."""
        return self.opened is not None and self.opened[0] == database

    @property
    def has_lost_its_log(self) -> bool:
        """Return whether another process has removed the log under this connection."""
        if self.opened is None or not self.opened[1]:
            return False
        path = str(self.path)
        with suppress(OSError):
            if log_of(path) == self.opened[1] or is_being_replaced(self.path.parent):
                return False  # a repair moves the log away, then replaces the database
            return os.lstat(path).st_ino == self.opened[0]
        return False

    def close(self) -> None:
        """Close the connection, unless it was inherited from another process."""
        if self._pid == os.getpid():
            super().close()
            _open.discard(self)


class Pool(Protocol):
    """An object that keeps idle connections."""

    def close_idle(self) -> None:
        """Close the idle connections at once, without waiting for a thread."""


_WAIT_S = 0.5
_WAIT_LOST_S = 5.0
_guard = threading.RLock()
_open: weakref.WeakSet[Connection] = weakref.WeakSet()
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_inherited: set[tuple[int, int]] = set()


def register(pool: Pool) -> None:
    """Register a pool, so that its idle connections are closed before each fork."""
    with _guard:
        _pools.add(pool)


@contextmanager
def taking() -> Iterator[None]:
    """Hold the fork lock, so that no idle connection is taken while the process forks."""
    with _guard:
        yield


def refuse_inherited(path: Path) -> None:
    """Refuse to open a database that the parent was using when it forked this process.

    Raises:
        IndexClosed: The parent was using it.
    """
    if not _inherited:
        return
    with suppress(OSError):
        seen = path.stat()
        if (seen.st_dev, seen.st_ino) in _inherited:
            raise IndexClosed(
                f"The index {path.parent} was being searched or written while this process was "
                "forked, so it cannot be opened here.",
                hint="Fork when it is not in use, or start workers with multiprocessing's 'spawn'.",
            )


def close_lost(path: Path) -> None:
    """Close this process's connections to a database whose log another process has removed.

    SQLite removes the log when no process has the database open, which it determines by locks.
    A process that opens the database as a file, say to copy it, loses its locks when it closes
    the file, so another process may remove the log under it. Within a process, SQLite shares the
    log's index between connections. While one old connection is open, new ones would use the old
    log too: they would miss commits, and write to a log that nobody else reads.

    Raises:
        IndexBusy: An old connection stayed in use until the timeout.
    """
    if not _open:
        return
    try:
        database = os.lstat(path).st_ino
    except OSError:
        return
    deadline = time.monotonic() + _WAIT_LOST_S
    while lost := [c for c in _now_open() if c.reads(database) and c.has_lost_its_log]:
        with _guard:
            for pool in list(_pools):
                pool.close_idle()
        users = {connection.user for connection in lost if connection in _open}
        if users and (threading.get_ident() in users or time.monotonic() > deadline):
            raise was_copied(path.parent)
        time.sleep(0.001)


def was_copied(directory: Path) -> IndexBusy:
    """Return the error for a read during which another process removed the log."""
    return IndexBusy(
        f"{directory} was changed while it was read, after this process had opened its database "
        "as a file.",
        hint="Repeat the call. Copy an index with `backup`, never as files while it is open.",
    )


def _before() -> None:
    """Close all connections; wait briefly for other threads, never for the one that forks."""
    # Held until the fork is over, so that no connection is begun or taken meanwhile.
    _guard.acquire()
    deadline = time.monotonic() + _WAIT_S
    while True:
        for pool in list(_pools):
            pool.close_idle()
        users = {connection.user for connection in _now_open()}
        if not users or threading.get_ident() in users or time.monotonic() > deadline:
            return
        time.sleep(0.001)


def _now_open() -> list[Connection]:
    while True:
        with suppress(RuntimeError):  # another thread closed one during the iteration
            return list(_open)


def _after_in_child() -> None:
    for connection in _now_open():
        # Freeing the object would close the connection, and SQLite might then checkpoint and
        # remove a log that the parent uses. An extra reference keeps it from being freed.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        with suppress(OSError):
            seen = connection.path.stat()
            _inherited.add((seen.st_dev, seen.st_ino))
    _open.clear()
    _pools.clear()
    _guard.release()


if sys.platform != "win32":
    os.register_at_fork(
        before=_before, after_in_parent=_guard.release, after_in_child=_after_in_child
    )

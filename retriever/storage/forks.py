"""Connections and forks, which do not mix (sqlite.org/howtocorrupt.html, 2.6).

SQLite counts its locks in the memory of a process. A forked child begins with its parent's count
and none of the locks, so a connection opened there would take none: it could miss commits, or
write to a log that another process has removed. Therefore idle connections are closed before a
fork, and a child cannot open a database that was in use at that moment.

Nor do connections mix with opening a database as a file in the same process (2.2, `close_lost`).
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
    """Return the inode of a database's log, 0 where there is none."""
    try:
        return os.lstat(database + "-wal").st_ino
    except FileNotFoundError:
        return 0


class Connection(sqlite3.Connection):
    """A connection that notices forks; in a child it cannot even be closed.

    Attributes:
        path: The database.
        user: The thread that uses it.
        opened: The inodes of the database and of the log that it reads, once it has read.
    """

    def __init__(self, path: Path, options: str, **keywords: Any) -> None:
        self.path = path.absolute()
        self.user = threading.get_ident()
        self.opened: tuple[int, int] | None = None
        self._pid = os.getpid()
        with _guard:
            _open.add(self)
        try:
            super().__init__(f"{self.path.as_uri()}?{options}", uri=True, **keywords)
        except BaseException:
            _open.discard(self)
            raise

    def reads(self, database: int) -> bool:
        """Return whether it reads the database of an inode, by whatever path."""
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
        """Close the connection, unless it is another process's."""
        if self._pid == os.getpid():
            super().close()
            _open.discard(self)


class Pool(Protocol):
    """What has idle connections."""

    def close_idle(self) -> None:
        """Close them; quickly, and without waiting for a thread."""


_WAIT_S = 0.5
_WAIT_LOST_S = 5.0
_guard = threading.RLock()
_open: weakref.WeakSet[Connection] = weakref.WeakSet()
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_inherited: set[tuple[int, int]] = set()


def register(pool: Pool) -> None:
    """Have the idle connections of a pool closed before each fork."""
    with _guard:
        _pools.add(pool)


@contextmanager
def taking() -> Iterator[None]:
    """Hold this while taking an idle connection: none is taken while the process forks."""
    with _guard:
        yield


def refuse_inherited(path: Path) -> None:
    """Refuse to open a database that the parent had in use when it made this process.

    Raises:
        IndexClosed: It is one.
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

    SQLite removes the log once nobody has the database open, which it tells by locks; and a
    process that reads the database's files by other means, say to copy them, drops its locks. As
    long as one connection is left from before, SQLite would have new ones share its index of the
    old log: they would miss commits, and write to a log that nobody else reads.

    Raises:
        IndexBusy: One was in use all the time.
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
    """Return the error for a read during which another process has removed the log."""
    return IndexBusy(
        f"{directory} was changed while it was read, after this process had opened its database "
        "as a file.",
        hint="Repeat the call. Copy an index with `backup`, never as files while it is open.",
    )


def _before() -> None:
    """Close all connections, waiting for other threads, but not for the one that forks."""
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
        with suppress(RuntimeError):  # another thread has just closed one
            return list(_open)


def _after_in_child() -> None:
    for connection in _now_open():
        # Never to be freed: that would close it.
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

"""Reading the database: connections lent for one read transaction each, and kept for the next."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from retriever.errors import IndexBusy, IndexClosed, StorageError
from retriever.storage import forks, schema
from retriever.storage.connections import connect, sqlite_errors
from retriever.storage.files import DATABASE, Stamp


@contextmanager
def reading(directory: Path) -> Iterator[sqlite3.Connection]:
    """Open a read-only connection for one read transaction, and close it again.

    Whatever the database is, only tables that are exactly ours can be read.
    """
    pool = ReadPool(directory, restricted=True)
    try:
        with pool.transaction() as connection:
            yield connection
    finally:
        pool.close()


def _connect_to_read(
    directory: Path, *, restricted: bool, immutable: bool = False
) -> forks.Connection:
    connection = connect(directory, "ro", immutable=immutable)
    if restricted:
        try:
            schema.restrict(connection)
        except BaseException:
            connection.close()
            raise
    return connection


def is_frozen(directory: Path) -> bool:
    """Return whether we may not write here, and nobody else seems to be writing either."""
    if os.access(directory, os.W_OK):
        return False
    try:
        return (directory / f"{DATABASE}-wal").stat().st_size == 0
    except FileNotFoundError:
        return True
    except OSError:
        return False


@contextmanager
def _frozen(directory: Path, *, restricted: bool) -> Iterator[sqlite3.Connection]:
    """Lend a connection that takes no locks, and make sure that nobody wrote in the meantime."""
    before = _stamp(directory)
    with sqlite_errors(directory):
        connection = _connect_to_read(directory, restricted=restricted, immutable=True)
        try:
            yield connection
        finally:
            connection.close()
    if _stamp(directory) != before:
        raise IndexBusy(
            f"{directory} was written while it was read, from a user who may not write there.",
            hint="Repeat the call.",
        )


def _stamp(directory: Path) -> Stamp | None:
    try:
        return Stamp.of(directory / DATABASE)
    except OSError:
        return None


class ReadPool:
    """Read-only connections, one for each search in flight, kept for the next one.

    Args:
        directory: The index.
        restricted: Whether statements may read nothing but tables that are exactly ours.

    Attributes:
        on_replaced: Called when another file has taken the place of the database.
    """

    def __init__(self, directory: Path, *, restricted: bool = False) -> None:
        self._restricted = restricted
        self.on_replaced: Callable[[], None] = lambda: None
        self._directory = directory
        self._idle: list[tuple[int, forks.Connection]] = []
        self._inode: int | None = None
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closed = False
        forks.register(self)

    @property
    def is_inherited(self) -> bool:
        """Return whether another process made this pool, and a fork brought it here."""
        return self._pid != os.getpid()

    def check(self) -> None:
        """Refuse to work after `close` or in a forked child.

        Raises:
            IndexClosed: In either case; SQLite connections must not cross a fork.
        """
        if self.is_inherited:
            raise IndexClosed(
                f"The index {self._directory} was opened before a fork.",
                hint="Open it in the worker.",
            )
        if self._closed:
            raise IndexClosed(
                f"The index {self._directory} is closed.", hint="Open it again with Index.open."
            )

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection inside one read transaction: everything read is of one commit.

        Raises:
            IndexBusy: The index, in a directory that we may not write, changed meanwhile.
        """
        self.check()
        if is_frozen(self._directory):
            with _frozen(self._directory, restricted=self._restricted) as unpooled:
                yield unpooled
            return
        with sqlite_errors(self._directory):
            inode, connection = self._take()
            try:
                connection.execute("BEGIN")
                self._notice(inode, connection)
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                connection.close()
                raise
            with self._lock:
                if not self._closed:
                    self._idle.append((inode, connection))
                    return
            connection.close()

    def _take(self) -> tuple[int, forks.Connection]:
        """Return a connection to the database that is there now, which repair may have replaced."""
        inode = self._inode_now()
        with forks.taking(), self._lock:
            stale = [c for number, c in self._idle if number != inode]
            self._idle = [(number, c) for number, c in self._idle if number == inode]
            found = self._idle.pop() if self._idle else None
            if found is not None:
                found[1].user = threading.get_ident()
        for connection in stale:
            connection.close()
        return found or (inode, _connect_to_read(self._directory, restricted=self._restricted))

    def _notice(self, inode: int, connection: sqlite3.Connection) -> None:
        """Tell of a database that is another than at the last transaction, checked as by `open`.

        Raises:
            FormatMismatch, IndexCorrupt: It cannot be read; the next transaction finds it again.
        """
        if self._inode not in (None, inode):
            self.on_replaced()
            if self._restricted:
                schema.check_pages(connection, str(self._directory))
            schema.check(connection, str(self._directory))
        self._inode = inode

    def _inode_now(self) -> int:
        try:
            return (self._directory / DATABASE).stat().st_ino
        except OSError as exc:
            raise StorageError(
                f"The database of {self._directory} cannot be read: {exc.strerror}.",
                hint="Was the index moved or removed? Open it where it is now.",
            ) from exc

    def close(self) -> None:
        """Close every idle connection; those lent out are closed when they come back."""
        if self.is_inherited:
            return
        self._closed = True
        self.close_idle(-1)

    def close_idle(self, timeout_s: float = 0.1) -> None:
        """Close the connections that no search is using; without the time for it, do nothing."""
        if not self._lock.acquire(timeout=timeout_s):
            return
        try:
            idle, self._idle = self._idle, []
        finally:
            self._lock.release()
        for _, connection in idle:
            connection.close()

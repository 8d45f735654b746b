"""How SQLite is opened, and what its errors mean.

There is one read-write connection in the world, the writer's, guarded by LOCK; all others are
read-only. Nothing here or elsewhere opens `store.db` by other means: closing any descriptor of
it would drop this process's SQLite locks (sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from retriever.errors import (
    IndexClosed,
    IndexCorrupt,
    IndexLocked,
    IndexReadOnly,
    StorageError,
    WriteFailed,
)
from retriever.storage.files import DATABASE, DATABASE_FILES, Stamp

PAGE_SIZE = 8192
_BUSY_TIMEOUT_S = 10.0
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}


@contextmanager
def sqlite_errors(
    directory: Path, *, writing: bool = False, durable: bool = False
) -> Iterator[None]:
    """Map `sqlite3` errors to ours, once, by their primary result code."""
    try:
        yield
    except sqlite3.Error as exc:
        code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in _DAMAGE:
            raise IndexCorrupt(
                f"The database of {directory} is damaged: {exc}.",
                path=str(directory),
                check="database",
            ) from exc
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise IndexLocked(
                f"The database of {directory} is busy: {exc}.",
                hint="Another program holds it; close it and try again.",
                pid=None,
                host=None,
                since=None,
            ) from exc
        if code == sqlite3.SQLITE_READONLY or (writing and code == sqlite3.SQLITE_CANTOPEN):
            raise IndexReadOnly(
                f"The database of {directory} cannot be written: {exc}.",
                hint="Check the permissions of the index directory.",
            ) from exc
        if writing:
            raise WriteFailed(
                f"Writing to the database of {directory} failed: {exc}.",
                hint="Free space or mend the disk, then repeat the call; "
                "what was committed is safe.",
                durable=durable,
            ) from exc
        raise StorageError(
            f"The database of {directory} cannot be read: {exc}.",
            hint="Check that it is there, its permissions, and the limit of open files.",
        ) from exc


def connect(
    directory: Path, mode: Literal["ro", "rw", "rwc"], *, immutable: bool = False
) -> sqlite3.Connection:
    """Open the database of an index; `rwc` creates it.

    `immutable` is for a directory that cannot be written and has no write-ahead log: SQLite
    cannot create its shared memory there.
    """
    path = directory / DATABASE
    options = f"mode={mode}&immutable=1" if immutable else f"mode={mode}"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{options}",
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        if mode == "rwc":
            connection.execute(f"PRAGMA page_size={PAGE_SIZE}")
        for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0"):
            connection.execute(f"PRAGMA {pragma}")
        if mode == "ro":
            connection.execute("PRAGMA query_only=ON")
        else:
            _prepare_for_writing(connection, directory)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare_for_writing(connection: sqlite3.Connection, directory: Path) -> None:
    journal = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if journal != "wal":
        raise IndexReadOnly(
            f"SQLite cannot keep a write-ahead log in {directory} (journal mode {journal}).",
            hint="Put the index on a local file system.",
        )
    for pragma in (
        "synchronous=FULL",
        "secure_delete=ON",
        "foreign_keys=ON",
        "cache_size=-32768",
        "wal_autocheckpoint=2000",
    ):
        connection.execute(f"PRAGMA {pragma}")


def is_frozen(directory: Path) -> bool:
    """Return whether we may not write here, and nobody else seems to be writing either."""
    if os.access(directory, os.W_OK):
        return False
    try:
        return (directory / f"{DATABASE}-wal").stat().st_size == 0
    except FileNotFoundError:
        return True


def protect(directory: Path) -> None:
    """Make the database's files private to their owner."""
    for name in DATABASE_FILES:
        path = directory / name
        if path.exists():
            path.chmod(0o600)


@contextmanager
def reading(directory: Path) -> Iterator[sqlite3.Connection]:
    """Open a read-only connection for one read transaction, and close it again."""
    pool = ReadPool(directory)
    try:
        with pool.transaction() as connection:
            yield connection
    finally:
        pool.close()


@contextmanager
def _frozen(directory: Path) -> Iterator[sqlite3.Connection]:
    """Lend a connection that takes no locks, and make sure that nobody wrote in the meantime."""
    before = _stamp(directory)
    with sqlite_errors(directory):
        connection = connect(directory, "ro", immutable=True)
        try:
            yield connection
        finally:
            connection.close()
    if _stamp(directory) != before:
        raise IndexLocked(
            f"{directory} was written while it was read, from a user who may not write there.",
            hint="Repeat the call.",
            pid=None,
            host=None,
            since=None,
        )


def _stamp(directory: Path) -> Stamp | None:
    try:
        return Stamp.of(directory / DATABASE)
    except OSError:
        return None


class ReadPool:
    """Read-only connections, one for each search in flight, kept for the next one.

    Attributes:
        on_replaced: Called when another file has taken the place of the database.
    """

    def __init__(self, directory: Path) -> None:
        self.on_replaced: Callable[[], None] = lambda: None
        self._directory = directory
        self._idle: list[tuple[int, sqlite3.Connection]] = []
        self._inode: int | None = None
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closed = False

    def check(self) -> None:
        """Refuse to work after `close` or in a forked child.

        Raises:
            IndexClosed: In either case; SQLite connections must not cross a fork.
        """
        if self._pid != os.getpid():
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
            IndexLocked: The index, in a directory that we may not write, changed meanwhile.
        """
        self.check()
        if is_frozen(self._directory):
            with _frozen(self._directory) as unpooled:
                yield unpooled
            return
        with sqlite_errors(self._directory):
            inode, connection = self._take()
            try:
                connection.execute("BEGIN")
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

    def _take(self) -> tuple[int, sqlite3.Connection]:
        """Return a connection to the database that is there now, which repair may have replaced."""
        inode = self._inode_now()
        with self._lock:
            stale = [c for number, c in self._idle if number != inode]
            self._idle = [(number, c) for number, c in self._idle if number == inode]
            found = self._idle.pop() if self._idle else None
            replaced, self._inode = self._inode not in (None, inode), inode
        for connection in stale:
            connection.close()
        if replaced:
            self.on_replaced()
        return found or (inode, connect(self._directory, "ro"))

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
        if self._pid != os.getpid():
            return
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

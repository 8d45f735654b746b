"""Reading the database: connections lent for one read transaction each, and kept for the next."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from retriever.config import Limits
from retriever.errors import IndexBusy, IndexClosed, StorageError
from retriever.storage import forks, schema
from retriever.storage.connections import connect, sqlite_errors
from retriever.storage.files import Stamp
from retriever.storage.layout import DATABASE, is_being_replaced
from retriever.storage.locking import read_holder

_REPAIR_S = 1.0


@contextmanager
def reading(directory: Path, *, during_repair: bool = False) -> Iterator[sqlite3.Connection]:
    """Open a read-only connection for one read transaction, and close it again.

    Whatever the database is, only tables that are exactly ours can be read. Who repairs it does
    not wait for the end of that.
    """
    pool = ReadPool(directory, Limits(), restricted=True, waits=not during_repair)
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


def is_being_repaired(directory: Path) -> bool:
    """Return whether a repair is just putting another database in place."""
    return is_being_replaced(directory) and read_holder(directory) is not None


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
    try:
        with sqlite_errors(directory):
            connection = _connect_to_read(directory, restricted=restricted, immutable=True)
            try:
                yield connection
            finally:
                connection.close()
    except StorageError as exc:
        if _stamp(directory) != before:  # what looks like damage is half of a write
            raise _was_written(directory) from exc
        raise
    if _stamp(directory) != before:
        raise _was_written(directory)


def _was_written(directory: Path) -> IndexBusy:
    return IndexBusy(
        f"{directory} was written while it was read, from a user who may not write there.",
        hint="Repeat the call.",
    )


def _stamp(directory: Path) -> Stamp | None:
    try:
        return Stamp.of(directory / DATABASE)
    except OSError:
        return None


class ReadPool:
    """Read-only connections, one for each search in flight, some of them kept for the next one.

    Args:
        directory: The index.
        limits: How many connections there are, and for how long they are kept.
        restricted: Whether statements may read nothing but tables that are exactly ours.
        waits: Whether to wait while a repair puts another database in place.

    Attributes:
        on_replaced: Called when another file has taken the place of the database.
    """

    def __init__(
        self,
        directory: Path,
        limits: Limits,
        *,
        restricted: bool = False,
        waits: bool = True,
    ) -> None:
        self._limits = limits
        self._restricted = restricted
        self._waits = waits
        self.on_replaced: Callable[[], None] = lambda: None
        self._directory = directory
        self._path = str(directory / DATABASE)
        self._idle: list[tuple[float, forks.Connection]] = []
        self._database: int | None = None
        self._lock = threading.Lock()
        self._freed = threading.Condition(self._lock)
        self._in_use = 0
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
            IndexBusy: The index, in a directory that we may not write, changed meanwhile; or its
                log was removed meanwhile, see `forks.close_lost`.
        """
        self.check()
        if is_frozen(self._directory):
            with _frozen(self._directory, restricted=self._restricted) as unpooled:
                yield unpooled
            return
        with sqlite_errors(self._directory):
            connection = self._take()
            try:
                self._begin(connection)
                yield connection
                connection.execute("COMMIT")
                self._require_log(connection)
            except BaseException as exc:
                self._give_back(connection, broken=True)
                if isinstance(exc, StorageError | sqlite3.Error):
                    self._require_log(connection)
                raise
            self._give_back(connection)

    def _take(self) -> forks.Connection:
        """Return a connection to the files that are there now, which others may have replaced."""
        limits = self._limits
        may_wait = True
        while True:
            now = self._now()
            with forks.taking(), self._lock:
                if self._in_use < limits.read_connections or not may_wait:
                    stale = [c for _, c in self._idle if c.opened != now]
                    self._idle = [(since, c) for since, c in self._idle if c.opened == now]
                    found = self._idle.pop()[1] if self._idle else None
                    if found is not None:
                        found.user = threading.get_ident()
                    self._in_use += 1
                    break
            with self._freed:  # who waits for long may be waiting for a connection of his own
                may_wait = self._freed.wait_for(
                    lambda: self._in_use < limits.read_connections, limits.read_wait_seconds
                )
        for connection in stale:
            connection.close()
        if found is not None:
            return found
        try:
            return self._connect()
        except BaseException:
            with self._lock:
                self._in_use -= 1
                self._freed.notify()
            raise

    def _connect(self) -> forks.Connection:
        """Return a connection whose database and log belong together.

        A repair moves the old log away, puts the new database in place and then writes HEAD;
        meanwhile, `repaired-*` is there, and the repair holds the lock.
        """
        deadline = monotonic() + _REPAIR_S
        while True:
            database, _ = self._now()
            connection = _connect_to_read(self._directory, restricted=self._restricted)
            try:
                connection.execute("SELECT 1 FROM sqlite_schema").fetchone()  # opens the log
                connection.opened = self._now()
                is_whole = connection.opened[0] == database and not (
                    self._waits and is_being_repaired(self._directory)
                )
            except BaseException:
                connection.close()
                raise
            if is_whole or monotonic() > deadline:
                return connection
            connection.close()
            sleep(0.01)

    def _give_back(self, connection: forks.Connection, *, broken: bool = False) -> None:
        """Keep a connection for the next search; close those that nobody has needed for long."""
        now = monotonic()
        most, seconds = self._limits.idle_connections, self._limits.idle_seconds
        with self._lock:
            self._in_use -= 1
            self._freed.notify()
            if self._closed or broken:
                spare = [connection]
            else:
                self._idle.append((now, connection))
                spare = []
                while self._idle and (len(self._idle) > most or self._idle[0][0] < now - seconds):
                    spare.append(self._idle.pop(0)[1])  # the first has waited longest
        for one in spare:
            one.close()

    def _begin(self, connection: forks.Connection) -> None:
        """Begin a transaction; notice a database that is another than at the last one.

        Raises:
            FormatMismatch, IndexCorrupt: It cannot be read, checked as by `open`; the next
                transaction finds it again.
        """
        connection.execute("BEGIN")
        database = connection.opened[0] if connection.opened else None
        if self._database not in (None, database):
            self.on_replaced()
            schema.check(connection, str(self._directory))
        self._database = database

    def _require_log(self, connection: forks.Connection) -> None:
        """Refuse what was read while another process removed the log.

        Raises:
            IndexBusy: It did; see `forks.close_lost`.
        """
        if connection.has_lost_its_log:
            raise forks.was_copied(self._directory)

    def _now(self) -> tuple[int, int]:
        """Return the inodes of the database and of its log."""
        try:
            return os.lstat(self._path).st_ino, forks.log_of(self._path)
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

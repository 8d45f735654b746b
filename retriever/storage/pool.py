"""A pool of read-only connections, each lent for one read transaction and then reused."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from retriever import deadlines
from retriever.errors import IndexBusy, IndexClosed, StorageError
from retriever.limits import Limits
from retriever.storage import forks, schema
from retriever.storage.connections import connect, sqlite_errors
from retriever.storage.files import Stamp
from retriever.storage.layout import DATABASE, is_being_replaced
from retriever.storage.locking import read_holder

_REPAIR_S = 1.0


@contextmanager
def reading(directory: Path, *, during_repair: bool = False) -> Iterator[sqlite3.Connection]:
    """Open a read-only connection for one read transaction, and close it again.

    The connection can read only tables with exactly the expected schema, whatever the database
    contains. With `during_repair`, which the repair itself passes, it does not wait for a repair
    to finish.
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
    """Return whether a repair is replacing the database at this moment."""
    return is_being_replaced(directory) and read_holder(directory) is not None


def is_frozen(directory: Path) -> bool:
    """Return whether this process cannot write here and there is no log, so nobody is writing.

    SQLite cannot open such an index normally: it would have to create the log and its shared
    memory. An immutable connection needs neither.
    """
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
    """Lend a connection that takes no locks, and check afterwards that nobody wrote meanwhile."""
    before = _stamp(directory)
    try:
        with sqlite_errors(directory):
            connection = _connect_to_read(directory, restricted=restricted, immutable=True)
            try:
                yield connection
            finally:
                connection.close()
    except StorageError as exc:
        if _stamp(directory) != before:  # a half-finished write looks like damage
            raise _was_written(directory) from exc
        raise
    if _stamp(directory) != before:
        raise _was_written(directory)


def _was_written(directory: Path) -> IndexBusy:
    return IndexBusy(
        f"{directory} changed while it was read without locks, which need write permission there.",
        hint="Repeat the call.",
    )


def _stamp(directory: Path) -> Stamp | None:
    try:
        return Stamp.of(directory / DATABASE)
    except OSError:
        return None


class ReadPool:
    """Read-only connections, one for each read in flight; idle ones are kept for reuse.

    Args:
        directory: The index.
        limits: How many connections there are, and for how long they are kept.
        restricted: Whether statements may read only tables with exactly the expected schema.
        waits: Whether to wait while a repair replaces the database.

    Attributes:
        on_replaced: Called when the database file has been replaced by another one.
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
        """Return whether this process inherited the pool from the parent that forked it."""
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
        """Lend a connection inside one read transaction, so that all reads see the same commit.

        Raises:
            IndexBusy: The index changed meanwhile, in a directory that this process cannot write;
                or its log was removed meanwhile, see `forks.close_lost`.
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
                # Looked at after the reads, since the log may be removed during any of them.
                self._require_log(connection)
            except BaseException as exc:
                self._give_back(connection, broken=True)
                # Without its log a read may look like damage; the error should name the cause.
                if isinstance(exc, StorageError | sqlite3.Error):
                    self._require_log(connection)
                raise
            self._give_back(connection)

    def _take(self) -> forks.Connection:
        """Return a connection to the current files; connections to replaced ones are closed."""
        limits = self._limits
        may_wait = True
        while True:
            now = self._now()
            # In the order in which `forks` takes the two, so that neither waits for the other.
            with forks.taking(), self._lock:
                if self._in_use < limits.read_connections or not may_wait:
                    stale = [c for _, c in self._idle if c.opened != now]
                    self._idle = [(since, c) for since, c in self._idle if c.opened == now]
                    # The one returned last, so that those not needed grow old and are closed.
                    found = self._idle.pop()[1] if self._idle else None
                    if found is not None:
                        found.user = threading.get_ident()
                    self._in_use += 1
                    break
            # A thread that waits this long may hold the connections itself, in nested reads.
            # It exceeds the limit once instead of waiting for ever.
            with self._freed:
                may_wait = self._freed.wait_for(
                    lambda: self._in_use < limits.read_connections,
                    deadlines.at_most(limits.read_wait_seconds),
                )
            deadlines.check()
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

        A repair moves the old log away, renames the new database over the old one and then writes
        HEAD. A connection opened between these steps could combine the new database with the old
        log. `repaired-*` exists and the lock is held until the repair is done, so it is opened
        again until then, for at most a second.
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
        """Keep a connection for the next read; close those that have been idle for too long."""
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
        """Begin a transaction; if the database was replaced since the last one, check its schema.

        Raises:
            FormatMismatch, IndexCorrupt: The new database has another format or schema. The next
                transaction checks it again.
        """
        connection.execute("BEGIN")
        database = connection.opened[0] if connection.opened else None
        if self._database not in (None, database):
            self.on_replaced()
            schema.check(connection, str(self._directory))
        self._database = database

    def _require_log(self, connection: forks.Connection) -> None:
        """Check that the log was not removed during the read.

        Raises:
            IndexBusy: Another process removed it; see `forks.close_lost`.
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
                hint="If the index was moved, open it at its new path.",
            ) from exc

    def close(self) -> None:
        """Close every idle connection; those in use are closed when they are returned."""
        if self.is_inherited:
            return
        self._closed = True
        self.close_idle(-1)

    def close_idle(self, timeout_s: float = 0.1) -> None:
        """Close the connections that are not in use; do nothing if the pool stays locked."""
        if not self._lock.acquire(timeout=timeout_s):
            return
        try:
            idle, self._idle = self._idle, []
        finally:
            self._lock.release()
        for _, connection in idle:
            connection.close()

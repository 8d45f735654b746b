"""The writer of the catalog: the only read-write connection, and the commit protocol.

A commit is: `BEGIN IMMEDIATE`, rows, the commit row, `COMMIT` (the commit point), then HEAD.
Only then does the call return (the acknowledgement). Any I/O error on the way closes the writer,
because what the disk holds can then be determined only by opening the index again.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep

from retriever.errors import (
    IndexBusy,
    IndexClosed,
    IndexCorrupt,
    StorageError,
    WriteFailed,
)
from retriever.storage import (
    catalog,
    checksums,
    connections,
    files,
    head_file,
    layout,
    records,
    schema,
)
from retriever.storage.locking import WriteLock
from retriever.storage.records import Space
from retriever.storage.transaction import Transaction

_BACK_S = 600.0


class Writer:
    """The right to change an index: LOCK and the read-write connection, from open to close."""

    def __init__(self, directory: Path, lock: WriteLock, connection: sqlite3.Connection) -> None:
        self.directory = directory
        self._connection = connection
        self._lock = lock
        self._is_broken = False
        self._is_doubtful = False
        self._is_closed = False
        self._pid = os.getpid()

    @classmethod
    def open(cls, directory: Path, *, timeout_s: float) -> Writer:
        """Take LOCK, open the database and, after a crash, bring HEAD up to date.

        Raises:
            IndexLocked, IndexBusy, IndexReadOnly, DataLoss, IndexCorrupt, FormatMismatch.
        """
        lock = WriteLock(directory)
        lock.acquire(timeout_s)
        try:
            with connections.sqlite_errors(directory, writing=True):
                connection = connections.connect(directory, "rw")
                try:
                    schema.check(connection, str(directory))
                    connection.execute("BEGIN IMMEDIATE")  # fail now if it cannot be written
                    connection.execute("ROLLBACK")
                    reconcile_head(directory, connection)
                except BaseException:
                    connections.abandon(connection, directory, doubtful=False)
                    raise
        except BaseException:
            lock.release(clean=False)
            raise
        return cls(directory, lock, connection)

    @property
    def connection(self) -> sqlite3.Connection:
        """Return the read-write connection. Do not keep it: `give_way` replaces it.

        Raises:
            IndexClosed: In a forked child, which must not use it even to read.
        """
        self._require_own()
        return self._connection

    def is_wanted(self) -> bool:
        """Return whether another writer waits for the lock."""
        return self._lock.is_wanted()

    def give_way(self, timeout_s: float) -> None:
        """Release the lock to waiting writers and take it again; not within a transaction.

        Anything read from the index before may have changed. A call in progress has more to lose
        than one that has not begun, so it waits for the lock for at least ten minutes.

        Raises:
            IndexLocked: The lock was not free again in time; this writer is closed.
            WriteFailed: The path now holds another index; this writer is closed.
        """
        self._check()
        place = self.directory.stat()
        self.close()
        again = Writer.open(self.directory, timeout_s=max(timeout_s, _BACK_S))
        self._lock, self._connection, self._is_closed = again._lock, again._connection, False
        again._is_closed = True
        if not os.path.samestat(place, self.directory.stat()):
            raise self._displaced(durable=False)

    def close(self) -> None:
        """Close the connection and release LOCK; does nothing the second time."""
        if self._is_closed:
            return
        self._is_closed = True
        # The connection is closed before the lock is released, because closing it may checkpoint
        # the log. In a forked child `close` does nothing, and nothing may be overwritten there.
        if self._is_broken and self._pid == os.getpid():
            connections.abandon(self._connection, self.directory, doubtful=self._is_doubtful)
        else:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._lock.release(clean=not self._is_doubtful)

    def _require_own(self) -> None:
        if self._pid != os.getpid():
            raise IndexClosed(
                f"The writer of {self.directory} belongs to the process that this one was forked "
                "from.",
                hint="Open the index in a worker that was not forked inside writing().",
            )

    def _check(self) -> None:
        self._require_own()
        if self._is_broken or self._is_closed:
            raise WriteFailed(
                f"The writer of {self.directory} was closed by an earlier failure.",
                hint="Repeat the call once the disk works again; what was committed is safe.",
                durable=False,
            )
        self._require_place(durable=False)

    def _require_place(self, *, durable: bool) -> None:
        """Refuse to continue if the directory was moved or replaced by another."""
        if not self._lock.is_in_place():
            raise self._displaced(durable=durable)

    def _displaced(self, *, durable: bool) -> WriteFailed:
        self._is_broken = True
        return WriteFailed(
            f"{self.directory} was moved or replaced while it was being written.",
            hint="Repeat the call on the index that is there now; swap indexes only while "
            "nobody writes to them.",
            durable=durable,
        )

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Run a block as one commit, which becomes visible at its end.

        A block that changes nothing makes no commit. An exception in the block rolls it back.
        """
        self._check()
        with self._guarded():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                previous = catalog.last_commit(self._connection)
                change = Transaction(self._connection, previous.seq + 1)
                yield change
                if change.touched or change.live:
                    chain = self._write_commit(previous, change)
                    self._commit("COMMIT")
                    change.is_committed = True
                else:
                    chain = None
                    self._connection.execute("ROLLBACK")
            except BaseException:
                self._roll_back()
                raise
        # HEAD follows COMMIT. If it were written first, a crash in between would leave a HEAD that
        # names a commit which the database does not hold, and that means lost data.
        if chain is not None:
            self._acknowledge(head_file.Head(change.seq, chain))

    def _write_commit(self, previous: records.Commit, change: Transaction) -> bytes:
        # The sum of all live rows is updated by the change alone, in time that does not depend on
        # the size of the index; `verify` computes it from the rows and compares.
        live = (int.from_bytes(previous.live_sum) + change.live) % checksums.MODULUS
        live_sum = live.to_bytes(32)
        counts = (change.n_added, change.n_deleted)
        chain = checksums.chain(previous.chain, change.seq, *counts, live_sum)
        self._connection.execute(
            "INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?)",
            (change.seq, now(), *counts, live_sum, chain),
        )
        return chain

    @contextmanager
    def maintenance(self) -> Iterator[sqlite3.Connection]:
        """Change caches (segments, tombstones) atomically, without a commit of content."""
        self._check()
        with self._guarded():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._commit("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    def _commit(self, statement: str) -> None:
        """Run a statement that commits; if it fails, what the disk holds is unknown."""
        # Set beforehand, so that an interrupt during the statement leaves the writer in doubt too.
        self._is_broken = self._is_doubtful = True
        self._connection.execute(statement)
        self._is_broken = self._is_doubtful = False

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            with connections.sqlite_errors(self.directory, writing=True):
                yield
        except (IndexCorrupt, IndexBusy):
            raise  # from reading, or before anything was written: the writer stays usable
        except StorageError:
            self._is_broken = True
            raise

    @contextmanager
    def _impatient(self) -> Iterator[None]:
        """Shorten SQLite's busy timeout to 0.1 s, so that the caller can keep its deadline."""
        (before,) = self._connection.execute("PRAGMA busy_timeout").fetchone()
        self._connection.execute("PRAGMA busy_timeout=100")
        try:
            yield
        finally:
            self._connection.execute(f"PRAGMA busy_timeout={before:d}")

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _acknowledge(self, head: head_file.Head) -> None:
        self._require_place(durable=True)
        try:
            head_file.write_head(self.directory, head, durable=True)
        except StorageError:
            self._is_broken = True
            raise

    def fold_commits(self, keep: int) -> None:
        """Delete all but the newest `keep` commits; the oldest of these becomes the base."""
        with self.maintenance() as connection:
            connection.execute(
                "DELETE FROM commits WHERE seq <= (SELECT max(seq) FROM commits) - ?", (keep,)
            )

    def vacuum(self) -> None:
        """Rewrite the database without free pages, so that no deleted byte is left in it.

        Raises:
            WriteFailed: The disk is full, in the index or where SQLite puts its temporary copy.
        """
        self._check()
        try:
            with self._guarded():
                self._commit("VACUUM")
        except WriteFailed as exc:
            size = (self.directory / layout.DATABASE).stat().st_size >> 20
            raise WriteFailed(
                exc.message,
                hint=f"SQLite rewrites the database in {_temporary_directory()} first, and then "
                f"in the index: have {size + 1:,} MB free in both, or name another directory in "
                "SQLITE_TMPDIR. What was committed is safe.",
                durable=exc.durable,
            ) from exc

    def checkpoint(self, timeout_s: float) -> None:
        """Move the write-ahead log into the database and empty it.

        Raises:
            IndexBusy: A reader kept an old snapshot open until the timeout.
        """
        deadline = monotonic() + timeout_s
        with self._guarded(), self._impatient():
            # The first column is 1 if a lock of another connection kept the log from being emptied.
            while self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                if monotonic() > deadline:
                    break
                sleep(0.02)
            else:
                return
        raise IndexBusy(
            f"A reader of {self.directory} kept an old snapshot open for {timeout_s:g} s, so "
            "deleted bytes may remain in the write-ahead log.",
            hint="Close long searches and run `retriever compact`; the change itself is durable.",
        )


def _temporary_directory() -> str:
    """Return the directory that SQLite chooses for temporary files."""
    named = (os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"))
    for path in (*named, "/var/tmp", "/usr/tmp", "/tmp"):  # noqa: S108
        if path and Path(path).is_dir() and os.access(path, os.W_OK | os.X_OK):
            return path
    return "."


def now() -> str:
    """Return the present time in UTC, in ISO 8601, as commits record it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def reconcile_head(directory: Path, connection: sqlite3.Connection) -> None:
    """Check HEAD against the database; after a crash between COMMIT and HEAD, write HEAD again.

    The crash may also have come before the log was synced. The log is therefore written and synced
    again first: HEAD must never name a commit that a power cut could still undo.
    """
    last = head_file.check_head(directory, head_file.read_head(directory), connection)
    if last is not None:
        files.renew(directory / layout.LOG)
        head_file.write_head(directory, head_file.Head(last.seq, last.chain))


def create(directory: Path, space: Space, settings: dict[str, str], *, timeout_s: float) -> None:
    """Create an index in a new or empty directory; finish a creation that was interrupted.

    On return the empty index survives power loss. An existing index is left unchanged.
    """
    files.make_directory(directory)
    with (
        WriteLock(directory).held(timeout_s),
        connections.sqlite_errors(directory, writing=True),
        connections.connected(directory, "rwc") as connection,
    ):
        # HEAD comes last: where it exists, `opening` takes the creation as complete, and a
        # missing database as lost.
        if schema.is_blank(connection):
            _write_first_commit(connection, space, settings)
        with files.write_errors(directory):
            connections.protect(directory)
            files.sync_directory(directory)
        reconcile_head(directory, connection)


def _write_first_commit(
    connection: sqlite3.Connection, space: Space, settings: dict[str, str]
) -> None:
    connection.execute("BEGIN IMMEDIATE")
    schema.create(connection)
    change = Transaction(connection, 0)
    for name, value in settings.items():
        change.put_setting(name, value)
    change.add_space(space)
    live_sum = (change.live % checksums.MODULUS).to_bytes(32)
    chain = checksums.chain(bytes(32), 0, 0, 0, live_sum)
    connection.execute("INSERT INTO commits VALUES (0, ?, 0, 0, ?, ?)", (now(), live_sum, chain))
    connection.execute("COMMIT")

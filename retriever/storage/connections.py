"""Open SQLite connections and map SQLite errors to the package's own.

The writer has the only read-write connection to an index, guarded by LOCK; all others are
read-only. Nothing in the package opens `store.db` as a file: closing any descriptor of it would
drop this process's SQLite locks (sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from retriever.errors import (
    IndexBusy,
    IndexCorrupt,
    IndexReadOnly,
    StorageError,
    WriteFailed,
)
from retriever.storage import forks
from retriever.storage.files import remove
from retriever.storage.layout import (
    DATABASE,
    DATABASE_FILES,
    JOURNAL,
    require_directory,
    require_regular,
)

# Measured with vectors of 384 numbers: 46,000 rows/s, against 29,000 with pages of 4 KiB.
PAGE_SIZE = 8192
_BUSY_TIMEOUT_S = 10.0
_DAMAGE = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_CONSTRAINT,  # rows that contradict each other
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_AUTH,  # see `schema.restrict`
}
# Errors of altered values that have no code of their own: text that is not UTF-8, and a sum
# that overflows.
_ODD_VALUES = ("Could not decode", "integer overflow")
# An index never needs more than this; a crafted database might. Documents are at most 500 MB.
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 512 << 20,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_COLUMN: 64,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 10,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 8,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 0,
}


@contextmanager
def sqlite_errors(
    directory: Path, *, writing: bool = False, durable: bool = False
) -> Iterator[None]:
    """Map `sqlite3` errors to ours, once, by their primary result code."""
    try:
        yield
    except UnicodeDecodeError as exc:
        # Python decodes the message of an error, in which SQLite quotes a damaged schema.
        raise IndexCorrupt(
            f"The database of {directory} is damaged: its schema is no text.",
            path=str(directory),
            check="database",
        ) from exc
    except sqlite3.Error as exc:
        code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in _DAMAGE or str(exc).startswith(_ODD_VALUES):
            raise IndexCorrupt(
                f"The database of {directory} is damaged: {exc}.",
                path=str(directory),
                check="database",
            ) from exc
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise IndexBusy(
                f"The database of {directory} is busy: {exc}.",
                hint="Another program holds it; close it and try again.",
            ) from exc
        if code == sqlite3.SQLITE_READONLY or (writing and code == sqlite3.SQLITE_CANTOPEN):
            raise IndexReadOnly(
                f"The database of {directory} cannot be written: {exc}.",
                hint="Check the permissions of the index directory.",
            ) from exc
        if writing:
            raise WriteFailed(
                f"Writing to the database of {directory} failed: {exc}.",
                hint="Free disk space or repair the disk, then repeat the call; "
                "what was committed is safe.",
                durable=durable,
            ) from exc
        raise StorageError(
            f"The database of {directory} cannot be read: {exc}.",
            hint="Check that it exists, its permissions, and the limit on open files.",
        ) from exc


def connect(
    directory: Path, mode: Literal["ro", "rw", "rwc"], *, immutable: bool = False
) -> forks.Connection:
    """Open the database of an index; `rwc` creates it.

    `immutable` is for a directory that cannot be written and has no write-ahead log: SQLite
    cannot create its shared memory there.
    """
    found = require_regular(directory, *DATABASE_FILES)
    if DATABASE not in found:
        require_directory(directory)
    _refuse_journal(directory, found, may_create=mode == "rwc")
    path = directory / DATABASE
    forks.refuse_inherited(path)
    forks.close_lost(path)
    # Transactions are begun explicitly. A pooled connection is used by one thread after another.
    connection = forks.Connection(
        path,
        f"mode={mode}&immutable=1" if immutable else f"mode={mode}",
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        for category, limit in _LIMITS.items():
            connection.setlimit(category, limit)
        # VACUUM attaches the database that it writes; a reader attaches nothing.
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0 if mode == "ro" else 1)
        if mode == "rwc":
            # Before the switch to WAL, after which SQLite cannot change it.
            connection.execute(f"PRAGMA page_size={PAGE_SIZE}")
        # What sqlite.org/security.html advises for databases that may be crafted.
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


def _refuse_journal(directory: Path, found: dict[str, os.stat_result], *, may_create: bool) -> None:
    """Refuse a rollback journal, which an index does not have after its creation.

    SQLite would roll it back, and may delete a file elsewhere that the journal names. A journal
    beside a database of a single page is left over from an interrupted creation; both are removed.
    """
    journal, database = found.get(JOURNAL), found.get(DATABASE)
    if journal is None or database is None:
        return
    if may_create and database.st_size <= PAGE_SIZE:
        remove(directory, [JOURNAL, DATABASE])
    elif journal.st_size > 0 and database.st_size > 0:
        raise IndexCorrupt(
            f"{directory}/{JOURNAL} is not a file of an index: indexes use a write-ahead log.",
            path=str(directory),
            check="files",
        )


def _prepare_for_writing(connection: sqlite3.Connection, directory: Path) -> None:
    journal = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if journal != "wal":
        raise IndexReadOnly(
            f"SQLite cannot keep a write-ahead log in {directory} (journal mode {journal}).",
            hint="Put the index on a local file system.",
        )
    # FULL syncs the log at every commit; with NORMAL a power cut could lose acknowledged commits.
    for pragma in (
        "synchronous=FULL",
        "fullfsync=ON",  # macOS only, see `files.sync`; ignored elsewhere
        "checkpoint_fullfsync=ON",
        "secure_delete=ON",
        "foreign_keys=ON",
        "cache_size=-32768",
        "wal_autocheckpoint=2000",
    ):
        connection.execute(f"PRAGMA {pragma}")


@contextmanager
def connected(directory: Path, mode: Literal["rw", "rwc"]) -> Iterator[sqlite3.Connection]:
    """Open a connection for a block; `abandon` closes it when that fails."""
    connection = connect(directory, mode)
    try:
        yield connection
    except BaseException as exc:
        abandon(connection, directory, doubtful=isinstance(exc, sqlite3.Error))
        raise
    connection.close()


def abandon(connection: sqlite3.Connection, directory: Path, *, doubtful: bool) -> None:
    """Close a writing connection after any failure, without a checkpoint.

    Closing the last connection to a database checkpoints its log. That would call fsync again
    where it may just have failed, and copy frames into the database that the disk may not hold.
    A read-only connection cannot checkpoint, so one is kept open until the writer's is closed.

    Args:
        connection: The connection to close.
        directory: The index.
        doubtful: Whether a COMMIT may have failed, so that what it wrote must not reappear.
    """
    reader = None
    _roll_back(connection)
    with suppress(sqlite3.Error, StorageError):
        reader = connect(directory, "ro")
        # SQLite locks the database and opens the log only with the first read.
        reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if doubtful:
            _overwrite_failed_commit(connection)
    _roll_back(connection)
    with suppress(sqlite3.Error):
        connection.close()
    if reader is not None:
        reader.close()


def _roll_back(connection: sqlite3.Connection) -> None:
    with suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _overwrite_failed_commit(connection: sqlite3.Connection) -> None:
    """Overwrite, in the log, the frames of a transaction whose COMMIT failed.

    When its fsync fails, a commit is complete in the write-ahead log, where the next connection
    would find it, although the disk may not hold it. This transaction is never committed, but it
    is larger than the cache, so SQLite spills it to the log. That replaces the first frame of the
    failed commit, and the frames after it are invalid without it.

    If the log had been checkpointed, SQLite restarts it here. With synchronous=NORMAL it syncs
    the new header before any frame. With OFF, a power cut might leave the old header with new
    frames, and recovery would write old pages over newer ones.
    """
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA cache_size=1")  # pages; the 16 written below do not fit
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("CREATE TABLE overflow (data BLOB)")
    connection.execute(f"INSERT INTO overflow VALUES (zeroblob({16 * PAGE_SIZE}))")


def protect(directory: Path) -> None:
    """Make the database's files private to their owner."""
    for name in DATABASE_FILES:
        path = directory / name
        if path.exists():
            path.chmod(0o600)

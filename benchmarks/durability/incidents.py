"""What else goes wrong while a recording of `power.py` is made, between two calls.

A transaction is undone; a commit's fsync fails; its process dies before it could do anything about
it, and the log cannot be written again after that. None of it changes any document.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from retriever.errors import IndexCorrupt, StorageError
from retriever.storage import layout
from retriever.storage.writer import Writer

from . import shim

_ODDS = 0.4


def maybe(path: Path, root: Path, rng: random.Random) -> None:
    """Let something happen to an index that is open in this process, or nothing."""
    if rng.random() > _ODDS:
        return
    if rng.random() < 0.7:
        _begin_log_again(path)
    rng.choice(_INCIDENTS)(path, str((path / layout.LOG).relative_to(root)), rng)


def _open(path: Path) -> Writer:
    return Writer.open(path, timeout_s=5)


def _begin_log_again(path: Path) -> None:
    """Move the whole log into the database, so that the next transaction begins it again."""
    writer = _open(path)
    with writer.transaction() as change:
        change.put_setting("incident", "x" * 100_000)
    writer.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    writer.close()


def _write(writer: Writer, rng: random.Random) -> None:
    how = rng.randrange(3)
    if how == 0:
        with writer.transaction() as change:
            change.put_setting("incident", rng.choice(["", "y" * 60_000]) + str(rng.random()))
    elif how == 1:
        with writer.maintenance() as connection:
            connection.execute("UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'segments'")
            connection.execute("INSERT INTO tombstones VALUES (999999999, 0, 0)")
            connection.execute("DELETE FROM tombstones WHERE chunk_id = 999999999")
    else:
        writer.vacuum()


def _refuse_fsync(place: str, rng: random.Random) -> None:
    nth, sticky = rng.choice([1, 1, 2]), rng.random() < 0.5
    shim.arm("fail", ["fsync"], place, nth, errno.EIO, sticky=sticky)


def _undone(path: Path, _: str, rng: random.Random) -> None:
    """Undo a transaction, as a damaged row does; it may have overflowed into the log."""
    writer = _open(path)
    with suppress(IndexCorrupt), writer.transaction() as change:
        if rng.random() < 0.5:
            change.connection.execute("PRAGMA cache_size=1")
        change.put_setting("incident", "z" * 200_000)
        raise IndexCorrupt("undone", path=str(path), check="rows")
    writer.close()


def _refused(path: Path, place: str, rng: random.Random) -> None:
    """Have the fsync of a commit fail, for once or until the writer is closed."""
    writer = _open(path)
    _refuse_fsync(place, rng)
    with suppress(StorageError):
        _write(writer, rng)
    if rng.random() < 0.5:
        shim.disarm()
    writer.close()
    shim.disarm()


def _died(path: Path, place: str, rng: random.Random) -> None:
    """Have the fsync of a commit fail in a process that dies of it; perhaps renewing fails too."""
    child = os.fork()
    if child == 0:
        try:
            writer = _open(path)
            _refuse_fsync(place, rng)
            _write(writer, rng)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    if rng.random() < 0.5:
        _refuse_fsync(place, rng)
        with suppress(StorageError):
            _open(path).close()
        shim.disarm()


_INCIDENTS: list[Callable[[Path, str, random.Random], None]] = [_undone, _refused, _refused, _died]

"""Repair: save what can be saved, set aside what cannot, and say which is which.

Nothing is deleted: a damaged database is copied, row by row, into a new one, and the old one
goes to `quarantine/`. Chunks and vectors that cannot be saved are made again from the text by
the caller, who finds them as documents without a ledger.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from retriever.errors import DataLoss, IndexCorrupt, RetrieverError, StorageError
from retriever.storage import (
    catalog,
    connections,
    files,
    head_file,
    integrity,
    layout,
    segment_checks,
    segments,
)
from retriever.storage.locking import WriteLock
from retriever.storage.pool import reading
from retriever.storage.repair_log import RepairLog
from retriever.storage.salvage import Salvage, add_losses, beyond_repair, write_base
from retriever.storage.series import SegmentContent
from retriever.storage.transaction import Transaction
from retriever.storage.writer import Writer

# Damage found by these checks needs no copy of the database: what they check is made again.
_CACHES = {"head", "segments", "ledgers"}


def repair(
    directory: Path,
    log: RepairLog,
    *,
    kinds: Sequence[SegmentContent],
    accept_loss: bool,
    lock_timeout_s: float,
) -> None:
    """Repair the database, HEAD and segments of an index; `log` records what was done.

    Raises:
        FormatMismatch: It is an index of another format.
        DataLoss: Acknowledged commits are missing and `accept_loss` is not set.
        IndexCorrupt: The rows that describe model and vectors cannot be read.
    """
    integrity.require_our_format(directory)  # before LOCK, so that no other format is changed
    try:
        with WriteLock(directory).held(lock_timeout_s):
            _restore_database(directory, log, kinds, accept_loss=accept_loss)
    except IndexCorrupt as exc:
        if not exc.repair:
            raise
        raise beyond_repair(directory, exc.message, exc.check) from exc
    writer = Writer.open(directory, timeout_s=lock_timeout_s)
    try:
        _mend_segments(writer, kinds, log)
    finally:
        writer.close()


def _restore_database(
    directory: Path,
    log: RepairLog,
    kinds: Sequence[SegmentContent],
    *,
    accept_loss: bool,
) -> None:
    """Restore the database, if it is damaged, and HEAD.

    The order matters. A copy that an interrupted repair finished is installed first, since the
    database may be missing without it; a journal is set aside before the first connection, which
    it would make fail; and lost commits are reported before anything is copied, since the copy
    begins a new history, in which they could not be detected any more.
    """
    layout.require_regular(directory, *layout.DATABASE_FILES)
    if not (directory / layout.DATABASE).is_file() and not _ready(directory):
        message = f"{directory} has lost its database, {layout.DATABASE}."
        raise beyond_repair(directory, message, "database")
    for name in _ready(directory):
        _resume(directory, name, log)
    if _has_journal(directory):
        log.quarantined.append(files.quarantine(directory, layout.JOURNAL))
        log.actions.append("set aside a rollback journal, which is not part of an index")
    integrity.require_our_format(directory)
    found = integrity.verify(directory, kinds=kinds)
    damaged = {problem.check for problem in found.problems} - _CACHES
    head, head_problem = _head(directory)
    if head_problem:
        log.actions.append("HEAD was missing or damaged, so lost commits cannot be detected")
    loss = _missing(directory, head)
    if loss is not None and not accept_loss:
        raise loss
    if not damaged and loss is None:
        if head_problem:
            _restore_head(directory, log)
        return
    losses = [loss.message] if loss else []
    if damaged:
        _salvage(directory, log, head, losses)
    else:
        _record_loss(directory, head, losses)
        log.actions.append("accepted the loss of acknowledged commits")


def _has_journal(directory: Path) -> bool:
    path = directory / layout.JOURNAL
    return path.is_file() and path.stat().st_size > 0


def _head(directory: Path) -> tuple[head_file.Head | None, bool]:
    try:
        head = head_file.read_head(directory)
    except IndexCorrupt:
        return None, True
    return head, head is None


def _missing(directory: Path, head: head_file.Head | None) -> DataLoss | None:
    """Return the error for commits that HEAD names and the database lacks; None if unreadable."""
    if head is None:
        return None
    try:
        with reading(directory) as connection:
            last = catalog.last_commit(connection)
            if catalog.chain_at(connection, head.seq) != head.chain:
                return head_file.missing_commits(directory, head, last.seq)
    except StorageError:
        return None
    return None


def _restore_head(directory: Path, log: RepairLog) -> None:
    _set_head_aside(directory, log)
    last = _last(directory)
    head_file.write_head(directory, last)
    log.actions.append(f"wrote HEAD again, at commit {last.seq}")


def _set_head_aside(directory: Path, log: RepairLog) -> None:
    if os.path.lexists(directory / layout.HEAD):
        log.quarantined.append(files.quarantine(directory, layout.HEAD))


def _record_loss(directory: Path, head: head_file.Head | None, losses: Sequence[str]) -> None:
    with (
        connections.sqlite_errors(directory, writing=True),
        connections.connected(directory, "rw") as connection,
    ):
        connection.execute("BEGIN IMMEDIATE")
        last = catalog.last_commit(connection)
        seq = max(last.seq, head.seq if head else 0) + 1
        add_losses(Transaction(connection, seq), losses)
        new_head = write_base(connection, seq)
        connection.execute("COMMIT")
    head_file.write_head(directory, new_head, durable=True)


def _mend_segments(writer: Writer, kinds: Sequence[SegmentContent], log: RepairLog) -> None:
    segments.sweep(writer)
    space = catalog.active_space(writer.connection)
    damaged = [
        segment.id
        for segment in catalog.all_segments(writer.connection)
        if segment_checks.segment_problems(writer.directory, writer.connection, segment, kinds)
    ]
    log.quarantined += segments.mend(writer, space, kinds, damaged)
    if damaged:
        log.actions.append(f"built {len(damaged)} segments again from the catalog")


# --- salvage ---------------------------------------------------------------------------------


def _salvage(
    directory: Path, log: RepairLog, head: head_file.Head | None, losses: list[str]
) -> None:
    """Copy every sound row into a new database and replace the old one by it.

    The copy is made in `repair.*.tmp`, which any writer may remove as a leftover. Once it is
    renamed to `repaired-*` it is complete, and if this repair is interrupted then, the next one
    finishes it.
    """
    name = secrets.token_hex(4)
    aside, ready = f"repair.{name}{layout.TEMPORARY}", f"{layout.REPAIRED}{name}"
    files.make_directory(directory / aside)
    try:
        _copy(directory, directory / aside, log, head, losses)
        files.replace(directory, aside, ready)
    except BaseException:
        with suppress(RetrieverError, OSError):
            files.remove(directory, [aside])
        raise
    _swap(directory, ready, log)
    log.actions.append("copied every sound row into a new database")


def _copy(
    directory: Path,
    aside: Path,
    log: RepairLog,
    head: head_file.Head | None,
    losses: list[str],
) -> None:
    with connections.sqlite_errors(directory):
        old = connections.connect(directory, "ro")
        try:
            with (
                connections.sqlite_errors(aside, writing=True),
                connections.connected(aside, "rwc") as new,
            ):
                Salvage(directory, old, new, log).run(head, losses)
                # Only the database is moved into place, so nothing may be left in its log.
                new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            old.close()
    connections.protect(aside)
    with files.write_errors(aside):
        files.share(aside / layout.DATABASE, directory / layout.DATABASE)


def _swap(directory: Path, ready: str, log: RepairLog) -> None:
    """Replace the database; `ready` stays until the end and tells the next repair to go on.

    The old log is moved away first. Beside the new database, SQLite would replay it.
    """
    if (directory / ready / layout.DATABASE).exists():
        for name in layout.DATABASE_FILES[1:]:
            if (directory / name).exists():
                log.quarantined.append(files.quarantine(directory, name))
        if (directory / layout.DATABASE).exists():
            log.quarantined.append(files.quarantine(directory, layout.DATABASE, keep=True))
        files.replace(directory, f"{ready}/{layout.DATABASE}", layout.DATABASE)
    last = _last(directory)
    head, _ = _head(directory)
    if head is None:
        _set_head_aside(directory, log)
    if head is None or head.seq < last.seq:
        head_file.write_head(directory, last)
    files.remove(directory, [ready], durable=True)


def _last(directory: Path) -> head_file.Head:
    with reading(directory, during_repair=True) as connection:
        last = catalog.last_commit(connection)
    return head_file.Head(last.seq, last.chain)


def _ready(directory: Path) -> list[str]:
    """Return the names of the finished copies that an interrupted repair left."""
    return sorted(path.name for path in directory.iterdir() if layout.is_repaired_copy(path))


def _resume(directory: Path, ready: str, log: RepairLog) -> None:
    """Finish an interrupted repair, unless the index was written since."""
    if _is_outdated(directory, ready):
        files.remove(directory, [ready])
        log.actions.append(
            "discarded the copy of an interrupted repair, because the index was written since"
        )
        return
    _swap(directory, ready, log)
    log.actions.append("finished an interrupted repair; `status` lists its losses")


def _is_outdated(directory: Path, ready: str) -> bool:
    """Return whether commits were made after a copy that is not installed yet.

    The history of a copy begins one commit after the last one of the damaged database. If the
    index has exactly that commit, the copy was installed, and a power cut undid only the removal
    of its former name.
    """
    if not (directory / ready / layout.DATABASE).exists():
        return False
    try:
        begun = _last(directory / ready)
    except IndexCorrupt:
        return True
    head, _ = _head(directory)
    seen = [head] if head else []
    with suppress(StorageError):
        seen.append(_last(directory))
    return any(commit.seq >= begun.seq and commit != begun for commit in seen)

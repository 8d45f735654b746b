"""Verification: read all stored data and report what is not as it was written."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import suppress
from pathlib import Path

from retriever import reports
from retriever.errors import (
    FormatMismatch,
    IndexBusy,
    IndexClosed,
    IndexCorrupt,
    IndexLocked,
    IndexReadOnly,
    RetrieverError,
    StorageError,
)
from retriever.reports import Problem, VerifyReport
from retriever.storage import (
    catalog,
    field_rows,
    files,
    head_file,
    layout,
    row_checks,
    schema,
    segment_checks,
    segments,
)
from retriever.storage.check import Check
from retriever.storage.head_file import check_head
from retriever.storage.pool import reading
from retriever.storage.series import SegmentContent
from retriever.types import Progress

_SHOWN = 20
_REPAIR = "Run `retriever repair`."
# Errors of this process, or of a disk that does not respond. The data may be readable another time,
# so they are not reported as damage. `files.REFUSED` is the same for files read without SQLite.
_UNREADABLE = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_IOERR,
}


def verify(
    directory: Path,
    *,
    kinds: Sequence[SegmentContent],
    deep: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> VerifyReport:
    """Check an index and return a report; damage is reported, never raised.

    Args:
        directory: The index; writers and readers are not blocked.
        kinds: The kinds of segment whose content is compared with the catalog.
        deep: Also compare the whole content of segments, bit for bit, with the catalog's rows.
        progress: Called before each check.

    Raises:
        FormatMismatch: The index has another format, which this version cannot check.
        StorageError, OSError: This process cannot read the index, because of permissions, the
            limit on open files, or memory.
    """
    began = time.monotonic()
    require_our_format(directory)
    done: list[Check] = []
    steps = list(_steps(directory, kinds, deep=deep))
    for position, (name, run) in enumerate(steps):
        if progress is not None:
            progress(Progress("verify", position, len(steps), "checks", item=name))
        check = Check(name)
        try:
            run(check)
        except RetrieverError as exc:
            # A missing database cannot be opened either, but that is damage.
            if not is_damage(exc) and (directory / layout.DATABASE).is_file():
                raise
            check.blame(exc.message)
        except (sqlite3.Error, OSError, ValueError, LookupError, TypeError) as exc:
            if isinstance(exc, OSError) and exc.errno in files.REFUSED:
                raise
            check.blame(f"cannot be read: {exc}")
        done.append(check)
    return _report(directory, done, time.monotonic() - began)


def require_our_format(directory: Path) -> None:
    """Refuse an index of another format, damaged or not; other damage is left to the checks.

    Raises:
        FormatMismatch: The database has another format, or an option of chunking that only a later
            version knows; or it is unreadable, and HEAD names another format.
        StorageError: This process cannot read the index.
    """
    try:
        with reading(directory) as connection:
            schema.check(connection, str(directory))
            catalog.chunkings(connection)
    except FormatMismatch:
        raise
    except StorageError as exc:
        if not (directory / layout.DATABASE).is_file():
            return
        if not is_damage(exc):
            raise
        found = head_file.format_of_head(directory)
        if found not in (None, layout.FORMAT):
            raise schema.other_format(str(directory), found) from exc


def is_damage(exc: RetrieverError) -> bool:
    """Return whether an error means that the index is damaged, rather than not accessible."""
    if type(exc) is not StorageError:
        return not isinstance(exc, IndexBusy | IndexClosed | IndexLocked | IndexReadOnly)
    cause = exc.__cause__
    if isinstance(cause, OSError):
        return cause.errno not in files.REFUSED
    code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return code not in _UNREADABLE


def _report(directory: Path, done: list[Check], seconds: float) -> VerifyReport:
    problems = tuple(
        Problem(check=check.name, path=str(directory), detail=problem, hint=_REPAIR)
        for check in done
        for problem in check.problems[:_SHOWN]
    )
    checks = tuple(
        reports.Check(
            name=check.name,
            ok=not check.problems,
            detail=_problems(check.problems) if check.problems else check.detail,
        )
        for check in done
    )
    return VerifyReport(
        path=directory,
        ok=not problems,
        seconds=round(seconds, 3),
        checks=checks,
        problems=problems,
        warnings=tuple(_warnings(directory)),
    )


def _problems(found: Sized) -> str:
    return f"{len(found)} problem{'' if len(found) == 1 else 's'}"


def require_intact(directory: Path, kinds: Sequence[SegmentContent]) -> None:
    """Raise IndexCorrupt with the first problem that `verify` finds."""
    report = verify(directory, kinds=kinds)
    if not report.ok:
        first = report.problems[0]
        raise IndexCorrupt(
            f"{directory} is damaged: {first.detail} ({_problems(report.problems)}).",
            path=str(directory),
            check=first.check,
        )


def _steps(
    directory: Path, kinds: Sequence[SegmentContent], *, deep: bool
) -> Iterator[tuple[str, Callable[[Check], None]]]:
    def on(run: Callable[[Check, sqlite3.Connection], None]) -> Callable[[Check], None]:
        def step(check: Check) -> None:
            # A transaction for each check: while one is open, the log cannot be emptied.
            with reading(directory) as connection:
                run(check, connection)

        return step

    yield "head", lambda check: _check_head(check, directory)
    yield "schema", on(lambda check, c: schema.check(c, str(directory)))
    yield "database", on(lambda check, c: _check_database(check, c, directory))
    yield "rows", on(row_checks.check_rows)
    yield "documents", on(row_checks.check_documents)
    yield "fields", on(field_rows.check_fields)
    yield "ledgers", on(row_checks.check_ledgers)
    yield "vectors", on(row_checks.check_vectors)
    yield "history", on(row_checks.check_history)
    yield (
        "segments",
        lambda check: segment_checks.check_segments(check, directory, kinds, deep=deep),
    )


def _check_head(check: Check, directory: Path) -> None:
    head = head_file.read_head(directory)
    with reading(directory) as connection:
        check_head(directory, head, connection)
        check.detail = f"commit {catalog.last_commit(connection).seq:,}"


def _check_database(check: Check, connection: sqlite3.Connection, directory: Path) -> None:
    from sqlite_utils import Database

    schema.check(connection, str(directory))  # a crafted one may have checks that never end
    for (line,) in connection.execute(f"PRAGMA integrity_check({_SHOWN})"):
        if line != "ok":
            check.blame(str(line))
    tables = Database(connection, execute_plugins=False).tables
    check.detail = f"{sum(table.count for table in tables):,} rows in {len(tables)} tables"
    for table, row_id, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        check.blame(f"row {row_id} of {table} refers to a missing row of {parent}")


def _warnings(directory: Path) -> list[str]:
    """Return what is unusual but harmless: unknown files, and files in quarantine."""
    known = {*layout.DATABASE_FILES, layout.HEAD, layout.LOCK, layout.IGNORE, layout.QUARANTINE}
    warnings = []
    with suppress(OSError):
        for path in sorted(directory.iterdir()):
            name = path.name
            ours = (
                segments.is_file(path)
                or name.endswith(layout.TEMPORARY)
                or layout.IS_WAITING(name)
                or layout.IS_PENDING(name)
            )
            if layout.is_repaired_copy(path):
                warnings.append(
                    f"{name} is left from an interrupted repair; `retriever repair` finishes it"
                )
            elif name not in known and not ours:
                warnings.append(f"{name} is not a file of the index")
        aside = directory / layout.QUARANTINE
        if layout.is_directory(aside) and any(aside.iterdir()):
            warnings.append("quarantine/ holds files that repair set aside")
    return warnings

"""Verify: read every stored byte that matters and say what is not as it was written."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

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
    checksums,
    files,
    head_file,
    layout,
    records,
    schema,
    segments,
    series,
)
from retriever.storage.pool import reading
from retriever.storage.records import Segment, Space, StoredChunking
from retriever.storage.series import SegmentContent
from retriever.storage.table import Table, damaged
from retriever.storage.tables import (
    CHUNKS,
    COMMITS,
    DOCUMENTS,
    TABLES,
    TEXTS,
    tables_of,
    vectors_of,
)
from retriever.storage.writer import check_head
from retriever.types import Chunk, Progress

if TYPE_CHECKING:
    pass

EncodedTexts: TypeAlias = Mapping[int, Callable[[Chunk], str]]
_SHOWN = 20
_REPAIR = "Run `retriever repair`."
# Of this process, or of a disk that does not answer: the same bytes may be read another time, so
# nothing is called damaged for it. `files.REFUSED` is the like for what is not read by SQLite.
_UNREADABLE = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_IOERR,
}


@dataclass
class Check:
    """One check: its name, and what it found wrong."""

    name: str
    detail: str = ""
    problems: list[str] = field(default_factory=list)

    def blame(self, problem: str) -> None:
        """Note a problem."""
        self.problems.append(problem)


def verify(
    directory: Path,
    *,
    kinds: Sequence[SegmentContent],
    deep: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> VerifyReport:
    """Check an index and return a report; it never raises for damage.

    Args:
        directory: The index; writers and readers may go on meanwhile.
        kinds: What the segments hold that are checked against the catalog.
        deep: Also compare all that segments hold, bit for bit, with the catalog's rows.
        progress: Called for each check.

    Raises:
        FormatMismatch: It is an index of another format, of which nothing can be said.
        StorageError, OSError: This process cannot read the index: rights, descriptors, memory.
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
        FormatMismatch: The database is of another format; or it cannot be asked, and HEAD is.
        StorageError: This process cannot read the index.
    """
    try:
        with reading(directory) as connection:
            schema.check(connection, str(directory))
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
    """Return whether an error tells of the index, not of this process or its rights."""
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
            with reading(directory) as connection:
                run(check, connection)

        return step

    yield "head", lambda check: _check_head(check, directory)
    yield "schema", on(lambda check, c: schema.check(c, str(directory)))
    yield "database", on(lambda check, c: _check_database(check, c, directory))
    yield "rows", on(check_rows)
    yield "documents", on(_check_documents)
    yield "ledgers", on(_check_ledgers)
    yield "vectors", on(_check_vectors)
    yield "history", on(_check_history)
    yield "segments", lambda check: _check_segments(check, directory, kinds, deep=deep)


def _check_head(check: Check, directory: Path) -> None:
    head = head_file.read_head(directory)
    with reading(directory) as connection:
        check_head(directory, head, connection)
        check.detail = f"commit {catalog.last_commit(connection).seq:,}"


def _check_database(check: Check, connection: sqlite3.Connection, directory: Path) -> None:
    from sqlite_utils import Database

    schema.check(connection, str(directory))  # a foreign one may have checks that never end
    for (line,) in connection.execute(f"PRAGMA integrity_check({_SHOWN})"):
        if line != "ok":
            check.blame(str(line))
    tables = Database(connection, execute_plugins=False).tables
    check.detail = f"{sum(table.count for table in tables):,} rows in {len(tables)} tables"
    for table, row_id, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        check.blame(f"row {row_id} of {table} refers to a missing row of {parent}")


# Their rows are read by the checks of what they hold together.
_READ_WITH_CONTENT = {DOCUMENTS, TEXTS, CHUNKS, COMMITS}


def check_rows(
    check: Check, connection: sqlite3.Connection, described: tuple[Table, ...] = TABLES
) -> None:
    """Check each row of the tables that no other check reads: types, checksum and meaning."""
    total = 0
    for table in described:
        if table in _READ_WITH_CONTENT:
            continue
        for row in connection.execute(f"SELECT {table.listed()} FROM {table.name}"):
            total += 1
            if not table.is_sound(row):
                check.blame(f"row {row[0]} of table {table.name}: checksum does not match")
    check.detail = f"{total:,} rows of settings, files, ledgers and the like"


def _check_documents(check: Check, connection: sqlite3.Connection) -> None:
    """Check documents and texts, and that each chunk is the slice that was encoded."""
    encoded = encoded_texts(catalog.chunkings(connection))
    total = 0
    for pk, problem, text in read_documents(connection):
        total += 1
        if problem:
            check.blame(problem)
            continue
        found = connection.execute(
            f"SELECT {CHUNKS.listed()} FROM chunks WHERE document_pk = ?", (pk,)
        ).fetchall()
        for row in found:
            if problem := chunk_problem(row, text, encoded):
                check.blame(problem)
        _check_ordinals(check, found, pk)
    check.detail = f"{total:,} documents"


def read_documents(connection: sqlite3.Connection) -> Iterator[tuple[int, str, str]]:
    """Yield (pk, problem or empty, text) of every document."""
    found = connection.execute(
        f"SELECT {DOCUMENTS.listed('d')}, {TEXTS.listed('t')} FROM documents d"
        " LEFT JOIN texts t ON t.document_pk = d.pk"
    )
    for row in found:
        try:
            document = catalog.document_with_text(row)
        except RetrieverError as exc:
            yield row[0], f"document {row[1]!r}: {exc.message}", ""
        else:
            yield row[0], "", document.text


def encoded_texts(chunkings: Iterable[StoredChunking]) -> EncodedTexts:
    """Return, by the id of a chunking, what gives the text that is encoded for a chunk of it."""
    return {one.id: one.options.encoded_text for one in chunkings}


def chunk_problem(row: Any, text: str, encoded: EncodedTexts) -> str:
    """Return what is wrong with a row of a chunk, or an empty string."""
    try:
        values = CHUNKS.checked(row)
        start, end, byte_start, byte_end = values[4:8]
        piece = text[start:end]
        chunk = records.chunk_of_row(values, "", piece)
        wanted = encoded[values[1]](chunk)
    except (RetrieverError, KeyError):
        return f"chunk {row[0]}: checksum does not match"
    size = len(piece.encode())
    if checksums.text_hash(wanted) != values[14] or size != byte_end - byte_start:
        return f"chunk {row[0]}: its span is not the text that was encoded"
    return ""


def _check_ordinals(check: Check, found: list[Any], pk: int) -> None:
    by_chunking: dict[int, list[int]] = {}
    for row in found:
        by_chunking.setdefault(row[1], []).append(row[3])
    for chunking_id, ordinals in by_chunking.items():
        if sorted(ordinals) != list(range(len(ordinals))):
            check.blame(f"document {pk}: chunks of chunking {chunking_id} are missing or doubled")


def _check_ledgers(check: Check, connection: sqlite3.Connection) -> None:
    """Check that each document is cut for the active chunking; one may have no chunks at all."""
    chunking = catalog.active_space(connection).chunking
    for (document_id,) in connection.execute(
        "SELECT id FROM documents d WHERE NOT EXISTS (SELECT 1 FROM ledgers l"
        " WHERE l.document_pk = d.pk AND l.chunking_id = ?) ORDER BY d.pk",
        (chunking.id,),
    ):
        check.blame(f"document {document_id!r} is not chunked")
    check.detail = f"{catalog.count(connection, 'ledgers'):,} ledgers"


def _check_vectors(check: Check, connection: sqlite3.Connection) -> None:
    """Check the vectors of each space, and that each chunk of its chunking has a row of them.

    While a rebuild fills a space for chunks that are there already, some have none yet.
    """
    total = 0
    for space in catalog.spaces(connection):
        of_chunking = connection.execute(
            "SELECT id FROM chunks WHERE chunking_id = ?", (space.chunking.id,)
        )
        missing = {row[0] for row in of_chunking}
        table = vectors_of(space.id)
        for row in connection.execute(f"SELECT {table.listed()} FROM {table.name}"):
            total += 1
            if row[0] not in missing:
                check.blame(f"vector {row[0]} of space {space.id} has no chunk")
            missing.discard(row[0])
            if problem := vector_problem(space, row):
                check.blame(problem)
        if space.state == "active" or space.chunking.state != "active":
            for chunk_id in sorted(missing):
                check.blame(f"chunk {chunk_id} has no vector in space {space.id}")
    check.detail = f"{total:,} vectors"


def vector_problem(space: Space, row: Sequence[Any]) -> str:
    """Return what is wrong with a row of a space's vectors, or an empty string."""
    try:
        _, data = vectors_of(space.id).checked(row)
    except RetrieverError:
        return f"vector {row[0]}: checksum does not match"
    problem = space.format.problem(data, space.dimension)
    return problem and f"vector {row[0]}: {problem}"


def live_sum(connection: sqlite3.Connection, described: tuple[Table, ...] = TABLES) -> int:
    """Return the sum of the digests of all live rows, from the rows themselves."""
    total = 0
    for table in tables_of(connection, described):
        if table.is_content:
            for row in connection.execute(f"SELECT {table.listed()} FROM {table.name}"):
                total += table.digest(row[:-1])
    return total % checksums.MODULUS


def _check_history(check: Check, connection: sqlite3.Connection) -> None:
    """Recompute the chain of commits from its base, and `live_sum` from the live rows."""
    chain: bytes | None = None
    commits = connection.execute(f"SELECT {COMMITS.listed()} FROM commits ORDER BY seq").fetchall()
    for commit in commits:
        if not COMMITS.has_types(commit):
            raise damaged("commits", commit[0])
        seq, _, n_added, n_deleted, live, link = commit
        if chain is not None and checksums.chain(chain, seq, n_added, n_deleted, live) != link:
            check.blame(f"commit {seq}: its chain does not follow from the one before")
        chain = link
    if live_sum(connection).to_bytes(32) != commits[-1][4]:
        check.blame("the live rows do not add up to what the last commit recorded")
    check.detail = f"{len(commits):,} commits"


def _check_segments(
    check: Check, directory: Path, kinds: Sequence[SegmentContent], *, deep: bool
) -> None:
    """Check segment files; a merge that removes one meanwhile means to look again."""
    for _ in range(3):
        attempt = Check(check.name)
        with reading(directory) as connection:
            found = catalog.all_segments(connection)
            for segment in found:
                attempt.problems += segment_problems(
                    directory, connection, segment, kinds, deep=deep
                )
            for space in catalog.spaces(connection):
                for one in series.series_of(space, kinds):
                    for after, upto in series.gaps(connection, one):
                        where = f"the live chunks from {after + 1} to {upto}"
                        attempt.blame(f"no segment holds {where}")
        if all((directory / f.name).exists() for s in found for f in s.files):
            break
    check.problems, check.detail = attempt.problems, f"{len(found)} segments"


def segment_problems(
    directory: Path,
    connection: sqlite3.Connection,
    segment: Segment,
    kinds: Sequence[SegmentContent],
    *,
    deep: bool = False,
) -> list[str]:
    """Return what is wrong with a segment: its bytes, or what its kind finds in them.

    Of a kind that is not among `kinds`, as a later version may have, the bytes are all that can be
    checked.
    """
    if changed := segments.changed_files(directory, segment):
        return [f"{', '.join(changed)}: missing, or not the bytes that were published"]
    kind = next((kind for kind in kinds if kind.name == segment.kind), None)
    if kind is None:
        return []
    for space in catalog.spaces(connection):
        if series.Series(kind, space).holds(segment):
            paths = [directory / file.name for file in segment.files]
            return kind.verify(paths, connection, space, segment, deep=deep)
    return [f"segment {segment.id} is of space {segment.space_id}, which is not there"]


def _warnings(directory: Path) -> list[str]:
    """Return what is odd but harmless: files nobody knows, and a quarantine that is not empty."""
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
                warnings.append(f"{name} is a repair that was cut short; repair finishes it")
            elif name not in known and not ours:
                warnings.append(f"{name} is not a file of the index")
        aside = directory / layout.QUARANTINE
        if layout.is_directory(aside) and any(aside.iterdir()):
            warnings.append("quarantine/ holds files that repair set aside")
    return warnings

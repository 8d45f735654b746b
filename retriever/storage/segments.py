"""Segments: immutable files that cache, for a range of chunks, what searches read.

Storage knows their bytes: ranges, names, checksums and stamps. Their content is known to a kind
(`SegmentContent`), which builds them and checks them against the catalog. Segments can be deleted
at any time, because they can be built again from the rows of the catalog.

The segments of one kind have ascending ranges that do not overlap (`Series`); those of different
kinds may cover the same chunks.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retriever.errors import StorageError
from retriever.limits import Limits
from retriever.storage import catalog, files, layout, waiting
from retriever.storage.files import Published, Sink, Stamp
from retriever.storage.records import Segment, Space
from retriever.storage.series import SegmentContent, Series, covered, gaps, series_of
from retriever.storage.tables import SEGMENTS

if TYPE_CHECKING:
    from retriever.storage.writer import Writer

_log = logging.getLogger("retriever")


def is_intact(directory: Path, segment: Segment) -> bool:
    """Return whether a segment's files are those that were published.

    A file whose `stat` equals its stamp is taken as unchanged; any other is hashed whole.

    Raises:
        StorageError: This process cannot read a file, because of permissions or the limit on
            open files.
    """
    return all(_is_intact(directory / file.name, file) for file in segment.files)


def _is_intact(path: Path, file: Published) -> bool:
    with suppress(OSError):
        if Stamp.of(path) == file.stamp:
            return True
    return _has_content(path, file.size, file.sha256)


def publish(writer: Writer, series: Series, ranges: Sequence[tuple[int, int]]) -> None:
    """Write the live rows of each range `(after, upto]` as a segment, replacing old segments.

    All files are written first, then one transaction replaces the rows of the catalog, so that no
    reader ever sees a chunk in two segments of a series. The old files are unlinked last: a reader
    that has them mapped keeps their bytes, and one that finds them gone reads the catalog again.
    Old segments must lie completely inside the ranges.
    """
    connection = writer.connection
    old = [
        segment
        for segment in series.segments(connection)
        if any(after < segment.last_id and segment.first_id <= upto for after, upto in ranges)
    ]
    written = []
    for span in ranges:
        n_rows = catalog.count_between(connection, series, *span)
        if n_rows:
            inside = [s for s in old if span[0] < s.first_id and s.last_id <= span[1]]
            published = _write_files(writer, series, span, n_rows, inside)
            written.append((span, n_rows, published))
    with writer.maintenance():
        connection.executemany("DELETE FROM segments WHERE id = ?", [(s.id,) for s in old])
        for (after, upto), n_rows, published in written:
            _insert(connection, series, (after + 1, upto), n_rows, published)
        for span in ranges:
            _drop_tombstones(connection, span)
    files.remove(writer.directory, [file.name for s in old for file in s.files], durable=True)


def _write_files(
    writer: Writer,
    series: Series,
    span: tuple[int, int],
    n_rows: int,
    old: Sequence[Segment],
) -> tuple[Published, ...]:
    connection = writer.connection
    name = files.segment_name(catalog.last_commit(connection).seq)
    written: list[Published] = []

    def write(suffix: str, content: Callable[[Sink], None]) -> None:
        written.append(files.publish(writer.directory, f"{name}.{suffix}", content))

    def replaced() -> list[tuple[Segment, Sequence[Path]]]:
        # Hashed, because damage that left the stamp as it was would be handed on and hidden.
        return [
            (segment, _paths(writer, segment))
            for segment in old
            if not changed_files(writer.directory, segment)
        ]

    series.kind.build(connection, series.space, span, n_rows, write, replaced)
    return tuple(written)


def _paths(writer: Writer, segment: Segment) -> list[Path]:
    return [writer.directory / file.name for file in segment.files]


def _insert(
    connection: sqlite3.Connection,
    series: Series,
    span: tuple[int, int],
    n_rows: int,
    written: tuple[Published, ...],
) -> None:
    segment_id = catalog.next_id(connection, SEGMENTS)
    chunking_id = series.space.chunking.id
    segment = Segment(
        segment_id, series.kind.name, chunking_id, series.space_id, *span, n_rows, written
    )
    connection.execute(SEGMENTS.insert_sql, SEGMENTS.seal(values_of(segment)))


def _drop_tombstones(connection: sqlite3.Connection, span: tuple[int, int]) -> None:
    """Delete the tombstones of a range that no segment needs any more.

    A segment holds a deleted chunk if it covers the chunk and was built before the deletion. One
    that was built later does not hold it, even if it covers it. Without comparing the commits,
    segments of two kinds over one range would keep each other's tombstones for ever.
    """
    after, upto = span
    older = [
        (segment.first_id, segment.last_id, segment.seq)
        for segment in catalog.all_segments(connection)
        if segment.first_id <= upto and after < segment.last_id
    ]
    connection.execute(
        "DELETE FROM tombstones WHERE chunk_id > ? AND chunk_id <= ? AND NOT EXISTS"
        " (SELECT 1 FROM json_each(?) s WHERE json_extract(s.value, '$[0]') <= chunk_id"
        " AND chunk_id <= json_extract(s.value, '$[1]') AND json_extract(s.value, '$[2]') < seq)",
        (after, upto, json.dumps(older)),
    )


def values_of(s: Segment) -> tuple[Any, ...]:
    """Return the values of a segment's row."""
    described = json.dumps([{**file._asdict(), "stamp": list(file.stamp)} for file in s.files])
    span = (s.first_id, s.last_id)
    return (s.id, s.kind, s.chunking_id, s.space_id, *span, s.rows, described, "{}")


def describe_again(connection: sqlite3.Connection, segment: Segment) -> None:
    """Update a segment's row after a change of its files' stamps."""
    sealed = SEGMENTS.seal(values_of(segment))
    connection.execute(SEGMENTS.update_sql, (*sealed, segment.id))


def maintain(
    writer: Writer,
    space: Space,
    kinds: Sequence[SegmentContent],
    limits: Limits,
    condemned: Collection[int] = (),
) -> None:
    """Maintain segments after a write: repair them, write a long tail as one, merge small ones.

    One call merges at most `merge_bytes` of a kind; larger merges wait for `compact`.
    """
    mend(writer, space, kinds, condemned)
    connection = writer.connection
    for series in series_of(space, kinds):
        done = covered(series.segments(connection))
        last = _last_chunk(connection, series)
        if catalog.count_between(connection, series, done, last) > series.kind.tail_rows(limits):
            _log.debug("flushing the tail at commit %d", catalog.last_commit(connection).seq)
            publish(writer, series, _parts(connection, series, (done, last), limits))
            row_bytes = series.kind.bytes_per_row(space)
            if span := _mergeable(series.segments(connection), row_bytes, limits):
                publish(writer, series, [span])


def mend(
    writer: Writer,
    space: Space,
    kinds: Sequence[SegmentContent],
    condemned: Collection[int] = (),
) -> list[str]:
    """Replace segments that are missing or damaged; return the names of quarantined files.

    If only the stamp of a file changed, as after a copy, the new stamp is recorded. A file that
    cannot be read is left as it is. A damaged segment of a kind that is not in `kinds` is dropped.
    """
    set_aside = []
    for series in series_of(space, kinds):
        for segment in series.segments(writer.connection):
            if _is_damaged(writer, segment, condemned):
                name = segment.files[0].name
                _log.warning("segment %s is missing or damaged; rebuilding it", name)
                set_aside += _set_aside(writer, segment)
            elif series.kind.is_current(_paths(writer, segment)):
                continue
            publish(writer, series, [(segment.first_id - 1, segment.last_id)])
        for span in gaps(writer.connection, series):
            _log.warning("no segment holds chunks %d to %d; building one", span[0] + 1, span[1])
            publish(writer, series, [span])
    known = {kind.name for kind in kinds}
    for segment in catalog.all_segments(writer.connection):
        if segment.kind not in known and _is_damaged(writer, segment, condemned):
            _log.warning("segment %s is missing or damaged; dropping it", segment.files[0].name)
            set_aside += _set_aside(writer, segment)
            with writer.maintenance() as connection:
                connection.execute("DELETE FROM segments WHERE id = ?", (segment.id,))
    return set_aside


def _is_damaged(writer: Writer, segment: Segment, condemned: Collection[int]) -> bool:
    """Return whether a segment must be replaced; record the stamp of one that was only touched."""
    try:
        is_sound = segment.id not in condemned and is_intact(writer.directory, segment)
    except StorageError as exc:
        _log.warning("%s The segment is left as it is.", exc.message)
        return False
    if is_sound:
        _stamp_again(writer, segment)
    return not is_sound


def _set_aside(writer: Writer, segment: Segment) -> list[str]:
    return [
        files.quarantine(writer.directory, file.name)
        for file in segment.files
        if os.path.lexists(writer.directory / file.name)
    ]


def _stamp_again(writer: Writer, segment: Segment) -> None:
    now = tuple(
        file._replace(stamp=Stamp.of(writer.directory / file.name)) for file in segment.files
    )
    if now == segment.files:
        return
    with writer.maintenance() as connection:
        describe_again(connection, replace(segment, files=now))


def _last_chunk(connection: sqlite3.Connection, series: Series) -> int:
    # Not max(): of a query in brackets SQLite would read every row for it.
    row = connection.execute(
        f"SELECT chunk_id FROM {series.table} ORDER BY chunk_id DESC LIMIT 1"
    ).fetchone()
    return int(row[0]) if row else 0


def _mergeable(found: Sequence[Segment], row_bytes: int, limits: Limits) -> tuple[int, int] | None:
    """Return the range of the newest small segments if they are worth merging, else None.

    Segments over half of `merge_bytes` are left to `compact`. The newest run of smaller ones is
    merged once it exceeds that half or has `merge_segments` members. Each merge so yields a segment
    that is not merged again here, or one made of that many, which bounds how often a row is
    rewritten.
    """
    largest = limits.merge_bytes // 2
    run: list[Segment] = []
    size = 0
    for segment in reversed(found):
        bytes_here = segment.rows * row_bytes
        if bytes_here > largest or size + bytes_here > limits.merge_bytes:
            break
        run.append(segment)
        size += bytes_here
    if len(run) >= limits.merge_segments or (len(run) > 1 and size > largest):
        return run[-1].first_id - 1, run[0].last_id
    return None


def compact(writer: Writer, space: Space, kinds: Sequence[SegmentContent], limits: Limits) -> int:
    """Rewrite all live rows into as few segments as `compact_bytes` allows; no tail is left.

    Returns:
        The number of segments written; 0 when they were in order already.
    """
    mend(writer, space, kinds)
    return sum(_compact(writer, series, limits) for series in series_of(space, kinds))


def _compact(writer: Writer, series: Series, limits: Limits) -> int:
    found = series.segments(writer.connection)
    # The last chunks of the last segment may have been deleted. The ranges must cover it whole.
    last = max(_last_chunk(writer.connection, series), covered(found))
    ranges = [
        (after, upto)
        for after, upto in _parts(writer.connection, series, (0, last), limits)
        if not _is_compact(writer.connection, series, found, after, upto)
    ]
    if ranges:
        publish(writer, series, ranges)
    return len(ranges)


def _parts(
    connection: sqlite3.Connection, series: Series, span: tuple[int, int], limits: Limits
) -> list[tuple[int, int]]:
    """Return a range in parts of at most `compact_bytes` each."""
    after, last = span
    ids = catalog.ids_between(connection, series, after, last)
    step = max(1, limits.compact_bytes // series.kind.bytes_per_row(series.space))
    # A range ends just before the first live row of the next one. It so covers the deleted rows in
    # between, which would otherwise stay in an old segment.
    edges = [after, *(int(ids[i]) - 1 for i in range(step, len(ids), step)), last]
    return [(one, following) for one, following in itertools.pairwise(edges) if following > one]


def _is_compact(
    connection: sqlite3.Connection, series: Series, found: list[Segment], after: int, upto: int
) -> bool:
    live = catalog.count_between(connection, series, after, upto)
    inside = [s for s in found if s.last_id > after and s.first_id <= upto]
    if not live:
        return not inside
    return len(inside) == 1 and (inside[0].first_id, inside[0].last_id, inside[0].rows) == (
        after + 1,
        upto,
        live,
    )


def sweep(writer: Writer) -> None:
    """Remove temporary files, segments that are not in the catalog, and tickets of dead writers."""
    # Only files with names of ours are removed; any other is left for `verify` to report.
    known = {file.name for s in catalog.all_segments(writer.connection) for file in s.files}
    stray = [
        path.name
        for path in writer.directory.iterdir()
        if layout.IS_TEMPORARY(path.name) or (path.name not in known and is_file(path))
    ]
    files.remove(writer.directory, stray)
    waiting.clear(writer.directory)


def is_file(path: Path) -> bool:
    """Return whether a path has the name of a segment's file and is not a directory."""
    return layout.SEGMENT_FILE(path.name) is not None and not layout.is_directory(path)


def changed_files(directory: Path, segment: Segment) -> list[str]:
    """Hash a segment's files; return the names of those that differ from what was published.

    Raises:
        StorageError: As `is_intact`.
    """
    # Not by their stamps: a bit that flips on the disk changes neither size nor times.
    return [
        file.name
        for file in segment.files
        if not _has_content(directory / file.name, file.size, file.sha256)
    ]


def _has_content(path: Path, size: int, sha256: str) -> bool:
    try:
        return Stamp.of(path).size == size and files.hash_file(path) == (size, sha256)
    except OSError as exc:
        if exc.errno not in files.REFUSED:
            return False
        raise StorageError(
            f"{path} cannot be read: {exc.strerror}.",
            hint="Check its permissions and the limit on open files.",
        ) from exc

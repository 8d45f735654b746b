"""Segments: immutable files that cache ranges of vectors. Published, stamped, merged, dropped.

A segment is one file of vectors, in whatever form the builder handed in by the facade writes,
and one of its chunk ids (int64, little-endian, ascending). Both can be deleted at any time:
the catalog's rows are the truth and a segment is built from them again.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from retriever.errors import IndexCorrupt, StorageError
from retriever.storage import catalog, files, waiting
from retriever.storage.files import Published, Sink, Stamp
from retriever.storage.records import Segment, Space
from retriever.storage.tables import SEGMENTS
from retriever.storage.transaction import next_id
from retriever.storage.writer import Writer

if TYPE_CHECKING:
    from numpy.typing import NDArray

Blocks: TypeAlias = "Iterable[NDArray[np.float32]]"
Builder: TypeAlias = Callable[[Blocks, int, int, Sink], int]
"""Writes vectors, of a dimension and so many, to a sink; returns how many there were."""

TAIL_ROWS = 4096
MERGE_BYTES = 64 << 20
COMPACT_BYTES = 512 << 20
_FAN_IN = 8
_log = logging.getLogger("retriever")


def covered(segments: list[Segment]) -> int:
    """Return the last chunk id that segments cover; later rows are the tail."""
    return segments[-1].last_id if segments else 0


def gaps(connection: sqlite3.Connection, space: Space) -> list[tuple[int, int]]:
    """Return ranges `(after, upto]` before the tail that have live rows and no segment."""
    found = []
    after = 0
    for segment in catalog.segments(connection, space.id):
        if catalog.count_between(connection, space, after, segment.first_id - 1):
            found.append((after, segment.first_id - 1))
        after = segment.last_id
    return found


def is_intact(directory: Path, segment: Segment) -> bool:
    """Return whether a segment's files are those that were published.

    A file whose `stat` equals its stamp is taken as unchanged; any other is hashed whole.

    Raises:
        StorageError: This process cannot read one: rights, descriptors.
    """
    return all(_is_intact(directory / file.name, file) for file in segment.files)


def _is_intact(path: Path, file: Published) -> bool:
    with suppress(OSError):
        if Stamp.of(path) == file.stamp:
            return True
    return _has_content(path, file.size, file.sha256)


def publish(
    writer: Writer, space: Space, ranges: Sequence[tuple[int, int]], build: Builder
) -> None:
    """Write the live rows of each range `(after, upto]` as a segment, in place of the old ones.

    All files are written first; one transaction then swaps them in, so no reader ever sees a
    row in two segments. The ranges together cover whole segments.
    """
    connection = writer.connection
    old = [
        segment
        for segment in catalog.segments(connection, space.id)
        if any(after < segment.last_id and segment.first_id <= upto for after, upto in ranges)
    ]
    seq = catalog.last_commit(connection).seq
    written = []
    for span in ranges:
        row_count = catalog.count_between(connection, space, *span)
        if row_count:
            name = files.segment_name(seq)
            files_ = _write_files(writer, space, span, name, row_count, build)
            written.append((span, row_count, files_))
    with writer.maintenance():
        connection.executemany("DELETE FROM segments WHERE id = ?", [(s.id,) for s in old])
        for (after, upto), row_count, published in written:
            _insert(writer, space, (after + 1, upto), row_count, published)
        connection.executemany(
            "DELETE FROM tombstones WHERE chunk_id > ? AND chunk_id <= ?", ranges
        )
    files.remove(writer.directory, [file.name for s in old for file in s.files], durable=True)


def _write_files(
    writer: Writer, space: Space, span: tuple[int, int], name: str, row_count: int, build: Builder
) -> tuple[Published, ...]:
    ids: list[NDArray[np.int64]] = []

    def vectors() -> Iterator[NDArray[np.float32]]:
        for block_ids, block in catalog.vector_blocks(writer.connection, space, *span):
            ids.append(block_ids)
            yield block

    def write_ids(sink: Sink) -> None:
        sink(np.concatenate(ids).astype("<i8").tobytes())

    def write_vectors(sink: Sink) -> None:
        found = build(vectors(), space.dimension, row_count, sink)
        if found != row_count:
            raise IndexCorrupt(
                f"{found:,} vectors are where {row_count:,} are counted.",
                path=str(writer.directory),
                check="vectors",
                hint="Run `retriever verify` to see all damage and `retriever repair` to mend it.",
            )

    first = files.publish(writer.directory, f"{name}.faiss", write_vectors)
    return first, files.publish(writer.directory, f"{name}.ids", write_ids)


def _insert(
    writer: Writer,
    space: Space,
    span: tuple[int, int],
    row_count: int,
    written: tuple[Published, ...],
) -> None:
    segment_id = next_id(writer.connection, SEGMENTS)
    kind, chunking_id = space.format.kind, space.chunking.id
    segment = Segment(segment_id, kind, chunking_id, space.id, *span, row_count, written)
    writer.connection.execute(SEGMENTS.insert_sql, SEGMENTS.seal(values_of(segment)))


def values_of(s: Segment) -> tuple[Any, ...]:
    """Return the values of a segment's row."""
    described = json.dumps([{**file._asdict(), "stamp": list(file.stamp)} for file in s.files])
    span = (s.first_id, s.last_id)
    return (s.id, s.kind, s.chunking_id, s.space_id, *span, s.rows, described, "{}")


def describe_again(connection: sqlite3.Connection, segment: Segment) -> None:
    """Write a segment's row again: its files are otherwise now."""
    sealed = SEGMENTS.seal(values_of(segment))
    connection.execute(SEGMENTS.update_sql, (*sealed, segment.id))


def maintain(writer: Writer, space: Space, build: Builder, condemned: Collection[int] = ()) -> None:
    """Bring segments in order after a write: mend, flush a long tail, merge small ones.

    One call merges at most 64 MB; larger merges wait for `compact`.
    """
    mend(writer, space, build, condemned)
    top = catalog.last_commit(writer.connection)
    done = covered(catalog.segments(writer.connection, space.id))
    last = _last_chunk(writer, space)
    if catalog.count_between(writer.connection, space, done, last) > TAIL_ROWS:
        _log.debug("flushing the tail at commit %d", top.seq)
        publish(writer, space, [(done, last)], build)
        if span := _mergeable(catalog.segments(writer.connection, space.id), space.dimension):
            publish(writer, space, [span], build)


def mend(
    writer: Writer, space: Space, build: Builder, condemned: Collection[int] = ()
) -> list[str]:
    """Replace segments that are missing or damaged; return the names set aside.

    A file that was only touched or copied is stamped again; one that cannot be read is left.
    """
    set_aside = []
    for segment in catalog.segments(writer.connection, space.id):
        try:
            is_sound = segment.id not in condemned and is_intact(writer.directory, segment)
        except StorageError as exc:
            _log.warning("%s The segment is left as it is.", exc.message)
            continue
        if is_sound:
            _stamp_again(writer, segment)
            continue
        _log.warning("segment %s is missing or damaged; rebuilding it", segment.files[0].name)
        set_aside += [
            files.quarantine(writer.directory, file.name)
            for file in segment.files
            if os.path.lexists(writer.directory / file.name)
        ]
        publish(writer, space, [(segment.first_id - 1, segment.last_id)], build)
    for span in gaps(writer.connection, space):
        _log.warning("no segment holds chunks %d to %d; building one", span[0] + 1, span[1])
        publish(writer, space, [span], build)
    return set_aside


def discard(connection: sqlite3.Connection) -> None:
    """Forget every segment unread, in the caller's transaction; its rows become the tail."""
    connection.execute("DELETE FROM segments")
    connection.execute("DELETE FROM tombstones")


def _stamp_again(writer: Writer, segment: Segment) -> None:
    now = tuple(
        file._replace(stamp=Stamp.of(writer.directory / file.name)) for file in segment.files
    )
    if now == segment.files:
        return
    with writer.maintenance() as connection:
        describe_again(connection, replace(segment, files=now))


def _last_chunk(writer: Writer, space: Space) -> int:
    row = writer.connection.execute(f"SELECT max(chunk_id) FROM {space.table}").fetchone()
    return int(row[0] or 0)


def _mergeable(found: list[Segment], dimension: int) -> tuple[int, int] | None:
    """Return the range of the newest small segments once merging them pays.

    Segments over half the limit are left for `compact`; the newest run of smaller ones is merged
    when it fills that half or has eight members, so a row is rewritten a bounded number of times.
    """
    run: list[Segment] = []
    size = 0
    for segment in reversed(found):
        bytes_here = segment.rows * dimension * 4
        if bytes_here > MERGE_BYTES // 2 or size + bytes_here > MERGE_BYTES:
            break
        run.append(segment)
        size += bytes_here
    if len(run) >= _FAN_IN or (len(run) > 1 and size > MERGE_BYTES // 2):
        return run[-1].first_id - 1, run[0].last_id
    return None


def compact(writer: Writer, space: Space, build: Builder) -> int:
    """Rewrite all live rows into as few segments as the size limit allows; no tail is left.

    Returns:
        The number of segments written; 0 when they were in order already.
    """
    mend(writer, space, build)
    found = catalog.segments(writer.connection, space.id)
    last = max(_last_chunk(writer, space), covered(found))
    ids = catalog.ids_between(writer.connection, space, 0, last)
    step = max(1, COMPACT_BYTES // (space.dimension * 4))
    edges = [0, *(int(ids[i]) - 1 for i in range(step, len(ids), step)), last]
    ranges = [
        (after, upto)
        for after, upto in itertools.pairwise(edges)
        if upto > after and not _is_compact(writer, space, found, after, upto)
    ]
    if ranges:
        publish(writer, space, ranges, build)
    return len(ranges)


def _is_compact(writer: Writer, space: Space, found: list[Segment], after: int, upto: int) -> bool:
    live = catalog.count_between(writer.connection, space, after, upto)
    inside = [s for s in found if s.last_id > after and s.first_id <= upto]
    if not live:
        return not inside
    return len(inside) == 1 and (inside[0].first_id, inside[0].last_id, inside[0].rows) == (
        after + 1,
        upto,
        live,
    )


def sweep(writer: Writer) -> None:
    """Remove temporary files, segments that the catalog does not name, and places of the dead."""
    known = {file.name for s in catalog.all_segments(writer.connection) for file in s.files}
    stray = [
        path.name
        for path in writer.directory.iterdir()
        if files.IS_TEMPORARY(path.name) or (path.name not in known and is_file(path))
    ]
    files.remove(writer.directory, stray)
    waiting.clear(writer.directory)


def is_file(path: Path) -> bool:
    """Return whether a path has the name of a segment's file and is no directory."""
    return files.SEGMENT_FILE(path.name) is not None and not files.is_directory(path)


def changed_files(directory: Path, segment: Segment) -> list[str]:
    """Return the names of a segment's files whose bytes, read in full, are not as published.

    Raises:
        StorageError: As `is_intact`.
    """
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
            hint="Check its permissions and the limit of open files.",
        ) from exc

"""Checks of segments: their files, and their content against the catalog."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from retriever.storage import catalog, segments, series
from retriever.storage.check import Check
from retriever.storage.pool import reading
from retriever.storage.records import Segment
from retriever.storage.series import SegmentContent


def check_segments(
    check: Check, directory: Path, kinds: Sequence[SegmentContent], *, deep: bool
) -> None:
    """Check segments; if a concurrent merge removes files meanwhile, check again, up to 3 times."""
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
    """Return the problems of a segment: of its bytes, or those that its kind finds in them.

    For a kind that is not among `kinds`, such as one of a later version, only the bytes can be
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
    return [f"segment {segment.id} belongs to space {segment.space_id}, which does not exist"]

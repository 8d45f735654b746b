"""The interface of a kind of segment to storage, and the series of segments of one kind.

Storage builds and checks segments of any kind through `SegmentContent`, without knowing what their
files hold. The interface for searching is `retriever.search.segment_kinds.SegmentKind`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from retriever.limits import Limits
from retriever.storage import catalog
from retriever.storage.files import Sink
from retriever.storage.records import Segment, Space

WriteFile: TypeAlias = Callable[[str, Callable[[Sink], None]], None]
"""Writes one file of a segment: its suffix, and what writes its bytes to a sink."""


Replaced: TypeAlias = Callable[[], Sequence[tuple[Segment, Sequence[Path]]]]
"""Returns, with their files, the segments that a new one replaces and whose bytes are as they were
published: they are read whole when it is called."""


class SegmentContent(Protocol):
    """The interface of a kind of segment to storage.

    Attributes:
        name: Its name in the catalog; a new file format needs a new name.
        of_vectors: Whether it is built from a space's vectors. Otherwise it is built from the
            texts of a chunking, and spaces that share the chunking share its segments.
    """

    name: str
    of_vectors: bool

    def suits(self, space: Space) -> bool:
        """Return whether a space has segments of this kind."""
        ...

    def bytes_per_row(self, space: Space) -> int:
        """Return roughly how many bytes a chunk takes; limits the size of merged segments."""
        ...

    def tail_rows(self, limits: Limits) -> int:
        """Return how many rows a write may leave that no segment covers."""
        ...

    def is_current(self, paths: Sequence[Path]) -> bool:
        """Return whether intact files have the content that this version would write.

        A writer builds a segment again that does not.
        """
        ...

    def build(
        self,
        connection: sqlite3.Connection,
        space: Space,
        span: tuple[int, int],
        n_rows: int,
        write: WriteFile,
        replaced: Replaced,
    ) -> None:
        """Write the files of one segment.

        Args:
            connection: The connection to read the catalog's rows from.
            space: The space, with its chunking.
            span: The range `(after, upto]` of chunk ids.
            n_rows: The number of live chunks in the range.
            write: Call it once for each file; `verify` gets the files in the same order.
            replaced: What may be used instead of the rows, in ascending order of chunk id. Files
                may hold chunks that were deleted since.

        Raises:
            IndexCorrupt: The catalog does not have `n_rows` sound rows in the range.
        """
        ...

    def verify(
        self,
        paths: Sequence[Path],
        connection: sqlite3.Connection,
        space: Space,
        segment: Segment,
        *,
        deep: bool,
    ) -> list[str]:
        """Return the problems of a segment whose bytes are those that were published.

        Args:
            paths: The files.
            connection: Inside a read transaction.
            space: The space, with its chunking.
            segment: The segment's row of the catalog.
            deep: Whether to compare the whole content with the catalog's rows.
        """
        ...


@dataclass(frozen=True, slots=True)
class Series:
    """The segments of one kind for a space, with ascending ranges that do not overlap.

    Attributes:
        kind: The kind.
        space: The space, with its chunking.
    """

    kind: SegmentContent
    space: Space

    @property
    def space_id(self) -> int | None:
        """Return the id of the space; None for a kind that is built from texts."""
        return self.space.id if self.kind.of_vectors else None

    @property
    def table(self) -> str:
        """Return a table or query with a row for each live chunk; see `catalog.ChunkRows`."""
        if self.kind.of_vectors:
            return self.space.table
        chunking_id = int(self.space.chunking.id)
        return f"(SELECT id AS chunk_id FROM chunks WHERE chunking_id = {chunking_id})"

    def segments(self, connection: sqlite3.Connection) -> list[Segment]:
        """Return the segments in ascending order of chunk id."""
        return catalog.segments(connection, self.kind.name, self.space.chunking.id, self.space_id)

    def holds(self, segment: Segment) -> bool:
        """Return whether a segment belongs to the series."""
        of = (segment.kind, segment.chunking_id, segment.space_id)
        return of == (self.kind.name, self.space.chunking.id, self.space_id)


def series_of(space: Space, kinds: Iterable[SegmentContent]) -> list[Series]:
    """Return the series of a space, one for each kind that suits it."""
    return [Series(kind, space) for kind in kinds if kind.suits(space)]


def covered(segments: Sequence[Segment]) -> int:
    """Return the last chunk id that segments cover; later rows are the tail."""
    return max((segment.last_id for segment in segments), default=0)


def gaps(connection: sqlite3.Connection, series: Series) -> list[tuple[int, int]]:
    """Return the ranges `(after, upto]` before the tail that have live rows but no segment."""
    found = []
    after = 0
    for segment in series.segments(connection):
        if catalog.count_between(connection, series, after, segment.first_id - 1):
            found.append((after, segment.first_id - 1))
        after = segment.last_id
    return found

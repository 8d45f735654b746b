"""Kinds of segment as storage sees them, and the series that the segments of one kind make.

Storage builds and checks segments of any kind through `SegmentContent`, without knowing what their
files hold. What searches ask of a kind is `retriever.search.segment_kinds.SegmentKind`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from retriever.storage import catalog
from retriever.storage.files import Sink
from retriever.storage.records import Segment, Space

WriteFile: TypeAlias = Callable[[str, Callable[[Sink], None]], None]
"""Writes one file of a segment: its suffix, and what writes its bytes to a sink."""


class SegmentContent(Protocol):
    """What storage asks of a kind of segment. What searches ask of it is `search.SegmentKind`.

    Attributes:
        name: In the catalog; another form of the files needs another name.
        of_vectors: Whether it is made from a space's vectors; otherwise it is made from the texts
            of a chunking, and spaces that share the chunking share it.
    """

    name: str
    of_vectors: bool

    def suits(self, space: Space) -> bool:
        """Return whether there are segments of this kind for a space."""
        ...

    def bytes_per_row(self, space: Space) -> int:
        """Return how many bytes a chunk takes, about: merging and compacting go by it."""
        ...

    def build(
        self,
        connection: sqlite3.Connection,
        space: Space,
        span: tuple[int, int],
        n_rows: int,
        write: WriteFile,
    ) -> None:
        """Write the files of one segment.

        Args:
            connection: Where the catalog's rows are read.
            space: What is searched, with its chunking.
            span: The range `(after, upto]` of chunk ids.
            n_rows: How many live chunks there are in it.
            write: Called once for each file, in the order in which `verify` gets them.

        Raises:
            IndexCorrupt: The catalog does not hold `n_rows` sound rows there.
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
        """Return what is wrong with files whose bytes are those that were published.

        Args:
            paths: The files.
            connection: Inside a read transaction.
            space: What is searched, with its chunking.
            segment: What the catalog says of them.
            deep: Whether to compare all that they hold with the catalog's rows.
        """
        ...


@dataclass(frozen=True, slots=True)
class Series:
    """The segments of one kind that serve a space: ascending ranges, which do not overlap.

    Attributes:
        kind: What their files hold.
        space: The space, with its chunking.
    """

    kind: SegmentContent
    space: Space

    @property
    def space_id(self) -> int | None:
        """Return the space that they are of; None for a kind that is made from texts."""
        return self.space.id if self.kind.of_vectors else None

    @property
    def table(self) -> str:
        """Return what has a row for each live chunk; see `catalog.ChunkRows`."""
        if self.kind.of_vectors:
            return self.space.table
        chunking_id = int(self.space.chunking.id)
        return f"(SELECT id AS chunk_id FROM chunks WHERE chunking_id = {chunking_id})"

    def segments(self, connection: sqlite3.Connection) -> list[Segment]:
        """Return them in ascending order of chunk id."""
        return catalog.segments(connection, self.kind.name, self.space.chunking.id, self.space_id)

    def holds(self, segment: Segment) -> bool:
        """Return whether a segment is one of them."""
        of = (segment.kind, segment.chunking_id, segment.space_id)
        return of == (self.kind.name, self.space.chunking.id, self.space_id)


def series_of(space: Space, kinds: Iterable[SegmentContent]) -> list[Series]:
    """Return the series that serve a space, one for each kind that suits it."""
    return [Series(kind, space) for kind in kinds if kind.suits(space)]


def covered(segments: Sequence[Segment]) -> int:
    """Return the last chunk id that segments cover; later rows are the tail."""
    return max((segment.last_id for segment in segments), default=0)


def gaps(connection: sqlite3.Connection, series: Series) -> list[tuple[int, int]]:
    """Return ranges `(after, upto]` before the tail that have live rows and no segment."""
    found = []
    after = 0
    for segment in series.segments(connection):
        if catalog.count_between(connection, series, after, segment.first_id - 1):
            found.append((after, segment.first_id - 1))
        after = segment.last_id
    return found

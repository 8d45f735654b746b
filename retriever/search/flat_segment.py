"""Flat segments: every vector of a range as it is, searched exactly.

Two files: `.faiss`, an index of inner products as faiss writes it, and `.ids`, the chunk id of each
of its rows (int64, little-endian, ascending).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retriever.errors import IndexCorrupt
from retriever.limits import Limits
from retriever.search.vectors import FlatSegment, read_rows, write_flat
from retriever.storage import catalog
from retriever.storage.files import Sink
from retriever.storage.records import Segment, Space
from retriever.storage.series import Replaced, WriteFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK = 4_096  # rows compared at a time


class FlatKind:
    """See `SegmentKind` and `SegmentContent`."""

    name = "flat"
    of_vectors = True

    def suits(self, space: Space) -> bool:
        """Return whether the space has one vector for each chunk."""
        return space.format.kind == "dense"

    def bytes_per_row(self, space: Space) -> int:
        """Return the bytes of a float32 vector; the id beside it does not matter."""
        return space.dimension * 4

    def tail_rows(self, limits: Limits) -> int:
        """Return the vectors that a search reads from the database."""
        return limits.tail_rows

    def is_current(self, paths: Sequence[Path]) -> bool:
        """Return True: there is only one way to write vectors."""
        return True

    def build(
        self,
        connection: sqlite3.Connection,
        space: Space,
        span: tuple[int, int],
        n_rows: int,
        write: WriteFile,
        replaced: Replaced,
    ) -> None:
        """Write the vectors, a block at a time, and then the ids that came with them."""
        ids: list[NDArray[np.int64]] = []

        def vectors() -> Iterator[NDArray[np.float32]]:
            for block_ids, block in catalog.vector_blocks(connection, space, *span):
                ids.append(block_ids)
                yield block

        def write_vectors(sink: Sink) -> None:
            found = write_flat(vectors(), space.dimension, n_rows, sink)
            # The number of rows is in the head of the file, which is written first.
            if found != n_rows:
                raise IndexCorrupt(
                    f"{found:,} vectors are where {n_rows:,} are counted.",
                    path="the index",
                    check="vectors",
                    hint="Run `retriever verify` to see all damage, then `retriever repair`.",
                )

        def write_ids(sink: Sink) -> None:
            sink(np.concatenate(ids).astype("<i8").tobytes())

        # In this order: the ids are collected while the vectors are written.
        write("faiss", write_vectors)
        write("ids", write_ids)

    def open(self, paths: Sequence[Path], space: Space, segment: Segment) -> FlatSegment:
        """Map both files."""
        vectors, ids = _both(paths)
        return FlatSegment.open(vectors, ids, dimension=space.dimension, rows=segment.rows)

    def verify(
        self,
        paths: Sequence[Path],
        connection: sqlite3.Connection,
        space: Space,
        segment: Segment,
        *,
        deep: bool,
    ) -> list[str]:
        """Compare the ids with the live rows and the tombstones; `deep`, the vectors as well."""
        path, listed = _both(paths)
        ids = np.fromfile(listed, dtype="<i8")
        live = catalog.ids_between(connection, space, segment.first_id - 1, segment.last_id)
        dead = catalog.tombstones(connection, -1)
        # Searches read from the catalog only what no segment covers, so a live row that is missing
        # here would never be found.
        if len(ids) != segment.rows or not np.isin(live, ids).all():
            return [f"{listed.name}: live chunks are missing from it"]
        # A tombstone may be of a segment of another kind, but every dead row here needs one.
        if not np.isin(np.setdiff1d(ids, live), dead).all() or np.isin(live, dead).any():
            return [f"{listed.name}: its deleted chunks are not those of the tombstones"]
        if deep and not _has_equal_vectors(path, ids, connection, space, segment):
            return [f"{path.name}: its vectors are not those of the catalog"]
        return []


FLAT = FlatKind()


def _both(paths: Sequence[Path]) -> tuple[Path, Path]:
    if [path.suffix for path in paths] != [".faiss", ".ids"]:
        raise IndexCorrupt(
            f"A flat segment is of {', '.join(path.name for path in paths)}; it should be a .faiss "
            "and an .ids file.",
            path=str(paths[0].parent),
            check="segment",
        )
    return paths[0], paths[1]


def _has_equal_vectors(
    path: Path,
    ids: NDArray[np.int64],
    connection: sqlite3.Connection,
    space: Space,
    segment: Segment,
) -> bool:
    """Return whether the live rows of a file are, to the bit, the catalog's vectors."""
    span = (segment.first_id - 1, segment.last_id)
    for live, stored in catalog.vector_blocks(connection, space, *span, size=_BLOCK):
        # `verify` has found every live id among the ids, so each position is that of an equal one.
        positions = np.searchsorted(ids, live)
        first, last = int(positions[0]), int(positions[-1]) + 1
        mapped = read_rows(path, space.dimension, first, last)[positions - first]
        # As bytes: NaN is not equal to itself, and -0.0 is equal to 0.0.
        if mapped.tobytes() != stored.tobytes():
            return False
    return True

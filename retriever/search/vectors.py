"""Vector indexes: the only module that imports faiss. Build, load and search one segment.

A block of rows, on disk or in memory, answers the same two questions: the best `k` live rows for
each query, by inner product, and the exact scores of all those that are near enough to a query.
Approximate scores are as faiss or BLAS compute them; `dense.py` scores again what is returned.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from retriever.errors import IndexCorrupt

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float32]
    Ids: TypeAlias = NDArray[np.int64]


_INNER_PRODUCT, _UNUSED = 0, 1 << 20  # as faiss writes them
_FEW = 16_384  # rows; a tail is shorter
_BLOCK = 1_024  # rows that are scored exactly at a time, so that memory stays bounded


class Rows(Protocol):
    """Searchable rows: ascending chunk ids, and how many of them are live."""

    ids: Ids
    n_live: int

    def search(self, queries: Floats, k: int) -> tuple[Ids, Floats]:
        """Return ids and scores of the best `min(k, n_live)` rows, each `(n_queries, that)`."""
        ...

    def near(self, query: Floats, least: float) -> tuple[Ids, NDArray[np.float64]]:
        """Return ids and exact scores of all live rows of an approximate score over `least`."""
        ...

    def without(self, dead: Ids) -> Rows:
        """Return the same rows less those of the ids given; unknown ids are ignored."""
        ...


def exact_scores(vectors: Floats, query: Floats) -> NDArray[np.float64]:
    """Return the cosine of unit vectors `(n, d)` and a unit query `(d,)`, float64 `(n,)`.

    The product is summed row by row, so a row's score is the same in any company.
    """
    products = vectors.astype(np.float64) * query.astype(np.float64)
    with np.errstate(invalid="ignore"):  # a row may be damaged; its score then disagrees
        scores: NDArray[np.float64] = np.ascontiguousarray(products).sum(axis=1)
    return np.clip(scores, -1.0, 1.0)


def _exact_in_blocks(
    read: Callable[[Ids], Floats], positions: Ids, query: Floats
) -> NDArray[np.float64]:
    """Return the exact scores of rows, given how they are read.

    Rows that are this near to a query are mostly copies of one: a copy is only compared.
    """
    scores = np.empty(len(positions), np.float64)
    model: Floats | None = None
    for start in range(0, len(positions), _BLOCK):
        block = read(positions[start : start + _BLOCK])
        some = scores[start : start + len(block)]
        if model is None:
            model = block[0]
        differs = (block != model).any(axis=1)
        some[:] = exact_scores(model[None], query)[0]
        if differs.any():
            some[differs] = exact_scores(block[differs], query)
            model = block[-1]
    return scores


def write_flat(
    blocks: Iterable[Floats], dimension: int, rows: int, sink: Callable[[bytes], int]
) -> int:
    """Write an exact inner-product index of float32 blocks `(n, dimension)`, `rows` in all.

    The bytes are those of faiss's `write_index` of an `IndexFlatIP` (faiss/impl/index_write.cpp):
    its vectors would be in memory twice before the first is written; so it is a block at a time.

    Returns:
        How many rows there were; where it is not `rows`, what was written is of no use.

    Raises:
        OSError: The sink refused the bytes.
    """
    head = (b"IxFI", dimension, rows, _UNUSED, _UNUSED, True, _INNER_PRODUCT, rows * dimension)
    sink(struct.pack("<4siqqq?iQ", *head))
    written = 0
    for block in blocks:
        sink(np.ascontiguousarray(block, "<f4").tobytes())
        written += len(block)
    return written


class FlatSegment:
    """A segment on disk, memory-mapped: the pages are shared by every process that maps it."""

    def __init__(self, index: Any, ids: Ids, live: NDArray[np.bool_] | None) -> None:
        self._index = index
        self._live = live
        self.ids = ids
        self.n_live = len(ids) if live is None else int(live.sum())

    @classmethod
    def open(cls, vectors: Path, ids: Path, *, dimension: int, rows: int) -> FlatSegment:
        """Map a segment whose files were found intact.

        Raises:
            IndexCorrupt: The files are not what the catalog says they are.
        """
        import faiss

        try:
            index = faiss.read_index(str(vectors), faiss.IO_FLAG_MMAP_IFC)
            mapped = np.memmap(ids, dtype="<i8", mode="r") if rows else np.empty(0, np.int64)
        except (RuntimeError, OSError, ValueError) as exc:
            raise IndexCorrupt(
                f"{vectors.name} cannot be loaded: {exc}", path=str(vectors.parent), check="segment"
            ) from exc
        if (index.d, index.ntotal, len(mapped)) != (dimension, rows, rows):
            raise IndexCorrupt(
                f"{vectors.name} holds {index.ntotal} vectors of {index.d} and {len(mapped)} ids; "
                f"the catalog says {rows} of {dimension}.",
                path=str(vectors.parent),
                check="segment",
            )
        return cls(index, mapped, None)

    def search(self, queries: Floats, k: int) -> tuple[Ids, Floats]:
        """See `Rows.search`."""
        k = min(k, self.n_live)
        if k == 0:
            return _nothing(len(queries))
        scores, positions = self._index.search(queries, k, params=self._selection())
        return np.asarray(self.ids)[positions], scores

    def near(self, query: Floats, least: float) -> tuple[Ids, NDArray[np.float64]]:
        """See `Rows.near`."""
        _, _, positions = self._index.range_search(query[None], least, params=self._selection())
        positions.sort()
        scores = _exact_in_blocks(self._index.reconstruct_batch, positions, query)
        return np.asarray(self.ids)[positions], scores

    def _selection(self) -> Any:
        """Return what tells faiss which rows are live; None where all are."""
        if self._live is None:
            return None
        import faiss

        bitmap = np.packbits(self._live, bitorder="little")
        return faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bitmap))

    def without(self, dead: Ids) -> FlatSegment:
        """See `Rows.without`."""
        live = _mask(self.ids, self._live, dead)
        return self if live is None else FlatSegment(self._index, self.ids, live)


class MemoryRows:
    """Rows read from the catalog: the tail, or what stands in for a damaged segment.

    Args:
        ids: Ascending chunk ids, int64 `(n,)`.
        vectors: float32 `(n, dimension)`.
        live: Which rows can be found, bool `(n,)`; None means all.
    """

    def __init__(self, ids: Ids, vectors: Floats, live: NDArray[np.bool_] | None = None) -> None:
        self.ids = ids
        self.vectors = vectors
        self._live = live
        self.n_live = len(ids) if live is None else int(live.sum())

    def search(self, queries: Floats, k: int) -> tuple[Ids, Floats]:
        """See `Rows.search`."""
        k = min(k, self.n_live)
        if k == 0:
            return _nothing(len(queries))
        scores = self._scores(queries)
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        return self.ids[best], np.take_along_axis(scores, best, axis=1)

    def near(self, query: Floats, least: float) -> tuple[Ids, NDArray[np.float64]]:
        """See `Rows.near`."""
        positions = np.flatnonzero(self._scores(query[None])[0] > least)
        scores = _exact_in_blocks(self.vectors.__getitem__, positions, query)
        return self.ids[positions], scores

    def _scores(self, queries: Floats) -> Floats:
        """Return approximate scores `(n_queries, n)`; those of dead rows are -inf."""
        # BLAS would share one question among threads that then wait in a busy loop and
        # take the cores from the encoder's next question: row by row is faster on the whole.
        if len(queries) == 1 and len(self.vectors) <= _FEW:
            scores: Floats = np.vecdot(self.vectors, queries)[None]
        else:
            scores = queries @ self.vectors.T
        if self._live is not None:
            scores[:, ~self._live] = -np.inf
        return scores

    def without(self, dead: Ids) -> MemoryRows:
        """See `Rows.without`."""
        live = _mask(self.ids, self._live, dead)
        return self if live is self._live else MemoryRows(self.ids, self.vectors, live)


def _mask(ids: Ids, live: NDArray[np.bool_] | None, dead: Ids) -> NDArray[np.bool_] | None:
    """Return the live mask less `dead`, or None if it would not change from all live."""
    positions = np.searchsorted(ids, dead)
    inside = positions < len(ids)
    positions, dead = positions[inside], dead[inside]
    positions = positions[ids[positions] == dead]
    if not len(positions):
        return live
    mask = np.ones(len(ids), dtype=bool) if live is None else live.copy()
    mask[positions] = False
    return mask


def _nothing(n_queries: int) -> tuple[Ids, Floats]:
    return np.empty((n_queries, 0), np.int64), np.empty((n_queries, 0), np.float32)


def read_rows(path: Path, dimension: int, start: int, stop: int) -> Floats:
    """Return vectors `[start, stop)` of a segment file, float32 `(stop - start, dimension)`.

    Raises:
        IndexCorrupt: faiss cannot read the file, or it is of another dimension.
    """
    import faiss

    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        if index.d != dimension:
            raise RuntimeError(f"its dimension is {index.d}")
        rows: Floats = index.reconstruct_n(start, stop - start)
    except RuntimeError as exc:
        raise IndexCorrupt(
            f"{path.name} cannot be loaded: {exc}", path=str(path.parent), check="segment"
        ) from exc
    return rows


def limit_threads(threads: int | None) -> None:
    """Cap the OpenMP threads of faiss for the calling thread."""
    if threads is not None:
        import faiss

        faiss.omp_set_num_threads(threads)

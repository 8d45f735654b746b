"""Vector indexes: the only module that imports faiss. Build, load and search one segment.

Rows, on disk or in memory, answer two questions: the best `k` allowed rows for each query, by inner
product, and the exact scores of all allowed rows that are near enough to a query. Approximate
scores are as faiss or BLAS compute them; `dense.py` scores again what is returned.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from retriever.errors import IndexCorrupt
from retriever.search.allowed import Mask, count_allowed

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float32]
    Ids: TypeAlias = NDArray[np.int64]

_INNER_PRODUCT, _UNUSED = 0, 1 << 20  # as faiss writes them
_FEW = 16_384  # rows; a tail is shorter
# Where fewer rows than one in so many are allowed, they are read and scored by themselves. faiss
# tests every bit of the selector for each query, and computes the products one by one: of 200,000
# rows of 384 numbers, with 1 % allowed, 0.5 ms and 30 ms for 1 and 16 queries, by themselves 0.2
# and 1.3 ms; with 6 %, 6 ms and 209 ms, by themselves 12 and 49 ms.
_SELECTIVE_FOR_ONE, _SELECTIVE_FOR_MANY = 64, 8
_BLOCK = 1_024  # rows that are scored exactly at a time, so that memory stays bounded


class Rows(Protocol):
    """Searchable rows of one part of a view; immutable, and safe to search from any thread.

    Attributes:
        ids: Ascending chunk ids, int64 `(n,)`.
        exact: Whether `search` finds the best rows for certain. Only then is a score that differs
            from that of the catalog's vector a sign of damage, and a search that stays within
            such rows exact.
    """

    ids: Ids
    exact: bool

    def search(self, queries: Floats, k: int, allowed: Mask | None) -> tuple[Ids, Floats]:
        """Return ids and scores of the best `min(k, n)` of the `n` allowed rows for each query.

        Args:
            queries: float32 `(n_queries, dimension)`, rows of unit length.
            k: Rows wanted, at least 1.
            allowed: Which rows may be found; None allows all.

        Returns:
            Chunk ids, int64, and their approximate scores, float32, each `(n_queries, min(k, n))`
            in any order. Approximate rows may miss some, and then return fewer columns.
        """
        ...

    def near(
        self, query: Floats, least: float, allowed: Mask | None
    ) -> tuple[Ids, NDArray[np.float64]]:
        """Return ids and exact scores of all allowed rows of an approximate score over `least`.

        Asked of exact rows only.
        """
        ...

    def products(self, query: Floats, positions: Ids) -> Floats:
        """Return the approximate scores of rows at some positions, float32 `(n,)`.

        Asked of exact rows only.
        """
        ...

    def cosines(self, query: Floats, positions: Ids) -> NDArray[np.float64]:
        """Return the exact scores of rows at some positions, float64 `(n,)`.

        Asked of exact rows only.
        """
        ...

    def vectors_at(self, positions: Ids) -> Floats:
        """Return the vectors of some rows, unchecked, float32 `(n, dimension)`."""
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
    """Return the exact scores of rows, a block at a time so that memory stays bounded.

    Rows that tie with a hit are mostly copies of one vector. A row that equals the model, the
    vector scored last, takes its score: comparing is much cheaper than a float64 product.
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
    faiss itself would hold all vectors in memory twice before it writes the first.

    Returns:
        How many rows there were; if it is not `rows`, the head of the file is wrong.

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

    exact = True

    def __init__(self, index: Any, ids: Ids) -> None:
        self._index = index
        self.ids = ids

    @classmethod
    def open(cls, vectors: Path, ids: Path, *, dimension: int, rows: int) -> FlatSegment:
        """Map a segment whose files were found intact.

        Raises:
            IndexCorrupt: The files are not what the catalog says they are.
        """
        import faiss

        try:
            index = faiss.read_index(str(vectors), faiss.IO_FLAG_MMAP_IFC)
            # An empty file cannot be mapped.
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
        return cls(index, mapped)

    def search(self, queries: Floats, k: int, allowed: Mask | None) -> tuple[Ids, Floats]:
        """See `Rows.search`."""
        # Where it finds fewer than k rows, faiss fills up with position -1, which would be taken
        # for the last row.
        n_allowed = count_allowed(len(self.ids), allowed)
        k = min(k, n_allowed)
        if k == 0:
            return _nothing(len(queries))
        selective = _SELECTIVE_FOR_ONE if len(queries) == 1 else _SELECTIVE_FOR_MANY
        if allowed is not None and n_allowed * selective < len(self.ids):
            vectors = self._index.reconstruct_batch(allowed.positions)
            best, scores = _best(_products(vectors, queries), k)
            return np.asarray(self.ids)[allowed.positions[best]], scores
        scores, positions = self._index.search(queries, k, params=_selection(allowed))
        return np.asarray(self.ids)[positions], scores

    def near(
        self, query: Floats, least: float, allowed: Mask | None
    ) -> tuple[Ids, NDArray[np.float64]]:
        """See `Rows.near`."""
        params = _selection(allowed)
        _, _, positions = self._index.range_search(query[None], least, params=params)
        positions.sort()
        return np.asarray(self.ids)[positions], self.cosines(query, positions)

    def products(self, query: Floats, positions: Ids) -> Floats:
        """See `Rows.products`."""
        products: Floats = np.vecdot(self._index.reconstruct_batch(positions), query)
        return products

    def cosines(self, query: Floats, positions: Ids) -> NDArray[np.float64]:
        """See `Rows.cosines`."""
        return _exact_in_blocks(self._index.reconstruct_batch, positions, query)

    def vectors_at(self, positions: Ids) -> Floats:
        """See `Rows.vectors_at`."""
        vectors: Floats = self._index.reconstruct_batch(positions)
        return vectors


def _selection(allowed: Mask | None) -> Any:
    """Return the parameters that tell faiss which rows are allowed; None where all are.

    They go with each call: fields of an index that several threads search must not be changed.
    """
    if allowed is None:
        return None
    import faiss

    return faiss.SearchParameters(sel=faiss.IDSelectorBitmap(allowed.bitmap))


class MemoryRows:
    """Rows read from the catalog: the tail, or what stands in for a damaged segment.

    Args:
        ids: Ascending chunk ids, int64 `(n,)`.
        vectors: float32 `(n, dimension)`.
    """

    exact = True

    def __init__(self, ids: Ids, vectors: Floats) -> None:
        self.ids = ids
        self.vectors = vectors

    def search(self, queries: Floats, k: int, allowed: Mask | None) -> tuple[Ids, Floats]:
        """See `Rows.search`."""
        k = min(k, count_allowed(len(self.ids), allowed))
        if k == 0:
            return _nothing(len(queries))
        # At most as many as are allowed, so no row that is scored -inf is among them.
        best, scores = _best(self._scores(queries, allowed), k)
        return self.ids[best], scores

    def near(
        self, query: Floats, least: float, allowed: Mask | None
    ) -> tuple[Ids, NDArray[np.float64]]:
        """See `Rows.near`."""
        positions = np.flatnonzero(self._scores(query[None], allowed)[0] > least)
        return self.ids[positions], self.cosines(query, positions)

    def products(self, query: Floats, positions: Ids) -> Floats:
        """See `Rows.products`."""
        products: Floats = np.vecdot(self.vectors[positions], query)
        return products

    def cosines(self, query: Floats, positions: Ids) -> NDArray[np.float64]:
        """See `Rows.cosines`."""
        return _exact_in_blocks(self.vectors.__getitem__, positions, query)

    def vectors_at(self, positions: Ids) -> Floats:
        """See `Rows.vectors_at`."""
        return self.vectors[positions]

    def _scores(self, queries: Floats, allowed: Mask | None) -> Floats:
        """Return approximate scores `(n_queries, n)`; those of rows not allowed are -inf."""
        scores = _products(self.vectors, queries)
        if allowed is not None:
            scores[:, ~allowed.flags] = -np.inf
        return scores


def _products(vectors: Floats, queries: Floats) -> Floats:
    """Return the inner products `(n_queries, n)` of vectors `(n, d)` and queries."""
    # BLAS shares even one query among threads, which then wait in a busy loop and take the
    # cores from the encoder's next question: for few rows, one thread is faster overall.
    if len(queries) == 1 and len(vectors) <= _FEW:
        products: Floats = np.vecdot(vectors, queries)[None]
    else:
        products = queries @ vectors.T
    return products


def _best(scores: Floats, k: int) -> tuple[Ids, Floats]:
    """Return positions and scores of the best `k` columns of each row, in any order."""
    best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    return best, np.take_along_axis(scores, best, axis=1)


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

"""What passages of an index are like, whatever is asked: the mean vector of a sample of them.

The cosine of a question to this mean is the mean of its cosines to the sample: how near a passage
is that has nothing to do with the question. Encoders differ in it, from near 0 to .8, and so do
collections; a score says more when it is seen beside it (`confidence.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retriever.search.allowed import AllowedRows, Ids
    from retriever.search.vectors import Floats, Rows

LEAST, MOST = 32, 512  # passages that a sample must, and may about have
_BLOCK = 1 << 16  # ids that are hashed at a time, so that memory stays bounded
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio (Knuth, TAOCP 6.4)


class _Sample(NamedTuple):
    """Chunk ids, ascending, int64 `(n,)`, and their vectors, float32 `(n, dimension)`."""

    ids: Ids
    vectors: Floats


class Background:
    """The mean vector of a view; computed when it is first asked for.

    Which chunks are sampled depends on their ids and on how many are live, not on how they are
    spread over segments, nor on what a process has seen before.

    Args:
        before: That of the view before this one; the vectors that both sample are taken over.
    """

    def __init__(self, before: Background | None = None) -> None:
        self._sample: _Sample | None = before._sample if before else None
        self._mean: Floats | None = None
        self._is_known = False

    def mean(self, parts: list[Rows], live: AllowedRows) -> Floats | None:
        """Return the mean, float32 `(dimension,)`; None where there are too few passages.

        Searches in other threads may compute it at the same time, and come to the same.

        Args:
            parts: What the view consists of.
            live: Its rows that are not deleted.
        """
        if not self._is_known:
            if live.count >= LEAST:
                self._sample = sample = _drawn(parts, live, self._sample)
                mean = sample.vectors.mean(axis=0) if len(sample.ids) >= LEAST else None
                # Vectors of segments are not checked: damage must not make a score of nothing.
                if mean is not None and np.isfinite(mean).all():
                    self._mean = mean
            self._is_known = True
        return self._mean


def _drawn(parts: list[Rows], live: AllowedRows, known: _Sample | None) -> _Sample:
    """Return the sample of a view; only vectors that are not known are read."""
    level = max(0, (live.count - 1).bit_length() - MOST.bit_length() + 1)
    ids, vectors = [], []
    for part, mask in zip(parts, live.masks, strict=True):
        for positions in _positions(part.ids, level):
            chosen = positions if mask is None else positions[mask.flags[positions]]
            if len(chosen):
                found = np.asarray(part.ids[chosen])
                ids.append(found)
                vectors.append(_vectors(part, chosen, found, known))
    if not ids:
        return _Sample(np.empty(0, np.int64), np.empty((0, 0), np.float32))
    return _Sample(np.concatenate(ids), np.concatenate(vectors))


def _positions(ids: Ids, level: int) -> Iterator[Ids]:
    """Yield, block by block, the positions of those ids whose hash ends up in one of 2^level."""
    for start in range(0, len(ids), _BLOCK):
        block = np.asarray(ids[start : start + _BLOCK])
        if not level:
            yield np.arange(start, start + len(block))
            continue
        hashed = block.astype(np.uint64) * _ODD
        yield start + np.flatnonzero(hashed >> np.uint64(64 - level) == 0)


def _vectors(part: Rows, positions: Ids, ids: Ids, known: _Sample | None) -> Floats:
    """Return the vectors of some rows of a part, those that are known without reading them."""
    if known is None or not len(known.ids):
        return part.vectors_at(positions)
    places = np.minimum(np.searchsorted(known.ids, ids), len(known.ids) - 1)
    is_known = known.ids[places] == ids
    vectors = known.vectors[places]
    if not is_known.all():
        vectors[~is_known] = part.vectors_at(positions[~is_known])
    return vectors

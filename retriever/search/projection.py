"""Where the rows of some parts are among those of others that cover the same chunks.

Segments of vectors and of terms are cut differently, so a bitmap over the rows of one must be
turned into one over the rows of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from retriever.search.allowed import Mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ids: TypeAlias = NDArray[np.int64]
    Place: TypeAlias = slice | Ids


class _Piece(NamedTuple):
    """Rows that are in a part of either side: which part, and where in both."""

    part: int
    rows: Place
    targets: Place


class Projection:
    """The places in `targets` of the rows of `parts`, by chunk id.

    Args:
        parts: The chunk ids of each part, ascending, int64.
        targets: Those of each part of the other side.
    """

    def __init__(self, parts: Sequence[Ids], targets: Sequence[Ids]) -> None:
        self._sizes = [len(target) for target in targets]
        self._pieces = [
            [
                piece
                for number, ids in enumerate(parts)
                if (piece := _piece(number, ids, target)) is not None
            ]
            for target in targets
        ]

    def masks(self, masks: Sequence[Mask | None]) -> list[Mask]:
        """Return which rows of `targets` are allowed; rows that no part has are not.

        Args:
            masks: For each of `parts` which of its rows are allowed; None allows all.
        """
        found = []
        for size, pieces in zip(self._sizes, self._pieces, strict=True):
            flags = np.zeros(size, dtype=bool)
            for part, rows, targets in pieces:
                mask = masks[part]
                flags[targets] = True if mask is None else mask.flags[rows]
            found.append(Mask(flags))
        return found


def _piece(number: int, ids: Ids, target: Ids) -> _Piece | None:
    if not len(ids) or not len(target):
        return None
    start, end = np.searchsorted(ids, target[[0, -1]] + np.array([0, 1])).tolist()
    if start >= end:
        return None
    mine = ids[start:end]
    first, last = np.searchsorted(target, mine[[0, -1]] + np.array([0, 1])).tolist()
    theirs = target[first:last]
    # Where nothing was deleted between the building of both they are equal, and slices are copied
    # many times faster than single rows.
    if len(mine) == len(theirs) and (mine == theirs).all():
        return _Piece(number, slice(start, end), slice(first, last))
    places = np.minimum(np.searchsorted(mine, theirs), len(mine) - 1)
    both = np.flatnonzero(mine[places] == theirs)
    return _Piece(number, start + places[both], first + both)

"""Which rows a search may return: one bitmap for each part of a view.

Deleted rows, a filter and hits that were found already are all the same to a search: rows that are
not allowed. So nothing below this needs to know why a row is left out, and "all rows" always means
all that are allowed. A bitmap is never changed; leaving out more makes another.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from retriever.search.duplicates import DuplicateCache

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ids: TypeAlias = NDArray[np.int64]


class Mask:
    """Which rows of one part are allowed. Immutable, so that what is derived from it is kept.

    Args:
        flags: bool `(n_rows,)`.

    Attributes:
        count: How many rows are allowed.
    """

    def __init__(self, flags: NDArray[np.bool_]) -> None:
        self.flags = flags
        self.count = int(np.count_nonzero(flags))

    @cached_property
    def bitmap(self) -> NDArray[np.uint8]:
        """Return one bit for each row, the first row in the lowest bit, as faiss reads it."""
        return np.packbits(self.flags, bitorder="little")

    @cached_property
    def positions(self) -> Ids:
        """Return the positions of the allowed rows, ascending."""
        return np.flatnonzero(self.flags)


def rows_of_mask(values: NDArray[Any], mask: Mask | None) -> NDArray[Any]:
    """Return those of some values, one for each row of a part, whose rows are allowed."""
    return values if mask is None else values[mask.flags]


def count_allowed(n_rows: int, mask: Mask | None) -> int:
    """Return how many of the rows of a part are allowed; no mask allows all."""
    return n_rows if mask is None else mask.count


class AllowedRows:
    """The rows of a view that may be found.

    Args:
        parts: The chunk ids of each part, ascending, int64.
        masks: For each part which of its rows are allowed; None allows all.

    Attributes:
        masks: As given.
        count: How many rows are allowed.
        duplicates: What searches of exactly these rows have learned about copies among them.
        beside: A lexical view, and the same rows as masks over its parts, once these are known.
        note: Why others are left out, for people; "" where nothing is to be said.
    """

    def __init__(self, parts: Sequence[Ids], masks: Sequence[Mask | None]) -> None:
        self._parts = parts
        self.masks = masks
        self.count = sum(map(count_allowed, map(len, parts), masks))
        self.duplicates = DuplicateCache()
        self.beside: tuple[object, Sequence[Mask]] | None = None
        self.note = ""

    @property
    def ids(self) -> Ids:
        """Return the chunk ids of the allowed rows, part by part."""
        return np.concatenate(
            [
                ids if mask is None else ids[mask.positions]
                for ids, mask in zip(self._parts, self.masks, strict=True)
            ]
        )

    def without(self, chunk_ids: Ids) -> AllowedRows:
        """Return these rows less some chunks; ids that are not among them are ignored."""
        return AllowedRows(
            self._parts,
            [
                _without(ids, mask, chunk_ids)
                for ids, mask in zip(self._parts, self.masks, strict=True)
            ],
        )

    def only(self, chunk_ids: Ids) -> AllowedRows:
        """Return those of these rows that are among some chunks."""
        masks = []
        for ids, mask in zip(self._parts, self.masks, strict=True):
            flags = np.zeros(len(ids), dtype=bool)
            flags[positions_of(ids, chunk_ids)] = True
            masks.append(Mask(flags if mask is None else flags & mask.flags))
        return AllowedRows(self._parts, masks)

    def among(self, chunk_ids: Ids) -> Ids:
        """Return those of some chunks that are allowed, in the order given."""
        found = np.zeros(len(chunk_ids), dtype=bool)
        for ids, mask in zip(self._parts, self.masks, strict=True):
            places = np.searchsorted(ids, chunk_ids)
            inside = np.flatnonzero(places < len(ids))
            here = inside[ids[places[inside]] == chunk_ids[inside]]
            found[here] = True if mask is None else mask.flags[places[here]]
        return chunk_ids[found]


def positions_of(ids: Ids, chunk_ids: Ids) -> Ids:
    """Return the positions in ascending `ids` of those of `chunk_ids` that are there."""
    positions = np.searchsorted(ids, chunk_ids)
    inside = positions < len(ids)
    positions, chunk_ids = positions[inside], chunk_ids[inside]
    found: Ids = positions[ids[positions] == chunk_ids]
    return found


def _without(ids: Ids, mask: Mask | None, chunk_ids: Ids) -> Mask | None:
    positions = positions_of(ids, chunk_ids)
    if not len(positions):
        return mask  # the same object, so that its bitmap need not be packed again
    flags = np.ones(len(ids), dtype=bool) if mask is None else mask.flags.copy()
    flags[positions] = False
    return Mask(flags)

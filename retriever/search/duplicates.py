"""Copies of passages that searches have met, remembered for the searches after them.

A boilerplate notice can be in 10,000 chunks. The first search that meets it reads the ids of all
copies from the catalog; the second one has all copies but the first masked, for itself and those
that come after: they have the first one's score, and folding keeps the first. What is remembered
belongs to one immutable set of allowed rows and goes with it. Its size is bounded.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from retriever.search.allowed import AllowedRows
    from retriever.storage.catalog import Text

MIN_COPIES = 64
"""Copies from which on a passage is worth remembering: fewer are read as fast as looked up."""


class DuplicateCache:
    """The passages with many copies that were met in one set of allowed rows. Thread-safe.

    Args:
        max_ids: Chunk ids kept in all, 8 bytes each.

    Attributes:
        firsts: The chunks that stand for masked copies.
    """

    def __init__(self, max_ids: int = 1 << 20) -> None:
        self._max_ids = max_ids
        self._lock = threading.Lock()
        self._ids: dict[Text, NDArray[np.int64]] = {}
        self._masked: set[Text] = set()
        self.firsts: set[int] = set()
        self._unmasked: AllowedRows | None = None

    def ids(self, text: Text) -> NDArray[np.int64] | None:
        """Return the chunks of a passage, if they were remembered."""
        # Without the lock: entries are only ever added, and a lookup in a dict is atomic.
        return self._ids.get(text)

    def remember(self, text: Text, ids: NDArray[np.int64]) -> None:
        """Keep the chunks of a passage if they are many, and as long as the limit allows."""
        with self._lock:
            if (
                len(ids) >= MIN_COPIES
                and sum(map(len, self._ids.values())) + len(ids) <= self._max_ids
            ):
                self._ids[text] = ids

    def without_masked(self, allowed: AllowedRows) -> AllowedRows:
        """Return the allowed rows, to which this cache belongs, less the masked copies."""
        return self._unmasked or allowed

    def is_masked(self, text: Text) -> bool:
        """Return whether the copies of a passage are masked."""
        return text in self._masked

    def mask(self, allowed: AllowedRows, text: Text, first: int, copies: NDArray[np.int64]) -> None:
        """Mask the copies of a passage that have the vector of its first chunk."""
        with self._lock:
            if text not in self._masked:
                self._masked.add(text)
                # A new set: searches in other threads may be reading the old one.
                self.firsts = self.firsts | {first}
                # Last: a search of the reduced rows must find the chunk among `firsts`, or it would
                # take it for one that has no copies.
                self._unmasked = self.without_masked(allowed).without(copies)

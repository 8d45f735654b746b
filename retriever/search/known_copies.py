"""What questions have found out of passages that many chunks hold, kept with a view.

A question that meets such a passage reads the ids of all its copies and searches without them. The
second one to meet it has all copies but the first masked for those that come after: they have the
first one's score, and folding keeps the first. A view is immutable, so what is known of it stays
true, and goes with it. What is kept is bounded.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from retriever.search.view import View
    from retriever.storage.catalog import Text

MANY = 64
"""Copies from which on a passage is worth remembering."""

_IDS = 1 << 20


class KnownCopies:
    """The passages with many copies that were met in one view; thread-safe.

    Attributes:
        firsts: The chunks that stand for masked copies.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids: dict[Text, NDArray[np.int64]] = {}
        self._masked: set[Text] = set()
        self.firsts: set[int] = set()
        self._folded: View | None = None

    def ids(self, text: Text) -> NDArray[np.int64] | None:
        """Return the chunks of a passage, if they were noted."""
        return self._ids.get(text)

    def note(self, text: Text, ids: NDArray[np.int64]) -> None:
        """Keep the chunks of a passage if they are many, and if there is room."""
        with self._lock:
            if len(ids) >= MANY and sum(map(len, self._ids.values())) + len(ids) <= _IDS:
                self._ids[text] = ids

    def folded(self, view: View) -> View:
        """Return the view less the copies that are masked."""
        return self._folded or view

    def is_masked(self, text: Text) -> bool:
        """Return whether the copies of a passage are masked."""
        return text in self._masked

    def mask(self, view: View, text: Text, first: int, copies: NDArray[np.int64]) -> None:
        """Mask the copies of a passage that have the vector of its first chunk."""
        with self._lock:
            if text not in self._masked:
                self._masked.add(text)
                self.firsts = self.firsts | {first}  # others may be reading it
                self._folded = self.folded(view).without(copies)

"""Choose where to cut a text into windows that are well filled, by the rules of version 1.

Indexes that were made with these rules go on with them; `division.py` has the present ones.
A window ends where the next section begins, unless it would be tiny; where the section is longer
than a window, at the best boundary in the window's second half. All positions and lengths are in
tokens.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

import numpy as np

from retriever.documents.ranks import FORBIDDEN, LINE, SENTENCE, WORD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from retriever.documents.boundaries import Boundaries


class Windows:
    """The windows of one text, as ranges of tokens; iterate to choose them.

    Args:
        boundaries: Where the text may be cut.
        headings: First token and token after the title of each heading.
        sections: First token of each section, in ascending order.
        capacity: Given the first token of a window, returns how many tokens it may hold.
        overlap: How many tokens a window may repeat from the one before.
    """

    def __init__(
        self,
        boundaries: Boundaries,
        *,
        headings: Sequence[tuple[int, int]],
        sections: Sequence[int],
        capacity: Callable[[int], int],
        overlap: int,
    ) -> None:
        self._ranks = boundaries.ranks
        self._length = len(boundaries)
        self._headings = headings
        self._heading_starts = [start for start, _ in headings]
        self._sections = [first for first in sections if self._ranks[first] != FORBIDDEN]
        self._capacity = capacity
        self._overlap = overlap

    def __iter__(self) -> Iterator[tuple[int, int]]:
        start = 0
        while True:
            end = self._end(start)
            yield start, end
            if end >= self._length:
                return
            start = self._next_start(start, end)

    def _end(self, start: int) -> int:
        """Return where the window that begins at `start` ends."""
        capacity = self._capacity(start)
        limit = self._section_end(start, capacity)
        if limit - start <= capacity:
            return limit
        # Tokenised on its own, a text that begins in mid-sentence may need a token or two more
        # than it has in context. A window that is over by one is cut in two halves, which is worse
        # than one that is short by a few.
        hard = start + capacity - capacity // 64
        # A section a little longer than the window would leave a last window of a few words, which
        # no query finds: end early enough for that one to be a quarter full. Never before the next
        # token, or a section that is all rest would make no progress.
        hard = min(hard, max(limit - capacity // 4, start + 1))
        end = self._best_end(start, start + capacity // 2, hard)
        return self._before_heading(start, end)

    def _section_end(self, start: int, capacity: int) -> int:
        """Return where the section, or the run of tiny sections, that a window is in ends."""
        tiny = capacity // 8  # a section shorter than this is kept together with the next
        position = bisect_left(self._sections, start + max(tiny, 1))
        if position == len(self._sections):
            return self._length
        section = self._sections[position]
        rest_is_tiny = self._length - section < tiny
        return self._length if rest_is_tiny and self._length - start <= capacity else section

    def _best_end(self, start: int, low: int, hard: int) -> int:
        """Return the last of the best cuts in (low, hard], or the nearest cut outside it."""
        # The last of equals: a full window embeds more context, and there are fewer of them.
        ranks = self._ranks[low + 1 : hard + 1]
        if len(ranks) and (best := ranks.max()) != FORBIDDEN:
            return hard - int(np.argmax(ranks[::-1] == best))
        allowed = np.flatnonzero(self._ranks[start + 1 : hard + 1] != FORBIDDEN)
        if len(allowed):
            return start + 1 + int(allowed[-1])
        # Not one cut is allowed: a single word is longer than the window. It is taken whole, and
        # cut between characters later.
        first = max(hard, start) + 1
        return first + int(np.argmax(self._ranks[first:] != FORBIDDEN))

    def _before_heading(self, start: int, end: int) -> int:
        """Move a cut that would part a heading from its text to where the heading begins."""
        position = bisect_left(self._heading_starts, end) - 1
        while position >= 0 and start < self._headings[position][0] < end:
            first, after_title = self._headings[position]
            if after_title < end or self._ranks[first] == FORBIDDEN:
                break
            # The cut is now below the heading above, which may be without its text in turn.
            end, position = first, position - 1
        return end

    def _next_start(self, start: int, end: int) -> int:
        """Return where the next window begins: up to `overlap` tokens before the end of this one.

        It begins with a whole sentence if one fits into the overlap, else a line, else a word, and
        never before the heading that it is under.
        """
        position = bisect_left(self._heading_starts, end)
        if position < len(self._heading_starts) and self._heading_starts[position] == end:
            return end
        # Past the middle of this window at least, so that windows always move on.
        low = max(end - self._overlap, (start + end) // 2 + 1)
        if position and self._heading_starts[position - 1] > start:
            low = max(low, self._heading_starts[position - 1])
        ranks = self._ranks[low:end]
        for rank in (SENTENCE, LINE, WORD):
            if (found := _first(ranks >= rank)) is not None:
                return low + found
        return end


def middle(ranks: NDArray[np.int8]) -> int | None:
    """Return the best cut inside a range of places, near its middle, or None if none is allowed."""
    inner = ranks[1:-1]
    quarter = len(inner) // 4
    if not len(inner) or (best := inner[quarter : len(inner) - quarter].max()) == FORBIDDEN:
        allowed = np.flatnonzero(inner != FORBIDDEN)
    else:
        allowed = quarter + np.flatnonzero(inner[quarter : len(inner) - quarter] == best)
    if not len(allowed):
        return None
    return 1 + int(allowed[np.argmin(np.abs(allowed - len(inner) // 2))])


def _first(flags: NDArray[np.bool_]) -> int | None:
    found = int(np.argmax(flags)) if len(flags) else 0
    return found if len(flags) and flags[found] else None

"""Divide a text into chunks: sections and paragraphs whole where they fit, longer ones evenly.

A paragraph is a chunk, and a tiny one goes with the next. A paragraph that is longer than a chunk
is cut into parts of about equal length, at the best places near those. So a chunk does not mix the
end of one paragraph with the beginning of another, and its vector is that of one matter. All
positions and lengths are in tokens.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

import numpy as np

from retriever.documents.ranks import FORBIDDEN, LINE, PARAGRAPH, SENTENCE, TOKEN, WORD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from retriever.documents.boundaries import Boundaries
    from retriever.documents.rules import Rules


_SMALLEST_SHARE = 8
"""What is shorter than this part of a chunk is not left alone before a paragraph that is cut."""


class Division:
    """The chunks of one text, as ranges of tokens; iterate to choose them.

    Args:
        boundaries: Where the text may be cut.
        headings: First token and token after the title of each heading.
        sections: First token of each section, in ascending order.
        capacity: Given the first token of a chunk, returns how many tokens it may hold.
        overlap: How many tokens a chunk may repeat from the one before.
        rules: What is kept together.
    """

    def __init__(
        self,
        boundaries: Boundaries,
        *,
        headings: Sequence[tuple[int, int]],
        sections: Sequence[int],
        capacity: Callable[[int], int],
        overlap: int,
        rules: Rules,
    ) -> None:
        self._ranks = boundaries.ranks
        self._length = len(boundaries)
        # A heading goes with the text below it: the place after its title is the worst.
        after = [place for _, place in headings if 0 < place < self._length]
        if after:
            self._ranks = self._ranks.copy()
            self._ranks[after] = np.minimum(self._ranks[after], TOKEN)
        self._headings = [start for start, _ in headings]
        self._sections = [first for first in sections if self._ranks[first] != FORBIDDEN]
        wanted = self._ranks >= PARAGRAPH if rules.paragraphs else self._ranks > PARAGRAPH
        wanted[self._length] = True
        self._paragraphs: list[int] = np.flatnonzero(wanted).tolist()
        self._capacity = capacity
        self._overlap = overlap
        self._rules = rules

    def __iter__(self) -> Iterator[tuple[int, int]]:
        before = 0
        for start, end in self._parts():
            first = self._with_overlap(before, start) if start else 0
            yield first, end
            before = first

    def _parts(self) -> Iterator[tuple[int, int]]:
        """Yield the chunks without their overlap."""
        start = 0
        while start < self._length:
            capacity = self._room(start)
            limit = self._section_end(start, capacity)
            end = self._whole(start, capacity, limit)
            yield from self._divided(start, end)
            start = end

    def _room(self, start: int) -> int:
        """Return how many tokens a chunk may hold that it does not repeat."""
        return max(self._capacity(start) - self._overlap, 1)

    def _tiny(self, capacity: int) -> int:
        return max(int(self._rules.least * capacity), 1)

    def _section_end(self, start: int, capacity: int) -> int:
        """Return where the section, or the run of tiny sections, that a place is in ends."""
        tiny = self._tiny(capacity)
        position = bisect_left(self._sections, start + tiny)
        if position == len(self._sections):
            return self._length
        section = self._sections[position]
        rest_is_tiny = self._length - section < tiny
        return self._length if rest_is_tiny and self._length - start <= capacity else section

    def _whole(self, start: int, capacity: int, limit: int) -> int:
        """Return the end of the paragraph at `start`, after it and the next if it is tiny."""
        tiny = self._tiny(capacity)
        position = bisect_left(self._paragraphs, min(start + tiny, self._length))
        end = min(self._paragraphs[position], limit)
        if end - start > capacity and position:
            # Of what is too long together, the first part may be a chunk of its own.
            before = self._paragraphs[position - 1]
            if before - start >= max(capacity // _SMALLEST_SHARE, 1):
                return before
        if limit - end >= tiny:
            return end
        # A rest of a few words, which no query finds, goes with what is before it.
        if limit - start <= capacity or end - start > capacity:
            return limit
        # A paragraph that fits is not cut for the sake of the rest: the rest takes the paragraph
        # with it, or else is left alone.
        before = self._paragraphs[position - 1] if position else start
        return before if before > start and limit - before <= capacity else end

    def _divided(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the parts of a paragraph."""
        while end - start > (capacity := self._room(start)):
            cut = self._best_cut(start, end, capacity)
            yield start, cut
            start = cut
        if start < end:
            yield start, end

    def _best_cut(self, start: int, end: int, capacity: int) -> int:
        """Return the best place to cut a text that is longer than a chunk."""
        length = end - start
        # Tokenised on its own, a text that begins in mid-sentence may need a token or two more
        # than it has in context, and would then be cut again.
        hard = max(capacity - capacity // 64, 1)
        parts = -(-length // hard)
        target = length / parts if self._rules.even else hard
        high = max(min(start + hard, end - self._tiny(capacity)), start + 1)
        for low in (start + max(int(target / 2), 1), start + 1):
            ranks = self._ranks[low : high + 1]
            if len(ranks) and (best := ranks.max()) != FORBIDDEN:
                places = low + np.flatnonzero(ranks == best)
                # Those after which the rest fits into the other parts, if there are any.
                enough = places[places >= end - (parts - 1) * hard]
                places = enough if len(enough) else places
                return int(places[np.argmin(np.abs(places - (start + target)))])
        # Not one cut is allowed: a single word is longer than the chunk. It is taken whole, and
        # cut between characters later.
        first = high + 1
        return first + int(np.argmax(self._ranks[first:] != FORBIDDEN))

    def _with_overlap(self, before: int, start: int) -> int:
        """Return where a chunk begins that repeats up to `overlap` tokens of the one before.

        It begins with a whole sentence if one fits into the overlap, else a line, else a word, and
        never before the heading that it is under.
        """
        position = bisect_right(self._headings, start)
        if not self._overlap or (position and self._headings[position - 1] == start):
            return start
        # Past the middle of the chunk before at least, so that chunks always move on.
        low = max(start - self._overlap, (before + start) // 2 + 1)
        if position:
            low = max(low, self._headings[position - 1])
        for rank in (SENTENCE, LINE, WORD):
            found = np.flatnonzero(self._ranks[low:start] >= rank)
            if len(found):
                return low + int(found[0])
        return start

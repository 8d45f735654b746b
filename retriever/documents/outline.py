"""Find the headings that a place in a document is under, and where sections begin."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retriever.types import Document, Heading

_WORD = re.compile(r"\w")
_TITLE_REACH = 1000


class Outline:
    """The headings of one document, in ascending order.

    Attributes:
        starts: Character offset of each heading.
        ends: Character offset after the title of each heading.
        tables: The tables whose header row is repeated before each part of them.
        sections: Offsets of the headings with text above them. A heading directly below another
            one begins no section of its own, so that the two stay together.
    """

    def __init__(self, document: Document) -> None:
        headings = document.headings
        self.starts = [heading.start for heading in headings]
        self.ends = _title_ends(document.text, headings)
        self.sections = [
            start
            for start, above in zip(self.starts, [0, *self.ends], strict=False)
            if _WORD.search(document.text, above, start)
        ]
        self._paths = _paths(headings)
        # Imported here because a query, which needs this module, has no tables: compiling their
        # regular expressions takes milliseconds.
        from retriever.documents.tables import find_tables

        self.tables = find_tables(document.text)

    def path(self, position: int) -> tuple[str, ...]:
        """Return the titles of the headings that a character is under, outermost first.

        Inside a table, below its header row, that row is the last of them.
        """
        path = self._paths[bisect_right(self.starts, position)]
        above = bisect_right(self.tables, position, key=lambda table: table.start) - 1
        if above >= 0 and position < self.tables[above].end:
            return (*path, self.tables[above].header)
        return path


def _title_ends(text: str, headings: Sequence[Heading]) -> list[int]:
    limits = [heading.start for heading in headings[1:]] + [len(text)]
    ends = []
    for heading, limit in zip(headings, limits, strict=False):
        # A title may not occur in the text as such, when marks were removed from it: the search for
        # it must not read the whole document each time.
        reach = min(limit, heading.start + len(heading.title) + _TITLE_REACH)
        found = text.find(heading.title, heading.start, reach)
        ends.append(found + len(heading.title) if found >= 0 else heading.start)
    return ends


def _paths(headings: Sequence[Heading]) -> list[tuple[str, ...]]:
    """Return the titles that apply before any heading, after the first, after the second, …."""
    paths: list[tuple[str, ...]] = [()]
    levels: list[int] = []
    for heading in headings:
        while levels and levels[-1] >= heading.level:
            levels.pop()
        paths.append((*paths[-1][: len(levels)], heading.title))
        levels.append(heading.level)
    return paths

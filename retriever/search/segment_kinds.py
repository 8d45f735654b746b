"""The kinds of segment that there are, and what a search asks of one.

A kind owns the form of its files: it builds them from the catalog, opens them for searching, and
checks them. Storage keeps the files (`storage/segments.py`) and sees a kind only as
`SegmentContent`. A new kind is one module like `flat_segment`, and an entry of `KINDS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from retriever.search.flat_segment import FLAT
from retriever.search.lexical_segment import LEXICAL
from retriever.search.postings import Postings
from retriever.search.vectors import Rows
from retriever.storage.records import Segment, Space
from retriever.storage.series import SegmentContent


class SegmentKind(SegmentContent, Protocol):
    """A kind of segment that can be searched."""

    def open(self, paths: Sequence[Path], space: Space, segment: Segment) -> Rows | Postings:
        """Open the files of a segment, whose bytes were found intact.

        Args:
            paths: The files, in the order in which `build` wrote them.
            space: What is searched, with its chunking.
            segment: What the catalog says of them.

        Raises:
            IndexCorrupt: They are not what the catalog says they are.
        """
        ...


KINDS: tuple[SegmentKind, ...] = (FLAT, LEXICAL)
"""All kinds; writers keep segments of each, for each space that they suit."""

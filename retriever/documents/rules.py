"""The rules by which places to cut are ranked and chosen, by their version.

An index keeps the rules that it began with, so that its documents go on being cut alike; a rebuild
takes the present ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from retriever.errors import FormatMismatch

VERSION = 2
"""The version of `RULES`, recorded with a chunking."""


class Rules(NamedTuple):
    """How places to cut are ranked and chosen.

    The fields are there so that each rule can be measured (`benchmarks.chunking`).

    Attributes:
        ranks: Version of the ranks of places; 1 knows no abbreviations and no blocks of code.
        division: Version of the choice among them; with 1 windows are filled and end at the best
            place in their second half, and the fields below do not count.
        paragraphs: Whether paragraphs are kept apart; otherwise only sections are.
        even: Whether a long paragraph is cut into parts of about equal length, not into full ones
            and a rest.
        least: A section or a paragraph shorter than this share of a chunk is kept with the next
            where both fit.
        worth: What each rank counts as, in the order of the ranks; empty for what it is.
    """

    ranks: int = 2
    division: int = 2
    paragraphs: bool = True
    even: bool = True
    least: float = 0.25
    worth: tuple[int, ...] = ()


FIRST = Rules(ranks=1, division=1)
RULES = Rules()


def recorded(cutter: Mapping[str, Any]) -> Rules:
    """Return the rules of a chunking; one that was recorded without a version has the first.

    Raises:
        FormatMismatch: A later version of the package cut the documents, by rules unknown here.
    """
    known = {1: FIRST, VERSION: RULES}
    version = cutter.get("rules", 1)
    if version not in known:
        raise FormatMismatch(
            f"The documents of this index are cut by rules of version {version!r}; this version of "
            f"the package knows {VERSION} and older ones.",
            hint="Add documents with the newer version of the package that made the index.",
            found=version,
            supported=VERSION,
        )
    return known[version]

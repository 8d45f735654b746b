"""Rank the places at which a text may be cut.

A place is the position before a token. Places inside a token, or inside a character that makes
several tokens, are forbidden. A whole text is ranked at once with NumPy: a loop over characters
would take longer than the tokenizer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retriever.documents.character_classes import SPACE, Gaps, classes_of
from retriever.documents.first_ranks import first_ranks
from retriever.documents.ranks import FORBIDDEN, PARAGRAPH, ranks_of
from retriever.documents.rules import RULES, Rules

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retriever.encoders.protocol import Tokens


@dataclass(frozen=True, slots=True, eq=False)
class Boundaries:
    """The places at which one text of n tokens may be cut.

    Attributes:
        positions: Character offset of the place before each token and at the end, `(n + 1,)`,
            in ascending order.
        ranks: How good a cut is there, int8 `(n + 1,)`.
        starts: Where each token begins without its surrounding white space, `(n,)`.
        ends: Where it ends without it; equal to its start if it is only white space.
    """

    positions: NDArray[np.int64]
    ranks: NDArray[np.int8]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)


def find_boundaries(text: str, tokens: Tokens, rules: Rules = RULES) -> Boundaries:
    """Return the places at which `text` may be cut, given its tokens."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))
    classes = classes_of(points)
    starts, ends = _without_space(classes, tokens)
    positions = np.empty(len(tokens) + 1, np.int64)
    positions[-1] = len(text)
    # Byte-level and normalising tokenizers give several tokens the span of one character, and
    # their offsets need not ascend. So a place is the least start of all tokens from there on, and
    # it is allowed only if every token before it ends at or before it.
    positions[:-1] = np.minimum.accumulate(starts[::-1])[::-1]
    previous = np.zeros(len(tokens) + 1, np.int64)
    np.maximum.accumulate(ends, out=previous[1:])
    gaps = Gaps(classes, _count(_is_line_end(points)), np.minimum(previous, positions), positions)
    ranks = first_ranks(gaps) if rules.ranks == 1 else ranks_of(text, points, gaps)
    if rules.worth:
        ranks = np.array(rules.worth, np.int8)[ranks]
    ranks[previous > positions] = FORBIDDEN
    # The two ends can always be cut at, whatever the offsets of the tokens say.
    positions[0] = 0
    ranks[0] = ranks[-1] = PARAGRAPH
    return Boundaries(positions, ranks, starts, ends)


def _count(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return how many flags are set before each position, `(n + 1,)`."""
    counts = np.zeros(len(flags) + 1, np.int64)
    np.cumsum(flags, out=counts[1:])
    return counts


def _is_line_end(points: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Return which characters end a line: a line feed, or a carriage return without one after."""
    is_feed: NDArray[np.bool_] = points == ord("\n")
    is_return: NDArray[np.bool_] = points == ord("\r")
    is_return[:-1] &= ~is_feed[1:]
    is_feed |= is_return
    return is_feed


def _without_space(
    classes: NDArray[np.uint16], tokens: Tokens
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where each token begins and ends without its surrounding white space."""
    length = len(classes)
    is_solid = (classes & SPACE) == 0
    solid, before = np.flatnonzero(is_solid), _count(is_solid)
    starts = np.clip(tokens.starts.astype(np.int64), 0, length)
    ends = np.clip(tokens.ends.astype(np.int64), starts, length)
    # The number of solid characters before a place is the index in `solid` of the next one; the
    # appended value is for places that have none.
    inner = np.append(solid, length)[before[starts]]
    outer = np.append(0, solid + 1)[before[ends]]
    has_text = inner < outer
    return np.where(has_text, inner, starts), np.where(has_text, outer, starts)

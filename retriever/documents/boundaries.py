"""Rank the places at which a text may be cut.

A place is the position before a token. Places inside a token, or inside a character that makes
several tokens, are forbidden. A whole text is ranked at once with NumPy: a loop over characters
would take longer than the tokenizer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retriever.documents.rules import RULES, Rules

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retriever.encoders.protocol import Tokens

FORBIDDEN, TOKEN, WORD, LINE, SENTENCE, PARAGRAPH = range(-1, 5)
"""How good a cut is, best last. A line that ends a statement or begins an item of a list counts
as a sentence; a line break within hard-wrapped prose is no better than a comma."""

_SPACE, _NEWLINE, _STOP, _WIDE_STOP, _CLOSER, _LOWER, _ITEM, _STATEMENT = (1 << i for i in range(8))
# What `str.isspace` holds for white space, so that NumPy and `str.strip` agree.
_WHITE = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
_WHITE += "\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"


def _character_classes() -> NDArray[np.uint8]:
    classes = np.zeros(0x10000, np.uint8)
    for bit, characters in (
        (_SPACE, _WHITE),
        (_NEWLINE, "\n\r"),
        (_STOP, ".!?…؟۔।։።"),
        (_WIDE_STOP, "。！？｡"),
        (_CLOSER, "\"')]}»”’」』）】〉》*_"),
        (_LOWER, "abcdefghijklmnopqrstuvwxyz"),
        (_ITEM, "-*+•|#>"),
        (_STATEMENT, ";{}|"),
    ):
        classes[[ord(character) for character in characters]] |= bit
    return classes


_CLASSES = _character_classes()


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
    # U+FFFF has no class, and stands for all characters beyond.
    classes = _CLASSES[np.minimum(points, 0xFFFF)]
    starts, ends = _without_space(classes, tokens)
    positions = np.empty(len(tokens) + 1, np.int64)
    positions[-1] = len(text)
    # Byte-level and normalising tokenizers give several tokens the span of one character, and
    # their offsets need not ascend. So a place is the least start of all tokens from there on, and
    # it is allowed only if every token before it ends at or before it.
    positions[:-1] = np.minimum.accumulate(starts[::-1])[::-1]
    previous = np.zeros(len(tokens) + 1, np.int64)
    np.maximum.accumulate(ends, out=previous[1:])
    ranks = _ranks(
        classes, _count(_is_line_end(points)), np.minimum(previous, positions), positions
    )
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
    classes: NDArray[np.uint8], tokens: Tokens
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where each token begins and ends without its surrounding white space."""
    length = len(classes)
    is_solid = (classes & _SPACE) == 0
    solid, before = np.flatnonzero(is_solid), _count(is_solid)
    starts = np.clip(tokens.starts.astype(np.int64), 0, length)
    ends = np.clip(tokens.ends.astype(np.int64), starts, length)
    # The number of solid characters before a place is the index in `solid` of the next one; the
    # appended value is for places that have none.
    inner = np.append(solid, length)[before[starts]]
    outer = np.append(0, solid + 1)[before[ends]]
    has_text = inner < outer
    return np.where(has_text, inner, starts), np.where(has_text, outer, starts)


def _ranks(
    classes: NDArray[np.uint8],
    line_ends: NDArray[np.int64],
    previous: NDArray[np.int64],
    positions: NDArray[np.int64],
) -> NDArray[np.int8]:
    """Return how good a cut is in each gap between two tokens, int8 `(n + 1,)`.

    Args:
        classes: The classes of each character, as bits.
        line_ends: How many lines have ended before each character.
        previous: Where the token before each gap ends.
        positions: Where the token after it begins; between the two is only white space.
    """
    # Two characters of no class at the end: at the start of a text the offsets -1 and -2, which
    # mean the characters before a gap, wrap around to them.
    padded = np.append(classes, np.zeros(2, np.uint8))
    breaks = line_ends[positions] - line_ends[previous]
    last, second_last = padded[previous - 1], padded[previous - 2]
    gap, first = padded[positions - 1], padded[positions]

    # Each flag is an array over the gaps. Ranks are assigned in ascending order below, so that the
    # best that holds for a gap wins.
    is_word = (gap & _SPACE).astype(bool)
    is_line = breaks > 0
    # A quotation mark or bracket after a full stop belongs to the sentence that it closes.
    closes = np.where(last & _CLOSER, second_last, last)
    is_sentence = is_word & (closes & _STOP).astype(bool) & ((first & _LOWER) == 0)
    # Chinese and Japanese have no space after a full stop, but may have more closing marks.
    is_sentence |= (closes & _WIDE_STOP).astype(bool) & ((first & (_CLOSER | _WIDE_STOP)) == 0)
    # A new line that is indented, begins an item of a list, or follows `;` or `}` is a statement or
    # a paragraph; any other one may be hard-wrapped prose.
    is_indented = is_word & ((gap & _NEWLINE) == 0)
    is_sentence |= is_line & (is_indented | ((first & _ITEM) | (last & _STATEMENT)).astype(bool))

    ranks = np.full(len(positions), TOKEN, np.int8)
    ranks[is_word] = WORD
    ranks[is_line] = LINE
    ranks[is_sentence] = SENTENCE
    ranks[breaks > 1] = PARAGRAPH
    return ranks

"""Classes of characters, by which the places between tokens are ranked."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

(
    SPACE,
    NEWLINE,
    STOP,
    WIDE_STOP,
    CLOSER,
    LOWER,
    ITEM,
    STATEMENT,
    OTHER_LOWER,
    OPENER,
    UNSPACED,
    IDEOGRAPH,
    OTHER_CLOSER,
    OTHER_STOP,
    FULL_STOP,
    LEANS_BACK,
) = (1 << i for i in range(16))
# What `str.isspace` holds for white space, so that NumPy and `str.strip` agree.
_WHITE = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
_WHITE += "\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
# Scripts with letters of two cases, but for Latin beyond these and rare ones.
_CASED = (range(0x80, 0x590), range(0x1E00, 0x2000))
_UNSPACED = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF))  # Thai, Lao, Burmese, Khmer
_IDEOGRAPHS = ((0x3041, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF))


class Gaps(NamedTuple):
    """The gaps between the n tokens of a text, and before and after them; all are `(n + 1,)`.

    Attributes:
        classes: The classes of each character of the text, as bits.
        line_ends: How many lines have ended before each character.
        previous: Where the token before each gap ends.
        positions: Where the token after it begins; between the two is only white space.
    """

    classes: NDArray[np.uint16]
    line_ends: NDArray[np.int64]
    previous: NDArray[np.int64]
    positions: NDArray[np.int64]


def _character_classes() -> NDArray[np.uint16]:
    classes = np.zeros(0x10000, np.uint16)
    for bit, characters in (
        (SPACE, _WHITE),
        (NEWLINE, "\n\r"),
        (STOP, ".!?…؟۔।։።"),
        (WIDE_STOP, "。！？｡"),
        (CLOSER, "\"')]}»”’」』）】〉》*_"),
        (LOWER, "abcdefghijklmnopqrstuvwxyz"),
        (ITEM, "-*+•|#>"),
        (STATEMENT, ";{}|"),
        (OTHER_LOWER, (chr(i) for part in _CASED for i in part if chr(i).islower())),
        (OPENER, "\"'([{«“„‘‚¿¡*_`–—-"),
        (OTHER_CLOSER, "“‘›"),
        (OTHER_STOP, "॥፧፨။៕．‼⁇⁈⁉"),
        (FULL_STOP, "."),
        (LEANS_BACK, "との、，,;；:：)]}"),
    ):
        classes[[ord(character) for character in characters]] |= bit
    for bit, ranges in ((UNSPACED, _UNSPACED), (IDEOGRAPH, _IDEOGRAPHS)):
        for first, last in ranges:
            classes[first : last + 1] |= bit
    return classes


_CLASSES = _character_classes()


def classes_of(points: NDArray[np.uint32]) -> NDArray[np.uint16]:
    """Return the classes of code points, as bits."""
    # U+FFFF has no class, and stands for all characters beyond.
    return _CLASSES[np.minimum(points, 0xFFFF)]

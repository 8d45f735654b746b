"""Tell a full stop that ends a sentence from one of an abbreviation, an initial or an ordinal.

Only places that look like ends of sentences are asked about, so that most of a text is never seen
by Python code. The rules follow those of Kiss & Strunk (2006), "Unsupervised multilingual sentence
boundary detection", for abbreviations, initials and ordinal numbers, with a list in place of
training.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from retriever.documents.abbreviations import ALWAYS, BEFORE_NUMBERS, MAYBE, OPENERS
from retriever.documents.character_classes import (
    FULL_STOP,
    IDEOGRAPH,
    LOWER,
    OTHER_LOWER,
    UNSPACED,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

REACH = 24
"""Characters before a full stop that are looked at, and after it."""

# The word before the full stop, with earlier parts of an abbreviation: `z. B`, `U.S`, `J. K`.
_BEFORE = re.compile(r"(?:(?<!\w)(?:\w{1,2}\.[ \u00a0\u202f]?)+-?)?[\w-]*\w(?=\.$)")
_ORDINAL = re.compile(r"\d{1,2}\Z")
_ROMAN = re.compile(r"[IVXLC]+\Z")
_INITIAL = re.compile(r"\w{1,2}\.(?!\.)")
_QUANTITY = re.compile(r"[\d°][ \u00a0]?$")
_GERMAN = re.compile(r"\b(?:der|die|und|ist|nicht|ein|eine|von|zu|dem|den|im|mit)\b")
_SAMPLE = 4000
_SHORT_WORDS = "aàeioóuwxyявиукос"


_LONGEST = 8
"""Characters of the longest abbreviation, without its earlier parts."""


@cache
def _codes() -> NDArray[np.uint64]:
    """Return numbers for the last parts of all abbreviations, ascending."""
    lasts = {word.rpartition(".")[2] for word in ALWAYS | BEFORE_NUMBERS | MAYBE}
    rows = np.zeros((len(lasts), _LONGEST), np.uint64)
    for row, word in zip(rows, lasts, strict=True):
        row[: len(word)] = [ord(letter) for letter in reversed(word)]
    return np.sort(rows @ _POWERS)


_POWERS = np.array([np.uint64(1_000_003**i % 2**64) for i in range(_LONGEST)])


def is_doubtful(
    points: NDArray[np.uint32], classes: NDArray[np.uint16], stops: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return whether `goes_on` has to be asked, for positions after a full stop.

    It has to be if the word before is short, a number or perhaps in the list.
    """
    at = stops[:, None] - np.arange(2, _LONGEST + 3)
    inside = at >= 0
    kinds = classes[at]
    is_letter = inside & ((kinds & ~np.uint16(_LETTERS)) == 0)
    is_letter = np.logical_and.accumulate(is_letter, axis=1)
    size = is_letter.sum(axis=1)
    letters = np.where(is_letter, points[np.maximum(at, 0)], 0).astype(np.uint64)
    lower = np.where((letters < len(_LOWER_CASE)), _LOWER_CASE[letters % len(_LOWER_CASE)], letters)
    codes, table = lower[:, :_LONGEST] @ _POWERS, _codes()
    nearest = np.minimum(np.searchsorted(table, codes), len(table) - 1)
    before = np.take_along_axis(kinds, np.minimum(size, _LONGEST)[:, None], axis=1)[:, 0]
    is_digit = (letters[:, 0] >= ord("0")) & (letters[:, 0] <= ord("9"))
    is_listed: NDArray[np.bool_] = table[nearest] == codes
    is_listed |= (size == 1) | ((before & FULL_STOP) != 0) | (is_digit & (size <= 3))
    return is_listed


_LETTERS = LOWER | OTHER_LOWER | IDEOGRAPH | UNSPACED
_LOWER_CASE = np.array([ord(chr(i).lower()[0]) for i in range(0x590)], np.uint64)


def goes_on(text: str, stop: int, place: int, *, ordinals: bool) -> bool:
    """Return whether a sentence goes on after a full stop.

    Args:
        text: The text.
        stop: Position after the full stop.
        place: Where the next word begins.
        ordinals: Whether a number with a full stop is an ordinal in this language, as in German.
    """
    found = _BEFORE.search(text, max(stop - REACH, 0), stop)
    if found is None:
        return False
    start, word = found.start(), found[0]
    following = text[place : place + REACH]
    if _begins_line(text, start) and (word.isdigit() or len(word) == 1 or _ROMAN.match(word)):
        return True  # the number of an item of a list
    if word.isdigit():
        return ordinals and _ORDINAL.match(word) is not None and not _opens(following)
    key = word.lower().replace(" ", "").replace("\u00a0", "").replace("\u202f", "")
    last = key.rpartition(".")[2]
    if key in ALWAYS or last in ALWAYS or (following[:1].isdigit() and last in BEFORE_NUMBERS):
        return True
    if len(last) <= 2 and _INITIAL.match(following):
        return True
    may_be_a_unit = len(last) == 1 or last in MAYBE
    if may_be_a_unit and _QUANTITY.search(text, max(start - 4, 0), start):
        return False  # `373.15 K`, `30 mm`
    # An initial, or the last letter of an abbreviation of several: `J. Lind`, `U.S. Navy`.
    is_initial = len(last) == 1 and (
        "." in key or word[-1].isupper() or (word[-1].islower() and last not in _SHORT_WORDS)
    )
    return (is_initial or last in MAYBE) and not _opens(following)


def has_ordinals(text: str) -> bool:
    """Return whether a text is in German, where a number with a full stop is an ordinal.

    Other languages write them so too, but then a word in lower case follows.
    """
    sample = text[:_SAMPLE]
    return 100 * len(_GERMAN.findall(sample)) > len(sample)


def _begins_line(text: str, start: int) -> bool:
    """Return whether only white space and marks of a list precede a position in its line."""
    line = text[max(start - REACH, 0) : start]
    return not line.rpartition("\n")[2].strip(" \t-*+•>(") and ("\n" in line or start <= REACH)


def _opens(following: str) -> bool:
    """Return whether a text begins with a word that usually begins a sentence."""
    word = re.match(r"\w+", following)
    return word is not None and word[0].lower() in OPENERS

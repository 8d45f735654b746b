"""Tell a full stop that ends a sentence from one of an abbreviation, an initial or an ordinal.

Only places that look like ends of sentences are asked about, so that most of a text is never seen
by Python code. The rules follow those of Kiss & Strunk (2006), "Unsupervised multilingual sentence
boundary detection", for abbreviations, initials and ordinal numbers, with a list in place of
training.
"""

from __future__ import annotations

import re

from retriever.documents.abbreviations import ALWAYS, BEFORE_NUMBERS, MAYBE, OPENERS

REACH = 24
"""Characters before a full stop that are looked at, and after it."""

# The word before the full stop, with earlier parts of an abbreviation: `z. B`, `U.S`, `J. K`.
_BEFORE = re.compile(r"(?:(?<!\w)(?:\w{1,2}\.[ \u00a0\u202f]?)+-?)?[\w-]*\w(?=\.$)")
_ORDINAL = re.compile(r"\d{1,2}\Z")
_ROMAN = re.compile(r"[IVXLC]+\Z")
_GERMAN = re.compile(r"\b(?:der|die|und|ist|nicht|ein|eine|von|zu|dem|den|im|mit)\b")
_SAMPLE = 4000
_SHORT_WORDS = "aàeioóuwxyявиукос"


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
    if key in ALWAYS or (following[:1].isdigit() and last in BEFORE_NUMBERS):
        return True
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

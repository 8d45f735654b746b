"""Guess which legacy encoding a text is in: the one in which it reads most like a language.

Every candidate decodes the same bytes, so their costs (see `charsets`) can be compared.
Windows-1252 needs no evidence; every other encoding does. Encodings whose second byte may be an
ASCII letter are charged for each letter that they take out of a word.
"""

from __future__ import annotations

import os
import re
import unicodedata
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.documents.charsets import (
    BOXES,
    MARKS,
    PAGES,
    WIDE_PAGES,
    WORDS,
    Page,
    WidePage,
    letter_costs,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLE_BYTES = 1 << 16
SAMPLE_HIGH = 2_000
"""How many bytes beyond ASCII are examined, in at most SAMPLE_BYTES of the file."""

_LOWER, _UPPER, _LATIN, _OTHER, _DIGIT, _SPACE, _BOX = (1 << i for i in range(7))
_LETTER = _LATIN | _OTHER
_FREE, _QUOTE, _APOSTROPHE, _BEFORE_NUMBER, _AFTER_NUMBER, _RAISED, _SIGN = range(7)
_KINDS = {
    **dict.fromkeys("–—…·\xa0\xad", _FREE),
    **dict.fromkeys("“”‘«»„‚‹›", _QUOTE),
    "’": _APOSTROPHE,
    **dict.fromkeys("£€¥$¢", _BEFORE_NUMBER),
    **dict.fromkeys("°", _AFTER_NUMBER),
    **dict.fromkeys("¹²³ªº", _RAISED),
}
_UNSEEN_LETTER, _UNSEEN_SIGN, _CONTROL, _UNDEFINED = 9.5, 9.5, 14.0, 25.0
_UPPER_EXTRA, _FIRST_UPPER_EXTRA = 0.6, 0.9
_ASCII = 3.0
"""Cost of an ASCII letter, which a candidate saves that takes it for half of a character."""
_FIT_WEIGHT, _FIT, _FIT_WHOLE = 10.0, 9.5, 6.0
"""Upper bound on the average cost of a byte beyond ASCII, by about how many of them differ: for
languages in Latin letters, and for alphabets in which every letter is beyond ASCII."""
_RUN_OF_LETTERS = 6.0
_REPEATED = 0.1
"""Weight that a byte gains each time that it occurs e times as often."""
_WORD_NATS = 15.0
_LOCALE_NATS = 2.0


class Guess(NamedTuple):
    """An encoding and a language, the cost of the bytes in them, and whether they fit.

    `fits` is false if so many bytes cost so much that this is hardly a text in the language.
    """

    encoding: str
    language: str
    cost: float
    fits: bool


def sample_of(data: bytes) -> bytes:
    """Return the part that is examined, from the line of the first byte beyond ASCII."""
    first = len(data) - len(data.lstrip(bytes(range(0x80))))
    start = data.rfind(b"\n", max(0, first - 1024), first) + 1 or max(0, first - 1024)
    part = np.frombuffer(data[start : start + SAMPLE_BYTES], np.uint8)
    high = np.flatnonzero(part >= 0x80)
    limit = int(high[SAMPLE_HIGH]) if len(high) > SAMPLE_HIGH else len(part)
    if start + limit >= len(data):
        return data[start:]
    # Half a character at the end would rule out its encoding.
    end = data.rfind(b"\n", start, start + limit) + 1
    if end - start <= limit // 2:
        end = max(data.rfind(b" ", start, start + limit) + 1, start + limit // 2)
    return data[start:end]


def guess(sample: bytes) -> list[Guess]:
    """Return the encodings that a sample may be in, the most likely first."""
    hints = _language_hints(sample)
    points = np.frombuffer(sample, np.uint8)
    padded = np.concatenate([[0x20], points, [0x20]])
    high = np.flatnonzero(padded >= 0x80)
    before, here, after = padded[high - 1], padded[high], padded[high + 1]
    weights = _weights(here)
    found = [_cost_in_page(page, before, here, after, weights, hints) for page in PAGES]
    share = float(weights.sum()) / max(len(weights), 1)
    found += [_cost_in_wide_page(page, sample, share, hints) for page in WIDE_PAGES]
    return sorted(found, key=lambda one: one.cost)


def _weights(here: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the weight of each byte: many equal ones together hardly more than a single one.

    A sign that was written once is written again, as in a table of volumes in m³. Evidence for a
    language is how many different letters of it there are, not how often one of them occurs.
    """
    counts = np.bincount(here, minlength=256)
    total = 1 + _REPEATED * np.log(np.maximum(counts, 1))
    weights: NDArray[np.float64] = (total / np.maximum(counts, 1))[here]
    return weights


def _language_hints(sample: bytes) -> dict[str, float]:
    """Return the evidence for each language in words of ASCII and in the user's locale."""
    words = re.findall(rb"(?<![\w\x80-\xff])[A-Za-z]{1,12}(?![\w\x80-\xff])", sample[:16_384])
    known = [word.decode("ascii").lower() for word in words]
    hints = {
        language: _WORD_NATS * sum(word in common for word in known) / max(len(known), 6)
        for language, common in WORDS.items()
    }
    if (here := _locale_language()) is not None:
        hints[here] = hints.get(here, 0.0) + _LOCALE_NATS
    return hints


_LOCALES = {
    "fr": "French", "de": "German", "es": "Spanish", "pt": "Portuguese", "it": "Italian",
    "ca": "Catalan", "nl": "Dutch", "sv": "Swedish", "da": "Danish", "nb": "Danish",
    "fi": "Finnish", "is": "Icelandic", "pl": "Polish", "cs": "Czech", "sk": "Slovak",
    "hu": "Hungarian", "ro": "Romanian", "hr": "Croatian", "sl": "Croatian", "tr": "Turkish",
    "lt": "Lithuanian", "lv": "Latvian", "et": "Estonian", "vi": "Vietnamese", "ru": "Russian",
    "uk": "Ukrainian", "bg": "Bulgarian", "sr": "Serbian", "be": "Belarusian",
    "mk": "Macedonian", "el": "Greek", "he": "Hebrew", "ar": "Arabic", "fa": "Farsi",
    "th": "Thai", "ja": "Japanese", "zh": "Chinese", "ko": "Korean",
}  # fmt: skip


def _locale_language() -> str | None:
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        if value := os.environ.get(name):
            return _LOCALES.get(value[:2].lower())
    return None


# --- one byte a character --------------------------------------------------------------------


class _Tables(NamedTuple):
    """The 256 bytes of an encoding: their classes, kinds of signs, and costs by language."""

    classes: NDArray[np.uint8]
    kinds: NDArray[np.int8]
    costs: NDArray[np.float64]


@cache
def _tables(page: Page) -> _Tables:
    characters = [bytes([byte]).decode(page.encoding, "replace") for byte in range(256)]
    classes = np.array([_class(character) for character in characters], np.uint8)
    kinds = np.array(
        [-1 if _class(c) & _LETTER else _KINDS.get(c, _SIGN) for c in characters], np.int8
    )
    costs = np.array(
        [[_cost(c, letters) for c in characters] for letters in map(letter_costs, page.languages)]
    )
    return _Tables(classes, kinds, costs)


def _class(character: str) -> int:
    if character == "\ufffd":
        return 0
    if character in BOXES:
        return _BOX
    if character.isalpha() and character not in "ªºµ":
        script = _LATIN if "LATIN" in unicodedata.name(character, "") else _OTHER
        case = _UPPER * character.isupper() + _LOWER * character.islower()
        return int(script | case)
    return _DIGIT * character.isdigit() * character.isascii() | _SPACE * character.isspace()


def _cost(character: str, letters: dict[str, float]) -> float:
    if character.isascii():
        return 0.0
    if character == "\ufffd":
        return _UNDEFINED
    if (cost := letters.get(character)) is not None:
        return cost
    if character.isupper() and (cost := letters.get(character.lower())) is not None:
        return cost + _UPPER_EXTRA
    if character.isalpha() and character not in "ªºµ":
        return _UNSEEN_LETTER + _UPPER_EXTRA * character.isupper()
    if (cost := MARKS.get(character)) is not None:
        return cost
    return _CONTROL if unicodedata.category(character) in ("Cc", "Co", "Cn") else _UNSEEN_SIGN


def _cost_in_page(
    page: Page,
    before: NDArray[np.uint8],
    here: NDArray[np.uint8],
    after: NDArray[np.uint8],
    weights: NDArray[np.float64],
    hints: dict[str, float],
) -> Guess:
    tables = _tables(page)
    misfits = _misfits(
        tables.classes[before], tables.classes[here], tables.classes[after], tables.kinds[here]
    )
    is_run = (before == here) & (here == after)  # a line that is drawn, not a word
    misfits[is_run & ((tables.classes[here] & _LETTER) != 0)] += _RUN_OF_LETTERS
    costs = tables.costs[:, here] @ weights + misfits @ weights + page.cost
    costs -= [hints.get(language, 0.0) for language in page.languages]
    best = int(np.argmin(costs))
    limit = _FIT if page.is_latin else _FIT_WHOLE
    fits = weights.sum() < _FIT_WEIGHT or costs[best] < limit * weights.sum()
    return Guess(page.encoding, page.languages[best], float(costs[best]), bool(fits))


def _misfits(
    before: NDArray[np.uint8],
    here: NDArray[np.uint8],
    after: NDArray[np.uint8],
    kinds: NDArray[np.int8],
) -> NDArray[np.float64]:
    """Return the cost of each character for neighbours that it has in no language."""

    def has(classes: NDArray[np.uint8], bits: int) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (classes & bits) != 0
        return found

    letter_before, letter_after = has(before, _LETTER), has(after, _LETTER)
    inside = letter_before & letter_after
    upper, lower = has(here, _UPPER), has(here, _LOWER)
    cost: NDArray[np.float64] = np.zeros(len(here))
    cost += 5.0 * (upper & has(before, _LOWER))
    cost += _FIRST_UPPER_EXTRA * (upper & ~has(before, _UPPER))
    cost += 4.0 * (lower & has(after, _UPPER))
    for one, other in ((_LATIN, _OTHER), (_OTHER, _LATIN)):
        cost += 4.0 * (has(here, one) & (has(before, other) | has(after, other)))
    letter = upper | lower
    cost += 2.0 * (letter & (has(before, _DIGIT) | has(after, _DIGIT)))
    cost += 2.0 * (letter & ~letter_before & ~letter_after)
    cost += 6.0 * ((kinds == _SIGN) & inside)
    cost -= 3.5 * (has(here, _BOX) & (has(before, _BOX) | has(after, _BOX)))
    cost += 4.0 * (has(here, _BOX) & (letter_before | letter_after))
    cost += 5.0 * ((kinds == _QUOTE) & inside)
    cost += 3.0 * ((kinds == _QUOTE) & has(before, _SPACE) & has(after, _SPACE))
    cost += 3.0 * ((kinds == _APOSTROPHE) & has(before, _SPACE))
    cost += 4.0 * ((kinds == _BEFORE_NUMBER) & (letter_before | letter_after))
    cost -= 1.5 * ((kinds == _BEFORE_NUMBER) & (has(after, _DIGIT) | has(before, _DIGIT)))
    cost += 4.0 * ((kinds == _AFTER_NUMBER) & letter_before)
    cost -= 1.5 * ((kinds == _AFTER_NUMBER) & has(before, _DIGIT))
    cost += 5.0 * ((kinds == _RAISED) & letter_after)
    cost += 3.0 * ((kinds == _RAISED) & has(before, _SPACE))
    return cost


# --- one or two bytes a character ------------------------------------------------------------


@cache
def _wide_costs(page: WidePage) -> NDArray[np.float32]:
    """Return the cost of every character up to U+FFFF."""
    costs = np.full(0x10000, 13.0, np.float32)
    # From the rare to the frequent: later values replace earlier ones.
    encoding, first, last = page.level
    for pair in range(first, last + 1):
        character = pair.to_bytes(2, "big").decode(encoding, "ignore")
        if len(character) == 1:
            costs[ord(character)] = 8.2
    costs[0x3000:0x3020] = 6.0
    costs[0xFF01:0xFF5F] = 6.5
    costs[0xFF61:0xFFA0] = 8.0
    for start, end in page.letters:
        costs[start : end + 1] = 5.0
    for character in page.frequent:
        costs[ord(character)] = 4.8
    costs[[ord(character) for character in "、。，．・「」ー"]] = 4.5
    costs[[ord(character) for character in "“”‘’—…·"]] = 6.0
    costs[:0x80] = 0.0
    costs[0xFFFD] = _UNDEFINED
    return costs


def _cost_in_wide_page(
    page: WidePage, sample: bytes, share: float, hints: dict[str, float]
) -> Guess:
    """Return the cost of a sample in an encoding; invalid bytes cost most.

    Args:
        page: The encoding.
        sample: The bytes.
        share: The average weight of a byte beyond ASCII.
        hints: The evidence for each language in words of ASCII.
    """
    text = sample.decode(page.encoding, "replace")
    high = int((np.frombuffer(sample, np.uint8) >= 0x80).sum())
    ascii_bytes = len(sample) - high
    points = np.frombuffer(f" {text} ".encode("utf-32-le"), np.dtype("<u4"))
    is_wide = points >= 0x80
    is_letter = np.zeros(0x80, bool)
    is_letter[[*range(0x41, 0x5B), *range(0x61, 0x7B)]] = True
    letters = is_letter[np.minimum(points, 0x7F)] & (points < 0x80)
    wide = is_wide[1:-1]
    beside = letters[:-2].astype(np.int8) + letters[2:]
    alone = wide & ~is_wide[:-2] & ~is_wide[2:]
    cost = _wide_costs(page)[np.minimum(points, 0xFFFF)].sum() + 12.0 * (points > 0xFFFF).sum()
    cost += 3.0 * beside[wide].sum() + 2.0 * alone.sum()
    # ASCII bytes that were read as the second byte of a character.
    eaten = ascii_bytes - int((~wide).sum())
    total = share * (float(cost) - _ASCII * eaten) + page.cost - hints.get(page.language, 0.0)
    fits = share * high < _FIT_WEIGHT or total < _FIT_WHOLE * share * high
    return Guess(page.encoding, page.language, total, fits)

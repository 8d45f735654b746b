"""What stands between two spaces, cut into words, identifiers with their parts, and pairs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from functools import cache
from itertools import cycle, pairwise
from operator import add
from typing import NamedTuple

from retriever.documents.words.characters import MARKS, UNSPACED, normalised

_MAX_WORD = 64  # characters of a word without joints
_MAX_CAMEL = 48  # longer words of mixed case are random letters


class Role(Enum):
    """What a unit is to the text that it stands in."""

    WORD = auto()  # a word, or part of words joined by hyphens
    WHOLE = auto()  # an identifier, or words joined by hyphens
    PART = auto()  # part of an identifier
    CHARACTER = auto()  # one character of several in a script without spaces
    PAIR = auto()  # two neighbours of them


class Unit(NamedTuple):
    """What becomes a term when its form in a language is taken."""

    surface: str  # normalised, in its own case
    role: Role


def _pieces(word: str) -> str:
    """Return the expression for a word with its joints.

    Args:
        word: A class of the characters of words, without brackets.
    """
    option = rf"(?<![{word}\-])--(?=[A-Za-z])"  # --no-fold
    dotted = rf"(?<![{word}.\-/\\)\]}}])(?<![{word}][\"'])\.(?=[A-Za-z])"  # .env, .NET
    joint = r"[/\\:@]{1,2}|[.\-&']|(?<=\d),(?=\d{3}(?!\d))"
    return rf"(?:{option}|{dotted})?[{word}]+(?:(?:{joint})[{word}]+)*(?:(?:\+\+|#)(?![{word}]))?"


_ASCII = re.compile(_pieces("A-Za-z0-9_"))


@cache
def _unicode() -> re.Pattern[str]:
    """Return the expression for pieces of any script."""
    return re.compile(_pieces(rf"\w{MARKS}"))


@cache
def _unspaced() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return the expressions for runs without spaces and for characters with their marks."""
    return re.compile(f"([{UNSPACED}]+)"), re.compile(f"[^{MARKS}][{MARKS}]*|[{MARKS}]+")


def units_of(chunk: str) -> list[Unit]:
    """Return the units of a text, in order; text with spaces is cut at them."""
    found: list[Unit] = []
    for text, characters in _runs(chunk):
        if characters:
            roles = (Role.CHARACTER, Role.PAIR) if len(characters) > 1 else (Role.WORD,)
            found += map(Unit, _with_pairs(characters), cycle(roles))
        else:
            found += _units_of_pieces(text)
    return found


def forms_of(chunk: str, forms: Mapping[str, str]) -> list[str]:
    """Return the forms of the units of a text, in order.

    Args:
        chunk: The text.
        forms: The form of each word in the language of the text.
    """
    found: list[str] = []
    for text, characters in _runs(chunk):
        if characters:
            found += _with_pairs(characters)
        else:
            found += [forms[unit.surface] for unit in _units_of_pieces(text)]
    return found


def _runs(chunk: str) -> Iterator[tuple[str, list[str]]]:
    """Yield text with spaces between its words, and the characters of a run without."""
    text = normalised(chunk)
    if text.isascii() or max(text) < "\u0e01":  # the first of UNSPACED
        yield text, []
        return
    unspaced, marked = _unspaced()
    for n, run in enumerate(unspaced.split(text)):
        if n % 2:
            yield "", list(run) if min(run) >= "\u3100" else marked.findall(run)
        elif run:
            yield run, []


def _with_pairs(characters: list[str]) -> list[str]:
    """Return each character followed by the pair that begins with it."""
    found = [""] * (2 * len(characters) - 1)
    found[::2] = characters
    found[1::2] = map(add, characters, characters[1:])
    return found


def _units_of_pieces(text: str) -> Iterator[Unit]:
    pattern = _ASCII if text.isascii() else _unicode()
    for piece in pattern.findall(text):
        yield from _units_of_piece(piece)


def _units_of_piece(piece: str) -> Iterator[Unit]:
    if piece.isalnum():
        yield from _word(piece, Role.WORD)
    elif piece.startswith(("--", ".")):
        yield Unit(piece, Role.WHOLE)
        yield from _identifier(piece.lstrip("-."), Role.PART)
    elif piece.endswith(("+", "#")):
        yield Unit(piece, Role.WHOLE)
        yield from _identifier(piece.rstrip("+#"), Role.PART)
    else:
        yield from _identifier(piece, Role.WORD)


_LARGE_JOINTS = re.compile(r"[/\\:@&]+")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")


def _identifier(piece: str, role: Role) -> Iterator[Unit]:
    """Yield a path, an address or a qualified name whole, and its parts."""
    parts = _LARGE_JOINTS.split(piece)
    if len(parts) > 1:
        yield Unit(piece, Role.WHOLE if role is Role.WORD else role)
        role = Role.PART
    for part in parts:
        if "," in part:
            yield from _number_with_commas(part, role)
        elif "." in part:
            yield from _dotted(part, role)
        else:
            yield from _joined(part, role)


def _number_with_commas(text: str, role: Role) -> Iterator[Unit]:
    parts = text.split(",")
    if _THOUSANDS.fullmatch(text):
        yield Unit("".join(parts), Role.WHOLE if role is Role.WORD else role)
        role = Role.PART
    for part in parts:
        yield from _dotted(part, role)


_VERSION = re.compile(r"([vV]?)(\d+(?:\.\d+)+)")


def _dotted(text: str, role: Role) -> Iterator[Unit]:
    """Yield a name or number with dots whole, and its parts: `node.js`, `v2.3.1`, `3.14`."""
    parts = text.split(".")
    if len(parts) == 1:
        yield from _joined(text, role)
        return
    if all(len(part) == 1 and part.isalpha() for part in parts):
        yield Unit("".join(parts), role)  # U.S.A. and USA, but also x.y of a program
        if not text.isupper():
            yield from (Unit(part, Role.PART) for part in parts)
        return
    yield Unit(text, Role.WHOLE if role is Role.WORD else role)
    version = _VERSION.match(text)
    if version is not None:
        if version[0] == text and not version[1]:
            return  # the figures of 3.14 say nothing alone
        if version[0] == text or not text[version.end()].isalnum():
            yield Unit(version[2], Role.PART)
            parts = text[version.end() :].split(".")
    for part in filter(None, parts):
        yield from _joined(part, Role.PART)


_SMALL_JOINTS = re.compile(r"[-_']+")
_HYPHENS = re.compile(r"(?<!\d)-|-(?!\d)")


def _joined(text: str, role: Role) -> Iterator[Unit]:
    """Yield words joined by hyphens, underscores or apostrophes, whole and in parts."""
    if "_" in text and text.strip("_-'") != text:
        bare = text.strip("_-'")
        if bare and text.startswith("__"):
            yield Unit(text, Role.WHOLE if role is Role.WORD else role)
            role = Role.PART
        text = bare
    text = text.strip("-'")
    parts = [part for part in _SMALL_JOINTS.split(text) if part]
    if len(parts) < 2:
        for part in parts:
            yield from _word(part, role)
    elif "_" in text:
        yield Unit(text, Role.WHOLE if role is Role.WORD else role)
        for part in parts:
            yield from _word(part, Role.PART)
    elif "-" in text:
        # e-mail and email, COVID-19 and covid19; but 10-12 is not 1012.
        joined = _HYPHENS.sub("", text.replace("'", ""))
        yield Unit(joined, Role.WHOLE if role is Role.WORD else role)
        for part in text.split("-"):
            yield from _joined(part, role)
    else:
        yield from _with_apostrophes(parts, role)


# Before an apostrophe: articles, pronouns and prepositions of French, Italian and Catalan.
_ELISIONS = """l d j m t s n c v qu jusqu lorsqu puisqu quoiqu quelqu dell nell all sull dall quell
quest un gl degl agl sant anch com dov cos"""
_ELIDED = frozenset(_ELISIONS.split())
_ENDINGS = frozenset(("s", "re", "ve", "ll", "d", "m"))


def _with_apostrophes(parts: list[str], role: Role) -> Iterator[Unit]:
    """Yield dog of `dog's`, eau of `l'eau`, obrien of `O'Brien`, foo of `f'foo'`."""
    while len(parts) > 1 and parts[0].casefold() in _ELIDED and len(parts[1]) > 1:
        parts = parts[1:]
    while len(parts) > 1 and parts[-1].casefold() in _ENDINGS:
        parts = parts[:-1]
    if len(parts) == 1:
        yield from _word(parts[0], role)
    elif len(parts[0]) == 1 and parts[0].casefold() in ("b", "f", "r", "u"):
        for part in parts:
            yield from _word(part, role)
    else:
        yield Unit("".join(parts), role)
        if parts[0] in ("O", "o"):
            yield Unit(parts[1], Role.PART)


def _word(word: str, role: Role) -> Iterator[Unit]:
    """Yield a word, and the parts that its capitals show: `getHTTPResponse`."""
    word = word[:_MAX_WORD]
    yield Unit(word, role)
    if word.islower() or word[1:].islower() or word.isupper() or len(word) > _MAX_CAMEL:
        return
    parts = _camel_parts(word)
    if len(parts) > 1:
        for part in parts:
            if len(part) > 1:
                yield Unit(part, Role.PART)


def _camel_parts(word: str) -> list[str]:
    """Return `get`, `HTTP`, `Response` of `getHTTPResponse`; URLs stays whole."""
    if word[-1:] == "s" and word[:-1].isupper():
        return [word]
    cuts = [0]
    for at in range(1, len(word)):
        if word[at].isupper() and (not word[at - 1].isupper() or word[at + 1 : at + 2].islower()):
            cuts.append(at)
    return [word[a:b] for a, b in pairwise([*cuts, len(word)])]

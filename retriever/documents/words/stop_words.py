"""Words of each language that say nothing about what is asked."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from pathlib import Path

from retriever.documents.words.forms import fold
from retriever.documents.words.splitting import Role, units_of

_LIST = Path(__file__).with_name("stop_words.txt")
# One word of another language's list proves nothing: `war` is German, and a word of English.
_PROOF = 2


@cache
def _lines() -> dict[str, str]:
    """Return the words of each language in one string."""
    lines = _LIST.read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines if not line.startswith("#"))


def stop_words_as_written(language: str) -> list[str]:
    """Return the stop words of a language with their accents and apostrophes."""
    return _lines().get(language, "").split()


@cache
def stop_words(language: str) -> frozenset[str]:
    """Return the stop words of a language as `fold` writes them; none of an unknown one."""
    words = stop_words_as_written(language)
    # Cutting words into units compiles what cuts any script, which a cold question need not pay
    # for: words of letters alone are units as they are.
    others = units_of(" ".join(word for word in words if not word.isalpha()))
    surfaces = [*filter(str.isalpha, words), *(u.surface for u in others if u.role is Role.WORD)]
    return frozenset(map(fold, surfaces))


def said_nothing_by(words: Collection[str], languages: Collection[str]) -> frozenset[str]:
    """Return those of a question's words that are stop words in the language it seems to be in.

    A question seems to be in the language with the most stop words among its words. Where
    several have as many, only what is a stop word in all of them is one.

    Args:
        words: The words of the question, as `fold` writes them.
        languages: The languages that may be meant.

    Returns:
        None of the words, if nothing else would remain.
    """
    listed = [one for one in languages if one in _lines()]
    lists = [stop_words(one) for one in listed]
    found = [frozenset(words) & stops for stops in lists]
    most = max(map(len, found), default=0)
    if most == 0 or (most < _PROOF and len(listed) > 1 and most * 2 < len(words)):
        return frozenset()
    stops = frozenset.intersection(*(one for one in found if len(one) == most))
    return stops if len(stops) < len(frozenset(words)) else frozenset()

"""Words of each language that say nothing about what is asked."""

from __future__ import annotations

from collections.abc import Collection


def stop_words(language: str) -> frozenset[str]:
    """Return the stop words of a language, case-folded; none of an unknown one."""
    return frozenset()


def said_nothing_by(words: Collection[str], languages: Collection[str]) -> frozenset[str]:
    """Return those of a question's words that are stop words in the language it seems to be in."""
    return frozenset()

"""Stems by language: the only module that imports PyStemmer (Snowball)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import Stemmer

# ISO 639-1 codes of the languages whose words are stemmed. Named here, so that an index does not
# depend on which languages a version of PyStemmer happens to have.
_LANGUAGES = """ar ca cs da de el en eo es et eu fa fi fr ga hi hu hy id it lt ne nl no pl pt ro ru
sr st sv ta tr yi"""
STEMMED = frozenset(_LANGUAGES.split())
_own = threading.local()


def snowball_version() -> str:
    """Return the version of Snowball in use: other versions may give other stems."""
    import Stemmer

    return str(Stemmer.version())


def stem(word: str, language: str) -> str:
    """Return the Snowball stem of a case-folded word in a language of `STEMMED`."""
    stemmer = getattr(_own, language, None)
    if stemmer is None:
        stemmer = _new(language)
        # A stemmer has state: one for each thread.
        setattr(_own, language, stemmer)
    return str(stemmer.stemWord(word))


def _new(language: str) -> Stemmer.Stemmer:
    import Stemmer

    # No cache of its own: `forms` keeps the stems of words that were met.
    return Stemmer.Stemmer(language, 0)

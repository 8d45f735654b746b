"""What a word is: the terms of a text and of a question, for lexical search.

A text's terms are its words, case-folded and stemmed by language; identifiers whole and in parts;
and single characters and pairs of them where a script has no spaces. Each stretch between two
spaces is analysed by itself, so that what it gives can be remembered: most of a text's words have
been met before.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain
from typing import NamedTuple

from retriever.documents.words.forms import analysed_as, fold, forms_in
from retriever.documents.words.splitting import Role, forms_of, units_of
from retriever.documents.words.stop_words import said_nothing_by

__all__ = ["ANALYSIS", "PART_WEIGHT", "Term", "fold", "question_terms", "terms_of"]

ANALYSIS = 1  # raised by each change of terms; lexical segments record it
PART_WEIGHT = 0.3  # of the parts of an identifier in a question, which is asked for whole

_REMEMBERED = 1 << 16  # stretches kept for each language
_LONGEST_REMEMBERED = 32  # characters of one
_ASKED_FOR = (Role.WORD, Role.WHOLE, Role.PAIR)


class Term(NamedTuple):
    """A term of a question.

    Attributes:
        alternatives: Its forms in the languages of the index, which count as one term: the
            frequencies in a passage add up, and a passage with any of them has the term.
        weight: What its score is multiplied by. A word that is asked for twice counts twice.
    """

    alternatives: tuple[str, ...]
    weight: float = 1.0


class _Terms(dict[str, tuple[str, ...]]):
    """The terms of the stretches met in texts of one language."""

    def __init__(self, language: str | None) -> None:
        self._forms = forms_in(language)

    def __missing__(self, stretch: str) -> tuple[str, ...]:
        bare = stretch.lstrip("(\"'[").rstrip(",.;:!?)\"']")
        if bare.isascii() and bare.isalpha() and (bare.islower() or bare[1:].islower()):
            found: tuple[str, ...] = (self._forms[bare[:64]],)
        else:
            found = tuple(forms_of(stretch, self._forms))
        if len(stretch) <= _LONGEST_REMEMBERED:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[stretch] = found
        return found


_terms: dict[str | None, _Terms] = {}


def terms_of(text: str, language: str | None) -> list[str]:
    """Return the terms by which a text is found, in order and with repeats.

    An identifier is followed by its parts, and each character of an unspaced script by the pair
    that begins with it. So the terms of any stretch of whole words stand together in those of
    the text.

    Args:
        text: Any string.
        language: ISO 639-1 code by which words are stemmed; None, as for source code, or a
            language without a stemmer leaves them as they are.
    """
    analysed = analysed_as(language)
    known = _terms.get(analysed)
    if known is None:
        known = _terms.setdefault(analysed, _Terms(analysed))
    return list(chain.from_iterable(map(known.__getitem__, text.split())))


def question_terms(text: str, languages: Collection[str | None]) -> list[Term]:
    """Return the terms of a question, each once, in the order of their first words.

    The language of a question is not guessed: each word is looked for in the forms of all
    languages of the index. Stop words are left out if anything else remains. Of a run in an
    unspaced script only the pairs are asked for, or its only character.

    Args:
        text: The question.
        languages: The languages of the documents (`documents.language`), with None for those
            without one and for code.
    """
    spoken = sorted({analysed_as(one) for one in languages} or {None}, key=lambda one: one or "")
    known = [forms_in(one) for one in spoken]
    units = [unit for stretch in text.split() for unit in units_of(stretch)]
    words = {fold(unit.surface) for unit in units if unit.role in _ASKED_FOR}
    # Questions about code are asked in English, if it is not said otherwise.
    empty = said_nothing_by(words, [one for one in spoken if one] or ["en"])
    weights: dict[tuple[str, ...], float] = {}
    for surface, role in units:
        if role is Role.CHARACTER or (role is Role.WORD and fold(surface) in empty):
            continue
        alternatives = tuple(dict.fromkeys(forms[surface] for forms in known))
        weight = PART_WEIGHT if role is Role.PART else 1.0
        weights[alternatives] = weights.get(alternatives, 0.0) + weight
    return [Term(alternatives, weight) for alternatives, weight in weights.items()]

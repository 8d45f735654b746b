"""BM25 over texts in memory with any constants, for the tables from which they are chosen.

The terms are the package's own (`retriever.documents.words`); the score is Lucene's. What an index
does is measured through an index (`confirm.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retriever.documents.words import Term, question_terms, terms_of
from retriever.documents.words.stop_words import stop_words

from .collections import Collection

Array = NDArray[np.float64]
K1, B = 1.2, 0.75


class Lexical(NamedTuple):
    """The scores of questions, `(questions, rows)`, and the most that each could reach."""

    scores: Array
    maxima: Array
    idf: Array


class Postings:
    """Rows and frequencies by term.

    Args:
        collection: Whose rows are analysed.
        titles: How often the title of a row counts.
        stopped: Whether stop words are left out of the lengths.
    """

    def __init__(self, collection: Collection, *, titles: int = 1, stopped: bool = False) -> None:
        self.language = collection.language
        rows: dict[str, list[tuple[int, int]]] = {}
        lengths = []
        stops = set()
        if stopped:
            stops = {one for word in stop_words("en") for one in terms_of(word, self.language)}
        for place, text in enumerate(collection.texts):
            full = "\n".join([*[collection.titles[place]] * titles, text])
            counts = Counter(terms_of(full, self.language))
            lengths.append(sum(n for term, n in counts.items() if term not in stops))
            for term, n in counts.items():
                rows.setdefault(term, []).append((place, n))
        self._rows = {term: np.array(found) for term, found in rows.items()}
        self._lengths = np.array(lengths, np.float64)
        self._relative = self._lengths / self._lengths.mean()

    def of(self, question: str, *, keep_stop_words: bool = False) -> list[Term]:
        """Return the terms of a question."""
        if keep_stop_words:
            counts = Counter(terms_of(question, self.language))
            return [Term((one,), n) for one, n in counts.items()]
        return question_terms(question, [self.language])

    def score(self, asked: Sequence[Sequence[Term]], k1: float = K1, b: float = B) -> Lexical:
        """Return the scores of each question's terms."""
        count = len(self._lengths)
        scores = np.zeros((len(asked), count))
        maxima = np.zeros(len(asked))
        rarest = np.zeros(len(asked))
        scale = k1 * (1 - b + b * self._relative)
        for number, terms in enumerate(asked):
            for term in terms:
                found = [self._rows[one] for one in term.alternatives if one in self._rows]
                df = 0
                if found:
                    rows, frequency = np.concatenate(found).T
                    df = len(rows)
                idf = np.log1p((count - df + 0.5) / (df + 0.5))
                maxima[number] += term.weight * idf * (k1 + 1)
                rarest[number] = max(rarest[number], term.weight * idf)
                if df:
                    gain = frequency * (k1 + 1) / (frequency + scale[rows])
                    scores[number, rows] += term.weight * idf * gain
        return Lexical(scores, maxima, rarest)

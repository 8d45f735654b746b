"""Rankings by words: the best of the rows that match a question."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.search import lexical
from retriever.search.ranking import NOTHING, Ranking

if TYPE_CHECKING:
    import sqlite3

    from numpy.typing import NDArray

    from retriever.documents.words import Term
    from retriever.search.allowed import AllowedRows, Ids
    from retriever.search.view import View

    Scores = NDArray[np.float64]


class Matched(NamedTuple):
    """The rows that have a word of a question.

    Attributes:
        allowed: The rows that were looked through.
        ids: Those with a word, chunk ids, ascending, int64 `(n,)`.
        scores: BM25, greater than 0, float64 `(n,)`.
        highest: What no row can exceed: the score of one in which nothing stands but the words of
            the question. A word that stands nowhere counts as the rarest there can be.
    """

    allowed: AllowedRows
    ids: Ids
    scores: Scores
    highest: float

    def within(self, allowed: AllowedRows) -> Matched:
        """Return what is among some of the allowed rows."""
        if allowed is self.allowed:
            return self
        kept = np.searchsorted(self.ids, allowed.among(self.ids))
        return Matched(allowed, self.ids[kept], self.scores[kept], self.highest)

    def scores_of(self, ids: Ids) -> Scores:
        """Return the score of each of some chunks; 0 where no word stands in it."""
        if not len(self.ids):
            return np.zeros(len(ids))
        places = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[places] == ids, self.scores[places], 0.0)

    def best(self, k: int) -> Ids:
        """Return the positions of the best `k`; equal scores in ascending order of chunk id."""
        positions: Ids = np.arange(len(self.ids))
        if k < len(positions):
            # All that tie with the last are kept, so that the order among them is that of the ids.
            least = np.partition(self.scores, -k)[-k]
            positions = np.flatnonzero(self.scores >= least)
        order = np.lexsort((self.ids[positions], -self.scores[positions]))
        found: Ids = positions[order[:k]]
        return found


def match(
    view: View, connection: sqlite3.Connection, terms: Sequence[Term], allowed: AllowedRows
) -> Matched:
    """Return the allowed rows with a word of a question.

    Raises:
        StaleView, IndexCorrupt: As `lexical.matches`.
    """
    found = lexical.matches(view, connection, terms, allowed)
    # `fsum` does not depend on the order of the terms.
    highest = math.fsum(
        term.weight * idf * (lexical.K1 + 1)
        for term, idf in zip(terms, found.idf.tolist(), strict=True)
    )
    return Matched(allowed, found.ids, found.scores, highest)


class LexicalRanker:
    """Ranks the rows that have a word of one question, by BM25.

    Args:
        matched: These rows.
    """

    # The title above a passage counts as well, and so does the language of its document.
    copies_tie = False

    def __init__(self, matched: Matched) -> None:
        self._matched = matched

    def top_k(self, k: int, allowed: AllowedRows) -> Ranking:
        """See `Ranker.top_k`."""
        matched = self._matched.within(allowed)
        if not len(matched.ids):
            return NOTHING
        best = matched.best(k)
        scores = matched.scores[best].tolist()
        return Ranking(matched.ids[best].tolist(), scores, {"lexical": scores})

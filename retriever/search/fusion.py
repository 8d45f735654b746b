"""Hybrid rankings: the cosine of a passage and its BM25 score made into one score, exactly.

Two ways. The convex combination of both scores, each over its theoretical range,

    weight * (cosine + 1) / 2 + (1 - weight) * BM25 / highest BM25,

does not depend on the other passages, so that it can be compared with a threshold. It finds more
than reciprocal ranks, and theoretical minima more than observed ones (Bruch, Gai, Ingber, "An
Analysis of Fusion Functions for Hybrid Retrieval", TOIS 2023, arXiv 2210.11934). The highest BM25
score is that of a passage which consists of the question's words. `python -m benchmarks.hybrid`
measures both ways, and the weight.

Reciprocal rank fusion adds `weight / (60 + rank)` of the one list and `(1 - weight) / (60 + rank)`
of the other (Cormack, Clarke, Büttcher, SIGIR 2009), times 61 so that the best score is 1.

Exact: the words of the question give the BM25 score of all rows that have any, so only cosines are
not known of all rows. No row beyond the k nearest has a higher one than the last of these. Those
whose BM25 score could still lift them among the best k have their cosines computed, the highest
first, until no other could (the threshold algorithm of Fagin, Lotem and Naor, PODS 2001, with one
of its lists at hand in full). Equal scores are ordered by the cosine, then by the chunk id. In this
order k nearest rows are enough: a row beyond them that has no word of the question comes after all
of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever import deadlines
from retriever.search import dense
from retriever.search.allowed import positions_of
from retriever.search.ranking import NOTHING, Ranking

if TYPE_CHECKING:
    import sqlite3

    from numpy.typing import NDArray

    from retriever.search.allowed import AllowedRows, Ids
    from retriever.search.lexical_ranking import Matched
    from retriever.search.vectors import Floats
    from retriever.search.view import View

    Scores = NDArray[np.float64]

RANKED = 1_000
"""The ranks that count in reciprocal rank fusion, of each list."""

_RANK_CONSTANT = 60
_FIRST_BLOCK, _LARGEST_BLOCK = 64, 8_192  # rows whose cosines are computed at a time


class _Rows(NamedTuple):
    """Rows with both scores.

    Attributes:
        ids: Chunk ids, int64 `(n,)`, in any order.
        cosines: Exact, float64 `(n,)`.
        words: BM25, 0 where no word stands, float64 `(n,)`.
        fused: Of both, float64 `(n,)`.
    """

    ids: Ids
    cosines: Scores
    words: Scores
    fused: Scores

    def with_rows(self, other: _Rows) -> _Rows:
        return _Rows(
            np.concatenate([self.ids, other.ids]),
            np.concatenate([self.cosines, other.cosines]),
            np.concatenate([self.words, other.words]),
            np.concatenate([self.fused, other.fused]),
        )

    def at(self, positions: Ids) -> _Rows:
        return _Rows(
            self.ids[positions],
            self.cosines[positions],
            self.words[positions],
            self.fused[positions],
        )

    def best(self, k: int) -> Ids:
        """Return the positions of the best `k`, best first."""
        order: Ids = np.lexsort((self.ids, -self.cosines, -self.fused))[:k]
        return order

    @property
    def ranking(self) -> Ranking:
        fused = self.fused.tolist()
        components = {
            "dense": self.cosines.tolist(),
            "lexical": self.words.tolist(),
            "fused": fused,
        }
        return Ranking(self.ids.tolist(), fused, components)


class ConvexRanker:
    """Ranks the rows of a view by the weighted mean of both scores for one question.

    Args:
        view: What to search; of the connection's read transaction.
        connection: Where the checked vectors are read.
        query: float32 `(dimension,)`, of unit length.
        matched: The rows that have a word of the question, of all that may be found.
        weight: The share of the cosine, from 0 to 1.
    """

    copies_tie = False

    def __init__(
        self,
        view: View,
        connection: sqlite3.Connection,
        query: Floats,
        matched: Matched,
        weight: float,
    ) -> None:
        self._view = view
        self._connection = connection
        self._query = query
        self._matched = matched
        self._weight = weight

    def top_k(self, k: int, allowed: AllowedRows) -> Ranking:
        """See `Ranker.top_k`."""
        (nearest,) = dense.top_k(self._view, self._connection, self._query[None], k, allowed)
        return self.fused(nearest, k, allowed)

    def fused(self, nearest: Ranking, k: int, allowed: AllowedRows) -> Ranking:
        """Return what `top_k` does, given the `min(k, n)` rows of the highest cosine."""
        if not nearest.ids:
            return NOTHING
        matched = self._matched.within(allowed)
        ids, cosines = np.array(nearest.ids, np.int64), np.array(nearest.scores)
        rows = self._rows(ids, cosines, matched.scores_of(ids))
        if len(ids) < allowed.count:
            rows, beyond = self._with_others(rows, matched, cosines[-1], k)
        else:
            beyond = np.empty(0, np.int64)
        best = rows.at(rows.best(k))
        found = _are_among(best.ids, beyond)
        dense.require(
            self._view, self._connection, self._query, best.ids[found], best.cosines[found]
        )
        return best.ranking

    def _with_others(self, rows: _Rows, matched: Matched, most: float, k: int) -> tuple[_Rows, Ids]:
        """Return rows, and beside them all others that may be among the best `k`; and these.

        Args:
            rows: Those of the highest cosines, at least k.
            matched: Rows that have a word.
            most: The highest cosine that others may have.
            k: Rows wanted.
        """
        listed = _are_among(matched.ids, rows.ids)
        bounds = self._fuse(np.full(len(listed), most), matched.scores)
        least = float(np.partition(rows.fused, -k)[-k])
        left = np.flatnonzero(~listed & (bounds >= least))
        left = left[np.argsort(-matched.scores[left], kind="stable")]
        size, others = _FIRST_BLOCK, [np.empty(0, np.int64)]
        while len(left):
            deadlines.check()
            block, left = left[:size], left[size:]
            ids = matched.ids[block]
            rows = rows.with_rows(self._those_over(least, ids, matched.scores[block]))
            rows = rows.at(rows.best(k))
            others.append(ids)
            least = float(rows.fused[-1])
            # Ordered by their words, and so by the best that they can be.
            left = left[: np.count_nonzero(bounds[left] >= least)]
            size = min(2 * size, _LARGEST_BLOCK)
        return rows, np.concatenate(others)

    def _those_over(self, least: float, ids: Ids, words: Scores) -> _Rows:
        """Return those of some chunks whose fused score may be `least` or more."""
        view = self._view
        if view.is_exact:
            nearly = dense.nearly(view, self._query, ids).astype(np.float64)
            may_be = self._fuse(nearly + dense.ROUNDING, words) >= least
            ids, words = ids[may_be], words[may_be]
        cosines = dense.cosines(view, self._connection, self._query, ids)
        return self._rows(ids, cosines, words)

    def _rows(self, ids: Ids, cosines: Scores, words: Scores) -> _Rows:
        return _Rows(ids, cosines, words, self._fuse(cosines, words))

    def _fuse(self, cosines: Scores, words: Scores) -> Scores:
        """Return the fused scores; they grow with both arguments, rounding included."""
        shares = words / self._matched.highest if self._matched.highest > 0 else words
        fused = self._weight * ((cosines + 1) / 2) + (1 - self._weight) * shares
        return np.minimum(fused, 1.0)


class ReciprocalRanker:
    """Ranks the rows of a view by their places in both lists for one question.

    Args:
        view: What to search; of the connection's read transaction.
        connection: Where the checked vectors are read.
        query: float32 `(dimension,)`, of unit length.
        matched: The rows that have a word of the question, of all that may be found.
        weight: The share of the rank by cosine, from 0 to 1.
    """

    copies_tie = False

    def __init__(
        self,
        view: View,
        connection: sqlite3.Connection,
        query: Floats,
        matched: Matched,
        weight: float,
    ) -> None:
        self._view = view
        self._connection = connection
        self._query = query
        self._matched = matched
        (nearest,) = dense.top_k(view, connection, query[None], RANKED, matched.allowed)
        near = np.array(nearest.ids, np.int64)
        worded = matched.ids[matched.best(RANKED)]
        only = worded[~_are_among(worded, near)]
        ids = np.concatenate([near, only])
        cosines = np.concatenate(
            [np.array(nearest.scores), dense.checked_cosines(view, connection, query, only)]
        )
        fused = weight * _reciprocals(ids, near) + (1 - weight) * _reciprocals(ids, worded)
        self._ranked = _Rows(ids, cosines, matched.scores_of(ids), fused)

    def top_k(self, k: int, allowed: AllowedRows) -> Ranking:
        """See `Ranker.top_k`. Rows that are in neither list follow in the order of cosines."""
        rows = self._ranked
        if allowed is not self._matched.allowed:
            rows = rows.at(np.flatnonzero(_are_among(rows.ids, allowed.among(rows.ids))))
        best = rows.at(rows.best(k))
        short = min(k, allowed.count) - len(best.ids)
        if short <= 0:
            return best.ranking
        others = allowed.without(rows.ids)
        (nearest,) = dense.top_k(self._view, self._connection, self._query[None], short, others)
        ids = np.array(nearest.ids, np.int64)
        words = self._matched.scores_of(ids)
        after = _Rows(ids, np.array(nearest.scores), words, np.zeros(len(ids)))
        return best.with_rows(after).ranking


def _reciprocals(ids: Ids, ranked: Ids) -> Scores:
    """Return for each chunk the reciprocal of its rank, 1 for the first; 0 if it has none."""
    values = np.zeros(len(ids))
    order = np.argsort(ids)
    places = order[np.searchsorted(ids, ranked, sorter=order)]
    values[places] = (_RANK_CONSTANT + 1) / (_RANK_CONSTANT + 1 + np.arange(len(ranked)))
    return values


def _are_among(ids: Ids, others: Ids) -> NDArray[np.bool_]:
    """Return which of some chunks are among others, bool `(n,)`."""
    # np.isin would import numpy.ma, which a cold query need not pay for.
    order = np.argsort(ids, kind="stable")
    among = np.zeros(len(ids), bool)
    among[order[positions_of(ids[order], others)]] = True
    return among

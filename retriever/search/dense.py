"""Exact top-k by cosine similarity over the allowed rows of a view.

Segments and tail are searched with fast inner products, a little deeper than asked. Every candidate
is then scored again in one place, in float64, from the catalog's checked vectors. A score therefore
never depends on how many queries were asked at once, in which segment a chunk lies or which
processor ran the search. Equal scores are ordered by chunk id.

Where more rows may tie with the last hit than were fetched, as the copies of one text do, all rows
near it are scored from segments and tail, and only the vectors of the hits are read from the
catalog. The cost of a query grows with its hits, not with the number of copies.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from retriever import deadlines
from retriever.errors import IndexCorrupt
from retriever.search.allowed import AllowedRows
from retriever.search.ranking import NOTHING, Ranking
from retriever.search.vectors import exact_scores
from retriever.search.view import View
from retriever.storage import catalog

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retriever.search.vectors import Floats, Ids, Rows

# Rows fetched beyond k, so that rounding of the approximate scores rarely calls for a second look.
SLACK = 16
# How far an approximate score may be from the exact one: float32 sums of up to 4,096 products of
# unit vectors, in whatever order faiss or BLAS adds them, stay well within it.
ROUNDING = 2e-5
# A difference that no rounding explains: the segment holds another vector than the catalog.
_CONDEMNED = 1e-3
# Queries searched at a time, which bounds the memory for candidates and their vectors.
_BATCH = 64


class SegmentDisagrees(Exception):
    """A segment gives a chunk another score than the catalog's vector: one of them is damaged."""

    def __init__(self, chunk_id: int) -> None:
        super().__init__(chunk_id)
        self.chunk_id = chunk_id


class DenseRanker:
    """Ranks the rows of a view by their cosine similarity to one question.

    Args:
        view: What to search; of the connection's read transaction.
        connection: Where the checked vectors are read.
        query: float32 `(dimension,)`, of unit length.
    """

    copies_tie = True

    def __init__(self, view: View, connection: sqlite3.Connection, query: Floats) -> None:
        self._view = view
        self._connection = connection
        self._query = query

    def top_k(self, k: int, allowed: AllowedRows) -> Ranking:
        """See `Ranker.top_k`."""
        (ranking,) = top_k(self._view, self._connection, self._query[None], k, allowed)
        return ranking


def top_k(
    view: View,
    connection: sqlite3.Connection,
    queries: NDArray[np.float32],
    k: int,
    allowed: AllowedRows | None = None,
) -> list[Ranking]:
    """Return the `min(k, n)` most similar of `n` allowed chunks for each query.

    Args:
        view: What to search; of the connection's read transaction.
        connection: Where the checked vectors are read.
        queries: float32 `(n_queries, dimension)`, rows of unit length.
        k: Hits wanted, at least 1.
        allowed: The rows that may be found; None means all live rows of the view.

    Raises:
        SegmentDisagrees: A segment is wrong; condemn it and search again.
        IndexCorrupt: A stored vector is damaged.
    """
    allowed = view.live if allowed is None else allowed
    rankings: list[Ranking] = []
    for start in range(0, len(queries), _BATCH):
        rankings += _top_k(view, connection, queries[start : start + _BATCH], k, allowed)
    return rankings


def _top_k(
    view: View,
    connection: sqlite3.Connection,
    queries: NDArray[np.float32],
    k: int,
    allowed: AllowedRows,
) -> list[Ranking]:
    depth = k + SLACK
    candidates = _candidates(view, queries, depth, allowed)
    vectors = _fetch(view, connection, candidates[0].ravel().tolist())
    rankings = []
    for query, ids, approximate in zip(queries, *candidates, strict=True):
        # An approximate part may miss rows, and its scores say nothing about damage: its candidates
        # can be neither checked nor completed.
        if not view.is_exact:
            rankings.append(_ranked(ids, _checked_scores(query, ids, vectors), k))
            continue
        ranking, is_final = _rescore(query, ids, approximate, vectors, k)
        # If every allowed row was fetched, none is left that could tie.
        if not is_final and depth < allowed.count:
            ranking = _among_all_near(view, connection, query, ranking.scores[-1], k, allowed)
        rankings.append(ranking)
    return rankings


def _among_all_near(
    view: View,
    connection: sqlite3.Connection,
    query: Floats,
    last: float,
    k: int,
    allowed: AllowedRows,
) -> Ranking:
    """Return the exact ranking where rows that were not fetched may tie with the last hit.

    Args:
        view: What to search; all its parts are exact.
        connection: Where the checked vectors are read.
        query: One question.
        last: The exact score of the k-th best of the rows that were fetched.
        k: Hits wanted.
        allowed: The rows that may be found.
    """
    # A row of an exact score of `last` or more has an approximate one of at least this.
    least = last - ROUNDING
    parts = [
        part.near(query, least, mask) for part, mask in zip(view.parts, allowed.masks, strict=True)
    ]
    ids = np.concatenate([part[0] for part in parts])
    scores = np.concatenate([part[1] for part in parts])
    order = np.lexsort((ids, -scores))[:k]
    ids, scores = ids[order], scores[order]
    require(view, connection, query, ids, scores)
    return _ranking(ids, scores)


def _candidates(
    view: View, queries: Floats, depth: int, allowed: AllowedRows
) -> tuple[Ids, Floats]:
    """Return ids and fast scores of the best `depth` allowed rows of all parts, best first."""
    parts = []
    for part, mask in zip(view.parts, allowed.masks, strict=True):
        deadlines.check()
        parts.append(part.search(queries, depth, mask))
    ids = np.concatenate([part[0] for part in parts], axis=1)
    scores = np.concatenate([part[1] for part in parts], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)


def nearly(view: View, query: Floats, ids: Ids) -> Floats:
    """Return the approximate scores of some live rows, float32 `(n,)`; all parts are exact.

    Raises:
        SegmentDisagrees: A part lacks a row.
    """
    scores = np.empty(len(ids), np.float32)
    for part, of_part, positions in _placed(view, ids):
        scores[of_part] = part.products(query, positions)
    return scores


def cosines(
    view: View, connection: sqlite3.Connection, query: Floats, ids: Ids
) -> NDArray[np.float64]:
    """Return the exact scores of some live rows, float64 `(n,)`, unchecked if parts are exact.

    Raises:
        SegmentDisagrees, IndexCorrupt: As `top_k`.
    """
    if not view.is_exact:
        return checked_cosines(view, connection, query, ids)
    scores = np.empty(len(ids), np.float64)
    for part, of_part, positions in _placed(view, ids):
        scores[of_part] = part.cosines(query, positions)
    return scores


def checked_cosines(
    view: View, connection: sqlite3.Connection, query: Floats, ids: Ids
) -> NDArray[np.float64]:
    """Return the scores of some live rows by their checked vectors, float64 `(n,)`.

    Raises:
        SegmentDisagrees, IndexCorrupt: As `top_k`.
    """
    return _checked_scores(query, ids, _fetch(view, connection, ids.tolist()))


def require(
    view: View,
    connection: sqlite3.Connection,
    query: Floats,
    ids: Ids,
    scores: NDArray[np.float64],
) -> None:
    """Compare scores that `cosines` returned with those of the checked vectors.

    Raises:
        SegmentDisagrees: One differs.
        IndexCorrupt: A stored vector is damaged.
    """
    # The same numbers give the same score, to the bit.
    differs = checked_cosines(view, connection, query, ids) != scores
    if differs.any():
        raise SegmentDisagrees(int(ids[int(differs.argmax())]))


def _placed(view: View, ids: Ids) -> Iterator[tuple[Rows, Ids, Ids]]:
    """Yield parts, the positions in `ids` of chunks that they hold, and their rows' positions."""
    found = 0
    for part in view.parts:
        rows = np.searchsorted(part.ids, ids)
        here = np.flatnonzero(rows < len(part.ids))
        here = here[part.ids[rows[here]] == ids[here]]
        if len(here):
            found += len(here)
            yield part, here, rows[here]
    if found < len(ids):
        lost = next(i for i in ids.tolist() if all(i not in part.ids for part in view.parts))
        raise SegmentDisagrees(lost)


def _fetch(
    view: View, connection: sqlite3.Connection, ids: list[int]
) -> dict[int, NDArray[np.float32]]:
    # np.unique would import numpy.ma, which a cold query need not pay for.
    wanted = sorted(set(ids))
    vectors = catalog.fetch_vectors(connection, view.space, wanted)
    if len(vectors) != len(wanted):
        missing = next(i for i in wanted if i not in vectors)
        raise SegmentDisagrees(missing)
    return vectors


def _rescore(
    query: Floats,
    ids: Ids,
    approximate: Floats,
    vectors: dict[int, NDArray[np.float32]],
    k: int,
) -> tuple[Ranking, bool]:
    """Return the exact ranking of the candidates, and whether no other row can belong to it."""
    if not len(ids):
        return NOTHING, True
    scores = _checked_scores(query, ids, vectors)
    off = np.abs(scores - approximate)
    # Negated, so that NaN counts as wrong.
    wrong = ~(off <= _CONDEMNED)
    if wrong.any():
        raise SegmentDisagrees(int(ids[int(wrong.argmax())]))
    ranking = _ranked(ids, scores, k)
    # Rows that were not fetched have at most the last approximate score, give or take rounding.
    # If the k-th hit is above that, none of them can come before it or tie with it.
    is_final = len(ranking.ids) == k and ranking.scores[-1] > float(approximate[-1]) + ROUNDING
    return ranking, is_final


def _ranked(ids: Ids, scores: NDArray[np.float64], k: int) -> Ranking:
    """Return the best `k` by score; equal scores in ascending order of chunk id."""
    # `lexsort` takes the primary key last.
    order = np.lexsort((ids, -scores))[:k]
    return _ranking(ids[order], scores[order])


def _ranking(ids: Ids, scores: NDArray[np.float64]) -> Ranking:
    listed = scores.tolist()
    return Ranking(ids.tolist(), listed, {"dense": listed})


def _checked_scores(
    query: Floats, ids: Ids, vectors: dict[int, NDArray[np.float32]]
) -> NDArray[np.float64]:
    if not len(ids):
        return np.empty(0)
    return exact_scores(np.stack([vectors[i] for i in ids.tolist()]), query)


def disagreement(directory: str, error: SegmentDisagrees) -> IndexCorrupt:
    """Return the error for a chunk that no segment holds, so that its row must be damaged."""
    return IndexCorrupt(
        f"Chunk {error.chunk_id} of {directory} cannot be scored: its row is missing or damaged.",
        path=directory,
        check="vectors",
    )

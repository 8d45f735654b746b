"""The rankers of a search by mode: by cosine, by words, or by both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.search import dense
from retriever.search.dense import DenseRanker
from retriever.search.ranking import Ranker, Ranking

if TYPE_CHECKING:
    import sqlite3
    from typing import TypeAlias

    from numpy.typing import NDArray

    from retriever.config import SearchOptions
    from retriever.documents.words import Term
    from retriever.search.allowed import AllowedRows
    from retriever.search.view import View

    Vector: TypeAlias = NDArray[np.float32]


class Search(NamedTuple):
    """One search of a view.

    Attributes:
        allowed: The rows that it may find.
        vector: Of unit length, float32 `(dimension,)`; None ranks by words alone.
        terms: The words to look for; None ranks by cosine alone. Without both nothing is found.
        note: What is said of it in the plan.
    """

    allowed: AllowedRows
    vector: Vector | None = None
    terms: Sequence[Term] | None = None
    note: str = ""

    @property
    def can_find(self) -> bool:
        """Return whether there is anything to rank, and to rank by."""
        return self.allowed.count > 0 and (self.vector is not None or self.terms is not None)

    @property
    def copies_tie(self) -> bool:
        """Return what `Ranker.copies_tie` is of its ranker."""
        return self.terms is None


class Ranked(NamedTuple):
    """What one search found first.

    Attributes:
        ranker: What can be asked for more.
        ranking: The beginning of its ranking.
        highest: The highest BM25 score that a passage could have; None of a dense search.
        note: What is said of it in the plan.
    """

    ranker: Ranker
    ranking: Ranking
    highest: float | None = None
    note: str = ""


def rank(
    view: View,
    connection: sqlite3.Connection,
    searches: Sequence[Search],
    options: SearchOptions,
    k: int,
    searched: AllowedRows,
) -> Iterator[Ranked]:
    """Yield the best `min(k, n)` of the `n` rows searched, for each of some searches.

    Args:
        view: What to search; of the connection's read transaction.
        connection: Where rows are read.
        searches: Searches that may find the same rows, all with a vector or none.
        options: How both scores are fused.
        k: Rows wanted, at least 1.
        searched: The rows that they may find, less copies that need not be ranked.

    Raises:
        SegmentDisagrees, StaleView, IndexCorrupt: See `dense.top_k` and `lexical.matches`.
    """
    vectors = [one.vector for one in searches if one.vector is not None]
    # Searched together, which is faster than one by one.
    nearest = iter(dense.top_k(view, connection, np.stack(vectors), k, searched) if vectors else ())
    for search in searches:
        if search.terms is None and search.vector is not None:
            yield Ranked(DenseRanker(view, connection, search.vector), next(nearest))
        elif search.terms is not None:
            by_cosine = None if search.vector is None else next(nearest)
            yield _by_words(view, connection, search, options, k, by_cosine)


def _by_words(
    view: View,
    connection: sqlite3.Connection,
    search: Search,
    options: SearchOptions,
    k: int,
    nearest: Ranking | None,
) -> Ranked:
    """Return what a lexical or hybrid search found, given the nearest rows if it is hybrid."""
    # Imported where they are used: a dense search does without.
    from retriever.search import fusion, lexical_ranking

    allowed = search.allowed
    matched = lexical_ranking.match(view, connection, search.terms or (), allowed)
    note = "" if len(matched.ids) else "; no passage has a word of the question"
    ranker: Ranker
    if search.vector is None or nearest is None:
        ranker = lexical_ranking.LexicalRanker(matched)
        ranking = ranker.top_k(k, allowed)
    else:
        source = (view, connection, search.vector, matched, options.share)
        if options.fusion == "convex":
            convex = fusion.ConvexRanker(*source)
            ranker, ranking = convex, convex.fused(nearest, k, allowed)
        else:
            ranker = fusion.ReciprocalRanker(*source)
            ranking = ranker.top_k(k, allowed)
    return Ranked(ranker, ranking, matched.highest, note)

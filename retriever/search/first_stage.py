"""The first stage of a search: what is allowed, ranked and read, all in one read transaction."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever import deadlines
from retriever.search import confidence, dense, hits, likeness
from retriever.search.dense import DenseRanker
from retriever.search.folding import Folding
from retriever.search.hits import Answer
from retriever.search.ranking import Ranker, Ranking

if TYPE_CHECKING:
    import sqlite3
    from typing import TypeAlias

    from numpy.typing import NDArray

    from retriever.search.allowed import AllowedRows
    from retriever.search.asking import Asked
    from retriever.search.file_states import FileStates
    from retriever.search.request import Request
    from retriever.search.view import View
    from retriever.storage.records import Key

    Vector: TypeAlias = NDArray[np.float32]


class FirstStage(NamedTuple):
    """The answers of the first stage, one for each search.

    Attributes:
        key: The commit that was searched.
        is_exact: Whether nothing better can have been missed.
        answers: What was found for each.
        confidences: How likely the first hit of each answers it; None where it cannot be told.
        plans: How, for people.
        allowed: The number of rows that each might have found.
        ranked_at: When all were ranked, by `time.perf_counter`.
    """

    key: Key
    is_exact: bool
    answers: list[Answer]
    confidences: list[float | None]
    plans: list[str]
    allowed: list[int]
    ranked_at: float


class _Search(NamedTuple):
    """One search of a view.

    Attributes:
        vector: Of unit length; None finds nothing.
        allowed: The rows that it may find.
        note: What is said of them in the plan.
    """

    vector: Vector | None
    allowed: AllowedRows
    note: str = ""


def find(
    view: View,
    connection: sqlite3.Connection,
    request: Request,
    vectors: Sequence[Vector | None],
    file_states: FileStates,
) -> FirstStage:
    """Return the first stage's answers.

    Args:
        view: What to search; of the connection's read transaction.
        connection: Where rows are read.
        request: What is asked.
        vectors: One for each that is asked, float32 `(dimension,)`, of unit length; None for
            documents, whose vectors are in the index.
        file_states: What knows whether a file has changed.

    Raises:
        CursorExpired: The page is one of another commit.
        DocumentNotFound: There is no such document to be like.
        SegmentDisagrees, IndexCorrupt: As `dense.top_k`, and a row that is needed is damaged.
    """
    request.page.require(view.key)
    deadlines.begin("ranking")
    allowed = view.live if request.allow is None else request.allow(connection, view)
    searches = [
        _search(view, connection, asked, vector, allowed)
        for asked, vector in zip(request.asked, vectors, strict=True)
    ]
    options = request.options
    found: dict[int, tuple[Ranking, Folding]] = {}
    confidences: list[float | None] = [None] * len(searches)
    for rows, members in _by_allowed_rows(searches):
        by_document = options.group is not None
        folding = Folding(
            view,
            connection,
            rows,
            fold=options.fold,
            by_document=by_document,
            copies_tie=DenseRanker.copies_tie,
        )
        queries = np.stack([one for n in members if (one := searches[n].vector) is not None])
        depth = max(request.depth, confidence.HITS)
        rankings = dense.top_k(view, connection, queries, depth, folding.searched)
        for n, query, ranking in zip(members, queries, rankings, strict=True):
            ranker = DenseRanker(view, connection, query)
            distinct = _distinct(folding, ranker, ranking, request)
            if request.asked[n].document is None:  # a document asks nothing
                confidences[n] = _confidence(view, query, distinct)
            found[n] = _shown(distinct, request), folding
    ranked_at = time.perf_counter()
    deadlines.begin("reading the passages")
    first_rank = 1 if request.reranking else request.page.offset + 1
    answers = [Answer([], []) for _ in searches]
    for n, (ranking, folding) in found.items():
        answers[n] = hits.read(view, connection, ranking, folding, file_states, first_rank)
    return FirstStage(
        view.key,
        view.is_exact,
        answers,
        confidences,
        [_plan(view, allowed, one) for one in searches],
        [one.allowed.count for one in searches],
        ranked_at,
    )


def _search(
    view: View,
    connection: sqlite3.Connection,
    asked: Asked,
    vector: Vector | None,
    allowed: AllowedRows,
) -> _Search:
    """Return how one of what is asked is searched for."""
    if asked.document is not None:
        like = likeness.of_document(view, connection, asked.document, allowed)
        return _Search(like.vector, like.allowed, "; like a document, itself left out")
    restriction = asked.restriction
    if not restriction.restricts:
        return _Search(vector, allowed)
    # Imported here, since most questions are plain text, and a cold search would wait for it.
    from retriever.search import lexical_terms
    from retriever.search.restrictions import restrict

    candidates = partial(lexical_terms.candidates, view, connection)
    rows, note = restrict(connection, restriction, allowed, candidates)
    return _Search(vector, rows, note)


def _by_allowed_rows(searches: Sequence[_Search]) -> Iterator[tuple[AllowedRows, list[int]]]:
    """Yield rows and the positions of searches that are of exactly these; they are ranked at once.

    Searches that can find nothing are left out.
    """
    members: dict[int, list[int]] = {}
    for position, search in enumerate(searches):
        if search.vector is not None and search.allowed.count:
            members.setdefault(id(search.allowed), []).append(position)
    for positions in members.values():
        yield searches[positions[0]].allowed, positions


def _distinct(folding: Folding, ranker: Ranker, ranking: Ranking, request: Request) -> Ranking:
    """Return what is to be shown, or reranked, of a ranking and of what is beyond it.

    And no fewer hits than the confidence is told from.
    """
    options, depth = request.options, request.depth
    by_document = options.group is not None
    if options.rerank is None:
        most = max(depth, confidence.HITS)
        return folding.best(ranker, ranking, most, by_document=by_document)
    candidates = folding.best(ranker, ranking, depth, by_document=False)
    if not by_document:
        return candidates
    # A reranker may prefer another chunk of a document: it sees all candidates, and the
    # best chunk of each further document where they come from too few.
    further = folding.best(ranker, ranking, options.k, by_document=True)
    known = set(candidates.ids)
    beyond = [n for n, chunk_id in enumerate(further.ids) if chunk_id not in known]
    return candidates.followed_by(further.at(beyond))


def _shown(ranking: Ranking, request: Request) -> Ranking:
    """Return the page of a ranking that is read; a reranker reads all of it."""
    if request.options.rerank is not None:
        return ranking
    return ranking.at(range(len(ranking.ids))[request.shown])


def _confidence(view: View, query: Vector, ranking: Ranking) -> float | None:
    """Return the confidence in the first hit; None where the index is too small to tell."""
    mean = view.background.mean(view.parts, view.live)
    if mean is None:
        return None
    background = float(np.clip(mean @ query, -1.0, 1.0))
    return confidence.of_cosines(ranking.scores, background)


def _plan(view: View, allowed: AllowedRows, search: _Search) -> str:
    """Return what one search did, for people."""
    filtered = ""
    if allowed is not view.live:
        filtered = f", {allowed.note or f'{allowed.count} of {view.live.count} rows allowed'}"
    return f"{view.plan}{filtered}{search.note}"

"""The first stage of a search: what is allowed, ranked and read, all in one read transaction."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever import deadlines
from retriever.search import background, confidence, hits, likeness, rankers
from retriever.search.folding import Folding
from retriever.search.hits import Answer
from retriever.search.rankers import Search
from retriever.search.ranking import Ranking

if TYPE_CHECKING:
    import sqlite3
    from typing import TypeAlias

    from numpy.typing import NDArray

    from retriever.search.allowed import AllowedRows
    from retriever.search.asking import Asked
    from retriever.search.file_states import FileStates
    from retriever.search.rankers import Ranked
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
            documents, whose vectors are in the index, and for a lexical search.
        file_states: What knows whether a file has changed.

    Raises:
        CursorExpired: The page is one of another commit.
        DocumentNotFound: There is no such document to be like.
        SegmentDisagrees, StaleView: The view is no longer of use; begin another.
        IndexCorrupt: A row that is needed is damaged.
    """
    request.page.require(view.key)
    deadlines.begin("ranking")
    allowed = view.live if request.allow is None else request.allow(connection, view)
    searches = [
        _search(view, connection, request, asked, vector, allowed)
        for asked, vector in zip(request.asked, vectors, strict=True)
    ]
    options = request.options
    found: dict[int, tuple[Ranking, Folding]] = {}
    confidences: list[float | None] = [None] * len(searches)
    notes = [search.note for search in searches]
    for members in _together(searches):
        some = [searches[n] for n in members]
        folding = Folding(
            view,
            connection,
            some[0].allowed,
            fold=options.fold,
            by_document=options.group is not None,
            copies_tie=some[0].copies_tie,
        )
        depth = max(request.depth, confidence.HITS)
        ranked = rankers.rank(view, connection, some, options, depth, folding.searched)
        for n, one in zip(members, ranked, strict=True):
            distinct = _distinct(folding, one, request)
            if request.asked[n].document is None:  # a document asks nothing
                confidences[n] = _confidence(view, searches[n], one, distinct)
            found[n] = _shown(distinct, request), folding
            notes[n] += one.note
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
        [
            f"{_plan(view, request, allowed, search)}{note}"
            for search, note in zip(searches, notes, strict=True)
        ],
        [one.allowed.count for one in searches],
        ranked_at,
    )


def _search(
    view: View,
    connection: sqlite3.Connection,
    request: Request,
    asked: Asked,
    vector: Vector | None,
    allowed: AllowedRows,
) -> Search:
    """Return how one of what is asked is searched for."""
    if asked.document is not None:
        like = likeness.of_document(view, connection, asked.document, allowed)
        rows, vector, note = like.allowed, like.vector, "; like a document, itself left out"
    else:
        rows, note = _restricted(view, connection, asked, allowed)
    is_like_nothing = asked.document is not None and vector is None  # it has no text
    if not request.uses_words or asked.vector is not None or is_like_nothing:
        return Search(rows, vector, note=note)
    from retriever.search import lexical_terms

    terms = lexical_terms.of_asked(view, connection, asked)
    vector = vector if request.uses_vectors else None
    return Search(rows, vector, terms.terms, note + terms.note)


def _restricted(
    view: View, connection: sqlite3.Connection, asked: Asked, allowed: AllowedRows
) -> tuple[AllowedRows, str]:
    """Return the rows with the phrases of a question and without what it excludes, and a note."""
    restriction = asked.restriction
    if not restriction.restricts:
        return allowed, ""
    # Imported here, since most questions are plain text, and a cold search would wait for it.
    from retriever.search import lexical_terms
    from retriever.search.restrictions import restrict

    candidates = partial(lexical_terms.candidates, view, connection)
    return restrict(connection, restriction, allowed, candidates)


def _together(searches: Sequence[Search]) -> Iterator[list[int]]:
    """Yield the positions of searches that are of exactly the same rows; they are ranked at once.

    Searches that can find nothing are left out.
    """
    members: dict[int, list[int]] = {}
    for position, search in enumerate(searches):
        if search.can_find:
            members.setdefault(id(search.allowed), []).append(position)
    yield from members.values()


def _distinct(folding: Folding, ranked: Ranked, request: Request) -> Ranking:
    """Return what is to be shown, or reranked, of a ranking and of what is beyond it.

    And no fewer hits than the confidence is told from.
    """
    options, depth = request.options, request.depth
    ranker, ranking = ranked.ranker, ranked.ranking
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
    options = request.options
    if options.rerank is not None:
        return ranking
    least = -math.inf if options.min_score is None else options.min_score
    shown = range(len(ranking.ids))[request.shown]
    return ranking.at([n for n in shown if ranking.scores[n] >= least])


def _confidence(view: View, search: Search, ranked: Ranked, ranking: Ranking) -> float | None:
    """Return the confidence in the first hit; None where the index is too small to tell."""
    if view.live.count < background.LEAST:
        return None
    highest = ranked.highest
    shares = [one / highest for one in ranking.components.get("lexical", ())] if highest else []
    if search.vector is None:
        return confidence.of_shares(shares)
    mean = view.background.mean(view.parts, view.live)
    if mean is None:
        return None
    usual = min(1.0, max(-1.0, float(mean @ search.vector)))
    cosines = ranking.components.get("dense", [])
    if not highest:  # a dense search, or a question without words
        return confidence.of_cosines(cosines, usual)
    return confidence.of_both(cosines, shares, usual)


def _plan(view: View, request: Request, allowed: AllowedRows, search: Search) -> str:
    """Return what one search did, for people."""
    mode = ""
    if search.terms is not None:
        options = request.options
        mode = "lexical, "
        if search.vector is not None:
            mode = f"hybrid ({options.fusion}, weight {options.share:g}), "
    filtered = ""
    if allowed is not view.live:
        filtered = f", {allowed.note or f'{allowed.count} of {view.live.count} rows allowed'}"
    return f"{mode}{view.plan}{filtered}"

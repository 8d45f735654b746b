"""One search from questions to hits: encode, rank, fetch, all of one commit; then rerank."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever import deadlines
from retriever.arguments import described, is_number, shown
from retriever.canonical import unit_vector
from retriever.config import SearchOptions
from retriever.encoders.loading import Encoders
from retriever.errors import IndexBusy, InvalidQuery, ModelError
from retriever.search import dense, hits, query_encoding
from retriever.search.dense import Ranking, SegmentDisagrees
from retriever.search.file_states import FileStates
from retriever.search.folding import Folding
from retriever.search.hits import Answer
from retriever.search.rerank import Reranking, best_of_each
from retriever.search.reranker_source import RerankerSource
from retriever.search.view import StaleView, View, Views
from retriever.storage.pool import ReadPool
from retriever.storage.records import Space
from retriever.types import Hit, Results

if TYPE_CHECKING:
    import sqlite3
    from typing import TypeAlias

    from numpy.typing import NDArray

    from retriever.search.allowed import AllowedRows

    Allow: TypeAlias = Callable[[sqlite3.Connection, View], AllowedRows]

_ATTEMPTS = 4


class _Encoded(NamedTuple):
    """The vectors to search with, unit rows `(n, dimension)`, and a note on each for people."""

    vectors: NDArray[np.float32]
    notes: list[str]


class _FirstStage(NamedTuple):
    """The answers of the first stage, one for each query, and when they were ranked."""

    plan: str
    is_exact: bool
    answers: list[Answer]
    ranked_at: float


class _Request(NamedTuple):
    """One or many queries that are answered with the same options.

    Attributes:
        queries: The questions; None where vectors are given.
        vectors: What the caller gave to search with instead.
        options: What is returned.
        reranking: The second stage, None where there is none.
        allow: What gives the rows that may be found; None allows all.
    """

    queries: Sequence[str] | None
    vectors: Sequence[Any] | None
    options: SearchOptions
    reranking: Reranking | None
    allow: Allow | None


class Searcher:
    """Answers questions from the newest commit of an index. Thread-safe.

    Args:
        directory: The index.
        pool: Its read connections.
        views: Its views, which are brought up to date by each search.
        encoders: Returns where encoders are found; a rebuild may change that.
        rerankers: Where rerankers are found.
        file_states: What tells of a hit whether its file has changed.
    """

    def __init__(
        self,
        directory: Path,
        pool: ReadPool,
        views: Views,
        encoders: Encoders,
        rerankers: RerankerSource,
        file_states: FileStates,
    ) -> None:
        self._directory = directory
        self._pool = pool
        self._views = views
        self._encoders = encoders
        self._rerankers = rerankers
        self._file_states = file_states

    def search(
        self,
        queries: Sequence[str] | None,
        vectors: Sequence[Any] | None,
        options: SearchOptions,
        *,
        allow: Allow | None = None,
    ) -> list[Results]:
        """Return the results for each query, or for each vector; exactly one of them is given.

        Args:
            queries: The questions.
            vectors: Embeddings to search with instead.
            options: What is returned.
            allow: Given the read transaction and its view, returns the rows that may be found;
                None allows all.

        Raises:
            InvalidQuery, LimitExceeded: A query or vector is unusable, or cannot be reranked by.
            ModelError: The encoder or the reranker fails.
            IndexBusy: The index was rebuilt again and again meanwhile.
            IndexCorrupt: A row that would have been returned is damaged.
        """
        began_at = time.perf_counter()
        reranking = self._rerankers.reranking(options, has_text=queries is not None)
        request = _Request(queries, vectors, options, reranking, allow)
        for query in queries or ():
            query_encoding.check(query)
        attempt = 0
        # A segment that was found wrong costs an attempt as well: there may be as many as those.
        while attempt < _ATTEMPTS + len(self._views.condemned):
            attempt += 1
            patient = attempt < _ATTEMPTS
            space = self._space(patient=patient)
            if space is None:
                continue
            try:
                # No transaction is open meanwhile: it would occupy a read connection while the
                # encoder works, and keep SQLite from resetting the WAL.
                encoded = self._encode(request, space)
            except (InvalidQuery, ModelError):
                # The space may be that of an earlier search. If a rebuild has replaced it since,
                # its encoder may be gone, and the query is not at fault.
                if self._is_active(space):
                    raise
                continue
            encoded_at = time.perf_counter()
            found = self._first_stage(request, space, encoded.vectors, patient=patient)
            if found is not None:
                return _results(request, found, encoded.notes, began_at, encoded_at)
        raise IndexBusy(
            f"{self._directory} was changed {_ATTEMPTS} times while this search ran.",
            hint="Search again once the rebuild is over.",
        )

    def _space(self, *, patient: bool) -> Space | None:
        """Return the space to encode for; the attempt finds out if it is no longer active."""
        if patient and (known := self._views.newest) is not None:
            return known.space
        with self._pool.transaction() as connection:
            try:
                return self._views.at(connection, patient=patient).space
            except StaleView:
                return None

    def _is_active(self, space: Space) -> bool:
        """Return whether a space, known from an earlier search, is still the one to search."""
        with self._pool.transaction() as connection:
            return self._views.at(connection, patient=False).space == space

    def _encode(self, request: _Request, space: Space) -> _Encoded:
        if request.queries is None:
            vectors = _unit_vectors(request.vectors or (), space.dimension)
            return _Encoded(vectors, [""] * len(vectors))
        if not request.queries:
            return _Encoded(np.empty((0, space.dimension), np.float32), [])
        if not space.has_encoder:
            raise InvalidQuery(
                f"{self._directory} holds embeddings that came with its documents: it has no "
                "model that could read a question.",
                hint=f"Search with vector=, {space.dimension} numbers; or have a model encode the "
                "texts: rebuild(model=…, discard_embeddings=True).",
            )
        deadlines.begin("loading the model")
        encoder = self._encoders.encoder_for(space)
        deadlines.begin("encoding the question")
        embedded = query_encoding.embed(encoder, request.queries)
        # A cross-encoder reads question and text at once, and cuts the longer one first.
        cut = "; the reranker truncates the question to its window"
        notes = [
            f"{one.note}{cut}" if request.reranking and one.windows > 1 else one.note
            for one in embedded
        ]
        return _Encoded(np.stack([one.vector for one in embedded]), notes)

    def _first_stage(
        self, request: _Request, space: Space, vectors: NDArray[np.float32], *, patient: bool
    ) -> _FirstStage | None:
        """Search one snapshot; None means that it must be tried again on a newer one."""
        deadlines.begin("waiting for a connection")
        with self._pool.transaction() as connection:
            deadlines.begin("opening the index's files")
            try:
                view = self._views.at(connection, patient=patient)
            except StaleView:
                return None
            if view.space != space:  # a rebuild, or another index in the place of this one
                return None
            try:
                return self._rank(view, connection, vectors, request)
            except SegmentDisagrees as exc:
                if not self._views.condemn(view, exc.chunk_id):
                    raise dense.disagreement(str(self._directory), exc) from None
                return None

    def _rank(
        self,
        view: View,
        connection: sqlite3.Connection,
        vectors: NDArray[np.float32],
        request: _Request,
    ) -> _FirstStage:
        options = request.options
        deadlines.begin("ranking")
        allowed = view.live if request.allow is None else request.allow(connection, view)
        by_document = options.group is not None
        folding = Folding(view, connection, allowed, fold=options.fold, by_document=by_document)
        rankings = dense.top_k(view, connection, vectors, options.depth, folding.searched)
        rankings = [
            _distinct(folding, query, ranking, options)
            for query, ranking in zip(vectors, rankings, strict=True)
        ]
        ranked_at = time.perf_counter()
        deadlines.begin("reading the passages")
        answers = [
            hits.read(view, connection, ranking, folding, self._file_states) for ranking in rankings
        ]
        plan = view.plan
        if allowed is not view.live:
            plan += f", {allowed.count} of {view.live.count} rows allowed"
        return _FirstStage(plan, view.is_exact, answers, ranked_at)


def _distinct(
    folding: Folding, query: NDArray[np.float32], ranking: Ranking, options: SearchOptions
) -> Ranking:
    """Return what is to be shown, or reranked, of a ranking and of what is beyond it."""
    by_document = options.group is not None
    if options.rerank is None:
        return folding.best(query, ranking, options.k, by_document=by_document)
    candidates = folding.best(query, ranking, options.depth, by_document=False)
    if not by_document:
        return candidates
    # A reranker may prefer another chunk of a document: it sees all candidates, and the
    # best chunk of each further document where they come from too few.
    further = folding.best(query, ranking, options.k, by_document=True)
    return _joined(candidates, further)


def _joined(ranking: Ranking, further: Ranking) -> Ranking:
    """Return a ranking and what another one has beyond it."""
    known = set(ranking.ids)
    beyond = [(one, score) for one, score in zip(*further, strict=True) if one not in known]
    return Ranking(
        [*ranking.ids, *(one for one, _ in beyond)], [*ranking.scores, *(s for _, s in beyond)]
    )


def _results(
    request: _Request, found: _FirstStage, notes: list[str], began_at: float, encoded_at: float
) -> list[Results]:
    """Return the results of a first stage, reranked where the request says so."""
    fetched_at = time.perf_counter()
    answers = [answer.hits for answer in found.answers]
    reranking = request.reranking
    deadlines.begin("reranking")
    if reranking is not None and request.queries is not None:
        answers = [
            _reranked(reranking, query, answer, request.options)
            for query, answer in zip(request.queries, found.answers, strict=True)
        ]
        notes = [
            f"; reranked {len(answer.hits)} by {reranking.name}{note}"
            for answer, note in zip(found.answers, notes, strict=True)
        ]
    ended_at = time.perf_counter()
    timings = {
        "encode_s": encoded_at - began_at,
        "search_s": found.ranked_at - encoded_at,
        "fetch_s": fetched_at - found.ranked_at,
        **({"rerank_s": ended_at - fetched_at} if reranking else {}),
        "total_s": ended_at - began_at,
    }
    return [
        Results(tuple(answer), found.is_exact, dict(timings), f"{found.plan}{note}")
        for answer, note in zip(answers, notes, strict=True)
    ]


def _reranked(
    reranking: Reranking, query: str, answer: Answer, options: SearchOptions
) -> list[Hit]:
    reranked = reranking.apply(query, answer.hits, answer.texts)
    return (best_of_each(reranked) if options.group else reranked)[: options.k]


def _unit_vectors(given: Sequence[Any], dimension: int) -> NDArray[np.float32]:
    try:
        vectors = [unit_vector(vector, dimension) for vector in given]
    except ValueError as exc:
        hint = f"Pass {dimension} finite numbers."
        if is_number(given[0]):
            hint = f"Pass an array (n, {dimension}) as vectors=, or one vector to search(vector=)."
        raise InvalidQuery(f"The query vector {exc}.", hint=hint) from exc
    return np.array(vectors, np.float32).reshape(-1, dimension)


def query_or_vector() -> InvalidQuery:
    """Return the error for a search that is given neither a query nor a vector, or both."""
    return InvalidQuery(
        "A search takes a query or a vector, and exactly one of them.",
        hint="Pass a question as query, or an embedding as vector=.",
    )


def as_list(values: Any, name: str) -> list[Any]:
    """Return several queries or vectors as a list.

    Raises:
        InvalidQuery: They are none; what iterating over them raises is the caller's.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InvalidQuery(
            f"{name} is {described(values)}.",
            hint="Pass a list, one for each search.",
        )
    if isinstance(values, np.ndarray) and not values.ndim:
        raise InvalidQuery(f"{name} is {shown(values)}.", hint="Pass an array of (n, dimension).")
    return list(values)

"""One search from questions to hits: encode, rank, fetch, all of one commit; then rerank."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from retriever.arguments import described, is_number, shown, whole
from retriever.canonical import unit_vector
from retriever.config import Chunking
from retriever.encoder_source import EncoderSource
from retriever.errors import IndexBusy, InvalidQuery, LimitExceeded, ModelError
from retriever.search import dense, query_encoding
from retriever.search.dense import Ranking, SegmentDisagrees
from retriever.search.distinct import Copies, Differing
from retriever.search.file_states import FileStates
from retriever.search.rerank import MAX_CANDIDATES, Reranking, best_of_each
from retriever.search.view import StaleView, View, Views
from retriever.storage import catalog, checksums, records
from retriever.storage.pool import ReadPool
from retriever.storage.records import FileRow, Space
from retriever.types import FileState, Hit, Results

if TYPE_CHECKING:
    import sqlite3

    from numpy.typing import NDArray

MAX_K = 100_000
_ATTEMPTS = 4
_log = logging.getLogger("retriever")


def query_or_vector() -> InvalidQuery:
    """Return the error for a search that is given neither, or both."""
    return InvalidQuery(
        "A search takes a query or a vector, and exactly one of them.",
        hint="Pass a question as query, or an embedding as vector=.",
    )


class _Found(NamedTuple):
    """What the first stage found for one query: hits and the texts that the encoder saw."""

    plan: str
    ranked: float
    hits: list[Hit]
    texts: list[str]


class Search:
    """A search of one or many queries with the same options.

    Raises:
        InvalidQuery: `k` or `group` is unusable.
        LimitExceeded: `k` is over 100,000, or over 1,000 where hits are reranked.
    """

    def __init__(
        self,
        directory: Path,
        pool: ReadPool,
        views: Views,
        encoders: Callable[[], EncoderSource],
        k: int,
        group: Literal["document"] | None,
        reranking: Reranking | None = None,
        *,
        fold: bool = True,
        file_states: FileStates | None = None,
    ) -> None:
        self._k = _check_options(k, group, MAX_CANDIDATES if reranking else MAX_K)
        self._directory = directory
        self._pool = pool
        self._views = views
        self._encoders = encoders
        self._group = group
        self._reranking = reranking
        self._fold = fold
        self._file_states = file_states

    def run(self, queries: Sequence[str] | None, given: Any) -> list[Results]:
        """Return the results for each query text, or for each vector given."""
        began = time.perf_counter()
        if queries is not None:
            for query in queries:
                query_encoding.check(query)
        attempt = 0
        while attempt < _ATTEMPTS + len(self._views.condemned):
            attempt += 1
            space = self._space(patient=attempt < _ATTEMPTS)
            if space is None:
                continue
            try:
                notes, embedded = self._embed(queries, given, space)
            except (InvalidQuery, ModelError):
                if self._is_active(space):
                    raise
                continue
            encoded = time.perf_counter()
            found = self._attempt(space, embedded, patient=attempt < _ATTEMPTS)
            if found is not None:
                return self._finish(found, queries, notes, began, encoded)
        raise IndexBusy(
            f"{self._directory} was changed {_ATTEMPTS} times while this search ran.",
            hint="Search again once the rebuild is over.",
        )

    def _space(self, *, patient: bool) -> Space | None:
        """Return the space to encode for; the attempt finds out if it is no longer the active."""
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

    def _embed(
        self, queries: Sequence[str] | None, given: Any, space: Space
    ) -> tuple[list[str], NDArray[np.float32]]:
        if queries is None:
            vectors = _unit_vectors(given, space.dimension)
            return [""] * len(vectors), np.array(vectors, np.float32).reshape(-1, space.dimension)
        if not queries:
            return [], np.empty((0, space.dimension), np.float32)
        if not space.has_encoder:
            raise InvalidQuery(
                f"{self._directory} holds embeddings that came with its documents: it has no "
                "model that could read a question.",
                hint=f"Search with vector=, {space.dimension} numbers; or have a model encode the "
                "texts: rebuild(model=…, discard_embeddings=True).",
            )
        encoder = self._encoders().encoder_for(space)
        embedded = query_encoding.embed(encoder, queries)
        # A cross-encoder reads question and text at once, and cuts the longer one first.
        cut = "; the reranker reads the question as far as its window goes"
        notes = [
            f"{one.note}{cut}" if self._reranking and one.windows > 1 else one.note
            for one in embedded
        ]
        return notes, np.stack([one.vector for one in embedded])

    def _attempt(
        self, space: Space, embedded: NDArray[np.float32], *, patient: bool
    ) -> list[_Found] | None:
        """Search one snapshot; None means that it must be tried again on a newer one."""
        with self._pool.transaction() as connection:
            try:
                view = self._views.at(connection, patient=patient)
            except StaleView:
                return None
            if view.space != space:  # a rebuild, or another index in the place of this one
                return None
            try:
                return self._rank(view, connection, embedded)
            except SegmentDisagrees as exc:
                if not self._views.condemn(view, exc.chunk_id):
                    raise dense.disagreement(str(self._directory), exc) from None
                return None

    def _rank(
        self, view: View, connection: sqlite3.Connection, embedded: NDArray[np.float32]
    ) -> list[_Found]:
        depth = max(self._k, self._reranking.candidates) if self._reranking else self._k
        by_document = self._group is not None
        differing = Differing(view, connection, fold=self._fold, by_document=by_document)
        rankings = dense.top_k(differing.searched, connection, embedded, depth)
        rankings = [
            self._differing(differing, query, ranking, depth)
            for query, ranking in zip(embedded, rankings, strict=True)
        ]
        ranked = time.perf_counter()
        return [
            _Found(view.plan, ranked, *self._hits(view, connection, ranking, differing))
            for ranking in rankings
        ]

    def _differing(
        self, differing: Differing, query: NDArray[np.float32], ranking: Ranking, depth: int
    ) -> Ranking:
        """Return what is to be shown, or reranked, of a ranking and of what is beyond it."""
        by_document = self._group is not None
        if not self._reranking:
            return differing.best(query, ranking, self._k, by_document=by_document)
        candidates = differing.best(query, ranking, depth, by_document=False)
        if not by_document:
            return candidates
        # A reranker may prefer another chunk of a document: it sees all candidates, and the
        # best chunk of each further document where they come from too few.
        further = differing.best(query, ranking, self._k, by_document=True)
        return _joined(candidates, further)

    def _hits(
        self, view: View, connection: sqlite3.Connection, ranking: Ranking, differing: Differing
    ) -> tuple[list[Hit], list[str]]:
        """Return the hits, and the text of each as the encoder saw it."""
        chunking = Chunking.parse(view.space.chunking)
        stored = catalog.fetch_chunks(connection, ranking.ids)
        states: Mapping[FileRow | None, FileState | None] = {}
        if self._file_states is not None:
            origins = {found.file for found in stored.values() if found.file}
            states = self._file_states.of(connection, view.key.chain, origins)
        hits: list[Hit] = []
        texts: list[str] = []
        for chunk_id, score in zip(*ranking, strict=True):
            found = stored.get(chunk_id)
            if found is None:
                raise records.damaged("chunks", chunk_id, str(self._directory))
            chunk = found.chunk
            text = chunking.encoded_text(chunk)
            if checksums.text_hash(text) != found.text_hash:
                raise records.damaged("texts", chunk.document_id, str(self._directory))
            state = states.get(found.file)
            hits.append(_hit(len(hits) + 1, score, found, differing.copies(chunk_id), state))
            texts.append(text)
        return hits, texts

    def _finish(
        self,
        found: list[_Found],
        queries: Sequence[str] | None,
        notes: list[str],
        began: float,
        encoded: float,
    ) -> list[Results]:
        fetched = time.perf_counter()
        answers = [one.hits for one in found]
        if self._reranking and queries is not None:
            answers = [
                self._rerank(self._reranking, query, one)
                for query, one in zip(queries, found, strict=True)
            ]
            notes = [
                f"; reranked {len(one.hits)} by {self._reranking.name}{note}"
                for one, note in zip(found, notes, strict=True)
            ]
        ended = time.perf_counter()
        results = []
        for one, hits, note in zip(found, answers, notes, strict=True):
            timings = {
                "encode_s": encoded - began,
                "search_s": one.ranked - encoded,
                "fetch_s": fetched - one.ranked,
                **({"rerank_s": ended - fetched} if self._reranking else {}),
                "total_s": ended - began,
            }
            results.append(Results(tuple(hits), True, timings, f"{one.plan}{note}"))
        return results

    def _rerank(self, reranking: Reranking, query: str, found: _Found) -> list[Hit]:
        hits = reranking.apply(query, found.hits, found.texts)
        return (best_of_each(hits) if self._group else hits)[: self._k]


def _joined(ranking: Ranking, further: Ranking) -> Ranking:
    """Return a ranking and what another one has beyond it."""
    known = set(ranking.ids)
    beyond = [(one, score) for one, score in zip(*further, strict=True) if one not in known]
    return Ranking(
        [*ranking.ids, *(one for one, _ in beyond)], [*ranking.scores, *(s for _, s in beyond)]
    )


def _hit(
    rank: int,
    score: float,
    found: records.StoredChunk,
    copies: Copies | None,
    file_state: FileState | None,
) -> Hit:
    chunk = found.chunk
    metadata = dict(found.metadata)
    if found.title is not None:
        metadata.setdefault("title", found.title)
    return Hit(
        rank=rank,
        score=score,
        scores={"dense": score},
        document_id=chunk.document_id or "",
        chunk_id=chunk.id or 0,
        text=chunk.text,
        metadata=metadata,
        source=found.source,
        span=chunk.span,
        lines=chunk.lines,
        page=chunk.page,
        heading=chunk.heading,
        duplicates=copies.chunks if copies else 0,
        also_in=copies.document_ids if copies else (),
        file_state=file_state,
    )


def _unit_vectors(given: Sequence[Any], dimension: int) -> list[NDArray[np.float32]]:
    try:
        return [unit_vector(vector, dimension) for vector in given]
    except ValueError as exc:
        hint = f"Pass {dimension} finite numbers."
        if is_number(given[0]):
            hint = f"Pass an array (n, {dimension}) as vectors=, or one vector to search(vector=)."
        raise InvalidQuery(f"The query vector {exc}.", hint=hint) from exc


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


def _check_options(k: Any, group: Any, most: int) -> int:
    """Return k; it and `group` are usable."""
    wanted = whole(
        k, "k", least=1, error=InvalidQuery, hint="Ask for at least one hit: an integer from 1."
    )
    if wanted > most:
        raise LimitExceeded(
            f"k is {wanted:,}; the limit is {most:,}{'' if most == MAX_K else ' with rerank'}.",
            limit=most,
            value=wanted,
            option="k",
            hint="Ask for fewer hits.",
        )
    if group not in (None, "document"):
        raise InvalidQuery(f"group is {shown(group)}.", hint="It is 'document' or None.")
    return wanted

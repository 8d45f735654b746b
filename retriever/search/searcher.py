"""One search from questions to hits: encode, rank, fetch, all of one commit; then rerank."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retriever import deadlines
from retriever.config import MAX_K, SearchOptions
from retriever.encoders.loading import Encoders
from retriever.errors import IndexBusy, InvalidQuery, LimitExceeded, ModelError
from retriever.search import asking, cursors, dense, first_stage, query_encoding
from retriever.search.asking import Asked
from retriever.search.cursors import Page
from retriever.search.dense import SegmentDisagrees
from retriever.search.file_states import FileStates
from retriever.search.first_stage import FirstStage
from retriever.search.request import Request
from retriever.search.reranker_source import RerankerSource
from retriever.search.second_stage import Began, fingerprint_of, results
from retriever.search.stale import StaleView
from retriever.search.view import Views
from retriever.storage.pool import ReadPool
from retriever.storage.records import Space
from retriever.types import Results

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from retriever.search.request import Allow

_ATTEMPTS = 4


class _Encoded(NamedTuple):
    """The unit vectors to search with, None for documents, and a note on each for people."""

    vectors: list[NDArray[np.float32] | None]
    notes: list[str]


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
        asked: Sequence[Asked],
        options: SearchOptions,
        *,
        cursor: object = None,
        allow: Allow | None = None,
    ) -> list[Results]:
        """Return the results for each that is asked.

        Args:
            asked: What is searched for, all of one kind: questions, vectors or documents.
            options: What is returned.
            cursor: Where the page to return begins, if one thing is asked; None is the first page.
            allow: Given the read transaction and its view, returns the rows that may be found;
                None allows all.

        Raises:
            InvalidQuery, LimitExceeded: A vector or the cursor is unusable, what is asked cannot
                be reranked by, or the page is too far down.
            CursorExpired: The index has changed since the page before.
            DocumentNotFound: There is no such document to be like.
            SearchTimeout: The time of the search is over.
            ModelError: The encoder or the reranker fails.
            IndexBusy: The index was rebuilt again and again meanwhile.
            IndexCorrupt: A row that would have been returned is damaged.
        """
        began_at = time.perf_counter()
        has_text = all(one.text is not None for one in asked)
        if options.mode == "lexical" and any(one.vector is not None for one in asked):
            raise InvalidQuery(
                "mode is 'lexical', but a vector has no words that could be looked for.",
                hint="Pass a question as query, or leave mode out.",
            )
        reranking = self._rerankers.reranking(options, has_text=has_text)
        page = Page()
        if cursor is not None:
            page = cursors.read(cursor, fingerprint_of(asked[0], options, reranking))
            _require_reachable(page, options)
        request = Request(asked, options, reranking, page, allow)
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
                return results(request, found, encoded.notes, Began(began_at, encoded_at))
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

    def _encode(self, request: Request, space: Space) -> _Encoded:
        asked = request.asked
        if not asked or asked[0].document is not None:
            return _Encoded([None] * len(asked), [""] * len(asked))
        if not request.uses_vectors:
            return _Encoded([None] * len(asked), [one.note for one in asked])
        if not asked[0].phrasings:
            return _Encoded([*asking.vectors(asked, space.dimension)], [""] * len(asked))
        if not space.has_encoder:
            raise InvalidQuery(
                f"{self._directory} holds embeddings that came with its documents: it has no "
                "model that could read a question.",
                hint=f"Search by words, with mode='lexical', or with vector=, {space.dimension} "
                "numbers; or have a model encode the texts: rebuild(model=…, "
                "discard_embeddings=True).",
            )
        deadlines.begin("loading the model")
        encoder = self._encoders.encoder_for(space)
        deadlines.begin("encoding the question")
        texts = [phrasing.text for one in asked for phrasing in one.phrasings]
        embedded = iter(query_encoding.embed(encoder, texts))
        encoded = _Encoded([], [])
        # A cross-encoder reads question and text at once, and cuts the longer one first.
        cut = "; the reranker truncates the question to its window"
        for one in asked:
            phrasings = list(islice(embedded, len(one.phrasings)))
            encoded.vectors.append(query_encoding.mean([each.vector for each in phrasings]))
            is_cut = bool(request.reranking) and phrasings[0].windows > 1
            note = "".join(each.note for each in phrasings)
            encoded.notes.append(f"{one.note}{note}{cut if is_cut else ''}")
        return encoded

    def _first_stage(
        self,
        request: Request,
        space: Space,
        vectors: Sequence[NDArray[np.float32] | None],
        *,
        patient: bool,
    ) -> FirstStage | None:
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
                return first_stage.find(view, connection, request, vectors, self._file_states)
            except StaleView:  # of a segment for words, which is opened when it is needed
                return None
            except SegmentDisagrees as exc:
                if not self._views.condemn(view, exc.chunk_id):
                    raise dense.disagreement(str(self._directory), exc) from None
                return None


def _require_reachable(page: Page, options: SearchOptions) -> None:
    """Raise an error for a page that ends after the most hits that a search returns."""
    if (last := page.offset + options.k) > MAX_K:
        raise LimitExceeded(
            f"The page ends with hit {last:,}; the limit of a search is {MAX_K:,}.",
            limit=MAX_K,
            value=last,
            option="cursor",
            hint="Ask more precisely, so that what you look for is nearer to the top.",
        )

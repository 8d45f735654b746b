"""`Index`: searching."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from retriever import arguments, deadlines
from retriever.config import SearchOptions
from retriever.encoders.forward import blas
from retriever.errors import InvalidQuery
from retriever.index.state import IndexState
from retriever.search import asking
from retriever.search.asking import Asked
from retriever.search.reranker_source import RerankerLike
from retriever.search.vectors import limit_threads
from retriever.types import Results

# Modules that only writing and maintenance need are imported where they are called, so that a
# search on the command line does not wait for them.
if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from retriever.filters import FilterLike
    from retriever.search.request import Allow


class Searching(IndexState):
    """The methods of `Index` that search."""

    def search(
        self,
        query: str | Sequence[str] | None = None,
        *,
        k: int = 10,
        vector: ArrayLike | None = None,
        document: str | None = None,
        fuse: bool = False,
        group: Literal["document"] | None = None,
        rerank: RerankerLike | None = None,
        candidates: int = 50,
        fold: bool = True,
        operators: bool = True,
        mode: Literal["hybrid", "dense", "lexical"] = "hybrid",
        fusion: Literal["convex", "rrf"] = "convex",
        weight: float | None = None,
        min_score: float | None = None,
        cursor: str | None = None,
        timeout_s: float | None = None,
        filter: FilterLike | None = None,
        options: SearchOptions | None = None,
    ) -> Results:
        """Return the `min(k, n)` chunks that answer a question best, best first.

        The search is exact and sees every commit acknowledged before the call. Identical passages
        are one hit, which counts them, so that they do not displace others; see `fold`.

        What is best depends on `mode`: in a dense search the chunks whose embeddings are most
        similar to the question's, in a lexical search those with its words, in a hybrid search
        both. `hit.scores` has each score that was used: `dense`, the cosine; `lexical`, BM25, 0
        where no word of the question stands; `fused`, of both.

        With `rerank`, a cross-encoder reads the question together with each of the best
        `max(k, candidates)` chunks of that search, as they were encoded (with their headings, if
        the index has them), and the hits are the k with the highest scores. A hit's score is then
        the reranker's, on a scale of its own; `scores["rerank"]` is the same.

        Args:
            query: The question, of at most 100,000 characters. A question longer than the
                encoder's window is encoded in windows, and the mean of their vectors is used;
                `plan` reports this, and whether most tokens are unknown to the encoder. A quoted
                `"phrase"` must stand in a passage, `-word` and `-"a phrase"` may not, `word*` is
                any word that begins so; anything else is text. See `operators`. With `fuse`, a list
                of at most 64 phrasings.
            k: The number of hits, from 1 to 100,000, or to 1,000 with `rerank`.
            vector: An embedding to search with instead, `(dimension,)`; no model is needed.
            document: The id of a document to find others like, instead of a question: the search
                is for the mean of its vectors and for its most characteristic words, and none of
                its own chunks is a hit. No model is needed.
            fuse: Whether `query` is a list of phrasings of one question. They are answered as one:
                by the mean of their vectors, and of their BM25 scores. The operators of each hold
                for all; a reranker reads the first.
            group: `"document"` returns the best chunk of each of the k best documents. With
                `rerank` all candidates are reranked before the best chunk of each document is
                kept; if they come from fewer than k documents, the most similar chunks of further
                documents are reranked too.
            rerank: The name or path of a cross-encoder (BERT, RoBERTa, DistilBERT or MPNet family
                without any extra), a `CrossEncoder` object of sentence-transformers, or an object
                with `score(query, texts)`. It is loaded at its first use and kept. None does not
                rerank.
            candidates: The number of chunks to rerank, from 1 to 1,000.
            fold: Whether chunks with equal text and embedding are one hit, the one with the lowest
                chunk id: `hit.duplicates` counts the others and `hit.also_in` names their
                documents. Folding precedes `group` and `rerank`. With False each is a hit.
            operators: Whether quotes, stars and dashes in a question are operators. With False all
                of it is text; pass that for text that nobody typed as a question.
            mode: `"hybrid"`, `"dense"` or `"lexical"`. A lexical search needs no model, and finds
                only chunks with a word of the question, which may be fewer than k. A search by
                `vector` is dense.
            fusion: How a hybrid search makes one score of both: `"convex"`, their weighted mean,
                from 0 to 1 and comparable between questions; or `"rrf"`, reciprocal rank fusion.
            weight: The share of the embeddings in it, from 0 to 1. None is .7 for convex fusion,
                and .5 for rrf.
            min_score: The lowest `score` of a hit, on the scale of the mode, or of the reranker if
                there is one. Chunks below it do not count among the k. None sets no limit.
            cursor: `cursor` of the results of the page before, for the next k hits of the same
                search. Pages neither repeat nor leave out a hit. With `rerank` they end with the
                candidates.
            timeout_s: Seconds that the search may take, waiting and loading a model included. It
                is looked at between steps, none of which is interrupted: an encoder's batch is one.
                None sets no limit.
            filter: Which passages may be found, by metadata: a mapping, `{"year": {"$gte": 2020}}`,
                an expression, `"year >= 2020"`, or a `Filter`. Others are left out before they are
                ranked, so there are as many hits as without a filter, if as many pass. `plan` says
                how many passed, and names fields that no document has.
            options: All of them but `vector`, `document`, `fuse` and `cursor` as one object. Leave
                these parameters at their defaults then.

        Raises:
            InvalidQuery: The query is empty, or `k`, `vector`, `rerank`, `candidates`, `cursor`,
                `mode`, `fusion`, `weight` or `min_score` is invalid, or `rerank` or mode
                `"lexical"` is used without a question, or an option is given together with
                `options`.
            CursorExpired: The index has changed since the page that `cursor` is of.
            DocumentNotFound: The index has no such document.
            InvalidFilter: The filter does not follow the grammar.
            LimitExceeded: `k` is over 100,000, or it or `candidates` over 1,000 with `rerank`; or
                the filter is too large.
            ModelError: The reranker cannot be used.
            SearchTimeout: `timeout_s` is over; the index can be used as before.
            ModelMismatch, ModelUnavailable: As for `open`.
            IndexCorrupt: A row that would have been returned is damaged.
        """
        asked = _asked(query, vector, document, fuse=arguments.flag(fuse, "fuse"))
        options = _search_options(
            options,
            k=k,
            group=group,
            rerank=rerank,
            candidates=candidates,
            fold=fold,
            operators=operators,
            mode=mode,
            fusion=fusion,
            weight=weight,
            min_score=min_score,
            timeout_s=timeout_s,
            filter=filter,
        )
        return self._search([asked(options)], options, cursor)[0]

    def search_many(
        self,
        queries: Sequence[str] | None = None,
        *,
        k: int = 10,
        vectors: ArrayLike | None = None,
        group: Literal["document"] | None = None,
        rerank: RerankerLike | None = None,
        candidates: int = 50,
        fold: bool = True,
        operators: bool = True,
        mode: Literal["hybrid", "dense", "lexical"] = "hybrid",
        fusion: Literal["convex", "rrf"] = "convex",
        weight: float | None = None,
        min_score: float | None = None,
        timeout_s: float | None = None,
        filter: FilterLike | None = None,
        options: SearchOptions | None = None,
    ) -> list[Results]:
        """Search for several questions in one pass; `results[i]` answers `queries[i]`.

        Args:
            queries: The questions.
            k: The number of hits for each.
            vectors: Embeddings to search with instead, `(n, dimension)`.
            group: As for `search`.
            rerank: As for `search`.
            candidates: As for `search`, for each question.
            fold: As for `search`.
            operators: As for `search`.
            mode: As for `search`.
            fusion: As for `search`.
            weight: As for `search`.
            min_score: As for `search`.
            timeout_s: As for `search`, for all questions together.
            filter: As for `search`.
            options: As for `search`.

        Raises:
            InvalidQuery, InvalidFilter, LimitExceeded, ModelError, ModelMismatch, ModelUnavailable,
                IndexCorrupt, SearchTimeout: As `search`.
        """
        if (queries is None) == (vectors is None):
            raise asking.one_kind(queries=queries, vectors=vectors)
        options = _search_options(
            options,
            k=k,
            group=group,
            rerank=rerank,
            candidates=candidates,
            fold=fold,
            operators=operators,
            mode=mode,
            fusion=fusion,
            weight=weight,
            min_score=min_score,
            timeout_s=timeout_s,
            filter=filter,
        )
        if queries is None:
            asked = [Asked(vector=one) for one in asking.as_list(vectors, "vectors")]
        else:
            texts = [queries] if isinstance(queries, str) else asking.as_list(queries, "queries")
            asked = [asking.question(one, operators=options.operators) for one in texts]
        return self._search(asked, options)

    def _search(
        self, asked: Sequence[Asked], options: SearchOptions, cursor: object = None
    ) -> list[Results]:
        self._pool.check()
        limit_threads(self._threads)
        with deadlines.within(options.timeout_s), blas.at_most(self._threads):
            return self._searcher.search(asked, options, cursor=cursor, allow=_allow(options))


def _asked(
    query: str | Sequence[str] | None, vector: Any, document: str | None, *, fuse: bool
) -> Callable[[SearchOptions], Asked]:
    """Return what makes the search of one call, once its options are known."""
    if sum(one is not None for one in (query, vector, document)) != 1:
        raise asking.one_kind(query=query, vector=vector, document=document)
    if fuse and query is None:
        raise InvalidQuery(
            "fuse is True, but there is no query.", hint="Pass a list of phrasings as query."
        )
    if vector is not None:
        return lambda _: Asked(vector=vector)
    if document is not None:
        return lambda _: asking.document(document)
    if not fuse:
        return lambda options: asking.question(query, operators=options.operators)
    phrasings = [query] if isinstance(query, str) else asking.as_list(query, "query")
    return lambda options: asking.fused(phrasings, operators=options.operators)


def _allow(options: SearchOptions) -> Allow | None:
    if options.filter is None:
        return None
    from retriever.search import filters  # only where one is given

    return filters.allow(options.filter)


def _search_options(options: SearchOptions | None, **given: Any) -> SearchOptions:
    """Return the options that a search was given, either as one object or one by one."""
    if options is None:
        return SearchOptions(**given)
    if not isinstance(options, SearchOptions):
        raise InvalidQuery(
            f"options is {arguments.described(options)}.", hint="Pass a SearchOptions object."
        )
    for name, value in given.items():
        # A keyword with its default value cannot be distinguished from one that is not given.
        default = getattr(SearchOptions, name)
        if type(value) is not type(default) or value != default:
            raise InvalidQuery(
                f"{name} is {arguments.shown(value)}, but options is given too.",
                hint=f"Pass one of them: options=dataclasses.replace(options, {name}=…).",
            )
    return options

"""`Index`: searching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from retriever import arguments, deadlines
from retriever.config import SearchOptions
from retriever.encoders.forward import blas
from retriever.errors import InvalidQuery
from retriever.index.state import IndexState
from retriever.search import vectors
from retriever.search.reranker_source import RerankerLike
from retriever.search.searcher import as_list, query_or_vector
from retriever.types import Results

# Modules that only writing and maintenance need are imported where they are called, so that a
# search on the command line does not wait for them.
if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Searching(IndexState):
    """The methods of `Index` that search."""

    def search(
        self,
        query: str | None = None,
        *,
        k: int = 10,
        vector: ArrayLike | None = None,
        group: Literal["document"] | None = None,
        rerank: RerankerLike | None = None,
        candidates: int = 50,
        fold: bool = True,
        timeout_s: float | None = None,
        options: SearchOptions | None = None,
    ) -> Results:
        """Return the `min(k, n)` chunks most similar to a question, best first.

        The search is exact and sees every commit acknowledged before the call. Identical passages
        are one hit, which counts them, so that they do not displace others; see `fold`.

        With `rerank`, a cross-encoder reads the question together with each of the
        `max(k, candidates)` most similar chunks, as they were encoded (with their headings, if the
        index has them), and the hits are the k with the highest scores. A hit's score is then the
        reranker's, on a scale of its own; `scores` has both, `dense` and `rerank`.

        Args:
            query: The question, of at most 100,000 characters. A question longer than the
                encoder's window is encoded in windows, and the mean of their vectors is used;
                `plan` reports this, and whether most tokens are unknown to the encoder.
            k: The number of hits, from 1 to 100,000, or to 1,000 with `rerank`.
            vector: An embedding to search with instead, `(dimension,)`; no model is needed.
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
            timeout_s: Seconds that the search may take, waiting and loading a model included. It
                is looked at between steps, none of which is interrupted: an encoder's batch is one.
                None sets no limit.
            options: The options k, group, rerank, candidates, fold and timeout_s as one object.
                Leave these parameters at their defaults then.

        Raises:
            InvalidQuery: The query is empty, or `k`, `vector`, `rerank` or `candidates` is
                invalid, or `rerank` is used without a question, or an option is given together
                with `options`.
            LimitExceeded: `k` is over 100,000, or it or `candidates` over 1,000 with `rerank`.
            ModelError: The reranker cannot be used.
            SearchTimeout: `timeout_s` is over; the index can be used as before.
            ModelMismatch, ModelUnavailable: As for `open`.
            IndexCorrupt: A row that would have been returned is damaged.
        """
        if (query is None) == (vector is None):
            raise query_or_vector()
        options = _search_options(
            options,
            k=k,
            group=group,
            rerank=rerank,
            candidates=candidates,
            fold=fold,
            timeout_s=timeout_s,
        )
        texts = None if query is None else [query]
        return self._search(texts, None if vector is None else [vector], options)[0]

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
        timeout_s: float | None = None,
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
            timeout_s: As for `search`, for all questions together.
            options: As for `search`.

        Raises:
            InvalidQuery, LimitExceeded, ModelError, ModelMismatch, ModelUnavailable,
                IndexCorrupt, SearchTimeout: As `search`.
        """
        if (queries is None) == (vectors is None):
            raise query_or_vector()
        if queries is None:
            vectors = as_list(vectors, "vectors")
        else:
            queries = [queries] if isinstance(queries, str) else as_list(queries, "queries")
        options = _search_options(
            options,
            k=k,
            group=group,
            rerank=rerank,
            candidates=candidates,
            fold=fold,
            timeout_s=timeout_s,
        )
        return self._search(queries, vectors, options)

    def _search(
        self, queries: Sequence[str] | None, given: Any, options: SearchOptions
    ) -> list[Results]:
        self._pool.check()
        vectors.limit_threads(self._threads)
        with deadlines.within(options.timeout_s), blas.at_most(self._threads):
            return self._searcher.search(queries, given, options)


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

"""Evaluate an index: search for every judged query, and score the ranking of documents."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from retriever import __version__, arguments
from retriever.arguments import described, shown
from retriever.config import MAX_CANDIDATES, MAX_K, SearchOptions
from retriever.errors import InvalidConfig, InvalidEvaluation, LimitExceeded, UsageError
from retriever.evaluation import measures as ir
from retriever.evaluation.qrels import Qrels
from retriever.evaluation.read_only import read_only
from retriever.evaluation.runs import Run
from retriever.evaluation.scoring import DEFAULT_MEASURES, Evaluation, score
from retriever.index import Index
from retriever.search import query_encoding
from retriever.types import Progress, ProgressCallback, Results

DEFAULT_DEPTH = 100
"""The documents of a ranking, where no measure looks further."""

QrelsLike: TypeAlias = Qrels | Mapping[str, Mapping[str, int]] | str | os.PathLike[str]
QueriesLike: TypeAlias = Mapping[str, str] | Iterable[Any]

_BATCH = 64
_CUTOFF = re.compile(r"@(\d+)")
_ID_NAMES = ("query_id", "_id", "id")
_log = logging.getLogger("retriever")


def evaluate(
    index: Index,
    queries: QueriesLike,
    qrels: QrelsLike,
    options: SearchOptions | None = None,
    *,
    measures: Sequence[str] = DEFAULT_MEASURES,
    depth: int | None = None,
    ignore_identical_ids: bool = True,
    progress: ProgressCallback | None = None,
) -> Evaluation:
    """Search an index for every judged query, and score the documents that are found.

    A document is ranked by its best chunk, and identical documents are ranked separately: the
    search has `group="document"`, `fold=False` and `operators=False` (judged queries are text),
    whatever `options` says. Queries without a
    judgement are not searched for. A query without text gets an empty ranking, which counts as 0
    like any other, and a warning is logged.

    The evaluation's `settings` record what it was made with: the index, its model and chunking,
    the options of the search, counts and seconds.

    >>> from retriever import Document
    >>> notes = [Document("Prime the pump.", id="pump"), Document("Press in October.", id="cider")]
    >>> with Index.open("notes.index", model="all-MiniLM-L6-v2") as index:
    ...     report = index.add(notes)
    ...     found = evaluate(index, {"q": "How do I start the pump?"}, {"q": {"pump": 1}})
    >>> found.measures["nDCG@10"], found.run.ranking("q")
    (1.0, ('pump', 'cider'))

    Args:
        index: The index; the ids of its documents are those of the qrels.
        queries: The text of each query by id, or a series of pairs `(id, text)`, of dicts or of
            objects with a `text` and an `id`, `_id` or `query_id`.
        qrels: The judgements: `Qrels`, grades by document id by query id, or the path of a file.
        options: How to search, such as `SearchOptions(rerank=…)`.
        measures: Names of measures, as for `score`.
        depth: The documents of each ranking. None is the largest of 100, `options.k`, the cutoffs
            of the measures and, for `Rprec`, the number of relevant documents of a query. With a
            reranker so many passages are reranked, or `options.candidates` if that is more.
        ignore_identical_ids: Whether to leave out of a query's ranking the document that is the
            query itself, as BEIR does for ArguAna, whose queries are documents of the corpus. It is
            the document that has the query's id and contains its text, unless it is judged to be
            relevant to this query. (BEIR goes by the id alone, which removes other documents where
            queries and documents are both numbered from 1.)
        progress: Called with a `Progress` after each batch of queries.

    Raises:
        InvalidEvaluation: A measure or the depth is invalid, a judged query is missing, none of the
            judged documents is in the index, two queries have one id, or a query or judgement is
            invalid.
        InvalidConfig: `index` is not an `Index`, or an option is invalid.
        InvalidQuery, LimitExceeded, ModelError, ModelMismatch, ModelUnavailable: As
            `Index.search_many`.
        MissingDependency: ir-measures is not installed.
    """
    if not isinstance(index, Index):
        raise InvalidConfig(f"index is {described(index)}.", hint="Pass an open Index.")
    arguments.callback(progress, "progress")
    arguments.flag(ignore_identical_ids, "ignore_identical_ids")
    asked = list(ir.parse(measures))  # first, since searching may take long
    judgements = _as_qrels(qrels)
    given = _texts_by_id(queries)
    judged = _judged(given, judgements)
    wanted = _search_options(options, depth, asked, judgements)
    documents = {one for grades in judgements.values() for one in grades}
    missing = [one for one in documents if index.id_of(one) != one]
    if documents and len(missing) == len(documents):
        raise _strangers(index, min(documents), len(documents))
    began = time.monotonic()
    searching = _Searching(index, wanted, judgements, ignore_identical_ids, progress)
    rankings = searching.rankings(judged)
    search_s = time.monotonic() - began
    run = Run(rankings, name=_name_of(index, wanted))
    evaluation = score(run, judgements, asked)
    settings = {
        **described_index(index),
        "options": {
            "k": wanted.k,
            "group": wanted.group,
            "rerank": reranker_name(wanted.rerank),
            "candidates": None if wanted.rerank is None else wanted.depth,
            "fold": wanted.fold,
            **ranking_of(wanted),
        },
        "exact": searching.is_exact,
        "ignore_identical_ids": bool(ignore_identical_ids),
        "identical_ids": searching.identical,
        "queries": len(judged),
        "queries_without_text": searching.empty,
        "queries_without_judgement": len(given) - len(judged),
        "judged_documents": len(documents),
        "judged_documents_missing": len(missing),
        "search_s": round(search_s, 6),
        "retriever": __version__,
    }
    return replace(evaluation, settings=read_only(settings))


@dataclass
class _Searching:
    """The searches of one evaluation, and what is reported about them."""

    index: Index
    options: SearchOptions
    qrels: Qrels
    ignores_identical: bool
    progress: ProgressCallback | None
    is_exact: bool = True
    identical: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    def rankings(self, queries: Mapping[str, str]) -> dict[str, dict[str, float]]:
        """Return the score of each document by query id; for a query without text, none."""
        self.empty = [name for name, text in queries.items() if not text.strip()]
        if self.empty:
            _log.warning(
                "Queries without text find nothing: %d, such as %r.", len(self.empty), self.empty[0]
            )
        if self.ignores_identical:
            self.identical = [
                name for name, text in queries.items() if self._is_document(name, text)
            ]
        itself = set(self.identical)
        found: dict[str, dict[str, float]] = {name: {} for name in queries}
        asked = [name for name in queries if queries[name].strip()]
        done = len(self.empty)
        # Queries that are documents are searched one place deeper, and for themselves: with a
        # reranker the depth decides what is reranked.
        for options, names in (
            (self.options, [name for name in asked if name not in itself]),
            (_one_deeper(self.options), [name for name in asked if name in itself]),
        ):
            for start in range(0, len(names), _BATCH):
                batch = names[start : start + _BATCH]
                answers = self.index.search_many([queries[name] for name in batch], options=options)
                for name, results in zip(batch, answers, strict=True):
                    found[name] = self._ranking(results, name if name in itself else None)
                done += len(batch)
                if self.progress is not None:
                    self.progress(Progress("search", done, len(queries), "queries", item=batch[-1]))
        return found

    def _ranking(self, results: Results, left_out: str | None) -> dict[str, float]:
        self.is_exact &= results.exact
        hits = [hit for hit in results if hit.document_id != left_out]
        return {hit.document_id: hit.score for hit in hits[: self.options.k]}

    def _is_document(self, query_id: str, text: str) -> bool:
        """Return whether a query is a document of the index, and no answer to itself."""
        is_answer = self.qrels[query_id].get(query_id, 0) > 0
        if is_answer or not text.strip() or self.index.id_of(query_id) != query_id:
            return False
        document = self.index.get(query_id)
        return document is not None and _plain(text) in _plain(document.text)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _one_deeper(options: SearchOptions) -> SearchOptions:
    most = MAX_K if options.rerank is None else MAX_CANDIDATES
    return replace(options, k=min(options.k + 1, most))


# --- arguments ------------------------------------------------------------------------------------


def _texts_by_id(queries: QueriesLike) -> dict[str, str]:
    """Return the text of each query by id, from any of the forms that `evaluate` accepts.

    Raises:
        InvalidEvaluation: An entry has another form, or two queries have one id.
    """
    hint = "Pass a dict of texts by id, pairs (id, text), or objects with an id and a text."
    if isinstance(queries, str | bytes) or not isinstance(queries, Iterable):
        raise InvalidEvaluation(f"queries is {described(queries)}.", hint=hint)
    pairs = queries.items() if isinstance(queries, Mapping) else map(_pair, queries)
    read: dict[str, str] = {}
    for query_id, text in pairs:
        if not isinstance(query_id, str) or not query_id:
            raise InvalidEvaluation(f"The id of a query is {described(query_id)}.", hint=hint)
        if not isinstance(text, str):
            raise InvalidEvaluation(
                f"The text of the query {query_id!r} is {described(text)}.", hint=hint
            )
        if query_id in read:
            raise InvalidEvaluation(
                f"Two queries have the id {query_id!r}.", hint="Give each its own id."
            )
        read[query_id] = text
    return read


def _pair(query: Any) -> tuple[Any, Any]:
    """Return the id and the text of one query of a series; None for what it lacks."""
    if isinstance(query, tuple | list) and len(query) == 2 and not hasattr(query, "_fields"):
        return query[0], query[1]
    if isinstance(query, Mapping):
        return next((query[name] for name in _ID_NAMES if name in query), None), query.get("text")
    found = (getattr(query, name) for name in _ID_NAMES if hasattr(query, name))
    return next(found, None), getattr(query, "text", None)


def _as_qrels(qrels: QrelsLike) -> Qrels:
    if isinstance(qrels, Qrels):
        return qrels
    return Qrels.read(qrels) if isinstance(qrels, str | os.PathLike) else Qrels(qrels)


def _judged(queries: Mapping[str, str], qrels: Qrels) -> dict[str, str]:
    """Return the judged queries, in the order of the queries.

    Raises:
        InvalidEvaluation: There is none, one is missing, or one cannot be searched for.
    """
    missing = [name for name in qrels if name not in queries]
    if missing or not qrels:
        what = f"The qrels {qrels.name} judge no query."
        if missing:
            more = f", and {len(missing) - 1:,} more" if len(missing) > 1 else ""
            what = f"The query {missing[0]!r} is judged in {qrels.name} but not given{more}."
        raise InvalidEvaluation(
            what,
            hint="Pass every judged query, or the judgements of those that you pass: "
            "Qrels({id: qrels[id] for id in queries}).",
        )
    judged = {name: text for name, text in queries.items() if name in qrels}
    for name, text in judged.items():
        try:
            if text.strip():
                query_encoding.check(text)
        except UsageError as exc:
            raise InvalidEvaluation(f"Query {name!r}: {exc.message}", hint=exc.hint) from exc
    return judged


def _search_options(
    options: SearchOptions | None, depth: int | None, measures: Sequence[str], qrels: Qrels
) -> SearchOptions:
    """Return the options of the search: k documents each, none folded."""
    given = arguments.instance(options, "options", SearchOptions) or SearchOptions()
    if depth is None:
        depth = max(given.k, needed_depth(measures, qrels))
    depth = arguments.whole(
        depth, "depth", least=1, error=InvalidEvaluation, hint="It is a number of documents."
    )
    most = MAX_K if given.rerank is None else MAX_CANDIDATES
    if depth > most:
        raise LimitExceeded(
            f"A ranking would have {depth:,} documents; the limit is {most:,}"
            f"{'' if most == MAX_K else ' with a reranker'}.",
            limit=most,
            value=depth,
            option="depth",
            hint="Pass a smaller depth, or measures that look less far than "
            f"{', '.join(measures)}.",
        )
    return replace(given, k=depth, group="document", fold=False, operators=False)


def needed_depth(measures: Sequence[str], qrels: Qrels) -> int:
    """Return how many documents of a ranking the measures need, 100 at least.

    Args:
        measures: Canonical names, such as `nDCG@10`, `R@1000` and `Rprec`.
        qrels: The judgements; R-precision looks at as many documents as are relevant.
    """
    cutoffs = (int(cut) for name in measures for cut in _CUTOFF.findall(name))
    depth = max([DEFAULT_DEPTH, *cutoffs])
    if any(name.startswith("Rprec") for name in measures):
        relevant = (sum(grade > 0 for grade in grades.values()) for grades in qrels.values())
        depth = max([depth, *relevant])
    return depth


# --- settings -------------------------------------------------------------------------------------


def _strangers(index: Index, example: str, count: int) -> InvalidEvaluation:
    own = next(iter(index.documents(embeddings=False)), None)
    holds = "which is empty" if own is None else f"whose ids are such as {shown(own.id)}"
    return InvalidEvaluation(
        f"None of the judged documents ({count:,}, such as {example!r}) is in the index "
        f"{index.path}, {holds}.",
        hint="Evaluate an index of the documents that were judged, under the ids of the qrels.",
    )


def _name_of(index: Index, options: SearchOptions) -> str:
    name = index.path.name.removesuffix(".index").lstrip(".") or "index"
    return name if options.rerank is None else f"{name}+{reranker_name(options.rerank)}"


def ranking_of(options: SearchOptions) -> dict[str, Any]:
    """Return the options that say what ranks; those that do not count are None."""
    is_hybrid = options.mode == "hybrid"
    return {
        "mode": options.mode,
        "fusion": options.fusion if is_hybrid else None,
        "weight": options.share if is_hybrid else None,
    }


def reranker_name(reranker: Any) -> str | None:
    """Return the name of a reranker for people: of a path, its last part; None for None."""
    if reranker is None:
        return None
    if isinstance(reranker, str | os.PathLike):
        return os.path.basename(os.fspath(reranker).rstrip("/")) or os.fspath(reranker)  # noqa: PTH119
    return str(getattr(reranker, "name", type(reranker).__name__))


def described_index(index: Index) -> dict[str, Any]:
    """Return what an index was made with, and how large it is."""
    status = index.status()
    return {
        "index": str(status.path),
        "seq": status.seq,
        "documents": status.documents,
        "chunks": status.chunks,
        "model": dict(status.model),
        "precisions": dict(status.precisions),
        "chunking": status.chunking.to_dict(),
        "truncated_tokens": status.tokens.truncated,
    }

"""From the first stage's answers to results: reranked, cut to the page, with what was done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, NamedTuple

from retriever import deadlines
from retriever.search import cursors
from retriever.search.asking import Asked
from retriever.search.first_stage import FirstStage
from retriever.search.hits import Answer
from retriever.search.rerank import Reranking, best_of_each
from retriever.types import Hit, Results

if TYPE_CHECKING:
    from retriever.config import SearchOptions
    from retriever.search.request import Request


class Began(NamedTuple):
    """When the steps before the first stage were over, by `time.perf_counter`."""

    search: float
    ranking: float


def results(
    request: Request, found: FirstStage, notes: Sequence[str], began: Began
) -> list[Results]:
    """Return the results of a first stage, reranked where the request says so.

    Args:
        request: What was asked.
        found: The first stage's answers.
        notes: For each of them what the plan says of how it was encoded.
        began: For the timings.

    Raises:
        ModelError: The reranker fails.
    """
    fetched_at = time.perf_counter()
    reranking, shown = request.reranking, request.shown
    if reranking is None:
        answers = [answer.hits for answer in found.answers]
        are_more = [
            len(answer) == request.options.k and shown.stop < allowed
            for answer, allowed in zip(answers, found.allowed, strict=True)
        ]
    else:
        deadlines.begin("reranking")
        reranked = [
            _reranked(reranking, asked.text or "", answer, request.options)
            for asked, answer in zip(request.asked, found.answers, strict=True)
        ]
        answers = [answer[shown] for answer in reranked]
        are_more = [len(answer) > shown.stop for answer in reranked]
        notes = [
            f"{note}; reranked {len(answer.hits)} by {reranking.name}"
            for answer, note in zip(found.answers, notes, strict=True)
        ]
    ended_at = time.perf_counter()
    timings = {
        "encode_s": began.ranking - began.search,
        "search_s": found.ranked_at - began.ranking,
        "fetch_s": fetched_at - found.ranked_at,
        **({"rerank_s": ended_at - fetched_at} if reranking else {}),
        "total_s": ended_at - began.search,
    }
    return [
        Results(
            tuple(answer),
            found.is_exact,
            dict(timings),
            f"{plan}{note}",
            cursors.write(found.key, fingerprint(asked, request), shown.stop) if more else None,
            confidence,
        )
        for asked, answer, plan, note, more, confidence in zip(
            request.asked, answers, found.plans, notes, are_more, found.confidences, strict=True
        )
    ]


def fingerprint(asked: Asked, request: Request) -> bytes:
    """Return what tells a search from others: what is asked, and all but its time."""
    return fingerprint_of(asked, request.options, request.reranking)


def fingerprint_of(asked: Asked, options: SearchOptions, reranking: Reranking | None) -> bytes:
    """Return the fingerprint of a search for cursors."""
    chosen = {
        option.name: getattr(options, option.name)
        for option in fields(options)
        if option.name not in ("timeout_s", "rerank")
    }
    named = reranking.name if reranking else None
    return cursors.fingerprint([*asked.identity, sorted(chosen.items()), named])


def _reranked(
    reranking: Reranking, query: str, answer: Answer, options: SearchOptions
) -> list[Hit]:
    reranked = reranking.apply(query, answer.hits, answer.texts)
    if (least := options.min_score) is not None:
        reranked = [hit for hit in reranked if hit.score >= least]
    return best_of_each(reranked) if options.group else reranked

"""Rank chunks by exact cosine, and score what each question finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retriever.evaluation import scoring
from retriever.evaluation.qrels import Qrels
from retriever.evaluation.runs import Run
from retriever.evaluation.spans import Passage, span_scores

if TYPE_CHECKING:
    from .sources import Question, Source
    from .systems import Cut, System
    from .vectors import Vectors

BUDGETS = (1_000, 2_000, 4_000, 8_000)
RECALL = tuple(f"recall@{budget}" for budget in BUDGETS)
NDCG = "nDCG@10"
_DEPTH = 20  # documents of a run; more than nDCG@10 reads
_TOGETHER = 128  # questions whose scores are in memory at once


@dataclass
class Scores:
    """What a system finds of a collection, question by question.

    Attributes:
        system: Its name.
        chunks: How many it makes.
        tokens: How many the encoder reads, those beyond its window left out.
        beyond: How many are beyond its window, in no embedding.
        cut_seconds: How long cutting took.
        lost: Chunks whose text is not in the document.
        values: By measure, one number for each question.
    """

    system: str
    chunks: int
    tokens: int
    beyond: int
    cut_seconds: float
    lost: int
    values: dict[str, NDArray[np.float64]]


def score(system: System, source: Source, vectors: Vectors) -> Scores:
    """Cut, encode and rank a collection, and score its questions."""
    cut = system.cut(source.documents, vectors)
    chunks = vectors.of_ids(cut.ids)
    questions = vectors.of_texts([question.text for question in source.questions])
    ranking = _Ranking(source, cut)
    values: dict[str, list[float]] = {}
    run: dict[str, dict[str, float]] = {}
    for start in range(0, len(questions), _TOGETHER):
        cosines = questions[start : start + _TOGETHER] @ chunks.T
        for question, row in zip(source.questions[start:], cosines, strict=False):
            run[question.id] = ranking.documents(row)
            for name, value in ranking.spans(question, row).items():
                values.setdefault(name, []).append(value)
    qrels = Qrels({question.id: question.relevant for question in source.questions})
    per_query = scoring.score(Run(run), qrels, [NDCG]).per_query[NDCG]
    values[NDCG] = [per_query[question.id] for question in source.questions]
    lengths = np.array([len(ids) for ids in cut.ids])
    read = np.minimum(lengths, vectors.encoder.max_tokens)
    return Scores(
        system=system.name,
        chunks=len(cut),
        tokens=int(read.sum()),
        beyond=int((lengths - read).sum()),
        cut_seconds=cut.seconds,
        lost=cut.lost,
        values={name: np.array(column) for name, column in values.items()},
    )


class _Ranking:
    """The chunks of a collection, ranked by one question's cosines at a time."""

    def __init__(self, source: Source, cut: Cut) -> None:
        self._ids = [document.id or "" for document in source.documents]
        self._documents = np.array(cut.documents)
        self._passages = [
            Passage(self._ids[document], start, end)
            for document, start, end in zip(cut.documents, cut.starts, cut.ends, strict=True)
        ]
        self._lengths = np.array(cut.ends) - np.array(cut.starts)

    def documents(self, row: NDArray[np.float32]) -> dict[str, float]:
        """Return the first documents, each with the cosine of its best chunk."""
        scores = np.full(len(self._ids), -np.inf, np.float32)
        np.maximum.at(scores, self._documents, row)
        first = np.argsort(-scores, kind="stable")[:_DEPTH]
        return {self._ids[n]: float(scores[n]) for n in first if np.isfinite(scores[n])}

    def spans(self, question: Question, row: NDArray[np.float32]) -> dict[str, float]:
        """Return how much of the marked answers is in the first chunks, by measure and budget."""
        if question.marked is None:
            return {}
        ranked = [self._passages[n] for n in best(row, self._lengths, BUDGETS[-1])]
        found = span_scores(ranked, question.marked, BUDGETS)
        return {
            f"{name}@{budget}": value
            for budget, one in zip(BUDGETS, found, strict=True)
            for name, value in one._asdict().items()
        }


def best(
    row: NDArray[np.float32], lengths: NDArray[np.int64], characters: int
) -> NDArray[np.int64]:
    """Return the best chunks that together have so many characters, best first; ties in order."""
    count = 64
    while True:
        count = min(count, len(row))
        least = np.partition(row, len(row) - count)[len(row) - count]
        few = np.flatnonzero(row >= least)
        order = few[np.argsort(-row[few], kind="stable")]
        total = np.cumsum(lengths[order])
        if count == len(row) or total[-1] >= characters:
            return order[: int(np.searchsorted(total, characters)) + 1]
        count *= 4

"""Measures retrieval: judgements, runs, measures, and what their differences mean.

>>> from retriever.evaluation import Qrels, Run, score
>>> qrels = Qrels({"pump": {"manual.md": 2, "news.md": 0}, "cider": {"press.md": 1}})
>>> run = Run({"pump": {"manual.md": 0.7, "news.md": 0.9}})
>>> dict(score(run, qrels, ["RR@10", "P@1"]).measures)
{'RR@10': 0.25, 'P@1': 0.0}

The vocabulary is that of ir-measures, and so are the measures: queries, documents and runs are as
in TREC. Importing this package imports nothing heavy; each name is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retriever.lazy import loader

if TYPE_CHECKING:
    from retriever.evaluation.adding import add_collection
    from retriever.evaluation.beir import Collection
    from retriever.evaluation.comparison import Comparison, Difference, QueryScores, compare
    from retriever.evaluation.comparison_report import to_markdown
    from retriever.evaluation.evaluating import evaluate
    from retriever.evaluation.plots import plot
    from retriever.evaluation.qrels import Qrels
    from retriever.evaluation.queries import read_queries
    from retriever.evaluation.runs import Run
    from retriever.evaluation.scoring import DEFAULT_MEASURES, Evaluation, score
    from retriever.evaluation.span_evaluation import SpanEvaluation, evaluate_spans
    from retriever.evaluation.span_files import read_span_questions
    from retriever.evaluation.spans import (
        Passage,
        Reference,
        SpanQuestion,
        SpanScores,
        span_scores,
    )

_HOMES = {
    "retriever.evaluation.adding": ("add_collection",),
    "retriever.evaluation.beir": ("Collection",),
    "retriever.evaluation.evaluating": ("evaluate",),
    "retriever.evaluation.comparison": ("Comparison", "Difference", "QueryScores", "compare"),
    "retriever.evaluation.comparison_report": ("to_markdown",),
    "retriever.evaluation.plots": ("plot",),
    "retriever.evaluation.qrels": ("Qrels",),
    "retriever.evaluation.queries": ("read_queries",),
    "retriever.evaluation.runs": ("Run",),
    "retriever.evaluation.scoring": ("DEFAULT_MEASURES", "Evaluation", "score"),
    "retriever.evaluation.span_evaluation": ("SpanEvaluation", "evaluate_spans"),
    "retriever.evaluation.span_files": ("read_span_questions",),
    "retriever.evaluation.spans": (
        "Passage",
        "Reference",
        "SpanQuestion",
        "SpanScores",
        "span_scores",
    ),
}
__getattr__ = loader(__name__, _HOMES)

__all__ = [
    "DEFAULT_MEASURES",
    "Collection",
    "Comparison",
    "Difference",
    "Evaluation",
    "Passage",
    "Qrels",
    "QueryScores",
    "Reference",
    "Run",
    "SpanEvaluation",
    "SpanQuestion",
    "SpanScores",
    "add_collection",
    "compare",
    "evaluate",
    "evaluate_spans",
    "plot",
    "read_queries",
    "read_span_questions",
    "score",
    "span_scores",
    "to_markdown",
]


def __dir__() -> list[str]:
    return __all__

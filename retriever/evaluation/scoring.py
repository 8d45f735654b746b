"""Scores a run against qrels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from retriever import arguments
from retriever.errors import InvalidEvaluation
from retriever.evaluation import measures as ir
from retriever.evaluation import statistics
from retriever.evaluation.qrels import Qrels
from retriever.evaluation.read_only import ReadOnlyMappings, plain, read_only
from retriever.evaluation.runs import Run

_T = TypeVar("_T")

DEFAULT_MEASURES = ("nDCG@10", "AP", "RR@10", "R@100", "P@10", "Success@10", "Rprec", "Judged@10")
"""What is measured unless measures are named, in the vocabulary of ir-measures."""


@dataclass(frozen=True, eq=False)
class Evaluation(ReadOnlyMappings):
    """How well a run answers the queries of qrels.

    Attributes:
        run: The run.
        qrels: The judgements.
        measures: The mean of each measure over the queries of the qrels, unrounded, by its name in
            ir-measures.
        per_query: The value for each query, by measure and by query id; every query of the qrels
            is there.
        settings: What the run was made with, for reports; empty for a run that was read.
    """

    run: Run
    qrels: Qrels
    measures: Mapping[str, float]
    per_query: Mapping[str, Mapping[str, float]]
    settings: Mapping[str, Any] = field(default_factory=lambda: read_only({}))

    @cached_property
    def intervals(self) -> Mapping[str, tuple[float, float]]:
        """The 95 % bootstrap interval of each mean; computed when it is first asked for."""
        table = np.array([list(values.values()) for values in self.per_query.values()]).T
        ends = statistics.intervals(table)
        times = [len(self.qrels) if ir.is_total(name) else 1 for name in self.measures]
        ends *= np.array(times)[:, None]
        found: Mapping[str, tuple[float, float]] = read_only(
            {name: (float(a), float(b)) for name, (a, b) in zip(self.measures, ends, strict=True)}
        )
        return found

    @property
    def missing(self) -> tuple[str, ...]:
        """The queries of the qrels for which the run has no documents; they count as zero."""
        return tuple(query for query in self.qrels if not self.run.get(query))

    @property
    def ignored(self) -> tuple[str, ...]:
        """The queries of the run that are not in the qrels; they do not count."""
        return tuple(query for query in self.run if query not in self.qrels)

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as a JSON object: measures, intervals, counts of queries."""
        answer: dict[str, Any] = {
            "measures": dict(self.measures),
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            "queries": len(self.qrels),
            "missing_queries": len(self.missing),
            "ignored_queries": len(self.ignored),
        }
        return {**answer, "settings": plain(self.settings)} if self.settings else answer


def score(run: Run, qrels: Qrels, measures: Sequence[str] = DEFAULT_MEASURES) -> Evaluation:
    """Measure a run by trec_eval's rules.

    A measure is averaged over the queries of the qrels, as with trec_eval's option `-c`; counts
    such as NumRet are added up. A query without results counts as zero, and so does one without
    relevant documents; queries of the run that are not in the qrels are left out. Documents without
    a judgement are not relevant. The order is that of `Run.ranking`.

    Args:
        run: What was found.
        qrels: The judgements.
        measures: Names of measures, in ir-measures' vocabulary or trec_eval's, or the measures of
            ir-measures themselves.

    Raises:
        InvalidEvaluation: A measure is unknown or its options are wrong, the run shares no query
            with the qrels, or one of them is something else.
        MissingDependency: The extra `eval` is not installed.
    """
    run, qrels = _checked(run, Run, "run"), _checked(qrels, Qrels, "qrels")
    asked = ir.parse(measures)
    if not any(query in qrels for query in run):
        raise InvalidEvaluation(
            f"The run {run.name!r} and the qrels {qrels.name!r} share no query: the run has "
            f"{_examples(run)}, the qrels have {_examples(qrels)}.",
            hint="Pass the qrels of the queries that the run answers.",
        )
    found = ir.by_query(asked, qrels, run)
    sums = {name: math.fsum(values.values()) for name, values in found.items()}
    means = {name: s if ir.is_total(name) else s / len(qrels) for name, s in sums.items()}
    return Evaluation(run, qrels, read_only(means), read_only(found))


def _checked(given: Any, kind: type[_T], name: str) -> _T:
    if isinstance(given, kind):
        return given
    raise InvalidEvaluation(
        f"{name} is {arguments.described(given)}, and not a {kind.__name__}.",
        hint=f"Pass a retriever.evaluation.{kind.__name__}; it is made of a file or a mapping.",
    )


def _examples(ids: Mapping[str, Any]) -> str:
    shown = [repr(one) for one, _ in zip(ids, range(3), strict=False)]
    return ", ".join(shown) + (", …" if len(ids) > len(shown) else "") or "none"

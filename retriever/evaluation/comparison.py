"""Compares runs over the same queries: differences, whether chance explains them, and where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from retriever import arguments
from retriever.errors import InvalidEvaluation
from retriever.evaluation import measures as ir
from retriever.evaluation import statistics
from retriever.evaluation.read_only import ReadOnlyMappings, read_only

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retriever.evaluation.scoring import Evaluation

    Floats: TypeAlias = NDArray[np.float64]

LEVEL = 0.05
"""The corrected p-value up to which a difference is called significant."""

NO_DIFFERENCE = "no significant difference"
# Scores of one query that differ by less are ties: the same sums in another order.
_TIE = 1e-12


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better one run is than another by one measure.

    Attributes:
        measure: The name of the measure.
        run: The name of the run.
        baseline: The name of the run that it is compared with.
        difference: The mean of `run` minus the mean of `baseline`, unrounded; for a count such as
            NumRet, the difference of the totals.
        interval: The 95 % bootstrap interval of the difference; not corrected.
        p: The two-sided p-value of a paired randomisation test.
        p_corrected: The p-value corrected, by Holm's procedure, for all comparisons made together.
        wins: The number of queries for which `run` is better.
        ties: The number of queries for which both have the same score.
        losses: The number of queries for which `baseline` is better.
        detectable: The true difference that this many queries would have shown in four of five
            experiments, corrected for the number of comparisons: a lack of significance says
            little about differences below it. Infinite if so few queries cannot show any.
    """

    measure: str
    run: str
    baseline: str
    difference: float
    interval: tuple[float, float]
    p: float
    p_corrected: float
    wins: int
    ties: int
    losses: int
    detectable: float

    @property
    def is_significant(self) -> bool:
        """Return whether the corrected p-value is at most `LEVEL`."""
        return self.p_corrected <= LEVEL

    @property
    def verdict(self) -> str:
        """Return `better` or `worse`, of `run`, or `no significant difference`."""
        if not self.is_significant:
            return NO_DIFFERENCE
        return "better" if self.difference > 0 else "worse"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and the verdict as a JSON object; an infinite number is None."""
        detectable = self.detectable if np.isfinite(self.detectable) else None
        ends = list(self.interval)
        return {
            **asdict(self),
            "interval": ends,
            "detectable": detectable,
            "verdict": self.verdict,
        }


class QueryScores(NamedTuple):
    """The scores of one query by the name of the run."""

    query_id: str
    scores: Mapping[str, float]

    @property
    def mean(self) -> float:
        """Return the mean over the runs."""
        return sum(self.scores.values()) / len(self.scores)

    @property
    def spread(self) -> float:
        """Return the difference between the best and the worst run."""
        return max(self.scores.values()) - min(self.scores.values())


@dataclass(frozen=True)
class Comparison(ReadOnlyMappings):
    """Several runs over the queries of the same qrels; made by `compare`.

    Attributes:
        evaluations: What was compared, by the name of the run, in the order given.
        measures: The names of the measures, in the order given.
        baseline: The name of the run that the others were compared with; None if all were compared
            with each other.
        differences: By measure, then in the order of the runs.
    """

    evaluations: Mapping[str, Evaluation] = field(repr=False)
    measures: tuple[str, ...]
    baseline: str | None
    differences: tuple[Difference, ...]

    @property
    def runs(self) -> tuple[str, ...]:
        """The names of the runs, in the order given."""
        return tuple(self.evaluations)

    @cached_property
    def queries(self) -> tuple[str, ...]:
        """The ids of the queries, in the order of the qrels."""
        return tuple(next(iter(self.evaluations.values())).qrels)

    def of(self, measure: str) -> tuple[Difference, ...]:
        """Return the differences by one measure."""
        return tuple(one for one in self.differences if one.measure == measure)

    def scores(self, measure: str) -> Floats:
        """Return the scores by one measure, shape (queries, runs), in the order of both."""
        columns = [_column(one, measure, self.queries) for one in self.evaluations.values()]
        return np.stack(columns, axis=1)

    def per_query(self, measure: str) -> tuple[QueryScores, ...]:
        """Return the scores of every query by one measure, in the order of the qrels.

        Raises:
            InvalidEvaluation: The runs were not compared by it.
        """
        if measure not in self.measures:
            raise InvalidEvaluation(
                f"The runs were not compared by {arguments.shown(measure)}.",
                hint=f"Pass one of these: {', '.join(self.measures)}.",
            )
        rows = self.scores(measure).tolist()
        return tuple(
            QueryScores(query, dict(zip(self.runs, row, strict=True)))
            for query, row in zip(self.queries, rows, strict=True)
        )

    def hardest(self, count: int, measure: str | None = None) -> tuple[QueryScores, ...]:
        """Return the queries with the lowest mean over the runs, lowest first.

        Args:
            count: The most queries.
            measure: The name of one of the measures; the first if left out.
        """
        ranked = sorted(self.per_query(measure or self.measures[0]), key=lambda one: one.mean)
        return tuple(ranked[:count])

    def most_different(self, count: int, measure: str | None = None) -> tuple[QueryScores, ...]:
        """Return the queries whose best and worst run differ most, most different first.

        Args:
            count: The most queries; those with the same score in every run are not among them.
            measure: The name of one of the measures; the first if left out.
        """
        moved = [one for one in self.per_query(measure or self.measures[0]) if one.spread > _TIE]
        return tuple(sorted(moved, key=lambda one: -one.spread)[:count])

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as a JSON object, without the scores of each query."""
        return {
            "runs": [
                {
                    "run": name,
                    "measures": {measure: one.measures[measure] for measure in self.measures},
                    "intervals": {
                        measure: list(one.intervals[measure]) for measure in self.measures
                    },
                    "missing_queries": len(one.missing),
                }
                for name, one in self.evaluations.items()
            ],
            "baseline": self.baseline,
            "queries": len(self.queries),
            "level": LEVEL,
            "differences": [one.to_dict() for one in self.differences],
        }


def compare(
    evaluations: Sequence[Evaluation],
    *,
    names: Sequence[str] | None = None,
    baseline: str | None = None,
    measures: Sequence[str] | None = None,
    seed: int = statistics.SEED,
) -> Comparison:
    """Compare runs by the measures of their evaluations, query by query.

    Every two runs are compared, the later with the earlier; or, with a baseline, every other run
    with it. All the comparisons, of every measure, are corrected together: each measure and each
    run that is added makes the others harder to find significant, so name what is in question.

    Args:
        evaluations: Two or more, of the same qrels, scored by the same measures.
        names: What to call the runs, in the same order; the names of the runs if left out.
        baseline: The name of one of them.
        measures: The names of some of their measures, as for `score`; the first if left out.
        seed: The seed of the bootstrap and of the test.

    Raises:
        InvalidEvaluation: There are fewer than two evaluations, or two of one name or object;
            their qrels differ; `baseline` is not the name of one; a measure was not scored; an
            argument is of another type.
    """
    evaluations = _evaluations(evaluations)
    runs = _named(evaluations, names)
    if baseline is not None and baseline not in runs:
        raise InvalidEvaluation(
            f"The baseline {arguments.shown(baseline)} is not one of the runs.",
            hint=f"Pass one of these: {', '.join(map(repr, runs))}.",
        )
    wanted = _measures(runs, measures)
    if baseline is None:
        pairs = [(later, earlier) for earlier, later in combinations(runs, 2)]
    else:
        pairs = [(name, baseline) for name in runs if name != baseline]
    compared = [(measure, name, of) for measure in wanted for name, of in pairs]
    queries = tuple(evaluations[0].qrels)
    columns = {
        (measure, name): _column(one, measure, queries)
        for measure in wanted
        for name, one in runs.items()
    }
    table = np.stack(
        [columns[measure, name] - columns[measure, of] for measure, name, of in compared], axis=1
    )
    table[np.abs(table) < _TIE] = 0.0
    return Comparison(read_only(runs), wanted, baseline, tuple(_differences(compared, table, seed)))


def _differences(
    compared: Sequence[tuple[str, str, str]], table: Floats, seed: int
) -> list[Difference]:
    ends = statistics.intervals(table, seed=seed)
    p_values = statistics.randomisation_tests(table, seed=seed)
    corrected = statistics.holm(p_values)
    level = LEVEL / len(compared)
    # Counts such as NumRet are added up in evaluations, and so are their differences.
    times = [len(table) if ir.is_total(measure) else 1 for measure, _, _ in compared]
    return [
        Difference(
            measure,
            run,
            baseline,
            float(values.mean()) * times[number],
            (float(ends[number, 0]) * times[number], float(ends[number, 1]) * times[number]),
            float(p_values[number]),
            float(corrected[number]),
            wins=int(np.count_nonzero(values > 0)),
            ties=int(np.count_nonzero(values == 0)),
            losses=int(np.count_nonzero(values < 0)),
            detectable=statistics.detectable_difference(values, level=level) * times[number],
        )
        for number, ((measure, run, baseline), values) in enumerate(
            zip(compared, table.T, strict=True)
        )
    ]


def _column(evaluation: Evaluation, measure: str, queries: Sequence[str]) -> Floats:
    scores = evaluation.per_query[measure]
    return np.array([scores[query] for query in queries], dtype=np.float64)


# --- arguments -------------------------------------------------------------------------------


def _evaluations(given: object) -> list[Evaluation]:
    from retriever.evaluation.scoring import Evaluation

    listed: list[Any] = list(given) if isinstance(given, Iterable) else [given]
    wrong = [one for one in listed if not isinstance(one, Evaluation)]
    if wrong:
        raise InvalidEvaluation(
            f"An evaluation is {arguments.described(wrong[0])}.",
            hint="Pass a list of what `score` or `evaluate` returned.",
        )
    return listed


def _named(evaluations: Sequence[Evaluation], names: Sequence[str] | None) -> dict[str, Evaluation]:
    if len(evaluations) < 2:
        raise InvalidEvaluation(
            f"There is {'one run' if evaluations else 'no run'}, and a comparison needs two.",
            hint="Pass the evaluation of another run over the same qrels.",
        )
    called = [one.run.name for one in evaluations] if names is None else list(names)
    if isinstance(names, str) or not all(isinstance(name, str) for name in called):
        raise InvalidEvaluation(
            f"names is {arguments.shown(names)}.", hint="Pass a list of strings."
        )
    if len(called) != len(evaluations):
        raise InvalidEvaluation(
            f"There are {len(called)} names for {len(evaluations)} evaluations.",
            hint="Pass one name for each evaluation.",
        )
    runs = dict(zip(called, evaluations, strict=True))
    if len(runs) < len(called):
        twice = next(name for name in called if called.count(name) > 1)
        raise InvalidEvaluation(
            f"Two runs are called {twice!r}.", hint="Pass `names=`, one for each evaluation."
        )
    for name, one in runs.items():
        if one.qrels != evaluations[0].qrels:
            raise InvalidEvaluation(
                f"The runs {called[0]!r} and {name!r} were scored against different qrels.",
                hint="Score both against the same qrels: only then are their queries paired.",
            )
    return runs


def _measures(runs: Mapping[str, Evaluation], measures: Sequence[str] | None) -> tuple[str, ...]:
    first = next(iter(runs.values()))
    if measures is None:
        measures = [*first.measures][:1]
    if not measures:
        raise InvalidEvaluation("There is no measure to compare by.", hint="Name one or more.")
    wanted = tuple(ir.parse(measures))
    for name, one in runs.items():
        lacking = [measure for measure in wanted if measure not in one.per_query]
        if lacking:
            raise InvalidEvaluation(
                f"The run {name!r} was not scored by {lacking[0]!r}.",
                hint=f"Score it by that too, or pass some of: {', '.join(one.measures)}.",
            )
    return wanted

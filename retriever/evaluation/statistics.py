"""Bootstrap intervals, a randomisation test and its correction, for means over queries.

Every function takes float arrays of one row per query, or of one value per query, and is
deterministic: the same values and seed give the same answer. The unit that is sampled is the query,
so an interval says what other queries of the same kind may give, not what other documents may. If
several queries are about one document, they are not independent, and the document is sampled.

Sources: B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap, 1993, chapter 14 (BCa
intervals); A. C. Davison and D. V. Hinkley, Bootstrap Methods and their Application, 1997, 3.8
(clusters); M. D. Smucker, J. Allan and B. Carterette, A Comparison of Statistical Significance
Tests for Information Retrieval Evaluation, CIKM 2007 (the randomisation test); S. Holm, A Simple
Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6, 1979.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from retriever import arguments
from retriever.encoders.forward import blas
from retriever.errors import InvalidEvaluation

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats: TypeAlias = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 10_000
PERMUTATIONS = 100_000
SEED = 13

# Resampled values held at once: 8 MiB for each array of a block, whatever the number of queries.
_BLOCK = 2**20
# Sums of the same values in another order differ by rounding; they count as equal.
_ROUNDING = 1e-11
# Blocks are small, and on a busy machine OpenBLAS's threads wait for each other ten times as long
# as one thread computes.
_THREADS = 1
_NORMAL = NormalDist()


def interval(
    values: ArrayLike,
    *,
    confidence: float = CONFIDENCE,
    samples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[float, float]:
    """Return the bootstrap interval of the mean of one value per query.

    For several measures of the same queries, `intervals` draws the samples once.

    Args:
        values: One value per query, shape (queries,).
        confidence: The share of intervals that hold the true mean, such as 0.95.
        samples: How many bootstrap samples to draw.
        seed: The seed of the random draws.

    Returns:
        The lower and the upper end. If all values are equal, or there is only one, both ends are
        that value: resampling cannot say how far other queries would be from it.

    Raises:
        InvalidEvaluation: There are no values, or one of them is not a finite number; the
            confidence is not between 0 and 1, or the number of samples or the seed is not a whole
            number, 1 or 0 at least.
    """
    ends = intervals(_one_column(values), confidence=confidence, samples=samples, seed=seed)
    return float(ends[0, 0]), float(ends[0, 1])


def intervals(
    columns: ArrayLike,
    *,
    clusters: Sequence[str] | None = None,
    confidence: float = CONFIDENCE,
    samples: int = RESAMPLES,
    seed: int = SEED,
) -> Floats:
    """Return the bootstrap intervals of the means of several columns over the same queries.

    The intervals are bias-corrected and accelerated (BCa; Efron and Tibshirani 1993, 14.3). Scores
    of queries are skewed, and BCa shifts the percentiles accordingly. The acceleration of a mean
    has a closed form, so no jackknife is run. All columns share the sampled queries.

    With `clusters`, whole clusters are drawn, each with all its queries, and the mean is that of
    the queries drawn (Davison and Hinkley 1997, 3.8). Where queries of one cluster are alike, the
    interval is wider than if they were independent. It needs dozens of clusters.

    Args:
        columns: Shape (queries, columns).
        clusters: What each query belongs to, such as the id of the document it is about; None if
            queries are independent.
        confidence: The share of intervals that hold the true mean, such as 0.95.
        samples: How many bootstrap samples to draw.
        seed: The seed of the random draws.

    Returns:
        Shape (columns, 2): the lower and the upper end of each column's interval. Both are the
        mean if there is only one cluster.

    Raises:
        InvalidEvaluation: As for `interval`; or there is not one cluster for each query.
    """
    table = _checked(columns)
    _check_share("confidence", confidence, hint="Pass 0.95 for 95 %.")
    _check_draws(samples, seed)
    sums, sizes = _by_cluster(table, clusters)
    counted = np.column_stack([sums, sizes])
    with blas.at_most(_THREADS):
        totals = np.concatenate(list(_resampled_totals(counted, samples, seed)))
    means = totals[:, :-1] / totals[:, -1:]
    return np.array(
        [
            _bca(column, sizes, drawn, confidence)
            for column, drawn in zip(sums.T, means.T, strict=True)
        ]
    ).reshape(-1, 2)


def randomisation_test(
    differences: ArrayLike, *, samples: int = PERMUTATIONS, seed: int = SEED
) -> float:
    """Return the two-sided p-value of a paired randomisation test of the mean difference.

    See `randomisation_tests`, which tests several pairs of runs at once.

    Args:
        differences: The difference between two runs for each query, shape (queries,).
        samples: How many random assignments of signs to draw, unless all can be tried.
        seed: The seed of the random draws.

    Raises:
        InvalidEvaluation: There are no differences, or one of them is not a finite number; or
            the number of samples or the seed is not a whole number, 1 or 0 at least.
    """
    return float(randomisation_tests(_one_column(differences), samples=samples, seed=seed)[0])


def randomisation_tests(
    differences: ArrayLike, *, samples: int = PERMUTATIONS, seed: int = SEED
) -> Floats:
    """Return the two-sided p-values of paired randomisation tests, one for each column.

    If two runs are equally good, either could have got either score of a query, so each difference
    could as well have the other sign. The p-value is the share of assignments of signs whose mean
    is at least as far from zero as the observed one (Smucker, Allan and Carterette 2007). Queries
    without a difference do not matter. If the others have no more than `samples` assignments, all
    are tried and the p-value is exact. Otherwise it is estimated, with one added to both counts,
    because the observed assignment is one of them: an estimated p-value is never 0.

    Args:
        differences: Shape (queries, columns), a column for each pair of runs.
        samples: How many random assignments of signs to draw, unless all can be tried.
        seed: The seed of the random draws.

    Returns:
        Shape (columns,). A column without any difference has the p-value 1.

    Raises:
        InvalidEvaluation: As for `randomisation_test`.
    """
    table = _checked(differences)
    _check_draws(samples, seed)
    answers = np.ones(table.shape[1])
    unlike_zero = np.count_nonzero(table, axis=0)
    exact = unlike_zero < samples.bit_length()  # 2 ** unlike_zero <= samples
    for column in np.flatnonzero(exact & (unlike_zero > 0)):
        moved = table[table[:, column] != 0, column : column + 1]
        extreme, tried = _count_extreme(moved, _all_flips(len(moved)))
        answers[column] = extreme[0] / tried
    if not exact.all():
        sampled = np.ascontiguousarray(table[:, ~exact])
        extreme, tried = _count_extreme(sampled, _random_flips(len(table), samples, seed))
        answers[~exact] = (extreme + 1) / (tried + 1)
    return answers


def holm(p_values: ArrayLike) -> Floats:
    """Return p-values corrected for the number of them, by Holm's step-down procedure.

    The chance that one or more true null hypotheses are rejected stays below the level, however
    the tests depend on each other. Tests of pairs of runs depend strongly: they share runs and
    queries. Randomised Tukey HSD (Carterette 2012) takes that into account, but measures each pair
    with the spread of all runs, so that one odd run hides the difference between two similar ones,
    and it holds its level only while all runs are equal.

    Args:
        p_values: Shape (tests,).

    Returns:
        Shape (tests,), in the order given; none is above 1.

    Raises:
        InvalidEvaluation: One of them is not between 0 and 1.
    """
    given = np.asarray(p_values, dtype=np.float64)
    wrong = given[~((given >= 0) & (given <= 1))]
    if wrong.size:
        raise InvalidEvaluation(
            f"{wrong[0]} is not a p-value.", hint="Pass numbers from 0 to 1 in one dimension."
        )
    order = np.argsort(given, kind="stable")
    factors = np.arange(len(given), 0, -1)
    corrected = np.empty_like(given)
    corrected[order] = np.minimum(np.maximum.accumulate(given[order] * factors), 1.0)
    return corrected


def detectable_difference(
    differences: ArrayLike, *, level: float = 0.05, power: float = 0.8
) -> float:
    """Return how large a true difference must be for a two-sided paired test to find it.

    (z(1 - level/2) + z(power)) · s / √n, with s the standard deviation of the differences. It is
    the normal approximation of the paired t-test, whose power that of the randomisation test
    follows closely. It depends on how much the differences vary and not on their mean, so it is
    not the "observed power" of the same result.

    Args:
        differences: The difference between two runs for each query, shape (queries,).
        level: The level of the test; divide it by the number of tests if it is corrected.
        power: How probable it must be that the test finds the difference.

    Returns:
        A mean difference, at least 0. It is infinite for so few queries that even differences of
        one sign are not significant: of n queries, their p-value is 2 / 2ⁿ.

    Raises:
        InvalidEvaluation: As for `randomisation_test`; or `level` or `power` is not between 0
            and 1.
    """
    values = _checked(_one_column(differences))[:, 0]
    _check_share("level", level, hint="Usual is 0.05.")
    _check_share("power", power, hint="Usual is 0.8.")
    if 2.0 ** (1 - len(values)) > level:
        return float("inf")
    factor = _NORMAL.inv_cdf(1 - level / 2) + _NORMAL.inv_cdf(power)
    return float(factor * values.std(ddof=1) / np.sqrt(len(values)))


# --- the bootstrap ---------------------------------------------------------------------------


def _resampled_totals(table: Floats, samples: int, seed: int) -> Iterator[Floats]:
    """Yield blocks (some of the samples, columns) of the sums of resampled rows."""
    random = np.random.default_rng(seed)
    rows = len(table)
    held = max(1, _BLOCK // rows)
    offsets = np.arange(min(held, samples), dtype=np.int64)[:, None] * rows
    for start in range(0, samples, held):
        now = min(held, samples - start)
        draws = random.integers(rows, size=(now, rows), dtype=np.int64) + offsets[:now]
        counts = np.bincount(draws.ravel(), minlength=now * rows).reshape(now, rows)
        yield counts.astype(np.float64) @ table


def _by_cluster(table: Floats, clusters: Sequence[str] | None) -> tuple[Floats, Floats]:
    """Return the sums of each cluster's rows, and how many rows it has."""
    if clusters is None:
        return table, np.ones(len(table))
    if len(clusters) != len(table):
        raise InvalidEvaluation(
            f"There are {len(table)} queries and {len(clusters)} clusters.",
            hint="Name the cluster of each query.",
        )
    numbers = {name: n for n, name in enumerate(dict.fromkeys(clusters))}
    of_row = np.array([numbers[name] for name in clusters])
    sums = np.zeros((len(numbers), table.shape[1]))
    np.add.at(sums, of_row, table)
    return sums, np.bincount(of_row).astype(np.float64)


def _bca(sums: Floats, sizes: Floats, drawn: Floats, confidence: float) -> tuple[float, float]:
    """Return the BCa interval of the mean of all values, from those of its bootstrap samples.

    Args:
        sums: The sum of the values of each cluster; of a query, its value.
        sizes: How many values it has.
        drawn: The mean of each sample.
        confidence: The share of intervals that hold the true mean.
    """
    levels = sums / sizes
    if np.ptp(levels) <= _ROUNDING * np.abs(levels).max():
        return float(levels[0]), float(levels[0])
    observed = float(sums.sum() / sizes.sum())
    influences = sums - observed * sizes
    squares = float(np.square(influences).sum())
    slack = _ROUNDING * float(np.abs(sums).sum() / sizes.sum())
    # Means equal to the observed one count half, or the bias of whole numbers would be exaggerated.
    below = np.count_nonzero(drawn < observed - slack)
    not_above = np.count_nonzero(drawn <= observed + slack)
    share = (below + not_above) / (2 * len(drawn))
    least = 1 / (len(drawn) + 1)
    bias = _NORMAL.inv_cdf(min(max(share, least), 1 - least))
    acceleration = float((influences**3).sum()) / (6 * squares**1.5)
    tail = _NORMAL.inv_cdf((1 + confidence) / 2)
    ends = [_shifted(z, bias, acceleration) for z in (-tail, tail)]
    low, high = np.quantile(drawn, ends)
    return float(low), float(high)


def _shifted(z: float, bias: float, acceleration: float) -> float:
    """Return the percentile at which BCa reads an end of the interval (equation 14.10)."""
    room = 1 - acceleration * (bias + z)
    if room <= 0:  # too skewed for the approximation: the end of what was drawn
        return 1.0 if z > 0 else 0.0
    return _NORMAL.cdf(bias + (bias + z) / room)


# --- the randomisation test ------------------------------------------------------------------


def _count_extreme(
    differences: Floats, flips: Iterator[NDArray[np.uint8]]
) -> tuple[NDArray[np.int64], int]:
    """Return how many assignments give a sum as far from zero as observed, and how many there are.

    Args:
        differences: Shape (queries, columns).
        flips: Blocks of shape (some, queries): 1 where the sign stays, 0 where it is changed.
    """
    observed = differences.sum(axis=0)
    limit = np.abs(observed) - _ROUNDING * np.abs(differences).sum(axis=0)
    extreme, tried = np.zeros(differences.shape[1], dtype=np.int64), 0
    with blas.at_most(_THREADS):
        for block in flips:
            totals = 2 * (block.astype(np.float64) @ differences) - observed
            extreme += np.count_nonzero(np.abs(totals) >= limit, axis=0)
            tried += len(block)
    return extreme, tried


def _all_flips(queries: int) -> Iterator[NDArray[np.uint8]]:
    """Yield all 2 ** queries assignments of signs."""
    numbers = np.arange(2**queries, dtype=np.int64)
    held = max(1, _BLOCK // queries)
    for start in range(0, len(numbers), held):
        yield (numbers[start : start + held, None] >> np.arange(queries) & 1).astype(np.uint8)


def _random_flips(queries: int, samples: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    random = np.random.default_rng(seed)
    held, width = max(1, _BLOCK // queries), -(-queries // 8)
    for start in range(0, samples, held):
        now = min(held, samples - start)
        packed = np.frombuffer(random.bytes(now * width), dtype=np.uint8).reshape(now, width)
        yield np.unpackbits(packed, axis=1, count=queries)


# --- arguments -------------------------------------------------------------------------------


def _one_column(values: ArrayLike) -> Floats:
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1:
        raise InvalidEvaluation(
            f"The values have the shape {given.shape}, not one dimension.",
            hint="Pass one value for each query.",
        )
    return given[:, None]


def _checked(columns: ArrayLike) -> Floats:
    table = np.ascontiguousarray(columns, dtype=np.float64)
    if table.ndim != 2 or not len(table):
        raise InvalidEvaluation(
            f"There are no values to average: the shape is {table.shape}.",
            hint="Pass a row for each query; there must be one query or more.",
        )
    if not np.isfinite(table).all():
        row = int(np.flatnonzero(~np.isfinite(table).all(axis=1))[0])
        raise InvalidEvaluation(
            f"The values of query {row} (counted from 0) are not finite numbers: "
            f"{table[row].tolist()}.",
            hint="Leave out what could not be computed, or count it as 0.",
        )
    return table


def _check_share(name: str, share: float, *, hint: str) -> None:
    if not (arguments.is_number(share) and 0 < share < 1):
        raise InvalidEvaluation(
            f"The {name} {arguments.shown(share)} is not between 0 and 1.", hint=hint
        )


def _check_draws(samples: object, seed: object) -> None:
    if (arguments.as_whole(samples) or 0) < 1:
        raise InvalidEvaluation(
            f"{arguments.shown(samples)} samples cannot be drawn.",
            hint="Pass a whole number of at least 1; usual are 10,000.",
        )
    hint = "It is a whole number of at least 0."
    arguments.whole(seed, "seed", least=0, error=InvalidEvaluation, hint=hint)

"""Intervals, tests and corrections hold what they promise, on simulated and on known cases."""

from __future__ import annotations

import itertools
import time
import tracemalloc
from statistics import NormalDist

import numpy as np
import pytest

from retriever.errors import InvalidEvaluation
from retriever.evaluation import statistics
from retriever.evaluation.statistics import (
    detectable_difference,
    holm,
    interval,
    intervals,
    randomisation_test,
    randomisation_tests,
)


def queries(count: int, seed: int = 0) -> np.ndarray:
    """Return scores as nDCG@10 has them: between 0 and 1, skewed, with many zeros."""
    random = np.random.default_rng(seed)
    return np.where(random.random(count) < 0.25, 0.0, random.beta(2, 1.2, count))


# --- intervals -------------------------------------------------------------------------------


def test_an_interval_is_around_the_mean_and_the_same_for_the_same_seed():
    values = queries(300)
    low, high = interval(values)
    assert low < values.mean() < high
    assert interval(values) == (low, high)
    assert interval(values, seed=1) != (low, high)
    assert interval(values, seed=1) == pytest.approx((low, high), abs=2e-3)
    wide = interval(values, confidence=0.99)
    assert wide[0] < low
    assert high < wide[1]


def test_the_interval_of_many_queries_is_that_of_the_normal_distribution():
    values = queries(4_000)
    error = 1.959964 * values.std(ddof=1) / np.sqrt(len(values))
    assert interval(values) == pytest.approx(
        (values.mean() - error, values.mean() + error), abs=0.06 * error
    )


def test_columns_give_what_each_gives_alone():
    table = np.stack([queries(50, seed) for seed in range(4)], axis=1)
    together = intervals(table)
    assert together.shape == (4, 2)
    for column, ends in zip(table.T, together, strict=True):
        assert interval(column) == pytest.approx(tuple(ends), abs=1e-12)


@pytest.mark.parametrize("count", [8, 43, 250])
def test_intervals_are_those_of_scipy(count: int):
    scipy_stats = pytest.importorskip("scipy.stats")
    values = queries(count, seed=count)
    theirs = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    ours = interval(values, samples=20_000)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.04 * (theirs.high - theirs.low))


@pytest.mark.parametrize("count", [43, 150])
def test_the_share_of_intervals_that_hold_the_true_mean(count: int):
    """Of 1,000 intervals 950 should hold it; 43 is the number of queries of TREC DL 2019."""
    truth = 0.75 * 2 / 3.2
    tables = [queries(count, seed=1_000 + trial) for trial in range(1_000)]
    ends = np.array([interval(values, samples=1_000) for values in tables])
    covered = float(np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1])))
    assert 0.925 < covered < 0.97
    # Neither side is missed much more often than the other.
    assert np.mean(ends[:, 0] > truth) < 0.045
    assert np.mean(ends[:, 1] < truth) < 0.045


@pytest.mark.parametrize("values", [[0.25], [0.25] * 9, [0.1 + 0.2] * 7, [0.0, 0.0]])
def test_equal_values_have_an_interval_without_width(values: list[float]):
    assert interval(values) == (values[0], values[0])


def test_few_and_extreme_values_have_an_interval_within_them():
    for values in ([0, 1], [0, 0, 0, 0, 1], [1] * 30 + [0], [1e-300, 0.0, 1.0]):
        low, high = interval(values)
        assert min(values) <= low <= np.mean(values) <= high <= max(values)


def bca(sums: np.ndarray, sizes: np.ndarray, samples: int) -> tuple[float, float]:
    """Return the interval by the book: Efron and Tibshirani 1993, equations 14.9, 14.10 and 14.14.

    The acceleration is that of the empirical influence function (Efron 1987, 6.7), here by
    numerical differentiation, so that it holds for means of clusters too.
    """
    normal = NormalDist()
    random = np.random.default_rng(statistics.SEED)
    n = len(sums)
    observed = sums.sum() / sizes.sum()
    drawn = np.empty(samples)
    for number, draw in enumerate(random.integers(n, size=(samples, n))):
        drawn[number] = sums[draw].sum() / sizes[draw].sum()
    influence = np.empty(n)
    for i in range(n):
        weights = np.full(n, (1 - 1e-6) / n)
        weights[i] += 1e-6
        influence[i] = ((weights @ sums) / (weights @ sizes) - observed) / 1e-6
    acceleration = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    bias = normal.inv_cdf(float(np.mean(drawn < observed)))
    ends = []
    for z in (normal.inv_cdf(0.025), normal.inv_cdf(0.975)):
        ends.append(normal.cdf(bias + (bias + z) / (1 - acceleration * (bias + z))))
    low, high = np.quantile(drawn, ends)
    return float(low), float(high)


@pytest.mark.parametrize("count", [14, 30])
def test_intervals_are_those_of_the_book(count: int):
    values = np.random.default_rng(count).beta(0.4, 2, count)  # skewed, no two alike
    expected = bca(values, np.ones(count), 3_000)
    assert interval(values, samples=3_000) == pytest.approx(expected, rel=1e-4)


def test_intervals_over_clusters_are_those_of_the_book():
    random = np.random.default_rng(5)
    sizes = np.append(random.integers(1, 4, 14), 40)
    values = random.beta(0.4, 2, sizes.sum())
    names = [str(n) for n in np.repeat(np.arange(len(sizes)), sizes)]
    sums = np.array([part.sum() for part in np.split(values, np.cumsum(sizes)[:-1])])
    found = intervals(values[:, None], clusters=names, samples=3_000)[0]
    assert tuple(found) == pytest.approx(bca(sums, sizes.astype(float), 3_000), rel=1e-4)


def test_half_of_the_ties_count_as_below():
    """Whole numbers that lie evenly around their mean have an interval that does so too."""
    low, high = interval([0, 1] * 10)
    assert low + high == pytest.approx(1, abs=0.02)


def test_an_interval_beyond_the_approximation_ends_with_what_was_drawn():
    low, high = interval([0] * 999 + [1], confidence=1 - 1e-9)
    assert low == 0
    assert high >= 4 / 1000


# --- intervals over clusters -----------------------------------------------------------------


def test_clusters_of_one_query_change_nothing():
    values = queries(120)
    table = values[:, None]
    alone = intervals(table, clusters=[str(n) for n in range(120)])
    assert alone == pytest.approx(intervals(table), abs=1e-12)


def test_copies_of_a_query_add_nothing():
    """Ten questions about each document that all score alike are as good as one."""
    values = queries(120)
    copies = np.repeat(values, 10)[:, None]
    of_copy = [str(n) for n in np.repeat(np.arange(120), 10)]
    assert intervals(copies, clusters=of_copy)[0] == pytest.approx(interval(values), abs=1e-12)
    assert np.ptp(intervals(copies)[0]) < 0.4 * np.ptp(interval(values))


def test_the_share_of_intervals_over_clusters_that_hold_the_true_mean():
    """60 documents of 1 to 30 questions, which differ more between documents than within."""
    held, held_alone = 0, 0
    for trial in range(400):
        random = np.random.default_rng(trial)
        sizes = random.integers(1, 31, 60)
        level = np.repeat(random.uniform(0.2, 0.8, 60), sizes)
        values = (random.random(len(level)) < level).astype(float)[:, None]
        names = [str(n) for n in np.repeat(np.arange(60), sizes)]
        low, high = intervals(values, clusters=names, samples=600)[0]
        held += low <= 0.5 <= high
        low, high = intervals(values, samples=600)[0]
        held_alone += low <= 0.5 <= high
    assert 0.91 < held / 400 < 0.98
    assert held_alone / 400 < 0.88  # what ignoring the documents would have given


def test_one_cluster_says_nothing_of_others():
    low, high = intervals([[0.0], [1.0], [1.0]], clusters=["a"] * 3)[0]
    assert low == high == pytest.approx(2 / 3)


# --- the randomisation test ------------------------------------------------------------------


def test_a_small_test_is_exact():
    """Against every assignment of signs, one by one."""
    differences = [0.3, -0.1, 0.25, 0.0, 0.5, -0.05, 0.125, 0.0]
    signs = itertools.product((1, -1), repeat=len(differences))
    means = [abs(np.dot(sign, differences)) for sign in signs]
    expected = np.mean(np.array(means) >= abs(sum(differences)) - 1e-12)
    assert randomisation_test(differences) == pytest.approx(expected, abs=1e-12)
    assert randomisation_test([0.2] * 6) == 2 / 64
    assert randomisation_test([0.2]) == 1


def test_sampled_and_exact_tests_agree():
    differences = queries(14, seed=3) - queries(14, seed=4) + 0.15
    exact = randomisation_test(differences)
    sampled = randomisation_test(differences, samples=16_000)
    assert sampled == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 16_000))
    assert sampled != exact


@pytest.mark.parametrize("count", [10, 43, 400])
def test_p_values_are_those_of_scipy(count: int):
    scipy_stats = pytest.importorskip("scipy.stats")
    ours, theirs = queries(count, seed=5), queries(count, seed=6) + 0.4 / np.sqrt(count)
    test = scipy_stats.permutation_test(
        (ours, theirs),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(2),
    )
    spread = np.sqrt(test.pvalue * (1 - test.pvalue) / 20_000)
    tolerance = 1e-9 if count == 10 else 5 * spread
    assert randomisation_test(ours - theirs) == pytest.approx(test.pvalue, abs=tolerance)


def test_an_estimated_p_value_is_never_zero():
    assert randomisation_test([0.5] * 40, samples=999) == 1 / 1_000
    assert randomisation_test([0.5] * 40) == 1 / 100_001


def test_runs_that_are_equally_good_are_found_different_once_in_twenty():
    """The level of the test, over 2,000 pairs of runs of 43 queries that differ by chance alone."""
    random = np.random.default_rng(7)
    quality = random.random((43, 1))
    first, second = (np.clip(quality + random.normal(0, 0.2, (43, 2_000)), 0, 1) for _ in "ab")
    p_values = randomisation_tests(first - second, samples=5_000)
    assert 0.035 < np.mean(p_values <= 0.05) < 0.065
    assert 0.005 < np.mean(p_values <= 0.01) < 0.0165
    assert abs(np.mean(p_values) - 0.5) < 0.03


def test_a_column_is_tested_as_if_it_were_alone():
    random = np.random.default_rng(8)
    table = random.normal(0.1, 1, (30, 3))
    table[5:, 1] = 0  # exact
    table[:, 2] = 0
    together = randomisation_tests(table)
    assert together == pytest.approx([randomisation_test(column) for column in table.T])
    assert together[2] == 1
    assert randomisation_tests(table) == pytest.approx(together, abs=0)


def test_many_queries_take_little_time_and_memory():
    """As many queries as SQuAD's development set has."""
    values = queries(10_570)
    tracemalloc.start()
    started = time.process_time()
    interval(values)
    randomisation_test(values - queries(10_570, seed=1))
    took = time.process_time() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took < 20  # about 2 s; a loop over samples in Python takes minutes
    assert peak < 64 * 2**20


# --- corrections and power -------------------------------------------------------------------


def test_holm_gives_the_corrected_p_values_of_its_definition():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([0.02]) == pytest.approx([0.02])
    assert holm([]).tolist() == []


def test_six_equal_runs_are_seldom_found_different():
    """The chance of one or more false findings in all fifteen pairs stays near or below 5 %."""
    random = np.random.default_rng(9)
    pairs = list(itertools.combinations(range(6), 2))
    wrong = uncorrected = 0
    for _ in range(300):
        runs = random.random((43, 1)) + random.normal(0, 0.2, (43, 6))
        table = np.stack([runs[:, one] - runs[:, other] for one, other in pairs], axis=1)
        p_values = randomisation_tests(table, samples=2_000)
        wrong += bool((holm(p_values) <= 0.05).any())
        uncorrected += bool((p_values <= 0.05).any())
    assert wrong / 300 < 0.08
    assert uncorrected / 300 > 0.2  # what the correction is for


def test_a_detectable_difference_is_found_four_times_in_five():
    random = np.random.default_rng(10)
    noise = random.normal(0, 0.2, (43, 1_000))
    typical = np.median([detectable_difference(column) for column in noise.T])
    found = randomisation_tests(noise + typical, samples=2_000) <= 0.05
    assert 0.75 < found.mean() < 0.85
    assert detectable_difference([0.1]) == float("inf")
    assert detectable_difference([0.1] * 5) == float("inf")  # p would be 1/16
    assert detectable_difference([0.125] * 6) == 0
    assert detectable_difference([0.1] * 6, level=0.02) == float("inf")
    assert detectable_difference(noise[:, 0], level=0.01) > detectable_difference(noise[:, 0])


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interval([]), "no values"),
        (lambda: interval([0.1, float("nan")]), r"query 1 .*nan"),
        (lambda: interval([0.1, float("inf")]), r"query 1 .*inf"),
        (lambda: interval([[0.1], [0.2]]), r"shape \(2, 1\)"),
        (lambda: intervals([0.1]), r"shape is \(1,\)"),
        (lambda: intervals([[0.1], [0.2]], clusters=["a"]), "2 queries and 1 clusters"),
        (lambda: interval([0.1], confidence=1.0), r"confidence 1\.0"),
        (lambda: interval([0.1], confidence="95 %"), "confidence '95 %'"),
        (lambda: interval([0.1], samples=0), "0 samples"),
        (lambda: interval([0.1], samples=2.5), r"2\.5 samples"),
        (lambda: interval([0.1], seed=-1), "seed is -1"),
        (lambda: randomisation_test([0.1], seed=0.5), r"seed is 0\.5"),
        (lambda: randomisation_test([]), "no values"),
        (lambda: randomisation_test([0.1], samples=-1), "-1 samples"),
        (lambda: holm([0.1, 1.5]), r"1\.5 is not a p-value"),
        (lambda: holm([float("nan")]), "nan is not a p-value"),
        (lambda: detectable_difference([0.1, 0.2], level=0), "level 0 "),
        (lambda: detectable_difference([0.1, 0.2], power=1), "power 1 "),
    ],
)
def test_values_without_an_answer_are_refused(call, message: str):
    with pytest.raises(InvalidEvaluation, match=message) as refused:
        call()
    assert refused.value.hint


def test_blocks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch):
    values = queries(200)
    whole = interval(values, samples=3_000)
    monkeypatch.setattr(statistics, "_BLOCK", 700)
    assert interval(values, samples=3_000) == pytest.approx(whole, abs=1e-12)
    assert randomisation_test(values - 0.5, samples=10) <= 1

"""Comparisons of runs: pairs, corrections, verdicts, and the queries that explain them."""

from __future__ import annotations

import copy
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from compared_runs import QRELS, QUERIES, evaluated, ranks, run, three_runs

from benchmarks import golden
from retriever.errors import InvalidEvaluation
from retriever.evaluation import Evaluation, Qrels, Run, compare, score, to_markdown

pytest.importorskip("ir_measures")
DATA = os.environ.get("RETRIEVER_BENCH_DATA", "")
GOLDEN = Path(DATA, "golden")


@pytest.fixture(scope="module")
def three() -> list[Evaluation]:
    return three_runs()


# --- what is compared ------------------------------------------------------------------------


def test_every_two_runs_are_compared_the_later_with_the_earlier(three):
    found = compare(three)
    assert [(one.run, one.baseline) for one in found.differences] == [
        ("same", "old"),
        ("new", "old"),
        ("new", "same"),
    ]
    assert found.measures == ("RR@10",)
    assert found.runs == ("old", "same", "new")
    for one in found.differences:
        means = {name: one_run.measures["RR@10"] for name, one_run in found.evaluations.items()}
        assert one.difference == pytest.approx(means[one.run] - means[one.baseline])
        assert one.interval[0] < one.difference < one.interval[1]
        assert one.wins + one.ties + one.losses == len(QUERIES)


def test_a_difference_is_called_one_only_if_chance_does_not_explain_it(three):
    same, new, _ = compare(three).differences
    assert same.verdict == "no significant difference"
    assert not same.is_significant
    assert new.verdict == "better"
    assert new.p < new.p_corrected < 0.05
    assert new.wins > new.losses
    worse = compare(three, baseline="new", measures=["RR@10"]).differences
    assert {one.verdict for one in worse} == {"worse"}


def test_a_baseline_is_compared_with_every_other_run_only(three):
    found = compare(three, baseline="same")
    assert [(one.run, one.baseline) for one in found.differences] == [
        ("old", "same"),
        ("new", "same"),
    ]


def test_all_comparisons_are_corrected_together(three):
    one = compare(three[::2]).differences[0]
    assert one.p_corrected == one.p
    both = compare(three[::2], measures=["RR@10", "Success@5"]).differences
    assert [found.measure for found in both] == ["RR@10", "Success@5"]
    assert both[0].p == one.p
    smaller, larger = sorted(both, key=lambda found: found.p)
    assert smaller.p_corrected == pytest.approx(min(1, 2 * smaller.p))
    assert larger.p_corrected == pytest.approx(max(larger.p, smaller.p_corrected))
    assert both[0].detectable > one.detectable


def test_it_is_the_corrected_p_value_that_counts(three):
    one = compare(three[::2]).differences[0]
    assert replace(one, p=0.001, p_corrected=0.05).verdict == "better"
    assert replace(one, p=0.03, p_corrected=0.06).verdict == "no significant difference"


def test_the_same_sums_in_another_order_are_ties(three):
    old = three[0]
    scores = {"RR@10": {query: 0.1 + 0.2 + 0.3 for query in QUERIES}}
    turned = {"RR@10": {query: 0.3 + 0.2 + 0.1 for query in QUERIES}}
    found = compare(
        [replace(old, per_query=scores), replace(old, per_query=turned)], names=["one", "other"]
    ).differences[0]
    assert scores != turned
    assert (found.wins, found.ties, found.losses) == (0, len(QUERIES), 0)


def test_measures_may_be_named_as_they_were_scored(three):
    assert compare(three, measures=["mrr@10", "RR@10"]).measures == ("RR@10",)


def test_a_comparison_can_be_sent_to_another_process_and_not_changed(three):
    found = compare(three)
    for again in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert again.to_dict() == found.to_dict()
        with pytest.raises(TypeError):
            again.evaluations["old"] = three[1]  # type: ignore[index]
    with pytest.raises(TypeError):
        found.evaluations["old"] = three[1]  # type: ignore[index]


def test_equal_runs_have_no_difference_at_all():
    found = compare(evaluated(one=ranks(1), other=ranks(1))).differences[0]
    assert (found.difference, found.interval) == (0, (0, 0))
    assert (found.p, found.ties) == (1, len(QUERIES))
    assert found.detectable == 0
    assert found.verdict == "no significant difference"


def test_a_query_without_results_counts_as_zero():
    whole, half = ranks(1), {query: rank for query, rank in ranks(1).items() if query < "q3"}
    found = compare(evaluated(whole=whole, half=half))
    one = found.differences[0]
    assert one.losses == len(whole) - len(half)
    assert one.ties == len(half)
    assert found.to_dict()["runs"][1]["missing_queries"] == one.losses
    assert f"half has no results for {one.losses} of 60 queries; they count as 0." in to_markdown(
        found
    )


def test_the_same_runs_give_the_same_figures(three):
    assert compare(three).differences == compare(three).differences
    assert compare(three, seed=1).differences != compare(three).differences


def test_differences_of_counts_are_those_of_the_totals():
    both = [
        score(Run({query: found for query in QUERIES}, name=name), QRELS, ["NumRet"])
        for name, found in {"two": {"a": 1, "b": 1}, "five": dict.fromkeys("abcde", 1)}.items()
    ]
    (one,) = compare(both).differences
    assert (one.difference, one.interval) == (180, (180, 180))
    assert both[1].measures["NumRet"] - both[0].measures["NumRet"] == 180


# --- queries ---------------------------------------------------------------------------------


def test_queries_are_ranked_by_how_hard_and_how_different_they_are():
    first = {"q0": 1, "q1": 2, "q2": 0, "q3": 1}
    second = {"q0": 1, "q1": 0, "q2": 0, "q3": 2}
    qrels = Qrels({query: {"right": 1} for query in first})
    found = compare([score(run(n, r), qrels, ["RR@10"]) for n, r in (("a", first), ("b", second))])
    assert [one.query_id for one in found.hardest(2)] == ["q2", "q1"]
    assert found.hardest(1)[0].scores == {"a": 0, "b": 0}
    # q0 and q2 have no difference, however many are asked for.
    assert {one.query_id for one in found.most_different(9)} == {"q1", "q3"}
    assert [one.query_id for one in found.per_query("RR@10")] == list(first)
    assert found.scores("RR@10").shape == (4, 2)


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda runs: compare([]), "no run"),
        (lambda runs: compare(runs[:1]), "one run"),
        (lambda runs: compare([runs[0], runs[0]]), "called 'old'"),
        (lambda runs: compare(runs, names=["a", "b"]), "2 names for 3"),
        (lambda runs: compare(runs, names=["a", "b", "a"]), "called 'a'"),
        (lambda runs: compare(runs, baseline="odl"), "baseline 'odl'"),
        (lambda runs: compare([*runs, 7]), "An evaluation is 7, an int"),
        (lambda runs: compare(None), "An evaluation is None"),
        (lambda runs: compare(runs, names="abc"), "names is 'abc'"),
        (lambda runs: compare(runs, names=["a", "b", 3]), "names is "),
        (lambda runs: compare(runs, seed=-1), "seed is -1"),
        (lambda runs: compare(runs).hardest(3, "AP"), "'AP'"),
        (lambda runs: compare(runs, measures=[]), "no measure"),
        (lambda runs: compare(runs, measures=["AP"]), "'old' was not scored by 'AP'"),
        (lambda runs: compare(runs, measures="AP"), "'old' was not scored by 'AP'"),
        (lambda runs: compare(runs, measures=["AQ"]), "'AQ' is not a measure"),
    ],
)
def test_what_cannot_be_compared_is_refused(three, call, message: str):
    with pytest.raises(InvalidEvaluation, match=message) as refused:
        call(three)
    assert refused.value.hint


def test_runs_of_different_qrels_are_not_paired(three):
    others = Qrels({query: {"right": 1, "wrong01": 1} for query in QUERIES})
    other = score(run("other", ranks(4)), others, ["RR@10", "Success@5"])
    with pytest.raises(InvalidEvaluation, match="'old' and 'other' were scored against different"):
        compare([*three, other])


# --- real runs -------------------------------------------------------------------------------


@pytest.mark.skipif(
    not DATA or not GOLDEN.is_dir(),
    reason="$RETRIEVER_BENCH_DATA does not name a folder with golden/",
)
def test_dense_and_lexical_runs_of_trec_differ_and_dense_ones_do_not():
    qrels = Qrels.read(GOLDEN / "qrels_full.trec")
    names = ["BM25", "BM25_RM3", "D_BERT_KD_TASB", "REP_LLAMA"]
    paths = [golden.run_file(GOLDEN, name) for name in names]
    found = compare([score(Run.read(path), qrels, ["nDCG@10"]) for path in paths], names=names)
    verdicts = {(one.run, one.baseline): one.verdict for one in found.differences}
    assert verdicts["BM25_RM3", "BM25"] == "no significant difference"
    assert verdicts["REP_LLAMA", "D_BERT_KD_TASB"] == "no significant difference"
    assert verdicts["D_BERT_KD_TASB", "BM25"] == verdicts["REP_LLAMA", "BM25_RM3"] == "better"

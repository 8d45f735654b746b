"""Measures: equal to trec_eval's, whatever the run; names; refusals."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import random
import shutil
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from benchmarks import golden
from retriever import InvalidEvaluation
from retriever.evaluation import DEFAULT_MEASURES, Qrels, Run, score
from retriever.evaluation.measures import by_query, parse

ir_measures = pytest.importorskip("ir_measures", reason="the extra `eval` is not installed")
pytrec_eval = pytest.importorskip("pytrec_eval", reason="the extra `eval` is not installed")

RUN_OF_ONE, QRELS_OF_ONE = Run({"1": {"a": 1.0}}), Qrels({"1": {"a": 1}})
# Ours, and trec_eval's with the level of relevance and whether only judged documents count.
EQUAL = {
    "nDCG@10": ("ndcg_cut_10", 1, False),
    "nDCG@3": ("ndcg_cut_3", 1, False),
    "nDCG": ("ndcg", 1, False),
    "nDCG(judged_only=True)@10": ("ndcg_cut_10", 1, True),
    "AP": ("map", 1, False),
    "AP@5": ("map_cut_5", 1, False),
    "AP(rel=2)": ("map", 2, False),
    "RR": ("recip_rank", 1, False),
    "RR(rel=2)": ("recip_rank", 2, False),
    "RR(judged_only=True)": ("recip_rank", 1, True),
    "R@5": ("recall_5", 1, False),
    "R@1000": ("recall_1000", 1, False),
    "R(rel=3)@5": ("recall_5", 3, False),
    "P@1": ("P_1", 1, False),
    "P@10": ("P_10", 1, False),
    "P(rel=2)@10": ("P_10", 2, False),
    "P(judged_only=True)@5": ("P_5", 1, True),
    "Success@1": ("success_1", 1, False),
    "Success@5": ("success_5", 1, False),
    "Success(rel=2)@5": ("success_5", 2, False),
    "Rprec": ("Rprec", 1, False),
    "Rprec(rel=2)": ("Rprec", 2, False),
    "Bpref": ("bpref", 1, False),
    "infAP": ("infAP", 1, False),
    "IPrec@0.1": ("iprec_at_recall_0.10", 1, False),
    "SetP": ("set_P", 1, False),
    "SetR": ("set_recall", 1, False),
    "SetF": ("set_F", 1, False),
    "SetAP": ("set_map", 1, False),
    "NumRet": ("num_ret", 1, False),
    "NumRet(rel=2)": ("num_rel_ret", 2, False),
}
OURS = ["RR@1", "RR@3", "RR(rel=2)@5", "Judged@3", "Judged@10", "Judged", "Success@3", "R(rel=2)@3"]


def random_pair(seed: int) -> tuple[Qrels, Run]:
    """Return qrels and a run with ties, gaps, and whatever else may be computed differently."""
    draw = random.Random(seed)
    ids = [f"d{n}" for n in range(30)] + ["10", "9", "Ω", "é", "z", "Z", "文", "d-1", "😀", "ￂ"]
    queries = [str(n) for n in range(draw.randint(1, 7))] + draw.sample(["q-1", "クエリ", "a b"], 2)
    grades = draw.choice([[0, 1], [0, 1, 2, 3], [-2, -1, 0, 1, 2], [0], [-1], [0, 0, 0, 7]])
    qrels = {
        query: {one: draw.choice(grades) for one in draw.sample(ids, draw.randint(1, 20))}
        for query in queries
    }
    kinds = {
        "ties": lambda: draw.randint(0, 3),
        "distinct": lambda: draw.gauss(0, 1),
        "float32 ties": lambda: 1 + draw.randint(0, 40) * 1e-8,
        "huge": lambda: draw.choice([1e300, 1e299, -1e300, 1.0]),
        "negative": lambda: -draw.random(),
    }
    kind = kinds[draw.choice(sorted(kinds))]
    found = {
        query: {one: kind() for one in draw.sample(ids, draw.choice([0, 1, 5, 25, 40]))}
        for query in draw.sample(queries, draw.randint(1, len(queries)))
    }
    found["of no qrels"] = {"d1": 1.0}
    return Qrels(qrels), Run(found)


def by_trec_eval(qrels: Qrels, run: Run, name: str, level: int, judged_only: bool) -> dict:
    # pytrec_eval crashes on queries without results, or of negative grades only.
    judged = {
        query: dict(grades) if max(grades.values()) >= 0 else {**grades, "none": 0}
        for query, grades in qrels.items()
    }
    found = {query: dict(scores) for query, scores in run.items() if scores}
    evaluator = pytrec_eval.RelevanceEvaluator(
        judged, {name}, relevance_level=level, judged_docs_only_flag=judged_only
    )
    values = {query: next(iter(one.values())) for query, one in evaluator.evaluate(found).items()}
    return {query: values.get(query, 0.0) for query in qrels}


def by_hand(qrels: Qrels, run: Run, name: str) -> dict[str, float]:
    """Measure without any library: what pytrec_eval lacks, and recall to check it."""
    measure, _, cutoff = name.partition("@")
    level = 2 if "rel=2" in measure else 1
    values = {}
    for query, grades in qrels.items():
        scores = {one: np.float64(x).astype(np.float32) for one, x in run.get(query, {}).items()}
        order = sorted(scores, key=lambda one: (scores[one], one.encode()), reverse=True)
        order = order[: int(cutoff or len(order))]
        hits = [rank for rank, one in enumerate(order, 1) if grades.get(one, 0) >= level]
        relevant = sum(grade >= level for grade in grades.values())
        values[query] = {
            "RR": 1 / hits[0] if hits else 0.0,
            "Su": float(bool(hits)),
            "Ju": sum(one in grades for one in order) / len(order) if order else 0.0,
            "R(": len(hits) / relevant if relevant else 0.0,
        }[measure[:2]]
    return values


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
@pytest.mark.parametrize("block", range(8))
def test_every_measure_is_that_of_trec_eval(block: int):
    for seed in range(block * 60, block * 60 + 60):
        qrels, run = random_pair(seed)
        found = score(run, qrels, [*EQUAL, *OURS])
        assert list(found.measures) == [*EQUAL, *OURS]
        for ours in found.measures:
            expected = (
                by_trec_eval(qrels, run, *EQUAL[ours])
                if ours in EQUAL
                else by_hand(qrels, run, ours)
            )
            values = found.per_query[ours]
            assert values == pytest.approx(expected, abs=1e-12), (seed, ours)
            assert list(values) == list(qrels)
            total = sum(expected.values())
            mean = total if ours.startswith("NumRet") else total / len(qrels)
            assert found.measures[ours] == pytest.approx(mean, abs=1e-12)


def test_the_ties_of_the_random_runs_matter():
    """With the opposite order of ties, the comparison would fail."""
    differing = 0
    for seed in range(60):
        qrels, run = random_pair(seed)
        turned = {
            query: {
                one: -rank for rank, one in enumerate(sorted(scores, key=lambda d: (-scores[d], d)))
            }
            for query, scores in run.items()
        }
        asked = parse(["RR@3", "nDCG@10"])
        differing += by_query(asked, qrels, run) != by_query(asked, qrels, Run(turned))
    assert differing > 10


def test_measures_do_not_influence_each_other():
    qrels, run = random_pair(5)
    names = [*EQUAL, *OURS, "nDCG(gains={1:5})@10", "Compat", "SetF(beta=2.0)", "SetF(beta=0.5)"]
    together = score(run, qrels, names).per_query
    for name in names:
        assert score(run, qrels, [name]).per_query[name] == together[name]


def test_gains_make_ndcg_exponential():
    qrels = Qrels({"1": {"a": 3, "b": 1, "c": 2}})
    run = Run({"1": {"b": 3, "x": 2, "a": 1}})
    expected = (1 + 7 / 2) / (7 + 3 / math.log2(3) + 1 / 2)
    found = score(run, qrels, ["nDCG(gains={2:3,3:7})@10", "nDCG@10"]).measures
    assert found["nDCG(gains={2:3,3:7})@10"] == pytest.approx(expected)
    assert found["nDCG@10"] == pytest.approx((1 + 3 / 2) / (3 + 2 / math.log2(3) + 1 / 2))


@pytest.mark.parametrize("name", ["ERR@10", "nDCG(dcg='exp-log2')@10"])
def test_ids_that_a_provider_cannot_have_do_not_matter(name: str):
    """gdeval takes numbers only, and the part after a hyphen as the whole id."""
    if not shutil.which("perl"):
        pytest.skip("perl is not installed")
    plain = (
        Qrels({"1": {"a": 2, "b": 1}, "2": {"a": 1}}),
        Run({"1": {"b": 2, "a": 1}, "2": {"a": 1}}),
    )
    odd = (
        Qrels({"x-1": {"a b": 2, "b": 1}, "y-1": {"a b": 1}}),
        Run({"x-1": {"b": 2, "a b": 1}, "y-1": {"a b": 1}}),
    )
    assert score(plain[1], plain[0], [name]).measures == score(odd[1], odd[0], [name]).measures
    assert score(plain[1], plain[0], [name]).measures[name] > 0
    with pytest.raises(InvalidEvaluation, match="grades of 4 at most"):
        score(plain[1], Qrels({"1": {"a": 9}}), [name])


def test_queries_without_relevant_documents_count_and_others_are_left_out():
    qrels = Qrels({"1": {"a": 1}, "2": {"a": 0}, "3": {"a": 1}, "4": {"a": -1}})
    run = Run({"1": {"a": 1}, "2": {"a": 1}, "4": {"a": 1}, "5": {"a": 1}, "3": {}})
    found = score(run, qrels, ["RR@10", "P@1", "Judged@1"])
    assert found.measures == {"RR@10": 0.25, "P@1": 0.25, "Judged@1": 0.75}
    assert found.missing == ("3",)
    assert found.ignored == ("5",)
    described = found.to_dict()
    assert (described["queries"], described["missing_queries"], described["ignored_queries"]) == (
        4,
        1,
        1,
    )


def test_a_run_without_a_query_of_the_qrels_is_refused():
    with pytest.raises(InvalidEvaluation, match="share no query") as caught:
        score(Run({"Q1": {"a": 1}}, name="mine"), Qrels({"1": {"a": 1}}, name="theirs"))
    assert "'mine'" in str(caught.value)
    assert "'Q1'" in str(caught.value)
    assert "'1'" in str(caught.value)


def test_a_measure_that_is_not_defined_for_a_query_is_an_error():
    with pytest.raises(InvalidEvaluation, match="no results but relevant ones"):
        score(Run({"1": {"a": 1}}), Qrels({"1": {"a": 1}}), ["Accuracy"])


@pytest.mark.parametrize(
    ("run", "qrels", "measures", "message"),
    [
        ({"1": {"a": 1.0}}, QRELS_OF_ONE, ["AP"], "run is .*a dict, and not a Run"),
        (QRELS_OF_ONE, RUN_OF_ONE, ["AP"], "a Qrels, and not a Run"),
        (RUN_OF_ONE, {"1": {"a": 1}}, ["AP"], "qrels is .*a dict, and not a Qrels"),
        (RUN_OF_ONE, QRELS_OF_ONE, 5, "5 is not a measure"),
    ],
)
def test_arguments_of_another_type_are_refused(run, qrels, measures, message: str):
    with pytest.raises(InvalidEvaluation, match=message):
        score(run, qrels, measures)


def test_measures_of_ir_measures_are_taken():
    asked = [ir_measures.nDCG @ 10, ir_measures.P(rel=2) @ 5, "AP"]
    for given in (asked, asked[0]):
        found = score(RUN_OF_ONE, QRELS_OF_ONE, given)
        assert list(found.measures) == ["nDCG@10", "P(rel=2)@5", "AP"][: len(found.measures)]


def test_a_run_without_any_result_scores_zero():
    found = score(Run({"1": {}}), Qrels({"1": {"a": 1}, "2": {"b": 1}}))
    assert found.measures == dict.fromkeys(DEFAULT_MEASURES, 0.0)


def test_an_evaluation_can_be_sent_to_another_process():
    found = score(Run({"1": {"a": 1.0}}), Qrels({"1": {"a": 1}}, name="mine"), ["RR@10"])
    found = replace(found, settings=MappingProxyType({"options": {"k": 10}}))
    assert found.intervals["RR@10"] == (1.0, 1.0)
    for again in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert json.loads(json.dumps(again.to_dict())) == json.loads(json.dumps(found.to_dict()))
        assert (again.run, again.qrels, again.qrels.name) == (found.run, found.qrels, "mine")
        assert again.per_query == found.per_query
        with pytest.raises(TypeError):
            again.measures["RR@10"] = 0.5  # type: ignore[index]


def test_intervals_hold_the_means_and_totals():
    draw = random.Random(7)
    qrels = Qrels({str(n): {"a": 1, "b": 0} for n in range(50)})
    run = Run({str(n): {"a": draw.random(), "b": draw.random()} for n in range(50)})
    found = score(run, qrels, ["RR@10", "P@1", "NumRet"])
    for name, (low, high) in found.intervals.items():
        assert low <= found.measures[name] <= high
    assert found.intervals["RR@10"][0] < found.measures["RR@10"] < found.intervals["RR@10"][1]
    assert found.measures["NumRet"] == 100
    assert found.to_dict()["intervals"]["NumRet"] == [100, 100]


@pytest.mark.parametrize("name", golden.PUBLISHED)
def test_published_runs_have_their_published_figures(name: str):
    data = os.environ.get("RETRIEVER_BENCH_DATA", "")
    folder = Path(data, "golden")
    if not data or not folder.is_dir():
        pytest.skip("$RETRIEVER_BENCH_DATA does not name a folder with golden/")
    qrels = Qrels.read(folder / "qrels_full.trec")
    found = score(Run.read(golden.run_file(folder, name)), qrels, ["nDCG@10"])
    assert f"{found.measures['nDCG@10']:.4f}" == f"{golden.PUBLISHED[name]:.4f}"


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("nDCG@10", ["nDCG@10"]),
        ("ndcg@10", ["nDCG@10"]),
        ("NDCG@10", ["nDCG@10"]),
        ("ndcg_cut_10", ["nDCG@10"]),
        ("ndcg_cut.10", ["nDCG@10"]),
        ("MAP", ["AP"]),
        ("map", ["AP"]),
        ("MRR@10", ["RR@10"]),
        ("recip_rank", ["RR"]),
        ("Recall@100", ["R@100"]),
        ("recall_100", ["R@100"]),
        ("P_5,10", ["P@5", "P@10"]),
        ("success", ["Success@1", "Success@5", "Success@10"]),
        ("P(rel=2)@5", ["P(rel=2)@5"]),
        (" P( rel = 1 ) @ 5 ", ["P@5"]),
        ("SetF(beta=2)", ["SetF(beta=2.0)"]),
    ],
)
def test_names_and_their_aliases(given: str, names: list[str]):
    assert list(parse([given])) == names
    assert list(parse([given, *names])) == names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NDGC@10", "not a measure. Did you mean nDCG"),
        ("", "not a measure"),
        ("nDCG@10; P@5", "not a measure"),
        ("__import__('os').getcwd()", "not a measure"),
        ("(" * 150, "not a measure"),
        ("gm_map", "not a measure"),
        ("P_1e9", "not a measure"),
        (None, "not a measure"),
        ("P@0", "has the cutoff 0. A cutoff is a whole number of at least 1."),
        ("ndcg_cut_0", "has the cutoff 0"),
        ("P@True", "has the cutoff True"),
        ("P@1.5", "has the cutoff 1.5"),
        ("R", "lacks its cutoff. Write R@10"),
        ("P(rel=0)@5", "has the rel 0"),
        ("P(relevance=2)@5", "has the option 'relevance'. Its options: cutoff, rel, judged_only"),
        ("nDCG(gains={1: 1099511627776})@5", "has the gains"),
        ("IPrec@0.105", "has the recall 0.105. A recall is a number from 0 to 1"),
        ("IPrec@True", "has the recall True"),
        ("alpha_nDCG@10", "needs judgements by subtopic"),
        ("RR(judged_only=True)@10", "cannot be computed with what is installed"),
    ],
)
def test_names_that_are_refused(name: str, message: str):
    with pytest.raises(InvalidEvaluation) as caught:
        parse([name])
    assert message in str(caught.value)
    assert "nDCG@10" in caught.value.hint


def test_no_measure_is_refused():
    with pytest.raises(InvalidEvaluation, match="No measure"):
        parse([])

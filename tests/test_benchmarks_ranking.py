"""The benchmarks of lexical and hybrid search score as the package does, and learn honestly."""

import math

import numpy as np
import pytest

from benchmarks.hybrid.bm25 import Postings
from benchmarks.hybrid.choose import rrf
from benchmarks.hybrid.collections import Collection
from benchmarks.hybrid.scoring import best, gains
from benchmarks.hybrid.weights import followed
from benchmarks.lexical.engines import Fts5, words_of
from retriever.evaluation.qrels import Qrels
from retriever.evaluation.runs import Run
from retriever.evaluation.scoring import score

PUMPS = Collection(
    "pumps",
    ["Pumps", "Cider", ""],
    ["Prime the pump before it runs dry.", "Press in October.", "The pump house is dry."],
    ["How do I prime a pump?"],
    [{0: 1}],
)


def test_gains_are_those_of_the_package():
    drawn = np.random.default_rng(3)
    scores = drawn.random((20, 40))
    relevant = [
        {int(row): int(drawn.integers(1, 4)) for row in drawn.integers(40, size=4)} for _ in scores
    ]
    run = {str(q): {str(r): float(v) for r, v in enumerate(row)} for q, row in enumerate(scores)}
    qrels = {str(q): {str(r): g for r, g in one.items()} for q, one in enumerate(relevant)}
    expected = score(Run(run, name="drawn"), Qrels(qrels), ("nDCG@10",))
    assert gains(scores, relevant).mean() == pytest.approx(expected.measures["nDCG@10"])


def test_equal_scores_are_ranked_by_their_number():
    assert best(np.array([[1.0, 2.0, 1.0, 1.0]]), 3).tolist() == [[1, 0, 2]]


def test_bm25_is_lucenes():
    postings = Postings(PUMPS)
    found = postings.score([postings.of("prime")])
    lengths = [8, 4, 5]
    idf = math.log1p((3 - 1 + 0.5) / (1 + 0.5))
    scale = 1.2 * (1 - 0.75 + 0.75 * lengths[0] / (sum(lengths) / 3))
    assert found.scores[0].tolist() == pytest.approx([idf * 2.2 / (1 + scale), 0, 0])
    assert found.maxima.tolist() == pytest.approx([idf * 2.2])


def test_a_word_that_no_row_has_counts_towards_what_a_question_could_reach():
    postings = Postings(PUMPS)
    one, other = postings.score([postings.of("pump"), postings.of("pump zeppelin")]).maxima
    assert other > one


def test_weights_that_follow_noise_gain_nothing_beyond_chance():
    drawn = np.random.default_rng(5)
    steps = np.array([-0.2, 0.0, 0.2])
    features = [drawn.random((300, 4)) for _ in range(4)]
    table = [drawn.random((300, 3)) for _ in range(4)]
    for one in followed(features, table, steps):
        assert one.low < 0.05
        assert one.oracle > one.fixed


def test_weights_that_follow_what_matters_gain():
    drawn = np.random.default_rng(5)
    steps = np.array([-0.2, 0.0, 0.2])
    features = [np.column_stack([drawn.choice([-1.0, 1.0], 200), np.ones(200)]) for _ in range(3)]
    table = [0.5 + x[:, :1] * steps for x in features]
    assert all(one.low > 0.15 for one in followed(features, table, steps))


def test_words_of_a_question_for_others_are_without_stop_words():
    assert words_of("What is the BM25 of it?") == ["bm25"]
    assert words_of("What is it?") == ["what", "is", "it"]


def test_fts5_takes_up_what_is_added_and_no_syntax(tmp_path):
    engine = Fts5(tmp_path)
    engine.add(PUMPS.texts)
    engine.add(['Say "NEAR" to the pumps.'])
    assert [row for row, _ in engine.search('near"', 3)] == [3]
    engine.close()


def test_ranks_are_fused_by_both_lists():
    from benchmarks.hybrid.bm25 import Lexical
    from benchmarks.hybrid.choose import Scored

    lexical = Lexical(np.array([[0.0, 3.0, 1.0]]), np.array([4.0]), np.array([1.0]))
    found = rrf(Scored(PUMPS, np.array([[0.9, 0.8, 0.1]]), lexical))
    assert found[0].tolist() == pytest.approx([1 / 61, 1 / 62 + 1 / 61, 1 / 63 + 1 / 62])

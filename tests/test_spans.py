"""Scores of marked answers within a budget, against sets of characters."""

from __future__ import annotations

import math
import random
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever.errors import InvalidEvaluation
from retriever.evaluation.spans import Passage, Reference, SpanQuestion, SpanScores, span_scores

TEXTS = {"a": "ab  cd e\nfgh  i jk lmn", "b": "  xy z\t\tuvw  st"}


def ask(*alternatives: list[tuple[str, int, int]]) -> SpanQuestion:
    """Return a question about TEXTS, with each answer given as (document, start, end)."""
    references = [
        tuple(Reference(d, start, TEXTS[d][start:end]) for d, start, end in answer)
        for answer in alternatives
    ]
    return SpanQuestion("q", "?", tuple(references))


def brute_force(
    ranked: list[Passage], question: SpanQuestion, budget: int, costs: list[int] | None
) -> SpanScores:
    """Compute the scores character by character, as their definitions say."""
    handed: list[tuple[str, int]] = []
    whole: list[set[tuple[str, int]]] = []
    paid = 0
    for n, (document, start, end) in enumerate(ranked):
        if paid >= budget:
            break
        cost = end - start if costs is None else max(1, costs[n])
        affordable = [
            (document, at)
            for at in range(start, end)
            if paid + math.ceil(cost * (at + 1 - start) / (end - start)) <= budget
        ]
        handed += affordable
        whole.append(set(affordable))
        paid += cost if end > start else 0
    distinct = set(handed)
    found = []
    for references in question.alternatives:
        marked = {(r.document, r.start + n) for r in references for n in range(len(r.text))}
        solid = {(d, at) for d, at in marked if not TEXTS[d][at].isspace()}
        recalled = set(marked & distinct)
        for document, at in marked - solid:
            before = max(s for d, s in solid if d == document and s < at)
            after = min(s for d, s in solid if d == document and s > at)
            if {(document, before), (document, after)} <= distinct:
                recalled.add((document, at))
        covered = len(marked & distinct)
        recall = len(recalled) / len(marked)
        iou = covered / (len(marked) + len(handed) - covered)
        precision = covered / len(handed) if handed else 0.0
        found.append((recall, iou, precision, solid))
    recall, iou, precision = max(scores[:3] for scores in found)
    return SpanScores(
        recall,
        precision,
        iou,
        float(any(solid <= distinct for *_, solid in found)),
        float(any(solid <= one for *_, solid in found for one in whole)),
    )


@st.composite
def spans_of_texts(draw: st.DrawFn, least: int) -> tuple[str, int, int]:
    document = draw(st.sampled_from("ab"))
    start = draw(st.integers(0, len(TEXTS[document]) - 1))
    return document, start, draw(st.integers(start + least, len(TEXTS[document])))


def has_text(span: tuple[str, int, int]) -> bool:
    return bool(TEXTS[span[0]][span[1] : span[2]].strip())


@given(
    ranked=st.lists(spans_of_texts(0).map(lambda span: Passage(*span)), max_size=8),
    alternatives=st.lists(
        st.lists(spans_of_texts(1).filter(has_text), min_size=1, max_size=3),
        min_size=1,
        max_size=3,
    ),
    budgets=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    costs=st.none() | st.lists(st.integers(0, 9), min_size=8, max_size=8),
)
def test_scores_are_those_of_sets_of_characters(
    ranked: list[Passage],
    alternatives: list[list[tuple[str, int, int]]],
    budgets: list[int],
    costs: list[int] | None,
):
    question = ask(*alternatives)
    costs = costs and costs[: len(ranked)]
    got = span_scores(ranked, question, budgets, costs=costs)
    for budget, scores in zip(budgets, got, strict=True):
        assert scores == pytest.approx(brute_force(ranked, question, budget, costs))


def test_a_passage_is_cut_where_the_budget_ends():
    question = ask([("a", 0, 8)])  # "ab  cd e"
    ranked = [Passage("b", 0, 5), Passage("a", 0, 8)]
    nothing, part, whole = span_scores(ranked, question, [5, 9, 13])
    assert nothing == (0, 0, 0, 0, 0)
    assert part == pytest.approx((4 / 8, 4 / 9, 4 / 13, 0, 0))
    assert whole == pytest.approx((1, 8 / 13, 8 / 13, 1, 1))


def test_the_first_passage_that_holds_the_answer_counts():
    ranked = [Passage("a", 0, 8), Passage("a", 4, 12)]
    first, both = span_scores(ranked, ask([("a", 4, 8)]), [8, 16])
    assert first == pytest.approx((1, 4 / 8, 4 / 8, 1, 1))
    assert both == pytest.approx((1, 4 / 16, 4 / 16, 1, 1))


def test_overlapping_passages_are_paid_twice_and_count_once():
    ranked = [Passage("a", 0, 6), Passage("a", 4, 8)]
    (scores,) = span_scores(ranked, ask([("a", 4, 8)]), [100])
    assert scores == pytest.approx((1, 4 / 10, 4 / 10, 1, 1))


def test_white_space_that_a_splitter_removed_is_not_missed():
    ranked = [Passage("a", 0, 2), Passage("a", 4, 8)]  # "ab" and "cd e"; between them two spaces
    (scores,) = span_scores(ranked, ask([("a", 0, 8)]), [100])
    assert scores == pytest.approx((1, 1, 6 / 8, 1, 0))
    (scores,) = span_scores(ranked[:1], ask([("a", 0, 8)]), [100])
    assert scores == pytest.approx((2 / 8, 1, 2 / 8, 0, 0))


def test_white_space_at_the_ends_of_a_reference_is_not_counted():
    assert ask([("b", 0, 8)]).alternatives == ((Reference("b", 2, "xy z"),),)
    assert ask([("a", 0, 6), ("a", 4, 8), ("a", 5, 6)]).alternatives == (
        (Reference("a", 0, "ab  cd e"),),
    )


def test_the_alternative_with_the_greatest_recall_counts():
    question = ask([("a", 0, 8)], [("a", 4, 6)])
    (scores,) = span_scores([Passage("a", 3, 7)], question, [100])
    assert scores == pytest.approx((1, 2 / 4, 2 / 4, 1, 1))


def test_an_answer_in_two_documents_needs_both():
    question = ask([("a", 4, 6), ("b", 2, 4)])
    assert question.document == "a"
    first, both = span_scores([Passage("b", 2, 4), Passage("a", 4, 6)], question, [2, 4])
    assert first == (0.5, 1, 0.5, 0, 0)
    assert both == (1, 1, 1, 1, 0)


def test_a_budget_of_tokens_is_spread_over_the_characters_of_a_passage():
    ranked = [Passage("a", 0, 8), Passage("a", 8, 16)]
    half, whole = span_scores(ranked, ask([("a", 0, 8)]), [2, 4], costs=[4, 4])
    assert half == pytest.approx((4 / 8, 1, 4 / 8, 0, 0))
    assert whole == (1, 1, 1, 1, 1)


def test_nothing_retrieved_scores_nothing():
    nothing = SpanScores(0, 0, 0, 0, 0)
    assert span_scores([], ask([("a", 0, 8)]), [1, 2]) == (nothing, nothing)
    assert span_scores([Passage("a", 4, 4)], ask([("a", 0, 8)]), [1]) == (nothing,)


@pytest.mark.parametrize("budgets", [[], [0], [-1], [True], [1.5], ["9"], [10**30]])
def test_budgets_are_whole_numbers(budgets: list):
    with pytest.raises(InvalidEvaluation, match="budget"):
        span_scores([], ask([("a", 0, 8)]), budgets)


@pytest.mark.parametrize("alternatives", [(), ((),), ((Reference("a", 2, "  "),),)])
def test_a_question_needs_something_to_find(alternatives: tuple):
    with pytest.raises(InvalidEvaluation, match="Question 'q' has an answer without any text"):
        SpanQuestion("q", "?", alternatives)


@pytest.mark.parametrize("alternatives", [None, (("x",),), ((7,),), (Reference("a", 2, "x"),)])
def test_alternatives_of_another_type_are_refused(alternatives: Any):
    with pytest.raises(InvalidEvaluation, match="The alternatives of question 'q' are"):
        SpanQuestion("q", "?", alternatives)


def test_ten_thousand_questions_take_seconds():
    rng = random.Random(1)
    ranked = [Passage(str(n), 100, 100 + rng.randint(60, 900)) for n in range(100)]
    questions = [
        SpanQuestion(str(n), "?", ((Reference(str(n % 100), 150, "an answer of some words"),),) * 2)
        for n in range(1_000)
    ]
    start = time.process_time()
    for question in questions:
        span_scores(ranked, question, [1_000, 2_000, 4_000, 8_000])
    assert time.process_time() - start < 1  # a tenth of SQuAD's development set

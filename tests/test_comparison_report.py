"""Comparisons as Markdown: tables, notes and the labels of runs."""

from __future__ import annotations

import re

import pytest
from compared_runs import QRELS, QUERIES, three_runs

from retriever.evaluation import Evaluation, Qrels, compare, score, to_markdown
from retriever.evaluation.labels import labels, letters, p_value

pytest.importorskip("ir_measures")


@pytest.fixture(scope="module")
def three() -> list[Evaluation]:
    return three_runs()


def test_the_report_has_every_run_pair_and_query_asked_for(three):
    found = compare(three, names=["runs/a|b.trec", "runs/c_d.trec", "runs/e.trec"])
    texts = dict.fromkeys(QUERIES, "is <b>this</b>\n| a table?")
    report = to_markdown(found, texts=texts, hardest=2, per_query=True)
    assert report.startswith("## Comparison of 3 runs over 60 queries of the qrels sixty\n\n")
    assert "| A | a\\|b | 0." in report
    assert "| B | c\\_d | 0." in report
    assert "| B − A | " in report
    assert "**C is better**" in report
    assert "corrected by Holm's procedure for 3 comparisons" in report
    assert report.count("is \\<b\\>this\\</b\\> \\| a table?") == 2 + 2 + 60
    tables = [block.splitlines() for block in report.split("\n\n") if block.startswith("|")]
    assert len(tables) == 5
    for rows in tables:  # as many cells in each row as in the head
        cells = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
        assert len(cells) == 1
    assert to_markdown(found, hardest=0).count("###") == 0


def test_the_report_says_how_small_a_difference_could_have_been_found(three):
    said = to_markdown(compare(three[:2]))
    one = compare(three[:2]).differences[0]
    assert f"would show a true difference of {one.detectable:.3f} in RR@10 in four of five" in said
    assert "would show" not in to_markdown(compare(three[::2]))
    five = Qrels({query: QRELS[query] for query in QUERIES[:5]})
    few = [score(one.run, five, ["RR@10"]) for one in three]
    assert "5 queries cannot show a difference, however" in to_markdown(compare(few[:2]))
    assert "5 queries cannot show a difference in 3 comparisons" in to_markdown(compare(few))
    few = [score(one.run, five, ["RR@10", "AP"]) for one in three[:2]]
    said = to_markdown(compare(few, measures=["RR@10", "AP"]))
    assert said.count("5 queries cannot show a difference") == 1


def test_labels_are_short_and_distinct():
    assert labels(["runs/x/bm25.trec", "runs/x/dense.run.gz"]) == {
        "runs/x/bm25.trec": "bm25",
        "runs/x/dense.run.gz": "dense",
    }
    assert list(labels(["a/run.trec", "b/run.trec"]).values()) == ["a/run", "b/run"]
    assert list(labels(["run.trec", "run.txt"]).values()) == ["run.trec", "run.txt"]
    assert list(labels(["/a.trec", ".trec"]).values()) == ["/a", ".trec"]
    assert list(letters(["x", "y"]).values()) == ["A", "B"]
    many = [f"run{number}" for number in range(30)]
    assert list(letters(many).values())[-1] == "30"
    assert (p_value(0.00001), p_value(0.03124)) == ("< 0.0001", "= 0.0312")

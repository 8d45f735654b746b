"""Plots of comparisons: the same bytes for the same runs, and names that fit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from compared_runs import evaluated, ranks, run, three_runs

from retriever.errors import InvalidEvaluation
from retriever.evaluation import Comparison, Evaluation, Qrels, compare, plot, plots, score

pytest.importorskip("ir_measures")


@pytest.fixture(scope="module")
def three() -> list[Evaluation]:
    return three_runs()


def many(count: int) -> Comparison:
    names = [f"runs/a-very-long-name-of-a-run/with_{'many_words_' * 8}${n}$" for n in range(count)]
    runs = evaluated(**{f"run_{n}": ranks(n, gain=n % 3) for n in range(count)})
    return compare(runs, names=names)


@pytest.mark.parametrize("count", [2, 8])
def test_plots_are_drawn_for_few_and_many_runs(tmp_path: Path, count: int):
    pytest.importorskip("matplotlib")
    plot(many(count), tmp_path / "plot.PNG")
    assert (tmp_path / "plot.PNG").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["plot.PNG"]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_same_comparison_is_drawn_as_the_same_bytes(tmp_path: Path, suffix: str):
    pytest.importorskip("matplotlib")
    first, again = tmp_path / f"first{suffix}", tmp_path / f"again{suffix}"
    plot(many(2), first)
    plot(many(2), again, measure="RR@10")
    assert first.read_bytes() == again.read_bytes()
    assert b"<dc:date>" not in first.read_bytes()


@pytest.mark.parametrize("count", [3, 21])
def test_queries_are_counted_in_whole_numbers(count: int):
    pytest.importorskip("matplotlib")
    queries = [str(number) for number in range(count)]
    qrels = Qrels({query: {"right": 1} for query in queries})
    runs = [run(name, dict.fromkeys(queries, rank)) for name, rank in (("a", 1), ("b", 2))]
    figure = plots._figure(compare([score(one, qrels, ["RR@10"]) for one in runs]), "RR@10")
    ticks = figure.subfigs[1].axes[0].get_xticks()
    assert [float(tick).is_integer() for tick in ticks] == [True] * len(ticks)


def test_long_names_keep_what_differs():
    name = f"runs/model_{'with-some-option_' * 9}seed-{{}}.trec"
    one, other = (plots._wrapped(name.format(seed), 32).splitlines() for seed in (1, 2))
    assert len(one) == 3
    assert max(map(len, one)) <= 34
    assert one[0] == other[0] == "runs/model_with-some-option_"
    assert "…" in one[1]
    assert one != other
    assert plots._wrapped("x" * 40, 32) == f"{'x' * 32}\n{'x' * 8}"
    assert plots._wrapped("名前 と", 32) == "名前 と"
    assert plots._wrapped("a\udcff\x1bb", 32) == "a\ufffd\ufffdb"


def test_a_plot_of_many_queries_stays_small(tmp_path: Path):
    pytest.importorskip("matplotlib")
    queries = [f"q{number}" for number in range(3_000)]
    qrels = Qrels({query: {"right": 1} for query in queries})
    random = np.random.default_rng(1)
    runs = [
        run(name, dict(zip(queries, random.integers(1, 9, len(queries)).tolist(), strict=True)))
        for name in "ab"
    ]
    plot(compare([score(one, qrels, ["RR@10"]) for one in runs]), tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").stat().st_size < 300_000


def test_a_plot_needs_no_display_and_leaves_the_settings_of_the_program(tmp_path: Path):
    pytest.importorskip("matplotlib")
    code = """
import os, sys
os.environ.pop("DISPLAY", None)
import matplotlib
matplotlib.rcParams["font.size"] = 31
from retriever.evaluation import Comparison, Qrels, Run, compare, plot, score
qrels = Qrels({str(n): {"a": 1} for n in range(9)})
runs = [Run({str(n): {"a": s, "b": 0.5} for n in range(9)}, name=f"短{s}") for s in (0.1, 0.9)]
plot(compare([score(run, qrels) for run in runs]), sys.argv[1])
assert matplotlib.rcParams["font.size"] == 31
assert "matplotlib.pyplot" not in sys.modules
"""
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path / "plot.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_format_of_a_plot_is_checked_without_drawing():
    plots.check("runs.PNG")
    with pytest.raises(InvalidEvaluation, match=r"\.png or \.svg"):
        plots.check("runs.jpeg")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda runs: plot(compare(runs), "plot.pdf"), r"plot\.pdf"),
        (lambda runs: plot(compare(runs), "plot"), "'plot'"),
        (lambda runs: plot(compare(runs), "plot.png", measure="AP"), "'AP'"),
    ],
)
def test_a_plot_of_a_wrong_name_is_refused(three, call, message: str):
    with pytest.raises(InvalidEvaluation, match=message) as refused:
        call(three)
    assert refused.value.hint

"""Comparisons of runs: pairs, corrections, verdicts, queries, and how they are written down."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retriever.errors import InvalidEvaluation, UnreadableFile
from retriever.evaluation import (
    Comparison,
    Qrels,
    Run,
    compare,
    plot,
    plots,
    read_queries,
    score,
    to_markdown,
)
from retriever.evaluation.labels import labels, letters, p_value
from retriever.evaluation.output_files import write_whole

pytest.importorskip("ir_measures")
GOLDEN = Path(os.environ.get("RETRIEVER_BENCH_DATA", "/work/shared/data")) / "golden"
QUERIES = [f"q{number}" for number in range(60)]
QRELS = Qrels({query: {"right": 1} for query in QUERIES}, name="sixty")


def run(name: str, ranks: dict[str, int]) -> Run:
    """Return a run that finds the right document of each query at a rank; 0 is not at all."""
    scores = {}
    for query, rank in ranks.items():
        found = {f"wrong{number:02}": -float(number) for number in range(1, 12)}
        scores[query] = {**found, "right": 0.5 - rank} if rank else found
    return Run(scores, name=name)


def ranks(seed: int, gain: int = 0) -> dict[str, int]:
    random = np.random.default_rng(seed)
    drawn = random.integers(3, 10, len(QUERIES)) - gain
    return dict(zip(QUERIES, drawn.tolist(), strict=True))


def evaluated(**runs: dict[str, int]) -> list:
    measures = ("RR@10", "Success@5")
    return [score(run(name, found), QRELS, measures) for name, found in runs.items()]


@pytest.fixture(scope="module")
def three() -> list:
    return evaluated(old=ranks(1), same=ranks(2), new=ranks(3, gain=2))


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


def test_texts_of_queries_are_read_from_both_formats(tmp_path: Path):
    texts = {"1": "wie weit ist der Mond", "ü-2": "月までの距離は"}
    objects = "\n".join(json.dumps({"_id": one, "text": text}) for one, text in texts.items())
    (tmp_path / "queries.jsonl").write_text(f"\ufeff{objects}\r\n\n", encoding="utf-8")
    lines = "".join(f"{one}\t{text}\r\n" for one, text in texts.items())
    (tmp_path / "topics.tsv").write_text(f"\ufeff{lines}", encoding="utf-8", newline="")
    assert read_queries(tmp_path / "queries.jsonl") == texts
    assert read_queries(tmp_path / "topics.tsv") == texts
    (tmp_path / "numbers.jsonl").write_text('{"_id": 7, "text": "seven"}\n')
    assert read_queries(tmp_path / "numbers.jsonl") == {"7": "seven"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"_id": "1", "text": "a"}\n{"_id": "1", "text": "b"}\n', ":2 has the query '1' again"),
        ('{"_id": "1", "text": "a"}\n\n{"id": "2"}\n', ":3 has no `_id` and `text`"),
        ('{"_id": "1", "text": "a"}\n["2"]\n', ":2 is ['2'], not a JSON object"),
        ('{"_id": "1", "text": null}\n', ":1 has no `_id` and `text`"),
        ('{"_id": "1", \n', ":1 is not JSON"),
        ("1\ta\n2 b\n", ":2 has no tab: '2 b'"),
        (b"1\tcaf\xe9\n", ":1 is not UTF-8"),
    ],
)
def test_queries_that_cannot_be_read_name_the_line(tmp_path: Path, content, message: str):
    path = tmp_path / "queries"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidEvaluation, match=re.escape(message)):
        read_queries(path)


def test_queries_that_do_not_exist_are_refused(tmp_path: Path):
    with pytest.raises(UnreadableFile, match="missing"):
        read_queries(tmp_path / "missing")


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
        (lambda runs: plot(compare(runs), "plot.pdf"), r"plot\.pdf"),
        (lambda runs: plot(compare(runs), "plot"), "'plot'"),
        (lambda runs: plot(compare(runs), "plot.png", measure="AP"), "'AP'"),
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


# --- reports ---------------------------------------------------------------------------------


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


def test_differences_of_counts_are_those_of_the_totals():
    both = [
        score(Run({query: found for query in QUERIES}, name=name), QRELS, ["NumRet"])
        for name, found in {"two": {"a": 1, "b": 1}, "five": dict.fromkeys("abcde", 1)}.items()
    ]
    (one,) = compare(both).differences
    assert (one.difference, one.interval) == (180, (180, 180))
    assert both[1].measures["NumRet"] - both[0].measures["NumRet"] == 180


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


# --- plots -----------------------------------------------------------------------------------


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


def test_a_file_is_written_whole_or_left_as_it_was(tmp_path: Path):
    path, link = tmp_path / "report.md", tmp_path / "link.md"
    write_whole(path, b"one")
    path.chmod(0o600)
    link.symlink_to(path)
    write_whole(link, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert link.is_symlink()
    with pytest.raises(OSError, match="No such file") as failed:
        write_whole(tmp_path / "missing" / "report.md", b"")
    assert failed.value.filename.endswith("missing/report.md")
    read_end, write_end = os.pipe()
    write_whole(f"/dev/fd/{write_end}", b"piped")
    assert os.read(read_end, 9) == b"piped"
    os.close(read_end)
    os.close(write_end)
    write_whole("/dev/null", b"three")
    assert not Path("/dev/null").is_file()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["link.md", "report.md"]


def test_the_format_of_a_plot_is_checked_without_drawing():
    plots.check("runs.PNG")
    with pytest.raises(InvalidEvaluation, match=r"\.png or \.svg"):
        plots.check("runs.jpeg")


# --- real runs -------------------------------------------------------------------------------


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the runs of TREC DL 2019 are not here")
def test_dense_and_lexical_runs_of_trec_differ_and_dense_ones_do_not():
    qrels = Qrels.read(GOLDEN / "qrels_full.trec")
    names = ["BM25", "BM25_RM3", "D_BERT_KD_TASB", "REP_LLAMA"]
    paths = [GOLDEN / "runs" / f"{name}.top100.trec" for name in names]
    found = compare([score(Run.read(path), qrels, ["nDCG@10"]) for path in paths], names=names)
    verdicts = {(one.run, one.baseline): one.verdict for one in found.differences}
    assert verdicts["BM25_RM3", "BM25"] == "no significant difference"
    assert verdicts["REP_LLAMA", "D_BERT_KD_TASB"] == "no significant difference"
    assert verdicts["D_BERT_KD_TASB", "BM25"] == verdicts["REP_LLAMA", "BM25_RM3"] == "better"

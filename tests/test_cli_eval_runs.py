"""The command `eval runs`, and the group `eval`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click import unstyle
from command_line import run, run_json

from retriever.cli.passages import cells
from retriever.evaluation import DEFAULT_MEASURES, Qrels, Run, score

pytest.importorskip("ir_measures", reason="the extra `eval` is not installed")

QRELS = {"1": {"a": 2, "b": 0}, "2": {"a": 1, "c": 1}, "3": {"d": 1}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, which is the current one, with qrels and two runs."""
    monkeypatch.chdir(tmp_path)
    lines = [f"{q} 0 {d} {grade}\n" for q, one in QRELS.items() for d, grade in one.items()]
    Path("qrels.txt").write_text("".join(lines))
    Run({"1": {"a": 2, "b": 1}, "2": {"x": 1, "c": 0.5}, "9": {"a": 1}}).write("good.trec")
    Run({"1": {"b": 2, "a": 1}, "2": {"x": 1}, "3": {"y": 1}}).write("bad.trec")
    return tmp_path


def test_json_has_unrounded_means_under_the_paths_as_given(folder: Path):
    done = run_json("eval", "runs", "--qrels", "./qrels.txt", "./good.trec", "bad.trec")
    assert (done["schema"], done["qrels"]) == (1, "./qrels.txt")
    assert [one["run"] for one in done["runs"]] == ["./good.trec", "bad.trec"]
    for one in done["runs"]:
        expected = score(Run.read(one["run"]), Qrels(QRELS))
        assert one["measures"] == dict(expected.measures)
        assert list(one["measures"]) == list(DEFAULT_MEASURES)
        assert one["intervals"] == {name: list(ends) for name, ends in expected.intervals.items()}
        assert "per_query" not in one
    good, bad = done["runs"]
    assert good["measures"]["RR@10"] == 0.5
    assert good["measures"]["R@100"] == pytest.approx(0.5)
    assert (good["queries"], good["missing_queries"], good["ignored_queries"]) == (3, 1, 1)
    assert (bad["queries"], bad["missing_queries"], bad["ignored_queries"]) == (3, 0, 0)


def test_measures_are_reported_under_their_canonical_names(folder: Path):
    asked = ["ndcg_cut_10", "MRR@10", "map", "P(rel=2)@1"]
    options = [part for name in asked for part in ("-m", name)]
    done = run_json("eval", "runs", "--qrels", "qrels.txt", "good.trec", *options, "--per-query")
    only = done["runs"][0]
    assert list(only["measures"]) == ["nDCG@10", "RR@10", "AP", "P(rel=2)@1"]
    assert only["per_query"]["RR@10"] == {"1": 1.0, "2": 0.5, "3": 0.0}
    assert only["per_query"]["P(rel=2)@1"] == {"1": 1.0, "2": 0.0, "3": 0.0}


def test_what_does_not_count_is_said(folder: Path):
    done = run("eval", "runs", "--qrels", "qrels.txt", "good.trec", "bad.trec")
    assert done.exit_code == 0
    assert (
        "good.trec: queries that are not in the qrels do not count: 1 of 3, such as '9'."
        in done.stderr
    )
    assert "good.trec: queries without results count as zero: 1 of 3, such as '3'." in done.stderr
    assert "bad.trec" not in done.stderr
    assert run("eval", "runs", "--qrels", "qrels.txt", "good.trec", "-q").stderr == ""


@pytest.mark.parametrize("columns", [40, 80, 100])
def test_tables_fit_the_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch, columns: int):
    monkeypatch.setenv("COLUMNS", str(columns))
    Run({"1": {"a": 1}}).write("a-very-long-name-of-a-run-with-文書検索-in-its-middle.trec")
    paths = sorted(str(path) for path in folder.glob("*.trec"))
    done = run("eval", "runs", "--qrels", "qrels.txt", *paths)
    lines = unstyle(done.stdout).splitlines()
    assert max(map(cells, lines)) <= columns
    heads = [line for line in lines if line.startswith("run")]
    assert [name for line in heads for name in line.split()[1:]] == list(DEFAULT_MEASURES)
    assert sum(line.startswith("bad.trec ") for line in lines) == len(heads)
    assert "0.000 to 0.000" in done.stdout


def test_the_help_of_the_group_shows_each_command_in_a_line():
    lines = run("eval", "--help").stdout.splitlines()
    shown = lines[lines.index("Commands:") + 1 :]
    assert [line.split()[0] for line in shown] == ["runs", "beir", "spans", "compare"]
    assert all(line.endswith(".") and not line.endswith("...") for line in shown)
    assert '    pip install "retriever-engine[eval]"' in lines


def test_one_run_is_a_list_of_measures(folder: Path):
    options = ("-m", "RR", "-m", "NumRet", "--per-query")
    lines = run("eval", "runs", "--qrels", "qrels.txt", "good.trec", *options).stdout.splitlines()
    assert lines[0] == "Means over 3 queries"
    assert lines[2].split()[:2] == ["RR", "0.5000"]
    assert lines[3].split()[:2] == ["NumRet", "4"]
    assert [line.split() for line in lines[-3:]] == [
        ["1", "1.0000", "2"],
        ["2", "0.5000", "2"],
        ["3", "0.0000", "0"],
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--qrels", "qrels.txt"], 2, "RUN"),
        (["good.trec"], 2, "--qrels"),
        (["--qrels", "good.trec", "good.trec"], 2, "good.trec:1 looks like a line of a run"),
        (["--qrels", "qrels.txt", "qrels.txt"], 2, "qrels.txt:1 looks like a line of qrels"),
        (["--qrels", "qrels.txt", "good.trec", "-m", "NDGC@10"], 2, "Did you mean nDCG"),
        (["--qrels", "qrels.txt", "gone.trec"], 3, "'gone.trec' cannot be read"),
        (["--qrels", "qrels.txt", "good.trec", "other.trec"], 2, "share no query"),
        (["--qrels", "qrels.txt", ""], 2, "is empty"),
        (["--qrels", "qrels.txt", "good.trec", "good.trec"], 2, "good.trec is named twice"),
        (["--qrels", "qrels.txt", "good.trec", "./good.trec"], 2, "are the same file"),
    ],
)
def test_refusals(folder: Path, arguments: list[str], code: int, message: str):
    Run({"Q1": {"a": 1}}).write("other.trec")
    done = run("eval", "runs", *arguments)
    assert done.exit_code == code
    assert message in done.stderr
    assert done.stdout == ""
    asked_json = run("eval", "runs", *arguments, "--json")
    assert json.loads(asked_json.stderr.splitlines()[-1])["error"]["message"]


def test_without_the_extra_the_error_names_it(folder: Path):
    code = (
        "import sys; sys.modules['ir_measures'] = None\n"
        "from retriever.cli import main; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "eval", "runs", "--qrels", "qrels.txt", "good.trec"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 7
    assert 'pip install "retriever-engine[eval]"' in done.stderr


def test_the_group_shows_its_commands_and_the_closest_name():
    shown = run("eval", "--help").stdout
    assert "runs" in shown
    assert "There is no command 'eval rusn'. Did you mean 'runs'?" in run("eval", "rusn").stderr
    assert run("eval").exit_code == 2

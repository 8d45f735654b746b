"""`retriever eval compare`: what it prints and writes, and what it refuses before it computes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from command_line import error_of, run, run_json

from retriever.evaluation import Run

pytest.importorskip("ir_measures")
QUERIES = [f"q{number:02}" for number in range(40)]
COMPARE = ("eval", "compare", "--qrels", "qrels.txt")


def write_run(path: Path, seed: int, gain: int = 0) -> None:
    random = np.random.default_rng(seed)
    scores = {}
    for query in QUERIES:
        rank = max(1, int(random.integers(2, 10)) - gain)
        scores[query] = {f"wrong{n:02}": -float(n) for n in range(1, 12)} | {"right": 0.5 - rank}
    Run(scores).write(path)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    Path("qrels.txt").write_text("".join(f"{query} 0 right 1\n" for query in QUERIES))
    Path("runs").mkdir()
    for number, (name, gain) in enumerate({"old": 0, "same": 0, "new": 3}.items()):
        write_run(Path(f"runs/{name}.trec"), number, gain)
    return tmp_path


RUNS = ("runs/old.trec", "runs/same.trec", "runs/new.trec")


def test_tables_fit_a_terminal_and_say_what_differs():
    done = run(*COMPARE, *RUNS, "--hardest", "2")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "nDCG@10 over 40 queries"
    assert re.fullmatch(r"A  old   0\.\d{4}  0\.\d{4} to 0\.\d{4}", lines[2])
    assert re.search(r"^B − A .*  no significant difference$", done.stdout, re.MULTILINE)
    assert re.search(r"^C − A .*  C is better$", done.stdout, re.MULTILINE)
    assert "corrected by Holm's procedure\nfor 3 comparisons" in done.stdout
    hardest = lines[lines.index("Hardest queries by nDCG@10") :]
    assert len(hardest) == 2 + 2 + 1 + 2 + 2


def test_differences_fit_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "40")
    done = run(*COMPARE, *RUNS, "-m", "nDCG@10", "-m", "NumRet")
    assert max(map(len, done.stdout.splitlines())) <= 40
    assert re.search(r"^B − A  no significant difference\n  Δ mean        [+−]0", done.stdout, re.M)
    assert re.search(r"^  \+/=/−         \d+/\d+/\d+$", done.stdout, re.M)


def test_json_has_the_figures_unrounded_and_runs_by_their_paths():
    found = run_json(*COMPARE, *RUNS, "-m", "nDCG@10", "-m", "Success@1", "--per-query")
    assert found["schema"] == 1
    assert [one["run"] for one in found["runs"]] == list(RUNS)
    assert (found["qrels"], found["queries"], found["baseline"]) == ("qrels.txt", 40, None)
    assert len(found["differences"]) == 6
    one = found["differences"][1]
    assert (one["run"], one["baseline"], one["measure"]) == (RUNS[2], RUNS[0], "nDCG@10")
    means = [run["measures"]["nDCG@10"] for run in found["runs"]]
    assert one["difference"] == pytest.approx(means[2] - means[0])
    assert one["verdict"] == "better"
    assert one["interval"][0] < one["difference"] < one["interval"][1]
    assert one["p"] < one["p_corrected"] < 0.05
    scores = found["per_query"]["nDCG@10"]
    assert list(scores) == QUERIES
    assert np.mean([row[RUNS[0]] for row in scores.values()]) == pytest.approx(means[0])
    assert found["hardest"][0]["scores"].keys() == set(RUNS)
    assert len(found["most_different"]) == 5
    assert {
        run["run"]: run["measures"] for run in run_json("eval", "runs", *COMPARE[2:], *RUNS)["runs"]
    }[RUNS[0]]["nDCG@10"] == means[0]


def test_a_baseline_may_be_among_the_runs_or_not():
    among = run_json(*COMPARE, *RUNS, "--baseline", RUNS[1])
    assert [(one["run"], one["baseline"]) for one in among["differences"]] == [
        (RUNS[0], RUNS[1]),
        (RUNS[2], RUNS[1]),
    ]
    apart = run_json(*COMPARE, RUNS[0], "--baseline", RUNS[1])
    assert [one["run"] for one in apart["runs"]] == [RUNS[1], RUNS[0]]
    assert len(apart["differences"]) == 1


def test_texts_of_queries_are_shown_beside_their_ids():
    said = "wie weit ist\u202e der \x1b[31mMond"
    texts = {query: f"{said} {query} {'月' * 90}" for query in QUERIES}
    lines = [json.dumps({"_id": query, "text": text}) for query, text in texts.items()]
    Path("queries.jsonl").write_text("\n".join(lines), encoding="utf-8")
    done = run(*COMPARE, *RUNS, "--queries", "queries.jsonl")
    assert done.exit_code == 0
    assert "wie weit ist<U+202E> der ␛[31mMond q" in done.stdout
    assert "\x1b" not in done.stdout
    assert max(len(line) + line.count("月") for line in done.stdout.splitlines()) <= 80
    found = run_json(*COMPARE, *RUNS, "--queries", "queries.jsonl", "--hardest", "1")
    assert found["hardest"][0]["text"] == texts[found["hardest"][0]["query"]]
    Path("others.tsv").write_text("1\tother\n")
    refused = run(*COMPARE, *RUNS, "--queries", "others.tsv")
    assert refused.exit_code == 2
    assert "others.tsv has none of the queries of qrels.txt" in refused.stderr


def test_a_run_whose_name_is_no_text_is_compared_and_drawn():
    pytest.importorskip("matplotlib")
    name = os.fsdecode(b"caf\xe9.trec")
    try:
        Path(name).write_bytes(Path(RUNS[2]).read_bytes())
    except OSError:
        pytest.skip("this file system has no such names")
    done = run(*COMPARE, RUNS[0], name, "--plot", "runs.svg", "--markdown", "runs.md")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "caf<U+DCE9>" in done.stdout
    assert ElementTree.parse("runs.svg").getroot().tag.endswith("svg")
    assert "caf\\udce9" in Path("runs.md").read_text(encoding="utf-8")


def test_a_plot_and_a_report_are_written_and_replaced():
    pytest.importorskip("matplotlib")
    for _ in range(2):
        done = run(*COMPARE, *RUNS, "--plot", "runs.png", "--markdown", "runs.md", "-q")
        assert (done.exit_code, done.stderr) == (0, "")
    assert Path("runs.png").read_bytes().startswith(b"\x89PNG")
    report = Path("runs.md").read_text(encoding="utf-8")
    assert "| A | old |" in report
    printed = run(*COMPARE, *RUNS, "--markdown", "-")
    assert printed.stdout == report
    assert sorted(path.name for path in Path().iterdir()) == [
        "qrels.txt",
        "runs",
        "runs.md",
        "runs.png",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((RUNS[0],), "runs/old.trec is one run"),
        ((RUNS[0], "--baseline", RUNS[0]), "runs/old.trec is one run"),
        ((RUNS[0], "./runs/../runs/old.trec"), "are the same file"),
        ((RUNS[0], RUNS[0]), "runs/old.trec is named twice"),
        ((*RUNS, "--plot", "runs.pdf"), "'runs.pdf'"),
        ((*RUNS, "--plot", "missing/runs.png"), "the folder 'missing', which does not exist"),
        ((*RUNS, "--plot", "runs.png/"), "is a folder"),
        ((*RUNS, "--markdown", "runs"), "--markdown 'runs' is a folder"),
        ((RUNS[0], RUNS[1], "--markdown", RUNS[2]), "does not end in .md"),
        ((*RUNS, "--markdown", "missing/report.md"), "the folder 'missing'"),
        ((*RUNS, "--markdown", "-", "--json"), "both print to standard output"),
        ((*RUNS, "-m", "nDGC@10"), "'nDGC@10' is not a measure"),
        ((*RUNS, "--hardest", "-1"), "-1"),
        ((), "RUN"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_read(arguments, message: str):
    if "runs.png/" in arguments:
        Path("runs.png").mkdir()
    if "-m" not in arguments:
        Path("qrels.txt").unlink()  # reading it would fail first
    done = run(*COMPARE, *arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert done.stdout == ""
    assert Path(RUNS[2]).stat().st_size


def test_what_is_read_is_not_replaced():
    Path("qrels.md").write_text(Path("qrels.txt").read_text())
    arguments = ("eval", "compare", "--qrels", "qrels.md", *RUNS, "--markdown", "./qrels.md")
    assert "would replace a file that is read" in run(*arguments).stderr
    assert Path("qrels.md").read_text() == Path("qrels.txt").read_text()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named_first():
    Path("locked").mkdir(mode=0o500)
    done = run(*COMPARE, *RUNS, "--plot", "locked/runs.png")
    assert (done.exit_code, "permission denied" in done.stderr) == (2, True)


def test_runs_of_other_queries_and_missing_files_are_errors():
    Path("others.trec").write_text("7 Q0 right 1 0.5 x\n")
    error = error_of(run(*COMPARE, RUNS[0], "others.trec", "--json"))
    assert error["code"] == "invalid_evaluation"
    assert "'others'" in error["message"]
    missing = run(*COMPARE, RUNS[0], "missing.trec")
    assert missing.exit_code == 3
    assert "missing.trec" in missing.stderr


def test_equal_runs_and_a_single_query_are_compared():
    Path("copy.trec").write_bytes(Path(RUNS[0]).read_bytes())
    same = run_json(*COMPARE, RUNS[0], "copy.trec")["differences"][0]
    assert (same["difference"], same["p"], same["ties"]) == (0, 1, 40)
    assert same["verdict"] == "no significant difference"
    Path("one.txt").write_text("q00 0 right 1\n")
    done = run("eval", "compare", "--qrels", "one.txt", RUNS[0], RUNS[2])
    assert done.exit_code == 0
    assert "over 1 query" in done.stdout
    assert "One query cannot show a difference." in " ".join(done.stdout.split())
    alone = run_json("eval", "compare", "--qrels", "one.txt", RUNS[0], RUNS[2])["differences"][0]
    assert alone["detectable"] is None


def test_many_runs_with_long_names_keep_to_the_terminal():
    for number in range(8):
        write_run(Path(f"runs/{'long-name-' * 12}{number}-実験.trec"), number, number)
    paths = [os.fspath(path) for path in sorted(Path("runs").glob("long*"))]
    done = run(*COMPARE, *paths, "--per-query")
    lines = done.stdout.splitlines()
    assert max(len(line) + line.count("実") + line.count("験") for line in lines) <= 80
    assert all(any(f"{number}-実験" in line for line in lines) for number in range(8))
    assert sum(" − " in line for line in lines) == 28
    assert sum(line.startswith("q") and line[1].isdigit() for line in lines) == 40 + 5 + 5

"""Most benchmarks are not run here, but they can be: they import, and say what they take."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner
from collections_in_beir_layout import write_collection

import benchmarks.words
from benchmarks import beir, compare, parity
from benchmarks.encode.__main__ import PARTS, main


def test_encode_explains_itself() -> None:
    said = CliRunner().invoke(main, ["--help"])
    assert said.exit_code == 0
    assert "--peers" in said.output
    assert all(part in said.output for part in PARTS)


@pytest.mark.parametrize("part", PARTS)
def test_parts_of_encode_say_what_their_limit_counts(part: str) -> None:
    module = importlib.import_module(f"benchmarks.encode.{part}")
    assert callable(module.run)
    assert module.LIMIT > 1
    assert "`--limit`" in module.__doc__ or part == "install"


def test_encode_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RETRIEVER_BENCH_DATA", raising=False)
    said = CliRunner().invoke(main, ["memory"])
    assert said.exit_code == 1
    assert "pass --data DIR or set $RETRIEVER_BENCH_DATA" in said.output


def test_a_collection_has_its_judged_queries(tmp_path: Path) -> None:
    collection = beir.load(write_collection(tmp_path / "small"))
    assert collection.documents["d1"] == "The pump Prime the pump before you start it."
    assert collection.relevant["q1"] == {"d1": 2}
    assert list(collection.queries) == ["q1", "q2", "q3", "q4", "q5"]
    (tmp_path / "small" / "corpus.jsonl").write_text("{}\n")
    with pytest.raises(SystemExit, match=r"corpus\.jsonl:1 "):
        beir.load(tmp_path / "small")


@pytest.mark.parametrize(
    ("theirs", "mine", "auto", "wrong"),
    [
        (0.6451, 0.6451, 0.6466, []),
        (0.6451, 0.6452, 0.6466, ["scifact: nDCG@10 is 0.6452 in float32, not 0.6451"]),
        (0.6451, 0.6451, 0.6476, ["scifact: nDCG@10 is 0.6476 in auto, not within 0.002 of 0.645"]),
    ],
)
def test_parity_fails_where_figures_differ(
    theirs: float, mine: float, auto: float, wrong: list[str]
) -> None:
    published = parity.PUBLISHED[parity.MINILM, "scifact"]
    systems = {parity.PEER: theirs, parity.FLOAT32: mine, parity.AUTO: auto}
    found = {name: Figures({parity.NDCG: value}) for name, value in systems.items()}
    assert parity.wrong_figures("scifact", published, found) == wrong


class Figures(NamedTuple):
    measures: dict[str, float]


# --- two versions in turn ------------------------------------------------------------------------


def test_compare_times_two_trees_and_fails_where_the_later_is_slower(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    arguments = [str(compare.ROOT), "add", "--rounds", "1", "--chunks", "20", "--json", str(report)]
    assert compare.main([*arguments, "--within", "1000"]) == 0
    found = json.loads(report.read_text())["parts"]["add"]
    assert found["rounds"] == 1
    assert found["ratio"] == pytest.approx(found["after_s"] / found["before_s"])
    assert "add: " in capsys.readouterr().out
    assert compare.main([*arguments, "--within", "-0.999"]) == 1


def test_compare_takes_the_median_of_the_ratios_of_rounds() -> None:
    found = compare.summary({"before": [1.0, 2.0, 4.0], "after": [1.5, 2.0, 4.0]})
    assert (found["ratio"], found["ratio_min"], found["ratio_max"]) == (1.0, 1.0, 1.5)
    assert (found["before_s"], found["after_s"]) == (2.0, 2.0)


@pytest.mark.parametrize("wrong", [["add"], [".", ".", ".", "add"], ["."]])
def test_compare_wants_one_or_two_trees_and_a_part(wrong: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        compare.parse(wrong)


def test_words_tells_which_files_have_a_known_language(tmp_path: Path) -> None:
    (tmp_path / "iso-8859-2-polish").mkdir()
    (tmp_path / "iso-8859-2-polish" / "a.xml").write_text("zażółć gęślą jaźń " * 9, "iso-8859-2")
    (tmp_path / "b.txt").write_text("of no known language")
    [(language, text)] = benchmarks.words._named(tmp_path)
    assert (language, text[:6]) == ("pl", "zażółć")
    assert [len(one) for one in benchmarks.words._passages(text * 9)] == [100] * 3
    said = CliRunner().invoke(benchmarks.words.main, ["--help"])
    assert "--documents" in said.output

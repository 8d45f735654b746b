"""The benchmark of chunking: where peers' chunks stand, its questions, its ranking, its tables."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.chunking import scoring, sources, tables
from benchmarks.chunking.__main__ import PARTS, main
from benchmarks.chunking.markdown import markdown
from benchmarks.chunking.peers import places
from benchmarks.chunking.systems import DEFAULT, sized
from benchmarks.chunking.vectors import Vectors
from retriever import Document


def test_it_explains_itself_and_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RETRIEVER_BENCH_DATA", raising=False)
    said = CliRunner().invoke(main, ["--help"])
    assert said.exit_code == 0
    assert all(part in said.output for part in PARTS)
    said = CliRunner().invoke(main, ["choose"])
    assert said.exit_code == 1
    assert "pass --data DIR or set $RETRIEVER_BENCH_DATA" in said.output


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([("A cat. ", 0), ("A dog.\n", 7)], ["A cat.", "A dog."]),
        ([("A cat.", None), ("A dog.", None)], ["A cat.", "A dog."]),
        ([("A cat.", 5), ("A cat.", 0)], ["A cat.", "A cat."]),  # a wrong offset is not believed
        ([("a cat . a dog .", None)], ["A cat. A dog."]),  # decoded from tokens
        ([("resume cafe", None)], ["Résumé\n\nCafé"]),
        ([("A bird.", None), ("A dog.", None)], [None, "A dog."]),
        ([("  ", 6)], [None]),
    ],
)
def test_chunks_of_peers_are_found_in_the_text(
    chunks: list[tuple[str, int | None]], expected: list[str | None]
) -> None:
    text = "A cat. A dog.\n\nA cat again. Résumé\n\nCafé"
    found = [None if span is None else text[slice(*span)] for span in places(text, chunks)]
    assert found == expected


def test_the_same_chunk_twice_is_found_at_both_places() -> None:
    chunks: list[tuple[str, int | None]] = [("yes", None), ("no", None), ("yes", None)]
    assert list(places("yes no yes", chunks)) == [(0, 3), (4, 6), (7, 10)]


def test_best_reads_as_many_chunks_as_the_budget_pays_for_and_breaks_ties_by_order() -> None:
    row = np.array([0.1, 0.9, 0.5, 0.9, 0.2], np.float32)
    lengths = np.array([10, 10, 10, 10, 10])
    assert scoring.best(row, lengths, 25).tolist() == [1, 3, 2]
    assert scoring.best(row, lengths, 20).tolist() == [1, 3]
    assert scoring.best(row, lengths, 999).tolist() == [1, 3, 2, 4, 0]


def test_best_looks_at_more_than_the_first_chunks_where_they_are_short() -> None:
    row = np.linspace(1, 0, 500, dtype=np.float32)
    assert scoring.best(row, np.ones(500, np.int64), 300).tolist() == list(range(300))


def _archive(folder: Path, files: dict[str, str]) -> None:
    with tarfile.open(folder / "documents.tar.xz", "w:xz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))


def test_a_question_about_markdown_is_taken_out_of_the_text_that_answers_it(
    tmp_path: Path,
) -> None:
    first = "The pump is driven by a motor that turns at three thousand revolutions per minute."
    middle = "A broken seal lets water into the housing and must be replaced at once."
    last = "The filter is cleaned every month with warm water and a soft brush from the kit."
    before = "Set the pressure of the outlet with the following command of the tool:"
    lines = ["pump set --outlet pressure=3 --unit bar", "pump wait --seconds 10", "pump show"]
    code = "\n".join(["```sh", *lines, "```"])
    filler = "".join(f"## Part {n}\n\nShort text number {n}.\n\n" for n in range(60))
    text = f"# Pump\n\n{first} {middle} {last}\n\n{before}\n\n{code}\n\n{filler}"
    _archive(tmp_path, {"docs/pump.md": text, "docs/short.md": "# Short\n"})
    source = markdown(tmp_path, tmp_path / "work")
    (document,) = source.documents
    assert {question.kind: question.text for question in source.questions} == {
        "code": before.rstrip(":"),
        "prose": middle,
    }
    for question in source.questions:
        assert question.text not in document.text
        assert question.marked is not None
        ((reference,),) = question.marked.alternatives
        assert document.text[reference.start : reference.end] == reference.text
        assert (code in reference.text) == (question.kind == "code")
    assert [heading.title for heading in document.headings][:2] == ["Pump", "Part 0"]


def test_a_table_has_intervals_and_paired_differences(capsys: pytest.CaptureFixture[str]) -> None:
    questions = [
        sources.Question.about(str(n), "q", [sources.Reference(str(n % 5), 0, "x")])
        for n in range(50)
    ]
    source = sources.Source("made", [Document("x", id=str(n)) for n in range(5)], questions)

    def scores(name: str, share: float, chunks: int) -> scoring.Scores:
        values = {m: (np.arange(50) % 50 < share * 50).astype(float) for m in scoring.RECALL}
        return scoring.Scores(name, chunks, 10, 0, 0.0, 0, values)

    found = [scores("base", 0.5, 100), scores("better", 0.8, 90)]
    report = tables.show_source(source, found, "base")
    printed = capsys.readouterr().out
    assert "made: 5 documents, 50 questions" in printed
    assert "bootstrap over documents (5)" in printed
    (row,) = [line for line in printed.splitlines() if line.startswith("| better") and "+" in line]
    assert "-10" in row
    assert row.count("+.300") >= 4
    assert report["systems"]["better"]["means"]["recall@1000"] == pytest.approx(0.8)
    tables.show_equal(source, found[1:], found[:1])
    assert "90 (better)" in capsys.readouterr().out


def test_a_system_is_scored_and_its_vectors_are_kept(tmp_path: Path) -> None:
    pumps = "The pump starts when the red lever is pulled down. " * 9
    frogs = "Frogs live in ponds and eat flies in the summer. " * 9
    documents = [
        Document(f"{pumps}\n\n{frogs}", id="long"),
        Document("Bread is baked.", id="bread"),
    ]
    place = documents[0].text.index("the red lever")
    questions = [
        sources.Question.about(
            "1", "How does the pump start?", [sources.Reference("long", place, "the red lever")]
        )
    ]
    source = sources.Source("made", documents, questions)
    vectors = Vectors(tmp_path, "all-MiniLM-L6-v2")
    found = scoring.score(sized(128, 0), source, vectors)
    assert found.values["recall@1000"].tolist() == [1.0]
    assert found.values["nDCG@10"].tolist() == [1.0]
    assert found.beyond == found.lost == 0
    assert found.chunks == 3
    assert vectors.tokens > 0
    again = Vectors(tmp_path, "all-MiniLM-L6-v2")
    assert scoring.score(sized(128, 0), source, again).values["recall@1000"].tolist() == [1.0]
    assert again.tokens == 0
    assert scoring.score(DEFAULT, source, again).chunks >= 2

"""Indexes evaluated by questions with marked answers: from Python, from files, by the command."""

from __future__ import annotations

import contextlib
import copy
import gzip
import json
import os
import pickle
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import error_of, run, run_json, small_models  # noqa: F401
from hypothesis import given
from hypothesis import strategies as st

from retriever import Chunking, Document, Index, SearchOptions
from retriever.errors import InvalidConfig, InvalidEvaluation, UnreadableFile
from retriever.evaluation import (
    Passage,
    Reference,
    SpanQuestion,
    evaluate_spans,
    read_span_questions,
    span_scores,
)
from retriever.evaluation.span_files import collection_of
from retriever.evaluation.statistics import intervals
from retriever.testing import HashEncoder

PUMP = "The pump stands in the cellar. Prime it before you start it. The key hangs by the door."
BEES = "  The swarm hangs in the apple tree.\n\nНе трогай улей зимой. 蜂は冬に眠る。  "
LEVY = "Visitors pay two crowns a night."
TEXTS = {"pump": PUMP, "bees": BEES, "7": LEVY}
SMALL = Chunking(tokens=8, overlap=0)


def marked(text: str, document: str, *quotes: str, **more: Any) -> dict[str, Any]:
    """Return a line that marks the quotes."""
    starts = [TEXTS[document].index(quote) for quote in quotes]
    spans = [[start, start + len(quote)] for start, quote in zip(starts, quotes, strict=True)]
    return {"text": text, "document": document, "spans": spans, **more}


OWN = [
    marked("Where does the pump stand?", "pump", "in the cellar"),
    marked("When does one prime the pump?", "pump", "Prime it", "before you start it"),
    marked("What do visitors pay?", "7", "two crowns a night"),
    marked("Когда не трогать улей?", "bees", "зимой"),
]


def lines(path: Path, rows: list[Any]) -> Path:
    written = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(f"{row}\n" for row in written), encoding="utf-8")
    return path


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index.open(tmp_path / "a.index", model=HashEncoder(), chunking=SMALL) as opened:
        opened.add([Document(text, id=name) for name, text in TEXTS.items()])
        yield opened


# --- from Python -----------------------------------------------------------------------------


def test_scores_are_those_of_the_hits_read_in_their_order(index: Index, tmp_path: Path):
    questions = read_span_questions(lines(tmp_path / "own.jsonl", OWN), index)
    budgets = (20, 50, 10_000)
    found = evaluate_spans(index, questions, budgets=budgets)
    totals = {budget: [0.0] * 5 for budget in budgets}
    for question in questions:
        hits = index.search(question.text, k=100, fold=False)
        passages = [Passage(hit.document_id, *hit.span) for hit in hits]
        expected = span_scores(passages, question, budgets)
        assert found.per_question[question.id] == expected
        for budget, scores in zip(budgets, expected, strict=True):
            totals[budget] = [a + b for a, b in zip(totals[budget], scores, strict=True)]
    for budget in budgets:
        means = [total / 4 for total in totals[budget]]
        assert list(found.measures[budget].values()) == pytest.approx(means)
        for name, (low, high) in found.intervals[budget].items():
            assert low <= found.measures[budget][name] <= high
    # All chunks fit into the largest budget, so every answer is read whole.
    assert found.measures[10_000]["recall"] == found.measures[10_000]["answer"] == 1
    assert 0 < found.measures[20]["recall"] < 1
    assert found.missing == ()
    assert found.questions == tuple(questions)


def test_intervals_draw_documents_with_their_questions(index: Index, tmp_path: Path):
    """Of 50 copies of a question about one document, and one about another."""
    rows = [{**OWN[0], "id": str(n)} for n in range(50)] + [marked(LEVY, "bees", "apple")]
    questions = read_span_questions(lines(tmp_path / "own.jsonl", rows), index)
    found = evaluate_spans(index, questions, budgets=[30])
    scores = [found.per_question[question.id][0].recall for question in questions]
    assert scores[0] != scores[-1]
    expected = intervals(
        np.array(scores)[:, None], clusters=[question.document for question in questions]
    )
    assert found.intervals[30]["recall"] == pytest.approx(tuple(expected[0]))
    assert found.intervals[30]["recall"] != pytest.approx(tuple(intervals(np.array([scores]).T)[0]))


def test_an_evaluation_can_be_sent_to_another_process_and_not_changed(index: Index, tmp_path: Path):
    questions = read_span_questions(lines(tmp_path / "own.jsonl", OWN), index)
    found = evaluate_spans(index, questions, budgets=[20, 10_000])
    for again in (found, pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert json.loads(json.dumps(again.to_dict())) == json.loads(json.dumps(found.to_dict()))
        assert (again.per_question, again.questions) == (found.per_question, found.questions)
        with pytest.raises(TypeError):
            again.measures[20]["recall"] = 1.0  # type: ignore[index]


def test_as_many_passages_are_read_as_fill_the_budget(tmp_path: Path):
    """Of documents so short that the first search is not nearly enough."""
    with Index.open(tmp_path / "b.index", model=HashEncoder()) as index:
        index.add([Document(f"pump {n:03}", id=str(n)) for n in range(200)])
        question = SpanQuestion("q", "pump 7", ((Reference("150", 0, "pump 150"),),))
        (whole,) = evaluate_spans(index, [question], budgets=[1_600]).per_question["q"]
        assert whole.recall == 1
        assert whole.precision == 8 / 1_600
        few = evaluate_spans(index, [question], SearchOptions(k=5), budgets=[1_600])
        assert few.per_question["q"][0].recall == 0
        (tokens,) = evaluate_spans(index, [question], budgets=[400], unit="tokens").per_question[
            "q"
        ]
        assert tokens == whole


def test_identical_passages_are_read_each_for_itself(tmp_path: Path):
    with Index.open(tmp_path / "b.index", model=HashEncoder()) as index:
        index.add([Document("The same text.", id=name) for name in "abc"])
        question = SpanQuestion("q", "same text", ((Reference("c", 4, "same"),),))
        found = evaluate_spans(index, [question], SearchOptions(k=9, fold=True), budgets=[100])
        assert found.per_question["q"][0] == (1, 4 / 42, 4 / 42, 1, 1)


def test_a_budget_of_tokens_is_that_of_the_model(index: Index):
    assert index.count_tokens(["The pump stands.", "", "蜂は"]) == [4, 0, 1]
    question = SpanQuestion("q", "in the cellar", ((Reference("pump", 19, "the cellar"),),))
    hit = index.search("in the cellar", k=1)[0]
    assert hit.document_id == "pump"
    tokens = index.count_tokens([hit.text])[0]
    found = evaluate_spans(index, [question], budgets=[tokens, 2 * tokens], unit="tokens")
    first = span_scores([Passage("pump", *hit.span)], question, [10_000])[0]
    assert found.per_question["q"][0] == first
    assert found.per_question["q"][1].precision < first.precision
    assert found.to_dict()["unit"] == "tokens"


def test_an_index_without_a_model_counts_no_tokens(tmp_path: Path):
    with Index.open(tmp_path / "v.index", dimension=2) as index:
        index.add(Document("text", id="a", embedding=[1.0, 0.0]))
        with pytest.raises(InvalidConfig, match="no model that counts tokens"):
            index.count_tokens(["text"])


def test_documents_that_are_not_in_the_index_count_as_not_found(index: Index):
    there = SpanQuestion("1", "visitors", ((Reference("7", 0, "Visitors pay"),),))
    gone = SpanQuestion("2", "visitors", ((Reference("gone", 0, "Visitors pay"),),))
    found = evaluate_spans(index, [there, gone], budgets=[1_000])
    assert found.missing == ("gone",)
    assert found.per_question["2"][0] == (0, 0, 0, 0, 0)
    assert found.measures[1_000]["recall"] == 0.5
    with pytest.raises(InvalidEvaluation, match=r"None of the .*\(1, such as 'gone'.* such as '7'"):
        evaluate_spans(index, [gone])


def test_an_answer_that_the_text_of_the_index_does_not_have_is_an_error(index: Index):
    question = SpanQuestion("q", "visitors", ((Reference("7", 1, "Visitors"),),))
    with pytest.raises(
        InvalidEvaluation, match=r"'q' marks 'Visitors' .* where the text is 'isitors '"
    ):
        evaluate_spans(index, [question])


def test_bad_arguments(index: Index):
    question = SpanQuestion("q", "visitors", ((Reference("7", 0, "Visitors"),),))
    for wrong in ([], [question, question], ["q"]):
        with pytest.raises(InvalidEvaluation, match="question"):
            evaluate_spans(index, wrong)
    with pytest.raises(InvalidEvaluation, match="budget"):
        evaluate_spans(index, [question], budgets=[0])
    for more in ({"unit": "words"}, {"options": {"k": 3}}, {"progress": 1}):
        with pytest.raises(InvalidConfig):
            evaluate_spans(index, [question], **more)
    with pytest.raises(InvalidConfig, match="index is"):
        evaluate_spans("a.index", [question])


# --- files -----------------------------------------------------------------------------------


def test_own_questions(index: Index, tmp_path: Path):
    rows = [
        *OWN,
        {"text": "?", "document": 7, "id": 3, "alternatives": [[[0, 8]], [[13, 16], [9, 12]]]},
        {"text": "Both?", "spans": [{"document": "7", "start": 0, "end": 8}, *both_of_bees()]},
    ]
    path = lines(tmp_path / "own.jsonl", rows)
    for texts in (index, TEXTS):
        questions = read_span_questions([path], texts)
        assert [question.id for question in questions] == [
            *(f"{path}:{n}" for n in range(1, 5)),
            "3",
            f"{path}:6",
        ]
        assert questions[1].alternatives == (
            (Reference("pump", 31, "Prime it"), Reference("pump", 40, "before you start it")),
        )
        assert questions[3].alternatives == ((Reference("bees", BEES.index("зимой"), "зимой"),),)
        assert questions[4].alternatives == (
            (Reference("7", 0, "Visitors"),),
            (Reference("7", 9, "pay"), Reference("7", 13, "two")),
        )
        assert questions[5].alternatives == (
            (Reference("7", 0, "Visitors"), Reference("bees", 2, "The swarm")),
        )


def both_of_bees() -> list[dict[str, Any]]:
    return [{"document": "bees", "start": 0, "end": 11}]


def test_files_as_others_write_them(index: Index, tmp_path: Path):
    """CRLF, a byte order mark, blank lines, gzip, and an id in the other normal form."""
    index.add(Document("Zum Café gehört ein Garten.", id=unicodedata.normalize("NFC", "café")))
    row = {"text": "Garten?", "document": unicodedata.normalize("NFD", "café"), "spans": [[20, 26]]}
    text = "\r\n\r\n".join(json.dumps(one, ensure_ascii=False) for one in [row, *OWN])
    plain = tmp_path / "own.jsonl"
    plain.write_bytes(text.encode("utf-8-sig"))
    packed = tmp_path / "own.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    for path in (plain, packed):
        questions = read_span_questions(path, index)
        assert len(questions) == 5
        assert questions[0].alternatives[0][0] == ("café", 20, "Garten")
        assert evaluate_spans(index, questions, budgets=[10_000]).missing == ()


def beir(folder: Path, *, texts: dict[str, str] = TEXTS, title: str = "A title") -> Path:
    """Make a folder in BEIR layout, and return its answers."""
    folder.mkdir(exist_ok=True)
    corpus = [{"_id": name, "title": title, "text": text} for name, text in texts.items()]
    lines(folder / "corpus.jsonl", corpus)
    lines(folder / "queries.jsonl", [{"_id": 1, "text": "pump?"}, {"_id": "2", "text": "bees?"}])
    answers = [("cellar", 23), ("in the cellar", 16)]
    return lines(
        folder / "answers.jsonl",
        [
            {
                "query_id": "1",
                "corpus_id": "pump",
                "answers": [{"text": text, "start": start, "votes": 3} for text, start in answers],
            },
            {
                "query_id": 2,
                "corpus_id": "bees",
                "answers": [{"text": "зимой. ", "start": BEES.index("зимой")}],
            },
        ],
    )


@pytest.mark.parametrize("title", ["A title", ""])
def test_quoted_answers_are_found_with_and_without_the_title(tmp_path: Path, title: str):
    path = beir(tmp_path / "folder", title=title)
    plain = read_span_questions(path)
    assert plain[0].alternatives == (
        (Reference("pump", 23, "cellar"),),
        (Reference("pump", 16, "in the cellar"),),
    )
    for with_title in (False, True):
        texts = {
            name: f"{title} {text}".strip() if with_title else text for name, text in TEXTS.items()
        }
        questions = read_span_questions(path, texts)
        for question in questions:
            for ((document, start, text),) in question.alternatives:
                assert texts[document][start : start + len(text)] == text
        with Index.open(tmp_path / f"{with_title}.index", model=HashEncoder()) as index:
            index.add([Document(text, id=name) for name, text in texts.items()])
            assert read_span_questions(path, index) == questions
            assert evaluate_spans(index, questions, budgets=[500]).measures[500]["recall"] == 1


def test_the_files_beside_the_answers_may_be_compressed(tmp_path: Path):
    path = beir(tmp_path / "folder")
    questions = read_span_questions(path, TEXTS)
    for name in ("corpus.jsonl", "queries.jsonl"):
        plain = path.with_name(name)
        plain.with_name(f"{name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    assert read_span_questions(path, TEXTS) == questions
    assert collection_of([path]) == path.parent


def test_a_title_that_is_the_beginning_of_the_text(tmp_path: Path):
    texts = {**TEXTS, "pump": PUMP}
    path = beir(tmp_path / "folder", title="The pump stands")
    questions = read_span_questions(
        path, {name: f"The pump stands {texts[name]}" for name in texts}
    )
    assert questions[0].alternatives[1][0].start == len("The pump stands ") + 16


@pytest.mark.parametrize(
    ("name", "count", "alternatives"), [("squad-dev", 10_570, 18_015), ("covidqa", 1_380, 1_380)]
)
def test_published_collections(name: str, count: int, alternatives: int):
    data = os.environ.get("RETRIEVER_BENCH_DATA")
    if not data or not (folder := Path(data, "retrieval", name)).is_dir():
        pytest.skip(f"$RETRIEVER_BENCH_DATA has no retrieval/{name}")
    rows = map(json.loads, (folder / "corpus.jsonl").read_text("utf-8").splitlines())
    texts = {row["_id"]: f"{row['title']} {row['text']}".strip() for row in rows}
    questions = read_span_questions(folder / "answers.jsonl", texts)
    assert len(questions) == count
    assert sum(len(question.alternatives) for question in questions) == alternatives
    for question in questions:
        for ((document, start, text),) in question.alternatives:
            assert texts[document][start : start + len(text)] == text


REST = ' "document": "7", "text": "a"}'
BROKEN = [
    ("{", "is not JSON"),
    ("[1, 2]", "not a JSON object"),
    ("\udcff", "not UTF-8"),
    ('{"document": "7", "spans": [[0, 1]]}', 'has no "text"'),
    ('{"text": " ", "document": "7", "spans": [[0, 1]]}', "has the \"text\" ' '"),
    ('{"text": "a", "spans": [[0, 1]]}', 'has no "document"'),
    ('{"text": "a", "document": "", "spans": [[0, 1]]}', "has the \"document\" ''"),
    ('{"text": "a", "document": true, "spans": [[0, 1]]}', 'has the "document" True'),
    ('{"text": "a", "document": "7"}', "has neither"),
    ('{"alternatives": [], "spans": [[0, 1]],' + REST, "has both"),
    ('{"alternatives": [],' + REST, 'has the "alternatives" \\[\\]'),
    ('{"alternatives": [[]],' + REST, "an answer without spans"),
    ('{"spans": [],' + REST, "an answer without spans"),
    ('{"spans": {"start": 0},' + REST, "not a list of spans"),
    ('{"spans": [0, 8],' + REST, "has the span 0\\."),
    ('{"spans": [[0, 8, 9]],' + REST, "has the span \\[0, 8, 9\\]"),
    ('{"spans": [[0, 8.0]],' + REST, "not whole numbers"),
    ('{"spans": [[false, 8]],' + REST, "not whole numbers"),
    ('{"spans": [["0", "8"]],' + REST, "not whole numbers"),
    ('{"spans": [{"start": 1}],' + REST, "not whole numbers"),
    ('{"spans": [[8, 8]],' + REST, "is empty"),
    ('{"spans": [[8, 2]],' + REST, "is empty"),
    ('{"spans": [[-3, 2]],' + REST, "begins before"),
    ('{"spans": [[8, 9]],' + REST, "only white space"),
    ('{"spans": [{"document": "gone", "start": 0, "end": 10000000000000}],' + REST, "ends after"),
    ('{"spans": [[0, 33]],' + REST, "ends after the end of '7', a text of 32 characters"),
    ('{"spans": [[0, 5]], "id": "x",' + REST, "has the question 'x' again, after .*own.jsonl:1\\."),
    (json.dumps(OWN[2]), "asks 'What do visitors pay\\?' of '7' again, after .*own.jsonl:2\\."),
]


@pytest.mark.parametrize(("line", "message"), BROKEN)
def test_a_broken_line_is_named(index: Index, tmp_path: Path, line: str, message: str):
    path = tmp_path / "own.jsonl"
    text = "".join(
        f"{one}\n" for one in (json.dumps({**OWN[0], "id": "x"}), json.dumps(OWN[2]), line)
    )
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidEvaluation, match=message) as refused:
        read_span_questions(path, index)
    error = refused.value
    assert (error.path, error.line) == (str(path), 3)
    assert error.message.startswith(f"{path}:3 ")
    assert error.hint


QUOTED = [
    ({"corpus_id": "pump"}, 'has no "query_id"'),
    ({"query_id": "1"}, 'has no "corpus_id"'),
    ({"query_id": "9"}, "has the query '9', which has no text in .*queries.jsonl"),
    ({"answers": []}, 'has the "answers" \\[\\]'),
    ({"answers": "cellar"}, "has the \"answers\" 'cellar'"),
    ({"answers": ["cellar"]}, "has the answer 'cellar'"),
    ({"answers": [{"start": 23}]}, 'has no "text"'),
    ({"answers": [{"text": "cellar"}]}, '"start" is None'),
    ({"answers": [{"text": "cellar", "start": 23.0}]}, '"start" is 23.0'),
    ({"answers": [{"text": "cellar", "start": True}]}, '"start" is True'),
    ({"answers": [{"text": "cellar", "start": -1}]}, '"start" is -1'),
    (
        {"answers": [{"text": "cellar", "start": 22}]},
        "'cellar' at character 22 .* where the text is ' cella'",
    ),
    ({"answers": [{"text": "cellar", "start": 999}]}, "where the text is ''"),
    ({}, "has the question '1' again"),
]


@pytest.mark.parametrize(("change", "message"), QUOTED)
def test_a_broken_quote_is_named(tmp_path: Path, change: dict[str, Any], message: str):
    path = beir(tmp_path / "folder")
    good = path.read_text(encoding="utf-8").splitlines()
    row = {**json.loads(good[0]), "query_id": "2", **change}
    for name in ("query_id", "corpus_id"):
        if set(change) == {"corpus_id"} and name == "query_id":
            del row[name]
        if set(change) == {"query_id"} and change["query_id"] == "1" and name == "corpus_id":
            del row[name]
    if not change:
        row["query_id"] = 1
    lines(path, [good[0], row])
    with pytest.raises(InvalidEvaluation, match=message) as refused:
        read_span_questions(path)
    assert (refused.value.path, refused.value.line) == (str(path), 2)


def test_an_index_of_another_text_is_refused(tmp_path: Path):
    path = beir(tmp_path / "folder")
    with pytest.raises(InvalidEvaluation, match=r"answers.jsonl:1 .*'pump', whose text"):
        read_span_questions(path, {**TEXTS, "pump": "Another text."})
    (tmp_path / "folder" / "corpus.jsonl").unlink()
    assert len(read_span_questions(path, TEXTS)) == 2
    with pytest.raises(
        InvalidEvaluation, match=r"'cellar' at character 23 .* where the text is 'he cel'"
    ):
        read_span_questions(path, {**TEXTS, "pump": f"at {PUMP}"})


def test_files_that_are_no_files(index: Index, tmp_path: Path):
    (tmp_path / "empty.jsonl").write_text("\n \n")
    with pytest.raises(InvalidEvaluation, match=r"empty.jsonl has no question"):
        read_span_questions(tmp_path / "empty.jsonl", index)
    for missing in (tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(UnreadableFile):
            read_span_questions(missing, index)
    with pytest.raises(InvalidEvaluation, match="mark characters of documents whose texts"):
        read_span_questions(lines(tmp_path / "own.jsonl", OWN))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=6))
def test_any_json_is_read_or_refused(value: Any):
    path = Path(os.environ["XDG_CACHE_HOME"]) / "any.jsonl"
    for name in ("text", "document", "spans", "alternatives", "query_id", "answers"):
        lines(path, [{**OWN[0], name: value}])
        with contextlib.suppress(InvalidEvaluation):
            assert len(read_span_questions(path, TEXTS)) == 1


# --- the command -----------------------------------------------------------------------------


@pytest.fixture
def place(small_models: None, tmp_path: Path) -> Path:  # noqa: F811
    with Index.open(tmp_path / ".retriever", model=HashEncoder(), chunking=SMALL) as opened:
        opened.add([Document(text, id=name) for name, text in TEXTS.items()])
    return lines(tmp_path / "own.jsonl", OWN)


def test_the_command_prints_a_table_and_json(place: Path):
    done = run("eval", "spans", "own.jsonl", "--budget", "20,10000")
    assert done.exit_code == 0, done.stderr
    table = done.stdout.splitlines()
    assert table[0] == "4 questions about 3 documents; means by budget, with 95 % intervals"
    assert table[1].split() == ["characters", "20", "10,000"]
    recall = next(line for line in table if line.startswith("recall"))
    assert recall.split()[2] == "1.0000"
    assert table[table.index(recall) + 1].endswith("1.000 to 1.000")
    assert table[-3:] == [
        "3 documents in 6 chunks; index .retriever.",
        "Mode hybrid (convex, weight 0.7); model hash.",
        "Chunking: windows of 8 tokens, no overlap.",
    ]
    assert max(map(len, table)) <= 80
    answer = run_json("eval", "spans", "own.jsonl", "--budget", "20,10000")
    assert answer["schema"] == 1
    assert (answer["questions"], answer["documents"], answer["missing_documents"]) == (4, 3, [])
    first, last = answer["budgets"]
    assert (first["budget"], last["budget"], last["recall"]) == (20, 10_000, 1)
    assert recall.split()[1] == f"{first['recall']:.4f}"
    settings = answer["settings"]
    assert (settings["index"], settings["documents"]) == (answer["index"], 3)
    assert settings["chunking"]["tokens"] == 8
    assert settings["options"]["k"] is None
    low, high = first["intervals"]["recall"]
    assert low <= first["recall"] <= high


def test_the_command_writes_the_scores_of_each_question(place: Path):
    options = ("--per-question", "scores.jsonl", "--unit", "tokens", "--budget", "8", "-k", "1")
    answer = run_json("eval", "spans", str(place), *options)
    rows = [json.loads(line) for line in Path("scores.jsonl").read_text("utf-8").splitlines()]
    assert [row["text"] for row in rows] == [row["text"] for row in OWN]
    assert [row["document"] for row in rows] == ["pump", "pump", "7", "bees"]
    mean = sum(row["budgets"][0]["recall"] for row in rows) / 4
    assert answer["budgets"][0]["recall"] == pytest.approx(mean)


def test_the_command_says_which_documents_are_missing(place: Path):
    lines(place, [*OWN, {"text": "Who?", "document": "gone.md", "spans": [[3, 9]]}])
    done = run("eval", "spans", "own.jsonl")
    assert "1 document with marked answers not in the index, such as gone.md" in done.stderr
    assert done.stdout.startswith("5 questions about 4 documents")
    assert run("eval", "spans", "own.jsonl", "-q").stderr == ""
    assert run_json("eval", "spans", "own.jsonl")["missing_documents"] == ["gone.md"]


def test_the_command_reads_quoted_answers(place: Path, tmp_path: Path):
    path = beir(tmp_path / "folder")
    answer = run_json("eval", "spans", str(path), str(place), "--budget", "10000")
    assert answer["questions"] == 6
    assert answer["budgets"][0]["answer"] == 1


def test_the_command_indexes_the_corpus_beside_the_answers(place: Path, tmp_path: Path):
    path = beir(tmp_path / "squad")
    told = run("eval", "spans", str(path), "--budget", "10000").stdout.splitlines()
    assert told[0] == "Created squad.index."
    answer = run_json("eval", "spans", str(path), "--budget", "10000")
    assert Path(answer["index"]).name == "squad.index"
    assert answer["budgets"][0]["answer"] == 1
    with Index.open("squad.index") as made:
        assert made.get("7").text == f"A title {LEVY}"
        before = made.status().seq
    assert run_json("eval", "spans", str(path), "--budget", "10000") == answer
    with Index.open("squad.index") as made:
        assert made.status().seq == before
    # A question more, about a document more.
    with (tmp_path / "squad" / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "9", "title": "Key", "text": "It hangs by the door."}\n')
    with path.open("a") as file:
        file.write(
            '{"query_id": "3", "corpus_id": "9", "answers": [{"text": "door", "start": 16}]}\n'
        )
    with (tmp_path / "squad" / "queries.jsonl").open("a") as file:
        file.write('{"_id": "3", "text": "Where is the key?"}\n')
    more = run_json("eval", "spans", str(path), "--budget", "10000")
    assert (more["documents"], more["missing_documents"]) == (3, [])
    assert more["budgets"][0]["answer"] == 1
    # Of files in several folders, and of own questions, none is the collection.
    both = run("eval", "spans", str(path), str(place))
    assert "None of" not in both.stderr
    assert run_json("eval", "spans", str(place))["index"].endswith(".retriever")


def test_the_scores_of_questions_do_not_replace_a_file_of_the_index(place: Path):
    for file in Path(".retriever").iterdir():
        done = run("eval", "spans", "own.jsonl", "--per-question", str(file))
        assert "would replace a file that is read" in done.stderr
    assert run("verify").exit_code == 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["missing.jsonl"], 3, "missing.jsonl"),
        (["missing.jsonl", "-i", "nowhere"], 3, "'missing.jsonl' cannot be read"),
        (["a folder"], 2, "a folder is a folder"),
        (["other.jsonl"], 2, "other.jsonl:1 has no \"text\"; its keys are 'question'"),
        (["own.jsonl", "--budget", "1,x"], 2, "'1,x'"),
        (["own.jsonl", "--budget", "0"], 2, "'0'"),
        (["own.jsonl", "--budget", ""], 2, "''"),
        (["own.jsonl", "--unit", "words"], 2, "words"),
        (["own.jsonl", "-k", "0"], 2, "k is 0"),
        (["own.jsonl", "--candidates", "5"], 2, "--rerank"),
        (["own.jsonl", "--per-question", "no/where.jsonl"], 2, "no/where.jsonl"),
        (["own.jsonl", "--per-question", "."], 2, "is a folder"),
        (["own.jsonl", "--per-question", "./own.jsonl"], 2, "would replace a file that is read"),
        (["own.jsonl", "-i", "nowhere"], 3, "nowhere"),
        (["broken.jsonl"], 2, "broken.jsonl:1 is not JSON"),
        ([], 2, "FILE"),
    ],
)
def test_errors_of_the_command(place: Path, options: list[str], code: int, message: str):
    Path("broken.jsonl").write_text("{'text': 1}\n")
    Path("other.jsonl").write_text('{"question": "Who?"}\n')
    Path("a folder").mkdir()
    before = place.read_bytes()
    done = run("eval", "spans", *options, "--json")
    assert done.exit_code == code
    assert place.read_bytes() == before
    assert message in error_of(done)["message"]


def test_the_help_shows_both_forms(small_models: None):  # noqa: F811
    shown = run("eval", "spans", "--help").stdout
    assert '{"text": "Where is it?", "document": "manual.md", "spans": [[120, 164]]}\n' in shown
    assert "recall        share of the answer's characters that were read\n" in shown


# --- a real model ----------------------------------------------------------------------------


@pytest.mark.model
def test_smaller_passages_hold_more_of_an_answer(tmp_path: Path):
    """Of the handbook's pages, with all-MiniLM-L6-v2: what the default of chunking rests on."""
    folder = Path(__file__).parents[1] / "data" / "handbook" / "water"
    recalls = {}
    for tokens in (None, 64):
        path = tmp_path / f"{tokens}.index"
        chunking = Chunking(tokens=tokens, overlap=0)
        with Index.open(path, model="all-MiniLM-L6-v2", chunking=chunking) as index:
            index.add_files(folder)
            questions = [
                SpanQuestion(
                    f"{document.id}:{n}",
                    " ".join(sentence.split()),
                    ((Reference(document.id or "", document.text.index(sentence), sentence),),),
                )
                for document in index.documents()
                for n, sentence in enumerate(document.text.split(". "))
                if 40 < len(sentence) < 200 and "\n\n" not in sentence
            ]
            assert len(questions) > 20
            found = evaluate_spans(index, questions, budgets=[500])
            recalls[tokens] = found.measures[500]["recall"]
    assert recalls[64] > recalls[None]
    assert recalls[64] > 0.8

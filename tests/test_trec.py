"""TREC runs and qrels, and BEIR's qrels: files as others write them, and malformed ones."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever import InvalidConfig, InvalidEvaluation, UnreadableFile
from retriever.evaluation import Qrels, Run
from retriever.evaluation.qrels import MOST_GRADE

RUN = "1 Q0 a 1 0.5 mine\n1 Q0 b 2 0.25 mine\nq-2 Q0 a 1 -3e2 mine\n"
QRELS = "1 0 a 2\n1 0 b 0\nq-2 0 a -1\n"
AS_RUN = {"1": {"a": 0.5, "b": 0.25}, "q-2": {"a": -300.0}}
AS_QRELS = {"1": {"a": 2, "b": 0}, "q-2": {"a": -1}}


def written(folder: Path, content: str | bytes, name: str = "file.txt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def spaced(text: str) -> bytes:
    """Return the same columns as people and programs also separate them."""
    return text.replace(" ", " \t  ").replace("\n", "  \r\n\r\n").encode()


VARIANTS = {
    "plain": lambda text: text.encode(),
    "CRLF, tabs and empty lines": spaced,
    "BOM": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "no newline at the end": lambda text: text.rstrip().encode(),
    "gzip": lambda text: gzip.compress(text.encode()),
    "gzip with a BOM": lambda text: gzip.compress(b"\xef\xbb\xbf" + text.encode()),
    "interleaved queries": lambda text: "".join(
        sorted(text.splitlines(keepends=True), key=lambda line: line.split()[2])
    ).encode(),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_files_of_others(tmp_path: Path, variant: str):
    run = Run.read(written(tmp_path, VARIANTS[variant](RUN), "mine.trec"))
    assert run == Run(AS_RUN)
    assert run.name == "mine"
    qrels = Qrels.read(written(tmp_path, VARIANTS[variant](QRELS), "qrels.test.tsv.gz"))
    assert qrels == Qrels(AS_QRELS)
    assert qrels.name == "qrels.test"


def test_ids_are_text_of_any_script(tmp_path: Path):
    text = "0007 Q0 7.0 1 1 x\n７ Q0 文書\u00a01 1 2 x\nクエリ Q0 😀 1 3 x\n"
    run = Run.read(written(tmp_path, text))
    assert {query: list(run[query]) for query in run} == {
        "0007": ["7.0"],
        "７": ["文書\u00a01"],
        "クエリ": ["😀"],
    }


@pytest.mark.parametrize(
    "header", ["query-id\tcorpus-id\tscore\n", "qid\tdoc\tscore\n", "q\td\tGrade\n", ""]
)
def test_beir_qrels_with_and_without_their_header(tmp_path: Path, header: str):
    content = f"{header}1\t7\t1.0\n 1\tdoc one \t2\nq 2\t7\t-1\n".replace("\n", "\r\n")
    qrels = Qrels.read(written(tmp_path, content))
    assert qrels == {"1": {"doc one": 2, "7": 1}, "q 2": {"7": -1}}


MALFORMED_QRELS = {
    "1 0 a 1\n1 0 b\n": (2, "has 3 columns", "query iteration document grade"),
    "1 0 a 1 x\n": (1, "has 5 columns", "query iteration document grade"),
    "a\n": (1, "has 1 column:", "query iteration document grade"),
    "1 0 a 1_0\n": (1, "has the grade '1_0'", "integers"),
    "1\ta\thigh\n1\tb\t1\n": (1, "has the grade 'high'", "header is `query-id"),
    "query-id\tcorpus-id\tscore\n\ta\t1\n": (2, "lacks an id or the grade", "with tabs"),
    "query-id\tcorpus-id\tscore\n1\t \t1\n": (2, "lacks an id or the grade", "with tabs"),
    "1 0 a 1\n" + 2**20 * "x": (2, "has more than 1,048,576 bytes", "text file"),
    "1 0 a 1\n1 0 b relevant\n": (2, "has the grade 'relevant'", "integers"),
    "1 0 a 0.5\n": (1, "has the grade '0.5'", "integers"),
    "1 0 a nan\n": (1, "has the grade 'nan'", "integers"),
    "1 0 a inf\n": (1, "has the grade 'inf'", "integers"),
    "1 0 a 5000000\n": (1, "has the grade '5000000'", "1,000,000 at most"),
    "query-id\tcorpus-id\tscore\n1\ta\tx\n": (2, "has the grade 'x'", "integers"),
    "1 0 a 1\n\n2 0 a 1\n1 0 a 0\n": (4, "'a' for query '1' again, after line 1", "Keep one"),
    "1 0 a 1\n1 0 a 1\n": (2, "again, after line 1", "Keep one"),
    "1\ta\t1\n1\ta\t0\n": (2, "again, after line 1", "Keep one"),
    RUN: (1, "looks like a line of a run", "each in its own place"),
    b"1 0 \xe9 1\n": (1, "not UTF-8", "iconv"),
    "1 0 a 1\n".encode("utf-16"): (None, "is in UTF-16", "iconv"),
    "": (None, "holds no judgement", "query iteration document grade"),
    "\n \n": (None, "holds no judgement", "query iteration document grade"),
    "query-id\tcorpus-id\tscore\n": (None, "holds no judgement", "query iteration"),
}
MALFORMED_RUNS = {
    "1 Q0 a 1 0.5 x\n1 Q0 b 2 0.5\n": (2, "has 5 columns", "query Q0 document rank score"),
    "1 Q0 my doc 1 0.5 x\n": (1, "has 7 columns", "white space"),
    "1 Q0 a 1 high x\n": (1, "has the score 'high'", "finite"),
    "1 Q0 a 1 1_0 x\n": (1, "has the score '1_0'", "finite"),
    bytes(2**20): (1, "has more than 1,048,576 bytes", "text file"),
    "1 Q0 a 1 nan x\n": (1, "has the score 'nan'", "finite"),
    "1 Q0 a 1 -inf x\n": (1, "has the score '-inf'", "finite"),
    "1 Q0 a 1 1e999 x\n": (1, "has the score '1e999'", "finite"),
    "1 Q0 a 1 2 x\n1 Q0 b 2 1 x\n1 Q0 a 3 0 x\n": (3, "again, after line 1", "ranks each document"),
    QRELS: (1, "looks like a line of qrels", "each in its own place"),
    "query-id\tcorpus-id\tscore\n1\ta\t1\n": (1, "looks like a line of qrels", "own place"),
    '{"1": {"a": 0.5}}': (1, "has 3 columns", "query Q0 document rank score"),
    b"1 Q0 \xff 1 1 x\n": (1, "not UTF-8", "iconv"),
    "1 Q0 a 1 1 x\n".encode("utf-16-le"): (1, "", "query Q0 document rank score"),
    "": (None, "holds no result", "query Q0 document rank score"),
}


@pytest.mark.parametrize("content", MALFORMED_QRELS)
def test_malformed_qrels(tmp_path: Path, content: str | bytes):
    _check_refusal(Qrels.read, written(tmp_path, content), *MALFORMED_QRELS[content])


@pytest.mark.parametrize("content", MALFORMED_RUNS)
def test_malformed_runs(tmp_path: Path, content: str | bytes):
    _check_refusal(Run.read, written(tmp_path, content), *MALFORMED_RUNS[content])


def _check_refusal(read, path: Path, line: int | None, message: str, hint: str) -> None:
    with pytest.raises(InvalidEvaluation) as caught:
        read(path)
    assert (caught.value.path, caught.value.line) == (str(path), line)
    place = f"{path}:{line} " if line else f"{path} "
    assert caught.value.message.startswith(place)
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("read", [Run.read, Qrels.read])
def test_files_that_cannot_be_read(tmp_path: Path, read):
    lines = (RUN if read == Run.read else QRELS).splitlines(keepends=True)[:1]
    damaged = written(tmp_path, gzip.compress("".join(lines).encode())[:-4], "a.gz")
    for path in (tmp_path / "missing.txt", tmp_path, damaged):
        with pytest.raises(UnreadableFile, match="cannot be read") as caught:
            read(path)
        assert str(path) in caught.value.message


# --- writing ---------------------------------------------------------------------------------

IDS = st.text(min_size=1, max_size=6).filter(lambda text: text.split() == [text])
SCORES = st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(IDS, st.dictionaries(IDS, SCORES, min_size=1), min_size=1))
def test_a_run_that_was_written_is_read_as_it_was(tmp_path_factory, scores):
    try:
        "".join([*scores, *(one for documents in scores.values() for one in documents)]).encode()
    except UnicodeEncodeError:
        return
    path = tmp_path_factory.mktemp("run") / "run.trec"
    run = Run(scores)
    run.write(path)
    again = Run.read(path)
    assert again == run
    with np.errstate(over="ignore"):
        assert [again.ranking(query) for query in run] == [run.ranking(query) for query in run]


def test_a_written_run_is_trec(tmp_path: Path):
    path = tmp_path / "out.trec"
    Run({"1": {"a": 0.1, "b": 2, "c": 0.1}, "2": {}}, name="my run").write(path)
    assert path.read_text() == "1 Q0 b 1 2.0 my_run\n1 Q0 c 2 0.1 my_run\n1 Q0 a 3 0.1 my_run\n"
    assert [one.name for one in tmp_path.iterdir()] == ["out.trec"]
    Run({"1": {"a": 1}}).write(tmp_path / "out.trec.gz")
    assert gzip.decompress((tmp_path / "out.trec.gz").read_bytes()) == b"1 Q0 a 1 1.0 run\n"


@pytest.mark.parametrize("scores", [{"1": {"a b": 1}}, {"1 2": {"a": 1}}, {"1": {"a\n": 1}}])
def test_ids_that_the_format_cannot_hold_are_not_written(tmp_path: Path, scores):
    path = written(tmp_path, "before")
    with pytest.raises(InvalidEvaluation, match="white space"):
        Run(scores).write(path)
    assert path.read_text() == "before"
    assert [one.name for one in tmp_path.iterdir()] == ["file.txt"]


def test_what_is_not_text_is_not_written(tmp_path: Path):
    path = written(tmp_path, "before")
    with pytest.raises(InvalidEvaluation, match=r"UTF-8 cannot hold .*1 Q0 .ud800"):
        Run({"0": {"a": 1.0}, "1": {"\ud800": 1.0}}).write(path)
    assert path.read_text() == "before"
    Run({"1": {"a": 1.0}}, name="caf\udce9").write(path)  # the name of a file in Latin-1
    assert path.read_text() == "1 Q0 a 1 1.0 caf?\n"


# --- objects ---------------------------------------------------------------------------------


def test_order_is_that_of_trec_eval():
    run = Run({"1": {"a": 1, "ä": 1, "z": 1, "10": 1, "9": 1, "b": 2, "c": 1 + 1e-9, "d": 0.5}})
    assert run.ranking("1") == ("b", "ä", "z", "c", "a", "9", "10", "d")
    with pytest.raises(KeyError):
        run.ranking("2")


def test_objects_of_ir_measures_are_taken(tmp_path: Path):
    ir_measures = pytest.importorskip("ir_measures", reason="the extra `eval` is not installed")
    run, qrels = written(tmp_path, RUN, "a.trec"), written(tmp_path, QRELS, "a.qrels")
    assert Run(ir_measures.read_trec_run(str(run))) == Run.read(run)
    assert Qrels(ir_measures.read_trec_qrels(str(qrels))) == Qrels.read(qrels)
    with pytest.raises(InvalidEvaluation, match="'a' occurs twice for query '1'"):
        Run([ir_measures.ScoredDoc("1", "a", 1.0), ir_measures.ScoredDoc("1", "a", 2.0)])


def test_they_are_immutable_mappings():
    source = {"1": {"a": 1}}
    qrels = Qrels(source, name="mine")
    source["1"]["a"] = 5
    assert qrels["1"]["a"] == 1
    with pytest.raises(TypeError):
        qrels["1"]["a"] = 2  # type: ignore[index]
    with pytest.raises(TypeError):
        qrels["2"] = {}  # type: ignore[index]
    assert repr(qrels) == "<Qrels 'mine': 1 query, 1 judgement>"
    assert repr(Run({"1": {"a": 1, "b": 2}, "2": {}})) == "<Run 'run': 2 queries, 2 documents>"
    assert qrels == {"1": {"a": 1}}
    assert qrels != Run({"1": {"a": 1}})
    assert Qrels({"1": {"a": np.int64(2)}}) == Qrels({"1": {"a": 2}})
    assert Run({"1": {"a": np.float32(0.5)}})["1"] == {"a": 0.5}
    with pytest.raises(TypeError, match="unhashable"):
        hash(qrels)


@pytest.mark.parametrize(
    "given",
    [
        {"1": {"a": "2"}},
        {"1": {"a": 1.0}},
        {"1": {"a": True}},
        {"1": {"a": MOST_GRADE + 1}},
        {"1": {7: 1}},
        {1: {"a": 1}},
        {"": {"a": 1}},
        {"1": {}},
        {"1": ["a"]},
        ["a"],
        "1",
        None,
    ],
)
def test_qrels_that_are_refused(given):
    with pytest.raises(InvalidEvaluation) as caught:
        Qrels(given)
    assert caught.value.hint


@pytest.mark.parametrize("read", [Run.read, Qrels.read, Run({"1": {"a": 1}}).write])
@pytest.mark.parametrize("path", [None, 0, b"x", "", "a\0b"])
def test_paths_that_are_none_are_refused(read, path):
    with pytest.raises(InvalidConfig, match="The path of the"):
        read(path)


@pytest.mark.parametrize(
    "given",
    [
        {"1": {"a": float("nan")}},
        {"1": {"a": float("inf")}},
        {"1": {"a": "0.5"}},
        {"1": {"a": True}},
        {"1": {"a": None}},
        {"1": {b"a": 1}},
        {"1": {"a": 10**400}},
        {"1": ["a"]},
        7,
    ],
)
def test_runs_that_are_refused(given):
    with pytest.raises(InvalidEvaluation) as caught:
        Run(given)
    assert caught.value.hint

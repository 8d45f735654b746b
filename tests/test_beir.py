"""Collections in BEIR layout: what is read of them, and what is refused with its line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from collections_in_beir_layout import CORPUS, QRELS, QUERIES, json_lines, tsv, write_collection

from retriever.errors import InvalidEvaluation, UnreadableFile
from retriever.evaluation.beir import Collection


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_collection(tmp_path / "small")


def read_all(folder: Path, split: str) -> None:
    collection = Collection.open(folder)
    collection.qrels(split)
    collection.queries(split)
    collection.document_ids()


def refused(folder: Path, *, split: str = "test") -> InvalidEvaluation:
    """Read all of a collection and return the error."""
    with pytest.raises(InvalidEvaluation) as raised:
        read_all(folder, split)
    assert raised.value.hint
    return raised.value


# --- what is read -----------------------------------------------------------------------------


def test_a_collection_has_documents_queries_and_splits(folder: Path):
    collection = Collection.open(folder)
    assert (collection.name, collection.splits) == ("small", ("test", "train"))
    assert collection.queries() == {name: QUERIES[name] for name in QRELS}
    assert collection.queries("train") == {"train": "what do visitors pay"}
    assert collection.queries(None) == QUERIES
    assert {q: dict(grades) for q, grades in collection.qrels().items()} == QRELS
    documents = {document.id: document for document in collection.documents()}
    assert list(documents) == [row["_id"] for row in CORPUS]
    assert documents["d1"].text == "The pump Prime the pump before you start it."
    assert documents["d2"].text == "The swarm hangs in the apple tree."
    assert documents["d4"].text == "Насос остановлен до утра."
    assert documents["d5"].text == "井戸 井戸の水は冷たい。"
    assert documents["d3"].metadata == {"year": 2024}
    assert documents["d5"].metadata == {"url": "a"}
    assert all(document.title is None for document in documents.values())


def test_ids_are_kept_in_eight_bytes_each(folder: Path):
    ids = Collection.open(folder).document_ids()
    assert len(ids) == len(CORPUS)
    assert all(row["_id"] in ids for row in CORPUS)
    assert not any(other in ids for other in ("d9", "", 1))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_files_of_other_systems_are_read_alike(folder: Path, end: str, bom: bytes):
    expected = Collection.open(folder)
    other = write_collection(folder.parent / "other" / "small")
    objects = [{"_id": name, "text": text} for name, text in QUERIES.items()]
    for name, text in (
        ("corpus.jsonl", json_lines(CORPUS, end) + end),
        ("queries.jsonl", json_lines(objects, end)),
        ("qrels/test.tsv", tsv(QRELS, end)),
    ):
        (other / name).write_bytes(bom + text.encode())
    read = Collection.open(other)
    assert list(read.documents()) == list(expected.documents())
    assert read.queries() == expected.queries()
    assert read.qrels() == expected.qrels()


def test_compressed_files_are_read(folder: Path):
    expected = list(Collection.open(folder).documents())
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        data = (folder / name).read_bytes()
        (folder / f"{name}.gz").write_bytes(gzip.compress(data))
        (folder / name).unlink()
    collection = Collection.open(folder)
    assert list(collection.documents()) == expected
    assert collection.queries(None) == QUERIES
    assert collection.splits == ("test", "train")
    assert {q: dict(grades) for q, grades in collection.qrels().items()} == QRELS
    data = (folder / "corpus.jsonl.gz").read_bytes()
    (folder / "corpus.jsonl.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(UnreadableFile, match=r"corpus\.jsonl\.gz"):
        Collection.open(folder).document_ids()


def test_ids_may_be_numbers(tmp_path: Path):
    folder = write_collection(
        tmp_path / "numbers",
        corpus=[{"_id": number, "text": f"text {number}"} for number in (1, 2, 30)],
        queries={},
        qrels={"7": {"1": 1, "30": 2}},
    )
    (folder / "queries.jsonl").write_text('{"_id": 7, "text": "which"}\n')
    collection = Collection.open(folder)
    assert [document.id for document in collection.documents()] == ["1", "2", "30"]
    assert collection.queries() == {"7": "which"}
    assert {q: dict(g) for q, g in collection.qrels().items()} == {"7": {"1": 1, "30": 2}}


def test_judgements_may_lack_their_header_or_be_in_trec_format(folder: Path):
    expected = Collection.open(folder).qrels()
    headless = tsv(QRELS).partition("\n")[2]
    trec = "".join(f"{q} 0 {d} {g}\n" for q, grades in QRELS.items() for d, g in grades.items())
    for text in (headless, trec):
        (folder / "qrels" / "test.tsv").write_text(text)
        assert Collection.open(folder).qrels() == expected
        assert list(Collection.open(folder).queries()) == list(QRELS)


# --- what is refused --------------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_not_found(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for name in ("nowhere", "file"):
        with pytest.raises(UnreadableFile, match=name) as raised:
            Collection.open(tmp_path / name)
        assert raised.value.exit_code == 3


def test_a_folder_in_another_layout_says_what_is_missing_and_what_there_is(folder: Path):
    error = refused(folder.parent)
    assert "lacks corpus.jsonl (or corpus.jsonl.gz), queries.jsonl" in error.message
    assert "and holds small." in error.message
    assert str(folder) in error.hint
    (folder / "queries.jsonl").unlink()
    assert "lacks queries.jsonl (or queries.jsonl.gz), and holds corpus" in refused(folder).message


def test_a_split_that_is_not_there_names_those_that_are(folder: Path):
    error = refused(folder, split="tset")
    assert "no split 'tset'" in error.message
    assert "test, train" in error.hint
    refused(folder, split="../qrels/test")


@pytest.mark.parametrize("text", ["", "query-id\tcorpus-id\tscore\n", "\n\n"])
def test_a_split_without_judgements_is_refused(folder: Path, text: str):
    (folder / "qrels" / "test.tsv").write_text(text)
    assert "test.tsv" in refused(folder).message


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"_id": "x", "text": "t"', "not JSON"),
        ("The pump", "not JSON"),
        ('["x", "t"]', "not a JSON object"),
        ('{"id": "x", "text": "t"}', "has no _id; its keys are 'id', 'text'"),
        ('{"_id": "x", "contents": "t"}', "has no text; its keys are '_id', 'contents'"),
        ('{"_id": "x", "text": null}', "has the text None"),
        ('{"_id": "x", "text": 7}', "has the text 7"),
        ('{"_id": "", "text": "t"}', "has the _id ''"),
        ('{"_id": null, "text": "t"}', "has the _id None"),
        ('{"_id": 1.5, "text": "t"}', "has the _id 1.5"),
        ('{"_id": true, "text": "t"}', "has the _id True"),
        ('{"_id": "a b", "text": "t"}', "white space"),
        ('{"_id": "x", "title": ["t"], "text": "t"}', "has the title ['t']"),
        ('{"_id": "x", "text": "\\ud800"}', "lone surrogate"),
        ('{"_id": "d1", "text": "t"}', "has the _id 'd1' of another document, that on line 1"),
        ('{"_id": "x", "text": "t", "n": 1e999}', "inf"),
    ],
)
def test_a_bad_line_of_the_corpus_is_named(folder: Path, line: str, what: str):
    corpus = folder / "corpus.jsonl"
    corpus.write_text(corpus.read_text("utf-8") + line + "\n", "utf-8")
    error = refused(folder)
    assert error.message.startswith(f"{corpus}:{len(CORPUS) + 1} ")
    assert what in error.message
    assert (error.path, error.line) == (str(corpus), len(CORPUS) + 1)


def test_a_line_that_is_not_utf8_is_named(folder: Path):
    corpus = folder / "corpus.jsonl"
    corpus.write_bytes(corpus.read_bytes() + '{"_id": "x", "text": "Brücke"}\n'.encode("cp1252"))
    assert f"corpus.jsonl:{len(CORPUS) + 1} " in refused(folder).message


def test_a_corpus_without_documents_is_refused(folder: Path):
    (folder / "corpus.jsonl").write_text("\n")
    assert "no document" in refused(folder).message


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"_id": "q1", "text": "again"}', "has the _id 'q1' of another query, that on line 1"),
        ('{"_id": "q9"}', "no text"),
        ("q9\tagain", "not JSON"),
    ],
)
def test_a_bad_line_of_the_queries_is_named(folder: Path, line: str, what: str):
    path = folder / "queries.jsonl"
    path.write_text(path.read_text("utf-8") + line + "\n", "utf-8")
    error = refused(folder)
    assert error.message.startswith(f"{path}:{len(QUERIES) + 1} ")
    assert what in error.message


def test_a_judged_query_that_is_missing_is_named_with_its_line(folder: Path):
    path = folder / "qrels" / "test.tsv"
    path.write_text(path.read_text() + "q8\td1\t1\nq9\td1\t1\n")
    error = refused(folder)
    assert error.message.startswith(f"{path}:{sum(map(len, QRELS.values())) + 2} ")
    assert "judges the query 'q8', which is not in queries.jsonl (and 1 more)" in error.message


def test_a_bad_judgement_is_named_with_its_line(folder: Path):
    path = folder / "qrels" / "test.tsv"
    for line in ("q1\td3", "q1\td3\tmany", "q1\td3\t0.5", "q1\td1\t1"):
        path.write_text(tsv(QRELS) + line + "\n")
        error = refused(folder)
        assert error.message.startswith(f"{path}:{sum(map(len, QRELS.values())) + 2} "), line


def test_grades_written_as_decimals_are_whole_numbers(folder: Path):
    expected = Collection.open(folder).qrels()
    path = folder / "qrels" / "test.tsv"
    path.write_text("\n".join(f"{line}.0" for line in tsv(QRELS).splitlines()))
    path.write_text(path.read_text().replace("score.0", "score"))
    assert Collection.open(folder).qrels() == expected


def test_a_large_object_on_one_line_is_read(folder: Path):
    long = {"_id": "long", "text": "word " * 200_000}
    with (folder / "corpus.jsonl").open("a") as file:
        file.write(json.dumps(long))
    *_, last = Collection.open(folder).documents()
    assert last.text == long["text"]

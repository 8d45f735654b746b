"""`retriever eval beir`: what it makes, prints, takes up again and refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import command_line
import pytest
from collections_in_beir_layout import CORPUS, QRELS, write_collection
from command_line import error_of, run, run_json
from cross_encoders import save_with_numpy

from retriever import Index
from retriever.evaluation import Collection, Run, evaluate
from retriever.testing import HashEncoder

small_models = command_line.small_models
pytestmark = pytest.mark.usefixtures("small_models")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_collection(tmp_path / "small")


def inner(answer: dict[str, Any]) -> dict[str, Any]:
    (found,) = answer["runs"]
    return found


def test_it_indexes_scores_and_writes_the_run(small: Path):
    done = run("eval", "beir", "small")
    assert done.exit_code == 0, done.stderr
    assert "Created small.index." in done.stdout
    assert "8 documents added in" in done.stdout
    assert "nDCG@10" in done.stdout
    assert "5 queries, 8 documents in 7 chunks, 100 documents a ranking" in done.stdout
    assert "The run is small.test.run." in done.stdout
    assert done.stderr == ""
    written = Run.read("small.test.run")
    collection = Collection.open(small)
    with Index.open("small.index", model=HashEncoder()) as index:
        expected = evaluate(index, collection.queries(), collection.qrels())
    assert written == expected.run
    assert {entry.name for entry in small.iterdir()} == {"corpus.jsonl", "queries.jsonl", "qrels"}


def test_json_has_the_shape_of_eval_runs(small: Path):
    answer = run_json("eval", "beir", "small", "-m", "nDCG@10", "-m", "RR")
    assert (answer["schema"], answer["index"], answer["created"]) == (1, "small.index", True)
    assert (answer["collection"], answer["split"]) == ("small", "test")
    assert (answer["ingest"]["added"], answer["ingest"]["failed"]) == (8, [])
    found = inner(answer)
    assert found["run"] == "small.test.run"
    assert list(found["measures"]) == ["nDCG@10", "RR"]
    assert found["queries"] == len(QRELS)
    assert found["settings"]["model"]["name"] == "hash"
    by_file = run_json("eval", "runs", "--qrels", "small/qrels/test.tsv", found["run"], "-m", "RR")
    assert inner(by_file)["measures"]["RR"] == found["measures"]["RR"]


def test_a_second_call_encodes_nothing(small: Path):
    first = run_json("eval", "beir", "small")
    seq = run_json("status", "-i", "small.index")["seq"]
    second = run_json("eval", "beir", "small")
    assert (second["created"], second["ingest"]["encoded"]) == (False, 0)
    assert second["ingest"]["unchanged"] == len(CORPUS)
    assert run_json("status", "-i", "small.index")["seq"] == seq
    assert inner(second)["measures"] == inner(first)["measures"]
    assert "Nothing to index: 8 documents unchanged." in run("eval", "beir", "small").stdout


def test_options_are_those_of_index_and_search(small: Path, tmp_path: Path):
    save_with_numpy(tmp_path / "tiny")
    run_path = tmp_path / "out.run.gz"
    found = inner(
        run_json(
            *("eval", "beir", "small", "--split", "train", "--chunking", "document", "-k", "4"),
            *("--rerank", str(tmp_path / "tiny"), "--candidates", "6", "-i", "other.index"),
            *("--run", str(run_path)),
        )
    )
    assert found["settings"]["chunking"]["unit"] == "document"
    assert found["settings"]["options"]["rerank"] == "tiny"
    assert (found["settings"]["options"]["k"], found["settings"]["options"]["candidates"]) == (4, 6)
    (ranking,) = Run.read(run_path).values()
    assert len(ranking) == 4
    reranked = inner(run_json("eval", "beir", "small", "--rerank", str(tmp_path / "tiny")))
    assert reranked["run"] == "small.test.tiny.run"
    beside = inner(run_json("eval", "beir", "small", "-i", "sub/x.index"))
    assert beside["run"] == str(Path("sub", "x.test.run"))


def test_the_environment_does_not_name_the_index(
    small: Path, index: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RETRIEVER_INDEX", str(index))
    assert run_json("eval", "beir", "small")["index"] == "small.index"


index = command_line.index
folder = command_line.folder


def test_an_index_of_other_documents_is_refused_or_pruned(small: Path, index: Path):
    refused = run("eval", "beir", "small", "-i", str(index))
    assert refused.exit_code == 2
    assert "holds documents that are not in the collection" in refused.stderr
    assert "--prune" in refused.stderr
    with Index.open(index, model=HashEncoder()) as opened:
        assert opened.count() == 3
    answer = run_json("eval", "beir", "small", "-i", str(index), "--prune")
    assert (answer["ingest"]["removed"], answer["ingest"]["added"]) == (3, 8)


def test_a_changed_corpus_is_brought_up_to_date(small: Path):
    run_json("eval", "beir", "small")
    corpus = small / "corpus.jsonl"
    corpus.write_text(corpus.read_text("utf-8").replace("apple tree", "pear tree"), "utf-8")
    answer = run_json("eval", "beir", "small")
    assert (answer["ingest"]["replaced"], answer["ingest"]["unchanged"]) == (1, 7)


def test_a_run_does_not_replace_a_file_of_the_index(small: Path):
    run_json("eval", "beir", "small")
    for file in Path("small.index").iterdir():
        assert "would replace" in run("eval", "beir", "small", "--run", str(file)).stderr
    assert run("verify", "-i", "small.index").exit_code == 0


def test_another_chunking_or_model_is_refused_with_the_way_out(small: Path):
    run_json("eval", "beir", "small")
    done = run("eval", "beir", "small", "--chunking", "document")
    assert done.exit_code == 2
    assert "created with chunking unit='window', not 'document'" in done.stderr
    assert "name it with -i" in done.stderr


def test_what_limits_the_figures_is_said(small: Path):
    path = small / "qrels" / "test.tsv"
    path.write_text(path.read_text() + "q1\tnowhere\t1\n")
    done = run("eval", "beir", "small", "-k", "5")
    assert "Rankings have 5 documents, but the measures look at 100." in done.stderr
    assert "1 of 7 judged documents are not in the corpus" in done.stderr
    assert run("eval", "beir", "small", "-k", "5", "-q").stderr == ""


def test_a_query_that_is_a_document_is_left_out(tmp_path: Path):
    rows = [{"_id": "a", "text": "the pump"}, {"_id": "b", "text": "the bees"}]
    write_collection(
        tmp_path / "args", corpus=rows, queries={"a": "the pump"}, qrels={"a": {"b": 1}}
    )
    done = run("eval", "beir", "args")
    assert "1 of the queries are documents of the corpus" in done.stderr
    assert dict(Run.read("args.test.run")["a"]).keys() == {"b"}
    kept = run("eval", "beir", "args", "--keep-identical-ids")
    assert "documents of the corpus" not in kept.stderr
    assert dict(Run.read("args.test.run")["a"]).keys() == {"a", "b"}


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (("nowhere",), 3, "nowhere"),
        (("small/qrels",), 2, "lacks corpus.jsonl"),
        (("small", "--split", "dev"), 2, "has no split 'dev'"),
        (("small", "-m", "nDGC@10"), 2, "nDGC@10"),
        (("small", "-k", "0"), 2, "-k"),
        (("small", "--candidates", "50"), 2, "needs --rerank"),
        (("small", "--rerank", "x", "--candidates", "50"), 2, "-k 50"),
        (("small", "--rerank", "no-such-model"), 7, "no-such-model"),
        (("small", "--run", "nowhere/x.run"), 2, "nowhere/x.run"),
        (("small", "--run", "small"), 2, "is a folder"),
        (("small", "--run", "small/corpus.jsonl"), 2, "would replace a file that is read"),
        (("small", "--run", "small/qrels/test.tsv"), 2, "would replace a file that is read"),
        (("small", "-i", "taken.index"), 2, "--run 'taken.test.run' is a folder"),
        ((), 2, "FOLDER"),
    ],
)
def test_what_cannot_be_done_is_refused_before_documents_are_indexed(
    small: Path, arguments: tuple[str, ...], code: int, what: str
):
    Path("taken.test.run").mkdir()
    done = run("eval", "beir", *arguments)
    assert done.exit_code == code, done.stderr
    assert what in done.stderr
    assert "Traceback" not in done.stderr
    if Path("small.index").exists():
        assert run_json("status", "-i", "small.index")["documents"] == 0


def test_a_bad_line_is_an_error_object_and_leaves_no_index(small: Path):
    with (small / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "x"}\n')
    error = error_of(run("eval", "beir", "small", "--json"))
    assert error["code"] == "invalid_evaluation"
    assert f"corpus.jsonl:{len(CORPUS) + 1} has no text" in error["message"]
    assert not Path("small.index").exists()


def test_the_index_is_never_made_inside_the_collection(
    small: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(small / "qrels")
    done = run("eval", "beir", "..")
    assert done.exit_code == 2
    assert "-i DIR" in done.stderr
    before = sorted(path.name for path in small.rglob("*"))
    assert run("eval", "beir", "..", "-i", "../../x.index").exit_code == 0
    assert sorted(path.name for path in small.rglob("*")) == before


def test_the_index_of_a_folder_named_by_dots_has_the_folders_name(
    small: Path, monkeypatch: pytest.MonkeyPatch
):
    (small.parent / "elsewhere").mkdir()
    monkeypatch.chdir(small.parent / "elsewhere")
    assert run_json("eval", "beir", "../small/")["index"] == "small.index"


def test_help_explains_parity_with_published_figures():
    text = " ".join(run("eval", "beir", "--help").stdout.split())
    assert "Published figures are of one vector for each document" in text

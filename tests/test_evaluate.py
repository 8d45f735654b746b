"""Evaluating an index: the run is what an exact search gives, and its settings are recorded."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from collections_in_beir_layout import CORPUS, QRELS, QUERIES, write_collection

from retriever import Document, Index, Progress, SearchOptions
from retriever.errors import InvalidConfig, InvalidEvaluation, LimitExceeded
from retriever.evaluation import Collection, Qrels, add_collection, adding, evaluate
from retriever.evaluation.evaluating import needed_depth
from retriever.testing import HashEncoder, exact_search

JUDGED = {name: QUERIES[name] for name in QRELS}


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection.open(write_collection(tmp_path / "small"))


@pytest.fixture
def index(tmp_path: Path, collection: Collection) -> Iterator[Index]:
    with Index.open(tmp_path / "small.index", model=HashEncoder()) as opened:
        add_collection(opened, collection)
        yield opened


def reference(
    documents: Mapping[str, np.ndarray], query: np.ndarray, depth: int
) -> dict[str, float]:
    """Rank documents by their best chunk with NumPy alone."""
    owners = [name for name, rows in documents.items() for _ in rows]
    best: dict[str, float] = {}
    every = [row for rows in documents.values() for row in rows]
    for position, cosine in exact_search(every, query, len(every)):
        best.setdefault(owners[position], cosine)
    return dict(list(best.items())[:depth])


# --- the run ----------------------------------------------------------------------------------


def test_the_run_is_that_of_an_exact_search(index: Index):
    evaluation = evaluate(index, QUERIES, QRELS, SearchOptions(mode="dense"))
    encoder, vectors = HashEncoder(), index.vectors()
    assert set(evaluation.run) == set(QRELS)
    for name in QRELS:
        (query,) = encoder.encode_queries([QUERIES[name]])
        assert dict(evaluation.run[name]) == reference(vectors, query, 100)


@pytest.mark.model
@pytest.mark.parametrize("chunking", ["document", {"tokens": 8}])
def test_the_run_of_a_real_model_is_that_of_an_exact_search(
    tmp_path: Path, collection: Collection, chunking: str | dict[str, int]
):
    from retriever.encoders.bi_encoder import load_encoder
    from retriever.encoders.computing import Computing

    model = "all-MiniLM-L6-v2"
    with Index.open(tmp_path / "x.index", model=model, chunking=chunking) as index:
        assert add_collection(index, collection).added == len(CORPUS)
        dense = SearchOptions(mode="dense")
        evaluation = evaluate(index, JUDGED, QRELS, dense, measures=["nDCG@10", "R@2"])
        vectors = index.vectors()
    # In batches, queries may be computed with other last bits than alone.
    encoder = load_encoder(model, Computing(), allow_download=False)
    encoded = encoder.encode_queries(list(JUDGED.values()))
    for name, query in zip(JUDGED, encoded, strict=True):
        expected = reference(vectors, query / np.linalg.norm(query), 100)
        assert list(evaluation.run[name]) == list(expected)
        assert list(evaluation.run[name].values()) == pytest.approx(list(expected.values()), 1e-6)
    assert evaluation.per_query["nDCG@10"]["q2"] == 1.0


def test_identical_documents_are_ranked_each(index: Index):
    run = evaluate(index, JUDGED, QRELS).run
    assert run["q5"]["d6"] == run["q5"]["d7"]


def test_a_ranking_is_as_deep_as_was_asked(index: Index):
    assert all(
        len(ranking) == 3 for ranking in evaluate(index, JUDGED, QRELS, depth=3).run.values()
    )
    whole = evaluate(index, JUDGED, QRELS).run
    assert all(len(ranking) == len(CORPUS) - 1 for ranking in whole.values())  # d8 has no text


@pytest.mark.parametrize("depth", [0, -1, 2.5, "7", True])
def test_a_depth_is_a_number_of_documents(index: Index, depth: object):
    with pytest.raises(InvalidEvaluation, match="depth is"):
        evaluate(index, JUDGED, QRELS, depth=depth)  # type: ignore[arg-type]


def test_a_depth_beyond_the_limit_names_the_measure_that_needs_it(index: Index):
    with pytest.raises(LimitExceeded, match=r"1,000,000 documents; .*R@1000000") as caught:
        evaluate(index, JUDGED, QRELS, measures=["AP", "R@1000000"])
    assert (caught.value.option, caught.value.limit) == ("depth", 100_000)


@pytest.mark.parametrize(
    ("measures", "depth"),
    [
        (["nDCG@10"], 100),
        (["AP", "RR@10"], 100),
        (["R@1000", "nDCG@10"], 1000),
        (["nDCG(dcg='exp-log2')@200"], 200),
        (["Rprec"], 150),
        (["P@10"], 100),
    ],
)
def test_the_measures_decide_how_deep_a_ranking_is(measures: Sequence[str], depth: int):
    qrels = Qrels({"q": {f"d{n}": int(n < 150) for n in range(160)}})
    assert needed_depth(measures, qrels) == depth


def test_options_are_those_of_the_search(index: Index):
    class Shortest:
        name = "shortest"

        def score(self, _: str, texts: Sequence[str]) -> np.ndarray:
            return np.array([-len(text) for text in texts], np.float32)

    evaluation = evaluate(index, JUDGED, QRELS, SearchOptions(k=2, rerank=Shortest()), depth=4)
    lengths = {document.id: -len(document.text) for document in index.documents()}
    for ranking in evaluation.run.values():
        assert len(ranking) == 4
        assert all(score == lengths[name] for name, score in ranking.items())
    assert evaluation.settings["options"] == {
        "k": 4,
        "group": "document",
        "rerank": "shortest",
        "candidates": 50,
        "fold": False,
        "mode": "hybrid",
        "fusion": "convex",
        "weight": 0.7,
    }
    with pytest.raises(LimitExceeded, match="2,000 documents; the limit is 1,000 with a reranker"):
        evaluate(index, JUDGED, QRELS, SearchOptions(rerank=Shortest()), measures=["R@2000"])


# --- queries and judgements -------------------------------------------------------------------


class _Record(NamedTuple):
    query_id: str
    text: str


@dataclass
class _Object:
    id: str
    text: str


@pytest.mark.parametrize(
    "queries",
    [
        list(JUDGED.items()),
        [{"_id": name, "text": text} for name, text in JUDGED.items()],
        [_Record(name, text) for name, text in JUDGED.items()],
        (_Object(name, text) for name, text in JUDGED.items()),
    ],
)
def test_queries_come_in_several_forms(index: Index, queries: object):
    expected = evaluate(index, JUDGED, QRELS)
    found = evaluate(index, queries, Qrels(QRELS))
    assert {q: dict(ranking) for q, ranking in found.run.items()} == {
        q: dict(ranking) for q, ranking in expected.run.items()
    }
    assert found.measures == expected.measures


def test_judgements_may_be_a_file(index: Index, collection: Collection):
    path = collection.path / "qrels" / "test.tsv"
    assert evaluate(index, JUDGED, path).measures == evaluate(index, JUDGED, QRELS).measures


@pytest.mark.parametrize(
    ("queries", "what"),
    [
        ("q1", "queries is 'q1'"),
        ([("q1", "a"), ("q1", "b")], "Two queries have the id 'q1'"),
        ([("q1", None)], "text of the query 'q1' is None"),
        ([{"text": "a"}], "id of a query is None"),
        ({1: "a"}, "id of a query is 1"),
        ({"q1": "a"}, "'q2' is judged in qrels but not given, and 3 more"),
        ({**JUDGED, "q3": "x" * 100_001}, "Query 'q3': The query has 100,001 characters"),
        ({**JUDGED, "q3": "\ud800"}, "Query 'q3': .* lone surrogate"),
    ],
)
def test_queries_that_cannot_be_used_are_refused(index: Index, queries: object, what: str):
    with pytest.raises(InvalidEvaluation, match=what) as raised:
        evaluate(index, queries, QRELS)
    assert raised.value.hint


def test_a_query_without_text_finds_nothing_and_counts(
    index: Index, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING, "retriever"):
        evaluation = evaluate(index, {**JUDGED, "q1": " \n"}, QRELS, measures=["RR"])
    assert evaluation.settings["queries_without_text"] == ["q1"]
    assert evaluation.per_query["RR"]["q1"] == 0.0
    assert set(evaluation.per_query["RR"]) == set(QRELS)
    assert "q1" in caplog.text


def test_queries_without_judgements_are_counted_and_not_searched(index: Index):
    settings = evaluate(index, QUERIES, QRELS).settings
    assert (settings["queries"], settings["queries_without_judgement"]) == (5, 1)


def test_an_index_of_other_documents_is_refused(tmp_path: Path):
    with Index.open(tmp_path / "other.index", model=HashEncoder()) as index:
        with pytest.raises(InvalidEvaluation, match=r"None of the judged documents \(6, .*empty"):
            evaluate(index, JUDGED, QRELS)
        index.add(Document("text", id="z"))
        with pytest.raises(InvalidEvaluation, match=r"such as 'd1'.* such as 'z'"):
            evaluate(index, JUDGED, QRELS)
        index.add(Document("", id="d1"))
        index.delete("z")
        evaluation = evaluate(index, JUDGED, QRELS, measures=["RR"])
    assert evaluation.measures["RR"] == 0.0
    assert evaluation.settings["judged_documents_missing"] == 5


def test_what_is_not_an_index_is_refused():
    with pytest.raises(InvalidConfig, match="index is"):
        evaluate("x.index", JUDGED, QRELS)


# --- a query that is a document ---------------------------------------------------------------


def test_a_query_that_is_a_document_does_not_find_itself(tmp_path: Path):
    argument = "Becoming a vegetarian helps the environment."
    documents = [
        Document(f"animals {argument}", id="a1"),
        Document("Meat is eaten for the environment.", id="a2"),
        Document("Numbered as a query by chance.", id="7"),
    ]
    relevant = {"a1": {"a1": 1, "a2": 1}, "7": {"a2": 1}}
    queries = {"a1": f"Becoming a  vegetarian\nhelps the {'environment.'}", "7": "chance or query"}
    qrels = {"a1": {"a2": 1}, "7": {"a2": 1}}
    with Index.open(tmp_path / "x.index", model=HashEncoder()) as index:
        index.add(documents)
        left_out = evaluate(index, queries, qrels, depth=2)
        kept = evaluate(index, queries, qrels, depth=2, ignore_identical_ids=False)
        judged = evaluate(index, queries, relevant, depth=2)
        zero = evaluate(index, queries, {**qrels, "a1": {"a1": 0, "a2": 1}}, depth=2)
    assert left_out.settings["identical_ids"] == ["a1"]
    assert set(left_out.run["a1"]) == {"a2", "7"}  # still two
    assert "7" in left_out.run["7"]
    assert "a1" in kept.run["a1"]
    assert kept.settings["identical_ids"] == []
    assert "a1" in judged.run["a1"]
    assert zero.run == left_out.run


def test_a_query_that_does_not_find_itself_has_no_deeper_ranking(tmp_path: Path):
    """A long document that holds the query may be ranked below those that are as short."""
    query = "winter pump"
    long = " ".join(["summer bees"] * 40) + f" {query}"
    documents = [Document(f"{query} {n}", id=f"d{n}") for n in range(4)]
    with Index.open(tmp_path / "x.index", model=HashEncoder(), chunking="document") as index:
        index.add([*documents, Document(long, id="q")])
        found = evaluate(index, {"q": query}, {"q": {"d1": 1}}, depth=2)
    assert found.settings["identical_ids"] == ["q"]
    assert len(found.run["q"]) == 2


# --- settings and progress --------------------------------------------------------------------


def test_settings_say_what_an_evaluation_was_made_with(index: Index):
    evaluation = evaluate(index, JUDGED, QRELS)
    settings = evaluation.settings
    assert settings["index"] == str(index.path)
    assert (settings["documents"], settings["chunks"]) == (8, 7)
    assert settings["model"]["name"] == "hash"
    assert settings["chunking"] == index.status().chunking.to_dict()
    assert settings["options"]["k"] == 100
    assert settings["exact"] is True
    assert settings["search_s"] > 0
    assert json.loads(json.dumps(evaluation.to_dict()))["settings"] == dict(settings)
    with pytest.raises(TypeError):
        settings["documents"] = 9  # type: ignore[index]


def test_progress_ends_with_every_query(index: Index):
    many = {f"q{n}": f"pump {n}" for n in range(150)}
    seen: list[Progress] = []
    evaluate(index, many, {name: {"d1": 1} for name in many}, progress=seen.append)
    assert [(report.stage, report.done, report.total, report.unit) for report in seen] == [
        ("search", done, 150, "queries") for done in (64, 128, 150)
    ]


# --- bringing an index up to date -------------------------------------------------------------


def test_an_index_of_the_same_documents_encodes_nothing(tmp_path: Path, collection: Collection):
    encoder = HashEncoder()
    with Index.open(tmp_path / "x.index", model=encoder) as index:
        assert add_collection(index, collection).added == len(CORPUS)
        encoded, seq = len(encoder.encoded), index.status().seq
        again = add_collection(index, Collection.open(collection.path))
        assert (again.unchanged, again.added, again.encoded) == (len(CORPUS), 0, 0)
        assert (len(encoder.encoded), index.status().seq) == (encoded, seq)


def test_changed_texts_are_replaced_and_removed_documents_refused(
    tmp_path: Path, index: Index, collection: Collection
):
    changed = [{**row, "text": "New."} if row["_id"] == "d2" else row for row in CORPUS]
    other = Collection.open(write_collection(tmp_path / "b" / "small", corpus=changed))
    report = add_collection(index, other)
    assert (report.replaced, report.unchanged) == (1, len(CORPUS) - 1)
    fewer = Collection.open(write_collection(tmp_path / "c" / "small", corpus=changed[:-1]))
    with pytest.raises(InvalidEvaluation, match="'d8'") as raised:
        add_collection(index, fewer)
    assert "--prune" in raised.value.hint
    assert index.count() == len(CORPUS)
    pruned = add_collection(index, fewer, prune=True)
    assert (pruned.removed, pruned.unchanged, index.count()) == (1, 7, 7)


def test_all_other_documents_are_pruned_however_many_at_a_time(
    tmp_path: Path, collection: Collection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(adding, "_PAGE", 300)
    with Index.open(tmp_path / "x.index", model=HashEncoder()) as index:
        index.add([Document("Old.", id=f"old{n:04}") for n in range(1_001)])
        report = add_collection(index, collection, prune=True)
        assert (report.removed, index.count()) == (1_001, len(CORPUS))


def test_a_bad_corpus_changes_nothing(index: Index, collection: Collection):
    path = collection.path / "corpus.jsonl"
    path.write_text(path.read_text("utf-8") + '{"_id": "d9"}\n', "utf-8")
    seq = index.status().seq
    with pytest.raises(InvalidEvaluation, match=r"corpus\.jsonl:9 "):
        add_collection(index, Collection.open(collection.path))
    assert index.status().seq == seq


def test_an_update_that_is_interrupted_continues(tmp_path: Path):
    corpus = [{"_id": f"d{n}", "text": f"text {n}"} for n in range(2_500)]
    collection = Collection.open(write_collection(tmp_path / "large", corpus=corpus))
    encoder = HashEncoder()

    def stop(progress: Progress) -> None:
        if progress.stage == "index" and progress.done >= 1_000:
            raise KeyboardInterrupt

    with Index.open(tmp_path / "x.index", model=encoder) as index:
        with pytest.raises(KeyboardInterrupt):
            add_collection(index, collection, progress=stop)
        there = index.count()
        assert 1_000 <= there < 2_500
        report = add_collection(index, collection)
        assert (report.unchanged, report.added) == (there, 2_500 - there)

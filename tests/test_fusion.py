"""Hybrid rankings beside brute force over all rows: equal chunks, equal scores."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from retriever import Document, Index, InvalidQuery, Limits, ModelError, SearchOptions
from retriever.documents.words import Term
from retriever.search import dense, lexical, lexical_ranking
from retriever.search.allowed import AllowedRows
from retriever.search.fusion import RANKED, ConvexRanker, ReciprocalRanker
from retriever.search.ranking import Ranking
from retriever.search.vectors import exact_scores
from retriever.search.view import View
from retriever.storage import catalog
from retriever.testing import HashEncoder, unit_vectors

DIMENSION = 32
WORDS = [f"w{n:02}" for n in range(40)]
QUESTIONS = {
    "one rare word": ["w39"],
    "several words": ["w00", "w05", "w20"],
    "a word of all rows": ["every"],
    "of all rows and rare": ["every", "w38", "w39"],
    "a word of no row": ["nowhere"],
    "of no row and of some": ["nowhere", "w10"],
    "no word": [],
}
WEIGHTS = [0.0, 0.2, 0.7, 1.0]


def documents(part: int, count: int) -> list[Document]:
    """Return documents with embeddings; many have equal words, or equal embeddings, or both."""
    random = np.random.default_rng(part)
    embeddings = unit_vectors(count, DIMENSION, part)
    shared = unit_vectors(3, DIMENSION, 99)
    made = []
    for n in range(count):
        kind = random.integers(0, 6)
        # Words of Zipf's frequencies; few patterns of words, so that scores tie.
        words = ["every", *(WORDS[min(39, int(one))] for one in random.zipf(1.3, 6))]
        if kind == 0:
            words = ["every", "w05", "w39"]
        embedding = shared[random.integers(0, 3)] if kind < 2 else embeddings[n]
        made.append(Document(" ".join(words), id=f"{part}-{n}", embedding=embedding))
    return made


@pytest.fixture(params=["segments and a tail", "no tail", "only a tail"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Index]:
    path = tmp_path / "x.index"
    rows = {"segments and a tail": 100, "no tail": 1, "only a tail": 4096}[request.param]
    limits = Limits(tail_rows=rows, merge_segments=50)
    with Index.open(path, model=HashEncoder(), limits=limits) as opened:
        for part in range(3):
            opened.add(documents(part, 150))
        opened.delete([f"{part}-{n}" for part in range(3) for n in range(0, 150, 7)])
        if request.param == "segments and a tail":
            opened.add(documents(3, 60))
        opened.search(vector=unit_vectors(1, DIMENSION, 0)[0])
        view = opened._views.newest
        assert view is not None
        assert (len(view.blocks) > 1) == (request.param != "only a tail")
        yield opened


@contextmanager
def viewed(index: Index) -> Iterator[tuple[View, sqlite3.Connection]]:
    with index._pool.transaction() as connection:
        yield index._views.at(connection), connection


def terms(words: list[str]) -> list[Term]:
    return [Term((word,)) for word in words]


def subsets(view: View) -> list[AllowedRows]:
    random = np.random.default_rng(5)
    ids = view.live.ids
    shares = (0.9, 0.5, 0.1, 0.01)
    return [view.live, *(view.live.only(ids[random.random(len(ids)) < one]) for one in shares)]


def brute_force(
    view: View, connection: sqlite3.Connection, query: np.ndarray, words: list[str], share: float
) -> dict[int, tuple[float, float, float]]:
    """Return of every live chunk the fused score, the cosine and the BM25 score."""
    ids = sorted(view.live.ids.tolist())
    stored = catalog.fetch_vectors(connection, view.space, ids)
    cosines = exact_scores(np.stack([stored[one] for one in ids]), query).tolist()
    found = lexical.matches(view, connection, terms(words), view.live)
    by_words = dict(zip(found.ids.tolist(), found.scores.tolist(), strict=True))
    highest = sum(idf * (lexical.K1 + 1) for idf in found.idf.tolist())
    rows = {}
    for one, cosine in zip(ids, cosines, strict=True):
        bm25 = by_words.get(one, 0.0)
        assert bm25 <= highest + 1e-9
        fused = share * ((cosine + 1) / 2) + (1 - share) * (bm25 / highest if highest else 0)
        rows[one] = (min(fused, 1.0), cosine, bm25)
    return rows


def check(ranking: Ranking, rows: dict[int, tuple[float, float, float]], k: int) -> None:
    expected = sorted(rows, key=lambda one: (-rows[one][0], -rows[one][1], one))[:k]
    assert ranking.ids == expected
    assert ranking.scores == pytest.approx([rows[one][0] for one in expected], abs=1e-15)
    assert ranking.components["fused"] == ranking.scores
    assert ranking.components["dense"] == [rows[one][1] for one in expected]
    assert ranking.components["lexical"] == [rows[one][2] for one in expected]


def ranker(view, connection, query, words, allowed, share) -> ConvexRanker:
    matched = lexical_ranking.match(view, connection, terms(words), allowed)
    return ConvexRanker(view, connection, query, matched, share)


@pytest.mark.parametrize("share", WEIGHTS)
def test_the_ranking_is_that_of_all_rows(index: Index, share: float):
    # The first query is near the embedding that many rows share.
    near = unit_vectors(3, DIMENSION, 99)[0] + 0.3 * unit_vectors(1, DIMENSION, 4)[0]
    queries = [near / np.linalg.norm(near), unit_vectors(1, DIMENSION, 6)[0]]
    with viewed(index) as (view, connection):
        for query, words in product(np.array(queries, np.float32), QUESTIONS.values()):
            rows = brute_force(view, connection, query, words, share)
            for allowed in subsets(view):
                some = {one: rows[one] for one in allowed.ids.tolist()}
                made = ranker(view, connection, query, words, allowed, share)
                for k in (1, 3, 10, 100, 2_000):
                    check(made.top_k(k, allowed), some, k)


def test_what_is_left_keeps_its_scores(index: Index):
    query = unit_vectors(1, DIMENSION, 6)[0]
    with viewed(index) as (view, connection):
        rows = brute_force(view, connection, query, ["w05", "w20"], 0.7)
        made = ranker(view, connection, query, ["w05", "w20"], view.live, 0.7)
        left = view.live
        while left.count:
            ranking = made.top_k(37, left)
            check(ranking, {one: rows[one] for one in left.ids.tolist()}, 37)
            left = left.without(np.array(ranking.ids))


def test_reciprocal_ranks_are_those_in_both_lists(index: Index, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("retriever.search.fusion.RANKED", 40)
    query = unit_vectors(1, DIMENSION, 6)[0]
    with viewed(index) as (view, connection):
        for allowed, words in product(subsets(view), QUESTIONS.values()):
            rows = brute_force(view, connection, query, words, 0.5)
            rows = {one: rows[one] for one in allowed.ids.tolist()}
            near = sorted(rows, key=lambda one: (-rows[one][1], one))[:40]
            worded = sorted((one for one in rows if rows[one][2]), key=lambda o: (-rows[o][2], o))
            worded = worded[:40]
            ranks = {one: 0.6 * (61 / (61 + n)) for n, one in enumerate(near)}
            for n, one in enumerate(worded):
                ranks[one] = ranks.get(one, 0.0) + 0.4 * (61 / (61 + n))
            order = sorted(ranks, key=lambda one: (-ranks[one], -rows[one][1], one))
            order += sorted(rows.keys() - ranks.keys(), key=lambda one: (-rows[one][1], one))
            matched = lexical_ranking.match(view, connection, terms(words), allowed)
            made = ReciprocalRanker(view, connection, query, matched, 0.6)
            for k in (1, 10, 55, 2_000):
                found = made.top_k(k, allowed)
                assert found.ids == order[:k]
                assert found.scores == pytest.approx([ranks.get(one, 0.0) for one in order[:k]])
                assert found.components["dense"] == [rows[one][1] for one in order[:k]]
                assert all(0 <= score <= 1 for score in found.scores)
    assert RANKED > 40


def test_words_alone_find_only_what_has_them(index: Index):
    with viewed(index) as (view, connection):
        for allowed in subsets(view):
            for words in QUESTIONS.values():
                found = lexical.matches(view, connection, terms(words), allowed)
                expected = sorted(zip((-found.scores).tolist(), found.ids.tolist(), strict=True))
                matched = lexical_ranking.match(view, connection, terms(words), allowed)
                for k in (1, 7, 2_000):
                    ranking = lexical_ranking.LexicalRanker(matched).top_k(k, allowed)
                    assert ranking.ids == [one for _, one in expected[:k]]
                    assert ranking.scores == [-score for score, _ in expected[:k]]


def test_a_segment_with_another_vector_than_the_catalog_is_not_believed(
    index: Index, monkeypatch: pytest.MonkeyPatch
):
    query = unit_vectors(1, DIMENSION, 6)[0]
    with viewed(index) as (view, connection):
        made = ranker(view, connection, query, ["w39"], view.live, 0.0)
        cosines = dense.cosines
        monkeypatch.setattr(dense, "cosines", lambda *given: cosines(*given) + 1e-9)
        with pytest.raises(dense.SegmentDisagrees):
            made.top_k(10, view.live)


# --- searches --------------------------------------------------------------------------------


@pytest.fixture
def manuals(tmp_path: Path) -> Iterator[Index]:
    with Index.open(tmp_path / "m.index", model=HashEncoder()) as opened:
        opened.add(
            [
                Document("Reset the pump by its button.", id="reset"),
                Document("ERR_CONN_42: the connection has failed.", id="code"),
                Document("The ferry leaves at noon.", id="ferry"),
                *(Document("The pump needs oil.", id=f"oil{n}", title=f"T{n}") for n in range(80)),
                *(Document(f"The mill grinds {n} sacks of corn.", id=f"m{n}") for n in range(40)),
            ]
        )
        yield opened


@pytest.mark.parametrize("mode", ["hybrid", "lexical"])
def test_an_identifier_is_found(manuals: Index, mode: str):
    found = manuals.search("ERR_CONN_42", mode=mode)
    assert found[0].document_id == "code"
    assert found.exact
    assert found.plan.startswith(mode)


def test_the_scores_are_kept(manuals: Index):
    question = "pump button"
    dense_hits = manuals.search(question, mode="dense", k=200)
    words = {hit.document_id: hit.score for hit in manuals.search(question, mode="lexical", k=200)}
    hybrid = manuals.search(question, k=200)
    assert {hit.document_id for hit in hybrid} == {hit.document_id for hit in dense_hits}
    cosines = {hit.document_id: hit.score for hit in dense_hits}
    for hit in hybrid:
        assert hit.scores["dense"] == cosines[hit.document_id]
        assert hit.scores["lexical"] == words.get(hit.document_id, 0.0)
        assert hit.scores["fused"] == hit.score
        assert 0 <= hit.score <= 1
    assert all(set(hit.scores) == {"dense"} for hit in dense_hits)


@pytest.mark.parametrize("options", [{}, {"mode": "lexical"}, {"fusion": "rrf"}])
@pytest.mark.parametrize("repeats", [1, 3])
def test_copies_are_one_hit_though_their_scores_differ(manuals: Index, options: dict, repeats: int):
    manuals.add([Document("The pump needs oil.", id="german", title="Oil for the pump")])
    # Searches of the other kind mask copies that they know: these must see all.
    for _ in range(repeats):
        manuals.search("pump oil", mode="dense")
        found = manuals.search("pump oil", **options)
        copies = [hit for hit in found if hit.text == "The pump needs oil."]
        assert [hit.duplicates for hit in copies] == [80]
        assert options.get("mode") != "lexical" or copies[0].document_id == "german"
        everything = manuals.search("pump oil", fold=False, k=200, **options)
        assert sum(hit.text == "The pump needs oil." for hit in everything) == 81
        best = next(hit for hit in everything if hit.text == "The pump needs oil.")
        assert (best.document_id, best.score) == (copies[0].document_id, copies[0].score)


@pytest.mark.parametrize("options", [{}, {"mode": "lexical"}, {"mode": "dense"}])
def test_min_score_leaves_out_what_is_below(manuals: Index, options: dict):
    every = manuals.search("pump button oil", k=200, **options)
    least = every[min(4, len(every) - 1)].score
    for k in (2, 10, 200):
        found = manuals.search("pump button oil", k=k, min_score=least, **options)
        expected = [hit.chunk_id for hit in every if hit.score >= least][:k]
        assert [hit.chunk_id for hit in found] == expected
    assert not manuals.search("pump", min_score=1e9, **options)


def test_min_score_is_that_of_the_reranker(manuals: Index):
    class Longest:
        name = "longest"

        def score(self, _, texts):
            return np.array([len(text) for text in texts], np.float32)

    found = manuals.search("pump", rerank=Longest(), k=50, min_score=32)
    assert found
    assert all(hit.score >= 32 for hit in found)
    assert len(found) < len(manuals.search("pump", rerank=Longest(), k=50))


def test_words_need_no_model(tmp_path: Path):
    with Index.open(tmp_path / "x.index", model=HashEncoder()) as index:
        index.add(["The pump.", "The ferry."])
    with Index.open(tmp_path / "x.index", read_only=True) as index:  # its encoder is not there
        assert [hit.text for hit in index.search("pump", mode="lexical")] == ["The pump."]
        with pytest.raises(ModelError):
            index.search("pump")


def test_words_find_passages_whose_embeddings_were_supplied(tmp_path: Path):
    given = unit_vectors(2, 8, 0)
    with Index.open(tmp_path / "x.index", model=None, dimension=8) as index:
        index.add(
            [Document("The pump.", embedding=given[0]), Document("Ferry.", embedding=given[1])]
        )
        assert [hit.text for hit in index.search("ferry", mode="lexical")] == ["Ferry."]
        with pytest.raises(InvalidQuery, match="no model that could read") as caught:
            index.search("ferry")
        assert "mode='lexical'" in caught.value.hint


def test_an_encoder_that_fails_is_an_error(tmp_path: Path):
    class Failing(HashEncoder):
        def encode_queries(self, texts):
            raise RuntimeError("no memory")

    with Index.open(tmp_path / "x.index", model=Failing()) as index:
        index.add(["The pump."])
        with pytest.raises(Exception, match="no memory"):
            index.search("pump")
        assert len(index.search("pump", mode="lexical")) == 1


def test_the_plan_says_that_no_word_was_found(manuals: Index):
    assert "no passage has a word of the question" in manuals.search("zebra quagga").plan
    assert len(manuals.search("zebra quagga", k=5)) == 5
    assert len(manuals.search("zebra quagga", mode="lexical")) == 0
    assert "weight 0.7" in manuals.search("pump").plan
    assert "rrf, weight 0.25" in manuals.search("pump", fusion="rrf", weight=0.25).plan


def test_a_vector_has_no_words(manuals: Index):
    vector = unit_vectors(1, 32, 0)[0]
    assert set(manuals.search(vector=vector)[0].scores) == {"dense"}
    with pytest.raises(InvalidQuery, match="a vector has no words"):
        manuals.search(vector=vector, mode="lexical")


def test_several_questions_are_answered_as_each_alone(manuals: Index):
    questions = ["pump button", "ERR_CONN_42", "zebra", "corn"]
    for options in ({}, {"mode": "lexical"}, {"fusion": "rrf"}, {"weight": 0.3}):
        together = manuals.search_many(questions, k=7, **options)
        for question, found in zip(questions, together, strict=True):
            alone = manuals.search(question, k=7, **options)
            assert [(hit.chunk_id, hit.scores) for hit in found] == [
                (hit.chunk_id, hit.scores) for hit in alone
            ]


@pytest.mark.parametrize(
    "given",
    [
        {"mode": "sparse"},
        {"mode": None},
        {"mode": np.array(["dense"])},
        {"fusion": "max"},
        {"weight": 1.5},
        {"weight": float("nan")},
        {"weight": True},
        {"weight": "0.5"},
        {"weight": 0.5, "mode": "dense"},
        {"min_score": float("inf")},
        {"min_score": "0.5"},
        {"min_score": float("nan")},
    ],
)
def test_options_that_make_no_sense_are_refused(given: dict):
    with pytest.raises(InvalidQuery) as caught:
        SearchOptions(**given)
    assert caught.value.hint

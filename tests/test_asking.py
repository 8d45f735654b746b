"""The ways to ask: operators, several phrasings, more like a document, and page by page."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import command_line
import numpy as np
import pytest
from command_line import run, run_json

from retriever import (
    CursorExpired,
    Document,
    DocumentNotFound,
    Index,
    InvalidQuery,
    LimitExceeded,
    Results,
    SearchOptions,
)
from retriever.search.questions import parse
from retriever.testing import HashEncoder, unit_vectors

small_models = command_line.small_models
folder = command_line.folder
stored = command_line.index

WORDS = ["pump", "mill", "tide", "valve", "brass", "room", "oak", "lever", "sluice", "wheel"]


def texts(count: int) -> list[str]:
    random = np.random.default_rng(14)
    return [" ".join(random.choice(WORDS, 6)) + f" n{n}" for n in range(count)]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index.open(tmp_path / "x.index", model=HashEncoder()) as opened:
        opened.add([{"id": f"d{n}", "text": text} for n, text in enumerate(texts(120))])
        opened.add([{"id": f"copy{n}", "text": "pump room of brass"} for n in range(5)])
        yield opened


class ByLength:
    """A reranker that prefers long texts."""

    name = "by-length"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def score(self, query: str, texts: list[str]) -> Any:
        self.asked.append(query)
        return np.array([len(text) for text in texts], np.float32)


def ids(results: Results) -> list[str]:
    return [hit.document_id for hit in results]


def with_words(*words: str) -> set[str]:
    """Return the documents in which words stand one after the other."""
    joined = f" {' '.join(words)} "
    return {f"d{n}" for n, text in enumerate(texts(120)) if joined in f" {text} "}


CHOSEN: list[dict[str, Any]] = [
    {},
    {"group": "document"},
    {"fold": False},
    {"rerank": ByLength(), "candidates": 500},
    {"rerank": ByLength(), "candidates": 500, "group": "document"},
]
MODES: list[dict[str, Any]] = [{"mode": "dense"}, {"mode": "lexical"}, {"fusion": "rrf"}]


@pytest.mark.parametrize("chosen", CHOSEN)
def test_a_phrase_must_stand_and_an_excluded_word_may_not(index: Index, chosen: dict[str, Any]):
    found = index.search('"pump mill"', k=500, **chosen)
    assert set(ids(found)) == with_words("pump", "mill")
    assert '; with "pump mill": ' in found.plan
    found = index.search('wheel "pump" -valve -"tide mill"', k=500, **chosen)
    expected = with_words("pump") - with_words("valve") - with_words("tide", "mill")
    assert {one for one in ids(found) if one.startswith("d")} == expected
    assert len(found) > 5
    assert {hit.rank for hit in found} == set(range(1, len(found) + 1))


def test_the_score_is_that_of_the_question_without_operators(index: Index):
    every = {hit.document_id: hit.score for hit in index.search("wheel pump mill", k=500)}
    found = index.search('wheel "pump mill" -oak', k=500)
    assert found
    assert {hit.document_id: hit.score for hit in found} == {one: every[one] for one in ids(found)}
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)


def test_exactly_k_hits_are_returned_where_there_are_so_many(index: Index):
    matching = with_words("oak") - with_words("mill")
    for k in (1, len(matching) - 1, len(matching), len(matching) + 1):
        assert len(index.search('"oak" -mill', k=k)) == min(k, len(matching))


def test_a_phrase_that_stands_nowhere_finds_nothing_and_the_plan_says_so(index: Index):
    found = index.search('pump "lever of ivory"')
    assert (len(found), found.cursor) == (0, None)
    assert found.plan.endswith('; with "lever of ivory": 0 passages')
    assert len(index.search("pump lever of ivory")) == 10


def test_questions_searched_together_keep_their_own_phrases(index: Index):
    questions = ['"oak"', "pump", 'pump -"oak"', "mill", '"nowhere at all"']
    together = index.search_many(questions, k=20)
    for question, found in zip(questions, together, strict=True):
        alone = index.search(question, k=20)
        assert [(h.chunk_id, h.score) for h in found] == [(h.chunk_id, h.score) for h in alone]
        assert found.plan == alone.plan
    assert set(ids(together[0])) <= with_words("oak")
    assert set(ids(together[2])).isdisjoint(with_words("oak"))


def test_without_operators_everything_is_text(index: Index):
    question = '"pump mill" -oak tid*'
    found = index.search(question, operators=False, k=500, mode="dense")
    assert len(found) == 121  # the copies are one hit
    assert "passages" not in found.plan
    encoder = HashEncoder()
    by_vector = index.search(vector=encoder.encode_queries([question])[0], k=500)
    assert [hit.score for hit in found] == [hit.score for hit in by_vector]
    assert ids(index.search_many([question], options=SearchOptions(operators=False))[0])


@pytest.mark.parametrize("question", ["?", "...", "-", "a", "the of", "-pump", '""', "\u200b?"])
def test_questions_without_words_are_text(index: Index, question: str):
    assert len(index.search(question, k=3)) == 3


@pytest.mark.parametrize("question", ["", " ", "\n\u3000"])
def test_an_empty_question_is_refused(index: Index, question: str):
    with pytest.raises(InvalidQuery, match="is empty"):
        index.search(question)


# --- several phrasings -----------------------------------------------------------------------


def test_phrasings_are_answered_by_the_mean_of_their_vectors(index: Index):
    phrasings = ["pump mill", "tide valve", "oak"]
    vectors = HashEncoder().encode_queries(phrasings)
    mean = vectors.mean(axis=0)
    found = index.search(phrasings, fuse=True, k=30, mode="dense")
    assert [hit.chunk_id for hit in found] == [h.chunk_id for h in index.search(vector=mean, k=30)]
    assert len({hit.chunk_id for hit in found}) == 30
    assert "; 3 phrasings fused" in found.plan
    one = index.search(["pump mill"], fuse=True)
    assert [hit.score for hit in one] == [hit.score for hit in index.search("pump mill")]
    assert [hit.score for hit in index.search("pump mill", fuse=True)] == [h.score for h in one]


def test_the_operators_of_every_phrasing_hold(index: Index):
    found = index.search(['"oak" wheel', "lever -mill"], fuse=True, k=500)
    assert set(ids(found)) == with_words("oak") - with_words("mill")


def test_the_reranker_reads_the_first_phrasing(index: Index):
    reranker = ByLength()
    index.search(['"pump" -oak wheel', "tide"], fuse=True, rerank=reranker)
    assert reranker.asked == ["pump wheel"]


def test_a_list_is_fused_only_when_asked_for(index: Index):
    with pytest.raises(InvalidQuery, match=r"search_many.*fuse=True"):
        index.search(["pump", "mill"])  # type: ignore[arg-type]
    with pytest.raises(InvalidQuery, match="empty list"):
        index.search([], fuse=True)
    with pytest.raises(InvalidQuery, match="query is 7"):
        index.search(7, fuse=True)  # type: ignore[arg-type]
    with pytest.raises(InvalidQuery, match="The query is None"):
        index.search(["pump", None], fuse=True)  # type: ignore[list-item]
    with pytest.raises(InvalidQuery, match="no query"):
        index.search(vector=[1.0] * 32, fuse=True)
    with pytest.raises(LimitExceeded, match="65 phrasings"):
        index.search(["pump"] * 65, fuse=True)


# --- more like a document --------------------------------------------------------------------


@pytest.mark.parametrize("chosen", CHOSEN[:3])
def test_what_is_like_a_document_is_not_the_document(index: Index, chosen: dict[str, Any]):
    found = index.search(document="d7", k=500, mode="dense", **chosen)
    vector = index.vectors("d7")["d7"].mean(axis=0)
    expected = [h.document_id for h in index.search(vector=vector, k=500, **chosen)]
    expected.remove("d7")
    assert ids(found) == expected
    assert "; like a document" in found.plan


def test_a_document_is_found_by_its_copies(index: Index):
    found = index.search(document="copy2", k=1, mode="dense")
    assert found[0].document_id == "copy0"
    assert found[0].score == pytest.approx(1)
    assert found[0].also_in == ("copy1", "copy3", "copy4")


def test_no_model_is_needed_to_find_what_is_like_a_document(tmp_path: Path):
    with Index.open(tmp_path / "v.index", dimension=4) as opened:
        for n, vector in enumerate(unit_vectors(9, 4, 1)):
            opened.add(Document(f"text {n}", id=f"{n}", embedding=vector))
        opened.add(Document("", id="empty"))
        assert len(opened.search(document="3", k=20)) == 8
        assert len(opened.search(document="empty")) == 0


def test_what_is_like_an_unknown_document_cannot_be_found(index: Index):
    with pytest.raises(DocumentNotFound, match=r"no document 'copy9'.*Did you mean 'copy"):
        index.search(document="copy9")
    with pytest.raises(InvalidQuery, match="document is 7"):
        index.search(document=7)  # type: ignore[arg-type]
    with pytest.raises(InvalidQuery, match="vector or document has no question"):
        index.search(document="d7", rerank=ByLength())
    for given in ({}, {"query": "a", "document": "d7"}, {"vector": [1], "document": "d7"}):
        with pytest.raises(InvalidQuery, match="exactly one of query, vector and document"):
            index.search(**given)  # type: ignore[arg-type]


# --- pages -----------------------------------------------------------------------------------


def pages(index: Index, **asked: Any) -> list[Results]:
    found = [index.search(**asked)]
    while found[-1].cursor is not None:
        found.append(index.search(cursor=found[-1].cursor, **asked))
        assert len(found) < 100
    return found


@pytest.mark.parametrize("chosen", [*CHOSEN, *MODES])
@pytest.mark.parametrize(
    "asked",
    [
        {"query": "pump mill"},
        {"query": 'wheel "pump" -valve'},
        {"query": ["pump", "oak"], "fuse": True},
        {"vector": unit_vectors(1, 32, 5)[0]},
        {"document": "d3"},
    ],
    ids=["question", "operators", "phrasings", "vector", "document"],
)
def test_pages_neither_repeat_nor_leave_out_a_hit(
    index: Index, asked: dict[str, Any], chosen: dict[str, Any]
):
    if "rerank" in chosen and not isinstance(asked.get("query"), str | list):
        return
    if chosen.get("mode") == "lexical" and "vector" in asked:
        return
    whole = index.search(k=500, **asked, **chosen)
    for k in (7, 60):
        found = pages(index, k=k, **asked, **chosen)
        hits = [hit for page in found for hit in page]
        assert [hit.to_dict() for hit in hits] == [hit.to_dict() for hit in whole]
        assert all(len(page) == k for page in found[:-1])
        assert len(found) > 1 or len(whole) <= k


def test_pages_of_a_reranked_search_end_with_its_candidates(index: Index):
    found = pages(index, query="pump", rerank=ByLength(), candidates=25, k=10)
    assert [len(page) for page in found] == [10, 10, 5]
    first = index.search("pump", k=25)
    assert {hit.chunk_id for page in found for hit in page} == {hit.chunk_id for hit in first}


def test_a_cursor_is_for_the_same_search(index: Index):
    cursor = index.search("pump", k=3).cursor
    assert cursor is not None
    for other in (
        {"query": "mill"},
        {"query": "pump", "k": 4},
        {"query": "pump", "fold": False},
        {"query": "pump", "group": "document"},
        {"query": "pump", "operators": False},
        {"query": "pump", "rerank": ByLength()},
        {"document": "d1"},
        {"vector": [1.0] * 32},
        {"query": ["pump", "mill"], "fuse": True},
    ):
        asked: dict[str, Any] = {"k": 3, "cursor": cursor, **other}
        # A question without operators is the same with operators=False, but for its options.
        with pytest.raises(InvalidQuery, match="belongs to another question or other options"):
            index.search(**asked)
    again = index.search("pump", k=3, cursor=cursor, timeout_s=60)
    assert [hit.rank for hit in again] == [4, 5, 6]
    (many,) = index.search_many(["pump"], k=3)
    assert many.cursor == cursor
    for hostile in ("", "x", cursor[:-1], b"x", 3, "A" * 100_000):
        with pytest.raises(InvalidQuery, match="cursor is "):
            index.search("pump", k=3, cursor=hostile)  # type: ignore[arg-type]


def test_a_cursor_expires_with_the_next_commit(tmp_path: Path):
    with Index.open(tmp_path / "x.index", model=HashEncoder()) as opened:
        opened.add([f"Pump {n}" for n in range(9)])
        cursor = opened.search("pump", k=3).cursor
        with Index.open(tmp_path / "x.index", model=HashEncoder(), read_only=True) as other:
            assert [hit.rank for hit in other.search("pump", k=3, cursor=cursor)] == [4, 5, 6]
        opened.add("One more pump.")
        with pytest.raises(CursorExpired, match="Search again"):
            opened.search("pump", k=3, cursor=cursor)
    with Index.open(tmp_path / "y.index", model=HashEncoder()) as opened:
        opened.add([f"Pump {n}" for n in range(9)])
        with pytest.raises(CursorExpired):
            opened.search("pump", k=3, cursor=cursor)


def test_a_page_may_not_lie_too_far_down(index: Index, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("retriever.search.searcher.MAX_K", 20)
    cursor = index.search("pump", k=8).cursor
    cursor = index.search("pump", k=8, cursor=cursor).cursor
    with pytest.raises(LimitExceeded, match="ends with hit 24; the limit of a search is 20"):
        index.search("pump", k=8, cursor=cursor)


def test_the_last_page_has_no_cursor(index: Index):
    assert index.search("pump", k=500).cursor is None
    assert index.search('"no such phrase"', k=1).cursor is None
    options = SearchOptions(k=40)
    cursor = index.search("pump", options=options).cursor
    assert len(index.search("pump", options=replace(options, timeout_s=60), cursor=cursor)) == 40


# --- on the command line ---------------------------------------------------------------------


def test_the_command_reads_operators_likeness_and_cursors(small_models: None, stored: Path):
    found = run_json("search", 'pump -"apple tree"', "-k", "1")
    assert (len(found["hits"]), found["operators"], found["like"]) == (1, True, None)
    following = run_json("search", 'pump -"apple tree"', "-k", "1", "--cursor", found["cursor"])
    assert [hit["rank"] for hit in following["hits"]] == [2]
    assert following["hits"][0]["chunk_id"] != found["hits"][0]["chunk_id"]
    like = run_json("search", "--like", "docs/bees.txt")
    assert (like["query"], like["like"]) == (None, "docs/bees.txt")
    assert {Path(hit["source"]).name for hit in like["hits"]} == {"pump.md", "levy.rst"}
    assert len(run_json("search", '"no such thing"', "--no-operators")["hits"]) == 3


def test_the_command_says_why_nothing_is_found(small_models: None, stored: Path):
    done = run("search", '"no such thing"')
    assert (done.exit_code, done.stdout) == (1, "")
    assert 'Nothing found with "no such thing": 0 passages. --no-operators' in done.stderr
    assert run("search").exit_code == 2
    assert run("search", "pump", "--like", "docs/bees.txt").exit_code == 2
    assert run("search", "--like", "docs/wasps.txt").exit_code == 3
    assert run("search", "pump", "--cursor", "x").exit_code == 2


# --- hostile questions -----------------------------------------------------------------------

_PIECES = [
    *'"„“”«»-*\'()^:~\\/ \t\n\0', "AND", "NEAR(", "pump", "pum*", '"pump mill"', "-valve", "ё",
    "猫", "ก็", "e\u0301", "\u200d", "\ud800", "'; DROP TABLE chunks; --", '""', "*", "{x}", "n7",
    "\U0010ffff", ' "oak" ', " -mill ", " -n*", ' "no such" ',
]  # fmt: skip


def test_any_question_finds_something_or_is_a_typed_error(index: Index):
    """`RETRIEVER_FUZZ=100000` is the long run."""
    random_ = random.Random(14)
    counts = {"hits": 0, "none": 0, "refused": 0}
    for _ in range(int(os.environ.get("RETRIEVER_FUZZ", "300"))):
        question = "".join(random_.choice(_PIECES) for _ in range(random_.randrange(12)))
        chosen: Any = random_.choice(
            [{}, {"group": "document"}, {"fold": False}, {"operators": False}]
        )
        if not question.strip() or "\ud800" in question:
            with pytest.raises(InvalidQuery):
                index.search(question, k=5, **chosen)
            counts["refused"] += 1
            continue
        found = index.search(question, k=5, **chosen)
        restricts = parse(question).restricts and "operators" not in chosen
        assert len(found) == 5 or restricts, question
        counts["hits" if found else "none"] += 1
    assert min(counts.values()) > 0

"""Reranking a search: what is read, in what order hits come back, what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cross_encoders import save_with_numpy

from retriever import Document, Index
from retriever.config import Chunking
from retriever.encoders.computing import Computing
from retriever.encoders.cross_encoder import load_cross_encoder
from retriever.errors import InvalidQuery, LimitExceeded, ModelError, ModelUnavailable
from retriever.testing import HashEncoder

QUESTION = "how do I reset the pump"
STEPS = ("encode_s", "search_s", "fetch_s", "rerank_s", "total_s")


class Shortest:
    """A reranker for whom the shorter text is the better one; it remembers what it read."""

    name = "shortest"

    def __init__(self) -> None:
        self.read: list[tuple[str, list[str]]] = []

    def score(self, query: str, texts: Sequence[str]) -> np.ndarray:
        self.read.append((query, list(texts)))
        return np.array([-len(text) for text in texts], np.float32)


class Always:
    """A reranker that returns the same thing for any texts."""

    def __init__(self, scores: Any) -> None:
        self.scores = scores

    def score(self, query: str, texts: Sequence[str]) -> Any:
        return self.scores


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_with_numpy(tmp_path_factory.mktemp("rerank") / "tiny")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """Thirty documents of one chunk, ever longer and ever less like the question."""
    words = QUESTION.split()
    texts = [
        " ".join([*words[: 6 - n // 6], *(f"word{n}x{i}" for i in range(n % 13))])
        for n in range(30)
    ]
    with Index.open(tmp_path / "a.index", model=HashEncoder(dimension=64)) as opened:
        opened.add([Document(text, id=f"d{n:02}") for n, text in enumerate(texts)])
        yield opened


def test_candidates_are_put_in_the_rerankers_order(index: Index):
    plain = index.search(QUESTION, k=8)
    reranker = Shortest()
    found = index.search(QUESTION, k=3, rerank=reranker, candidates=8)
    assert reranker.read == [(QUESTION, [hit.text for hit in plain])]
    best = sorted(plain, key=lambda hit: len(hit.text))[:3]
    assert [hit.document_id for hit in found] == [hit.document_id for hit in best]
    assert [hit.rank for hit in found] == [1, 2, 3]
    for hit, before in zip(found, best, strict=True):
        assert hit.score == -len(hit.text)
        assert hit.scores == {**before.scores, "rerank": hit.score}
        assert (hit.text, hit.span, hit.lines) == (before.text, before.span, before.lines)
    assert [hit.document_id for hit in found] != [hit.document_id for hit in plain[:3]]


def test_the_results_say_what_was_done(index: Index):
    plain = index.search(QUESTION, k=3)
    found = index.search(QUESTION, k=3, rerank=Shortest(), candidates=1000)
    assert found.plan == f"{plain.plan}; reranked 30 by shortest"
    assert found.exact
    assert set(found.timings) == set(STEPS)
    assert sum(found.timings[step] for step in STEPS[:-1]) == pytest.approx(
        found.timings["total_s"], abs=1e-6
    )
    assert "rerank_s" not in plain.timings
    assert (
        "; reranked 3 by Always"
        in index.search(QUESTION, k=2, rerank=Always([1, 2, 3]), candidates=3).plan
    )


def test_equal_scores_keep_the_order_of_the_first_stage(index: Index):
    plain = index.search(QUESTION, k=20)
    found = index.search(QUESTION, k=20, rerank=Always(np.zeros(20)), candidates=20)
    assert [hit.chunk_id for hit in found] == [hit.chunk_id for hit in plain]
    assert {hit.score for hit in found} == {0.0}


def test_no_fewer_than_k_candidates_are_read(index: Index):
    reranker = Shortest()
    assert len(index.search(QUESTION, k=12, rerank=reranker, candidates=5)) == 12
    assert len(index.search(QUESTION, k=1000, rerank=reranker)) == 30
    assert [len(texts) for _, texts in reranker.read] == [12, 30]


def test_an_empty_index_asks_no_reranker(tmp_path: Path):
    reranker = Shortest()
    with Index.open(tmp_path / "empty.index", model=HashEncoder()) as index:
        found = index.search(QUESTION, rerank=reranker)
    assert (list(found), reranker.read) == ([], [])
    assert found.plan.endswith("; reranked 0 by shortest")


def test_many_questions_are_reranked_each_on_its_own(index: Index):
    queries = [QUESTION, "word3x1 word5x2", "the"]
    many = index.search_many(queries, k=4, rerank=Shortest(), candidates=7)
    for query, results in zip(queries, many, strict=True):
        assert list(results) == list(index.search(query, k=4, rerank=Shortest(), candidates=7))
    assert index.search_many([], rerank=Shortest()) == []


def test_grouping_keeps_the_chunk_that_the_reranker_prefers(tmp_path: Path):
    with Index.open(
        tmp_path / "a.index",
        model=HashEncoder(max_tokens=8),
        chunking=Chunking(tokens=8, overlap=0),
    ) as index:
        sections = [f"{QUESTION} now now", "pump", "reset the pump, it is late at night"]
        index.add(
            [Document("\n\n".join(sections), id="many")]
            + [Document(f"{'the ' * n}tide {n}", id=f"few{n}") for n in range(1, 4)]
        )
        plain = index.search(QUESTION, k=4, group="document")
        best = {hit.document_id: hit.text for hit in plain}
        found = index.search(QUESTION, k=4, group="document", rerank=Shortest())
        chunks = [chunk.text for chunk in index.chunks("many")]
        assert len(chunks) > 1
        assert {hit.document_id for hit in found} == set(best)
        preferred = {hit.document_id: hit.text for hit in found}["many"]
        assert preferred == min(chunks, key=len) != best["many"]
        assert [hit.rank for hit in found] == [1, 2, 3, 4]
        assert [hit.score for hit in found] == sorted((h.score for h in found), reverse=True)


def test_grouping_finds_k_documents_though_the_candidates_come_from_one(tmp_path: Path):
    with Index.open(
        tmp_path / "a.index",
        model=HashEncoder(max_tokens=8),
        chunking=Chunking(tokens=8, overlap=0),
    ) as index:
        index.add(Document("".join(f"{QUESTION} {n}\n\n" for n in range(12)), id="many"))
        index.add([Document(f"the tide {n} is high", id=f"few{n}") for n in range(4)])
        reranker = Shortest()
        found = index.search(QUESTION, k=3, group="document", rerank=reranker, candidates=5)
        ((_, texts),) = reranker.read
        assert len({hit.document_id for hit in found}) == len(found) == 3
        assert len(texts) == 5 + 2
        assert {hit.document_id for hit in found} == {
            hit.document_id for hit in index.search(QUESTION, k=3, group="document")
        }


def test_the_reranker_reads_what_the_encoder_saw(tmp_path: Path):
    with Index.open(
        tmp_path / "a.index", model=HashEncoder(), chunking=Chunking(prefix_headings=True)
    ) as index:
        (tmp_path / "manual.md").write_text(
            "# Pump\n\n" + "Press. " * 40 + "\n\n## Reset\n\nHold R."
        )
        index.add_files(tmp_path / "manual.md")
        reranker = Shortest()
        found = index.search("hold", k=50, rerank=reranker)
        ((_, texts),) = reranker.read
        assert sorted(map(len, texts)) == sorted(-hit.score for hit in found)
        assert any(
            text.startswith("Pump") and text not in {h.text for h in found} for text in texts
        )


def test_a_cross_encoder_is_found_by_its_path_and_kept(index: Index, tiny: Path, tmp_path: Path):
    folder = Path(shutil.copytree(tiny, tmp_path / "mine"))
    plain = index.search(QUESTION, k=20)
    wanted = load_cross_encoder(tiny, Computing(precision="auto")).score(
        QUESTION, [h.text for h in plain]
    )
    by_name = index.search(QUESTION, k=20, rerank=str(folder), candidates=20)
    by_chunk = {hit.chunk_id: hit.scores["rerank"] for hit in by_name}
    found = [by_chunk[hit.chunk_id] for hit in plain]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=0.02)  # auto may be bfloat16
    assert [hit.score for hit in by_name] == sorted(wanted_of(by_name), reverse=True)
    assert by_name.plan.endswith(f"; reranked 20 by {folder}")
    shutil.rmtree(folder)
    again = index.search(QUESTION, k=20, rerank=str(folder), candidates=20)
    assert [hit.chunk_id for hit in again] == [hit.chunk_id for hit in by_name]
    with pytest.raises(ModelUnavailable, match="no model directory"):
        index.search(QUESTION, rerank=tmp_path / "nowhere")


def wanted_of(results: Any) -> list[float]:
    return [hit.scores["rerank"] for hit in results]


def test_the_precision_of_the_index_is_the_rerankers(tiny: Path, tmp_path: Path):
    with Index.open(tmp_path / "a.index", model=HashEncoder(), precision="float32") as index:
        index.add([f"the pump {n} has a button" for n in range(30)])
        found = index.search(QUESTION, k=30, rerank=tiny)
    texts = [hit.text for hit in found]
    wanted = load_cross_encoder(tiny, Computing(precision="float32")).score(QUESTION, texts)
    np.testing.assert_allclose(wanted_of(found), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rerank": True}, "rerank is True"),
        ({"rerank": ""}, "rerank is ''"),
        ({"rerank": 3}, "rerank is 3"),
        ({"rerank": Shortest}, "rerank is <class"),
        ({"rerank": object()}, "rerank is <object"),
        ({"rerank": Shortest(), "candidates": 0}, "candidates is 0"),
        ({"rerank": Shortest(), "candidates": True}, "candidates is True"),
        ({"rerank": Shortest(), "candidates": 2.0}, r"candidates is 2\.0"),
        ({"candidates": -1}, "candidates is -1"),
    ],
)
def test_options_that_mean_nothing_are_refused(index: Index, options: dict[str, Any], message: str):
    with pytest.raises(InvalidQuery, match=message) as caught:
        index.search(QUESTION, **options)
    assert caught.value.hint
    with pytest.raises(InvalidQuery, match=message):
        index.search_many([QUESTION], **options)


def test_a_search_by_vector_cannot_be_reranked(index: Index):
    vector = np.ones(64, np.float32)
    with pytest.raises(InvalidQuery, match="by vector or document has no question"):
        index.search(vector=vector, rerank=Shortest())
    with pytest.raises(InvalidQuery, match="by vector or document has no question"):
        index.search_many(vectors=[vector], rerank="nowhere")
    assert len(index.search(vector=vector, rerank=False)) == 10  # type: ignore[arg-type]


def test_more_than_a_thousand_are_not_reranked(index: Index):
    with pytest.raises(LimitExceeded, match="candidates is 1,001") as caught:
        index.search(QUESTION, rerank=Shortest(), candidates=1001)
    assert (caught.value.option, caught.value.limit, caught.value.value) == (
        "candidates",
        1000,
        1001,
    )
    with pytest.raises(LimitExceeded, match="k is 1,001; the limit is 1,000 with rerank"):
        index.search(QUESTION, k=1001, rerank=Shortest())
    assert len(index.search(QUESTION, k=1001)) == 30


@pytest.mark.parametrize(
    "scores",
    [[1.0], np.zeros((10, 1)), [float("nan")] * 10, [float("inf")] * 10, 1.0, None, ["a"] * 10],
)
def test_a_reranker_without_a_number_for_each_text_is_refused(index: Index, scores: Any):
    with pytest.raises(ModelError, match=r"'Always' returned .*a finite number for each"):
        index.search(QUESTION, rerank=Always(scores), candidates=10)


def test_what_a_reranker_raises_is_not_hidden(index: Index):
    class Failing:
        def score(self, query: str, texts: Sequence[str]) -> np.ndarray:
            raise KeyError(query)

    with pytest.raises(ModelError, match="'Failing' failed: KeyError") as caught:
        index.search(QUESTION, rerank=Failing())
    assert isinstance(caught.value.__cause__, KeyError)
    assert len(index.search(QUESTION)) == 10

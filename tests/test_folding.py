"""Identical passages in hits: one hit that counts them, and no place taken from others."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retriever import Document, Hit, Index, IndexCorrupt, Limits
from retriever.search import duplicates
from retriever.storage import catalog
from retriever.testing import HashEncoder

NOTICE = "This message is confidential and meant for the person it is addressed to."


@pytest.fixture
def index(tmp_path: Path):
    with Index.open(tmp_path / "x.index", model=HashEncoder()) as opened:
        opened.add([Document(NOTICE, id=f"mail-{n:02}", metadata={"n": n}) for n in range(30)])
        opened.add([Document(f"This message is about pump {n}.", id=f"pump-{n}") for n in range(5)])
        yield opened


def test_identical_passages_are_one_hit_that_counts_them(index: Index):
    hits = index.search(NOTICE, k=4)
    assert hits[0].document_id == "mail-00"
    assert [hit.duplicates for hit in hits] == [29, 0, 0, 0]
    assert hits[0].also_in == tuple(f"mail-{n:02}" for n in range(1, 11))
    assert hits[0].metadata == {"n": 0}
    assert {hit.document_id[:4] for hit in hits[1:]} == {"pump"}
    assert hits[0].to_dict()["duplicates"] == 29
    index.delete("mail-00")
    assert (index.search(NOTICE)[0].document_id, index.search(NOTICE)[0].duplicates) == (
        "mail-01",
        28,
    )


def test_without_folding_each_has_a_hit_of_its_own(index: Index):
    hits = index.search(NOTICE, k=32, fold=False)
    assert [hit.document_id for hit in hits][:30] == [f"mail-{n:02}" for n in range(30)]
    assert not any(hit.duplicates or hit.also_in for hit in hits)
    assert [len(found) for found in index.search_many([NOTICE], k=99, fold=False)] == [35]
    assert [len(found) for found in index.search_many([NOTICE], k=99)] == [6]


def test_passages_that_only_read_alike_stay_apart(index: Index):
    index.add([Document("own", id=f"v{n}", embedding=[1.0 + n % 2, *[1.0] * 31]) for n in range(4)])
    index.add(Document("own", id="encoded"))
    hits = [hit for hit in index.search(vector=[1.0] * 32, k=99) if hit.text == "own"]
    assert {hit.document_id: hit.duplicates for hit in hits} == {"v0": 1, "v1": 1, "encoded": 0}
    index.add([Document("", id=f"image-{n}", embedding=[1.0] * 32) for n in range(3)])
    hits = [hit for hit in index.search(vector=[1.0] * 32, k=99) if not hit.text]
    assert [hit.document_id for hit in hits] == ["image-0", "image-1", "image-2"]


def test_a_document_whose_best_passage_is_shown_already_is_found_by_its_next(index: Index):
    index.add(Document(f"{NOTICE}\n\n" + "The levy is due in May. " * 8, id="levy"))
    hits = index.search(NOTICE, k=99, group="document")
    assert len({hit.document_id for hit in hits}) == len(hits)
    assert len({hit.text for hit in hits}) == len(hits)
    assert "levy" in {hit.document_id for hit in hits}


def test_a_reranker_reads_a_passage_once(index: Index):
    class Shortest:
        def score(self, query, texts):
            read.extend(texts)
            return [-len(text) for text in texts]

    read: list[str] = []
    hits = index.search(NOTICE, k=3, rerank=Shortest(), candidates=6)
    assert len(read) == len(set(read)) == 6
    assert len(hits) == 3
    by_text = {hit.text: hit.duplicates for hit in index.search(NOTICE, k=6, rerank=Shortest())}
    assert by_text[NOTICE] == 29


def test_ten_thousand_copies_cost_a_search_or_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    limits = Limits(tail_rows=4000)
    with Index.open(tmp_path / "y.index", model=HashEncoder(), limits=limits) as index:
        index.add([Document(NOTICE, id=f"{n:05}") for n in range(10_000)])
        index.add([Document(f"word {n}", id=f"w{n}") for n in range(50)])
        read: list[int] = []
        fetch = catalog.fetch_vectors

        def counting(connection, space, ids):
            read.append(len(ids))
            return fetch(connection, space, ids)

        monkeypatch.setattr(catalog, "fetch_vectors", counting)
        hits = index.search(NOTICE, k=10)
        assert (hits[0].document_id, hits[0].duplicates) == ("00000", 9_999)
        assert len(hits) == len({hit.text for hit in hits}) == 10
        assert sum(read) < 100


@pytest.mark.damages
def test_a_chunk_of_no_document_of_ours_is_damage(index: Index, tmp_path: Path):
    index.close()
    with closing(sqlite3.connect(tmp_path / "x.index" / "store.db")) as connection, connection:
        connection.execute("UPDATE chunks SET document_pk = 'x' WHERE id = 1")
    for group in (None, "document"):
        with (
            Index.open(tmp_path / "x.index", model=HashEncoder()) as damaged,
            pytest.raises(IndexCorrupt),
        ):
            damaged.search(NOTICE, k=4, group=group)


# --- what questions find out of copies, for those after them --------------------------------------

VECTOR = np.eye(32, dtype=np.float32)


def near(vector: np.ndarray, seed: int) -> list[float]:
    moved = vector + np.random.default_rng(seed).standard_normal(32) * 0.2
    return [float(number) for number in moved]


def fill(index: Index, seed: int, count: int) -> None:
    """Add documents of which many hold one of four passages, by vector or encoded."""
    random = np.random.default_rng(seed)
    documents = []
    for number in range(count):
        what = int(random.integers(0, 8))
        vector = None if what == 3 else VECTOR[what] if what < 5 else near(VECTOR[what % 5], number)
        text = f"Boilerplate {min(what, 3)}." if what < 5 else f"Text {seed} {number}."
        documents.append(Document(text, id=f"{seed}-{number:03}", embedding=vector))
    index.add(documents)


def plain(results: Sequence[Hit]) -> list[dict[str, Any]]:
    return [hit.to_dict() for hit in results]


def test_what_is_known_of_copies_changes_no_answer(tmp_path: Path):
    limits = Limits(tail_rows=400)
    with (
        Index.open(tmp_path / "x.index", model=HashEncoder(), limits=limits) as index,
        Index.open(tmp_path / "x.index", read_only=True) as other,
    ):
        for seed in range(3):
            fill(index, seed, 900)
            index.delete([f"{seed}-{number:03}" for number in range(0, 900, 4)])
            for number in range(0, 24, 4):
                query = near(VECTOR[number % 5], number)
                for options in ({"fold": True}, {"group": "document"}, {"fold": False}):
                    for k in (3, 60):
                        found = index.search(vector=query, k=k, **options)
                        other._views.forget()  # it knows of nothing
                        fresh = other.search(vector=query, k=k, **options)
                        assert plain(found) == plain(fresh)
                        assert found.plan == fresh.plan
            view = index._views.newest
            assert view is not None
            assert view.live.duplicates.without_masked(view.live).count < view.live.count - 30
        many = index.search_many(vectors=[near(VECTOR[n % 5], n) for n in range(9)], k=7)
        for number, found in enumerate(many):
            other._views.forget()
            query = near(VECTOR[number % 5], number)
            assert plain(found) == plain(other.search(vector=query, k=7))


def test_copies_are_read_for_the_first_questions_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    read: list[int] = []
    chunks_of_text = catalog.chunks_of_text

    def counted(*arguments: Any) -> Any:
        found = chunks_of_text(*arguments)
        read.append(len(found))
        return found

    monkeypatch.setattr(catalog, "chunks_of_text", counted)
    with Index.open(tmp_path / "x.index", model=HashEncoder()) as index:
        index.add([Document(NOTICE, id=f"{n}", embedding=VECTOR[0]) for n in range(200)])
        index.add([Document(f"Pump {n}.", embedding=VECTOR[1 + n % 30]) for n in range(60)])
        for number in range(5):
            hits = index.search(vector=near(VECTOR[0], number))
            assert (hits[0].document_id, hits[0].duplicates) == ("0", 199)
        assert read == [200]
        index.delete("0")
        for number in range(5):
            hits = index.search(vector=near(VECTOR[0], number))
            assert (hits[0].document_id, hits[0].duplicates) == ("1", 198)
        assert read == [200, 199]


def test_what_is_known_of_copies_is_bounded():
    known = duplicates.DuplicateCache(max_ids=250)
    texts = [catalog.Text(bytes([number]), None) for number in range(4)]
    for text, count in zip(texts, (100, 63, 160, 150), strict=True):
        known.remember(text, np.arange(count))
    assert [known.ids(text) is not None for text in texts] == [True, False, False, True]

"""Identical passages in hits: one hit that counts them, and no place taken from others."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support import HashEncoder

from retriever import Document, Index, IndexCorrupt
from retriever.storage import catalog, segments

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
    monkeypatch.setattr(segments, "TAIL_ROWS", 4000)
    with Index.open(tmp_path / "y.index", model=HashEncoder()) as index:
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

"""Chunkings and the spaces that share one: what a rebuild cuts again, and what it leaves alone."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from retriever import Document, Index, InvalidConfig, Limits
from retriever.testing import HashEncoder, unit_vectors

SMALL = Limits(commit_documents=2)
TEXTS = {
    f"{n}": " ".join(f"Pump {n} is tested on day {day} of the year." for day in range(9))
    for n in range(6)
}


class Counting:
    """A tokenizer that counts the texts it is given."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.texts = 0

    def tokenize(self, texts: Sequence[str]) -> Any:
        self.texts += len(texts)
        return self._tokenizer.tokenize(texts)


class Model(HashEncoder):
    """An encoder whose identity is that of a model read from files, which names its tokenizer."""

    def __init__(self, weights: str, *, tokenizer: str = "words", max_tokens: int = 24) -> None:
        super().__init__(max_tokens=max_tokens, name="small", salt=weights)
        self.tokenizer = Counting(self.tokenizer)
        self._tokenizer_name = tokenizer

    @property
    def identity(self) -> dict[str, Any]:
        return {**super().identity, "config": "small", "tokenizer": self._tokenizer_name}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Index.open(tmp_path / "a.index", model=Model("one")) as index:
        index.add([{"id": name, "text": text} for name, text in TEXTS.items()])
        index.add({"id": "empty", "text": ""})
        index.compact()
    return tmp_path / "a.index"


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path / "store.db")
    found = connection.execute(sql).fetchall()
    connection.close()
    return found


def chunk_ids(path: Path) -> list[int]:
    return [number for (number,) in rows(path, "SELECT id FROM chunks ORDER BY id")]


def stop_after(documents: int) -> Any:
    def stop(progress: Any) -> None:
        if progress.done >= documents:
            raise KeyboardInterrupt

    return stop


def test_another_model_with_the_same_tokenizer_and_window_cuts_nothing_again(path: Path) -> None:
    before = chunk_ids(path)
    other = Model("two")
    with Index.open(path, model=Model("one")) as index:
        chunks, old = index.chunks("3"), index.vectors(["3"])["3"]
        report = index.rebuild(model=other)
        assert other.tokenizer.texts == 0
        assert index.chunks("3") == chunks
        new = index.vectors(["3"])["3"]
        assert new.shape == old.shape
        assert not (new == old).all(axis=1).any()
        assert index.search(chunks[1].text, k=1)[0].chunk_id == chunks[1].id
        assert index.verify(deep=True).ok
    assert chunk_ids(path) == before
    assert report.replaced == len(TEXTS)
    assert report.encoded == len({chunk for (chunk,) in rows(path, "SELECT text_hash FROM chunks")})
    assert rows(path, "SELECT id, state FROM chunkings") == [(1, "active")]
    assert rows(path, "SELECT id, chunking_id, state FROM spaces") == [(2, 1, "active")]


@pytest.mark.parametrize(
    ("model", "chunking"),
    [
        (Model("two", tokenizer="letters"), None),
        (Model("two", max_tokens=20), None),
        (Model("two"), {"tokens": 12}),
        (Model("one"), None),
    ],
    ids=["tokenizer", "window", "options", "the same model"],
)
def test_whatever_else_changes_the_chunks_are_cut_again(
    path: Path, model: Model, chunking: Any
) -> None:
    before = chunk_ids(path)
    with Index.open(path, model=Model("one")) as index:
        index.rebuild(model=model, chunking=chunking)
        assert index.verify(deep=True).ok
        assert index.count() == len(TEXTS) + 1
    assert min(chunk_ids(path)) > max(before)
    assert rows(path, "SELECT id, state FROM chunkings") == [(2, "active")]


def test_a_window_that_the_options_name_is_the_same_for_models_of_any_window(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.index"
    with Index.open(path, model=Model("one"), chunking={"tokens": 12}) as index:
        index.add([{"id": name, "text": text} for name, text in TEXTS.items()])
        before = chunk_ids(path)
        index.rebuild(model=Model("two", max_tokens=20))
    assert chunk_ids(path) == before


def test_cut_short_it_goes_on_with_the_documents_that_have_no_vectors_yet(path: Path) -> None:
    with Index.open(path, model=Model("one"), limits=SMALL) as index:
        with pytest.raises(KeyboardInterrupt) as caught:
            index.rebuild(model=Model("two"), progress=stop_after(3))
        assert 0 < caught.value.report.replaced < len(TEXTS)
        assert index.status().building == "small"
        assert index.verify(deep=True).ok
        index.add({"id": "new", "text": "One more pump in the yard."})
        index.add({"id": "1", "text": "Another text of the first one."})
        index.delete("2")
        assert index.verify(deep=True).ok
        kept = chunk_ids(path)
        other = Model("two")
        report = index.rebuild(model=other)
        assert other.tokenizer.texts == 0
        assert report.replaced < len(TEXTS)
        assert index.status().building is None
        assert index.search("Another text of the first one.", k=1)[0].document_id == "1"
        assert index.verify(deep=True).ok
    assert chunk_ids(path) == kept


def test_what_another_writer_did_of_the_same_rebuild_is_not_done_twice(path: Path) -> None:
    at_work, may_go_on = threading.Event(), threading.Event()

    class Waiting(Model):
        def encode_documents(self, texts: Sequence[str]) -> Any:
            if any("Pump" in text for text in texts):
                at_work.set()
                assert may_go_on.wait(60)
            return super().encode_documents(texts)

    def do_half_of_it() -> None:
        try:
            assert at_work.wait(60)
            with (
                Index.open(path, model=Model("one"), limits=SMALL) as index,
                pytest.raises(KeyboardInterrupt),
            ):
                index.rebuild(model=Model("two"), progress=stop_after(4))
        finally:
            may_go_on.set()

    other = threading.Thread(target=do_half_of_it)
    other.start()
    with Index.open(path, model=Model("one"), limits=SMALL) as index:
        index.rebuild(model=Waiting("two"))
        other.join()
        assert index.status().building is None
        assert index.verify(deep=True).ok


def test_an_unfinished_space_for_other_ends_is_dropped_and_its_chunks_are_kept(path: Path) -> None:
    before = chunk_ids(path)
    with Index.open(path, model=Model("one"), limits=SMALL) as index:
        with pytest.raises(KeyboardInterrupt):
            index.rebuild(model=Model("two"), progress=stop_after(3))
        index.rebuild(model=Model("three"))
        assert index.verify(deep=True).ok
    assert chunk_ids(path) == before
    assert rows(path, "SELECT chunking_id, state FROM spaces") == [(1, "active")]


def test_embeddings_that_are_given_up_have_their_texts_cut(path: Path) -> None:
    brought = Document(TEXTS["0"], "brought", embedding=unit_vectors(1, 32, 3)[0])
    with Index.open(path, model=Model("one")) as index:
        index.add([brought])
        assert len(index.chunks("brought")) == 1
        with pytest.raises(InvalidConfig, match="1 of them"):
            index.rebuild(model=Model("two"))
        index.rebuild(model=Model("two"), discard_embeddings=True)
        assert len(index.chunks("brought")) == len(index.chunks("0")) > 1
        assert index.verify(deep=True).ok


def test_an_embedding_that_comes_during_the_rebuild_is_cut_too(path: Path) -> None:
    brought = Document(TEXTS["0"], "brought", embedding=unit_vectors(1, 32, 3)[0])
    with Index.open(path, model=Model("one"), limits=SMALL) as index:

        def add(progress: Any) -> None:
            if index.get("brought") is None:
                index.add([brought])

        index.rebuild(model=Model("two"), discard_embeddings=True, progress=add)
        assert len(index.chunks("brought")) == len(index.chunks("0")) > 1
        assert index.get("brought").embedding is None
        assert index.verify(deep=True).ok


def test_a_damaged_chunk_during_the_rebuild_is_made_again_in_both_steps(path: Path) -> None:
    with (
        Index.open(path, model=Model("one"), limits=SMALL) as index,
        pytest.raises(KeyboardInterrupt),
    ):
        index.rebuild(model=Model("two"), progress=stop_after(3))
    connection = sqlite3.connect(path / "store.db", isolation_level=None)
    connection.execute("UPDATE vectors_1 SET crc = crc + 1 WHERE chunk_id = 1")
    connection.close()
    assert Index.repair_path(path, model=Model("one")).ok
    with Index.open(path, model=Model("one"), limits=SMALL) as index:
        assert index.status().building is None
        index.rebuild(model=Model("two"))
        assert index.verify(deep=True).ok
        assert index.count() == len(TEXTS) + 1


def test_titles_are_encoded_checked_and_reranked_with_their_chunks(path: Path) -> None:
    model = Model("one")
    text = " ".join(f"It is tested on day {day}." for day in range(9))
    with Index.open(path, model=model) as index:
        index.add({"id": "a", "text": text, "title": "Tarn lift"})
        index.add({"id": "b", "text": text, "title": "Brine pump"})
        index.rebuild(chunking={"prefix_title": True})
        chunks = index.chunks("a")
        assert len(chunks) > 1
        assert all(f"Tarn lift\n\n{chunk.text}" in model.encoded for chunk in chunks)
        hit = index.search(f"Brine pump {chunks[1].text}", k=1)[0]
        assert (hit.document_id, hit.text) == ("b", chunks[1].text)
        assert index.verify(deep=True).ok
    connection = sqlite3.connect(path / "store.db", isolation_level=None)
    connection.execute("UPDATE vectors_2 SET crc = crc + 1 WHERE chunk_id = ?", (chunks[0].id,))
    connection.close()
    assert Index.repair_path(path, model=model).ok
    with Index.open(path, model=model) as index:
        assert index.verify(deep=True).ok
        assert [c.text for c in index.chunks("a")] == [c.text for c in chunks]

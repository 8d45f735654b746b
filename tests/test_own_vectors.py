"""Embeddings that callers bring: kept, returned, exported, and searched without a model."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from command_line import run

import retriever
from retriever import Document, Heading, Index
from retriever.testing import HashEncoder, unit_vectors

VECTORS = unit_vectors(8, 32, seed=3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "own.index"


def documents(count: int = 3) -> list[Document]:
    return [
        Document(f"caption of photograph {i}", id=f"own-{i}", embedding=VECTORS[i])
        for i in range(count)
    ]


def test_another_model_does_not_take_the_place_of_embeddings_unless_told(path: Path):
    with Index.open(path, model=HashEncoder()) as index:
        index.add([*documents(), Document("plain text about valves", id="plain")])
        for model in (HashEncoder(dimension=48), HashEncoder(salt="other")):
            with pytest.raises(retriever.InvalidConfig, match="documents: 3 of them") as refused:
                index.rebuild(model=model)
            assert "discard_embeddings" in refused.value.hint
        assert index.status().building is None
        index.rebuild(chunking={"tokens": 8})
        index.rebuild(model=HashEncoder())
        assert index.search(vector=VECTORS[1], k=1)[0].document_id == "own-1"
        index.rebuild(model=HashEncoder(dimension=48), discard_embeddings=True)
        assert index.search("caption of photograph 1", k=1)[0].document_id == "own-1"
        assert index.vectors("own-1")["own-1"].shape == (1, 48)
        assert index.get("own-1").embedding is None
        index.rebuild(model=HashEncoder())


def test_vectors_are_those_that_are_searched(path: Path):
    with Index.open(path, model=HashEncoder(max_tokens=8)) as index:
        index.add([*documents(), Document("one word after another " * 10, id="long")])
        index.add(Document(" ", id="blank"))
        found = index.vectors()
        assert found.keys() == {document.id for document in index.documents()}
        assert found["long"].shape == (len(index.chunks("long")), 32)
        assert found["long"].dtype == np.float32
        np.testing.assert_allclose(found["own-2"], VECTORS[2:3], atol=1e-6)
        assert found[next(iter(found.keys() - {"long", "own-0", "own-1", "own-2"}))].shape == (
            0,
            32,
        )
        for hit in index.search(vector=found["long"][1], k=3):
            assert hit.score == pytest.approx(
                float(np.max(found[hit.document_id] @ found["long"][1])), abs=1e-5
            )
        assert index.vectors(["own-1", "own-0"]).keys() == {"own-1", "own-0"}
        with pytest.raises(retriever.DocumentNotFound):
            index.vectors(["own-1", "nobody"])


def test_documents_come_back_with_what_they_brought(path: Path, tmp_path: Path):
    with Index.open(path, model=HashEncoder()) as index:
        index.add([*documents(), Document("plain", id="plain")])
        np.testing.assert_allclose(index.get("own-1").embedding, VECTORS[1], atol=1e-6)
        assert index.get("plain").embedding is None
        with Index.open(tmp_path / "copy", model=HashEncoder(salt="other")) as copy:
            copy.add(index.documents())
            assert copy.search(vector=VECTORS[2], k=1)[0].score == pytest.approx(1, abs=1e-6)


def test_an_index_for_vectors_alone_needs_no_model(path: Path):
    with Index.open(path, dimension=np.int64(32)) as index:
        assert index.add(documents()).added == 3
        assert index.add(Document("", id="empty")).empty == 1
        assert index.search(vector=VECTORS[1], k=1)[0].document_id == "own-1"
        with pytest.raises(retriever.InvalidDocument, match="brings no embedding"):
            index.add([*documents(5), "a text alone"])
        assert index.count() == 4
        with pytest.raises(retriever.InvalidQuery, match="no model that could read"):
            index.search("a question")
        with pytest.raises(retriever.ModelError, match="without a model"):
            index.add_files(path.parent)
        with pytest.raises(retriever.ModelError, match="without a model"):
            index.rebuild()
        with pytest.raises(retriever.InvalidConfig, match="documents: 3 of them"):
            index.rebuild(model=HashEncoder())
        assert index.status().model["vectors_only"]
        index.compact()
        assert index.verify(deep=True).ok
        again = pickle.loads(pickle.dumps(index))
        assert again.search(vector=VECTORS[1], k=1)[0].document_id == "own-1"
        again.close()
    with Index.open(path) as index:
        assert index.search(vector=VECTORS[2], k=1)[0].document_id == "own-2"
        with pytest.raises(retriever.InvalidQuery, match=r"\(32,\)"):
            index.search(vector=np.ones(33))
    assert Index.repair_path(path).ok
    with pytest.raises(retriever.InvalidConfig, match="32 numbers, not of 33"):
        Index.open(path, dimension=33)
    with pytest.raises(retriever.ModelMismatch, match="without a model"):
        Index.open(path, model=HashEncoder())
    with Index.open(path, dimension=32) as index:
        index.rebuild(model=HashEncoder(), discard_embeddings=True)
        assert index.search("caption of photograph 2", k=1)[0].document_id == "own-2"
    Index.open(path, model=HashEncoder(), read_only=True).close()


@pytest.mark.parametrize("dimension", [0, -1, True, 1.5, "32", 1 << 17, float("nan")])
def test_a_dimension_that_is_none_is_refused(path: Path, dimension):
    with pytest.raises(retriever.InvalidConfig, match="dimension is"):
        Index.open(path, dimension=dimension)
    assert not path.exists()


def test_a_dimension_beside_a_model_is_refused(path: Path):
    with pytest.raises(retriever.InvalidConfig, match="without a model"):
        Index.open(path, dimension=32, model=HashEncoder())


def test_embeddings_need_no_model_to_be_added(path: Path):
    Index.open(path, model=HashEncoder()).close()
    with Index.open(path) as index:  # "hash" is no model on this machine
        assert index.add(documents()).added == 3
        with pytest.raises(retriever.ModelUnavailable):
            index.add("a text alone")


def test_headings_and_pages_are_exported_and_taken_back(tmp_path: Path):
    text = "Reset\nPress the red button.\nValves\nClose them all."
    whole = Document(
        text,
        id="manual",
        metadata={"year": 2024},
        source="manual.pdf",
        title="Manual",
        embedding=VECTORS[0],
        headings=(Heading(0, 1, "Reset"), Heading(29, 2, "Valves")),
        pages=(0, 29),
    )
    first, second = tmp_path / "first.index", tmp_path / "second.index"
    with Index.open(first, dimension=32) as index:
        index.add([whole, Document("plain", id="plain", embedding=VECTORS[1])])
    exported = run("export", "-i", str(first)).stdout
    again = run("index", "-", "--jsonl", "--dimension", "32", "-i", str(second), stdin=exported)
    assert again.exit_code == 0
    with Index.open(first) as one, Index.open(second) as other:
        assert list(one.documents()) == list(other.documents())
        assert one.chunks("manual")[0] == other.chunks("manual")[0]
        assert other.get("manual") == whole
    assert run("export", "-i", str(second)).stdout == exported


def test_what_is_exported_is_taken_back(tmp_path: Path):
    lines = "".join(
        json.dumps({"text": one.text, "id": one.id, "embedding": VECTORS[i].tolist()}) + "\n"
        for i, one in enumerate(documents())
    )
    first, second = str(tmp_path / "first.index"), str(tmp_path / "second.index")
    index = ("index", "-", "--jsonl", "--dimension", "32", "-i")
    assert run(*index, first, stdin=lines).exit_code == 0
    exported = run("export", "-i", first).stdout
    assert [json.loads(line)["id"] for line in exported.splitlines()] == ["own-0", "own-1", "own-2"]
    assert run(*index, second, stdin=exported).exit_code == 0
    assert run("export", "-i", second).stdout == exported
    assert "embeddings come with the documents" in run("status", "-i", second).stdout
    assert run("rebuild", "-m", "all-MiniLM-L6-v2", "-i", second).exit_code == 2
    assert run("index", "docs", "--dimension", "32").exit_code == 2

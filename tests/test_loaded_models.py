"""Objects of sentence-transformers, as people have them, in place of a model's name."""

from __future__ import annotations

import copy
import importlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cross_encoders import needs_reference, save_with_numpy

from retriever import Document, Index, InvalidConfig, InvalidQuery, ModelMismatch
from retriever.encoders.checkpoint.resolve import resolve_model
from retriever.encoders.plugged import PluggedEncoder, plug

pytestmark = [pytest.mark.model, needs_reference]
MINILM = "all-MiniLM-L6-v2"
TEXTS = ["The pump is reset by the red button.", "The harbour opens at nine.", "ünïcode 東京 🚢"]


@pytest.fixture(scope="module")
def model() -> Any:
    library = importlib.import_module("sentence_transformers")
    return library.SentenceTransformer(str(resolve_model(MINILM).path), device="cpu")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.index"


def test_a_sentence_transformer_is_an_encoder_with_the_identity_of_its_files(path: Path, model):
    with Index.open(path, model=model) as index:
        index.add([Document(text, id=str(n)) for n, text in enumerate(TEXTS)])
        (hit,) = index.search("how do I reset the pump?", k=1)
        assert hit.document_id == "0"
        expected = model.similarity(
            model.encode_query("how do I reset the pump?"),
            model.encode_document(TEXTS[0]),
        )
        assert hit.scores["dense"] == pytest.approx(float(expected), abs=1e-5)
    for other in (None, MINILM, resolve_model(MINILM).path):
        with Index.open(path, model=other) as index:
            assert index.search(TEXTS[1], k=1)[0].scores["dense"] == pytest.approx(1, abs=1e-4)
            assert index.add("one more").added + index.delete(index_of(index, "one more")) == 2


def index_of(index: Index, text: str) -> list[str]:
    return [document.id or "" for document in index.documents() if document.text == text]


def test_an_index_built_by_name_opens_with_the_object(path: Path, model):
    with Index.open(path, model=MINILM) as index:
        index.add(TEXTS)
    with Index.open(path, model=model) as index:
        assert index.search(TEXTS[2], k=1)[0].scores["dense"] == pytest.approx(1, abs=1e-4)


def changed(model: Any, **settings: Any) -> Any:
    other = copy.deepcopy(model)
    for name, value in settings.items():
        setattr(other, name, value)
    return other


def test_an_object_that_is_not_as_its_files_has_an_identity_of_its_own(path: Path, model):
    files = plug(model).identity
    assert files == resolve_model(str(resolve_model(MINILM).path)).identity
    altered = copy.deepcopy(model)
    altered[0].auto_model.config._name_or_path = ""
    identities = [
        plug(other).identity
        for other in (
            altered,
            changed(altered, truncate_dim=64),
            changed(altered, prompts={"query": "query: ", "document": "passage: "}),
            changed(altered, max_seq_length=100),
            copy.deepcopy(altered).half(),
        )
    ]
    assert len({repr(identity) for identity in identities}) == len(identities)
    assert plug(changed(model, max_seq_length=100)).identity != files
    assert plug(changed(model, truncate_dim=64)).dimension == 64
    small = changed(model, max_seq_length=100, prompts={"query": "", "document": "passage: "})
    assert plug(small).max_tokens == 100 - 2 - 2
    with Index.open(path, model=changed(model, truncate_dim=64)) as index:
        index.add(TEXTS)
        assert index.search(TEXTS[0], k=1)[0].text == TEXTS[0]
    with pytest.raises(ModelMismatch):
        Index.open(path, model=model)


def test_a_model_that_was_trained_in_memory_is_not_the_one_of_its_files(path: Path, model):
    trained = copy.deepcopy(model)
    weight = trained[0].auto_model.encoder.layer[0].output.dense.weight
    weight.data[0, 0] += 1e-3  # far too little for the canaries
    says, files = plug(trained).identity, plug(model).identity
    assert says["weights"] != files["weights"]
    with Index.open(path, model=trained) as index:
        index.add(TEXTS)
    with Index.open(path, model=trained) as index:
        assert index.search(TEXTS[0], k=1)[0].text == TEXTS[0]
    with pytest.raises(ModelMismatch) as caught:
        Index.open(path, model=MINILM)
    assert caught.value.field == "weights"


def test_a_model_in_fewer_bits_is_still_that_of_its_files(model):
    assert plug(copy.deepcopy(model).bfloat16()).identity == plug(model).identity


def test_weights_under_the_names_of_old_are_found(tmp_path: Path, model):
    files = importlib.import_module("safetensors.numpy")
    folder = tmp_path / "old"
    shutil.copytree(resolve_model(MINILM).path, folder)
    weights = files.load_file(folder / "model.safetensors")
    old = {
        name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): one
        for name, one in weights.items()
    }
    files.save_file(
        {f"bert.{name}": one for name, one in old.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    loaded = type(model)(str(folder), device="cpu")
    assert plug(loaded).identity == resolve_model(folder).identity


def test_the_window_is_that_of_the_model(path: Path, model):
    long = "the pump and the harbour " * 200
    with Index.open(path, model=changed(model, max_seq_length=64)) as index:
        report = index.add([Document(long, id="long")])
        assert report.truncated == 0
        assert max(chunk.tokens for chunk in index.chunks("long")) <= 62


def test_the_object_is_left_as_it_was(model):
    model.encode(TEXTS)  # which itself has the tokenizer cut and pad
    before = model.tokenizer.backend_tokenizer.to_str()
    encoder = plug(model)
    assert isinstance(encoder, PluggedEncoder)
    encoder.tokenizer.tokenize(TEXTS)
    encoder.encode_documents(TEXTS)
    other = copy.deepcopy(model)
    other[0].auto_model.config._name_or_path = ""
    plug(other).tokenizer.tokenize(TEXTS)
    assert model.tokenizer.backend_tokenizer.to_str() == before


def test_a_tokenizer_without_offsets_is_refused(model, monkeypatch: pytest.MonkeyPatch):
    class Slow:
        pass

    other = copy.deepcopy(model)
    other[0].auto_model.config._name_or_path = ""
    monkeypatch.setattr(type(model), "tokenizer", Slow())
    with pytest.raises(InvalidConfig, match="tokenizer of the SentenceTransformer is a Slow"):
        plug(other)


def test_a_cross_encoder_is_a_reranker(path: Path, tmp_path: Path, model):
    folder = save_with_numpy(tmp_path / "tiny")
    library = importlib.import_module("sentence_transformers")
    cross = library.CrossEncoder(str(folder), device="cpu")
    with Index.open(path, model=model) as index:
        index.add(TEXTS)
        by_object = index.search("how do I reset the pump?", k=3, rerank=cross)
        by_name = index.search("how do I reset the pump?", k=3, rerank=folder)
        assert [hit.text for hit in by_object] == [hit.text for hit in by_name]
        scores = [[hit.score for hit in hits] for hits in (by_object, by_name)]
        np.testing.assert_allclose(
            *scores, atol=1e-2
        )  # by name it is in bfloat16 on some processors
        assert str(folder) in by_object.plan
        several = copy.deepcopy(cross)
        several.model.config.num_labels = 3
        if several.num_labels == 3:
            with pytest.raises(InvalidQuery, match="3 scores for a pair"):
                index.search("x", rerank=several)

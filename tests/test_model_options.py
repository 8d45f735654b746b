"""What a caller sets of a model, and what is said of models that are not what was hoped for."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from cross_encoders import save_with_numpy
from small_networks import needs_reference
from test_encoder import MIXED, reference, unit

import retriever
from retriever import Index
from retriever.encoders import acceptance
from retriever.encoders.bi_encoder import load_encoder
from retriever.encoders.checkpoint.resolve import resolve_model
from retriever.encoders.computing import Computing
from retriever.testing import HashEncoder

MINILM = "all-MiniLM-L6-v2"
PROMPTS = {"query": "query: ", "document": "passage: "}
_MODELS = os.environ.get("RETRIEVER_TEST_MODELS", "")


def real(name: str) -> Path:
    """Return a published model's directory below $RETRIEVER_TEST_MODELS, or skip the test."""
    path = Path(_MODELS) / name
    if not _MODELS or not path.is_dir():
        pytest.skip(f"RETRIEVER_TEST_MODELS has no {name}")
    return path


# ---- prompts and dimensions


@needs_reference
@pytest.mark.model
def test_prompts_and_dimensions_are_those_of_sentence_transformers(tmp_path: Path) -> None:
    with Index.open(
        tmp_path / "index", model=MINILM, prompt=PROMPTS, dimensions=128, precision="float32"
    ) as index:
        index.add([{"text": text or " ", "id": str(i)} for i, text in enumerate(MIXED[:2])])
        encoder = index._encoders.source._encoder
        model = reference(resolve_model(MINILM).path)
        for role, encode in (
            ("query", encoder.encode_queries),
            ("document", encoder.encode_documents),
        ):
            expected = unit(model.encode(MIXED, prompt=PROMPTS[role], truncate_dim=128))
            np.testing.assert_allclose(encode(MIXED), expected, rtol=0, atol=2e-6)
        assert encoder.identity["prompts"] == PROMPTS
        assert index.vectors("0")["0"].shape == (1, 128)


@pytest.mark.model
def test_what_was_set_is_recorded_and_needs_no_saying(tmp_path: Path) -> None:
    path, question = tmp_path / "index", "how do I reset the pump?"
    with Index.open(path, model=MINILM, prompt="query: ", dimensions=np.int64(64)) as index:
        index.add(["Reset the pump.", "The ferry leaves at noon."])
        score = index.search(question, k=1)[0].score
    for given in (
        {},
        {"model": MINILM},
        {"model": MINILM, "prompt": {"query": "query: "}, "dimensions": 64},
        {"prompt": "query: "},
        {"dimensions": 64},
    ):
        with Index.open(path, **given) as index:
            assert index.search(question, k=1)[0].score == pytest.approx(score, abs=2e-6)
    for given in (
        {"prompt": "other: "},
        {"prompt": {"document": "passage: "}},
        {"dimensions": 32},
        {"model": MINILM, "dimensions": 65},
        {"model": MINILM, "prompt": "other: "},
    ):
        with pytest.raises(retriever.ModelMismatch):
            Index.open(path, **given)
    with Index.open(path) as index:
        index.rebuild(chunking={"tokens": 64})
        assert index.status().model["dimension"] == 64
        index.rebuild(dimensions=32)
        assert index.status().model["options"] == {"dimensions": 32}
        assert index.vectors()[next(index.documents()).id].shape == (1, 32)
        assert index.search(question, k=1)[0].text == "Reset the pump."
        index.rebuild(model=MINILM)
        assert "options" not in index.status().model
        assert index.search(question, k=1)[0].text == "Reset the pump."


@pytest.mark.model
@pytest.mark.parametrize(
    "given",
    [
        {"dimensions": 0},
        {"dimensions": 385},
        {"dimensions": 1.5},
        {"dimensions": True},
        {"prompt": 7},
        {"prompt": {}},
        {"prompt": {"passage": "x"}},
        {"prompt": {"query": None}},
        {"prompt": "\ud800"},
    ],
)
def test_unusable_options_are_refused_and_leave_nothing(given: dict, tmp_path: Path) -> None:
    with pytest.raises(retriever.InvalidConfig, match=r"dimensions|prompt"):
        Index.open(tmp_path / "index", model=MINILM, **given)
    assert not (tmp_path / "index").exists()


def test_options_are_for_a_model_that_is_named(tmp_path: Path) -> None:
    for given in ({"model": HashEncoder()}, {"dimension": 32}):
        with pytest.raises(retriever.InvalidConfig):
            Index.open(tmp_path / "index", dimensions=16, **given)
    with (
        Index.open(tmp_path / "index", model=HashEncoder()) as index,
        pytest.raises(retriever.InvalidConfig, match="named"),
    ):
        index.rebuild(dimensions=16)


@pytest.mark.model
def test_a_prompt_that_fills_the_window_is_refused(tmp_path: Path) -> None:
    with pytest.raises(retriever.ModelError, match="query prompt"):
        Index.open(tmp_path / "index", model=MINILM, prompt="pump " * 300)


@pytest.mark.model
def test_the_command_line_sets_them(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Reset the pump.")
    index = str(tmp_path / "i")
    options = ("--query-prompt", "query: ", "--dimensions", "64", "-i", index)
    assert run("index", str(tmp_path / "a.txt"), *options).exit_code == 0
    assert run("search", "pump", "-i", index).exit_code == 0
    found = json.loads(run("status", "--json", "-i", index).stdout)["model"]
    assert found["options"] == {"prompt": {"query": "query: "}, "dimensions": 64}
    assert run("rebuild", "--dimensions", "32", "-i", index).exit_code == 0


# ---- what is said of a model


@needs_reference
def test_a_masked_language_model_is_told_and_the_first_use_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = save_with_numpy(tmp_path / "masked")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "architectures": ["BertForMaskedLM"]}))
    caplog.set_level(logging.INFO, "retriever")
    with Index.open(tmp_path / "index", model=model) as index:
        index.add("reset the pump")
        with pytest.raises(retriever.ModelError, match="masked language model, not a cross"):
            index.search("pump", rerank=model)
    warned = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert any("masked language model" in one and "mean" in one for one in warned)
    told = [one.getMessage() for one in caplog.records if one.levelno == logging.INFO]
    assert any("First use of" in one for one in told)
    assert any("lowest similarity" in one and "computes it" in one for one in told)


def test_a_model_that_moved_and_an_encoder_of_ones_own_are_asked_for(tmp_path: Path) -> None:
    model = save_with_numpy(tmp_path / "model")
    Index.open(tmp_path / "named", model=model).close()
    Index.open(tmp_path / "own", model=HashEncoder(name="my encoder")).close()
    model.rename(tmp_path / "moved")
    for name, told in (("named", "moved, pass its present path"), ("own", "Pass it again")):
        with (
            Index.open(tmp_path / name) as index,
            pytest.raises(retriever.ModelUnavailable) as error,
        ):
            index.search("pump")
        assert told in error.value.hint
    with Index.open(tmp_path / "named", model=tmp_path / "moved") as index:
        assert list(index.search("pump")) == []


@pytest.mark.parametrize("name", ["all-minilm-l6-v2", "all-MiniLM-L6-v3", "nobody/all-MiniLML6-v2"])
def test_a_name_that_is_nearly_one_is_answered_with_it(name: str) -> None:
    with pytest.raises(retriever.ModelUnavailable) as error:
        resolve_model(name)
    assert "Did you mean 'all-MiniLM-L6-v2'?" in error.value.hint
    assert "--download" in error.value.hint


@pytest.mark.parametrize("file", ["onnx/model.onnx", "model.onnx", "tf_model.h5"])
def test_weights_in_another_format_are_named(file: str, tmp_path: Path) -> None:
    model = save_with_numpy(tmp_path / "model")
    (model / file).parent.mkdir(exist_ok=True)
    shutil.move(model / "model.safetensors", model / file)
    with pytest.raises(retriever.ModelUnavailable, match=f"only available as {file}") as error:
        resolve_model(model)
    assert "safetensors" in error.value.hint


# ---- published weights


@needs_reference
def test_mpnet_as_published_needs_no_torch_and_is_the_reference() -> None:
    path = real("all-mpnet-base-v2")
    encoder = load_encoder(path, Computing(precision="float32"))
    assert acceptance.is_verified(encoder.identity)
    texts = MIXED[:12]
    expected = reference(path).encode(texts)
    for vectors in (encoder.encode_exactly(texts), encoder.encode_documents(texts)):
        np.testing.assert_allclose(vectors, expected, rtol=0, atol=2e-6)
    np.testing.assert_allclose(
        encoder.encode_queries(["", "東京"]),
        reference(path).encode(["", "東京"]),
        rtol=0,
        atol=2e-6,
    )

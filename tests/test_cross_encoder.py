"""Scores of cross-encoders: the numbers of sentence-transformers, and what is refused."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cross_encoders import (
    FAMILIES,
    ONE_LABEL,
    QUERIES,
    TEXTS,
    Reference,
    byte_level,
    edit,
    needs_reference,
    save_minilm,
    save_with_numpy,
    save_with_transformers,
    wordpiece,
    write,
)
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from retriever.encoders.checkpoint.cross_encoder import resolve_cross_encoder
from retriever.encoders.checkpoint.resolve import resolve_model
from retriever.encoders.computing import Computing
from retriever.encoders.cross_encoder import CrossEncoder, load_cross_encoder
from retriever.encoders.forward.pairs import PairTokenizer, longest_first
from retriever.encoders.tokenization import HuggingFaceTokenizer
from retriever.errors import (
    InvalidConfig,
    InvalidDocument,
    InvalidQuery,
    ModelError,
    ModelUnavailable,
    UnsafeModelFile,
)

IDENTITY = "torch.nn.modules.linear.Identity"
MODULE = "sentence_transformers.base.modules.transformer.Transformer"
SETTINGS = {
    "transformer_task": "sequence-classification",
    "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
    "module_output_name": "scores",
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_with_numpy(tmp_path_factory.mktemp("cross") / "tiny")


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A cross-encoder to change."""
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's cross-encoder as transformers saves it, made once."""
    folder = tmp_path_factory.mktemp("families")

    def of_family(family: str) -> Path:
        path = folder / family
        return path if path.exists() else save_with_transformers(path, family)

    return of_family


def load(path: Path) -> CrossEncoder:
    return load_cross_encoder(path, Computing(precision="float32"))


def as_new_layout(folder: Path, **general: Any) -> None:
    """Add the files that sentence-transformers 6 writes beside a transformer."""
    write(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": MODULE}])
    write(folder / "sentence_bert_config.json", SETTINGS)
    write(
        folder / "config_sentence_transformers.json",
        {"model_type": "CrossEncoder", "prompts": {}, "default_prompt_name": None, **general},
    )


def _uses_the_reference(caplog: pytest.LogCaptureFixture) -> bool:
    return (
        re.search(r"(by sentence-transformers|sentence-transformers computes)", caplog.text)
        is not None
    )


def change_tensors(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


# ---- the reference's numbers


@needs_reference
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_gives_the_references_scores(
    family: str, saved: Callable[[str], Path], caplog: pytest.LogCaptureFixture
):
    folder = saved(family)
    edit(folder / "config.json", sentence_transformers={"activation_fn": IDENTITY})
    caplog.set_level(logging.INFO, "retriever")
    encoder, reference = load(folder), Reference(folder)
    short = [text for text in TEXTS if len(text) < 100][:5]
    # So few tokens are NumPy's to compute; all texts together are OpenVINO's.
    first = encoder.score(QUERIES[0], short)
    np.testing.assert_allclose(first, reference.score(QUERIES[0], short), rtol=0, atol=1e-5)
    for query in QUERIES:
        found, wanted = encoder.score(query, TEXTS), reference.score(query, TEXTS)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
        assert np.ptp(wanted) > 0.05, "a head that hardly sees the text compares nothing"
    assert not _uses_the_reference(caplog), "the reference was compared with itself"


@needs_reference
@pytest.mark.model
def test_minilm_under_a_seeded_head_ranks_fifty_texts_as_the_reference(tmp_path: Path):
    folder = save_minilm(tmp_path / "minilm")
    words = ("pump", "harbour", "levy", "swarm", "cistern", "ledger", "tide", "button", "crown")
    texts = [
        " ".join(words[(row * step) % len(words)] for step in range(3 + row)) for row in range(50)
    ]
    wanted, found = (
        Reference(folder).score(QUERIES[0], texts),
        load(folder).score(QUERIES[0], texts),
    )
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    assert np.argsort(-found, kind="stable").tolist() == np.argsort(-wanted).tolist()
    assert np.ptp(wanted) > 0.1


@needs_reference
def test_what_the_reference_itself_saves_is_read(
    copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    from sentence_transformers import CrossEncoder as Reference

    model = Reference(
        str(copy),
        device="cpu",
        max_length=40,
        prompts={"ask": "question: "},
        default_prompt_name="ask",
    )
    model.save_pretrained(str(tmp_path / "again"))
    encoder = load(tmp_path / "again")
    assert encoder.description.window == 40
    assert encoder.description.prompt == "question: "
    wanted = model.predict([(QUERIES[0], text) for text in TEXTS], show_progress_bar=False)
    np.testing.assert_allclose(encoder.score(QUERIES[0], TEXTS), wanted, rtol=0, atol=1e-5)
    assert np.abs(wanted - load(copy).score(QUERIES[0], TEXTS)).max() > 1e-3
    assert not _uses_the_reference(caplog), "the reference was compared with itself"


@needs_reference
def test_what_comes_out_otherwise_is_left_to_the_reference(
    copy: Path, caplog: pytest.LogCaptureFixture
):
    # transformers makes the tokenizer from this, whatever tokenizer.json says.
    edit(copy / "tokenizer_config.json", do_lower_case=False)
    with caplog.at_level(logging.WARNING, "retriever"):  # the command line sets one of its own
        found = load(copy).score(QUERIES[0], TEXTS)
    assert [r.levelname for r in caplog.records if "has a similarity of" in r.getMessage()] == [
        "WARNING"
    ]
    np.testing.assert_allclose(found, Reference(copy).score(QUERIES[0], TEXTS), rtol=0, atol=1e-6)


@needs_reference
def test_a_tokenizer_that_cuts_from_the_left_is_the_references(
    copy: Path, caplog: pytest.LogCaptureFixture
):
    edit(copy / "tokenizer_config.json", truncation_side="left")
    with caplog.at_level(logging.INFO, "retriever"):
        found = load(copy).score(QUERIES[0], TEXTS)
    assert "cuts a text from the left" in caplog.text
    np.testing.assert_allclose(found, Reference(copy).score(QUERIES[0], TEXTS), rtol=0, atol=1e-6)


@needs_reference
def test_another_family_is_computed_by_the_reference(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = save_with_transformers(tmp_path / "electra", "electra", embedding_size=32)
    with caplog.at_level(logging.INFO, "retriever"):
        found = load(folder).score(QUERIES[0], TEXTS)
    assert "its family is 'electra'" in caplog.text
    np.testing.assert_allclose(found, Reference(folder).score(QUERIES[0], TEXTS), rtol=0, atol=1e-6)
    change_tensors(folder, lambda tensors: tensors.pop("classifier.out_proj.weight"))
    with pytest.raises(ModelError, match=r"lack 1 tensors .*classifier.out_proj.weight"):
        load(folder).score("a", ["b"])


# ---- with the reference compared once, or absent

SCORES_APART = """
import json, sys
for name in json.loads(sys.argv[2]):
    sys.modules[name] = None
from retriever.encoders.computing import Computing
from retriever.encoders.cross_encoder import load_cross_encoder
from retriever.errors import MissingDependency
encoder = load_cross_encoder(sys.argv[1], Computing(precision="float32"))
try:
    answer = encoder.score("reset the pump", ["the pump", "the tide", ""]).tolist()
except MissingDependency as error:
    answer = str(error)
heavy = {"torch", "transformers", "sentence_transformers", "scipy", "sklearn"}
print(json.dumps([answer, sorted(n for n in heavy & set(sys.modules) if sys.modules[n])]))
"""


def scores_apart(folder: Path, absent: list[str], cache: Path | None = None) -> list[Any]:
    environment = os.environ | ({"XDG_CACHE_HOME": str(cache)} if cache else {})
    done = subprocess.run(
        [sys.executable, "-c", SCORES_APART, str(folder), json.dumps(absent)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return json.loads(done.stdout)


def test_a_model_compared_before_imports_nothing_of_the_reference(tiny: Path):
    mine = load(tiny).score("reset the pump", ["the pump", "the tide", ""])
    answer, heavy = scores_apart(tiny, absent=[])
    assert heavy == []
    np.testing.assert_allclose(answer, mine, rtol=0, atol=1e-6)


def test_without_the_reference_the_known_families_are_computed(
    tiny: Path, copy: Path, tmp_path: Path
):
    absent = ["torch", "transformers", "sentence_transformers"]
    answer, heavy = scores_apart(tiny, absent, cache=tmp_path / "cache")
    assert heavy == []
    mine = load(tiny).score("reset the pump", ["the pump", "the tide", ""])
    np.testing.assert_allclose(answer, mine, rtol=0, atol=1e-6)
    edit(copy / "config.json", model_type="electra")
    answer, heavy = scores_apart(copy, absent, cache=tmp_path / "cache")
    assert "needs sentence-transformers: its family is 'electra'" in answer
    assert 'pip install "retriever-engine[torch]"' in answer


# ---- pairs


@pytest.mark.parametrize("kind", ["wordpiece", "doubled", "byte-level"])
def test_pairs_are_composed_and_cut_as_the_tokenizer_does(kind: str, tmp_path: Path):
    if kind == "byte-level":
        byte_level(tmp_path)
    else:
        wordpiece(tmp_path, doubled=kind == "doubled")
    file = tmp_path / "tokenizer.json"
    backend = Tokenizer.from_file(str(file))
    generator = np.random.default_rng(2)
    texts = [*TEXTS, *("pump " * n for n in generator.integers(1, 60, 12))]
    tokenizer = HuggingFaceTokenizer.from_file(file)
    for window in (9, 48):
        pairs = PairTokenizer(tokenizer, window)
        backend.enable_truncation(window, strategy="longest_first")
        for query in (*QUERIES[:2], "tide " * 20):
            found = pairs.sequences(query, texts, with_types=True)
            assert found.types is not None
            for text, ids, types in zip(texts, found.ids, found.types, strict=True):
                wanted = backend.encode(query, text)
                assert ids.tolist() == wanted.ids
                assert types.tolist() == wanted.type_ids
                assert ids.dtype == types.dtype == np.int32
    assert pairs.sequences("a", ["b"], with_types=False).types is None


def test_the_longer_half_is_cut_first():
    assert longest_first(3, 4, 7) == (3, 4)
    assert longest_first(3, 90, 10) == (3, 7)
    assert longest_first(90, 3, 10) == (7, 3)
    assert longest_first(90, 80, 11) == (6, 5)
    assert longest_first(80, 90, 11) == (5, 6)
    assert longest_first(80, 80, 11) == (5, 6)
    assert longest_first(0, 80, 11) == (0, 11)


# ---- what a directory says


def test_the_default_score_is_a_sigmoid(copy: Path):
    between = load(copy).score(QUERIES[0], TEXTS)
    edit(copy / "config.json", sbert_ce_default_activation_function=IDENTITY)
    logits = load(copy).score(QUERIES[0], TEXTS)
    assert ((between > 0) & (between < 1)).all()
    np.testing.assert_allclose(np.log(between / (1 - between)), logits, rtol=0, atol=1e-4)
    edit(copy / "config.json", sentence_transformers={"activation_fn": "torch.nn.Sigmoid"})
    np.testing.assert_array_equal(load(copy).score(QUERIES[0], TEXTS), between)
    as_new_layout(copy, activation_fn=IDENTITY)
    np.testing.assert_array_equal(load(copy).score(QUERIES[0], TEXTS), logits)


def test_an_extreme_logit_overflows_nothing(copy: Path):
    def grow(tensors: dict[str, np.ndarray]) -> None:
        tensors["classifier.bias"] = np.array([-1e4], np.float32)

    change_tensors(copy, grow)
    assert load(copy).score("a", ["b"]).tolist() == [0.0]


def test_the_identity_changes_with_what_changes_a_score(copy: Path, tiny: Path):
    first, again = load(tiny).identity, load(copy).identity
    assert first["name"] == str(tiny.resolve())
    assert {**first, "name": None} == {**again, "name": None}
    json.dumps(first)
    edit(copy / "tokenizer_config.json", model_max_length=32, model_input_names=["input_ids"])
    as_new_layout(copy, activation_fn=IDENTITY)
    other = load(copy).identity
    assert {name for name in first if first[name] != other[name]} == {
        "name",
        "max_tokens",
        "marks",
        "activation",
    }
    change_tensors(copy, lambda tensors: tensors.pop("classifier.bias"))
    assert load(copy).identity["weights"] != first["weights"]


def test_a_short_name_is_looked_for_among_cross_encoders(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    home = tmp_path / "hub" / "models--cross-encoder--tiny"
    shutil.copytree(tiny, home / "snapshots" / "abc")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    encoder = load_cross_encoder("tiny")
    assert encoder.name == "cross-encoder/tiny"
    with pytest.raises(ModelUnavailable, match="'nowhere' is not on this machine"):
        load_cross_encoder("nowhere")
    with pytest.raises(ModelUnavailable, match="no model directory"):
        load_cross_encoder(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id2label": {"0": "no", "1": "yes"}}, "gives 2 scores for a pair"),
        ({"id2label": None}, "gives 2 scores for a pair"),
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.Tanh"}},
            r"by 'torch\.nn\.Tanh', which is not supported",
        ),
        ({"sbert_ce_default_activation_function": "mine.Evil"}, r"by 'mine\.Evil'"),
        ({"max_position_embeddings": None}, "how many tokens|max_position_embeddings"),
    ],
)
def test_a_config_that_cannot_be_followed_is_refused(
    copy: Path, settings: dict[str, Any], message: str
):
    edit(copy / "config.json", **settings)
    edit(copy / "tokenizer_config.json", model_max_length=None)
    with pytest.raises(ModelError, match=message):
        load(copy).score("a", ["b"])


def test_another_kind_of_model_is_refused(copy: Path):
    with pytest.raises(ModelError, match="is a SentenceTransformer, not a cross-encoder"):
        load_cross_encoder(resolve_model("all-MiniLM-L6-v2").path)
    as_new_layout(copy)
    write(copy / "sentence_bert_config.json", {"max_seq_length": 64})
    with pytest.raises(ModelError, match="transformer_task: feature-extraction"):
        load(copy)
    as_new_layout(copy, default_prompt_name="ask")
    with pytest.raises(ModelError, match="default prompt 'ask', which it does not define"):
        load(copy)
    entry = {"idx": 0, "name": "0", "path": "", "type": MODULE}
    write(copy / "modules.json", [entry, {**entry, "type": "sentence_transformers.models.Dense"}])
    as_dense = "lists Transformer, Dense; only cross-encoders of one Transformer"
    with pytest.raises(ModelError, match=as_dense):
        load(copy)
    write(copy / "modules.json", [{**entry, "type": "mine.Transformer"}])
    with pytest.raises(UnsafeModelFile, match=r"'mine\.Transformer'"):
        load(copy)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("classifier.weight", None, "lack the tensor 'classifier.weight' of a cross-encoder"),
        ("bert.pooler.dense.bias", None, "lack the tensor 'bert.pooler.dense.bias'"),
        ("classifier.weight", (2, 32), r"has the shape \(2, 32\); .* needs \(1, 32\)"),
        ("classifier.bias", (2,), r"'classifier.bias' .* has the shape \(2,\)"),
        ("bert.embeddings.LayerNorm.bias", None, "lack the tensor 'embeddings.LayerNorm.bias'"),
    ],
)
def test_a_tensor_that_is_missing_or_misshapen_is_named(
    copy: Path, name: str, array: tuple[int, ...] | None, message: str
):
    def change(tensors: dict[str, np.ndarray]) -> None:
        del tensors[name]
        if array is not None:
            tensors[name] = np.zeros(array, np.float32)

    change_tensors(copy, change)
    with pytest.raises(ModelError, match=message) as caught:
        load(copy).score("a", ["b"])
    assert "again" in caught.value.hint


def test_weights_that_cannot_be_used_are_refused(copy: Path):
    def spoil(tensors: dict[str, np.ndarray]) -> None:
        tensors["bert.embeddings.LayerNorm.bias"][3] = np.nan

    change_tensors(copy, spoil)
    with pytest.raises(ModelError, match="values that are not finite"):
        load(copy).score("a", ["b"])
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(UnsafeModelFile, match="a pickle"):
        load(copy)
    (copy / "pytorch_model.bin").unlink()
    with pytest.raises(ModelUnavailable, match=r"has no model\.safetensors"):
        load(copy)
    write(copy / "adapter_config.json", {})
    with pytest.raises(ModelError, match="is an adapter"):
        load(copy)


@needs_reference
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_runtime_of_gpus_gives_the_same_scores(tiny: Path, precision: str):
    description = resolve_cross_encoder(tiny)
    # torch's name of the processor: the same code, wherever there is torch.
    encoder = CrossEncoder(description, Computing(precision=precision, device="cpu:0"))
    tolerance = 1e-5 if precision == "float32" else 0.02
    wanted = load(tiny).score(QUERIES[0], TEXTS)
    np.testing.assert_allclose(encoder.score(QUERIES[0], TEXTS), wanted, rtol=0, atol=tolerance)


def test_bfloat16_is_close(tiny: Path):
    exact = load(tiny).score(QUERIES[0], TEXTS)
    quick = load_cross_encoder(tiny, Computing(precision="bfloat16")).score(QUERIES[0], TEXTS)
    np.testing.assert_allclose(quick, exact, rtol=0, atol=0.02)


def test_half_precision_weights_are_read(copy: Path):
    whole = load(copy).score(QUERIES[0], TEXTS)

    def halve(tensors: dict[str, np.ndarray]) -> None:
        for name, array in tensors.items():
            tensors[name] = array.astype(np.float16)

    change_tensors(copy, halve)
    np.testing.assert_allclose(load(copy).score(QUERIES[0], TEXTS), whole, rtol=0, atol=5e-3)


# ---- what is scored


def test_texts_that_are_none_are_refused(tiny: Path):
    encoder = load(tiny)
    assert encoder.score("a", []).shape == (0,)
    with pytest.raises(InvalidQuery, match="half of a surrogate pair at character 1"):
        encoder.score("a\ud800", ["b"])
    with pytest.raises(InvalidQuery, match="The query is NoneType"):
        encoder.score(None, ["b"])  # type: ignore[arg-type]
    with pytest.raises(InvalidDocument, match="Text 1 has half of a surrogate pair"):
        encoder.score("a", ["b", "\udfff"])
    with pytest.raises(InvalidDocument, match="Text 0 is int"):
        encoder.score("a", [1])  # type: ignore[list-item]
    with pytest.raises(InvalidDocument, match="are one string"):
        encoder.score("a", "b")
    with pytest.raises(InvalidConfig, match="precision is 'exact'"):
        load_cross_encoder(tiny, Computing(precision="exact"))


def test_any_text_has_a_score(tiny: Path):
    texts = ["word" * 250_000, "\x00" * 1000, "\u0301" * 70_000, " " * 5000, "[SEP]" * 600]
    scores = load(tiny).score("a", texts)
    assert scores.shape == (5,)
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores[:2], load(tiny).score("a", texts[:2]), rtol=0, atol=1e-6)


def test_several_threads_get_the_same_scores(tiny: Path):
    encoder = load(tiny)
    expected = load(tiny).score(QUERIES[0], TEXTS)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: encoder.score(QUERIES[0], TEXTS), range(8)))
    for scores in found:
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6)


def test_the_head_of_another_label_count_is_told_from_the_config(copy: Path):
    edit(copy / "config.json", **{**ONE_LABEL, "num_labels": 1})
    assert load(copy).score("a", ["b"]).shape == (1,)

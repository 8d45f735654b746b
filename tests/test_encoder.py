from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from retriever.encoders.bi_encoder import BiEncoder, load_encoder
from retriever.encoders.canaries import CANARIES, check_canaries, encode_canaries
from retriever.encoders.checkpoint.resolve import resolve_model
from retriever.encoders.computing import Computing
from retriever.encoders.protocol import Encoder, Tokens
from retriever.errors import (
    InvalidConfig,
    InvalidDocument,
    InvalidQuery,
    ModelError,
    ModelMismatch,
)

MINILM = "all-MiniLM-L6-v2"
SENTENCES = [
    "Reset the pump after a power failure and wait thirty seconds.",
    "Die Größe der Straße überraschte den Läufer.",
    "東京タワーの夜景 is bright; naïve façades are not.",
    "def area(radius): return 3.14 * radius ** 2",
]
MIXED = [
    "pump",
    "",
    "word " * 700,
    "How do I reset the pump after a power failure?",
    "x" * 300,
    "東京の夜景 🚢",
    *(f"{'short ' * count}sentence {count}" for count in range(1, 60)),
]


@pytest.fixture(scope="module", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(path))
        yield path


@pytest.fixture(scope="module")
def minilm() -> BiEncoder:
    return load_encoder(MINILM, Computing(precision="float32"))


def reference(path: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(path), device="cpu", local_files_only=True)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# ---- small models with seeded weights, one of each family


def word_piece() -> Tokenizer:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    backend.train_from_iterator(SENTENCES, trainer)
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    backend.decoder = decoders.WordPiece()
    return backend


def byte_level() -> Tokenizer:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    backend.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def small(family: str) -> tuple[Any, Any]:
    """Return an untrained transformer of a family and its tokenizer."""
    import transformers as t

    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"intermediate_size": 32, "max_position_embeddings": 40}
    if family == "distilbert":
        shape = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
        shape |= {"max_position_embeddings": 40}
    if family in ("bert", "distilbert"):
        backend, names = word_piece(), {"unk_token": "[UNK]", "pad_token": "[PAD]"}
        names |= {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
        kind = {"bert": t.BertTokenizer, "distilbert": t.DistilBertTokenizer}[family]
    else:
        backend, names = byte_level(), {"bos_token": "<s>", "eos_token": "</s>"}
        names |= {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>"}
        names |= {"sep_token": "</s>", "mask_token": "<mask>"}
        kind = t.PreTrainedTokenizerFast
        shape |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    config, model = {
        "bert": (t.BertConfig, t.BertModel),
        "distilbert": (t.DistilBertConfig, t.DistilBertModel),
        "roberta": (t.RobertaConfig, t.RobertaModel),
        "mpnet": (t.MPNetConfig, t.MPNetModel),
    }[family]
    t.set_seed(0)
    if kind is not t.PreTrainedTokenizerFast:
        state = json.loads(backend.to_str())
        return model(config(vocab_size=backend.get_vocab_size(), **shape)), kind(
            vocab=state["model"]["vocab"], **names
        )
    return model(config(vocab_size=backend.get_vocab_size(), **shape)), kind(
        tokenizer_object=backend, **names
    )


def save_model(path: Path, family: str, *further: Any, **options: Any) -> Path:
    """Save a small model the way sentence-transformers does."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    model, tokenizer = small(family)
    raw = path.parent / f"{path.name}-raw"
    model.save_pretrained(raw)
    tokenizer.save_pretrained(raw)
    modules = [Transformer(str(raw)), Pooling(16, options.pop("pooling", "mean")), *further]
    SentenceTransformer(modules=modules, device="cpu", **options).save(
        str(path), create_model_card=False
    )
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with prompts, saved once; copy it before changing it."""
    from sentence_transformers.sentence_transformer.modules import Normalize

    return save_model(
        tmp_path_factory.mktemp("models") / "bert",
        "bert",
        Normalize(),
        prompts={"query": "wait: ", "document": "pump: "},
    )


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def run(script: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done


# ---- the real model


@pytest.mark.model
def test_parity_with_sentence_transformers(minilm: BiEncoder) -> None:
    expected = reference(minilm.description.path).encode(MIXED)
    vectors = minilm.encode_documents(MIXED)
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(minilm.encode_queries(MIXED), expected, rtol=0, atol=1e-6)
    assert (vectors.shape, vectors.dtype) == ((len(MIXED), 384), np.float32)
    assert vectors.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=0, atol=1e-6)


@pytest.mark.model
def test_the_order_of_the_texts_is_kept(minilm: BiEncoder) -> None:
    vectors = minilm.encode_documents(MIXED)
    backwards = minilm.encode_documents(MIXED[::-1])
    np.testing.assert_allclose(backwards[::-1], vectors, rtol=0, atol=1e-6)
    [alone] = minilm.encode_queries([MIXED[3]])
    np.testing.assert_allclose(alone, vectors[3], rtol=0, atol=1e-6)


@pytest.mark.model
def test_the_window_is_where_the_vector_stops_changing(minilm: BiEncoder) -> None:
    inside, full, beyond = minilm.encode_documents(
        ["pump " * (minilm.max_tokens - 1), "pump " * minilm.max_tokens, "pump " * 400]
    )
    np.testing.assert_allclose(full, beyond, rtol=0, atol=1e-6)
    assert np.abs(inside - full).max() > 1e-5
    assert minilm.tokenizer.count("pump " * 400) == 400


@pytest.mark.model
def test_no_texts_give_no_vectors(minilm: BiEncoder) -> None:
    for vectors in (minilm.encode_documents([]), minilm.encode_queries(())):
        assert (vectors.shape, vectors.dtype) == ((0, 384), np.float32)


@pytest.mark.model
def test_it_is_an_encoder(minilm: BiEncoder) -> None:
    assert isinstance(minilm, Encoder)
    assert (minilm.dimension, minilm.max_tokens) == (384, 254)
    assert minilm.identity == minilm.description.identity
    assert len(minilm.cache_key) == 64
    assert minilm.cache_key == load_encoder(MINILM, Computing(precision="float32")).cache_key
    assert minilm.cache_key != load_encoder(MINILM, Computing(precision="bfloat16")).cache_key
    assert minilm.cache_key != BiEncoder(minilm.description, Computing(device="cpu")).cache_key


@pytest.mark.model
@pytest.mark.parametrize("text", ["a\ud800", None, b"bytes"])
def test_what_is_not_text_is_refused_by_position(text: Any, minilm: BiEncoder) -> None:
    with pytest.raises(InvalidDocument, match="Text 1") as caught:
        minilm.encode_documents(["fine", text])
    assert caught.value.hint
    with pytest.raises(InvalidQuery, match="Text 0"):
        minilm.encode_queries([text])


@pytest.mark.model
def test_threads_may_encode_at_once() -> None:
    exact = Computing(precision="float32")
    encoder = load_encoder(MINILM, exact)  # not loaded yet: that is part of the race
    expected = load_encoder(MINILM, exact).encode_documents(MIXED[:8])
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: encoder.encode_documents(MIXED[:8]), range(8)))
    assert len(results) == 8
    for vectors in results:
        np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-6)


@pytest.mark.model
def test_a_fresh_process_is_silent_and_stays_off_the_network() -> None:
    done = run(f"""
import sys
calls = []
watched = ("socket.connect", "socket.getaddrinfo", "socket.sendto")
sys.addaudithook(lambda event, args: calls.append(event) if event in watched else None)
from retriever.encoders.bi_encoder import load_encoder
from retriever.encoders.computing import Computing
encoder = load_encoder({MINILM!r}, Computing(threads=1))
encoder.encode_queries(["reset the pump"])
assert "openvino" not in sys.modules
encoder.encode_documents(["reset the pump " * 100] * 9)
assert "openvino" in sys.modules
heavy = ("torch", "transformers", "sentence_transformers", "scipy", "sklearn")
assert not [name for name in heavy if name in sys.modules]
assert calls == [], calls
""")
    assert (done.stdout, done.stderr) == ("", "")


WITHOUT_TORCH = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "sentence_transformers"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from retriever.encoders.bi_encoder import load_encoder
from retriever.encoders.computing import Computing
from retriever.errors import MissingDependency
"""


@pytest.mark.model
def test_the_default_model_needs_no_torch(minilm: BiEncoder) -> None:
    done = run(f"""{WITHOUT_TORCH}
encoder = load_encoder({MINILM!r}, Computing(precision="float32"))
for texts in (["reset the pump"], ["reset the pump " * 50] * 9 + ["reset the pump"]):
    print(*encoder.encode_documents(texts)[-1].tolist())
""")
    [expected] = minilm.encode_documents(["reset the pump"])
    for line in done.stdout.splitlines():
        np.testing.assert_allclose(np.array(line.split(), float), expected, rtol=0, atol=1e-6)
    assert len(done.stdout.splitlines()) == 2


def test_a_model_that_nobody_compared_needs_the_reference(saved: Path) -> None:
    done = run(f"""{WITHOUT_TORCH}
encoder = load_encoder({str(saved)!r})
print(encoder.tokenizer.count("reset the pump"))
try:
    encoder.encode_queries(["reset the pump"])
except MissingDependency as error:
    print(error.extra, error.message, error.hint, isinstance(error, ImportError))
""")
    assert "torch The model" in done.stdout
    assert "not on the list" in done.stdout
    assert "retriever-engine[torch]" in done.stdout


# ---- families, modules, prompts


@pytest.mark.parametrize("pooling", ["mean", ("cls", "max")])
@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "mpnet"])
def test_each_family_gives_the_reference_vectors(family: str, pooling: Any, tmp_path: Path) -> None:
    path = save_model(tmp_path / family, family, pooling=pooling)
    encoder = load_encoder(path, Computing(device="cpu"))
    limit = 38 if family in ("roberta", "mpnet") else 40
    assert encoder.description.window == limit
    texts = [*SENTENCES, "", *(text[:count] for text in SENTENCES for count in range(1, 20, 3))]
    texts = [text for text in texts if encoder.tokenizer.count(text) <= encoder.max_tokens]
    assert len(texts) > 20
    expected = unit(reference(path).encode(texts))
    np.testing.assert_allclose(encoder.encode_documents(texts), expected, rtol=0, atol=1e-6)
    # Beyond the window sentence-transformers itself fails for the two with offset positions.
    vectors = encoder.encode_documents(["pump " * 200, "pump " * 300])
    np.testing.assert_allclose(vectors[0], vectors[1], rtol=0, atol=1e-6)


def test_prompts_are_put_where_sentence_transformers_puts_them(saved: Path) -> None:
    encoder = load_encoder(saved, Computing(device="cpu"))
    assert encoder.max_tokens == 40 - 2 - encoder.tokenizer.count("pump: ")
    expected = reference(saved)
    queries, documents = encoder.encode_queries(SENTENCES), encoder.encode_documents(SENTENCES)
    np.testing.assert_allclose(queries, expected.encode_query(SENTENCES), rtol=0, atol=1e-6)
    np.testing.assert_allclose(documents, expected.encode_document(SENTENCES), rtol=0, atol=1e-6)
    assert np.abs(queries - documents).max() > 1e-3


def test_dense_layers_and_half_precision(tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import Dense

    path = save_model(tmp_path / "dense", "bert", Dense(16, 5), pooling="cls")
    encoder = load_encoder(path, Computing(device="cpu"))
    assert (encoder.dimension, encoder.identity["normalize"]) == (5, False)
    expected = unit(reference(path).encode(SENTENCES))
    np.testing.assert_allclose(encoder.encode_documents(SENTENCES), expected, rtol=0, atol=1e-6)
    halves = {k: v.astype(np.float16) for k, v in load_file(path / "model.safetensors").items()}
    save_file(halves, path / "model.safetensors", {"format": "pt"})
    edit(path / "config.json", dtype="float16")
    half = load_encoder(path, Computing(device="cpu"))
    assert half.identity["weights"] != encoder.identity["weights"]
    vectors = half.encode_documents(SENTENCES)
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=5e-3)
    whole = {name: tensor.astype(np.float32) for name, tensor in halves.items()}
    save_file(whole, path / "model.safetensors", {"format": "pt"})
    edit(path / "config.json", dtype="float32")
    same = load_encoder(path, Computing(device="cpu")).encode_documents(SENTENCES)
    np.testing.assert_array_equal(vectors, same)


def test_a_bare_transformer_is_pooled_by_its_mean(tmp_path: Path) -> None:
    model, tokenizer = small("bert")
    model.save_pretrained(tmp_path / "bare")
    tokenizer.save_pretrained(tmp_path / "bare")
    encoder = load_encoder(tmp_path / "bare", Computing(device="cpu"))
    expected = unit(reference(tmp_path / "bare").encode(SENTENCES))
    np.testing.assert_allclose(encoder.encode_queries(SENTENCES), expected, rtol=0, atol=1e-6)


def test_lowercasing_before_the_tokenizer(tmp_path: Path) -> None:
    path = save_model(tmp_path / "roberta", "roberta")
    edit(path / "sentence_bert_config.json", do_lower_case=True)
    encoder = load_encoder(path, Computing(device="cpu"))
    upper, lower = encoder.encode_documents(["RESET THE PUMP", "reset the pump"])
    np.testing.assert_allclose(upper, lower, rtol=0, atol=1e-6)


# ---- models that must not be used


def drop_tensor(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, model / "model.safetensors", {"format": "pt"})


def change_shape(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors["encoder.layer.1.output.dense.weight"] = np.ones((3, 3), np.float32)
    save_file(tensors, model / "model.safetensors", {"format": "pt"})


def spoil_with_nan(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors["embeddings.LayerNorm.weight"][:] = np.nan
    save_file(tensors, model / "model.safetensors", {"format": "pt"})


UNUSABLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing tensor": (drop_tensor, "lack the tensor 'encoder.layer.1.output.dense.weight'"),
    "other shape": (change_shape, r"has the shape \(3, 3\)"),
    "nan": (spoil_with_nan, "not finite"),
    "unknown architecture": (
        lambda model: edit(model / "config.json", model_type="novel"),
        "cannot load the model",
    ),
    "nonsense in the config": (
        lambda model: edit(model / "config.json", hidden_size="many"),
        "cannot load the model",
    ),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_weights_are_refused(
    case: str, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil, message = UNUSABLE[case]
    spoil(model)
    for _ in range(2):  # what failed is not remembered as complete
        with pytest.raises(ModelError, match=message) as caught:
            load_encoder(model, Computing(device="cpu")).encode_documents(["pump"])
        assert str(model) in caught.value.message
        assert caught.value.hint
    assert capfd.readouterr().err == ""


def test_an_unused_pooler_may_be_missing(model: Path) -> None:
    expected = load_encoder(model, Computing(device="cpu")).encode_documents(SENTENCES)
    tensors = load_file(model / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("pooler.")}
    assert len(kept) == len(tensors) - 2
    save_file(kept, model / "model.safetensors", {"format": "pt"})
    vectors = load_encoder(model, Computing(device="cpu")).encode_documents(SENTENCES)
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-6)


def test_a_tokenizer_that_its_config_contradicts_is_refused(model: Path) -> None:
    edit(model / "tokenizer_config.json", do_lower_case=False)
    with pytest.raises(ModelMismatch, match="for its tokenizer") as caught:
        load_encoder(model, Computing(device="cpu")).encode_documents(["pump"])
    assert caught.value.field == "tokenizer"
    assert "Save the model again" in caught.value.hint


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pooling", "cls"),
        ("normalize", False),
        ("prompts", {"query": "", "document": ""}),
        ("max_tokens", 12),
        ("dimension", 15),
    ],
)
def test_a_description_the_loaded_model_contradicts_is_refused(
    field: str, value: Any, saved: Path
) -> None:
    description = resolve_model(saved)
    description.identity[field] = value
    with pytest.raises(ModelMismatch, match=f"for its {field}") as caught:
        BiEncoder(description, Computing(device="cpu")).encode_documents(["pump"])
    assert (caught.value.field, caught.value.expected) == (field, value)
    assert caught.value.actual != value


def test_a_text_without_direction_is_refused(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    for part in ("weight", "bias"):
        tensors[f"encoder.layer.1.output.LayerNorm.{part}"][:] = 0
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    encoder = load_encoder(model, Computing(device="cpu"))
    with pytest.raises(InvalidDocument, match="Text 0 has no direction"):
        encoder.encode_documents(["pump"])
    with pytest.raises(InvalidQuery, match="no direction"):
        encoder.encode_queries(["pump"])


def test_a_missing_gpu_is_named(saved: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InvalidConfig, match="'cuda'"):
        load_encoder(saved, Computing(device="cuda")).encode_documents(["pump"])


# ---- canaries


class Rotated:
    """An encoder of somebody else's: MiniLM's vectors with a share of noise; no `cache_key`."""

    def __init__(self, encoder: BiEncoder, noise: float) -> None:
        self.encoder = encoder
        self.noise = noise
        self.calls = 0
        self.identity = {"name": "rotated"}
        self.dimension = encoder.dimension
        self.max_tokens = encoder.max_tokens
        self.tokenizer = self

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        return self.encoder.tokenizer.tokenize(texts)

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        self.calls += 1
        vectors = self.encoder.encode_documents(texts)
        noise = np.random.default_rng(0).standard_normal(vectors.shape).astype(np.float32)
        return unit(vectors + self.noise * unit(noise))

    encode_queries = encode_documents


def test_the_canaries_are_as_indexes_know_them() -> None:
    assert len(CANARIES) == 8
    assert len(set(CANARIES)) == 8
    assert resolve_model(MINILM).load_tokenizer().count(CANARIES[2]) > 512
    assert all(text.isprintable() or "\n" in text for text in CANARIES)


@pytest.mark.model
def test_canaries_pass_and_are_remembered(minilm: BiEncoder, private_cache: Path) -> None:
    stored = encode_canaries(minilm)
    assert (stored.shape, stored.dtype) == ((8, 384), np.float32)
    check_canaries(minilm, stored)
    assert (private_cache / "retriever" / "canaries.json").exists()
    unloaded = load_encoder(MINILM, Computing(precision="float32"))
    check_canaries(unloaded, stored)
    assert unloaded._chosen is None
    # Other stored vectors, or another bar, are another question.
    check_canaries(unloaded, stored, minimum=0.9999)
    assert unloaded._chosen is not None


@pytest.mark.model
def test_other_canaries_are_refused(minilm: BiEncoder) -> None:
    stored = encode_canaries(minilm)
    stored[[3, 4]] = stored[[4, 3]]
    for _ in range(2):  # a failure is not remembered as a success
        with pytest.raises(ModelMismatch, match=r"Größe|Москва") as caught:
            check_canaries(minilm, stored)
        assert caught.value.field == "canaries"
        assert caught.value.expected == 0.999
        assert -1 <= caught.value.actual < 0.9
        assert "rebuild" in caught.value.hint


@pytest.mark.model
@pytest.mark.parametrize("damage", ["nan", "zero", "fewer", "narrower"])
def test_damaged_canaries_are_refused(damage: str, minilm: BiEncoder) -> None:
    stored = encode_canaries(minilm)
    if damage in ("nan", "zero"):
        stored[5] = np.nan if damage == "nan" else 0
    stored = {"fewer": stored[:-1], "narrower": stored[:, :-1]}.get(damage, stored)
    with pytest.raises(ModelMismatch) as caught:
        check_canaries(minilm, stored)
    if damage == "narrower":
        assert (caught.value.field, caught.value.expected) == ("dimension", 383)
    else:
        assert (caught.value.field, caught.value.actual) == ("canaries", -1)


@pytest.mark.model
def test_an_encoder_without_a_key_is_checked_every_time(minilm: BiEncoder) -> None:
    stored = encode_canaries(minilm)
    close, far = Rotated(minilm, 0.02), Rotated(minilm, 0.1)
    assert isinstance(close, Encoder)
    for calls in (1, 2):
        check_canaries(close, stored)
        assert close.calls == calls
    with pytest.raises(ModelMismatch, match="'rotated'"):
        check_canaries(far, stored)
    check_canaries(far, stored, minimum=0.99)

"""Small cross-encoders with seeded weights, and what sentence-transformers computes with them.

Every weight is random, biases and layer norms too: the values that transformers starts with, 0 and
1, would hide one that is read in another's place.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from retriever.encoders.checkpoint.resolve import resolve_model

# Looked for without importing them: that takes seconds, also of a run that collects other tests.
needs_reference = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("torch", "sentence_transformers"))),
    reason="compares with sentence-transformers",
)
HIDDEN, LAYERS, HEADS, INNER = 32, 2, 4, 48
ONE_LABEL = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
_SIZES = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
}
_DISTILBERT = {"dim": HIDDEN, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": INNER}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {**_SIZES, "max_position_embeddings": 512},
    "roberta": {**_SIZES, "max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1},
    "distilbert": {**_DISTILBERT, "max_position_embeddings": 512},
    "mpnet": {**_SIZES, "max_position_embeddings": 514, "pad_token_id": 1},
}
_CLASSES = {
    "bert": "BertTokenizer",
    "roberta": "RobertaTokenizer",
    "distilbert": "DistilBertTokenizer",
    "mpnet": "PreTrainedTokenizerFast",
    "electra": "ElectraTokenizer",
}
QUERIES = ("How do I reset the pump?", "", "reset the harbour pump after the storm " * 120)
TEXTS = (
    "Hold the red button for ten seconds, then prime the pump.",
    "",
    "The harbour master keeps a ledger of every ship: its cargo, its captain, the tide. " * 60,
    "Die Größe der Straße überraschte den Läufer; l'été à Zürich fut très doux.",
    "東京の夜景 · Москва зимой · القاهرة · नमस्ते दुनिया 🚢🌊",
    "a [SEP] b [MASK] c </s> d <mask> e",
    "\x00\x01\x02\x7f\ufffd\u200b",
    "cafe\u0301 nai\u0308ve",
    "caf\u00e9 na\u00efve",
    "x" * 300,
)


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def edit(path: Path, **changes: Any) -> None:
    write(path, {**json.loads(path.read_text()), **changes})


def wordpiece(folder: Path, *, doubled: bool = False) -> int:
    """Write all-MiniLM's tokenizer; with two [SEP] between texts if `doubled`. Return its size."""
    backend = Tokenizer.from_file(str(resolve_model("all-MiniLM-L6-v2").path / "tokenizer.json"))
    backend.no_truncation()
    backend.no_padding()
    if doubled:
        backend.post_processor = processors.RobertaProcessing(
            ("[SEP]", 102), ("[CLS]", 101), trim_offsets=False, add_prefix_space=False
        )
    backend.save(str(folder / "tokenizer.json"))
    return backend.get_vocab_size()


def byte_level(folder: Path) -> int:
    """Write a byte-level BPE tokenizer as RoBERTa's, trained on a few lines; return its size."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        [*TEXTS[:4], *QUERIES],
        trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet),
    )
    backend.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    backend.save(str(folder / "tokenizer.json"))
    return backend.get_vocab_size()


def _write_tokenizer(folder: Path, family: str, window: int = 512) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    write(
        folder / "tokenizer_config.json",
        {"model_max_length": window, "tokenizer_class": _CLASSES[family]}
        | ({} if family == "roberta" else {"pad_token": "[PAD]", "do_lower_case": True}),
    )
    if family == "roberta":
        return byte_level(folder)
    return wordpiece(folder, doubled=family == "mpnet")


def save_with_transformers(folder: Path, family: str, *, scale: float = 0.2, **more: Any) -> Path:
    """Write a sequence classifier of a family as transformers does, every weight seeded."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    size = _write_tokenizer(folder, family)
    settings = {**FAMILIES.get(family, FAMILIES["bert"]), "vocab_size": size, "num_labels": 1}
    config = AutoConfig.for_model(family, **{**settings, **more})
    model = AutoModelForSequenceClassification.from_config(config)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            around = float(name.lower().endswith(("norm.weight", "layer_norm.weight")))
            random = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(around + random * (0.4 if "classifier" in name else scale))
    model.save_pretrained(folder)
    return folder


def save_with_numpy(folder: Path, *, seed: int = 3) -> Path:
    """Write a BERT cross-encoder without torch, for pairs of 64 tokens."""
    size = _write_tokenizer(folder, "bert", window=64)
    shape = {**FAMILIES["bert"], "vocab_size": size, "type_vocab_size": 2}
    write(
        folder / "config.json",
        {
            "model_type": "bert",
            "architectures": ["BertForSequenceClassification"],
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-12,
            "pad_token_id": 0,
            **shape,
            **ONE_LABEL,
        },
    )
    generator = np.random.default_rng(seed)

    def random(*sizes: int) -> np.ndarray:
        return (generator.standard_normal(sizes) * 0.2).astype(np.float32)

    tensors = {"classifier.weight": random(1, HIDDEN), "classifier.bias": random(1)}

    def linear(name: str, rows: int, columns: int) -> None:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = random(rows, columns), random(rows)

    def norm(name: str) -> None:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = 1 + random(HIDDEN), random(HIDDEN)

    for name, rows in (("word", size), ("position", 512), ("token_type", 2)):
        tensors[f"bert.embeddings.{name}_embeddings.weight"] = random(rows, HIDDEN)
    norm("bert.embeddings.LayerNorm")
    for layer in range(LAYERS):
        stem = f"bert.encoder.layer.{layer}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            linear(f"{stem}.attention.{name}", HIDDEN, HIDDEN)
        linear(f"{stem}.intermediate.dense", INNER, HIDDEN)
        linear(f"{stem}.output.dense", HIDDEN, INNER)
        norm(f"{stem}.attention.output.LayerNorm")
        norm(f"{stem}.output.LayerNorm")
    linear("bert.pooler.dense", HIDDEN, HIDDEN)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def save_minilm(folder: Path) -> Path:
    """Write all-MiniLM-L6-v2 under a seeded head, for pairs of 128 tokens."""
    source = resolve_model("all-MiniLM-L6-v2").path
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    edit(folder / "tokenizer_config.json", model_max_length=128)
    config = json.loads((source / "config.json").read_text())
    write(
        folder / "config.json",
        {**config, "architectures": ["BertForSequenceClassification"], **ONE_LABEL},
    )
    tensors = {
        f"bert.{name}": array for name, array in load_file(source / "model.safetensors").items()
    }
    generator = np.random.default_rng(5)
    tensors["classifier.weight"] = generator.standard_normal((1, 384)).astype(np.float32)
    tensors["classifier.bias"] = np.zeros(1, np.float32)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


class Reference:
    """sentence-transformers' CrossEncoder."""

    def __init__(self, folder: Path) -> None:
        from sentence_transformers import CrossEncoder

        self._model = CrossEncoder(str(folder), device="cpu", local_files_only=True)

    def score(self, query: str, texts: Sequence[str]) -> np.ndarray:
        """Return its scores."""
        pairs = [(query, text) for text in texts]
        return self._model.predict(pairs, show_progress_bar=False)

"""Small networks of each family with seeded weights, saved by transformers, and what it computes.

Every weight is random, biases and layer norms too: the values that transformers starts with, 0 and
1, would hide one that is read in another's place.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retriever.encoders.checkpoint.architecture import read_architecture
from retriever.encoders.forward.batching import Sequences
from retriever.encoders.forward.transformer import Network, load_network

# Looked for without importing it: that takes seconds, also of a run that collects other tests.
needs_reference = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("torch", "transformers"))),
    reason="compares with transformers",
)
HIDDEN, VOCABULARY, POSITIONS = 32, 100, 50
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": POSITIONS,
}
_DISTILBERT = {
    "vocab_size": VOCABULARY,
    "dim": HIDDEN,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 48,
    "max_position_embeddings": POSITIONS,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {**_SIZES, "pad_token_id": 0},
    "roberta": {**_SIZES, "pad_token_id": 1, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
    "xlm-roberta": {**_SIZES, "pad_token_id": 3, "type_vocab_size": 2, "layer_norm_eps": 1e-5},
    "camembert": {**_SIZES, "pad_token_id": 1, "type_vocab_size": 1},
    "distilbert": {**_DISTILBERT, "pad_token_id": 0},
    "mpnet": {**_SIZES, "pad_token_id": 1, "layer_norm_eps": 1e-5},
}


def reference(family: str, *, scale: float = 0.15, **settings: Any) -> Any:
    """Return transformers' own model of a family, every weight seeded."""
    import torch
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(family, **{**FAMILIES[family], **settings})
    model = AutoModel.from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model


def load(folder: Path) -> Network:
    """Return the network that a directory holds."""
    config = json.loads((folder / "config.json").read_bytes())
    return load_network(read_architecture(config), folder, folder.name)


def save(model: Any, folder: Path) -> Network:
    """Write a model as transformers does and read it as this package does."""
    model.save_pretrained(folder)
    return load(folder)


class Small:
    """The families' models, each made and saved once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, tuple[Any, Network]] = {}

    def __call__(self, family: str) -> tuple[Any, Network]:
        """Return transformers' model and this package's network of the same weights."""
        if family not in self._made:
            model = reference(family)
            self._made[family] = model, save(model, self._folder / family)
        return self._made[family]


def sequences(lengths: list[int], seed: int = 0, lowest: int = 5) -> Sequences:
    """Return random token ids from `lowest` on, of these lengths."""
    generator = np.random.default_rng(seed)
    return Sequences(
        [generator.integers(lowest, VOCABULARY, length).astype(np.int32) for length in lengths]
    )


def expected(model: Any, batch: Sequences) -> list[np.ndarray]:
    """Return transformers' vectors of each text's tokens, each text computed alone."""
    import torch

    found = []
    with torch.inference_mode():
        for row, ids in enumerate(batch.ids):
            inputs = {"input_ids": torch.from_numpy(ids.astype(np.int64))[None]}
            if batch.types is not None:
                types = batch.types[row].astype(np.int64)
                inputs["token_type_ids"] = torch.from_numpy(types)[None]
            found.append(model(**inputs).last_hidden_state[0].float().numpy())
    return found


def furthest(some: list[np.ndarray], others: list[np.ndarray]) -> float:
    """Return the greatest difference of two numbers that stand in the same place."""
    assert [one.shape for one in some] == [other.shape for other in others]
    return max(float(np.abs(a - b).max()) for a, b in zip(some, others, strict=True))

"""What a config.json says of a transformer, for the families that this package computes.

Owns the names that each family gives to its settings and tensors. Must not know how a network is
computed. The families are those of transformers: BERT (Devlin et al. 2019), RoBERTa with
XLM-RoBERTa and CamemBERT, DistilBERT, and MPNet (Song et al. 2020).

To add a family, add it to the tables below, and to `_refuse_variants` those of its settings that
change what is computed. See `forward/transformer.py` if it computes in another order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_FAMILIES = {
    "bert": "bert",
    "roberta": "roberta",
    "xlm-roberta": "roberta",
    "camembert": "roberta",
    "distilbert": "distilbert",
    "mpnet": "mpnet",
}
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
_SIZES = {
    "bert": ("num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size"),
    "distilbert": ("n_layers", "n_heads", "dim", "hidden_dim"),
}
_MPNET_BUCKETS = 32
_EPSILON = 1e-12

# Tensor names of a layer, beneath its prefix, in the order of `_LAYER`.
_LAYER = ("query", "key", "value", "output", "attention_norm", "up", "down", "norm")
_LAYER_NAMES = {
    "bert": (
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "attention.output.LayerNorm",
        "intermediate.dense",
        "output.dense",
        "output.LayerNorm",
    ),
    "distilbert": (
        "attention.q_lin",
        "attention.k_lin",
        "attention.v_lin",
        "attention.out_lin",
        "sa_layer_norm",
        "ffn.lin1",
        "ffn.lin2",
        "output_layer_norm",
    ),
    "mpnet": (
        "attention.attn.q",
        "attention.attn.k",
        "attention.attn.v",
        "attention.attn.o",
        "attention.LayerNorm",
        "intermediate.dense",
        "output.dense",
        "output.LayerNorm",
    ),
}


class UnsupportedModel(Exception):
    """A model that only the reference can compute; the message says why. Callers never see it."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """The shape of a transformer encoder.

    Attributes:
        family: `bert`, `roberta`, `distilbert` or `mpnet`.
        layers: The number of layers.
        heads: The number of attention heads of each layer.
        hidden: The length of a token's vector.
        intermediate: The length of the vector between the two halves of the feed-forward.
        vocabulary: The number of rows of the word embeddings.
        positions: The number of rows of the position embeddings.
        padding: The padding token's id, for families that count positions from the one after it; a
            padding token in a text has that position itself. None for other families.
        types: The number of rows of the token type embeddings; 0 if there are none.
        activation: `gelu`, `gelu_tanh` or `relu`.
        epsilon: Added to the variance in a layer norm.
        buckets: The number of rows of the relative attention bias; 0 if there is none.
    """

    family: str
    layers: int
    heads: int
    hidden: int
    intermediate: int
    vocabulary: int
    positions: int
    padding: int | None
    types: int
    activation: str
    epsilon: float
    buckets: int

    @property
    def window(self) -> int:
        """Return the most tokens that the network has positions for."""
        return self.positions - (0 if self.padding is None else self.padding + 1)

    def tensor_names(self) -> dict[str, str]:
        """Return our name of each tensor and the family's, without the family's own prefix."""
        ours = "bert" if self.family == "roberta" else self.family
        stem = "transformer.layer" if self.family == "distilbert" else "encoder.layer"
        names = {
            "words": "embeddings.word_embeddings.weight",
            "positions": "embeddings.position_embeddings.weight",
            "embedding_norm.weight": "embeddings.LayerNorm.weight",
            "embedding_norm.bias": "embeddings.LayerNorm.bias",
        }
        if self.types:
            names["types"] = "embeddings.token_type_embeddings.weight"
        if self.buckets:
            names["relative"] = "encoder.relative_attention_bias.weight"
        for layer in range(self.layers):
            for name, theirs in zip(_LAYER, _LAYER_NAMES[ours], strict=True):
                for part in ("weight", "bias"):
                    names[f"{layer}.{name}.{part}"] = f"{stem}.{layer}.{theirs}.{part}"
        return names

    def tensor_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape that a tensor, by our name, must have."""
        first, _, part = name.rpartition(".")
        kind = first.rpartition(".")[2]
        tables = {
            "words": (self.vocabulary, self.hidden),
            "positions": (self.positions, self.hidden),
            "types": (self.types, self.hidden),
            "relative": (self.buckets, self.heads),
        }
        if name in tables:
            return tables[name]
        rows = self.intermediate if kind == "up" else self.hidden
        if part == "bias" or kind.endswith("norm"):
            return (rows,)
        return (rows, self.intermediate if kind == "down" else self.hidden)


def read_architecture(config: Mapping[str, Any]) -> Architecture:
    """Return the architecture that a config.json describes.

    Raises:
        UnsupportedModel: It is of another family, or uses what this package does not compute.
    """
    family = _FAMILIES.get(str(config.get("model_type")))
    if family is None:
        raise UnsupportedModel(f"its family is {config.get('model_type')!r}")
    _refuse_variants(config, family)
    key = "activation" if family == "distilbert" else "hidden_act"
    activation = _ACTIVATIONS.get(str(config.get(key, "gelu")))
    if activation is None:
        raise UnsupportedModel(f"its activation is {config.get(key)!r}")
    layers, heads, hidden, intermediate = (
        _size(config, name) for name in _SIZES.get(family, _SIZES["bert"])
    )
    if hidden % heads:
        raise UnsupportedModel(f"its {heads} heads do not divide its width of {hidden}")
    found = Architecture(
        family=family,
        layers=layers,
        heads=heads,
        hidden=hidden,
        intermediate=intermediate,
        vocabulary=_size(config, "vocab_size"),
        positions=_size(config, "max_position_embeddings"),
        padding=_padding(family, config),
        types=_size(config, "type_vocab_size", 2) if family in ("bert", "roberta") else 0,
        activation=activation,
        epsilon=_epsilon(family, config),
        buckets=_MPNET_BUCKETS if family == "mpnet" else 0,
    )
    if found.window < 1:
        raise UnsupportedModel(f"its {found.positions} positions are all reserved for padding")
    return found


def _refuse_variants(config: Mapping[str, Any], family: str) -> None:
    """Refuse settings of these families that change what is computed and are not supported."""
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise UnsupportedModel(f"its positions are {config['position_embedding_type']!r}")
    if config.get("is_decoder") or config.get("add_cross_attention"):
        raise UnsupportedModel("it is a decoder")
    if config.get("pruned_heads"):
        raise UnsupportedModel("some of its attention heads are pruned")
    if config.get("quantization_config"):
        raise UnsupportedModel("its weights are quantized")
    buckets = config.get("relative_attention_num_buckets", _MPNET_BUCKETS)
    if family == "mpnet" and buckets != _MPNET_BUCKETS:
        raise UnsupportedModel(f"it has {buckets!r} buckets of relative positions")


def _padding(family: str, config: Mapping[str, Any]) -> int | None:
    if family == "mpnet":
        return 1  # transformers' MPNet counts from 1, whatever its config says
    if family != "roberta":
        return None
    value = config.get("pad_token_id", 1)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UnsupportedModel(f"its config.json says pad_token_id = {value!r}")
    return value


def _epsilon(family: str, config: Mapping[str, Any]) -> float:
    # DistilBERT has no such setting: transformers has the number in its code.
    value = _EPSILON if family == "distilbert" else config.get("layer_norm_eps", _EPSILON)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise UnsupportedModel(f"its config.json says layer_norm_eps = {value!r}")
    return float(value)


def _size(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UnsupportedModel(f"its config.json says {name} = {value!r}")
    return value

"""A transformer encoder: its weights, and the one definition of what is computed from them.

Owns the order of operations; each runtime supplies the operations themselves (`Operations`), so
that NumPy, OpenVINO and torch compute the same network. Must not know texts, the pooling of a
particular model, or how a runtime lays out a batch.

To add an architecture with the same order of operations, describe its settings and tensor names in
`checkpoint/architecture.py`; one with another order branches in `hidden_states`, and no runtime
changes unless it needs an operation that `Operations` lacks.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from retriever.encoders.checkpoint.architecture import Architecture, read_architecture
from retriever.encoders.checkpoint.json_files import read_config
from retriever.encoders.checkpoint.tensors import Tensors
from retriever.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")
# Part of every key under which a comparison of vectors is remembered. Raise it with any change to
# what a runtime computes, so that the outcome of a comparison with the old one is not reused.
_FORWARD_REVISION = 1
_PREFIXES = ("", "bert.", "roberta.", "distilbert.", "mpnet.", "model.")
_LEGACY = {".weight": ".gamma", ".bias": ".beta"}
_MOST_DISTANT = 128


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Return a hash of a model's identity, its name left out, and of this package's forward."""
    parts = {**identity, "name": None, "forward": _FORWARD_REVISION}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """An architecture and its weights.

    Attributes:
        architecture: Its shape.
        weights: float32 arrays by the names of `Architecture.tensor_names`; `relative` is the bias
            of attention scores by key minus query, `(heads, 2 * positions - 1)`, distance 0 in the
            middle.
        name: The model's, for messages.
        fingerprint: Names the weights, and all else that the network was made from, where outcomes
            of comparisons are remembered.
    """

    architecture: Architecture
    weights: Mapping[str, NDArray[np.float32]]
    name: str
    fingerprint: str = ""


class Described(Protocol):
    """The part of a model's description that its network is read from."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def transformer(self) -> Path: ...  # noqa: D102
    @property
    def identity(self) -> Mapping[str, Any]: ...  # noqa: D102


class Operations(Protocol[T]):
    """The operations of a runtime, which knows the weights of a network by name.

    `T` is its tensor; the last axis of every tensor is the hidden one. An object is made for one
    batch (for OpenVINO, one graph) and used for it alone.
    """

    def embeddings(self) -> T:
        """Return the sum of word, position and type embeddings of the batch."""
        ...

    def linear(self, x: T, name: str) -> T:
        """Return `x @ weight.T + bias` with the weights of that name."""
        ...

    def projections(self, asking: T, x: T, layer: int) -> tuple[T, T, T]:
        """Return the queries of `asking`, and the keys and values of `x`, in a layer."""
        ...

    def norm(self, x: T, name: str, epsilon: float) -> T:
        """Return the layer norm of `x` with the weights of that name."""
        ...

    def add(self, x: T, y: T) -> T:
        """Return `x + y`."""
        ...

    def activation(self, x: T, kind: str) -> T:
        """Return the activation, `gelu`, `gelu_tanh` or `relu`, of `x`."""
        ...

    def attention(self, query: T, key: T, value: T, heads: int) -> T:
        """Return scaled dot-product attention within each text, its heads side by side.

        The network's relative bias, if there is one, is added to the scores.
        """
        ...

    def first(self, x: T) -> T:
        """Return the vectors of each text's first token.

        From then on `attention` is called with the queries of these tokens only.
        """
        ...

    def pool(self, x: T, mode: str) -> T:
        """Return one vector for each text, pooled from its tokens by any mode but `cls`."""
        ...


POOLING_MODES = ("cls", "mean", "max", "mean_sqrt_len_tokens")
"""What every runtime computes: the first token's vector, the mean of all tokens' vectors, their
largest number in each dimension, and their sum divided by the square root of their number."""


def outputs(network: Network, operations: Operations[T], pooling: tuple[str, ...]) -> list[T]:
    """Return a tensor for each pooling mode, or that of all tokens if there is no mode."""
    states = hidden_states(network, operations, first_only=pooling == ("cls",))
    if pooling in ((), ("cls",)):
        return [states]
    return [
        operations.first(states) if mode == "cls" else operations.pool(states, mode)
        for mode in pooling
    ]


def hidden_states(network: Network, operations: Operations[T], *, first_only: bool = False) -> T:
    """Return the last layer's vectors of every token, or of each text's first.

    Post-norm encoder layers as in Vaswani et al. 2017 and Devlin et al. 2019. If only the first
    token is wanted, the last layer computes the queries, the feed-forward and the norms of that
    token alone; its vector is the same.
    """
    shape = network.architecture

    def norm(x: T, name: str) -> T:
        return operations.norm(x, name, shape.epsilon)

    x = norm(operations.embeddings(), "embedding_norm")
    for layer in range(shape.layers):
        asking = operations.first(x) if first_only and layer == shape.layers - 1 else x
        query, key, value = operations.projections(asking, x, layer)
        attended = operations.attention(query, key, value, shape.heads)
        x = norm(
            operations.add(asking, operations.linear(attended, f"{layer}.output")),
            f"{layer}.attention_norm",
        )
        inner = operations.activation(operations.linear(x, f"{layer}.up"), shape.activation)
        x = norm(operations.add(x, operations.linear(inner, f"{layer}.down")), f"{layer}.norm")
    return x


def check_rows(network: Network, *rows: NDArray[np.int32]) -> None:
    """Refuse token ids, positions and types that their tables have no row for.

    Runtimes would answer differently: by an error, by zeros, or by a GPU that has to be reset.

    Raises:
        ModelError: Naming the table.
    """
    shape = network.architecture
    tables = (("tokens", shape.vocabulary), ("positions", shape.positions), ("types", shape.types))
    for (what, count), wanted in zip(tables, rows, strict=True):
        largest = int(wanted.max(initial=0))
        if largest >= max(count, 1):
            raise ModelError(
                f"{network.name!r} has {count} {what}; a text asks for number {largest}, counted "
                "from 0.",
                hint="Copy or download the model again; its tokenizer, window and weights do not "
                "belong together.",
            )


def read_network(description: Described) -> Network:
    """Return the network of a model, its weights mapped.

    Raises:
        UnsupportedModel: Only the reference can compute it; says why.
        ModelError, ModelUnavailable, UnsafeModelFile: As `load_network`.
    """
    folder = description.transformer
    network = load_network(read_architecture(read_config(folder)), folder, description.name)
    return replace(network, fingerprint=fingerprint(description.identity))


def load_network(architecture: Architecture, folder: Path, name: str) -> Network:
    """Map a transformer's weights, after checking that every tensor exists and has its shape.

    Raises:
        ModelError: A tensor is missing or has another shape; names it.
        ModelUnavailable, UnsafeModelFile: As `Tensors`.
    """
    tensors = Tensors(folder)
    prefix = _prefix(tensors, architecture)
    weights = {}
    for ours, theirs in architecture.tensor_names().items():
        found = prefix + theirs
        if found not in tensors:
            found = old_name(found)
        if found not in tensors:
            raise ModelError(
                f"The weights of {name!r} in {folder} lack the tensor {theirs!r} of their "
                "architecture.",
                hint="Copy or download the model again; its config.json and weights do not "
                "belong together.",
            )
        array, expected = tensors[found], architecture.tensor_shape(ours)
        if array.shape != expected:
            raise ModelError(
                f"The tensor {found!r} of {name!r} has the shape {array.shape}; its config.json "
                f"asks for {expected}.",
                hint="Copy or download the model again; its config.json and weights do not "
                "belong together.",
            )
        weights[ours] = array
    if architecture.buckets:
        weights["relative"] = relative_bias(weights["relative"], architecture.positions)
    return Network(architecture, weights, name)


def _prefix(tensors: Mapping[str, object], architecture: Architecture) -> str:
    words = architecture.tensor_names()["words"]
    return next((prefix for prefix in _PREFIXES if prefix + words in tensors), "")


def old_name(name: str) -> str:
    """Return the name that a layer norm's tensor had in checkpoints converted from TensorFlow."""
    for ending, old in _LEGACY.items():
        if name.endswith(f"LayerNorm{ending}"):
            return name.removesuffix(ending) + old
    return name


def relative_bias(table: NDArray[np.float32], longest: int) -> NDArray[np.float32]:
    """Return MPNet's bias of each distance, float32 `(heads, 2 * longest - 1)`.

    Half of the buckets are for keys before the query, half for keys after it. Of each half, the
    nearer buckets hold one distance each, and the others grow logarithmically up to a distance of
    128 (the scheme of T5: Raffel et al. 2020, section 2.1).

    Args:
        table: The learned bias, `(buckets, heads)`.
        longest: The most tokens a text may have.
    """
    half = len(table) // 2
    exact = half // 2
    distance = np.arange(-(longest - 1), longest)
    away = np.abs(distance)
    # In float32, as transformers computes it: at the edge of a bucket the rounding decides.
    growth = np.log(np.maximum(away, exact).astype(np.float32) / np.float32(exact))
    far = exact + (growth / np.float32(math.log(_MOST_DISTANT / exact)) * (half - exact)).astype(
        int
    )
    bucket = np.where(away < exact, away, np.minimum(far, half - 1))
    bucket += np.where(distance > 0, half, 0)
    return np.ascontiguousarray(table[bucket].T)

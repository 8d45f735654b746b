"""The network in NumPy float32: starts at once, and is what other runtimes are compared with.

Owns the float32 arithmetic. It answers first in a process (a query takes 10 ms, and no runtime has
to be loaded), and computes everything if no other runtime can. It is the slowest one for bulk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retriever import deadlines
from retriever.encoders.forward import blas
from retriever.encoders.forward.batching import Padded, Sequences, pad, plan
from retriever.encoders.forward.transformer import Network, check_rows, outputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

_BUDGET = 2048  # tokens a batch
_HALF = np.float32(0.5)
# NumPy has no erf, which GELU needs. Coefficients of the rational minimax approximation that Eigen
# and XLA use on [-4, 4], highest power of x² first; its error is below 3e-7 in float32.
_ERF_NUMERATOR = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_DENOMINATOR = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)


class NumpyRuntime:
    """Computes a network in float32 on NumPy's own threads.

    Safe to use from several threads.

    Args:
        network: What to compute.
        threads: The most threads; None leaves NumPy's own setting.
    """

    precision = "float32"

    def __init__(self, network: Network, threads: int | None = None) -> None:
        """Take a network; nothing is copied."""
        self._network = network
        self._threads = threads

    def pooled(self, sequences: Sequences, modes: tuple[str, ...]) -> Array:
        """Return the pooled vectors, float32 `(n, len(modes) * hidden)`, in order."""
        width = len(modes) * self._network.architecture.hidden
        found = np.empty((len(sequences), width), np.float32)
        for members in plan(sequences.lengths, _BUDGET):
            deadlines.check()
            parts = self._compute(sequences, members, modes)
            found[members] = np.concatenate([part.reshape(len(members), -1) for part in parts], 1)
        return found

    def token_vectors(self, sequences: Sequences) -> list[Array]:
        """Return the vectors of each text's tokens, float32 `(tokens, hidden)`."""
        found: list[Array] = [np.empty(0, np.float32)] * len(sequences)
        for members in plan(sequences.lengths, _BUDGET):
            deadlines.check()
            (states,) = self._compute(sequences, members, ())
            for row, member in enumerate(members):
                found[member] = states[row, : len(sequences.ids[member])].copy()
        return found

    def _compute(
        self, sequences: Sequences, members: NDArray[np.int64], modes: tuple[str, ...]
    ) -> list[Array]:
        shape = self._network.architecture
        batch = pad(sequences, members, multiple=1, longest=shape.window, padding=shape.padding)
        check_rows(self._network, batch.ids, batch.positions, batch.types)
        with blas.at_most(self._threads):
            return outputs(self._network, _Arithmetic(self._network, batch), modes)


class _Arithmetic:
    """`Operations` on arrays `(texts, tokens, hidden)`."""

    def __init__(self, network: Network, batch: Padded) -> None:
        self._weights = network.weights
        self._batch = batch
        inside = np.arange(batch.ids.shape[1]) < batch.lengths[:, None]
        self._inside = inside[:, :, None]
        # The mask is added to attention scores before the softmax: the lowest float makes the
        # weight of a padding key exactly 0. -inf would do so too, but gives NaN in a row that has
        # nothing else. It broadcasts over heads and queries, (texts, 1, 1, tokens); without padding
        # there is none to add.
        self._mask: Array | None = None
        if not inside.all():
            lowest = np.finfo(np.float32).min
            self._mask = np.where(inside, np.float32(0), lowest)[:, None, None, :]
        self._bias = self._relative()
        self._asks_first = False

    def embeddings(self) -> Array:
        weights, batch = self._weights, self._batch
        x = weights["words"][batch.ids] + weights["positions"][batch.positions]
        if "types" in weights:
            x += weights["types"][batch.types]
        return x

    def linear(self, x: Array, name: str) -> Array:
        # One product over all tokens: NumPy would make one for each text of a 3-D array.
        y: Array = x.reshape(-1, x.shape[-1]) @ self._weights[f"{name}.weight"].T
        y += self._weights[f"{name}.bias"]
        return y.reshape(*x.shape[:-1], -1)

    def projections(self, asking: Array, x: Array, layer: int) -> tuple[Array, Array, Array]:
        return (
            self.linear(asking, f"{layer}.query"),
            self.linear(x, f"{layer}.key"),
            self.linear(x, f"{layer}.value"),
        )

    def norm(self, x: Array, name: str, epsilon: float) -> Array:
        # The subtraction makes a new array; what follows may work in place and save allocations.
        x = x - x.mean(-1, keepdims=True)
        x /= np.sqrt(np.square(x).mean(-1, keepdims=True) + np.float32(epsilon))
        x *= self._weights[f"{name}.weight"]
        x += self._weights[f"{name}.bias"]
        return x

    def add(self, x: Array, y: Array) -> Array:
        return x + y

    def activation(self, x: Array, kind: str) -> Array:
        if kind == "relu":
            return np.maximum(x, 0)
        if kind == "gelu_tanh":
            gate = np.tanh(np.float32(0.7978845608028654) * (x + np.float32(0.044715) * x**3))
        else:
            gate = erf(x * np.float32(0.7071067811865476))
        gate += 1
        gate *= x
        gate *= _HALF
        return gate

    def _relative(self) -> Array | None:
        """Return the bias of attention scores, `(heads, tokens, tokens)`, where there is one."""
        if "relative" not in self._weights:
            return None
        # The table is by distance, key minus query, with distance 0 in its middle column.
        bias, tokens = self._weights["relative"], np.arange(self._batch.ids.shape[1])
        return bias[:, bias.shape[1] // 2 + tokens[None, :] - tokens[:, None]]

    def attention(self, query: Array, key: Array, value: Array, heads: int) -> Array:
        def by_head(x: Array) -> Array:  # (texts, tokens, hidden) to (texts, heads, tokens, width)
            return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)

        # Scaling the queries costs less than scaling the scores, of which there are more.
        scaled = query * np.float32((query.shape[-1] // heads) ** -0.5)
        scores: Array = by_head(scaled) @ by_head(key).swapaxes(2, 3)
        if self._bias is not None:
            # With only the first query left, only the first row of the bias applies.
            scores += self._bias[:, :1] if self._asks_first else self._bias
        if self._mask is not None:
            scores += self._mask
        scores -= scores.max(-1, keepdims=True)  # so that exp cannot overflow
        np.exp(scores, out=scores)
        scores /= scores.sum(-1, keepdims=True)
        joined: Array = (scores @ by_head(value)).transpose(0, 2, 1, 3).reshape(query.shape)
        return joined

    def first(self, x: Array) -> Array:
        self._asks_first = True
        return x[:, :1]

    def pool(self, x: Array, mode: str) -> Array:
        # `where` rather than a product with the mask: padding may hold infinities, and inf * 0 is
        # not a number.
        if mode == "max":
            greatest: Array = np.where(self._inside, x, np.float32(-np.inf)).max(1)
            return greatest
        lengths = self._batch.lengths[:, None].astype(np.float32)
        divisor = lengths if mode == "mean" else np.sqrt(lengths)
        pooled: Array = np.where(self._inside, x, np.float32(0)).sum(1) / divisor
        return pooled


def erf(x: Array) -> Array:
    """Return the error function, float32 of the same shape."""
    x = np.clip(x, -4, 4)
    square = x * x
    numerator, denominator = (
        _horner(square, coefficients) for coefficients in (_ERF_NUMERATOR, _ERF_DENOMINATOR)
    )
    numerator *= x
    numerator /= denominator
    return numerator


def _horner(x: Array, coefficients: tuple[float, ...]) -> Array:
    total = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total *= x
        total += np.float32(coefficient)
    return total

"""What follows a transformer in a sequence classifier: from its [CLS] vector to one score.

Owns the classification heads of the four families, as transformers computes them. They work on one
vector for each pair, which costs little, so that NumPy computes them for all runtimes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retriever.encoders.checkpoint.architecture import Architecture
from retriever.encoders.checkpoint.tensors import Tensors
from retriever.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]
    Activation = Callable[[Array], Array]

_MISFIT = (
    "Copy or download the model again, or choose one that was saved as a cross-encoder; its "
    "config.json and weights do not belong together."
)


def _relu(x: Array) -> Array:
    return np.maximum(x, 0)


# By family: the tensors of the inner layer, its activation, and the tensors of the output layer.
_HEADS: dict[str, tuple[str, Activation, str]] = {
    "bert": ("bert.pooler.dense", np.tanh, "classifier"),
    "roberta": ("classifier.dense", np.tanh, "classifier.out_proj"),
    "mpnet": ("classifier.dense", np.tanh, "classifier.out_proj"),
    "distilbert": ("pre_classifier", _relu, "classifier"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A classification head with one output.

    Attributes:
        inner: Weight `(hidden, hidden)` and bias `(hidden,)` of the inner layer, float32.
        activation: Its activation.
        outer: Weight `(1, hidden)` and bias `(1,)` of the output layer, float32.
    """

    inner: tuple[Array, Array]
    activation: Activation
    outer: tuple[Array, Array]

    def logits(self, vectors: Array) -> Array:
        """Return one number for each [CLS] vector `(n, hidden)`, float32 `(n,)`."""
        weight, bias = self.inner
        states = self.activation(vectors @ weight.T + bias)
        weight, bias = self.outer
        found: Array = states @ weight[0] + bias[0]
        return found


def read_head(architecture: Architecture, folder: Path, name: str) -> Head:
    """Map a head's weights, after checking that every tensor exists and has its shape.

    Args:
        architecture: The transformer's.
        folder: The directory of its weights.
        name: The model's, for messages.

    Raises:
        ModelError: A tensor is missing or has another shape; names it.
        ModelUnavailable, UnsafeModelFile: As `Tensors`.
    """
    tensors = Tensors(folder)
    inner, activation, outer = _HEADS[architecture.family]
    hidden = architecture.hidden

    def layer(stem: str, rows: int) -> tuple[Array, Array]:
        found = []
        for tensor, shape in ((f"{stem}.weight", (rows, hidden)), (f"{stem}.bias", (rows,))):
            if tensor not in tensors:
                raise ModelError(
                    f"The weights of {name!r} in {folder} lack the tensor {tensor!r} of a "
                    "cross-encoder's head.",
                    hint=_MISFIT,
                )
            if tensors[tensor].shape != shape:
                raise ModelError(
                    f"The tensor {tensor!r} of {name!r} has the shape {tensors[tensor].shape}; a "
                    f"cross-encoder with one score needs {shape}.",
                    hint=_MISFIT,
                )
            found.append(tensors[tensor])
        return found[0], found[1]

    return Head(layer(inner, hidden), activation, layer(outer, 1))

"""What follows a transformer in a bi-encoder: pooling modes and dense layers.

Owns the meaning of sentence-transformers' modules after the transformer. The layers after pooling
work on one vector for each text, which costs little, so that NumPy computes them for all runtimes.

To add a pooling mode, name it in `POOLING_MODES` of `transformer.py` and compute it in `pool` of
each runtime's `Operations`. `checkpoint/bi_encoder.py` already reads the names of all modes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retriever.encoders.checkpoint.architecture import UnsupportedModel
from retriever.encoders.checkpoint.json_files import read_config
from retriever.encoders.checkpoint.modules import Module, modules_after_pooling
from retriever.encoders.checkpoint.resolve import ModelDescription
from retriever.encoders.checkpoint.tensors import Tensors
from retriever.encoders.forward.transformer import POOLING_MODES
from retriever.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]
    Step = Callable[[Array], Array]

_ACTIVATIONS: dict[str, Step] = {
    "Identity": lambda x: x,
    "Tanh": np.tanh,
    "ReLU": lambda x: np.maximum(x, 0),
}
_EPSILON = 1e-5  # of torch.nn.LayerNorm
_SHORTEST = 1e-12  # as torch.nn.functional.normalize, so that a zero vector stays zero


@dataclass(frozen=True, slots=True)
class Pooling:
    """The pooling modes of a bi-encoder, and what makes its embeddings of the pooled vectors.

    Attributes:
        modes: The pooling modes that a runtime computes; their vectors stand side by side.
        steps: The layers that the pooled vectors go through, in order.
        dimension: How many numbers of a vector are kept, from its start.
    """

    modes: tuple[str, ...]
    steps: tuple[Step, ...]
    dimension: int

    def apply(self, pooled: Array) -> Array:
        """Return the embeddings, float32 `(n, dimension)`, not of unit length.

        Args:
            pooled: What a runtime returned, float32 `(n, len(modes) * hidden)`.
        """
        for step in self.steps:
            pooled = step(pooled)
        return pooled[:, : self.dimension]


def read_pooling(description: ModelDescription) -> Pooling:
    """Return what follows the transformer of a model.

    Raises:
        UnsupportedModel: It has a module, a setting or a pooling mode that only the reference has.
        ModelError: The weights of a module are damaged.
    """
    pooling, _, scope = str(description.identity["pooling"]).partition(",")
    # Without a prompt there is nothing to leave out, and the scope changes no vector.
    if scope and any(description.prompts.values()):
        raise UnsupportedModel("its pooling leaves the prompt out")
    modes = tuple(pooling.split("+"))
    unknown = [mode for mode in modes if mode not in POOLING_MODES]
    if unknown:
        raise UnsupportedModel(f"its pooling is {unknown[0]!r}")
    modules = modules_after_pooling(description.path)
    # Dropout does nothing outside of training.
    steps = tuple(_step(module) for module in modules if module.kind != "Dropout")
    return Pooling(modes, steps, description.dimension)


def _step(module: Module) -> Step:
    if module.kind == "Normalize":
        return _unit
    if module.kind == "Dense":
        return _dense(module.folder)
    if module.kind == "LayerNorm":
        tensors = Tensors(module.folder)
        weight, bias = (_tensor(tensors, f"norm.{part}", module) for part in ("weight", "bias"))
        return partial(_norm, weight=weight, bias=bias)
    raise UnsupportedModel(f"it has a {module.kind} module")


def _dense(folder: Path) -> Step:
    config = read_config(folder)
    # Tanh is what sentence-transformers takes if the file names none.
    name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = _ACTIVATIONS.get(name.rpartition(".")[2])
    if activation is None or not name.startswith("torch.nn."):
        raise UnsupportedModel(f"the activation of its Dense module is {name!r}")
    ends = {config.get(f"module_{end}_name") for end in ("input", "output")}
    if config.get("use_residual") or not ends <= {None, "sentence_embedding"}:
        raise UnsupportedModel("its Dense module is not a plain projection")
    module = Module("Dense", folder)
    tensors = Tensors(folder)
    weight = _tensor(tensors, "linear.weight", module)
    bias = _tensor(tensors, "linear.bias", module) if config.get("bias", True) else np.float32(0)
    return lambda x: activation(x @ weight.T + bias)


def _tensor(tensors: Tensors, name: str, module: Module) -> Array:
    if name not in tensors:
        raise ModelError(
            f"The weights of the {module.kind} module in {module.folder} lack {name!r}.",
            hint="Copy or download the model again, completely.",
        )
    return tensors[name]


def _norm(x: Array, *, weight: Array, bias: Array) -> Array:
    x = x - x.mean(1, keepdims=True)
    scaled: Array = x / np.sqrt(np.square(x).mean(1, keepdims=True) + np.float32(_EPSILON))
    return scaled * weight + bias


def _unit(x: Array) -> Array:
    lengths: Array = np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(_SHORTEST))
    return x / lengths

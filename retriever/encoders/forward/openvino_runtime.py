"""The network in OpenVINO: the fastest runtime of a CPU, once it has compiled the network.

Owns the openvino package: no other module imports it. The graph is built from the mapped weights;
nothing is exported, converted or downloaded.
"""

from __future__ import annotations

import sys
import threading
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever import deadlines
from retriever.encoders.computing import AUTO, resolve_precision
from retriever.encoders.forward.batching import Sequences, pad, plan
from retriever.encoders.forward.transformer import Network, check_rows, outputs
from retriever.errors import MissingDependency, ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

_BUDGET = 1024  # tokens a batch: its activations still fit the second-level cache
_MULTIPLE = 8  # widths are rounded up to it, because every new shape costs some 5 ms
_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_TELEMETRY = "openvino_telemetry"
_ABSENT = object()
_LARGEST = 127  # of int8, in either direction, so that the scale is symmetric


class OpenVinoRuntime:
    """Computes a network on the CPU; a `Runtime`. Safe to use from several threads.

    It is compiled at the first use, which takes .3 s.

    Args:
        network: What to compute; its weights are used where they are mapped, not copied.
        precision: `float32`, `bfloat16` or `int8`. With int8, weights have one scale for each row,
            activations are quantised as they are computed, one scale for each `hidden` numbers,
            and everything but the matrix products is in the precision that `auto` means.
        threads: The most threads.
    """

    def __init__(self, network: Network, *, precision: str, threads: int) -> None:
        """Take a network."""
        self.precision = precision
        self._network = network
        self._threads = threads
        self._compiled: dict[tuple[str, ...], Any] = {}
        self._lock = threading.Lock()

    def pooled(self, sequences: Sequences, modes: tuple[str, ...]) -> Array:
        """Return the pooled vectors, float32 `(n, len(modes) * hidden)`, in order."""
        hidden = self._network.architecture.hidden
        found = np.empty((len(sequences), len(modes) * hidden), np.float32)
        for members, parts in self._batches(sequences, modes):
            for column, part in enumerate(parts):
                found[members, column * hidden : (column + 1) * hidden] = part.reshape(-1, hidden)
        return found

    def token_vectors(self, sequences: Sequences) -> list[Array]:
        """Return the vectors of each text's tokens, float32 `(tokens, hidden)`."""
        found: list[Array] = [np.empty(0, np.float32)] * len(sequences)
        for members, (states,) in self._batches(sequences, ()):
            for row, member in enumerate(members):
                found[member] = states[row, : len(sequences.ids[member])].copy()
        return found

    def _batches(self, sequences: Sequences, modes: tuple[str, ...]) -> Any:
        shape = self._network.architecture
        # A request computes one batch at a time, and all threads share it. The lock is held until
        # the caller has taken the last batch.
        with deadlines.holding(self._lock):
            request = self._compile(modes)
            for members in plan(sequences.lengths, _BUDGET, _MULTIPLE):
                deadlines.check()
                batch = pad(
                    sequences,
                    members,
                    multiple=_MULTIPLE,
                    longest=shape.window,
                    padding=shape.padding,
                )
                check_rows(self._network, batch.ids, batch.positions, batch.types)
                inputs = [batch.ids, batch.positions, batch.lengths]
                if shape.types:
                    inputs.append(batch.types)
                found = self._infer(request, inputs)
                yield members, [found[index] for index in range(max(1, len(modes)))]

    def _infer(self, request: Any, inputs: list[Any]) -> Any:
        try:
            return request.infer(dict(enumerate(inputs)), share_inputs=True)
        except (RuntimeError, MemoryError) as error:
            raise ModelError(
                f"OpenVINO failed on {len(inputs[0]):,} texts of {inputs[0].shape[1]:,} tokens of "
                f"{self._network.name!r}: {error}",
                hint="If memory ran out, free some; else another version of openvino may help.",
            ) from error

    def _compile(self, modes: tuple[str, ...]) -> Any:
        if modes not in self._compiled:
            is_int8 = self.precision == "int8"
            floats = resolve_precision(AUTO) if is_int8 else self.precision
            group = self._network.architecture.hidden if is_int8 else 0
            config = {
                "INFERENCE_PRECISION_HINT": _HINTS[floats],
                "DYNAMIC_QUANTIZATION_GROUP_SIZE": group,
                "INFERENCE_NUM_THREADS": self._threads,
                "NUM_STREAMS": 1,
                # With pinning, the threads of two processes are put on the same cores.
                "ENABLE_CPU_PINNING": False,
            }
            graph = _Graph(self._network, is_int8=is_int8).model(modes)
            try:
                compiled = _core().compile_model(graph, "CPU", config)
            except RuntimeError as error:
                raise ModelError(
                    f"OpenVINO cannot compile {self._network.name!r}: {error}",
                    hint="Another version of openvino may.",
                ) from error
            self._compiled[modes] = compiled.create_infer_request()
        return self._compiled[modes]


@cache
def _core() -> Any:
    return _openvino().Core()


@cache
def _openvino() -> Any:
    """Import openvino without its telemetry, which reports every import over the network.

    openvino takes a stub if its telemetry package cannot be imported, and None in `sys.modules`
    makes an import fail.
    """
    known = sys.modules.get(_TELEMETRY, _ABSENT)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino
        from openvino import opset13  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            f"Fast encoding needs openvino: {error}.",
            extra="openvino",
            hint="`pip install openvino`.",
        ) from error
    finally:
        if known is _ABSENT:
            del sys.modules[_TELEMETRY]
        else:
            sys.modules[_TELEMETRY] = known  # type: ignore[assignment]
    return openvino


class _Graph:
    """`Operations` that build an OpenVINO graph over tensors `(texts, tokens, hidden)`."""

    def __init__(self, network: Network, *, is_int8: bool) -> None:
        openvino = _openvino()
        opset13 = openvino.opset13

        self._network = network
        self._is_int8 = is_int8
        self._op: Any = opset13
        self._openvino: Any = openvino
        # -1 is a size that only the batch will tell, so that one graph serves all shapes.
        op, any_batch = opset13, openvino.PartialShape([-1, -1])
        self._ids = op.parameter(any_batch, np.int32, name="ids")
        self._positions = op.parameter(any_batch, np.int32, name="positions")
        self._types = op.parameter(any_batch, np.int32, name="types")
        self._lengths = op.parameter(openvino.PartialShape([-1]), np.int32, name="lengths")
        self._tokens = op.gather(op.shape_of(self._ids, "i32"), _int(1), _int(0))
        self._columns = op.range(_int(0), self._tokens, _int(1), "i32")
        inside = op.less(op.unsqueeze(self._columns, _int(0)), op.unsqueeze(self._lengths, _int(1)))
        self._inside = op.unsqueeze(inside, _int(2))
        # Added to attention scores: 0 for a token, the lowest float for padding, whose weight the
        # softmax then makes 0. It broadcasts over heads and queries: (texts, 1, 1, tokens).
        lowest = np.float32(np.finfo(np.float32).min)
        mask = op.select(inside, op.constant(np.float32(0)), op.constant(lowest))
        self._mask = op.unsqueeze(mask, op.constant(np.array([1, 2], np.int32)))
        self._bias = self._relative()
        self._asks_first = False

    def model(self, modes: tuple[str, ...]) -> Any:
        """Return the graph with one output for each pooling mode, or that of all tokens."""
        found = outputs(self._network, self, modes)
        inputs = [self._ids, self._positions, self._lengths]
        if self._network.architecture.types:
            inputs.append(self._types)
        return self._openvino.Model([self._op.result(one) for one in found], inputs, "encoder")

    def _constant(self, array: Array) -> Any:
        """Return a constant that shares the memory of an array, which the network keeps alive."""
        if array.flags.writeable and array.flags.c_contiguous:
            return self._op.constant(array, shared_memory=True)
        return self._op.constant(array)

    def embeddings(self) -> Any:
        op, weights = self._op, self._network.weights
        x = op.add(
            op.gather(self._constant(weights["words"]), self._ids, _int(0)),
            op.gather(self._constant(weights["positions"]), self._positions, _int(0)),
        )
        if "types" not in weights:
            return x
        return op.add(x, op.gather(self._constant(weights["types"]), self._types, _int(0)))

    def linear(self, x: Any, name: str) -> Any:
        weight, bias = self._weight_and_bias(name)
        if self._is_int8:
            weight = self._quantised(name)
        return self._op.add(self._op.matmul(x, weight, False, True), bias)

    def _quantised(self, name: str) -> Any:
        """Return a weight as int8 times a scale for each row.

        OpenVINO recognises this pattern and computes the product with int8 instructions.
        """
        op, weight = self._op, self._network.weights[f"{name}.weight"]
        largest = np.abs(weight).max(1, keepdims=True)
        scale = np.where(largest == 0, 1, largest).astype(np.float32) / np.float32(_LARGEST)
        whole = op.constant(np.round(weight / scale).astype(np.int8))
        return op.multiply(op.convert(whole, "f32"), op.constant(scale))

    def projections(self, asking: Any, x: Any, layer: int) -> tuple[Any, Any, Any]:
        return (
            self.linear(asking, f"{layer}.query"),
            self.linear(x, f"{layer}.key"),
            self.linear(x, f"{layer}.value"),
        )

    def norm(self, x: Any, name: str, epsilon: float) -> Any:
        op = self._op
        weight, bias = self._weight_and_bias(name)
        scaled = op.mvn(x, op.constant(np.array([-1])), True, epsilon, "inside_sqrt")
        return op.add(op.multiply(scaled, weight), bias)

    def _weight_and_bias(self, name: str) -> tuple[Any, Any]:
        weights = self._network.weights
        return self._constant(weights[f"{name}.weight"]), self._constant(weights[f"{name}.bias"])

    def add(self, x: Any, y: Any) -> Any:
        return self._op.add(x, y)

    def activation(self, x: Any, kind: str) -> Any:
        if kind == "relu":
            return self._op.relu(x)
        return self._op.gelu(x, "tanh" if kind == "gelu_tanh" else "erf")

    def _relative(self) -> Any:
        """Return the bias of attention scores, `(1, heads, tokens, tokens)`, where there is one."""
        if "relative" not in self._network.weights:
            return None
        op, bias = self._op, self._network.weights["relative"]
        distance = op.subtract(
            op.unsqueeze(self._columns, _int(0)), op.unsqueeze(self._columns, _int(1))
        )
        column = op.add(distance, _int(bias.shape[1] // 2))
        return op.unsqueeze(op.gather(op.constant(bias), column, _int(1)), _int(0))

    def attention(self, query: Any, key: Any, value: Any, heads: int) -> Any:
        op = self._op
        width = self._network.architecture.hidden // heads
        # With `special_zero`, a 0 in a shape keeps the size of that axis, known or not.
        split = op.constant(np.array([0, 0, heads, width], np.int32))
        swap = op.constant(np.array([0, 2, 1, 3], np.int32))

        def by_head(x: Any) -> Any:  # (texts, tokens, hidden) to (texts, heads, tokens, width)
            return op.transpose(op.reshape(x, split, special_zero=True), swap)

        mask = self._mask
        if self._bias is not None:
            bias = self._bias
            if self._asks_first:  # the only query left is the first: its row of the bias
                bias = op.gather(bias, op.constant(np.array([0], np.int32)), _int(2))
            mask = op.add(mask, bias)
        found = op.scaled_dot_product_attention(by_head(query), by_head(key), by_head(value), mask)
        joined = op.constant(np.array([0, 0, heads * width], np.int32))
        return op.reshape(op.transpose(found, swap), joined, special_zero=True)

    def first(self, x: Any) -> Any:
        self._asks_first = True
        return self._op.gather(x, self._op.constant(np.array([0], np.int32)), _int(1))

    def pool(self, x: Any, mode: str) -> Any:
        op = self._op
        if mode == "max":
            least = op.constant(np.float32(-np.inf))
            return op.reduce_max(op.select(self._inside, x, least), _int(1))
        total = op.reduce_sum(op.select(self._inside, x, op.constant(np.float32(0))), _int(1))
        lengths = op.unsqueeze(op.convert(self._lengths, "f32"), _int(1))
        return op.divide(total, lengths if mode == "mean" else op.sqrt(lengths))


def _int(value: int) -> Any:
    return _openvino().opset13.constant(np.int32(value))

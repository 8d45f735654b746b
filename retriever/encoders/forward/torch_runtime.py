"""The network in torch, for a GPU: no padding between texts, half precision, large batches.

Owns the device, its memory, and the copies to it and back. The device is kept busy: several batches
are started before the result of the first is waited for. Must not know how a network is computed;
`torch_forward.py` does.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever import deadlines
from retriever.encoders.environment import find_device
from retriever.encoders.forward.batching import Packed, Sequences, TokenBudget, pack
from retriever.encoders.forward.torch_forward import Weights, choose_attention, current, forward
from retriever.encoders.forward.transformer import Network, check_rows
from retriever.errors import InvalidConfig, ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

_log = logging.getLogger("retriever")
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_MOST = 65_536  # tokens a batch on a GPU
_MOST_ELSEWHERE = 4_096
_SHARE = 0.5  # of the free memory, the part that the activations of a batch may take
_IN_FLIGHT = 4  # batches that are started before the result of the first is waited for
_EXHAUSTED = ("out of memory", "alloc_failed", "can't allocate memory")


class TorchRuntime:
    """Computes a network on a device of torch; a `Runtime`. Safe to use from several threads.

    Args:
        network: What to compute; its weights are copied to the device when this is made.
        precision: `float16`, `bfloat16` or `float32`.
        device: `cuda`, `cuda:1`, `cpu` or any other that torch has.
        budget: The most tokens of a batch; None chooses by the free memory. It is halved for good
            when memory runs out.

    Raises:
        InvalidConfig: The device does not exist or is not known, or the precision is none of these.
        MissingDependency: torch is not installed.
        ModelError: The weights do not fit the device.
    """

    def __init__(
        self, network: Network, *, precision: str, device: str, budget: int | None = None
    ) -> None:
        """Copy the weights to the device, and choose its attention kernel."""
        if precision not in _BYTES:
            raise InvalidConfig(f"precision is {precision!r}.", hint=f"Choose {', '.join(_BYTES)}.")
        self.precision = precision
        self._network = network
        self._device = find_device(device)
        import torch

        self._torch: Any = torch
        self._lock = threading.Lock()
        try:
            if self._device.type == "cuda" and self._device.index is None:
                # What "cuda" means is another GPU in a thread that chose another.
                self._device = torch.device("cuda", torch.cuda.current_device())
            self._weights = Weights(self._torch, network, precision, self._device)
            self._attention = choose_attention(self._torch, network, self._weights)
            budget = budget or self._tokens_that_fit()
        except RuntimeError as error:
            raise self._failed(error) from error
        self._budget = TokenBudget(budget, is_exhausted=is_exhausted, relieve=self._relieve)

    @property
    def device(self) -> str:
        """Return the device's name in torch and, for a GPU, its model."""
        if self._device.type != "cuda":
            return str(self._device)
        return f"{self._device} {self._torch.cuda.get_device_name(self._device)}"

    @property
    def budget(self) -> int:
        """Return the most tokens of a batch, as it is now."""
        return self._budget.tokens

    @property
    def attention(self) -> str:
        """Return the name of the attention used: `packed`, `padded` or `plain`."""
        return self._attention.name

    def pooled(self, sequences: Sequences, modes: tuple[str, ...]) -> Array:
        """Return the pooled vectors, float32 `(n, len(modes) * hidden)`, in order.

        Raises:
            ModelError: A single text is more than the memory holds, or torch fails.
        """
        hidden = self._network.architecture.hidden
        found = np.empty((len(sequences), len(modes) * hidden), np.float32)
        for members, vectors in self._computed(sequences, modes):
            found[members] = vectors
        return found

    def token_vectors(self, sequences: Sequences) -> list[Array]:
        """Return the vectors of each text's tokens, float32 `(tokens, hidden)`.

        Raises:
            ModelError: As `pooled`.
        """
        found: list[Array] = [np.empty(0, np.float32)] * len(sequences)
        for members, vectors in self._computed(sequences, ()):
            ends = np.cumsum([len(sequences.ids[member]) for member in members])
            for member, states in zip(members, np.split(vectors, ends[:-1]), strict=True):
                found[member] = states.copy()
        return found

    def _computed(
        self, sequences: Sequences, modes: tuple[str, ...]
    ) -> Iterator[tuple[NDArray[np.int64], Array]]:
        """Yield batches and their results; each is waited for after later ones were started."""

        def compute(members: NDArray[np.int64]) -> Callable[[], Array]:
            return self._start(pack(sequences, members, padding=padding), modes)

        padding = self._network.architecture.padding
        waiting: deque[tuple[NDArray[np.int64], Callable[[], Array]]] = deque()
        with deadlines.holding(self._lock):
            try:
                for batch in self._budget.batches(sequences.lengths, compute):
                    waiting.append(batch)
                    if len(waiting) > _IN_FLIGHT:
                        members, result = waiting.popleft()
                        yield members, result()
                for members, result in waiting:
                    yield members, result()
            except RuntimeError as error:
                raise self._failed(error) from error

    def _start(self, packed: Packed, modes: tuple[str, ...]) -> Callable[[], Array]:
        """Start a batch; return a function that waits for its result."""
        types = np.zeros(1, np.int32) if packed.types is None else packed.types
        check_rows(self._network, packed.ids, packed.positions, types)
        torch = self._torch
        with torch.inference_mode(), current(torch, self._device):
            found = forward(torch, self._network, self._weights, self._attention, packed, modes)
            return _fetch(torch, found)

    def _tokens_that_fit(self) -> int:
        """Return a budget with which the activations of the largest batch fit the free memory."""
        if self._device.type != "cuda":
            return _MOST_ELSEWHERE
        shape = self._network.architecture
        # Numbers that are alive at once for each token: the states, projections and feed-forward of
        # one layer; attention that pads copies some, and holds the mask or the bias.
        free, _ = self._torch.cuda.mem_get_info(self._device)
        numbers = 12 * shape.hidden + 3 * shape.intermediate
        if self._attention.pads:
            numbers += 8 * shape.hidden + 2 * shape.window * (shape.heads if shape.buckets else 1)
        fitting = int(free * _SHARE) // (numbers * _BYTES[self.precision])
        return max(shape.window, min(fitting, _MOST))

    def _relieve(self) -> None:
        if self._device.type == "cuda":
            self._torch.cuda.empty_cache()
        _log.info(
            "Memory of %s ran out; batches are of %d tokens from now on.",
            self._device,
            self._budget.tokens,
        )

    def _failed(self, error: RuntimeError) -> ModelError:
        return ModelError(
            f"torch cannot compute {self._network.name!r} on {self._device}: {error}",
            hint="Encode on the CPU: `device='cpu'`.",
        )


def is_exhausted(error: BaseException) -> bool:
    """Return whether an error means that memory ran out.

    torch has a class for that; the libraries that it calls only say so in their messages.
    """
    said = str(error).lower()
    return type(error).__name__ == "OutOfMemoryError" or any(sign in said for sign in _EXHAUSTED)


def _fetch(torch: Any, x: Any) -> Callable[[], Array]:
    """Start copying a result to the host; return a function that waits for it, float32."""
    if not x.is_cuda:
        found: Array = x.float().cpu().numpy()
        return lambda: found
    host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    host.copy_(x, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()

    def wait() -> Array:
        arrived.synchronize()
        result: Array = host.float().numpy()
        return result

    return wait

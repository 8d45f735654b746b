"""Which runtime computes a network, and whether its numbers are to be believed.

Owns the choice between a GPU, NumPy, which starts at once, and OpenVINO, which is several times
faster once it has been compiled, and the check of each against NumPy. Must not know texts.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from retriever.encoders.computing import Computing
from retriever.encoders.devices import graphics
from retriever.encoders.forward.batching import Sequences
from retriever.encoders.forward.numpy_runtime import NumpyRuntime
from retriever.encoders.forward.transformer import Network
from retriever.encoders.precision import LEAST_COSINE, processor
from retriever.encoders.user_cache import recall, remember
from retriever.encoders.versions import version
from retriever.errors import InvalidConfig, MissingDependency, ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_log = logging.getLogger("retriever")
# NumPy takes some 9 ms a question where OpenVINO takes 2, but .3 s to load and compile: after about
# this many tokens as much has been spent as would have been (the ski-rental rule).
_PATIENCE = 384


class Runtime(Protocol):
    """Computes a network's outputs for any number of sequences, in their order."""

    @property
    def precision(self) -> str:
        """Return what it computes in."""
        ...

    def pooled(self, sequences: Sequences, modes: tuple[str, ...]) -> NDArray[np.float32]:
        """Return the pooled vectors, float32 `(n, len(modes) * hidden)`.

        Args:
            sequences: Texts or pairs, each of at least one token and within the window.
            modes: Of `network.POOLING_MODES`; `("cls",)` alone spares most of the last layer.
        """
        ...

    def token_vectors(self, sequences: Sequences) -> list[NDArray[np.float32]]:
        """Return the vectors of each text's tokens, float32 `(tokens, hidden)`."""
        ...


def choose_runtime(
    network: Network,
    exact: NumpyRuntime,
    *,
    computing: Computing,
    key: str,
    probes: Callable[[], Sequences],
    modes: tuple[str, ...],
    is_mixed: bool = False,
) -> Runtime:
    """Return what computes a network on the CPU or on a GPU; the weights stay mapped on a CPU.

    A GPU that was not named gives way to the CPU where it fails or is not to be believed; the log
    says so.

    Args:
        network: What to compute.
        exact: NumPy's runtime of it.
        computing: Where and in which numbers.
        key: Names the weights and everything else that the network was made from.
        probes: Gives the sequences to compare on.
        modes: The pooling modes to compare.
        is_mixed: As `CpuRuntime`.

    Raises:
        InvalidConfig, MissingDependency: As `devices.gpu`.
        ModelError: A GPU was named, or float16, and it fails or is not to be believed.
    """
    comparison = _Comparison(exact, key, probes, network.name)
    if computing.gpu is not None:
        try:
            return _on_gpu(computing.gpu, computing.precision, network, comparison, modes)
        except (ModelError, InvalidConfig, MissingDependency) as error:
            if computing.names_gpu:
                raise
            computing = computing.on_cpu()
            _log.warning("%s The CPU computes it instead, slower.", error.message)
    return CpuRuntime(network, computing, comparison, is_mixed=is_mixed)


class _Comparison(NamedTuple):
    """What another runtime's vectors are held against: NumPy's of a few probes."""

    exact: NumpyRuntime
    key: str
    probes: Callable[[], Sequences]
    model: str

    def passes(self, fast: Runtime, modes: tuple[str, ...], *where: str) -> bool:
        """Return whether the vectors are the same, as near as the precision allows; remembered.

        Args:
            fast: The other runtime.
            modes: The pooling modes to compare; none compares the vectors of tokens.
            where: What `fast` is and runs on, its name first.
        """
        name = " ".join((self.key, *where, fast.precision, *modes))
        cosine = recall("runtimes", name)
        if not isinstance(cosine, float):
            sequences = self.probes()
            cosine = least_cosine(
                _vectors(self.exact, sequences, modes), _vectors(fast, sequences, modes)
            )
            remember("runtimes", name, cosine)
            _log.info(
                "%s by %s in %s: the lowest cosine of %d texts to NumPy's is %.6f.",
                self.model,
                where[0],
                fast.precision,
                len(sequences),
                cosine,
            )
        least = LEAST_COSINE[fast.precision]
        if cosine < least:
            _log.warning(
                "The %s vectors of %s by %s have a cosine of %.6f to NumPy's, under %s.",
                fast.precision,
                self.model,
                where[0],
                cosine,
                least,
            )
        return cosine >= least


def _on_gpu(
    gpu: str, wanted: str, network: Network, comparison: _Comparison, modes: tuple[str, ...]
) -> Runtime:
    """Return a GPU's runtime in the precision wanted or in float32, where it is believed.

    That is found out once for each combination of weights, pooling, torch, precision, device,
    driver and kinds of GPU.
    """
    from retriever.encoders.forward.torch_runtime import TorchRuntime

    for precision in dict.fromkeys((wanted, "float32")):
        fast = TorchRuntime(network, precision=precision, device=gpu)
        if comparison.passes(fast, modes, "torch", version("torch"), fast.device, graphics()):
            return fast
    raise ModelError(
        f"The vectors of {network.name!r} on {gpu} are not those that NumPy computes.",
        hint="Encode on the CPU (`device='cpu'`); another version of torch may help.",
    )


class CpuRuntime:
    """NumPy for the first few texts of a process, OpenVINO from then on; a `Runtime`.

    NumPy computes in float32. Where that is not what was asked for it is not begun with, unless
    `is_mixed`: the same text would be given two vectors.

    OpenVINO is believed after its vectors of a few probes were compared with NumPy's, once for
    each combination of weights, pooling, version, precision and processor; else it is tried in
    float32. Where it is missing, fails or is not to be believed, NumPy goes on. The log says so.

    Args:
        network: What to compute.
        computing: In which numbers, and on how many threads.
        comparison: With NumPy's runtime, which is also the one to begin with.
        is_mixed: Whether the first few texts may be computed in float32, whatever the precision;
            not so where one was named.
    """

    def __init__(
        self,
        network: Network,
        computing: Computing,
        comparison: _Comparison,
        *,
        is_mixed: bool = False,
    ) -> None:
        """Take a network; nothing is loaded."""
        self.precision = self._wanted = computing.precision
        self._network = network
        self._computing = computing
        self._comparison = comparison
        self._threads = computing.threads or default_threads()
        self._numpy = comparison.exact
        self._chosen: dict[tuple[str, ...], Runtime] = {}
        self._loaded: dict[str, Runtime] = {}
        is_patient = self._wanted == "float32" or (is_mixed and not computing.names_precision)
        self._patience = _PATIENCE if is_patient else 0
        self._lock = threading.Lock()

    def pooled(self, sequences: Sequences, modes: tuple[str, ...]) -> NDArray[np.float32]:
        """Return the pooled vectors; see `Runtime`."""
        return self._for(sequences, modes).pooled(sequences, modes)

    def token_vectors(self, sequences: Sequences) -> list[NDArray[np.float32]]:
        """Return the vectors of each text's tokens; see `Runtime`."""
        return self._for(sequences, ()).token_vectors(sequences)

    def for_questions(self) -> CpuRuntime:
        """Return what computes questions: float32 throughout, unless another one was named.

        A question is asked again and again, in processes that have just begun and in others. Its
        vector must not depend on that, and NumPy, which alone starts at once, has no other
        precision.
        """
        if self._computing.names_precision or self._wanted == "float32":
            return self
        return CpuRuntime(self._network, self._computing.in_float32(), self._comparison)

    def settle(self) -> None:
        """Leave nothing to NumPy any more that OpenVINO can compute."""
        with self._lock:
            self._patience = -1

    def _for(self, sequences: Sequences, modes: tuple[str, ...]) -> Runtime:
        with self._lock:
            if modes not in self._chosen:
                self._patience -= int(sequences.lengths.sum())
                if self._patience >= 0:
                    return self._numpy
                self._chosen[modes] = self._choose(modes)
            return self._chosen[modes]

    def _choose(self, modes: tuple[str, ...]) -> Runtime:
        """Return OpenVINO in the precision asked for or in float32, where it is believed."""
        for precision in dict.fromkeys((self._wanted, "float32")):
            try:
                fast = self._openvino(precision)
                # Each combination of modes has a graph of its own.
                if self._comparison.passes(
                    fast, modes, "openvino", version("openvino"), processor()
                ):
                    self._tell(precision, modes)
                    return fast
            except (MissingDependency, ModelError) as error:
                _log.warning("%s", error)
                break
        _log.warning("NumPy computes %s in float32, slower.", self._network.name)
        self._tell("float32", modes)
        return self._numpy

    def _tell(self, precision: str, modes: tuple[str, ...]) -> None:
        """Have `precision` say what pooled vectors are computed in; token vectors may differ."""
        if modes:
            self.precision = precision

    def _openvino(self, precision: str) -> Runtime:
        from retriever.encoders.forward.openvino_runtime import OpenVinoRuntime

        if precision not in self._loaded:
            self._loaded[precision] = OpenVinoRuntime(
                self._network, precision=precision, threads=self._threads
            )
        return self._loaded[precision]


def _vectors(runtime: Runtime, sequences: Sequences, modes: tuple[str, ...]) -> NDArray[np.float32]:
    """Return what is compared, a vector in each row: a pooled one, or that of a token."""
    if not modes:
        return np.concatenate(runtime.token_vectors(sequences))
    return runtime.pooled(sequences, modes).reshape(len(modes) * len(sequences), -1)


def least_cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the lowest cosine similarity between rows of two arrays; -1 for what is not finite."""
    left, right = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = np.sum(left * right, axis=1) / lengths
    return float(np.min(np.where(np.isfinite(cosines), cosines, -1.0), initial=1.0))


def default_threads() -> int:
    """Return `OMP_NUM_THREADS`, which users cap computing with, or the cores of this process."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted):
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

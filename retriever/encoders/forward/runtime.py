"""Which runtimes compute a network: NumPy, OpenVINO or torch on a GPU, and on what condition.

Owns the choice for every model of this package, bi-encoders and cross-encoders alike, and the check
of each runtime against NumPy's float32. Must not know texts or models.

- **NumPy** starts at once, needs no further package, and is what the others are compared with.
- **OpenVINO** is several times faster once it has compiled the network, which takes .3 s.
- **torch** is used on GPUs only.

To add a runtime, write a `Runtime` in a module of its own and choose it here; `Operations` of
`transformer.py` are all that it has to supply for every architecture to be computed by it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from retriever.encoders.acceptance import compare_once, least_cosine
from retriever.encoders.computing import LEAST_COSINE, Computing
from retriever.encoders.environment import graphics, processor, version
from retriever.encoders.forward.batching import Sequences
from retriever.encoders.forward.numpy_runtime import NumpyRuntime
from retriever.encoders.forward.transformer import Network
from retriever.errors import InvalidConfig, MissingDependency, ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_log = logging.getLogger("retriever")
# NumPy takes some 9 ms for a query where OpenVINO takes 2, but OpenVINO takes .3 s to be loaded and
# to compile. After about this many tokens NumPy has cost as much as OpenVINO would have; to switch
# then is never worse than twice the best choice in hindsight (the ski-rental rule).
_PATIENCE = 384


class Runtime(Protocol):
    """Computes a network's outputs for any number of sequences, in their order."""

    @property
    def precision(self) -> str:
        """Return the precision that it computes in."""
        ...

    def pooled(self, sequences: Sequences, modes: tuple[str, ...]) -> NDArray[np.float32]:
        """Return the pooled vectors, float32 `(n, len(modes) * hidden)`.

        Args:
            sequences: Texts or pairs, each of at least one token and within the window.
            modes: Of `transformer.POOLING_MODES`; with `("cls",)` alone most of the last layer need
                not be computed.
        """
        ...

    def token_vectors(self, sequences: Sequences) -> list[NDArray[np.float32]]:
        """Return the vectors of each text's tokens, float32 `(tokens, hidden)`."""
        ...


class Runtimes:
    """The runtimes of one network on this machine.

    If a GPU that the caller did not name fails, or if its vectors differ from those of NumPy, the
    CPU is used instead, and the log says so.

    Args:
        network: What to compute; its weights stay mapped where a CPU computes it.
        computing: Where and in which precision.
        probes: Returns the sequences that runtimes are compared on; called only if no outcome is
            remembered.
        modes: The pooling modes that the model uses.
        warms_up: As `CpuRuntime`.

    Attributes:
        exact: Computes in float32, by NumPy on the CPU, whatever was asked for.
        bulk: Computes as it was asked for.
        queries: As `bulk`; on a CPU in float32, unless another precision was named.

    Raises:
        InvalidConfig, MissingDependency: As `environment.gpu`.
        ModelError: A GPU was named, or float16, and it fails or its vectors are not NumPy's.
    """

    def __init__(
        self,
        network: Network,
        computing: Computing,
        *,
        probes: Callable[[], Sequences],
        modes: tuple[str, ...],
        warms_up: bool = False,
    ) -> None:
        """Choose. A GPU is given the weights and compared at once; a CPU loads nothing yet."""
        self.exact = NumpyRuntime(network, computing.threads)
        yardstick = _Yardstick(self.exact, network, probes)
        self.bulk = _choose(network, computing, yardstick, modes, warms_up=warms_up)
        self.queries = self.bulk.for_queries() if isinstance(self.bulk, CpuRuntime) else self.bulk

    @property
    def is_on_cpu(self) -> bool:
        """Return whether a CPU computes it, also because a GPU gave way."""
        return isinstance(self.bulk, CpuRuntime)

    def end_warm_up(self) -> None:
        """Compute in the precision asked for from now on, even a single text."""
        if isinstance(self.bulk, CpuRuntime):
            self.bulk.end_warm_up()


def _choose(
    network: Network,
    computing: Computing,
    yardstick: _Yardstick,
    modes: tuple[str, ...],
    *,
    warms_up: bool,
) -> Runtime:
    if computing.gpu is not None:
        try:
            return _on_gpu(computing.gpu, computing.precision, network, yardstick, modes)
        except (ModelError, InvalidConfig, MissingDependency) as error:
            if computing.names_gpu:
                raise
            computing = computing.on_cpu()
            _log.warning("%s The CPU computes it instead, slower.", error.message)
    return CpuRuntime(network, computing, yardstick, warms_up=warms_up)


class _Yardstick(NamedTuple):
    """NumPy's float32 vectors of the probes, which every other runtime's are compared with."""

    exact: NumpyRuntime
    network: Network
    probes: Callable[[], Sequences]

    def accepts(self, fast: Runtime, modes: tuple[str, ...], *where: str) -> bool:
        """Return whether a runtime's vectors are as near to NumPy's as its precision must be.

        That is compared once for each combination of weights, modes, precision and `where`.

        Args:
            fast: The other runtime.
            modes: The pooling modes to compare; none compares the vectors of tokens.
            where: The name of the runtime first, then its version and what it runs on.
        """
        name = " ".join((self.network.fingerprint, *where, fast.precision, *modes))
        found = compare_once(
            "runtimes",
            lambda: name,
            LEAST_COSINE[fast.precision],
            lambda: self._least_cosine(fast, modes),
        )
        if found.is_new:
            _log.info(
                "%s by %s in %s: the lowest cosine of its probes to NumPy's is %.6f.",
                self.network.name,
                where[0],
                fast.precision,
                found.similarity,
            )
        if not found.passes:
            _log.warning(
                "The %s vectors of %s by %s have a cosine of %.6f to NumPy's, under %s.",
                fast.precision,
                self.network.name,
                where[0],
                found.similarity,
                found.least,
            )
        return found.passes

    def _least_cosine(self, fast: Runtime, modes: tuple[str, ...]) -> float:
        sequences = self.probes()
        return least_cosine(
            _vectors(self.exact, sequences, modes), _vectors(fast, sequences, modes)
        )


def _vectors(runtime: Runtime, sequences: Sequences, modes: tuple[str, ...]) -> NDArray[np.float32]:
    """Return the vectors to compare, one a row: pooled vectors, or those of tokens."""
    if not modes:
        return np.concatenate(runtime.token_vectors(sequences))
    # Of several modes each vector is compared by itself: a wrong one must not hide in a long row.
    return runtime.pooled(sequences, modes).reshape(len(modes) * len(sequences), -1)


def _on_gpu(
    gpu: str, wanted: str, network: Network, yardstick: _Yardstick, modes: tuple[str, ...]
) -> Runtime:
    """Return a GPU's runtime in the precision wanted, or in float32 if that is not accepted.

    The driver and the kinds of GPU are part of what is remembered: either may change the kernels.
    """
    from retriever.encoders.forward.torch_runtime import TorchRuntime

    for precision in dict.fromkeys((wanted, "float32")):
        fast = TorchRuntime(network, precision=precision, device=gpu)
        if yardstick.accepts(fast, modes, "torch", version("torch"), fast.device, graphics()):
            return fast
    raise ModelError(
        f"The vectors of {network.name!r} on {gpu} are not those that NumPy computes.",
        hint="Encode on the CPU (`device='cpu'`); another version of torch may help.",
    )


class CpuRuntime:
    """NumPy for the first few texts of a process, OpenVINO from then on; a `Runtime`.

    NumPy computes in float32. If another precision was asked for, it does not come first unless
    `warms_up`: the same text would get two different vectors.

    OpenVINO is used once its vectors of the probes were compared with NumPy's, in the precision
    asked for or else in float32. If it is missing, fails or is not accepted, NumPy goes on; the log
    says so.

    Args:
        network: What to compute.
        computing: In which precision, and on how many threads.
        yardstick: Has the NumPy runtime, which is also the one that comes first.
        warms_up: Whether the first few texts may be computed in float32 although `auto` means
            another precision on this machine. It has no effect if a precision was named.
    """

    def __init__(
        self,
        network: Network,
        computing: Computing,
        yardstick: _Yardstick,
        *,
        warms_up: bool = False,
    ) -> None:
        """Take a network; nothing is loaded."""
        self.precision = self._wanted = computing.precision
        self._network = network
        self._computing = computing
        self._yardstick = yardstick
        self._threads = computing.threads or default_threads()
        self._numpy = yardstick.exact
        self._chosen: dict[tuple[str, ...], Runtime] = {}
        self._loaded: dict[str, Runtime] = {}
        is_patient = self._wanted == "float32" or (warms_up and not computing.names_precision)
        self._patience = _PATIENCE if is_patient else 0
        self._lock = threading.Lock()

    def pooled(self, sequences: Sequences, modes: tuple[str, ...]) -> NDArray[np.float32]:
        """Return the pooled vectors; see `Runtime`."""
        return self._for(sequences, modes).pooled(sequences, modes)

    def token_vectors(self, sequences: Sequences) -> list[NDArray[np.float32]]:
        """Return the vectors of each text's tokens; see `Runtime`."""
        return self._for(sequences, ()).token_vectors(sequences)

    def for_queries(self) -> CpuRuntime:
        """Return the runtime of queries: in float32 throughout, unless another one was named.

        The same query is asked in processes that have just begun and in others, and its vector must
        not depend on that. Only NumPy starts at once, and it has no other precision.
        """
        if self._computing.names_precision or self._wanted == "float32":
            return self
        return CpuRuntime(self._network, self._computing.in_float32(), self._yardstick)

    def end_warm_up(self) -> None:
        """Leave nothing to NumPy from now on that OpenVINO can compute."""
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
        """Return OpenVINO in the precision asked for or in float32, else NumPy."""
        for precision in dict.fromkeys((self._wanted, "float32")):
            try:
                fast = self._openvino(precision)
                # Each combination of modes is compared: it has a graph of its own.
                if self._yardstick.accepts(
                    fast, modes, "openvino", version("openvino"), processor()
                ):
                    self._note_precision(precision, modes)
                    return fast
            except (MissingDependency, ModelError) as error:
                _log.warning("%s", error)
                break
        _log.warning("NumPy computes %s in float32, slower.", self._network.name)
        self._note_precision("float32", modes)
        return self._numpy

    def _note_precision(self, precision: str, modes: tuple[str, ...]) -> None:
        """Keep the precision of pooled vectors; that of token vectors may differ."""
        if modes:
            self.precision = precision

    def _openvino(self, precision: str) -> Runtime:
        from retriever.encoders.forward.openvino_runtime import OpenVinoRuntime

        if precision not in self._loaded:
            self._loaded[precision] = OpenVinoRuntime(
                self._network, precision=precision, threads=self._threads
            )
        return self._loaded[precision]


def default_threads() -> int:
    """Return `OMP_NUM_THREADS`, which users cap computing with, or the cores of this process."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted):
        return int(wanted)
    # `cpu_count` also counts cores that `taskset` or a cpuset keeps from this process.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

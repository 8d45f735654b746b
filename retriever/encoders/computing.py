"""Where a model is computed and in which precision, as the caller asked for it.

Owns the meaning of `precision=`, `threads=` and `device=` for every model of this package: they are
checked once, when `Computing` is made, and handed on as that one object. Must not know models or
runtimes.
"""

from __future__ import annotations

from functools import cached_property

from retriever.arguments import shown, text_or_none, whole
from retriever.encoders import environment
from retriever.errors import InvalidConfig

AUTO = "auto"
PRECISIONS = ("float32", "bfloat16", "float16", "int8")
# The lowest cosine similarity to float32 vectors that each precision may have on the probe texts.
LEAST_COSINE = {"float32": 0.99999, "bfloat16": 0.999, "float16": 0.999, "int8": 0.9}
MAX_THREADS = 1_024
_ON_GPUS, _ON_CPUS = "float16", "int8"
# With one of these instruction sets a processor multiplies bfloat16 at twice the rate of float32 or
# more. Without them bfloat16 is emulated, which is slower than float32.
_BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16"})


class Computing:
    """A choice of device, threads and precision.

    Whatever was named is checked at once. What was left to this machine is resolved when it is
    first needed, because that may import torch.

    Attributes:
        threads: The most threads; None means `OMP_NUM_THREADS`, else all cores.
        device: `cpu`, or a torch device. None means `cuda` if torch can see a GPU and `wanted` is
            supported there, else `cpu`.
        wanted: `auto` for the fastest precision that keeps the quality on this machine, or
            `float32`, `bfloat16`, `float16` (GPUs only) or `int8` (CPUs only).

    Raises:
        InvalidConfig: The device does not exist, the precision has no such name, or the device does
            not support it.
        MissingDependency: A GPU was named, and torch is not installed.
    """

    def __init__(
        self, *, threads: int | None = None, device: str | None = None, precision: str = AUTO
    ) -> None:
        """Check what was asked for."""
        self.threads = threads
        if threads is not None:
            self.threads = whole(
                threads,
                "threads",
                least=1,
                most=MAX_THREADS,
                hint=f"It is an integer from 1 to {MAX_THREADS:,}; None takes all cores.",
            )
        self.device = text_or_none(
            device, "device", hint="It is 'cpu', or a torch device such as 'cuda:1', or None."
        )
        self.wanted = check_precision(precision)
        # No other choice can be invalid. To resolve all of them here might import torch, which
        # takes seconds.
        if precision == _ON_GPUS or device not in (None, "cpu"):
            resolve_precision(precision, on_gpu=self.gpu is not None)

    @cached_property
    def gpu(self) -> str | None:
        """Return the torch device of the GPU to compute on, or None for the CPU.

        Raises:
            InvalidConfig, MissingDependency: As `environment.gpu`.
        """
        if self.device is None and self.wanted == _ON_CPUS:
            return None
        return environment.gpu(self.device)

    @property
    def precision(self) -> str:
        """Return the precision that `wanted` means on this device."""
        return resolve_precision(self.wanted, on_gpu=self.gpu is not None)

    @property
    def names_precision(self) -> bool:
        """Return whether the caller named a precision other than float32.

        If so, float32 takes its place neither for queries nor for the first documents.
        """
        return self.wanted not in (AUTO, "float32")

    @property
    def names_gpu(self) -> bool:
        """Return whether the caller named a device, or a precision that only GPUs support.

        If so, the CPU does not take the place of a GPU that fails.
        """
        return self.device is not None or self.wanted == _ON_GPUS

    def in_float32(self) -> Computing:
        """Return the same choice in float32."""
        return Computing(threads=self.threads, device=self.device, precision="float32")

    def on_cpu(self) -> Computing:
        """Return the same choice on the CPU; float32 takes the place of float16 there."""
        precision = "float32" if self.wanted == _ON_GPUS else self.wanted
        return Computing(threads=self.threads, device="cpu", precision=precision)


def check_precision(precision: str) -> str:
    """Return the name of a precision, or `auto`.

    Raises:
        InvalidConfig: No precision has that name.
    """
    if precision not in (AUTO, *PRECISIONS):
        raise InvalidConfig(
            f"precision is {shown(precision)}.", hint=f"Choose {AUTO}, {', '.join(PRECISIONS)}."
        )
    return precision


def resolve_precision(precision: str, *, on_gpu: bool = False) -> str:
    """Return the precision that `auto` means on this machine; any other one is returned as it is.

    `auto` never means int8, which costs quality: it is used only where the caller names it.

    Raises:
        InvalidConfig: No precision has that name, or it is not supported on the device.
    """
    if check_precision(precision) == (missing := _ON_CPUS if on_gpu else _ON_GPUS):
        raise InvalidConfig(
            f"precision={missing!r} is not supported on {'GPU' if on_gpu else 'CPU'}.",
            hint=f"Choose {AUTO}, or {'float16' if on_gpu else 'bfloat16'}.",
        )
    if precision != AUTO:
        return precision
    if on_gpu:
        return "float16"
    return "bfloat16" if _BFLOAT16 & environment.processor_features() else "float32"

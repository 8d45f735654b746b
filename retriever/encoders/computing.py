"""Where a model is computed and in which numbers: what the caller asked for, made definite here.

Owns the meaning of `precision=`, `threads=` and `device=` for every model of this package.
"""

from __future__ import annotations

from functools import cached_property

from retriever.arguments import text_or_none, whole
from retriever.encoders import devices
from retriever.encoders.precision import AUTO, check_precision, resolve_precision

MAX_THREADS = 1_024
_ON_GPUS, _ON_CPUS = "float16", "int8"


class Computing:
    """A choice of device, threads and precision.

    What was named is checked at once; what was left to this machine is found out when it is first
    needed, since that may import torch.

    Attributes:
        threads: The most threads; None means `OMP_NUM_THREADS`, else all cores.
        device: `cpu`, or a torch device; None means `cuda` where there is one and it computes in
            the precision wanted, else `cpu`.
        wanted: `auto` for the fastest precision that keeps the quality on this machine, or
            `float32`, `bfloat16`, `float16` (GPUs only) or `int8` (CPUs only).

    Raises:
        InvalidConfig: There is no such device, no such precision, or not on this device.
        MissingDependency: A GPU was named, and torch is not installed.
    """

    def __init__(
        self, *, threads: int | None = None, device: str | None = None, precision: str = AUTO
    ) -> None:
        """Take what was asked for."""
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
        if precision == _ON_GPUS or device not in (None, "cpu"):
            resolve_precision(precision, on_gpu=self.gpu is not None)

    @cached_property
    def gpu(self) -> str | None:
        """Return the torch device of a GPU to compute on, or None for the CPU.

        Raises:
            InvalidConfig, MissingDependency: As `devices.gpu`.
        """
        if self.device is None and self.wanted == _ON_CPUS:
            return None
        return devices.gpu(self.device)

    @property
    def precision(self) -> str:
        """Return what `wanted` means on this device."""
        return resolve_precision(self.wanted, on_gpu=self.gpu is not None)

    @property
    def names_precision(self) -> bool:
        """Return whether another precision than float32 was asked for by name.

        Then neither questions nor the first documents are computed in float32.
        """
        return self.wanted not in (AUTO, "float32")

    @property
    def names_gpu(self) -> bool:
        """Return whether a GPU was asked for, be it by a precision that only GPUs have."""
        return self.device is not None or self.wanted == _ON_GPUS

    def in_float32(self) -> Computing:
        """Return the same in float32."""
        return Computing(threads=self.threads, device=self.device, precision="float32")

    def on_cpu(self) -> Computing:
        """Return the same on the CPU."""
        return Computing(threads=self.threads, device="cpu", precision=self.wanted)

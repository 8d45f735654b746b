"""Where a model is computed and in which numbers: what the caller asked for, made definite here.

Owns the meaning of `precision=`, `threads=` and `device=` for every model of this package.
"""

from __future__ import annotations

from functools import cached_property

from retriever.encoders import devices
from retriever.encoders.precision import AUTO, check_precision, resolve_precision

_DEVICE_BOUND = ("float16", "int8")  # those that only a GPU or only a CPU computes in


class Computing:
    """A choice of device, threads and precision. `device=None` is resolved when first needed.

    Attributes:
        threads: The most threads; None means `OMP_NUM_THREADS`, else all cores.
        device: `cpu`, or a torch device; None means `cuda` where there is one, else `cpu`.
        wanted: `auto` for the fastest precision that keeps the quality on this machine, or
            `float32`, `bfloat16`, `float16` (GPUs only) or `int8` (CPUs only).

    Raises:
        InvalidConfig: There is no such precision, or not on this device.
    """

    def __init__(
        self, *, threads: int | None = None, device: str | None = None, precision: str = AUTO
    ) -> None:
        """Take what was asked for."""
        self.threads = threads
        self.device = device
        self.wanted = check_precision(precision)
        if precision in _DEVICE_BOUND:
            resolve_precision(precision, on_gpu=self.gpu is not None)

    @cached_property
    def gpu(self) -> str | None:
        """Return the torch device of a GPU to compute on, or None for the CPU.

        Raises:
            InvalidConfig, MissingDependency: As `devices.gpu`.
        """
        return devices.gpu(self.device)

    @property
    def precision(self) -> str:
        """Return what `wanted` means on this device."""
        return resolve_precision(self.wanted, on_gpu=self.gpu is not None)

    @property
    def is_patient(self) -> bool:
        """Return whether the first questions may be computed in float32, which starts at once.

        What was asked for by name is not computed in anything else, however briefly.
        """
        return self.wanted in (AUTO, "float32")

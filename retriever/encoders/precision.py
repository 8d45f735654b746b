"""Which numbers a network is computed in, and what this processor can do.

Owns the names of precisions and the choice that `auto` makes. Must not know runtimes or models.
"""

from __future__ import annotations

import contextlib
import platform
from functools import cache
from pathlib import Path

from retriever.arguments import shown
from retriever.errors import InvalidConfig

AUTO = "auto"
PRECISIONS = ("float32", "bfloat16", "float16", "int8")
# Instructions that multiply bfloat16 at twice the rate of float32 or more; without one of them it
# is emulated, and slower.
_BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16"})
# The lowest cosine to float32 that a precision may have on the probes.
LEAST_COSINE = {"float32": 0.99999, "bfloat16": 0.999, "float16": 0.999, "int8": 0.9}


def check_precision(precision: str) -> str:
    """Return a precision's name, or `auto`.

    Raises:
        InvalidConfig: There is no such precision.
    """
    if precision not in (AUTO, *PRECISIONS):
        raise InvalidConfig(
            f"precision is {shown(precision)}.", hint=f"Choose {AUTO}, {', '.join(PRECISIONS)}."
        )
    return precision


def resolve_precision(precision: str, *, on_gpu: bool = False) -> str:
    """Return what `auto` means on this machine; any other precision stands for itself.

    `auto` never means int8, which costs quality: it is had only by name.

    Raises:
        InvalidConfig: There is no such precision, or not on this device.
    """
    if check_precision(precision) == (missing := "int8" if on_gpu else "float16"):
        raise InvalidConfig(
            f"precision={missing!r} is not to be had on a {'GPU' if on_gpu else 'CPU'}.",
            hint=f"Choose {AUTO}, or {'float16' if on_gpu else 'bfloat16'}.",
        )
    if precision != AUTO:
        return precision
    if on_gpu:
        return "float16"
    return "bfloat16" if _BFLOAT16 & processor_features() else "float32"


def processor() -> str:
    """Return the processor's model: rounding differs between them."""
    return _cpu_line("model name") or platform.processor() or platform.machine()


@cache
def processor_features() -> frozenset[str]:
    """Return the instruction sets that the processor names, where the system lists them."""
    return frozenset(_cpu_line("flags").split())


@cache
def _cpu_line(field: str) -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith(field):
                return line.partition(":")[2].strip()
    return ""

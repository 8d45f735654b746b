"""What the figures were measured on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path

# Instructions that decide how fast a matrix product is, and in which precision.
TOLD = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def processor() -> str:
    """Return the processor's name with its family and model, and the number of cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    facts = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    name = facts.get("model name", platform.processor() or platform.machine())
    if "cpu family" in facts:
        name += f" (family {facts['cpu family']}, model {facts['model']})"
    told = [flag for flag in TOLD if flag in facts.get("flags", "").split()]
    name += f" with {' '.join(told)}" if told else ""
    return f"{name}, {os.cpu_count()} cores"


def machine() -> str:
    """Return the processor, its cores and the threads that OpenMP may use."""
    return f"{processor()}, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}"


def write_json(path: Path | None, figures: Mapping[str, object]) -> None:
    """Write the figures of a run, with the machine they are from, where a file is named."""
    if path is not None:
        content = {"machine": machine(), **figures}
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")

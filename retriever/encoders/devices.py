"""Where encoding runs: the CPU, or a GPU where there is one and torch to drive it.

Owns finding that out without importing torch on a machine that has no GPU.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.errors import InvalidConfig, MissingDependency

if TYPE_CHECKING:
    import torch

_log = logging.getLogger("retriever")
_DRIVER = Path("/proc/driver/nvidia/version")
_INSTALL = '`pip install "retriever-engine[torch]"`'


def gpu(device: str | None) -> str | None:
    """Return the torch device of a GPU to encode on, or None for the CPU.

    Args:
        device: What the caller asked for; None takes a GPU where there is one.

    Raises:
        InvalidConfig: A device was asked for that is not there, or is not known.
        MissingDependency: A GPU was asked for, and torch is not installed.
    """
    if device is None:
        return _found_gpu()
    if device == "cpu":
        return None
    return None if find_device(device).type == "cpu" else device


def find_device(device: str) -> torch.device:
    """Return a device of torch; an NVIDIA GPU is found to be there.

    Raises:
        InvalidConfig: It is not there, or not known.
        MissingDependency: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingDependency(
            f"The device {device!r} needs torch: {error}.",
            extra="torch",
            hint=f"{_INSTALL}, or leave the device out.",
        ) from error
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise InvalidConfig(
            f"The device {device!r} is not one that torch knows.", hint="Pass 'cpu' or 'cuda'."
        ) from error
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found.type == "cuda" and (found.index or 0) >= count:
        sees = f"only {count}" if count else "no GPU"
        raise InvalidConfig(
            f"The device {device!r} was asked for, but torch {torch.__version__} sees {sees}.",
            hint="Leave the device out, or install a torch with CUDA and its driver.",
        )
    return found


@cache
def _found_gpu() -> str | None:
    """Return `cuda` where there is a driver, and a torch that sees the GPU."""
    if not graphics():
        return None
    if importlib.util.find_spec("torch") is None:
        _log.warning(
            "This machine has an NVIDIA GPU, but encoding runs on the CPU: torch is not installed "
            "(%s).",
            _INSTALL,
        )
        return None
    try:
        import torch

        return "cuda" if torch.cuda.is_available() else None
    except (ImportError, OSError) as error:
        _log.warning("Encoding runs on the CPU: torch cannot be loaded: %s", error)
        return None


@cache
def graphics() -> str:
    """Return the NVIDIA driver's version and the kinds of its GPUs; empty where there is none."""
    with contextlib.suppress(OSError):
        driver = _DRIVER.read_text("utf-8", "replace").partition("\n")[0]
        kinds = set()
        for file in _DRIVER.parent.glob("gpus/*/information"):
            with contextlib.suppress(OSError):
                kinds.add(file.read_text("utf-8", "replace").partition("\n")[0])
        return "; ".join([driver, *sorted(kinds)])
    return ""

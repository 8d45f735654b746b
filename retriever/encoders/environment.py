"""What this machine computes with: package versions, the processor, and GPUs that torch can see.

Nothing is imported to find a version, and torch is imported only where there is an NVIDIA driver or
a torch device was named. Must not know models, precisions or what the caller asked for.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import platform
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.errors import InvalidConfig, MissingDependency

if TYPE_CHECKING:
    import torch

_log = logging.getLogger("retriever")
_DRIVER = Path("/proc/driver/nvidia/version")
_INSTALL = '`pip install "retriever-engine[torch]"`'


@cache
def version(package: str) -> str:
    """Return the version of an installed package, without importing it, or `absent`."""
    import importlib.metadata  # takes milliseconds, which most commands can do without

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def has_reference() -> bool:
    """Return whether sentence-transformers is installed, without importing it."""
    try:
        return all(map(importlib.util.find_spec, ("torch", "sentence_transformers")))
    except (ImportError, ValueError):  # a finder refuses it, or it is half imported
        return False


# ---- the processor


def processor() -> str:
    """Return the model of the processor. Models differ in how they round."""
    return _cpu_line("model name") or platform.processor() or platform.machine()


@cache
def processor_features() -> frozenset[str]:
    """Return the instruction sets of the processor; empty where the system does not list them."""
    return frozenset(_cpu_line("flags").split())


@cache
def _cpu_line(field: str) -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith(field):
                return line.partition(":")[2].strip()
    return ""


# ---- GPUs


def gpu(device: str | None) -> str | None:
    """Return the torch device to encode on if it is a GPU, or None for the CPU.

    Args:
        device: A device that the caller named; None takes a GPU if torch can see one.

    Raises:
        InvalidConfig: The named device does not exist, or torch does not know it.
        MissingDependency: A device other than `cpu` was named, and torch is not installed.
    """
    if device is None:
        return _visible_gpu()
    if device == "cpu":
        return None
    return None if find_device(device).type == "cpu" else device


def find_device(device: str) -> torch.device:
    """Return a torch device by name, after checking that a CUDA device exists.

    Raises:
        InvalidConfig: It does not exist, or torch does not know it.
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
def _visible_gpu() -> str | None:
    """Return `cuda` if torch can see an NVIDIA GPU, else None.

    Without a driver no GPU can be visible, so that torch, which takes seconds, is not imported.
    """
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
    """Return the version of the NVIDIA driver and the models of its GPUs; empty without a driver.

    It is read from `/proc`, and only Linux has that.
    """
    with contextlib.suppress(OSError):
        driver = _DRIVER.read_text("utf-8", "replace").partition("\n")[0]
        kinds = set()
        for file in _DRIVER.parent.glob("gpus/*/information"):
            with contextlib.suppress(OSError):
                kinds.add(file.read_text("utf-8", "replace").partition("\n")[0])
        return "; ".join([driver, *sorted(kinds)])
    return ""

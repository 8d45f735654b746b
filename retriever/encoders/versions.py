"""The versions of installed packages, found without importing them."""

from __future__ import annotations

import importlib.metadata
from functools import cache


@cache
def version(package: str) -> str:
    """Return a package's version, or `absent`."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"

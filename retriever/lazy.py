"""Names of a package that are loaded when they are first used, so that importing it is quick."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def loader(package: str, homes: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return the function `__getattr__` of a package.

    Args:
        package: The name of the package.
        homes: The names that each module defines, by the name of the module.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def load(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(home_of[name]), name)
        # Python calls this function only for names that the package lacks: once for each.
        setattr(sys.modules[package], name, value)
        return value

    return load

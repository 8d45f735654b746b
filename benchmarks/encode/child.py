"""A system in a process of its own, from inside: commands in, answers out.

    python -m benchmarks.encode.child MODULE NAME

MODULE is one of this package, or the full name of another. Takes commands from standard input, one
JSON object a line, each a method of `SYSTEMS[NAME]` of the module with its arguments, and answers
each with another.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any


class Unavailable(Exception):
    """A system cannot do it here; the message says why."""


def answer(system: Any, do: str, **arguments: Any) -> dict[str, Any]:
    """Return what a method returns, or that it cannot."""
    try:
        _require(system.needs)
        return getattr(system, do)(**arguments) or {}
    except Unavailable as error:
        return {"skipped": str(error)}
    except Exception as error:  # the run goes on without this system
        traceback.print_exc()
        return {"failed": " ".join(f"{type(error).__name__}: {error}".split())[:300]}


def _require(modules: Sequence[str]) -> None:
    missing = [module for module in modules if not _is_installed(module)]
    if missing:
        raise Unavailable(f"not installed ({', '.join(missing)})")


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor is the package around it
        return False


def main() -> None:
    module, name = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    found = importlib.import_module(module if "." in module else f"{__package__}.{module}")
    system = found.SYSTEMS[name]()
    for line in sys.stdin:
        answers.write(json.dumps(answer(system, **json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    # By its full name, so that systems raise the same `Unavailable` as is caught here.
    importlib.import_module(f"{__package__}.child").main()

"""The command line: arguments in, formatted answers out; all the work is done by `Index`.

Results go to stdout, everything else to stderr. Heavy libraries are imported by the command that
needs them, so that `--help`, `list` and `status` answer at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retriever.cli.program import main

__all__ = ["main"]


def __getattr__(name: str) -> Any:
    """Import the program when it is asked for: Ctrl-C is heeded before that, see `__main__`."""
    if name == "main":
        from retriever.cli.program import main

        return main
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The command line: arguments in, formatted answers out; all the work is done by `Index`.

Results go to stdout, everything else to stderr. Heavy libraries are imported by the command that
needs them, so that `--help`, `list` and `status` answer at once.
"""

from retriever.cli.program import main

__all__ = ["main"]

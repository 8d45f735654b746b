"""Standard input, output and error where they are closed, and errors of reading the first."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from retriever.errors import UnreadableFile


def replace_closed() -> None:
    """Put /dev/null in the place of each standard stream that is closed (`<&-`, `2>&-`).

    Otherwise the next file to be opened, perhaps the database, would get the number of the
    stream, and whatever is printed would be written into it. Input and output are opened in the
    wrong direction, so that using them fails as it does with any closed file; messages are lost
    as the caller wished. Call this before anything else opens a file.
    """
    if sys.stdin is None and _occupy(0, os.O_WRONLY):
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 (never closed)
    if sys.stdout is None and _occupy(1, os.O_RDONLY):
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None and _occupy(2, os.O_WRONLY):
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _occupy(descriptor: int, flags: int) -> bool:
    """Open /dev/null as `descriptor`, which is closed; return whether it is that now."""
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, flags)
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)
    return True


@contextmanager
def reading_input() -> Iterator[None]:
    """Map what can go wrong when standard input is read.

    Raises:
        UnreadableFile: It is closed, a folder, or the like.
    """
    try:
        yield
    except OSError as exc:
        why = "it is closed" if exc.errno == errno.EBADF else exc.strerror
        raise UnreadableFile(
            f"Standard input cannot be read: {why}.",
            path="-",
            hint="Pipe something in, or give what is meant as an argument instead of -.",
        ) from exc

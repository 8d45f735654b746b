"""Handle closed standard streams, and errors of reading standard input."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from retriever.errors import UnreadableFile


def replace_closed() -> None:
    """Open /dev/null for each standard stream that is closed (`<&-`, `2>&-`).

    Otherwise the next file that is opened, perhaps the database, would get the stream's
    descriptor, and output would be written into it. Input and output are opened in the wrong
    direction, so that using them fails as for any closed file; stderr discards messages, as the
    caller wished. Call this before anything else opens a file.
    """
    if sys.stdin is None and _occupy(0, os.O_WRONLY):
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 (never closed)
    if sys.stdout is None and _occupy(1, os.O_RDONLY):
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None and _occupy(2, os.O_WRONLY):
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _occupy(descriptor: int, flags: int) -> bool:
    """Open /dev/null as `descriptor` if it is closed; always returns True."""
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
    """Map errors of reading standard input.

    Raises:
        UnreadableFile: It is closed, is a folder, or cannot be read for another reason.
    """
    try:
        yield
    except OSError as exc:
        why = "it is closed" if exc.errno == errno.EBADF else exc.strerror
        raise UnreadableFile(
            f"Standard input cannot be read: {why}.",
            path="-",
            hint="Pipe in the input, or pass an argument instead of -.",
        ) from exc

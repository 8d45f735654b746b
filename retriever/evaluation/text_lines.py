"""Text files line by line, as bytes: gzipped or not, with or without a byte order mark."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BufferedReader
from itertools import chain
from pathlib import Path

from retriever import arguments
from retriever.errors import InvalidEvaluation, UnreadableFile

_BOM = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_GZIP = b"\x1f\x8b"
_LONGEST_LINE = 2**30


@contextmanager
def lines_of(
    path: str | os.PathLike[str], *, longest: int = _LONGEST_LINE
) -> Iterator[Iterable[bytes]]:
    """Open a text file, gzipped or not, and give its lines without a byte order mark.

    Args:
        path: The file.
        longest: The most bytes of a line; without it, a file that is no text would fill memory.

    Raises:
        UnreadableFile: It cannot be read.
        InvalidEvaluation: It is in UTF-16, or a line is too long.
    """
    where = os.fspath(path)
    try:
        with Path(path).open("rb") as file:
            opened = gzip.GzipFile(fileobj=file) if _begins(file, _GZIP) else file
            first = opened.readline(longest)
            if first.startswith(_UTF_16):
                raise InvalidEvaluation(
                    "is in UTF-16.",
                    path=where,
                    hint="Save it as UTF-8: `iconv -f UTF-16 -t UTF-8`.",
                )
            rest = iter(partial(opened.readline, longest), b"")
            lines = chain([first.removeprefix(_BOM)] if first else [], rest)
            yield _no_longer_than(longest, lines, where)
    except (OSError, EOFError, zlib.error) as exc:
        why = getattr(exc, "strerror", None) or exc
        raise UnreadableFile(
            f"{where!r} cannot be read: {why}.",
            path=where,
            hint="Name /dev/stdin to read standard input."
            if where == "-"
            else "Check the path, and that it is a text file or a whole gzip file of one.",
        ) from exc


def _no_longer_than(longest: int, lines: Iterable[bytes], path: str) -> Iterator[bytes]:
    for number, line in enumerate(lines, 1):
        if len(line) >= longest:
            raise InvalidEvaluation(
                f"has more than {longest:,} bytes.",
                path=path,
                line=number,
                hint="Check that it is a text file.",
            )
        yield line


def _begins(file: BufferedReader, mark: bytes) -> bool:
    # What is peeked at is read again; seeking back is impossible in a pipe.
    return file.peek(len(mark)).startswith(mark)


def shown(line: bytes) -> str:
    """Return a line, or a column of one, for an error message."""
    return arguments.shown(line.rstrip(b"\r\n").decode("utf-8", "backslashreplace"))

r"""The names of files and documents in an index, and how a name that a user gives is resolved.

A path is bytes, and need not be valid in any encoding. The names here are text, no two files share
one, and a path in valid UTF-8 normally is its own name. A byte that is not UTF-8 is written `\xe9`;
a backslash that would read as such an escape is written `\x5c`. Rows and attachments of a file
append `#n`, so a `#` before digits at the end of a file's own name is written `\x23` in its id.
"""

from __future__ import annotations

import itertools
import os
import re
import unicodedata
from collections.abc import Iterator

_LIKE_AN_ESCAPE = re.compile(r"\\(?=x[0-9a-f]{2})")
_NOT_TEXT = re.compile("[\udc80-\udcff]")
_ROW = re.compile(r"#(?=[0-9]+\Z)")
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
# Parts of a path with two forms, of which all combinations are tried: at most 2⁶.
_MOST_MIXED = 6


def of_path(path: bytes) -> str:
    """Return a path as text; different paths have different texts."""
    if path.isascii() and b"\\" not in path:  # Most paths; the patterns take ten times as long.
        return path.decode("ascii")
    text = _LIKE_AN_ESCAPE.sub(r"\\x5c", path.decode("utf-8", "surrogateescape"))
    return _NOT_TEXT.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text)


def path_of(name: str) -> bytes:
    """Return the path for a name from `of_path`, or from `id_of` for a whole file."""
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), name.encode())


def id_of(path: bytes, row: int = 0) -> str:
    """Return the id of a file's document, or of its row or attachment, counted from 1."""
    name = of_path(path)
    if "#" in name:
        name = _ROW.sub(r"\\x23", name)
    return f"{name}#{row}" if row else name


def row_of(path: bytes, document_id: str) -> int | None:
    """Return the row of a file that has an id, 0 for the whole file; None if no row has it."""
    whole = id_of(path)
    if document_id == whole:
        return 0
    name, _, row = document_id.rpartition("#")
    is_row = name == whole and row.isascii() and row.isdecimal() and row[0] != "0"
    return int(row) if is_row else None


def file_of(document_id: str) -> bytes:
    """Return the path of the file that a document's id names, if it came from a file at all."""
    return path_of(re.sub(r"#[0-9]+\Z", "", document_id))


def meanings(name: str) -> list[str]:
    """Return the ids that a name may stand for, most likely first.

    These are the name itself; the id of a file with that name, if it differs from the name; and
    the same in the other Unicode normal forms (NFC and NFD), which look alike, for the whole name
    or separately for each part of a path.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        name = _of_arguments(name)
    if not name:
        return []
    found = [name, id_of(name.encode())]
    if not name.isascii():
        found += _other_forms(name)
        found += [id_of(other.encode()) for other in _other_forms(name)]
    return list(dict.fromkeys(found))


def _of_arguments(name: str) -> str:
    """Return the id of a file whose name holds surrogate escapes, as from the command line."""
    try:
        return id_of(os.fsencode(name))
    except UnicodeEncodeError:
        return ""


def _other_forms(name: str) -> Iterator[str]:
    yield from _forms(name)
    parts = name.split("/")
    choices = [list(dict.fromkeys(_forms(part))) for part in parts]
    if 1 < sum(len(choice) > 1 for choice in choices) <= _MOST_MIXED:
        yield from map("/".join, itertools.product(*choices))


def _forms(text: str) -> tuple[str, str]:
    return unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)


def as_read(path: bytes) -> str | None:
    """Return the normal form that look-alike names share, or None for an ASCII name."""
    if path.isascii():
        return None
    return unicodedata.normalize("NFC", of_path(path))

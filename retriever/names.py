r"""Names of documents: what a file is called in an index, and what is meant by a name.

A file's name is its path, which is bytes and may be no text at all. The names here are text, two
files never share one, and a name that is text already stays as it is. A byte that is no UTF-8 is
written `\xe9`; a backslash that would read as such an escape is written `\x5c`. Rows and
attachments of a file append `#n`, so a `#` before digits at the end of a file's own name is
written `\x23` in its id.
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
_MOST_MIXED = 6


def of_path(path: bytes) -> str:
    """Return a path as text that no other path has."""
    if path.isascii() and b"\\" not in path:  # as good as all; the patterns take ten times as long
        return path.decode("ascii")
    text = _LIKE_AN_ESCAPE.sub(r"\\x5c", path.decode("utf-8", "surrogateescape"))
    return _NOT_TEXT.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text)


def path_of(name: str) -> bytes:
    """Return the path that `of_path`, or `id_of` for a whole file, made a name of."""
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), name.encode())


def id_of(path: bytes, row: int = 0) -> str:
    """Return the id of a file's document, or of its row or attachment, counted from 1."""
    name = of_path(path)
    if "#" in name:
        name = _ROW.sub(r"\\x23", name)
    return f"{name}#{row}" if row else name


def row_of(path: bytes, document_id: str) -> int | None:
    """Return the row for which `id_of` gives a file's document an id, or None if for none."""
    whole = id_of(path)
    if document_id == whole:
        return 0
    name, _, row = document_id.rpartition("#")
    is_row = name == whole and row.isascii() and row.isdecimal() and row[0] != "0"
    return int(row) if is_row else None


def file_of(document_id: str) -> bytes:
    """Return the path of the file that has an id's document among its own, if any file has."""
    return path_of(re.sub(r"#[0-9]+\Z", "", document_id))


def meanings(name: str) -> list[str]:
    """Return the ids that a name may stand for, the likeliest first.

    They are the name itself; the file so called where that is no text, or not text that is its
    own id; and what a person reads as the same: accents written as part of a letter (NFC) or on
    their own (NFD), alike or in each part of a path.
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
    """Return the id of a file whose name came from the command line or the file system."""
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
    """Return what two names of one file have in common, or None where there is only one form."""
    if path.isascii():
        return None
    return unicodedata.normalize("NFC", of_path(path))

"""The folder that names of files are relative to: recorded in the index, and found where it is now.

It is recorded as it was when files were last indexed, with the place of the index then. Where
index and folder have moved together, the folder is found by its place relative to the index; where
only the index has moved, at its old place. The one that holds more of the files is used.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retriever import arguments, names
from retriever.errors import InvalidConfig
from retriever.storage import catalog, records, rows

if TYPE_CHECKING:
    import sqlite3


_SAMPLE = 64


class Base(NamedTuple):
    """A folder that names are relative to.

    Attributes:
        path: Absolute, without links.
        is_found: False if the index has moved and none of its files can be found; `path` is then
            the recorded folder.
    """

    path: str
    is_found: bool = True


def given(path: str | os.PathLike[str]) -> Path:
    """Return the resolved path of a folder that a caller gives as the base.

    Raises:
        InvalidConfig: It is not a path, or not a folder.
    """
    folder = arguments.path(path, "base")
    if not folder.is_dir():
        raise InvalidConfig(
            f"base is {os.fspath(folder)!r}, which is not a folder.",
            hint="Name the folder that file names should be relative to.",
        )
    return folder.resolve()


def recorded(directory: Path, base: Path | None) -> str:
    """Return the setting for an index; its parent is the base unless another is given."""
    here = os.path.realpath(directory)
    folder = os.path.dirname(here) if base is None else os.path.realpath(base)  # noqa: PTH120
    shown = {"index": here, "base": folder}
    return json.dumps({what: names.of_path(os.fsencode(path)) for what, path in shown.items()})


def find(directory: Path, connection: sqlite3.Connection) -> Base:
    """Return the folder that names are relative to.

    Args:
        directory: The index.
        connection: Inside a read transaction.
    """
    here = os.path.realpath(directory)
    record = rows.base_of(catalog.setting(connection, records.BASE))
    if record is None:
        return Base(os.path.dirname(here))  # noqa: PTH120
    there, base = record
    if there == here:
        return Base(base)
    moved = os.path.normpath(os.path.join(here, os.path.relpath(base, there)))  # noqa: PTH118
    known = catalog.some_names(connection, _SAMPLE)
    if not known:
        return Base(moved)
    # Whether the folder moved with the index is found out from a sample of the files.
    with_index, without = count_there(moved, known), count_there(base, known)
    if not with_index and not without:
        return Base(base, is_found=False)
    return Base(moved if with_index >= without else base)


def count_there(base: str, known: list[bytes]) -> int:
    """Return how many of some names exist below a folder."""
    folder = os.fsencode(base)
    return sum(os.path.lexists(os.path.join(folder, name)) for name in known)  # noqa: PTH118


def name_beneath(base: str, path: bytes) -> bytes:
    """Return a path relative to a folder, or the absolute path if it is not inside."""
    folder = os.fsencode(base).rstrip(b"/") + b"/"
    return path[len(folder) :] if path.startswith(folder) else path

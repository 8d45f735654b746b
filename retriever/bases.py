"""The folder that names of files are relative to: recorded in the index, and found where it is now.

It is recorded as it was when files were last indexed, with the place of the index then. Where
index and folder have moved together, the folder is found by its place relative to the index; where
only the index has moved, at its old place. Which of them it is, the files tell that are there.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retriever import arguments, names
from retriever.errors import InvalidConfig
from retriever.storage import catalog, records, segments

if TYPE_CHECKING:
    import sqlite3

    from retriever.storage.records import FileRow, Space
    from retriever.storage.writer import Writer

_SAMPLE = 64
_MOST_HASHED = 16_000_000
_log = logging.getLogger("retriever")


class Base(NamedTuple):
    """A folder that names are relative to.

    Attributes:
        path: Absolute, without links.
        is_found: False if the index has moved, and none of its files is to be found: it is
            the folder that is recorded then.
    """

    path: str
    is_found: bool = True


def given(path: str | os.PathLike[str]) -> Path:
    """Return the folder that a caller names as the base, resolved.

    Raises:
        InvalidConfig: It is no path, or no folder.
    """
    folder = arguments.path(path, "base")
    if not folder.is_dir():
        raise InvalidConfig(
            f"base is {os.fspath(folder)!r}, which is no folder.",
            hint="Name the folder that names of files are to be relative to.",
        )
    return folder.resolve()


def recorded(directory: Path, base: Path | None) -> str:
    """Return the setting for an index; its parent is the base unless another is given."""
    here = os.path.realpath(directory)
    folder = os.path.dirname(here) if base is None else os.path.realpath(base)  # noqa: PTH120
    shown = {"index": here, "base": folder}
    return json.dumps({what: names.of_path(os.fsencode(path)) for what, path in shown.items()})


def find(directory: Path, connection: sqlite3.Connection, *, trust: bool = True) -> Base:
    """Return the folder that names are relative to.

    Args:
        directory: The index.
        connection: Inside a read transaction.
        trust: Whether to look for the files that the index names.
    """
    here = os.path.realpath(directory)
    record = records.base_of(catalog.setting(connection, records.BASE))
    if record is None:
        return Base(os.path.dirname(here))  # noqa: PTH120
    there, base = record
    if there == here:
        return Base(base)
    moved = os.path.normpath(os.path.join(here, os.path.relpath(base, there)))  # noqa: PTH118
    known = catalog.some_names(connection, _SAMPLE) if trust else []
    if not known:
        return Base(moved)
    with_index, without = _count(moved, known), _count(base, known)
    if not with_index and not without:
        return Base(base, is_found=False)
    return Base(moved if with_index >= without else base)


def _count(base: str, known: list[bytes]) -> int:
    folder = os.fsencode(base)
    return sum(os.path.lexists(os.path.join(folder, name)) for name in known)  # noqa: PTH118


def name_beneath(base: str, path: bytes) -> bytes:
    """Return an absolute path relative to a folder, or as it is outside it."""
    folder = os.fsencode(base).rstrip(b"/") + b"/"
    return path[len(folder) :] if path.startswith(folder) else path


def settle(writer: Writer, space: Space, base: Path | None, *, trust: bool) -> str:
    """Return the base to index files with, recorded in the index; `base` changes it.

    Where the files are at their names below the new base, the folder has moved and names stay as
    they are. Where they are below the old one still, they get names relative to the new one.
    """
    before = find(writer.directory, writer.connection, trust=trust)
    after = before.path if base is None else str(base)
    if not before.is_found and base is None:
        # What is recorded stays, so that they are found if their disk is there again.
        _log.warning(
            "The files of this index are no longer below %s; if their folder has moved, name it "
            "with --base.",
            before.path,
        )
        return after
    setting = recorded(writer.directory, Path(after))
    if setting == catalog.setting(writer.connection, records.BASE):
        return after
    covered = segments.covered(catalog.segments(writer.connection, space.id))
    with writer.transaction() as change:
        if after != before.path:
            for old, new in _renames(writer.connection, before.path, after):
                change.rename_file(old, new, covered)
        change.put_setting(records.BASE, setting)
    return after


def _renames(
    connection: sqlite3.Connection, before: str, after: str
) -> Iterator[tuple[bytes, bytes]]:
    """Yield old and new names, in an order in which no new one is still in use."""
    known = list(catalog.file_rows(connection))
    is_moved = _have_moved([row for row in known if not row.path.startswith(b"/")], before, after)
    pending: dict[bytes, bytes] = {}
    for name in (row.path for row in known):
        path = os.path.join(os.fsencode(before), name)  # noqa: PTH118
        if (name.startswith(b"/") or not is_moved) and os.path.lexists(path):
            pending[name] = name_beneath(after, path)
    pending = {old: new for old, new in pending.items() if old != new}
    while pending:
        ready = [old for old, new in pending.items() if new not in pending]
        yield from ((old, pending.pop(old)) for old in ready)


def _have_moved(rows: list[FileRow], before: str, after: str) -> bool:
    """Return whether files are at their names below a new base: by content, else by being there."""
    some = rows[:: max(1, len(rows) // _SAMPLE)]
    there, here = (sum(_holds(base, row) for row in some) for base in (after, before))
    if not there and not here:
        relative = [row.path for row in rows]
        there, here = _count(after, relative), _count(before, relative)
    return 0 < there >= here


def _holds(base: str, row: FileRow) -> bool:
    """Return whether a file, as it was indexed, is at its name below a folder."""
    from retriever.documents import sources

    path = os.path.join(os.fsencode(base), row.path)  # noqa: PTH118
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return False
    found = sources.digest(path, status, _MOST_HASHED)
    return found is not None and found == row.sha256

"""Recording the folder that names of files are relative to, and renaming them when it changes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.storage import base_folder, catalog, records

if TYPE_CHECKING:
    import sqlite3

    from retriever.storage.records import FileRow, Space
    from retriever.storage.writer import Writer

_SAMPLE = 64
_MOST_HASHED = 16_000_000
_log = logging.getLogger("retriever")


def record(writer: Writer, space: Space, base: Path | None) -> str:
    """Return the base to index files with, recorded in the index; `base` changes it.

    Where the files are at their names below the new base, the folder has moved and names stay as
    they are. Where they are below the old one still, they get names relative to the new one.
    """
    before = base_folder.find(writer.directory, writer.connection)
    after = before.path if base is None else str(base)
    if not before.is_found and base is None:
        # What is recorded stays, so that they are found if their disk is there again.
        _log.warning(
            "The files of this index are no longer below %s; if their folder has moved, name it "
            "with --base.",
            before.path,
        )
        return after
    setting = base_folder.recorded(writer.directory, Path(after))
    if setting == catalog.setting(writer.connection, records.BASE):
        return after
    covered = catalog.last_covered(writer.connection, space.chunking.id)
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
            pending[name] = base_folder.name_beneath(after, path)
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
        there, here = (
            base_folder.count_there(after, relative),
            base_folder.count_there(before, relative),
        )
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

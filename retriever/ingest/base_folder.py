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
    """Record the folder that names of files are relative to, and return it.

    If the files are found under their names below the new base, their folder has moved, and names
    stay as they are. If they are still below the old base, they are renamed relative to the new.

    Args:
        writer: The index.
        space: The space that is searched.
        base: The new base; None keeps the recorded one.
    """
    before = base_folder.find(writer.directory, writer.connection)
    after = before.path if base is None else str(base)
    if not before.is_found and base is None:
        # Keep what is recorded: the files may be on a disk that is mounted again later.
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
    """Yield old and new names, ordered so that a new name is free by the time it is given."""
    known = list(catalog.file_rows(connection))
    is_moved = _have_moved([row for row in known if not row.path.startswith(b"/")], before, after)
    old, new = os.fsencode(before), os.fsencode(after)
    places = {row.path: os.path.join(old, row.path) for row in known}  # noqa: PTH118
    found = {name for name, path in places.items() if os.path.lexists(path)}
    if not is_moved and any(not name.startswith(b"/") for name in found):
        # The others are gone from the old folder. Under their names of now they would be files of
        # the new one, and would stay when the old one is pruned.
        found |= {n for n in places if not os.path.lexists(os.path.join(new, n))}  # noqa: PTH118
    pending: dict[bytes, bytes] = {}
    for name, path in places.items():
        if (name.startswith(b"/") or not is_moved) and name in found:
            pending[name] = base_folder.name_beneath(after, path)
    pending = {old: new for old, new in pending.items() if old != new}
    # Relative names all gain or lose the same prefix, so no two files exchange their names, and
    # something is always ready.
    while pending:
        ready = [old for old, new in pending.items() if new not in pending]
        yield from ((old, pending.pop(old)) for old in ready)


def _have_moved(rows: list[FileRow], before: str, after: str) -> bool:
    """Return whether files are found under their names below a new base.

    A sample is compared by content; if no content can be compared, names alone decide.
    """
    some = rows[:: max(1, len(rows) // _SAMPLE)]
    there, here = (sum(_holds(base, row) for row in some) for base in (after, before))
    if not there and not here:
        relative = [row.path for row in rows]
        there, here = (
            base_folder.count_there(after, relative),
            base_folder.count_there(before, relative),
        )
    # If both folders hold the files, as after a copy, the new one counts: the caller has named it.
    return 0 < there >= here


def _holds(base: str, row: FileRow) -> bool:
    """Return whether a folder holds a file under its name, with the content that was indexed."""
    from retriever.documents import sources

    path = os.path.join(os.fsencode(base), row.path)  # noqa: PTH118
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return False
    found = sources.digest(path, status, _MOST_HASHED)
    return found is not None and found == row.sha256

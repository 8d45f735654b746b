"""The files of an index: their names, and what may be at those names.

Only names are known here; `files` writes what is at them, `head_file` what is in HEAD.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from retriever.errors import IndexCorrupt, IndexNotFound
from retriever.regular_files import kind_of

FORMAT = 3
DATABASE = "store.db"
HEAD = "HEAD"
LOCK = "LOCK"
QUARANTINE = "quarantine"
IGNORE = ".gitignore"
TEMPORARY = ".tmp"
IS_TEMPORARY = re.compile(r"(HEAD|\.gitignore|segment-.+|repair)\.[0-9a-f]{8}\.tmp").fullmatch
IS_WAITING = re.compile(rf"{LOCK}-[0-9]{{20}}-[0-9a-f]{{8}}", re.ASCII).fullmatch
SEGMENT = "segment-"
PENDING = "pending-"
IS_PENDING = re.compile(rf"{PENDING}[0-9a-f]{{16}}\.vectors", re.ASCII).fullmatch
LOG = f"{DATABASE}-wal"
JOURNAL = f"{DATABASE}-journal"
DATABASE_FILES = (DATABASE, LOG, f"{DATABASE}-shm", JOURNAL)
# The kind of a segment determines the suffixes of its files.
SEGMENT_FILE = re.compile(
    r"(segment-([0-9]{12,18})-[0-9a-f]{12})\.[a-z0-9]{1,16}", re.ASCII
).fullmatch
REPAIRED = "repaired-"
_IS_REPAIRED = re.compile(rf"{REPAIRED}[0-9a-f]{{8}}").fullmatch
MAX_SEQ = 1 << 62
MAX_FORMAT = (1 << 31) - 1  # SQLite's `user_version`, a signed 32-bit integer, is one more


def require_directory(directory: Path) -> None:
    """Refuse an index that was removed, or moved away, since it was opened.

    Raises:
        IndexNotFound: The path no longer exists.
    """
    if not directory.is_dir():
        raise IndexNotFound(
            f"{directory} no longer exists: the index was removed or moved.",
            hint="Open it at its new path, or create it again.",
        )


def require_regular(directory: Path, *names: str) -> dict[str, os.stat_result]:
    """Refuse to use files of the index that are links, pipes, devices or directories.

    Opening such a file could hang, or read or change a file outside the index.

    Returns:
        The `stat` result of each file that exists.

    Raises:
        IndexCorrupt: A file is not regular; the error names it.
    """
    found = {}
    for name in names:
        path = f"{directory}/{name}"
        try:
            seen = os.lstat(path)
        except OSError:
            continue
        if not stat.S_ISREG(seen.st_mode):
            raise IndexCorrupt(
                f"{path} is {kind_of(seen.st_mode)}; an index has only regular files there.",
                path=str(directory),
                check="files",
                repair=False,
                hint="Move it away, then run `retriever verify`; or restore a backup.",
            )
        found[name] = seen
    return found


def is_directory(path: Path) -> bool:
    """Return whether a path is a directory itself, not a link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def is_being_replaced(directory: Path) -> bool:
    """Return whether a repair is replacing the database, or was interrupted before that."""
    try:
        with os.scandir(directory) as entries:
            return any(entry.name.startswith(REPAIRED) for entry in entries)
    except OSError:
        return False


def is_repaired_copy(path: Path) -> bool:
    """Return whether a path is a finished copy that an interrupted repair left."""
    return _IS_REPAIRED(path.name) is not None and is_directory(path)

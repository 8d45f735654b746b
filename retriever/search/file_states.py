"""Whether the file of a hit has changed since it was indexed."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.documents.stamps import FileStamp
from retriever.storage import base_folder
from retriever.storage.base_folder import Base

if TYPE_CHECKING:
    import sqlite3

    from retriever.storage.records import FileRow
    from retriever.types import FileState

_MOST_HASHED = 16_000_000
_REMEMBERED = 10_000


class FileStates:
    """The states of files of an index, found with one `stat` for each requested file.

    Thread-safe.

    Args:
        directory: The index.
        base: The folder that names are relative to; None uses the one that the index records.
    """

    def __init__(self, directory: Path, base: Path | None) -> None:
        self.directory = directory
        self._base = base
        self._found: tuple[bytes, Base] | None = None
        self._compared: dict[bytes, tuple[FileStamp, bytes | None, FileState | None]] = {}

    def base(self, connection: sqlite3.Connection, chain: bytes | None = None) -> Base:
        """Return the folder that file names are relative to.

        Args:
            connection: Inside a read transaction.
            chain: The chain of the newest commit, by which the folder is cached; None to find it
                anew.
        """
        if self._base is not None:
            return Base(str(self._base))
        known = self._found
        if known is None or chain is None or known[0] != chain:
            found = base_folder.find(self.directory, connection)
            known = self._found = (chain or b"", found)
        return known[1]

    def of(
        self, connection: sqlite3.Connection, chain: bytes, files: Collection[FileRow]
    ) -> dict[FileRow | None, FileState | None]:
        """Return the state of each file; None for a file whose state is unknown."""
        if not files:
            return {}
        base = self.base(connection, chain)
        if not base.is_found:
            return {}
        folder = os.fsencode(base.path) + b"/"
        return {
            row: self._state(row.path if row.path[:1] == b"/" else folder + row.path, row)
            for row in files
        }

    def _state(self, path: bytes, row: FileRow) -> FileState | None:
        try:
            status = os.stat(path)  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            return "gone"
        # Other errors, such as a lack of permission, do not say whether the file is there.
        except (OSError, ValueError):
            return None
        # Compared field by field first: building a stamp takes longer than the `stat` itself.
        if (
            status.st_ctime_ns == row.ctime_ns
            and status.st_mtime_ns == row.mtime_ns
            and status.st_size == row.size
            and status.st_ino == row.inode
            and row.state == "indexed"
        ):
            return "unchanged"
        stamp = FileStamp.of(status)
        if row.state == "indexed" and row.stamp == stamp:
            return "unchanged"
        if not stat.S_ISREG(status.st_mode):
            return "changed"
        known = self._compared.get(path)
        if known is None or known[:2] != (stamp, row.sha256):
            if len(self._compared) >= _REMEMBERED:
                self._compared.clear()
            known = self._compared[path] = (stamp, row.sha256, _compare(path, status, stamp, row))
        return known[2]


def _compare(
    path: bytes, status: os.stat_result, stamp: FileStamp, row: FileRow
) -> FileState | None:
    """Compare the content of a file whose stamp differs, since it may only have been copied.

    A file of over 16 MB is compared by size and time alone.
    """
    if row.state == "indexed" and row.size is not None:
        if row.size != stamp.size:
            return "changed"
        if stamp.size > _MOST_HASHED:
            return "unchanged" if row.mtime_ns == stamp.mtime_ns else "changed"
    # Imported here, because most searches compare no content and need not pay for it.
    from retriever.documents import sources

    found = sources.digest(path, status, _MOST_HASHED)
    if found is None:
        return None
    return "unchanged" if found == row.sha256 else "changed"

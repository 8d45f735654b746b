"""A cache of the vectors of large documents that are not committed yet.

It keeps an interrupted call from encoding a long document twice. There is one file for each
encoder, of records of text hash, vector and CRC, appended as the encoder returns them and looked up
by text hash. Damaged records are ignored, and losing the file costs only time, so it is never
synced. Records are removed when their document is committed; those of a document that never was
are removed by `compact`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from retriever import regular_files
from retriever.storage import checksums, files, layout
from retriever.storage.records import Space
from retriever.storage.waiting import no_fork

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HASH = checksums.HASH_BYTES
_CRC = 4
_log = logging.getLogger("retriever")


class PendingVectors:
    """The uncommitted vectors of one encoder; only the writer may use it."""

    def __init__(self, directory: Path, space: Space) -> None:
        self._path = directory / f"{layout.PENDING}{space.content[:8].hex()}.vectors"
        self._size = _HASH + 4 * space.dimension + _CRC
        self._there: dict[bytes, int] | None = None
        self._kept: set[bytes] = set()  # appended by this call, from `_begin` on
        self._begin: int | None = None

    def find(self, names: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """Return the vectors of texts by hash; texts without a valid record are left out."""
        if self._there is None:
            self._there = self._read()
        there = self._there
        wanted = [name for name in names if name in there]
        found: dict[bytes, NDArray[np.float32]] = {}
        if not wanted:
            return found
        with suppress(OSError), no_fork:
            descriptor = regular_files.open_regular(self._path)
            try:
                for name in wanted:
                    record = os.pread(descriptor, self._size, there[name])
                    vector = self._vector(record)
                    if vector is not None and record[:_HASH] == name:
                        found[name] = vector
            finally:
                os.close(descriptor)
        return found

    def keep(self, names: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Append vectors, one row for each hash; a failure is only logged."""
        data = np.ascontiguousarray(vectors, dtype="<f4")
        records = []
        for name, vector in zip(names, data, strict=True):
            record = name + vector.tobytes()
            records.append(record + crc32(record).to_bytes(_CRC, "little"))
        try:
            with no_fork:
                position = files.append(self._path, b"".join(records), self._size)
        except OSError as exc:
            _log.debug("%s: uncommitted vectors cannot be cached: %s", self._path, exc.strerror)
            if exc.errno in files.DISK_FULL:  # leave the space that remains to the commit
                files.drop(self._path)
            return
        if self._begin is None or position < self._begin:
            self._begin = position
        self._kept.update(names)
        self._there = self._there or {}
        self._there.update((n, position + i * self._size) for i, n in enumerate(names))

    def discard(self, names: Iterable[bytes]) -> None:
        """Forget texts whose vectors are committed, and remove records that are no longer needed.

        The file is truncated to what it held before this call once all records of this call are
        committed. Records of an earlier, interrupted call may remain in front.
        """
        if not self._there:
            return
        for name in names:
            self._there.pop(name, None)
            self._kept.discard(name)
        if not self._there:
            files.drop(self._path)
        elif self._begin is not None and not self._kept:
            files.cut(self._path, self._begin)
        else:
            return
        self._begin = None

    def _read(self) -> dict[bytes, int]:
        there = {}
        with suppress(OSError), no_fork:
            descriptor = regular_files.open_regular(self._path)
            try:
                for position in range(0, os.fstat(descriptor).st_size, self._size):
                    there[os.pread(descriptor, _HASH, position)] = position
            finally:
                os.close(descriptor)
        return there

    def _vector(self, record: bytes) -> NDArray[np.float32] | None:
        whole = len(record) == self._size
        if not whole or crc32(record[:-_CRC]) != int.from_bytes(record[-_CRC:], "little"):
            return None
        vector = np.frombuffer(record[_HASH:-_CRC], "<f4")
        return vector if abs(float(np.linalg.norm(vector)) - 1) < 1e-3 else None


def remove_all(directory: Path) -> None:
    """Remove the caches of all encoders, so that no byte of uncommitted documents is left."""
    for path in list(directory.iterdir()):
        if layout.IS_PENDING(path.name):
            files.drop(path)

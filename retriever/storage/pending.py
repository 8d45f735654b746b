"""Vectors of a large document that is not committed yet, so that an interrupt costs little.

A cache beside the database: one file for each encoder, of records of text hash, vector and CRC,
appended as the encoder returns them and found again by text hash. A record that is damaged is none,
and losing the file costs only time. Records go as soon as their document is committed; those of a
document that was given up, and the file with them, go with `compact`. It is never
synced.
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
    """The vectors of one encoder that no document holds yet; for whoever has the right to write."""

    def __init__(self, directory: Path, space: Space) -> None:
        self._path = directory / f"{layout.PENDING}{space.content[:8].hex()}.vectors"
        self._size = _HASH + 4 * space.dimension + _CRC
        self._there: dict[bytes, int] | None = None
        self._kept: set[bytes] = set()  # by this call, from a position on
        self._begin: int | None = None

    def find(self, names: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """Return the vectors of texts, by hash, as far as they are here and sound."""
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
        """Add vectors, rows in the order of the hashes; a failure is only told."""
        data = np.ascontiguousarray(vectors, dtype="<f4")
        records = []
        for name, vector in zip(names, data, strict=True):
            record = name + vector.tobytes()
            records.append(record + crc32(record).to_bytes(_CRC, "little"))
        try:
            with no_fork:
                position = files.append(self._path, b"".join(records), self._size)
        except OSError as exc:
            _log.debug("%s: what is encoded is not kept ahead: %s", self._path, exc.strerror)
            if exc.errno in files.DISK_FULL:  # what there is, the commit may need
                files.drop(self._path)
            return
        if self._begin is None or position < self._begin:
            self._begin = position
        self._kept.update(names)
        self._there = self._there or {}
        self._there.update((n, position + i * self._size) for i, n in enumerate(names))

    def discard(self, names: Iterable[bytes]) -> None:
        """Note texts whose vectors are committed; what the file holds of no others goes.

        Only vectors of an earlier call that was cut short may be left, in front.
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
    """Remove what is kept of documents that are not committed, so that no byte of it is left."""
    for path in list(directory.iterdir()):
        if layout.IS_PENDING(path.name):
            files.drop(path)

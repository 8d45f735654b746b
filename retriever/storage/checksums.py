"""Checksums of rows: what a row's `crc` covers and what it adds to `live_sum`.

The canonical bytes of a row are its table's name, followed by a JSON array of its columns. The key
is one of the columns, so that both a changed value and a row moved to another key are detected.
The last column of a table may be a payload (a text, vectors): it is left out of the array and
appended as raw bytes. `crc` is the CRC-32 of these bytes; a row's digest is their SHA-256 as a
number. The sum of the digests of all live rows, modulo 2²⁵⁶, is the commit's `live_sum`: adding a
row adds its digest, deleting a row subtracts it (as in wal3's setsum). The sum does not depend on
the order of rows and is updated in constant time for each changed row.
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any
from zlib import crc32

MODULUS = 1 << 256
HASH_BYTES = 16

# `default` is called for values that JSON has no type for: columns of bytes.
_encode = json.JSONEncoder(
    ensure_ascii=True, separators=(",", ":"), allow_nan=False, default=bytes.hex
).encode


def pack(table: str, *columns: Any) -> bytes:
    """Return the canonical bytes of a row; columns of bytes are written in hexadecimal."""
    return f"{table}{_encode(columns)}".encode("ascii")


def crc(packed: bytes, payload: bytes = b"") -> int:
    """Return the CRC-32 of a row's canonical bytes and its payload."""
    return crc32(payload, crc32(packed))


def digest(packed: bytes, payload: bytes = b"") -> int:
    """Return the number that a live row adds to `live_sum`."""
    return int.from_bytes(hashlib.sha256(packed + payload).digest())


def text_hash(text: str) -> bytes:
    """Return the hash of an encoded text, by which equal texts share an embedding."""
    return hashlib.sha256(text.encode()).digest()[:HASH_BYTES]


def chain(previous: bytes, seq: int, n_added: int, n_deleted: int, live_sum: bytes) -> bytes:
    """Return a commit's chain value: SHA-256(previous ‖ seq ‖ counts ‖ live_sum)."""
    counts = struct.pack("<qqq", seq, n_added, n_deleted)
    return hashlib.sha256(previous + counts + live_sum).digest()

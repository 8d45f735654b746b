"""Checksums of rows: what a row's `crc` covers and what it adds to `live_sum`.

The canonical bytes of a row are its table's name, followed by a JSON array of its columns. The key
is one of them, so that neither a changed column nor a row that moved to another key goes unnoticed.
The last column of a table may be a payload (a text, vectors): it is not part of the array and
follows it as it is. `crc` is the CRC-32 of these bytes, a row's digest is their SHA-256 as a
number. The digests of all live rows add up, modulo 2²⁵⁶, to the commit's `live_sum`: adding a row
adds its digest, deleting it subtracts the same one (as in wal3's setsum).
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any
from zlib import crc32

MODULUS = 1 << 256
HASH_BYTES = 16

# `default` is called for what JSON does not know, which are the columns of bytes.
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
    """Return what a live row contributes to `live_sum`."""
    return int.from_bytes(hashlib.sha256(packed + payload).digest())


def text_hash(text: str) -> bytes:
    """Return the hash by which equal encoded texts share an embedding."""
    return hashlib.sha256(text.encode()).digest()[:HASH_BYTES]


def chain(previous: bytes, seq: int, n_added: int, n_deleted: int, live_sum: bytes) -> bytes:
    """Return a commit's link: SHA-256(previous ‖ seq ‖ counts ‖ live_sum)."""
    counts = struct.pack("<qqq", seq, n_added, n_deleted)
    return hashlib.sha256(previous + counts + live_sum).digest()

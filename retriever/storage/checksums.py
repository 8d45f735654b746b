"""Checksums of rows: what a row's `crc` covers and what it adds to `live_sum`.

A row is turned into bytes as a JSON array of its logical content, with its own key in it, so
that neither a changed field nor a row that moved to another key goes unnoticed. `crc` is the
CRC-32 of those bytes; a digest is their SHA-256 as a number, followed by the text or vector
they stand for. Digests of all live rows add up, modulo 2²⁵⁶, to the commit's `live_sum`: adding
a row adds its digest, deleting it subtracts the same one (as in wal3's setsum).
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any
from zlib import crc32

MODULUS = 1 << 256
HASH_BYTES = 16

_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode


def pack(kind: str, *fields: Any) -> bytes:
    """Return the canonical bytes of a row; bytes fields are written in hexadecimal."""
    plain = [field.hex() if isinstance(field, bytes) else field for field in fields]
    return f"{kind}{_encode(plain)}".encode("ascii")


def digest(packed: bytes, payload: bytes = b"") -> int:
    """Return what a live row contributes to `live_sum`."""
    return int.from_bytes(hashlib.sha256(packed + payload).digest())


def keyed_crc(key: int, data: bytes) -> int:
    """Return the CRC-32 of a blob and the key it is stored under."""
    return crc32(data, crc32(struct.pack("<q", key)))


def text_hash(text: str) -> bytes:
    """Return the hash by which equal encoded texts share an embedding."""
    return hashlib.sha256(text.encode()).digest()[:HASH_BYTES]


def chain(previous: bytes, seq: int, n_added: int, n_deleted: int, live_sum: bytes) -> bytes:
    """Return a commit's link: SHA-256(previous ‖ seq ‖ counts ‖ live_sum)."""
    counts = struct.pack("<qqq", seq, n_added, n_deleted)
    return hashlib.sha256(previous + counts + live_sum).digest()

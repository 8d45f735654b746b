"""HEAD: the witness of the last acknowledged commit, in a file of its own.

It is published after COMMIT, so a database that ends before the commit that HEAD names has lost
data: an older copy of it was put back, or the disk forgot what it had said was synced.
"""

from __future__ import annotations

import json
import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retriever.errors import DataLoss, IndexCorrupt, StorageError
from retriever.regular_files import open_regular
from retriever.storage import catalog
from retriever.storage.files import Sink, publish
from retriever.storage.layout import FORMAT, HEAD, MAX_FORMAT, MAX_SEQ, require_regular

if TYPE_CHECKING:
    import sqlite3

    from retriever.storage.records import Commit

_MAX_HEAD = 4096


class Head(NamedTuple):
    """The last acknowledged commit.

    Attributes:
        seq: Its number.
        chain: Its link in the chain of commits, 32 bytes; see `checksums.chain`.
    """

    seq: int
    chain: bytes


def _head_crc(number: int, seq: int, chain: str) -> int:
    return zlib.crc32(f"{number} {seq} {chain}".encode())


def _write(sink: Sink, line: str) -> None:
    sink(line.encode())


def write_head(directory: Path, head: Head, *, durable: bool = False) -> None:
    """Publish HEAD; `durable` is what `WriteFailed.durable` says if this fails."""
    chain = head.chain.hex()
    crc = _head_crc(FORMAT, head.seq, chain)
    line = json.dumps({"format": FORMAT, "seq": head.seq, "chain": chain, "crc": crc}) + "\n"
    publish(directory, HEAD, lambda sink: _write(sink, line), durable=durable)


def read_head(directory: Path) -> Head | None:
    """Return the last acknowledged commit, or None where there is no HEAD.

    Whether the database is of our format must have been checked before.

    Raises:
        IndexCorrupt: HEAD is not as it was written, of another format than the database, or no
            regular file.
        StorageError: It cannot be read.
    """
    found = _read_any_head(directory)
    if found is None:
        return None
    number, head = found
    if number != FORMAT:
        raise IndexCorrupt(
            f"{directory / HEAD} is of format {number}, the database of format {FORMAT}.",
            path=str(directory),
            check="head",
        )
    return head


def format_of_head(directory: Path) -> int | None:
    """Return the format that HEAD names, or None where there is no sound HEAD."""
    with suppress(StorageError):
        found = _read_any_head(directory)
        return found[0] if found else None
    return None


def _read_any_head(directory: Path) -> tuple[int, Head] | None:
    """Return the format that HEAD names and what it says; the line is the same in every format."""
    path = directory / HEAD
    try:
        with os.fdopen(open_regular(path), "rb", buffering=0) as file:
            raw = file.read(_MAX_HEAD + 1)
    except FileNotFoundError:
        return None
    except OSError as exc:
        require_regular(directory, HEAD)
        raise StorageError(
            f"{path} cannot be read: {exc.strerror}.", hint="Check its permissions."
        ) from exc
    damaged = IndexCorrupt(
        f"{path} is damaged: its checksum does not match.", path=str(directory), check="head"
    )
    try:
        found = json.loads(raw if len(raw) <= _MAX_HEAD else b"")
        number, seq = found["format"], found["seq"]
        chain, crc = found["chain"], found["crc"]
        link = bytes.fromhex(chain)
        # The checksum covers the values but not the end of the line.
        is_sound = type(number) is int and 0 <= number < MAX_FORMAT and raw.endswith(b"}\n")
        is_sound = is_sound and type(seq) is int and 0 <= seq < MAX_SEQ
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise damaged from exc
    if not is_sound or crc != _head_crc(number, seq, chain):
        raise damaged
    return number, Head(seq, link)


def missing_commits(directory: Path, head: Head, seq: int) -> DataLoss:
    """Return the error for a database that does not hold what HEAD acknowledged."""
    return DataLoss(
        f"{directory} has lost data: commit {head.seq} was acknowledged, but the database ends "
        f"at commit {seq} or holds another history.",
        hint="Restore a backup, or keep what is left with "
        f"`retriever repair --accept-loss -i {directory}`.",
    )


def check_head(directory: Path, head: Head | None, connection: sqlite3.Connection) -> Commit | None:
    """Compare HEAD with the database; return the newest commit if HEAD does not name it.

    HEAD is written after COMMIT, so it may be older than the database but never newer. That holds
    only if HEAD was read before the connection's snapshot began: read later, it could name a
    commit that was made in between.

    Raises:
        DataLoss: HEAD names a commit that the database does not hold, or another history.
        IndexCorrupt: HEAD is missing.
    """
    last = catalog.last_commit(connection)
    if head is None:
        if last.seq == 0:
            return last
        raise IndexCorrupt(
            f"{directory / HEAD} is missing; without it, lost commits cannot be detected.",
            path=str(directory),
            check="head",
        )
    if last.seq < head.seq or catalog.chain_at(connection, head.seq) != head.chain:
        raise missing_commits(directory, head, last.seq)
    return last if last.seq > head.seq else None

"""The only module that opens index files for writing, and the names of those files.

Every durable byte outside SQLite passes through here, in one of two ways: published (written
under a temporary name, synced, renamed, directory synced) or moved. Nothing is ever rewritten
in place, so a reader sees a whole file or none.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeAlias

from retriever.errors import DataLoss, IndexCorrupt, IndexReadOnly, StorageError, WriteFailed

FORMAT = 0
DATABASE = "store.db"
HEAD = "HEAD"
LOCK = "LOCK"
QUARANTINE = "quarantine"
IGNORE = ".gitignore"
TEMPORARY = ".tmp"
IS_TEMPORARY = re.compile(r"(HEAD|\.gitignore|segment-.+|repair)\.[0-9a-f]{8}\.tmp").fullmatch
SEGMENT = "segment-"
DATABASE_FILES = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal")

Sink: TypeAlias = Callable[[bytes | memoryview], int]


class Stamp(NamedTuple):
    """What `stat` says of a file; while it stays equal, the bytes are taken to be unchanged."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Return the stamp of a file. Raises OSError when it cannot be had."""
        seen = path.stat(follow_symlinks=False)
        return cls(seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)


class Published(NamedTuple):
    """A file as it was when it was published."""

    name: str
    size: int
    sha256: str
    stamp: Stamp


class Head(NamedTuple):
    """The witness of the last acknowledged commit."""

    seq: int
    chain: bytes


@contextmanager
def write_errors(path: Path, *, durable: bool = False) -> Iterator[None]:
    """Turn an OSError of a write into `WriteFailed`, or `IndexReadOnly` where that is the cause.

    A failed fsync is never retried: the kernel may already have dropped the pages.
    """
    try:
        yield
    except OSError as exc:
        if exc.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise WriteFailed(
                f"Writing {path} failed: {exc.strerror or exc}.",
                hint="Free space or mend the disk, then repeat the call; "
                "what was committed is safe.",
                durable=durable,
            ) from exc
        raise IndexReadOnly(
            f"{path} cannot be written: {exc.strerror}.",
            hint="Change the permissions of the index directory, or write to another one.",
        ) from exc


def sync_directory(directory: Path) -> None:
    """Make renames and unlinks in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create_private(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def publish(
    directory: Path, name: str, write: Callable[[Sink], None], *, durable: bool = False
) -> Published:
    """Write a file so that after a power cut it is there whole, or not at all.

    Args:
        directory: Where; it must exist.
        name: The final name; an existing file of that name is replaced.
        write: Called with a sink that takes bytes.
        durable: What `WriteFailed.durable` says if this fails.

    Raises:
        WriteFailed: The disk refused; the temporary file is gone and the old file untouched.
        IndexReadOnly: The directory cannot be written.
    """
    path = directory / name
    temporary = directory / f"{name}.{secrets.token_hex(4)}{TEMPORARY}"
    digest = hashlib.sha256()
    size = 0
    with write_errors(path, durable=durable):
        try:
            with os.fdopen(_create_private(temporary), "wb") as file:

                def sink(data: bytes | memoryview) -> int:
                    nonlocal size
                    digest.update(data)
                    file.write(data)
                    size += len(data)
                    return len(data)

                write(sink)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_directory(directory)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        return Published(name, size, digest.hexdigest(), Stamp.of(path))


def _write_all(sink: Sink, data: bytes) -> None:
    sink(data)


def _head_body(seq: int, chain: str) -> str:
    return f"{FORMAT} {seq} {chain}"


def write_head(directory: Path, head: Head) -> None:
    """Publish HEAD. Called after COMMIT: a failure here leaves the commit durable."""
    chain = head.chain.hex()
    crc = zlib.crc32(_head_body(head.seq, chain).encode())
    line = json.dumps({"format": FORMAT, "seq": head.seq, "chain": chain, "crc": crc}) + "\n"
    publish(directory, HEAD, lambda sink: _write_all(sink, line.encode()), durable=True)


def read_head(directory: Path) -> Head | None:
    """Return the last acknowledged commit, or None where there is no HEAD.

    Raises:
        IndexCorrupt: HEAD is not as it was written.
    """
    path = directory / HEAD
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise StorageError(
            f"{path} cannot be read: {exc.strerror}.", hint="Check its permissions."
        ) from exc
    damaged = IndexCorrupt(
        f"{path} is damaged: its checksum does not match.", path=str(directory), check="head"
    )
    try:
        found = json.loads(raw)
        seq, chain, crc = found["seq"], found["chain"], found["crc"]
        head = Head(int(seq), bytes.fromhex(chain))
    except (ValueError, KeyError, TypeError) as exc:
        raise damaged from exc
    if crc != zlib.crc32(_head_body(seq, chain).encode()) or not raw.endswith(b"}\n"):
        raise damaged
    return head


def missing_commits(directory: Path, head: Head, seq: int) -> DataLoss:
    """Return the error for a database that does not hold what HEAD acknowledged."""
    return DataLoss(
        f"{directory} has lost data: commit {head.seq} was acknowledged, but the database ends "
        f"at commit {seq} or holds another history.",
        hint="Restore a backup, or keep what is left with "
        f"`retriever repair --accept-loss -i {directory}`.",
    )


def make_directory(directory: Path) -> None:
    """Create an index directory, private to its user, and make that durable."""
    with write_errors(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        ignore = directory / IGNORE
        if not ignore.exists():
            publish(directory, IGNORE, lambda sink: _write_all(sink, b"*\n"))
        sync_directory(directory.parent)


def open_lock(directory: Path) -> int:
    """Return a descriptor of LOCK, created if need be; never inherited by child programs."""
    with write_errors(directory / LOCK):
        return os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def remove(directory: Path, names: list[str]) -> None:
    """Unlink files that nothing refers to; names already gone are fine."""
    with write_errors(directory, durable=True):
        for name in names:
            if (directory / name).is_dir():
                shutil.rmtree(directory / name)
            else:
                (directory / name).unlink(missing_ok=True)
        if names:
            sync_directory(directory)


def quarantine(directory: Path, name: str, *, keep: bool = False) -> str:
    """Move a file to `quarantine/` under a name never used before; return that name.

    With `keep` the file also stays where it is (a hard link), to be replaced by rename.
    """
    aside = directory / QUARANTINE
    target = aside / f"{name}.{secrets.token_hex(4)}"
    with write_errors(target):
        aside.mkdir(mode=0o700, exist_ok=True)
        if keep:
            os.link(directory / name, target)
        else:
            (directory / name).rename(target)
        sync_directory(aside)
        sync_directory(directory)
    return f"{QUARANTINE}/{target.name}"


def replace(directory: Path, temporary: str, name: str) -> None:
    """Rename a finished, closed file into place and make that durable."""
    with write_errors(directory / name):
        descriptor = os.open(directory / temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        (directory / temporary).replace(directory / name)
        sync_directory(directory)


def hash_file(path: Path) -> tuple[int, str]:
    """Return a file's size and SHA-256. Never call it on the database: see `connections`."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return file.tell(), digest.hexdigest()


def copy_file(source: Path, target_directory: Path, name: str) -> Published:
    """Publish a copy of an immutable file in another directory.

    Raises:
        OSError: `source` cannot be opened.
        WriteFailed, IndexReadOnly: As `publish`.
    """
    with source.open("rb") as file:

        def write(sink: Sink) -> None:
            while block := file.read(1 << 20):
                sink(block)

        return publish(target_directory, name, write)


def segment_name(seq: int) -> str:
    """Return a name, without suffix, that no segment has ever had."""
    return f"{SEGMENT}{seq:012d}-{secrets.token_hex(6)}"

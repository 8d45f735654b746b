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
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeAlias

if sys.platform != "win32":
    import fcntl

from retriever.errors import (
    DataLoss,
    IndexCorrupt,
    IndexNotFound,
    IndexReadOnly,
    StorageError,
    WriteFailed,
)

FORMAT = 2
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
# Which suffixes there are is the business of the kind of segment.
SEGMENT_FILE = re.compile(
    r"(segment-([0-9]{12,18})-[0-9a-f]{12})\.[a-z0-9]{1,16}", re.ASCII
).fullmatch
REPAIRED = "repaired-"
_IS_REPAIRED = re.compile(rf"{REPAIRED}[0-9a-f]{{8}}").fullmatch
MAX_SEQ = 1 << 62
MAX_FORMAT = (1 << 31) - 1  # `user_version` is a signed number of 32 bits, one more
# What this process may not do, or has no descriptor left for: it says nothing of the file.
REFUSED = {errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM}
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_MAX_HEAD = 4096
# Each is missing on some system; Windows has O_BINARY only.
_SAFELY = 0
for _flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
    _SAFELY |= getattr(os, _flag, 0)
_FULL_SYNC: int | None = None if sys.platform == "win32" else getattr(fcntl, "F_FULLFSYNC", None)
_NO_FULL_SYNC = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY}
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}

Sink: TypeAlias = Callable[[bytes | memoryview], int]


class Stamp(NamedTuple):
    """What `stat` says of a file; while it stays equal, the bytes are taken to be unchanged."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Return the stamp of a regular file. Raises OSError when it cannot be had."""
        seen = path.stat(follow_symlinks=False)
        if not stat.S_ISREG(seen.st_mode):
            raise OSError(errno.EINVAL, f"{path.name} is {_kind(seen.st_mode)}")
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

    After the commit point, `durable`, it is always `WriteFailed`, which says so. A failed fsync
    is never retried: the kernel may already have dropped the pages.
    """
    try:
        yield
    except OSError as exc:
        if durable or exc.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
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


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "a device")


def require_directory(directory: Path) -> None:
    """Refuse an index that was removed, or moved away, since it was opened.

    Raises:
        IndexNotFound: Nothing is at the path any more.
    """
    if not directory.is_dir():
        raise IndexNotFound(
            f"{directory} is not there any more: the index was removed or moved.",
            hint="Open it at its new place, or create it again.",
        )


def require_regular(directory: Path, *names: str) -> dict[str, os.stat_result]:
    """Refuse to use files of the index that are links, pipes, devices or directories.

    Opening such a file could hang, or read and change what lies outside of the index.

    Returns:
        What `stat` says of each file that is there.

    Raises:
        IndexCorrupt: One is; names it.
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
                f"{path} is {_kind(seen.st_mode)}; an index has only regular files there.",
                path=str(directory),
                check="files",
                repair=False,
                hint="Move it away, then run `retriever verify`; or restore a backup.",
            )
        found[name] = seen
    return found


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Return a descriptor of a regular file, never waiting for another process.

    Raises:
        OSError: It is of another kind, a link included, or cannot be opened.
    """
    if not flags & os.O_CREAT:
        Stamp.of(path)  # opening a device may already do something
    descriptor = os.open(path, flags | _SAFELY, 0o600)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"it is {_kind(mode)}")
    return descriptor


def is_directory(path: Path) -> bool:
    """Return whether a path is a directory itself, not a link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def is_being_replaced(directory: Path) -> bool:
    """Return whether a repair is putting, or was going to put, a copy in the database's place."""
    try:
        with os.scandir(directory) as entries:
            return any(entry.name.startswith(REPAIRED) for entry in entries)
    except OSError:
        return False


def is_repaired_copy(path: Path) -> bool:
    """Return whether a path is a finished copy that a repair cut short has left."""
    return _IS_REPAIRED(path.name) is not None and is_directory(path)


def sync(descriptor: int) -> None:
    """Have a file or directory on the disk, whatever the power does.

    On macOS fsync leaves data in the disk's own cache, which F_FULLFSYNC empties; file systems
    that do not know it are left with fsync.
    """
    if _FULL_SYNC is not None:
        try:
            fcntl.fcntl(descriptor, _FULL_SYNC)
        except OSError as exc:
            if exc.errno not in _NO_FULL_SYNC:
                raise  # never to be tried again
        else:
            return
    os.fsync(descriptor)


def sync_directory(directory: Path) -> None:
    """Make renames and unlinks in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def _create_private(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _share(descriptor: int, like: Path) -> None:
    """Give a file the owner and the rights of another, as far as this user may."""
    try:
        wanted, seen = like.stat(follow_symlinks=False), os.fstat(descriptor)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(wanted.st_mode):
        return
    mode = stat.S_IMODE(wanted.st_mode) & 0o666
    if (wanted.st_uid, wanted.st_gid) != (seen.st_uid, seen.st_gid):
        with suppress(OSError):
            os.fchown(descriptor, wanted.st_uid, wanted.st_gid)
        if os.fstat(descriptor).st_gid != wanted.st_gid:
            with suppress(OSError):
                os.fchown(descriptor, -1, wanted.st_gid)
        if os.fstat(descriptor).st_gid != wanted.st_gid:
            mode &= ~0o060  # what one group may read, another may not
    with suppress(OSError):
        os.fchmod(descriptor, mode | 0o600)


def share(path: Path, like: Path) -> None:
    """Give a database that takes another's place its owner and rights, before anybody opens it."""
    descriptor = open_regular(path)
    try:
        _share(descriptor, like)
    finally:
        os.close(descriptor)


def publish(
    directory: Path, name: str, write: Callable[[Sink], None], *, durable: bool = False
) -> Published:
    """Write a file so that after a power cut it is there whole, or not at all.

    Who may read it is as for the file that it replaces, or else for the database.

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
                _share(file.fileno(), path if path.exists() else directory / DATABASE)

                def sink(data: bytes | memoryview) -> int:
                    nonlocal size
                    digest.update(data)
                    file.write(data)
                    size += len(data)
                    return len(data)

                write(sink)
                file.flush()
                sync(file.fileno())
            temporary.replace(path)
            sync_directory(directory)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        return Published(name, size, digest.hexdigest(), Stamp.of(path))


def _write_all(sink: Sink, data: bytes) -> None:
    sink(data)


def _head_crc(number: int, seq: int, chain: str) -> int:
    return zlib.crc32(f"{number} {seq} {chain}".encode())


def write_head(directory: Path, head: Head, *, durable: bool = False) -> None:
    """Publish HEAD; `durable` is what `WriteFailed.durable` says if this fails."""
    chain = head.chain.hex()
    crc = _head_crc(FORMAT, head.seq, chain)
    line = json.dumps({"format": FORMAT, "seq": head.seq, "chain": chain, "crc": crc}) + "\n"
    publish(directory, HEAD, lambda sink: _write_all(sink, line.encode()), durable=durable)


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


def make_directory(directory: Path) -> None:
    """Create an index directory, private to its user, and make that and its parents durable."""
    with write_errors(directory):
        for parent in [path for path in directory.parents if not path.exists()][::-1]:
            parent.mkdir(exist_ok=True)
            sync_directory(parent.parent)
        directory.mkdir(mode=0o700, exist_ok=True)
        ignore = directory / IGNORE
        if not ignore.exists():
            publish(directory, IGNORE, lambda sink: _write_all(sink, b"*\n"))
        sync_directory(directory.parent)


def renew(path: Path) -> None:
    """Write a file's own bytes over themselves and sync it; a file that is not there is fine.

    What can be read need not be on the disk, even if an fsync now says so: a failed one may have
    dropped it. Only bytes written since are covered by the next.
    """
    require_regular(path.parent, path.name)
    with (
        write_errors(path),
        suppress(FileNotFoundError),
        os.fdopen(open_regular(path, os.O_RDWR), "r+b", buffering=0) as file,
    ):
        while block := file.read(1 << 20):
            file.seek(-len(block), os.SEEK_CUR)
            while block:
                block = block[file.write(block) or 0 :]
        sync(file.fileno())


def open_lock(directory: Path) -> int:
    """Return a descriptor of LOCK, created if need be; never inherited by child programs."""
    require_regular(directory, LOCK)
    with write_errors(directory / LOCK):
        return open_regular(directory / LOCK, os.O_RDWR | os.O_CREAT)


def open_place(path: Path) -> int:
    """Return a descriptor of a file of the queue, created if need be.

    Who may write the index must be able to see whether it is locked: it has the rights of LOCK.
    """
    descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
    with suppress(OSError):
        _share(descriptor, path.with_name(LOCK))
    return descriptor


def drop(path: Path) -> None:
    """Unlink a file of no consequence; that it is gone already, or cannot be unlinked, is fine."""
    with suppress(OSError):
        path.unlink()


def append(path: Path, data: bytes, record: int) -> int:
    """Add records of one size to a file, after the last one that is whole; return where.

    Raises:
        OSError: It is no regular file, or the disk is full.
    """
    descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
    try:
        end = os.fstat(descriptor).st_size // record * record
        if os.pwrite(descriptor, data, end) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(descriptor)
    return end


def cut(path: Path, size: int) -> None:
    """Shorten a file of no consequence; that it is gone, or shorter already, is fine."""
    with suppress(OSError):
        descriptor = open_regular(path, os.O_RDWR)
        try:
            if os.fstat(descriptor).st_size > size:
                os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)


def remove(directory: Path, names: list[str], *, durable: bool = False) -> None:
    """Unlink files that nothing refers to; names already gone are fine.

    `durable` is what `WriteFailed.durable` says if this fails.
    """
    with write_errors(directory, durable=durable):
        for name in names:
            if is_directory(directory / name):
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
    if os.path.lexists(aside) and not is_directory(aside):
        raise IndexCorrupt(
            f"{aside} is not a directory, so nothing can be set aside in it.",
            path=str(directory),
            check="files",
            repair=False,
            hint="Move it away, then run `retriever repair` again.",
        )
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
    """Rename a finished, closed file or directory into place and make that durable."""
    path = directory / temporary
    with write_errors(directory / name):
        if is_directory(path):
            sync_directory(path)
        else:
            with os.fdopen(open_regular(path), "rb") as file:
                sync(file.fileno())
        path.replace(directory / name)
        sync_directory(directory)


def hash_file(path: Path) -> tuple[int, str]:
    """Return a file's size and SHA-256. Never call it on the database: see `connections`."""
    with os.fdopen(open_regular(path), "rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return file.tell(), digest.hexdigest()


def copy_file(source: Path, target_directory: Path, name: str) -> Published:
    """Publish a copy of an immutable file in another directory.

    Raises:
        OSError: `source` cannot be opened, or is no regular file.
        WriteFailed, IndexReadOnly: As `publish`.
    """
    with os.fdopen(open_regular(source), "rb") as file:

        def write(sink: Sink) -> None:
            while block := file.read(1 << 20):
                sink(block)

        return publish(target_directory, name, write)


def segment_name(seq: int) -> str:
    """Return a name, without suffix, that no segment has ever had."""
    return f"{SEGMENT}{seq:012d}-{secrets.token_hex(6)}"

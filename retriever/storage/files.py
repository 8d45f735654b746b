"""Durable writes: the only module that creates, renames or removes files of an index.

Every durable byte outside SQLite passes through here. A file is published (written under a
temporary name, synced, renamed, its directory synced) or moved. Files that readers use are never
rewritten in place, so a reader sees a complete file or none.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeAlias

if sys.platform != "win32":
    import fcntl

from retriever.errors import (
    IndexCorrupt,
    IndexReadOnly,
    WriteFailed,
)
from retriever.regular_files import open_regular
from retriever.regular_files import require_regular as stat_regular
from retriever.storage.layout import (
    DATABASE,
    IGNORE,
    LOCK,
    QUARANTINE,
    SEGMENT,
    TEMPORARY,
    is_directory,
    require_regular,
)

# Errors caused by the permissions or limits of this process, which say nothing about the file.
REFUSED = {errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM}
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_SYNC: int | None = None if sys.platform == "win32" else getattr(fcntl, "F_FULLFSYNC", None)
_NO_FULL_SYNC = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY}

Sink: TypeAlias = Callable[[bytes | memoryview], int]


class Stamp(NamedTuple):
    """What `stat` reports for a file. While it stays equal, the bytes are taken as unchanged."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Return the stamp of a regular file.

        Raises:
            OSError: It is missing, not a regular file, or in a directory that cannot be searched.
        """
        seen = stat_regular(path)
        return cls(seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)


class Published(NamedTuple):
    """A file as it was when it was published."""

    name: str
    size: int
    sha256: str
    stamp: Stamp


@contextmanager
def write_errors(path: Path, *, durable: bool = False) -> Iterator[None]:
    """Turn an OSError of a write into `WriteFailed`, or into `IndexReadOnly` for permissions.

    After the commit point (`durable`) it is always `WriteFailed`, whose `durable` is then True. A
    failed fsync is never retried: the kernel may have dropped the dirty pages, so that the second
    fsync succeeds although the data was never written.
    """
    try:
        yield
    except OSError as exc:
        if durable or exc.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise WriteFailed(
                f"Writing {path} failed: {exc.strerror or exc}.",
                hint="Free disk space or repair the disk, then repeat the call; "
                "what was committed is safe.",
                durable=durable,
            ) from exc
        raise IndexReadOnly(
            f"{path} cannot be written: {exc.strerror}.",
            hint="Change the permissions of the index directory, or write to another one.",
        ) from exc


def sync(descriptor: int) -> None:
    """Flush a file or directory to the disk, so that it survives a power cut.

    On macOS fsync leaves data in the disk's own cache, which F_FULLFSYNC flushes. File systems
    without F_FULLFSYNC get fsync.
    """
    if _FULL_SYNC is not None:
        try:
            fcntl.fcntl(descriptor, _FULL_SYNC)
        except OSError as exc:
            if exc.errno not in _NO_FULL_SYNC:
                raise  # a failed fsync is never retried, see `write_errors`
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
    # O_EXCL also refuses a link, which another user may have put there.
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _share(descriptor: int, like: Path) -> None:
    """Give a file the owner and permissions of another, as far as this user is allowed to."""
    try:
        wanted, seen = like.stat(follow_symlinks=False), os.fstat(descriptor)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(wanted.st_mode):
        return
    # The owner is set before the permissions, which would otherwise apply to this user's own group
    # for a moment. A user who may not set the owner may still set a group that they belong to.
    mode = stat.S_IMODE(wanted.st_mode) & 0o666
    if (wanted.st_uid, wanted.st_gid) != (seen.st_uid, seen.st_gid):
        with suppress(OSError):
            os.fchown(descriptor, wanted.st_uid, wanted.st_gid)
        if os.fstat(descriptor).st_gid != wanted.st_gid:
            with suppress(OSError):
                os.fchown(descriptor, -1, wanted.st_gid)
        if os.fstat(descriptor).st_gid != wanted.st_gid:
            mode &= ~0o060  # the permissions were meant for the other file's group
    with suppress(OSError):
        os.fchmod(descriptor, mode | 0o600)


def share(path: Path, like: Path) -> None:
    """Give a new database the owner and permissions of the one that it is about to replace."""
    descriptor = open_regular(path)
    try:
        _share(descriptor, like)
    finally:
        os.close(descriptor)


def publish(
    directory: Path, name: str, write: Callable[[Sink], None], *, durable: bool = False
) -> Published:
    """Write a file so that after a power cut it is complete or absent.

    It gets the permissions of the file that it replaces, or else those of the database.

    Args:
        directory: The directory; it must exist.
        name: The final name; an existing file of that name is replaced.
        write: Called with a sink that takes bytes.
        durable: The value of `WriteFailed.durable` if this fails.

    Raises:
        WriteFailed: Writing failed; the temporary file is removed and the old file unchanged.
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


def make_directory(directory: Path) -> None:
    """Create an index directory, private to its user, and sync it and its parents."""
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
    """Overwrite a file with its own bytes and sync it; a missing file is ignored.

    After a failed fsync the kernel may have marked pages as clean without writing them. They can
    still be read, but the next fsync does not write them: it covers only bytes written since.
    Writing them again makes them dirty again.
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
                # Without a buffer, a write may take only a part of the block.
                block = block[file.write(block) or 0 :]
        sync(file.fileno())


def open_lock(directory: Path) -> int:
    """Return a descriptor of LOCK, created if missing; child programs do not inherit it."""
    require_regular(directory, LOCK)
    with write_errors(directory / LOCK):
        return open_regular(directory / LOCK, os.O_RDWR | os.O_CREAT)


def open_ticket(path: Path) -> int:
    """Return a descriptor of a ticket of the queue, created if missing.

    It gets the permissions of LOCK, because every user who can write the index must be able to
    see whether the ticket is locked.
    """
    descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
    with suppress(OSError):
        _share(descriptor, path.with_name(LOCK))
    return descriptor


def drop(path: Path) -> None:
    """Unlink a file whose loss or survival does no harm; errors are ignored."""
    with suppress(OSError):
        path.unlink()


def append(path: Path, data: bytes, record: int) -> int:
    """Append records of one size after the last complete one; return their offset in bytes.

    Raises:
        OSError: It is not a regular file, or the disk is full.
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
    """Truncate a cache file to a size; a missing or shorter file and errors are ignored."""
    with suppress(OSError):
        descriptor = open_regular(path, os.O_RDWR)
        try:
            if os.fstat(descriptor).st_size > size:
                os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)


def remove(directory: Path, names: list[str], *, durable: bool = False) -> None:
    """Remove files that nothing refers to; missing ones are ignored.

    `durable` is the value of `WriteFailed.durable` if this fails.
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
    """Move a file to `quarantine/` under a new name; return that name.

    With `keep` the file also stays at its path, as a hard link, so that a rename can replace it
    without a moment in which it is missing.
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
        # The new name first: a power cut in between must not leave the file without a name.
        sync_directory(aside)
        sync_directory(directory)
    return f"{QUARANTINE}/{target.name}"


def replace(directory: Path, temporary: str, name: str) -> None:
    """Sync a finished file or directory, rename it to its final name, and sync the parent."""
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
    """Return a file's size and SHA-256. Do not call it on the database; see `connections`."""
    with os.fdopen(open_regular(path), "rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return file.tell(), digest.hexdigest()


def copy_file(source: Path, target_directory: Path, name: str) -> Published:
    """Publish a copy of an immutable file in another directory.

    Raises:
        OSError: `source` cannot be opened, or is not a regular file.
        WriteFailed, IndexReadOnly: As `publish`.
    """
    with os.fdopen(open_regular(source), "rb") as file:

        def write(sink: Sink) -> None:
            while block := file.read(1 << 20):
                sink(block)

        return publish(target_directory, name, write)


def segment_name(seq: int) -> str:
    """Return a new, random name for a segment, without suffix."""
    return f"{SEGMENT}{seq:012d}-{secrets.token_hex(6)}"

"""Read the bytes of files safely: regular files only, within a size, all from one moment."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from retriever.documents.stamps import FileStamp
from retriever.errors import UnreadableFile
from retriever.regular_files import NotRegular, open_regular
from retriever.types import MAX_FILE_SIZE

_READS = 3
# A file that changes twice within a tick of the file system's clock keeps its stamp, so a stamp as
# fresh as this is not recorded. Some file systems keep whole seconds only.
_FRESH_NS = 20_000_000
_FRESH_WHOLE_SECONDS_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file found by a walk.

    Attributes:
        path: Absolute; below the path given to the walk no part of it is a link, unless the walk
            follows links.
        stamp: By which a later change is recognised.
        is_link: Whether it was reached by a link of this name.
    """

    path: Path
    stamp: FileStamp
    is_link: bool = False


class Content(NamedTuple):
    """The bytes of a file, with the stamp by which a later change is recognised.

    `stamp` is None if the file was changed so shortly before it was read that another change could
    leave the same times.
    """

    data: bytes
    stamp: FileStamp | None
    sha256: bytes


def read(found: FoundFile, *, max_file_size: int = MAX_FILE_SIZE) -> Content:
    """Return the bytes of a file, all from one moment.

    Raises:
        UnreadableFile: If it is gone, may not be read, has grown over the size limit, is no longer
            a regular file, or changed each time it was read.
    """
    return read_path(os.fspath(found.path), max_file_size, follow=found.is_link)


def digest(path: bytes, status: os.stat_result, max_size: int) -> bytes | None:
    """Return the SHA-256 of a file's current content, or None if it cannot be read."""
    if not stat.S_ISREG(status.st_mode):
        return None
    try:
        return read_path(os.fsdecode(path), max_size, follow=True).sha256
    except UnreadableFile:
        return None


def read_path(path: str, limit: int, *, follow: bool = False) -> Content:
    """Return the bytes of a file of at most `limit` bytes; see `read`.

    Args:
        path: Where it is.
        limit: In bytes.
        follow: Whether the last part of the path may be a symbolic link.
    """
    for _ in range(_READS):
        if (content := _read_once(path, limit, follow=follow)) is not None:
            return content
    raise UnreadableFile(
        f"{path} changed each time it was read ({_READS} times).",
        path=path,
        hint="Index it again when nothing writes to it.",
    )


def _read_once(path: str, limit: int, *, follow: bool) -> Content | None:
    """Return the bytes of a file; None if it changed meanwhile."""
    began_ns = time.time_ns()
    try:
        descriptor = open_regular(path, follow=follow)
        try:
            before = os.fstat(descriptor)
            _check(path, before, limit)
            with open(descriptor, "rb", closefd=False) as file:
                # One byte more, so that a file that has grown is noticed.
                data = file.read(before.st_size + 1)
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except NotRegular as error:
        raise _not_regular(path, error) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    stamp = FileStamp.of(before)
    if len(data) != before.st_size or stamp != FileStamp.of(after):
        return None
    is_reliable = all(
        _is_old_enough(time_ns, began_ns) for time_ns in (stamp.mtime_ns, stamp.ctime_ns)
    )
    return Content(data, stamp if is_reliable else None, hashlib.sha256(data).digest())


def _check(path: str, status: os.stat_result, limit: int) -> None:
    if status.st_size > limit:
        raise UnreadableFile(
            f"{path} has {status.st_size:,} bytes, over the limit of {limit:,} bytes.",
            path=path,
            hint="Raise the limit with --max-file-size, or split the file.",
        )


def _is_old_enough(time_ns: int, began_ns: int) -> bool:
    """Return whether a time is so long before the reading that a later change would differ."""
    is_whole_second = time_ns % 1_000_000_000 == 0
    return began_ns - time_ns >= (_FRESH_WHOLE_SECONDS_NS if is_whole_second else _FRESH_NS)


def _not_regular(path: str, error: NotRegular) -> UnreadableFile:
    hint = "Only regular files can be indexed."
    if "link" in error.kind:
        hint = "Name the file that the link points to, or follow links: --follow-links."
    kind = error.kind.replace("directory", "folder")  # the word of this package and its users
    return UnreadableFile(f"{path} is {kind}.", path=path, hint=hint)


def _unreadable(path: str, error: OSError) -> UnreadableFile:
    hints = {
        errno.ENOENT: "It was there a moment ago; index the folder again.",
        errno.EACCES: "Give yourself permission to read it: chmod u+r.",
    }
    return UnreadableFile(
        f"{path} cannot be read: {error.strerror}.",
        path=path,
        hint=hints.get(error.errno or 0, "Check the disk it is on, then index it again."),
    )

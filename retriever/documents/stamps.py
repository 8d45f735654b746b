"""Tell from a file's metadata whether it may have changed."""

from __future__ import annotations

import os
from typing import NamedTuple

_INT64 = 1 << 63


class FileStamp(NamedTuple):
    """Metadata of a file; a file with an equal stamp has not changed.

    Size and time of modification are not enough: unpacking an archive, container images, `cp -p`
    and `rsync -t` preserve them. No program can set `ctime_ns`, and another file has another inode.

    Attributes:
        size: In bytes.
        mtime_ns: When its content was last modified, which programs may set to any time.
        inode: The file's number in its file system.
        ctime_ns: When its content, name or rights were last changed.
    """

    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileStamp:
        """Return the stamp in a `stat` result, its numbers brought into 64 bits with a sign."""
        numbers = (status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)
        return cls(*((number + _INT64) % (2 * _INT64) - _INT64 for number in numbers))

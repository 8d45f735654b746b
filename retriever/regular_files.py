"""Open files that must be regular, not a link, pipe, socket, device or directory.

Opening a named pipe waits for its other end, opening a device may start it, and following a link
may leave the intended folder. All files whose names other users might change are opened here; the
caller explains a refusal to the user.
"""

from __future__ import annotations

import errno
import os
import stat

# Each flag is missing on some system; Windows has only O_BINARY. O_NONBLOCK is for a pipe, and
# O_NOCTTY for a terminal, that replaces the file between the check and the opening.
_SAFELY = 0
for _flag in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"):
    _SAFELY |= getattr(os, _flag, 0)
_NOT_FOLLOWED: int = getattr(os, "O_NOFOLLOW", 0)
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}


class NotRegular(OSError):
    """A path that should be a regular file is something else.

    Attributes:
        kind: What it is, such as `a named pipe`.
    """

    def __init__(self, path: str | bytes | os.PathLike[str], mode: int) -> None:
        self.kind = kind_of(mode)
        super().__init__(errno.EINVAL, f"{os.path.basename(os.fsdecode(path))} is {self.kind}")  # noqa: PTH119


def kind_of(mode: int) -> str:
    """Return the kind of file for a `stat` mode that is not of a regular file, for messages."""
    return _KINDS.get(stat.S_IFMT(mode), "a device")


def open_regular(
    path: str | bytes | os.PathLike[str], flags: int = os.O_RDONLY, *, follow: bool = False
) -> int:
    """Open a regular file without ever waiting for another process, and return its descriptor.

    Args:
        path: The path.
        flags: As for `os.open`; with O_CREAT the file may be missing, and gets the mode 0600.
        follow: Whether to follow a symbolic link to a regular file.

    Raises:
        NotRegular: It is not a regular file.
        OSError: It cannot be opened.
    """
    if not flags & os.O_CREAT:  # a file that may be missing is checked only after opening
        require_regular(path, follow=follow)
    descriptor = os.open(path, flags | _SAFELY | (0 if follow else _NOT_FOLLOWED), 0o600)
    # The file may have been replaced since the check; what was opened decides.
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise NotRegular(path, mode)
    return descriptor


def require_regular(
    path: str | bytes | os.PathLike[str], *, follow: bool = False
) -> os.stat_result:
    """Return the `stat` result of a regular file.

    Raises:
        NotRegular: It is not a regular file.
        OSError: It is missing, or in a directory that cannot be searched.
    """
    found = os.stat(path, follow_symlinks=follow)  # noqa: PTH116
    if not stat.S_ISREG(found.st_mode):
        raise NotRegular(path, found.st_mode)
    return found

"""Write a file of results whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file that appears whole or not at all; one that was there is replaced.

    A link is followed. What is not a regular file, such as a pipe or `/dev/null`, is written to
    and not replaced. The data is not flushed to disk: these files can be made again.

    Raises:
        OSError: The file cannot be written; one that was there is unchanged.
    """
    try:
        _write(path, data)
    except OSError as exc:
        exc.filename = os.fspath(path)  # in place of the temporary file's name, or of none
        raise


def _write(path: str | os.PathLike[str], data: bytes) -> None:
    # Before the link is followed: that of /dev/stdout may lead to no path.
    if Path(path).exists() and not Path(path).is_file():
        with Path(path).open("wb") as stream:
            stream.write(data)
        return
    target = Path(os.path.realpath(path))
    # 40 characters are 160 bytes at most, and the name of a file may have 255.
    temporary = target.with_name(f".{target.name[:40]}.{secrets.token_hex(8)}")
    replaced = target.stat().st_mode & 0o777 if target.exists() else None
    try:
        # The system applies the umask here; to read it would change it for other threads.
        mode = 0o666 if replaced is None else replaced
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
            file.write(data)
        if replaced is not None:
            temporary.chmod(replaced)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

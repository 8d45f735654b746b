"""One writer across processes: `flock` on LOCK, which the kernel frees when its holder dies.

The file's content (pid, host, since when) is advice for the error message and never decides.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import time
import weakref
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from retriever.errors import IndexLocked, IndexReadOnly
from retriever.storage import files

if sys.platform != "win32":
    import fcntl

ALLOW_NETWORK = "RETRIEVER_ALLOW_NETWORK_FS"
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "virtiofs", "afs", "ceph", "fuse.sshfs"}
_DOUBTFUL = {"9p", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "prl_fs", "vboxsf"}
_MOUNTS = Path("/proc/self/mountinfo")
_POLL_S = 0.01
_log = logging.getLogger("retriever")
_held: weakref.WeakSet[WriteLock] = weakref.WeakSet()


def read_holder(directory: Path) -> dict[str, object] | None:
    """Return what LOCK says of its holder, or None when nobody holds it."""
    try:
        descriptor = os.open(directory / files.LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _advice(descriptor)
    finally:
        os.close(descriptor)
    return None


def _advice(descriptor: int) -> dict[str, object]:
    with suppress(OSError, ValueError):
        found = json.loads(os.pread(descriptor, 4096, 0))
        if isinstance(found, dict):
            return found
    return {"pid": None, "host": None, "since": None}


def require_local(directory: Path) -> None:
    """Refuse to write where locks or memory maps are not shared by all who write.

    Raises:
        IndexReadOnly: On Windows, untested so far, and on a network file system.
    """
    if sys.platform == "win32":
        raise IndexReadOnly(
            f"{directory} cannot be written: writing is not tested on Windows yet.",
            hint="Write on Linux or macOS, or in WSL on its own disk.",
        )
    kind = _file_system(directory)
    if kind in _DOUBTFUL:
        _log.warning("%s is on %s, where durability is not promised", directory, kind)
    elif kind in _NETWORK and not os.environ.get(ALLOW_NETWORK):
        raise IndexReadOnly(
            f"{directory} is on a {kind} file system, where SQLite indexes are known to break.",
            hint=f"Put the index on a local disk, or set {ALLOW_NETWORK}=1 at your own risk.",
        )


def _file_system(directory: Path) -> str:
    """Return the type of file system a directory is on, or an empty string."""
    try:
        device = directory.stat().st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        for line in _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines():
            mount, _, kind = line.partition(" - ")
            if mount.split(" ")[2:3] == [wanted]:
                return kind.split(" ")[0]
    except OSError:
        return ""
    return ""


class WriteLock:
    """An exclusive lock on an index directory, held from `acquire` to `release`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / files.LOCK
        self._descriptor: int | None = None

    def acquire(self, timeout_s: float) -> None:
        """Take the lock, waiting at most `timeout_s` seconds.

        Raises:
            IndexLocked: Another writer kept it all that time; the error names the holder.
            IndexReadOnly: LOCK cannot be opened for writing, or the file system is refused.
        """
        require_local(self._directory)
        deadline = time.monotonic() + timeout_s
        while (descriptor := self._try()) is None:
            if time.monotonic() >= deadline:
                holder = read_holder(self._directory) or {}
                raise self._locked(holder, timeout_s)
            time.sleep(_POLL_S)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
        with suppress(OSError):  # advice only: a full disk must not stop the writer here
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        self._descriptor = descriptor
        _held.add(self)

    def _try(self) -> int | None:
        """Return a locked descriptor of the LOCK that is there, or None for now."""
        descriptor = files.open_lock(self._directory)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), self._path.stat()):
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def _locked(self, holder: dict[str, object], timeout_s: float) -> IndexLocked:
        pid, host, since = holder.get("pid"), holder.get("host"), holder.get("since")
        by = f"process {pid} on {host} since {since}" if pid else "another process"
        return IndexLocked(
            f"{self._directory} is being written by {by}; waited {timeout_s:g} s.",
            hint="Wait for it to finish, or raise lock_timeout_s. Searches are not affected.",
            pid=pid if isinstance(pid, int) else None,
            host=host if isinstance(host, str) else None,
            since=since if isinstance(since, str) else None,
        )

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        _held.discard(self)
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
        os.close(descriptor)

    def abandon(self) -> None:
        """Close a descriptor inherited by fork without touching the file or the parent's lock."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None


def _abandon_all() -> None:
    for lock in list(_held):
        lock.abandon()


# A forked child would keep the flock alive after its parent's death.
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_abandon_all)

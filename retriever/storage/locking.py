"""One writer across processes: `flock` on LOCK, which the kernel frees when its holder dies.

The file's content (pid, host, since when) is advice for the error message and never decides.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
import weakref
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from retriever.errors import IndexLocked
from retriever.storage import files

_POLL_S = 0.01
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


class WriteLock:
    """An exclusive lock on an index directory, held from `acquire` to `release`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None

    def acquire(self, timeout_s: float) -> None:
        """Take the lock, waiting at most `timeout_s` seconds.

        Raises:
            IndexLocked: Another writer kept it all that time; the error names the holder.
            IndexReadOnly: LOCK cannot be opened for writing.
        """
        descriptor = files.open_lock(self._directory)
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = _advice(descriptor)
                    os.close(descriptor)
                    raise self._locked(holder, timeout_s) from None
                time.sleep(_POLL_S)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
        with suppress(OSError):  # advice only: a full disk must not stop the writer here
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        self._descriptor = descriptor
        _held.add(self)

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
os.register_at_fork(after_in_child=_abandon_all)

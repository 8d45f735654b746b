"""One writer across processes, by `flock`, which the kernel releases when its holder dies.

Two things are locked. The lock on the directory is the decisive one: the directory stays the same
whatever happens to the files in it. The lock on LOCK lets readers see that there is a writer; it
is decisive only on file systems that cannot lock directories. The content of LOCK (pid, host,
since when) is used in error messages only.

A holder that releases the lock after all its writes have succeeded leaves "clean" in LOCK. One
that died, or whose disk failed, does not. The log may then hold frames that were never synced, and
the next holder writes and syncs it again before anything else (`files.renew`).

LOCK keeps its length and is written in place. Truncating it and writing it anew made the file
system free and flush a block with every commit, which made a small commit a quarter slower.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from retriever import regular_files
from retriever.errors import IndexLocked, IndexReadOnly
from retriever.storage import files, layout, waiting
from retriever.storage.waiting import no_fork as _no_fork

if sys.platform != "win32":
    import fcntl

ALLOW_NETWORK = "RETRIEVER_ALLOW_NETWORK_FS"
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "virtiofs", "afs", "ceph", "fuse.sshfs"}
_DOUBTFUL = {"9p", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "prl_fs", "vboxsf"}
_MOUNTS = Path("/proc/self/mountinfo")
_LENGTH = 512
_CLEAN = b"clean".ljust(_LENGTH - 1) + b"\n"
_LOOK_S = 0.5
_log = logging.getLogger("retriever")
_held: weakref.WeakSet[WriteLock] = weakref.WeakSet()


def read_holder(directory: Path) -> dict[str, Any] | None:
    """Return what LOCK says about its holder, or None if nobody holds it."""
    if sys.platform == "win32":  # writing is refused there, see `require_local`
        return None
    with _no_fork:
        try:
            descriptor = regular_files.open_regular(directory / layout.LOCK)
        except OSError:
            return None
        try:
            # Shared, so that readers that look at the same time do not see each other as a writer.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        except OSError:
            return _advice(descriptor)
        finally:
            os.close(descriptor)
    return None


def _advice(descriptor: int) -> dict[str, Any]:
    # LOCK may hold anything: its content is shown, and never relied on.
    found: object = None
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(os.pread(descriptor, 4096, 0))
    said = found if isinstance(found, dict) else {}
    kinds = {"pid": int, "host": str, "since": str}
    return {
        name: said[name] if isinstance(said.get(name), kind) else None
        for name, kind in kinds.items()
    }


def require_local(directory: Path) -> None:
    """Refuse to write where locks or memory maps may not be shared by all writers.

    Raises:
        IndexReadOnly: On Windows, which is not tested yet, and on a network file system.
    """
    if sys.platform == "win32":
        raise IndexReadOnly(
            f"{directory} cannot be written: writing is not tested on Windows yet.",
            hint="Write on Linux or macOS, or in WSL on its own disk.",
        )
    kind = _file_system(directory)
    if kind in _DOUBTFUL:
        _log.warning("%s is on %s, where durability is not guaranteed", directory, kind)
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
            # The number of optional fields before " - " varies, so that fields are not counted.
            mount, _, kind = line.partition(" - ")
            if mount.split(" ")[2:3] == [wanted]:
                return kind.split(" ")[0]
    except OSError:
        return ""
    return ""


class WriteLock:
    """An exclusive lock on an index directory, held from `acquire` to `release`.

    Because the directory itself is locked, `flock DIRECTORY retriever …` waits for its own
    wrapper until the timeout.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / layout.LOCK
        self._root: int | None = None
        self._descriptor: int | None = None
        self._ticket: waiting.QueueTicket | None = None
        self._pid = os.getpid()

    def acquire(self, timeout_s: float) -> None:
        """Take the lock, waiting at most `timeout_s` seconds.

        Raises:
            IndexLocked: Another writer held it until the timeout; the error names the holder.
            IndexReadOnly: LOCK cannot be opened for writing, or the file system is refused.
            WriteFailed: The file system has no locks, or the log could not be written again.
            IndexNotFound: The directory no longer exists.
        """
        layout.require_directory(self._directory)
        require_local(self._directory)
        deadline = time.monotonic() + timeout_s
        try:
            self._wait(deadline, timeout_s)
            if not self._sign():
                files.renew(self._directory / layout.LOG)
        except BaseException:
            # If the log could not be written again, LOCK must not say that it is clean: the next
            # holder has to try it once more.
            self.release(clean=False)
            raise

    def _wait(self, deadline: float, timeout_s: float) -> None:
        with _no_fork:
            # Before anything is opened, so that a child forked during the wait finds it here and
            # closes the descriptors that it inherited.
            _held.add(self)
        ticket = self._ticket = waiting.QueueTicket(self._directory)
        try:
            # Once the directory is locked, only a reader in `read_holder` can have LOCK locked,
            # and it releases it at once: wait for that past the deadline, outside the queue.
            while (self._root is None and ticket.is_behind(self._is_free)) or not self._try():
                if time.monotonic() >= deadline + (0 if self._root is None else _LOOK_S):
                    # At the deadline a free lock is taken, even ahead of earlier waiters.
                    if self._root is None and self._try():
                        return
                    raise self._locked(read_holder(self._directory) or {}, timeout_s)
                ticket.wait()
        finally:
            ticket.leave()
            self._ticket = None

    def _is_free(self) -> bool:
        return read_holder(self._directory) is None

    def is_wanted(self) -> bool:
        """Return whether another writer waits for the lock."""
        return waiting.is_wanted(self._directory)

    @contextmanager
    def held(self, timeout_s: float) -> Iterator[None]:
        """Hold the lock for a block; see `acquire`."""
        self.acquire(timeout_s)
        clean = False
        try:
            yield
            clean = True
        finally:
            self.release(clean=clean)

    def _try(self) -> bool:
        """Try to lock the directory and then its LOCK; return whether both were free."""
        with _no_fork, files.write_errors(self._path):
            if self._root is None:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
                self._root = os.open(self._directory, flags)
                try:
                    fcntl.flock(self._root, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as exc:
                    self.abandon()
                    if isinstance(exc, BlockingIOError):
                        return False
                    _log.debug("%s cannot be locked, only its LOCK: %s", self._directory, exc)
            descriptor = files.open_lock(self._directory)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # LOCK may have been removed and created anew since it was opened.
                if os.path.samestat(os.fstat(descriptor), self._path.stat()):
                    # Set only once it is locked, because `release` writes to this file.
                    self._descriptor = descriptor
                    return True
            except (BlockingIOError, FileNotFoundError):
                pass
            finally:
                if self._descriptor is None:
                    os.close(descriptor)
            return False

    def is_in_place(self) -> bool:
        """Return whether the locked directory is still the one at its path."""
        with suppress(OSError):
            return self._root is None or os.path.samestat(
                os.fstat(self._root), self._directory.stat()
            )
        return False

    def _sign(self) -> bool:
        """Write the holder into LOCK; return whether the previous one left it clean."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
        if self._descriptor is None:
            return False
        content = json.dumps(holder).encode()[: _LENGTH - 1].ljust(_LENGTH - 1) + b"\n"
        with files.write_errors(self._path):
            said = os.pread(self._descriptor, _LENGTH + 1, 0)
            # A full disk must not stop the writer here, since the holder is only shown in errors.
            # But an old "clean" must not stay: the next writer would trust the log of this one.
            if len(said) > _LENGTH or not self._say(content):
                os.ftruncate(self._descriptor, 0)
        return said == _CLEAN

    def _say(self, content: bytes) -> bool:
        """Overwrite the content of LOCK in place; return whether that succeeded."""
        with suppress(OSError):
            if self._descriptor is not None:
                return os.pwrite(self._descriptor, content, 0) == len(content)
        return False

    def _locked(self, holder: dict[str, object], timeout_s: float) -> IndexLocked:
        pid, host, since = holder.get("pid"), holder.get("host"), holder.get("since")
        by = f"process {pid} on {host} since {since}" if pid else "another process"
        if pid == os.getpid() and host == socket.gethostname():
            by += " (this process: another thread, or another Index)"
        return IndexLocked(
            f"{self._directory} is being written by {by}; waited {timeout_s:g} s.",
            hint="Wait for it to finish, or raise lock_timeout_s. Searches are not affected.",
            pid=pid if isinstance(pid, int) else None,
            host=host if isinstance(host, str) else None,
            since=since if isinstance(since, str) else None,
        )

    def release(self, *, clean: bool = True) -> None:
        """Release the lock; does nothing if it is not held, or in a forked child.

        Args:
            clean: Whether everything that was written is known to be on the disk.
        """
        if self._pid != os.getpid():
            self.abandon()
            return
        with _no_fork:
            _held.discard(self)
            if self._descriptor is not None and clean:
                self._say(_CLEAN)  # if this fails, the log is renewed once without need
            for descriptor in (self._descriptor, self._root):
                if descriptor is not None:
                    # Unlock explicitly: a child process that is just being started may
                    # hold a copy of the descriptor, which would keep the lock.
                    with suppress(OSError):
                        fcntl.flock(descriptor, fcntl.LOCK_UN)
            self.abandon()

    def __del__(self) -> None:
        """Release the lock if an interrupt kept `release` from being called."""
        if self._root is not None or self._descriptor is not None:
            self.release(clean=False)

    def abandon(self) -> None:
        """Close the descriptors without writing to LOCK or unlocking, which a parent may need."""
        for descriptor in (self._descriptor, self._root):
            if descriptor is not None:
                with suppress(OSError):
                    os.close(descriptor)
        self._descriptor = self._root = None

    def abandon_all(self) -> None:
        """Close the descriptors inherited from a parent that holds the lock or waits for it."""
        self.abandon()
        if self._ticket is not None:
            self._ticket.abandon()


def _after_fork() -> None:
    for lock in list(_held):
        lock.abandon_all()
    # Acquired before the fork by the thread that forked, the only one that the child has.
    _no_fork.release()


if sys.platform != "win32":
    os.register_at_fork(
        before=_no_fork.acquire, after_in_parent=_no_fork.release, after_in_child=_after_fork
    )

"""A first-come, first-served queue of writers, across threads and processes.

A writer that has to wait creates a ticket, a file `LOCK-<time>-<random>` in the index directory,
and keeps it locked with `flock`. Writers with earlier tickets go first. The kernel releases the
lock of a process that died, and whoever finds an unlocked ticket removes it. A process that is
alive but does not take the free lock, such as a stopped one (Ctrl-Z), is passed over: its ticket
is removed, and it creates the ticket again when it continues.

The time is the machine's monotonic clock, which nobody can set. The queue decides only the order.
That there is one writer is ensured by the lock itself.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from retriever import regular_files
from retriever.storage import files, layout

if sys.platform != "win32":
    import fcntl

# Held while a descriptor is open but not yet recorded. A child forked in between would inherit the
# descriptor without knowing of it, and keep the lock for as long as the child lives.
no_fork = threading.RLock()

_FIRST_S = 0.001
_EACH_S = 0.004
_LONGEST_S = 0.1
_LOOK_S = 0.05
_PATIENCE_S = 0.5


class QueueTicket:
    """A writer's position in the queue; its file is created only if the writer has to wait."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # The time has leading zeros, so that names sort by time.
        self._name = f"{layout.LOCK}-{time.monotonic_ns():020d}-{secrets.token_hex(4)}"
        self._descriptor: int | None = None
        self._ahead = 0
        self._held_at = self._looked_at = time.monotonic()

    def is_behind(self, is_free: Callable[[], bool]) -> bool:
        """Return whether an earlier writer is alive and takes the lock when it is free.

        If the lock stays free for half a second, the earlier tickets are removed.
        """
        self._ahead = _ahead(self._directory, self._name)
        if not self._ahead:
            return False
        now = time.monotonic()
        # A look locks LOCK for a moment, and another writer's attempt to take it then fails.
        if now - self._looked_at < _LOOK_S:
            return True
        self._looked_at = now
        if not is_free():
            self._held_at = now
        if now - self._held_at < _PATIENCE_S:
            return True
        for name in _names(self._directory, self._name):
            files.drop(self._directory / name)
        return False

    def wait(self) -> None:
        """Create the ticket and sleep briefly; near the head of the queue for a shorter time."""
        with suppress(OSError):  # without permission or disk space, wait without an order
            self._take()
        time.sleep(min(_FIRST_S + self._ahead * _EACH_S, _LONGEST_S))

    def _take(self) -> None:
        path = self._directory / self._name
        with no_fork:
            if self._descriptor is not None and path.exists():
                return
            self.abandon()
            self._descriptor = files.open_ticket(path)
            # Until it is locked, another writer may take the ticket for one of a dead process and
            # remove it. Then it is created again the next time.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def leave(self) -> None:
        """Leave the queue: remove the ticket."""
        with no_fork:
            if self._descriptor is not None:
                files.drop(self._directory / self._name)
            self.abandon()

    def abandon(self) -> None:
        """Close the file without removing it; a parent process may hold the ticket."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)


def is_wanted(directory: Path) -> bool:
    """Return whether any writer waits."""
    # "." sorts just after the "-" of the tickets, so all of them sort before this name.
    return _ahead(directory, f"{layout.LOCK}.") > 0


def _ahead(directory: Path, before: str) -> int:
    """Return how many tickets sort before a name, counted from the first one still held."""
    earlier = _names(directory, before)
    return next((len(earlier) - i for i, name in enumerate(earlier) if _lives(directory / name)), 0)


def _names(directory: Path, before: str) -> list[str]:
    """Return the names of the tickets that sort before a name, earliest first."""
    try:
        with os.scandir(directory) as entries:
            found = [entry.name for entry in entries if layout.IS_WAITING(entry.name)]
    except OSError:
        return []
    return sorted(name for name in found if name < before)


def clear(directory: Path) -> None:
    """Remove the tickets of processes that died."""
    for name in _names(directory, f"{layout.LOCK}."):
        _lives(directory / name)


def _lives(path: Path) -> bool:
    """Return whether a ticket is still held; remove it if not."""
    with no_fork:
        try:
            descriptor = regular_files.open_regular(path)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            files.drop(path)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            os.close(descriptor)
    return False

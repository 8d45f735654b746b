"""The queue of those who wait to write, in order of asking, across threads and processes.

Who has to wait for the lock leaves a file `LOCK-<time>-<random>` in the index directory and keeps
it locked with `flock`. Everybody lets those with earlier files go first. The kernel frees the lock
of one that died: whoever finds such a file removes it. So a queue is never longer than the living.
One that lives but does not take the lock when it is free, as a stopped process (Ctrl-Z), is passed
over; its place is removed, and it takes it again when it goes on. The time is that of the machine,
which is never set. Only the order depends on all this, never that there is one writer: that is for
the lock itself.
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

# A descriptor that a forked child does not know of would keep its lock for as long as it lives.
no_fork = threading.RLock()

_FIRST_S = 0.001
_EACH_S = 0.004
_LONGEST_S = 0.1
_LOOK_S = 0.05
_PATIENCE_S = 0.5


class QueueTicket:
    """A place in the queue, from the moment it is asked for; a file only once one has to wait."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._name = f"{layout.LOCK}-{time.monotonic_ns():020d}-{secrets.token_hex(4)}"
        self._descriptor: int | None = None
        self._ahead = 0
        self._held_at = self._looked_at = time.monotonic()

    def is_behind(self, is_free: Callable[[], bool]) -> bool:
        """Return whether somebody asked earlier who lives and takes the lock when it is free."""
        self._ahead = _ahead(self._directory, self._name)
        if not self._ahead:
            return False
        now = time.monotonic()
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
        """Take the place, and wait for a moment: a shorter one at the head of the queue."""
        with suppress(OSError):  # without rights or room the wait goes on, in no order
            self._take()
        time.sleep(min(_FIRST_S + self._ahead * _EACH_S, _LONGEST_S))

    def _take(self) -> None:
        path = self._directory / self._name
        with no_fork:
            if self._descriptor is not None and path.exists():
                return
            self.abandon()
            self._descriptor = files.open_ticket(path)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def leave(self) -> None:
        """Give the place up."""
        with no_fork:
            if self._descriptor is not None:
                files.drop(self._directory / self._name)
            self.abandon()

    def abandon(self) -> None:
        """Close the file without giving up a place that a parent process has."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)


def is_wanted(directory: Path) -> bool:
    """Return whether anybody waits to write."""
    return _ahead(directory, f"{layout.LOCK}.") > 0


def _ahead(directory: Path, before: str) -> int:
    """Return how many wait under names that sort before one, if any of them lives."""
    earlier = _names(directory, before)
    return next((len(earlier) - i for i, name in enumerate(earlier) if _lives(directory / name)), 0)


def _names(directory: Path, before: str) -> list[str]:
    """Return the names of places that sort before one, the first first."""
    try:
        with os.scandir(directory) as entries:
            found = [entry.name for entry in entries if layout.IS_WAITING(entry.name)]
    except OSError:
        return []
    return sorted(name for name in found if name < before)


def clear(directory: Path) -> None:
    """Remove the places of those who died."""
    for name in _names(directory, f"{layout.LOCK}."):
        _lives(directory / name)


def _lives(path: Path) -> bool:
    """Return whether somebody holds a file of the queue; remove one that nobody holds."""
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

"""The time that a search may take: a deadline, looked at between the steps of the work.

`within` sets it for a block of code in one thread. What works for long calls `check` where it can
stop, without having been told that there is a deadline. No step is interrupted.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic

from retriever.errors import SearchTimeout


@dataclass(slots=True)
class _Deadline:
    """When a search has to be over, and what it is doing.

    Attributes:
        timeout_s: The seconds that it was given.
        began_at: When it began, by `monotonic`.
        step: What it is doing, as `encoding the question`.
    """

    timeout_s: float
    began_at: float
    step: str = "preparing the search"

    @property
    def ends_at(self) -> float:
        return self.began_at + self.timeout_s


_current: ContextVar[_Deadline | None] = ContextVar("deadline", default=None)


@contextmanager
def within(timeout_s: float | None) -> Iterator[None]:
    """Give a block of code so many seconds; None changes nothing.

    A block inside another one has until the earlier end of both.
    """
    if timeout_s is None:
        yield
        return
    outer, inner = _current.get(), _Deadline(timeout_s, monotonic())
    if outer is not None and outer.ends_at < inner.ends_at:
        inner = outer
    token = _current.set(inner)
    try:
        yield
    finally:
        _current.reset(token)


def begin(step: str) -> None:
    """Begin a step, unless there is no time left for it.

    Args:
        step: What is done, as `encoding the question`; named by errors.

    Raises:
        SearchTimeout: The time is up.
    """
    if (deadline := _current.get()) is not None:
        # The step before is the one that took too long.
        check()
        deadline.step = step


def check() -> None:
    """Go on, unless the time is up.

    Raises:
        SearchTimeout: It is.
    """
    if (deadline := _current.get()) is None:
        return
    if (took := monotonic() - deadline.began_at) >= deadline.timeout_s:
        raise SearchTimeout(
            f"The search was given {deadline.timeout_s:g} s and had taken {took:.2f} s when it "
            f"stopped at {deadline.step}.",
            timeout_s=deadline.timeout_s,
            step=deadline.step,
            hint="Search again with a longer timeout_s (--timeout); a first search also loads the "
            "model.",
        )


def at_most(seconds: float) -> float:
    """Return how long to wait at most: `seconds`, or what is left if that is less."""
    if (deadline := _current.get()) is None:
        return seconds
    return max(0.0, min(seconds, deadline.ends_at - monotonic()))


@contextmanager
def holding(lock: threading.Lock | threading.RLock) -> Iterator[None]:
    """Hold a lock, which is waited for no longer than there is time.

    Raises:
        SearchTimeout: Another thread has held it for too long.
    """
    if (deadline := _current.get()) is None:
        lock.acquire()
    else:
        while not lock.acquire(timeout=max(0.0, deadline.ends_at - monotonic())):
            check()
    try:
        yield
    finally:
        lock.release()

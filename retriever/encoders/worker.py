"""The background thread of an encoder, while documents are read and stored in another thread.

Ctrl-C raises `KeyboardInterrupt` between any two steps of the main thread, in this module too. So
the encoder's thread never waits for anything that another thread holds: it always ends.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

from retriever.errors import IndexClosed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors: TypeAlias = NDArray[np.float32]
    Call: TypeAlias = Callable[[], Vectors]
    Calls: TypeAlias = "SimpleQueue[tuple[Call, Pending] | None]"

_EXIT_GRACE_S = 1.0
_POLL_S = 0.05
_MEANWHILE_S = 0.1


class Pending:
    """The result of a call that may still be running.

    No `Future`: an interrupt may leave the lock inside it locked, and the encoder's thread would
    then wait for that lock for ever.
    """

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()
        self._outcome: Vectors | BaseException | None = None
        self.is_done = False

    def complete(self, outcome: Vectors | BaseException) -> None:
        """Set what the call returned or raised; called once."""
        # The outcome comes first, because others read `is_done` without taking the lock.
        self._outcome = outcome
        self.is_done = True
        self._gate.release()

    def is_done_within(self, seconds: float) -> bool:
        """Wait for the call for at most `seconds`; return whether it has ended."""
        if not self.is_done:
            self._gate.acquire(timeout=seconds)
        return self.is_done

    def result(self) -> Vectors:
        """Wait for the call; return what it returned, or raise what it raised."""
        if not self.is_done:
            self._gate.acquire()
        outcome = self._outcome
        if outcome is None or isinstance(outcome, BaseException):
            raise outcome or AssertionError("a call that has ended has an outcome")
        return outcome


class EncoderThread:
    """Makes calls one at a time, in order; starts with the first call and ends with the block.

    No `ThreadPoolExecutor`: it takes no more work once the main thread has ended, though another
    thread may still be adding documents.

    Args:
        grace_s: How many seconds the end of the block waits for the call that is being made.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._calls: Calls = SimpleQueue()
        self._worker: _Worker | None = None
        self._pid = os.getpid()
        # If an interrupt comes while the block is being left, the thread ends with this object.
        # It calls a method of the queue, because a method of this object would keep the object
        # alive.
        self._ending = weakref.finalize(self, self._calls.put, None)
        self._ending.atexit = False

    def __enter__(self) -> EncoderThread:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Make no further call, and wait at most `grace_s` for the one being made.

        One that takes longer ends by itself; the next thread begins after it.
        """
        if self._worker is not None:
            # Set before the queue is ended, so that calls queued before its end are not made.
            self._worker.is_over = True
            self._ending()
            if self._worker.is_alive():
                self._worker.join(self._grace_s)
        self._ending.detach()  # it holds the calls that are no longer made

    def submit(self, call: Call) -> Pending:
        """Queue a call after those submitted before."""
        pending = Pending()
        self._calls.put((call, pending))
        if self._worker is None:
            self._worker = _Worker(self._calls)
            self._worker.start()
        return pending

    def wait(self, pending: Pending, meanwhile: Callable[[], object]) -> Vectors:
        """Return what a call returned, or raise what it raised; call `meanwhile` while waiting.

        Raises:
            IndexClosed: The process was forked in between, and this is the child.
        """
        if os.getpid() != self._pid:
            raise IndexClosed(
                "This process was forked from one that was adding documents, and has no encoder "
                "at work.",
                hint="Open the index in a worker that was not forked inside the call.",
            )
        while not pending.is_done_within(_MEANWHILE_S):
            meanwhile()
        return pending.result()


class _Worker(threading.Thread):
    """The thread itself.

    A daemon, so that the end of the process never waits for a thread that nobody ends.
    `_finish_calls` waits for those that make a call.
    """

    def __init__(self, calls: Calls) -> None:
        super().__init__(name="retriever-encoder", daemon=True)
        self._calls = calls
        self.is_over = False
        self.is_calling = False
        self._earlier = [worker for worker in _now_working() if worker.is_over]
        _workers.add(self)

    def run(self) -> None:
        """Make calls until there are no more."""
        for worker in self._earlier:  # an encoder makes one call at a time
            while worker.is_calling and worker.is_alive():
                worker.join(_POLL_S)
        # Otherwise each thread would keep the one before it alive, and so on to the first.
        self._earlier.clear()
        while (item := self._calls.get()) is not None and not self.is_over:
            call, pending = item
            self.is_calling = True
            try:
                vectors = call()
            except BaseException as exc:  # raised again where it is waited for
                pending.complete(exc)
            else:
                pending.complete(vectors)
                del vectors
            finally:
                self.is_calling = False
            # These names would keep texts and vectors in memory while the thread waits for a call.
            del item, call, pending


_workers: weakref.WeakSet[_Worker] = weakref.WeakSet()


def _now_working() -> list[_Worker]:
    while True:
        with suppress(RuntimeError):  # another thread has just begun with one
            return list(_workers)


def _finish_calls() -> None:
    """Wait for running calls at exit, so that none returns to an interpreter that has ended.

    Native code that does so aborts the process. Ctrl-C shortens the wait.
    """
    deadline = None
    for worker in _now_working():
        while worker.is_calling and worker.is_alive():
            if deadline is not None and time.monotonic() > deadline:
                return
            try:
                # In steps, because a thread that has no call waits for one, and does not end.
                worker.join(_POLL_S)
            except KeyboardInterrupt:
                deadline = deadline or time.monotonic() + _EXIT_GRACE_S


atexit.register(_finish_calls)

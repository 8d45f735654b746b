"""The thread that an encoder works in, while documents are read and stored in another."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeAlias

from retriever.errors import IndexClosed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors: TypeAlias = NDArray[np.float32]
    Call: TypeAlias = Callable[[], Vectors]


class EncoderThread:
    """Makes calls one at a time, in order; it starts with the first and ends with `close`.

    No `ThreadPoolExecutor`: that takes no more work once the main thread has ended, though
    another one may still be adding documents.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Call, Future[Vectors]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._pid = os.getpid()

    def submit(self, call: Call) -> Future[Vectors]:
        """Have a call made after those submitted before."""
        future: Future[Vectors] = Future()
        self._calls.put((call, future))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="retriever-encoder")
            self._thread.start()
        return future

    def wait(self, future: Future[Vectors]) -> Vectors:
        """Return what a call returned, or raise what it raised.

        Raises:
            IndexClosed: The process was forked meanwhile, and this is the child.
        """
        if os.getpid() != self._pid:
            raise IndexClosed(
                "This process was forked from one that was adding documents, and has no encoder "
                "at work.",
                hint="Open the index in a worker that was not forked inside the call.",
            )
        return future.result()

    def close(self) -> None:
        """Make no further call, and return once the one being made has ended."""
        self._is_closed = True
        self._calls.put(None)
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        while (item := self._calls.get()) is not None and not self._is_closed:
            call, future = item
            try:
                vectors = call()
            except BaseException as exc:  # raised again where it is waited for
                future.set_exception(exc)
            else:
                future.set_result(vectors)
            del item, call, future

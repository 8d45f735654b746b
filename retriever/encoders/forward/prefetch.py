"""Prepare the next items in a thread while the caller works on the present one.

Owns the order, and the bound on what is prepared. Must not know what that is: for a GPU it is token
ids, which are computed in parallel because the tokenizer releases Python's lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

InT = TypeVar("InT")
OutT = TypeVar("OutT")


def prefetched(
    prepare: Callable[[InT], OutT], items: Iterable[InT], depth: int = 2
) -> Generator[OutT, None, None]:
    """Yield `prepare(item)` of each item, in order, while the next ones are being prepared.

    An error of `prepare` is raised when its item is due. Close the iterator if you leave it early:
    items not begun are dropped, and the thread ends.

    Args:
        prepare: Called in one background thread, an item at a time.
        items: Read in the thread that iterates.
        depth: The most items prepared or queued, besides the one that was yielded.
    """
    waiting: deque[Future[OutT]] = deque()
    todo: SimpleQueue[tuple[InT, Future[OutT]] | None] = SimpleQueue()

    def work() -> None:
        while (one := todo.get()) is not None:
            item, future = one
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(prepare(item))
                except BaseException as exc:  # raised where its item is due
                    future.set_exception(exc)
            # Otherwise the last item and its result would stay in memory while the thread waits.
            del one, item, future

    # No `ThreadPoolExecutor`: it takes no more work once the main thread has ended, though another
    # thread may still be encoding.
    thread = threading.Thread(target=work, name="retriever-ahead", daemon=True)
    thread.start()
    try:
        for item in items:
            waiting.append(Future())
            todo.put((item, waiting[-1]))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        todo.put(None)
        thread.join()

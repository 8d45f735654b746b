"""Work that is prepared in one thread while the step before it is under way in another.

Owns the order and the bound. Must not know what is prepared: for a GPU it is token ids, and the
tokenizer holds no lock of Python's while it is at work.
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


def ahead(
    prepare: Callable[[InT], OutT], items: Iterable[InT], depth: int = 2
) -> Generator[OutT, None, None]:
    """Yield what is prepared of each item, in order, with the next ones under way meanwhile.

    An error of `prepare` comes at its item's turn. Close the iterator when leaving early: what has
    not been begun is dropped, and its thread ends.

    Args:
        prepare: Called in one thread of its own, an item at a time.
        items: Read in the thread that iterates.
        depth: Items that are prepared or waiting, beside the one that was yielded.
    """
    waiting: deque[Future[OutT]] = deque()
    todo: SimpleQueue[tuple[InT, Future[OutT]] | None] = SimpleQueue()

    def work() -> None:
        while (one := todo.get()) is not None:
            item, future = one
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(prepare(item))
                except BaseException as exc:  # raised again at its turn
                    future.set_exception(exc)
            del one, item, future

    # No `ThreadPoolExecutor`, as in `encoder_thread.py`: it ends with the main thread.
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

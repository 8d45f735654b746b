"""Work that is prepared in one thread while the step before it is under way in another.

Owns the order and the bound. Must not know what is prepared: for a GPU it is token ids, and the
tokenizer holds no lock of Python's while it is at work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
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
    with ThreadPoolExecutor(1, thread_name_prefix="retriever-ahead") as thread:
        try:
            for item in items:
                waiting.append(thread.submit(prepare, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

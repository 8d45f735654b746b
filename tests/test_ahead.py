"""Work prepared ahead comes in order, bounded, and leaves no thread behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from retriever.encoders.forward.prefetch import prefetched


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("retriever-ahead")]


def test_everything_comes_in_order_from_another_thread():
    names = set()

    def double(number: int) -> int:
        names.add(threading.current_thread().name)
        return 2 * number

    for count in (0, 1, 2, 3, 50):
        assert list(prefetched(double, range(count))) == [2 * number for number in range(count)]
    assert len(names) == 1
    assert names != {threading.current_thread().name}
    assert threads() == []


def test_the_next_is_under_way_while_one_is_worked_on():
    begun = [threading.Event() for _ in range(6)]
    read = []

    def items() -> Iterator[int]:
        for number in range(6):
            read.append(number)
            yield number

    def prepare(number: int) -> int:
        begun[number].set()
        return number

    with_one_ahead = prefetched(prepare, items(), depth=1)
    assert next(with_one_ahead) == 0
    assert begun[1].wait(10)  # without anything being asked of the iterator
    assert read == [0, 1]  # and no more than that is held
    assert list(with_one_ahead) == [1, 2, 3, 4, 5]


def test_an_error_comes_at_its_turn():
    def halve(number: int) -> float:
        return 1 / number

    found = prefetched(halve, [1, 2, 0, 4])
    assert [next(found), next(found)] == [1.0, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(found)
    assert threads() == []


def test_leaving_early_drops_what_was_not_begun():
    begun = []
    free = threading.Event()

    def prepare(number: int) -> int:
        begun.append(number)
        if number == 1:
            free.wait(10)
        return number

    found = prefetched(prepare, range(100), depth=5)
    assert next(found) == 0
    free.set()
    found.close()
    assert len(begun) <= 6
    assert threads() == []

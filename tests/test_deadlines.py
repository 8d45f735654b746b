"""`timeout_s`: a search ends in its time or says which step took too long, and harms nothing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import command_line
import numpy as np
import pytest
from command_line import run

from retriever import Index, InvalidQuery, Limits, SearchOptions, SearchTimeout, deadlines
from retriever.testing import HashEncoder

small_models = command_line.small_models
folder = command_line.folder
stored = command_line.index


class Slow(HashEncoder):
    """Takes its time with some questions."""

    def encode_queries(self, texts: Sequence[str]) -> Any:
        if any("slow" in text for text in texts):
            time.sleep(0.1)
        return super().encode_queries(texts)


class SlowReranker:
    """Takes its time with every question."""

    def score(self, query: str, texts: list[str]) -> Any:
        time.sleep(0.1)
        return np.zeros(len(texts), np.float32)


@pytest.fixture
def index(tmp_path: Path):
    limits = Limits(read_connections=1)
    with Index.open(tmp_path / "x.index", model=Slow(), limits=limits) as opened:
        opened.add([f"Pump {n} of the tide mill." for n in range(5)])
        yield opened


def test_the_error_says_which_step_took_how_long(index: Index):
    with pytest.raises(SearchTimeout) as caught:
        index.search("slow pump", timeout_s=0.05)
    error = caught.value
    assert (error.timeout_s, error.step, error.exit_code) == (0.05, "encoding the question", 5)
    assert "was given 0.05 s" in error.message
    assert "had taken 0.1" in error.message
    assert "timeout_s" in error.hint
    # It is the time of one search: the next one has its own.
    assert len(index.search("pump", timeout_s=10)) == 5
    assert len(index.search("slow pump")) == 5


def test_a_slow_reranker_is_over_the_time(index: Index):
    with pytest.raises(SearchTimeout, match="stopped at reranking"):
        index.search_many(["pump", "mill"], rerank=SlowReranker(), mode="dense", timeout_s=0.05)
    # An answer that is there is returned, though its last step took longer.
    assert len(index.search("pump", rerank=SlowReranker(), timeout_s=0.05)) == 5


def test_a_connection_is_waited_for_no_longer_than_there_is_time(index: Index):
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with index._pool.transaction():
            held.set()
            done.wait(10)

    index.search("pump")
    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(5)
    began = time.monotonic()
    try:
        with pytest.raises(SearchTimeout, match="waiting for a connection"):
            index.search("pump", timeout_s=0.05)
        assert time.monotonic() - began < 2
    finally:
        done.set()
        thread.join()
    assert len(index.search("pump", timeout_s=10)) == 5


def test_searches_that_time_out_take_nothing_with_them(index: Index):
    for _ in range(50):
        with pytest.raises(SearchTimeout):
            index.search_many(["pump", "mill"], timeout_s=1e-9)
    assert index.verify().ok
    assert len(index.search("pump")) == 5
    index.add("One more pump.")
    assert len(index.search("pump", timeout_s=10)) == 6


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("-inf"), True, "1", [1]])
def test_a_timeout_is_a_number_of_seconds(timeout_s: Any):
    with pytest.raises(InvalidQuery, match=r"timeout_s is .*a number of seconds above 0"):
        SearchOptions(timeout_s=timeout_s)


def test_a_timeout_may_be_endless_or_of_numpy():
    assert SearchOptions(timeout_s=float("inf")).timeout_s == 1e8
    assert SearchOptions(timeout_s=10**400).timeout_s == 1e8
    assert SearchOptions(timeout_s=np.float32(0.5)).timeout_s == 0.5


def test_of_two_deadlines_the_earlier_one_holds():
    with deadlines.within(60), deadlines.within(1e-9):
        with pytest.raises(SearchTimeout):
            deadlines.check()
        with deadlines.within(60), pytest.raises(SearchTimeout):
            deadlines.check()
        assert deadlines.at_most(5) == 0
    deadlines.check()
    assert deadlines.at_most(5) == 5


def test_a_lock_is_waited_for_no_longer_than_there_is_time():
    lock = threading.Lock()
    with deadlines.within(60), deadlines.holding(lock):
        assert lock.locked()
    with lock, deadlines.within(0.02), pytest.raises(SearchTimeout), deadlines.holding(lock):
        pass
    assert not lock.locked()


def test_the_command_gives_up_with_its_own_exit_code(small_models: None, stored: Path):
    done = run("search", "--timeout", "1e-9", "pump", "--json")
    assert (done.exit_code, done.stdout) == (5, "")
    assert json.loads(done.stderr)["error"]["code"] == "search_timeout"
    assert run("search", "--timeout", "60", "pump").exit_code == 0
    assert run("search", "--timeout", "0", "pump").exit_code == 2

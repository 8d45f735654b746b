"""The time left: from the sizes of files, which differ, and what is encoded of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from retriever import Index, Limits, Progress
from retriever.cli import bars
from retriever.testing import HashEncoder

WORDS = "the pump leaks where the seal meets its housing and oil runs down "
CHARACTERS_A_SECOND = 160


class SlowEncoder(HashEncoder):
    """Takes as long as texts are long, by a clock that nothing else moves.

    It waits until what it has done is reported: nothing else takes time by this clock.
    """

    def __init__(self, salt: str = "") -> None:
        super().__init__(salt=salt)
        self.now = 1000.0
        self.reported = threading.Semaphore()

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        if threading.current_thread() is not threading.main_thread():
            assert self.reported.acquire(timeout=30)
            self.now += sum(map(len, texts)) / CHARACTERS_A_SECOND
        return super().encode_documents(texts)

    def monotonic(self) -> float:
        return self.now


class Watch:
    """Notes at each report what time is said to be left."""

    def __init__(self, encoder: SlowEncoder) -> None:
        self.told: list[Progress] = []
        self._encoder = encoder
        self._left = bars.TimeLeft(encoder.monotonic)
        self._said: list[tuple[float, float | None]] = []
        self._began = encoder.now

    def see(self, progress: Progress) -> None:
        if progress.tokens > (self.told[-1].tokens if self.told else 0):
            self._encoder.reported.release()
        self.told.append(progress)
        if progress.share is not None:
            self._left.see(progress.share)
        self._said.append((self._encoder.now, self._left.seconds()))

    def require_true(self) -> None:
        """Compare what was said after the first tenth with what came."""
        took = self._encoder.now - self._began
        said = [(at - self._began, left) for at, left in self._said]
        judged = [(took - at, left) for at, left in said if took / 10 < at < took]
        assert len(judged) > 20
        for truth, left in judged:
            assert left is not None, said
            assert truth / 1.5 - took / 50 < left < truth * 1.5 + took / 50, (truth, left, said)


SMALL_STEPS = Limits(group_characters=1_000, queued_groups=1, encode_tokens=200)
"""Make little text like much."""


def prose(sentences: int, name: str) -> str:
    """Return a text of which no two passages are equal: such are encoded once."""
    return " ".join(f"{name} {number} {WORDS}" for number in range(sentences))


def write_folder(folder: Path, large: str) -> int:
    """Write a file of 24,000 characters and 40 of about 600; return the sum."""
    folder.mkdir()
    texts = {large: prose(300, "large")}
    texts |= {f"m{number:03}.md": prose(8, f"note {number}") for number in range(40)}
    for name, text in texts.items():
        (folder / name).write_text(text)
    return sum(map(len, texts.values()))


@pytest.mark.parametrize("large", ["a.md", "m020x.md", "z.md"])
def test_the_time_left_is_true_of_one_large_file_among_many_small_ones(tmp_path: Path, large: str):
    size = write_folder(tmp_path / "docs", large)
    (tmp_path / "docs" / "scan.pdf").write_bytes(b"%PDF-" + bytes(2 * size))  # costs nothing
    encoder = SlowEncoder()
    watch = Watch(encoder)
    with Index.open(tmp_path / "x.index", model=encoder, limits=SMALL_STEPS) as index:
        index.add_files(tmp_path / "docs", progress=watch.see)
    watch.require_true()
    shares = [progress.share or 0.0 for progress in watch.told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_the_time_left_of_a_rebuild_is_true(tmp_path: Path):
    write_folder(tmp_path / "docs", "a.md")
    encoder = SlowEncoder("other")
    with Index.open(tmp_path / "x.index", model=HashEncoder(), limits=SMALL_STEPS) as index:
        index.add_files(tmp_path / "docs")
        watch = Watch(encoder)
        index.rebuild(model=encoder, progress=watch.see)
    watch.require_true()
    assert [progress.done for progress in watch.told][-1] == 41
    assert watch.told[-1].share == 1.0


def test_unchanged_files_are_no_part_of_the_work(tmp_path: Path):
    write_folder(tmp_path / "docs", "a.md")
    told: list[Progress] = []
    with Index.open(tmp_path / "x.index", model=HashEncoder(), limits=SMALL_STEPS) as index:
        index.add_files(tmp_path / "docs")
        for number in range(10):
            (tmp_path / "docs" / f"n{number}.md").write_text(prose(30, f"new {number}"))
        index.add_files(tmp_path / "docs", progress=told.append)
        shares = [progress.share for progress in told]
        assert shares[0] == 0.0
        assert len(set(shares)) > 8
        assert shares[-1] == 1.0
        told.clear()
        index.add_files(tmp_path / "docs", progress=told.append)
    # Files of just now are read again, and found to be as they were.
    assert told[-1].share is None
    assert {progress.share for progress in told} <= {None, 0.0}


def test_a_list_of_documents_has_shares_and_what_brings_its_vector_costs_nothing(tmp_path: Path):
    told: list[Progress] = []
    long = {"text": prose(400, "long"), "id": "long", "embedding": np.eye(32)[0]}
    texts = [prose(30, f"text {number}") for number in range(20)]
    with Index.open(tmp_path / "x.index", model=HashEncoder(), limits=SMALL_STEPS) as index:
        index.add([long, *texts], progress=told.append)
        shares = [progress.share or 0.0 for progress in told]
        assert shares == sorted(shares)
        assert len(set(shares)) > 8
        assert shares[-1] == 1.0
        told.clear()
        index.add(iter(["one", "two"]), progress=told.append)
    assert {progress.share for progress in told} == {None}


def test_the_time_left_runs_down_between_reports_and_grows_when_they_fail_to_come():
    clock = SlowEncoder()
    left = bars.TimeLeft(clock.monotonic)
    clock.now += 20  # the model is loaded
    for step in range(1, 5):
        clock.now += 5
        left.see(step / 20)
    assert left.seconds() == pytest.approx(80)
    clock.now += 4
    assert left.seconds() == pytest.approx(76)
    clock.now += 6
    assert left.seconds() == pytest.approx(70)
    clock.now += 3
    assert 75 < (left.seconds() or 0) < 90
    clock.now += 600
    assert (left.seconds() or 0) > 1000


def test_the_time_left_is_not_told_before_there_is_a_rate():
    clock = SlowEncoder()
    left = bars.TimeLeft(clock.monotonic)
    left.see(0.0)
    clock.now += 100
    assert left.seconds() is None
    left.see(0.01)
    assert left.seconds() is None
    clock.now += 1
    left.see(0.02)
    assert left.seconds() is None
    clock.now += 1
    left.see(0.03)
    assert left.seconds() == pytest.approx(97)
    left.see(1.0)
    assert left.seconds() is None

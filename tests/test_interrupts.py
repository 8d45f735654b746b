"""Ctrl-C, once, twice and thrice, and SIGTERM: a process always ends, and keeps its commits."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import stand_in

from retriever import Index
from retriever.cli import signals
from retriever.search.segment_kinds import KINDS
from retriever.storage import integrity
from retriever.testing import HashEncoder

SOON_S = 30.0  # on a busy machine; what never ends is what is looked for

# A program of somebody else's that adds documents.
PROGRAM = """
import sys, time
from retriever.testing import HashEncoder
from retriever import Index
class Slow(HashEncoder):
    def encode_documents(self, texts):
        time.sleep(0.05)
        return super().encode_documents(texts)
try:
    with Index.open(sys.argv[1], model=Slow()) as index:
        print("ready", flush=True)
        index.add(f"document {n} of {time.time()} " + "word " * 3000 for n in range(100_000))
except KeyboardInterrupt:
    pass
"""


def begin(
    command: list[str], *arguments: str, sigint: signal.Handlers | Callable = signal.SIG_DFL
) -> subprocess.Popen[str]:
    """Start a program, with SIGINT as given: the tests themselves may run with it ignored."""
    return subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TERM": "dumb"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, sigint),
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str, float]:
    """Return exit code, stderr and the seconds that it took to end."""
    began = time.monotonic()
    try:
        said = process.communicate(timeout=SOON_S)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"it did not end: {process.communicate()[1]}")
    return process.returncode, said, time.monotonic() - began


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    docs.mkdir()
    for number in range(600):
        (docs / f"{number}.txt").write_text(f"unlike the others {number} " + "word " * 300)
    return docs


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An empty index of the small encoder."""
    Index.open(tmp_path / "x.index", model=HashEncoder()).close()
    return tmp_path / "x.index"


def indexing(path: Path, docs: Path) -> tuple[str, ...]:
    return "index", str(docs), "-i", str(path)


@pytest.mark.parametrize("seed", range(8))
def test_a_program_ends_after_any_number_of_interrupts(tmp_path: Path, seed: int):
    chance = random.Random(seed)
    process = begin([sys.executable, "-c", PROGRAM], str(tmp_path / "x.index"))
    assert process.stdout.readline() == "ready\n"
    time.sleep(chance.uniform(0.05, 0.5))
    for _ in range(chance.choice([2, 3])):
        process.send_signal(signal.SIGINT)
        time.sleep(chance.choice([0, chance.uniform(0, 0.002), chance.uniform(0, 0.06)]))
    assert end(process)[0] in (0, -signal.SIGINT)
    assert integrity.verify(tmp_path / "x.index", kinds=KINDS).ok


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_ends_after_any_number_of_signals(
    path: Path, docs: Path, number: signal.Signals, seed: int
):
    chance = random.Random(seed)
    process = begin(stand_in.command_line(call_s=0.05, tells=True), *indexing(path, docs))
    assert process.stdout.readline() == "encoding\n"
    time.sleep(chance.uniform(0, 0.6))
    for _ in range(chance.choice([1, 2, 3])):
        process.send_signal(number)
        time.sleep(chance.choice([0, chance.uniform(0, 0.002), chance.uniform(0, 0.3)]))
    code, said, _ = end(process)
    assert code == signals.CODES[number]
    assert "Traceback" not in said
    assert "error: Interrupted." in said
    assert integrity.verify(path, kinds=KINDS).ok


def test_an_encoder_that_does_not_return_holds_nobody_up(path: Path, docs: Path):
    process = begin(stand_in.command_line(call_s=600, tells=True), *indexing(path, docs))
    assert process.stdout.readline() == "encoding\n"
    process.send_signal(signal.SIGINT)
    code, said, seconds = end(process)
    assert (code, "Traceback" in said) == (130, False)
    assert seconds < signals.PATIENCE_S + 15


def test_a_command_that_was_told_to_ignore_ctrl_c_goes_on(path: Path, docs: Path):
    for left_over in list(docs.iterdir())[20:]:
        left_over.unlink()
    process = begin(
        stand_in.command_line(call_s=0.2, tells=True), *indexing(path, docs), sigint=signal.SIG_IGN
    )
    assert process.stdout.readline() == "encoding\n"
    process.send_signal(signal.SIGINT)
    assert end(process)[0] == 0
    with Index.open(path, model=HashEncoder()) as index:
        assert index.count() == 20


@pytest.mark.parametrize("wait_s", [0.2, 0.6, 1.0, 1.4])
def test_the_real_model_is_left_in_the_middle_of_its_work(
    tmp_path: Path, docs: Path, wait_s: float
):
    """Native code that comes back to an interpreter which is gone aborts the process."""
    process = begin([sys.executable, "-m", "retriever"], *indexing(tmp_path / "x.index", docs))
    while not (tmp_path / "x.index" / "HEAD").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    time.sleep(wait_s)
    process.send_signal(signal.SIGINT)
    code, said, _ = end(process)
    assert (code, said.splitlines()[0][:19]) == (130, "error: Interrupted.")

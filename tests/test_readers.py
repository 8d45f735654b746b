"""Slices of two benchmarks: readers see every commit whole, and share the memory of vectors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.durability import readers, runner

ROOT = Path(__file__).parent.parent


@pytest.mark.durability
def test_readers_see_acknowledged_commits_whole_while_writers_are_killed(tmp_path: Path):
    outcome = readers.run(runner.Options(6, seed=2, folder=tmp_path), readers=3)
    assert outcome.failures == []
    assert outcome.trials > 20
    for name in ("commits", "writer kills", "opened", "in threads"):
        assert outcome.seen[name] > 0, dict(outcome.seen)


@pytest.mark.durability
@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="memory is read from /proc")
def test_readers_share_the_memory_of_vectors(tmp_path: Path):
    figures = tmp_path / "figures.json"
    options = ["--readers", "3", "--vectors", "20000", "--folder", str(tmp_path / "readers")]
    command = [sys.executable, "-m", "benchmarks.shared_memory", *options, "--json", str(figures)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert json.loads(figures.read_text())["ratio"] < 1.1

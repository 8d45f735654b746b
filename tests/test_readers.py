"""A slice of benchmarks/readers.py: readers in other processes see every commit, whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

READERS = Path(__file__).parent.parent / "benchmarks" / "readers.py"


@pytest.mark.durability
@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="memory is read from /proc")
def test_readers_see_acknowledged_commits_whole_and_share_their_memory(tmp_path: Path) -> None:
    options = ["--readers", "3", "--seconds", "6", "--vectors", "20000"]
    command = [sys.executable, str(READERS), *options, "--folder", str(tmp_path / "readers")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    report = json.loads(ran.stdout)
    written = report["under_writes"]
    assert (written["errors"], written["stale"], written["backwards"]) == (0, 0, 0)
    assert written["reads"] > 10
    assert written["writer"]["commits"] > 1
    assert report["memory"]["ratio"] < 1.1

"""A slice of benchmarks/kill.py: what a killed writer leaves is whole, findable and unlocked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

KILL = Path(__file__).parent.parent / "benchmarks" / "kill.py"


@pytest.mark.durability
def test_twelve_kills_lose_nothing_acknowledged_and_leave_nothing_half_done(tmp_path: Path) -> None:
    command = [sys.executable, str(KILL), "--trials", "12", "--longest", "1.0"]
    ran = subprocess.run(
        [*command, "--folder", str(tmp_path / "kill")], capture_output=True, text=True, timeout=240
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "12 kills" in ran.stdout
    assert " 0 failed" in ran.stdout

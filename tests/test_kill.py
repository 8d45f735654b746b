"""Slices of the durability harness: writers killed at random, and at points of the protocol."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.durability import kill, mutants, runner, shim

ROOT = Path(__file__).parent.parent
needs_shim = pytest.mark.skipif(bool(shim.unavailable()), reason=shim.unavailable())
pytestmark = pytest.mark.durability


def run_part(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.durability", *arguments, "--jobs", "1"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_killed_writers_lose_nothing_acknowledged_and_leave_nothing_half_done(
    tmp_path: Path,
) -> None:
    outcome = kill.run(runner.Options(count=20, seed=4, folder=tmp_path))
    assert outcome.ok, outcome.failures
    assert outcome.trials == 20
    assert outcome.seen["calls"] > 0


@needs_shim
def test_a_writer_may_die_at_any_point_of_the_protocol(tmp_path: Path) -> None:
    told = run_part("points", "--count", "40", "--seed", "5", "--folder", str(tmp_path))
    assert "40 trials" in told
    assert "not reached" not in told


def test_every_mutant_still_fits_the_source(tmp_path: Path) -> None:
    for mutant in mutants.MUTANTS:
        assert mutant.parts
        for edit in mutant.edits:
            assert edit.old != edit.new, mutant.name
            mutants.break_copy(ROOT / "retriever", tmp_path, edit, mutant.name)


@needs_shim
def test_the_harness_notices_a_mutant(tmp_path: Path) -> None:
    (number,) = (n for n, m in enumerate(mutants.MUTANTS) if m.name == "HEAD is not synced")
    told = run_part("mutants", "--only", str(number), "--seed", "1", "--folder", str(tmp_path))
    assert "0 failed" in told

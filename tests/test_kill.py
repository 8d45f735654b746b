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


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name)
def test_every_name_that_a_mutant_replaces_exists(mutant: mutants.Mutant) -> None:
    changes = mutant.changes()
    assert changes
    assert mutant.parts
    for target, change in changes.items():
        place, name = mutants.find(target)
        assert change(getattr(place, name)) is not getattr(place, name)


@pytest.mark.parametrize("target", ["retriever.storage.files:sink", "retriever.store:x"])
def test_a_name_that_is_gone_is_noticed(target: str) -> None:
    with pytest.raises((AttributeError, ImportError), match=r"files:sink|retriever\.store"):
        mutants.find(target)


@needs_shim
def test_the_harness_notices_a_mutant(tmp_path: Path) -> None:
    (number,) = (n for n, m in enumerate(mutants.MUTANTS) if m.name == "HEAD is not synced")
    told = run_part("mutants", "--only", str(number), "--seed", "1", "--folder", str(tmp_path))
    assert "0 failed" in told

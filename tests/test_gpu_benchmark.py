"""The GPU's benchmark runs on a CPU, so that it is not found broken where a GPU is at hand."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu.py"

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("torch", "sentence_transformers"))),
    reason="compares with sentence-transformers",
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_tiny_runs_every_part(tmp_path: Path):
    report = tmp_path / "gpu.json"
    done = run("--tiny", "--work", str(tmp_path), "--json", str(report), "--models", "mpnet")
    assert done.returncode == 0, done.stderr
    assert "real mix" in done.stdout
    found = json.loads(report.read_text())["models"]["mpnet"]
    assert set(found["rates"]) == {"16 each", "48 each", "real mix"}
    for row in found["rates"].values():
        assert set(row["rates"]) == {"device", "end to end", "float32", "float16", "best"}
        assert min(row["rates"].values()) > 0
    assert min(found["cosines"].values()) > 0.99999
    assert found["failures"] == []


def test_without_a_gpu_it_says_so(tmp_path: Path):
    done = run("--work", str(tmp_path))
    assert done.returncode == 1
    assert "There is no NVIDIA GPU" in done.stderr
    assert "--tiny" in done.stderr
    assert list(tmp_path.iterdir()) == []

"""What README.md says to type can be typed: every command and the example in Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Return the commands that are no installation, in order."""
    lines = [line for block in blocks("console") for line in block.splitlines()]
    assert all(line.startswith("$ ") for line in lines)
    return [line[2:] for line in lines if not line.startswith("$ pip ")]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder as a reader may have it, with `retriever` on the path."""
    shutil.copytree(ROOT / "data" / "handbook" / "water", tmp_path / "manuals")
    (tmp_path / "notes.md").write_text("# Notes\n\nAsk the clerk about the levy.\n")
    tools = tmp_path / "bin"
    tools.mkdir()
    program = tools / "retriever"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m retriever "$@"\n')
    program.chmod(0o755)
    if shutil.which("jq") is None:
        (tools / "jq").write_text("#!/bin/sh\ncat\n")
        (tools / "jq").chmod(0o755)
    return tmp_path


@pytest.mark.model
def test_every_command_of_the_readme_runs(place: Path):
    environment = {**os.environ, "PATH": f"{place / 'bin'}:{os.environ['PATH']}"}
    listed = commands()
    assert len(listed) >= 10
    for line in listed:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert "Traceback" not in done.stderr


@pytest.mark.model
def test_the_example_in_python_runs(place: Path):
    (example,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", example],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Reset the pump by …" in done.stdout

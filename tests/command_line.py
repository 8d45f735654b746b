"""What the tests of the command line share: running it, and a folder with its index."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import stand_in
from click.testing import CliRunner, Result

from retriever import Index
from retriever.cli import main
from retriever.encoders.plugged import plug
from retriever.testing import HashEncoder

_KEEPS_STREAMS_APART = "mix_stderr" not in inspect.signature(CliRunner).parameters


def cli_runner(**options: Any) -> CliRunner:
    """Return a runner whose results have `stderr` apart, as click's own have from 8.2 on."""
    return CliRunner(**options) if _KEEPS_STREAMS_APART else CliRunner(mix_stderr=False, **options)


def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return cli_runner().invoke(main, arguments, input=stdin)


def run_json(*arguments: str, stdin: str | bytes | None = None) -> dict[str, Any]:
    done = run(*arguments, "--json", stdin=stdin)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def small_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Work in an empty folder, where every model's name stands for the small encoder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RETRIEVER_INDEX", raising=False)
    for module, name, value in stand_in.replacements(lambda: plug(HashEncoder())):
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "pump.md").write_text("# The pump\n\nPrime the pump before you start it.\n")
    (docs / "bees.txt").write_text("The swarm hangs in the apple tree.\n")
    (docs / "levy.rst").write_text("Levy\n====\n\nVisitors pay two crowns a night.\n")
    return docs


@pytest.fixture
def index(folder: Path, tmp_path: Path) -> Path:
    """An index of `folder` at the default place."""
    with Index.open(tmp_path / ".retriever", model=HashEncoder()) as opened:
        opened.add_files(folder)
    return tmp_path / ".retriever"


def error_of(done: Result) -> dict[str, str]:
    assert done.stdout == ""
    answer = json.loads(done.stderr)
    assert answer["schema"] == 1
    return answer["error"]

"""The benchmarks are not run here, but they can be: they import, and say what they take."""

from __future__ import annotations

import importlib

import pytest
from click.testing import CliRunner

from benchmarks.encode.__main__ import PARTS, main


def test_encode_explains_itself() -> None:
    said = CliRunner().invoke(main, ["--help"])
    assert said.exit_code == 0
    assert "--peers" in said.output
    assert all(part in said.output for part in PARTS)


@pytest.mark.parametrize("part", PARTS)
def test_parts_of_encode_say_what_their_limit_counts(part: str) -> None:
    module = importlib.import_module(f"benchmarks.encode.{part}")
    assert callable(module.run)
    assert module.LIMIT > 1
    assert "`--limit`" in module.__doc__ or part == "install"


def test_encode_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RETRIEVER_BENCH_DATA", raising=False)
    said = CliRunner().invoke(main, ["memory"])
    assert said.exit_code == 1
    assert "pass --data DIR or set $RETRIEVER_BENCH_DATA" in said.output

"""The package's types, as a user's type checker sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

import retriever


def test_a_users_program_passes_mypy():
    api = pytest.importorskip("mypy.api")
    program = Path(__file__).with_name("typed_program.py")
    root = Path(retriever.__file__).parents[1]
    config = str(root / "pyproject.toml")
    said, errors, code = api.run(["--config-file", config, "--strict", str(program)])
    assert (code, errors) == (0, ""), said


def test_aliases_are_there_at_runtime():
    import numpy as np
    from numpy.typing import NDArray

    assert retriever.Vector == NDArray[np.float32]
    assert retriever.Metadata is not None
    assert retriever.ProgressCallback is not None

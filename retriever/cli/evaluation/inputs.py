"""Checks of the files that are named on the command line."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from retriever.errors import InvalidEvaluation, UnreadableFile


def check_distinct(runs: Iterable[str | os.PathLike[str]]) -> None:
    """Check that no run is named twice, whatever way its path is written.

    Raises:
        InvalidEvaluation: Two paths lead to one file.
    """
    known: dict[str, str] = {}
    for path in runs:
        run = os.fspath(path)
        file = os.path.realpath(run)
        if file in known:
            raise InvalidEvaluation(
                f"{run} is named twice."
                if known[file] == run
                else f"{run} and {known[file]} are the same file.",
                hint="Name each run once.",
            )
        known[file] = run


def check_files(paths: Iterable[Path], example: str) -> None:
    """Check that files of questions are there, before an index is looked for.

    Args:
        paths: The files.
        example: The name of a file that a folder may hold, for the hint.

    Raises:
        InvalidEvaluation: One is a folder.
        UnreadableFile: One does not exist.
    """
    for path in paths:
        if path.is_dir():
            inside = path / example
            raise InvalidEvaluation(
                f"{path} is a folder.",
                hint=f"Did you mean {inside}?"
                if inside.exists()
                else "Name the files of questions in it.",
            )
        if not path.exists():
            raise UnreadableFile(
                f"{os.fspath(path)!r} cannot be read: there is no such file.",
                path=str(path),
                hint="Check the path.",
            )

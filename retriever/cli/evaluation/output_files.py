"""Files that the commands of `eval` write."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from retriever.errors import InvalidEvaluation


def check(option: str, path: Path, inputs: Iterable[Path]) -> None:
    """Refuse a file that cannot be written, or that is read too, before anything is computed.

    Args:
        option: The option that names the file, such as `--plot`.
        path: The file.
        inputs: The files that the command reads.

    Raises:
        InvalidEvaluation: It cannot be written, or is one of `inputs`.
    """
    shown = f"{option} {os.fspath(path)!r}"
    folder = path.absolute().parent
    if path.is_dir():
        raise InvalidEvaluation(f"{shown} is a folder.", hint="Name a file in it.")
    if not folder.is_dir():
        raise InvalidEvaluation(
            f"{shown} is to be in the folder {os.fspath(path.parent)!r}, which does not exist.",
            hint="Make the folder first, or name another.",
        )
    # A regular file is replaced; a pipe or a device is written to.
    written = [path] if path.exists() else []
    if not written or path.is_file():
        written.append(folder)
    if not all(os.access(one, os.W_OK) for one in written):
        raise InvalidEvaluation(
            f"{shown} cannot be written: permission denied.", hint="Name a file elsewhere."
        )
    if path.is_file() and any(one.exists() and path.samefile(one) for one in inputs):
        raise InvalidEvaluation(
            f"{shown} would replace a file that is read.", hint="Name another file."
        )

"""Find the index when none is named, as git finds its repository."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from retriever.cli import output

DEFAULT = Path(".retriever")
_FILES = ("store.db", "HEAD")


def locate(*, quiet: bool) -> Path:
    """Return `.retriever` of the current folder, or else of the nearest folder above it.

    The search ends at the home folder and at the border of the file system. An index above that
    belongs to another user is not used, nor one in a folder like /tmp, in which everybody may
    write: otherwise somebody else could choose what is searched. If there is none, a new one
    belongs in the current folder.
    """
    try:
        return _locate(Path.cwd(), quiet=quiet)
    except OSError:  # the folder was removed, or its parents cannot be read
        return DEFAULT


def _locate(here: Path, *, quiet: bool) -> Path:
    if _is_index(DEFAULT):
        return DEFAULT
    home = os.path.realpath(os.path.expanduser("~"))  # noqa: PTH111
    device = here.stat().st_dev
    for folder in here.parents if str(here) != home else ():
        if folder.stat().st_dev != device:
            break
        index = folder / DEFAULT
        if _is_index(index) and not folder.stat().st_mode & stat.S_ISVTX:
            if index.stat().st_uid == os.geteuid():
                shown = Path(os.path.relpath(index, here))
                if not quiet:
                    output.note(f"Using the index {output.visible(os.fspath(shown))}.")
                return shown
            output.note(
                f"{output.visible(os.fspath(index))} belongs to another user and is not used; "
                "name it with -i if you trust it."
            )
            break
        if str(folder) == home:
            break
    return DEFAULT


def _is_index(path: Path) -> bool:
    return any(os.path.lexists(path / name) for name in _FILES)

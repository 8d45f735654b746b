"""`.gitignore` and `.retrieverignore`, with git's rules at every level of a folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pathspec import GitIgnoreSpec

IGNORE_FILES = (".gitignore", ".retrieverignore")
"""In ascending order of precedence; within a folder the later file may take back a rule."""


class IgnoreRules:
    """The rules in force in one folder: its own, then those of the folders above.

    Args:
        folder: The folder that the patterns are relative to.
        lines: The lines of its ignore files; those that are no pattern are passed over, as in git.
        above: The rules of the folder above.
    """

    def __init__(self, folder: str, lines: Iterable[bytes], above: IgnoreRules | None) -> None:
        self._base = len(os.path.join(folder, ""))  # noqa: PTH118
        self._spec = _compile(lines)
        self._above = above

    def exclude(self, path: str, *, is_folder: bool) -> bool:
        """Return whether a file or folder somewhere below is excluded; the last match decides."""
        rules: IgnoreRules | None = self
        while rules is not None:
            relative = path[rules._base :]
            found = rules._spec.check_file(relative + "/" if is_folder else relative)
            if found.include is not None and found.index is not None:
                # `folder/**` is about what is inside, of which `!` may take something back.
                line = str(getattr(rules._spec.patterns[found.index], "pattern", ""))
                return found.include and not (is_folder and line.rstrip().endswith("/**"))
            rules = rules._above
        return False


def _compile(lines: Iterable[bytes]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    kept: list[str] = []
    for line in lines:
        pattern = os.fsdecode(line).rstrip("\r\n")
        try:
            GitIgnoreSpec.from_lines([pattern])
        except ValueError:
            continue
        kept.append(pattern)
    return GitIgnoreSpec.from_lines(kept)

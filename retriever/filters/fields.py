"""Fields that every index has, and what to say of those that no document has."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

BUILT_IN = ("folder", "heading", "id", "language", "page", "source", "title")
"""Fields that every index has, though its documents may have no value there."""
_LONGEST_SHOWN = 60


def unknown_fields(asked: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return a sentence for each field that no document has, with the name it resembles."""
    possible = {*known, *BUILT_IN}
    return [
        f"no document has the field {_shown(path)}{_meant(path, possible)}"
        for path in sorted(asked)
        if path not in possible
    ]


def _shown(path: str) -> str:
    return repr(path if len(path) <= _LONGEST_SHOWN else path[: _LONGEST_SHOWN - 1] + "…")


def _meant(path: str, possible: Iterable[str]) -> str:
    close = get_close_matches(path[:200], possible, 1)
    return f"; did you mean {_shown(close[0])}?" if close else ""

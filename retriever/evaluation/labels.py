"""How tables and plots write the names of runs, differences and p-values."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

_SUFFIXES = (".gz", ".trec", ".run", ".txt", ".res", ".tsv", ".out")


def labels(names: Sequence[str]) -> dict[str, str]:
    """Return a label for each name: without the folders that all are in, and usual suffixes.

    Names that would no longer differ are returned as they are.
    """
    parts = [name.split("/") for name in names]
    shared = 0
    while len({tuple(one[: shared + 1]) for one in parts}) == 1 and all(
        len(one) > shared + 1 for one in parts
    ):
        shared += 1
    found = [_without_suffixes("/".join(one[shared:])) for one in parts]
    if len(set(found)) < len(names) or not all(found):
        found = list(names)
    return dict(zip(names, found, strict=True))


def _without_suffixes(name: str) -> str:
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix) or name
    return name


def letters(names: Sequence[str]) -> dict[str, str]:
    """Return a letter for each name, A to Z; numbers from 1 if there are more."""
    if len(names) <= len(ascii_uppercase):
        return dict(zip(names, ascii_uppercase, strict=False))
    return {name: str(number) for number, name in enumerate(names, 1)}


def p_value(p: float) -> str:
    """Return `= 0.0312`, or `< 0.0001`."""
    return "< 0.0001" if p < 0.0001 else f"= {p:.4f}"


def signed(value: float, digits: int = 4) -> str:
    """Return a difference with its sign, and a minus that is as wide as the plus."""
    return f"{value:+.{digits}f}".replace("-", "−")

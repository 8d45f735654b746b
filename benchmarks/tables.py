"""Tables in Markdown, between marks by which `results.py` finds them in what a command prints.

show("SciFact, 300 questions", ["system", "nDCG@10"], [["float32", ".6451"]], "A note.")
"""

from __future__ import annotations

import re
from collections.abc import Sequence

BEGIN, END = "<!-- table -->", "<!-- end of table -->"


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *notes: str) -> None:
    """Print a title, a table and sentences about it; the first column is flush left."""
    parts = [title, markdown(columns, rows), *notes]
    print("\n".join(["", BEGIN, "\n\n".join(part for part in parts if part), END]), flush=True)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table, aligned on a terminal too; columns of numbers are flush right."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in (columns, *rows)]
    lines = [[] for _ in cells]
    rule = []
    for number, column in enumerate(zip(*cells, strict=True)):
        width = max(3, *map(len, column))
        is_text = number == 0 or any(re.match(r"[^\W\d]|`", cell) for cell in column[1:])
        rule.append("-" * width if is_text else "-" * (width - 1) + ":")
        for line, cell in zip(lines, column, strict=True):
            line.append(cell.ljust(width) if is_text else cell.rjust(width))
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def printed(output: str) -> list[str]:
    """Return what stands between marks in the output of a command, title and notes included."""
    return [part.strip() for part in re.findall(f"{BEGIN}\n(.*?){END}", output, re.DOTALL)]


def interval(value: float, bounds: tuple[float, float] | None, digits: int = 4) -> str:
    """Return a share with its interval, as `.6451 (.60–.69)`; without bounds the share alone."""
    shown = f"{value:.{digits}f}".removeprefix("0")
    if bounds is None:
        return shown
    low, high = (f"{bound:.3f}".removeprefix("0") for bound in bounds)
    return f"{shown} ({low}–{high})"

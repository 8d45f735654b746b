"""Find tables of pipes, as in Markdown, and their header rows."""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_HEADER = 160
"""Characters of a header row that go with each part of its table."""

# The row of dashes below the header. Nothing in it can be matched in two ways.
_DELIMITER = re.compile(
    r"^[ \t]{0,16}(?=[|:-])(?=[^\n]*\|)\|?[ \t]*+:?-++:?[ \t]*+"
    r"(?:\|[ \t]*+:?-++:?[ \t]*+){0,200}+\|?[ \t]*+\r?$",
    re.MULTILINE,
)
_PARTED = re.compile(r"(?<!\\)\|")


class Table(NamedTuple):
    """The rows of a table, characters `[start, end)` of a text, and the header above them."""

    start: int
    end: int
    header: str


def find_tables(text: str) -> list[Table]:
    """Return the tables of a text, in order."""
    if "|" not in text:
        return []
    tables: list[Table] = []
    position = 0
    while (dashes := _DELIMITER.search(text, position)) is not None:
        position = dashes.end()
        above_end = max(dashes.start() - 1, 0)
        above = text[text.rfind("\n", 0, above_end) + 1 : above_end][: 4 * MAX_HEADER].strip()
        if "|" in above and (header := _header(above)):
            position = _end(text, dashes.end())
            tables.append(Table(dashes.start(), position, header))
    return tables


def _header(row: str) -> str:
    """Return a header row in one form, with as many of its cells as fit into `MAX_HEADER`."""
    header = "|"
    cells = [" ".join(cell.split()) for cell in _PARTED.split(row.removeprefix("|").rstrip("|"))]
    for cell in cells:
        if len(header) + len(cell) + 3 > MAX_HEADER:
            break
        header += f" {cell} |"
    return header if re.search(r"\w", header) else ""


def _end(text: str, start: int) -> int:
    """Return where the rows end: before the first line without a bar."""
    end = start
    while end < len(text):
        stop = text.find("\n", end + 1)
        stop = len(text) if stop < 0 else stop
        if "|" not in text[end:stop]:
            break
        end = stop
    return end

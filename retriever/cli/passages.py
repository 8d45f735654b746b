"""Wrap passages of text to a terminal's width, by the cells that characters occupy."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import islice

from retriever.cli.output import in_one_line, visible

_UNDERLINE = r"[=\-~^\"*+`.:#_]"
_ELLIPSIS = " …"


def cells(text: str) -> int:
    """Return the number of terminal columns that a text occupies."""
    if text.isascii():
        return len(text)
    return sum(map(_cells_of, text))


def _cells_of(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def wrap(text: str, width: int) -> Iterator[str]:
    """Yield the lines of a text, broken at spaces, or within a word longer than a line."""
    line, used = "", 0
    for word in text.split(" "):
        needed = cells(word)
        if line and used + 1 + needed <= width:
            line, used = f"{line} {word}", used + 1 + needed
            continue
        if line:
            yield line
        *full, line = _broken(word, width)
        yield from full
        used = cells(line)
    yield line


def _broken(word: str, width: int) -> list[str]:
    if cells(word) <= width:
        return [word]
    parts, part, used = [], "", 0
    for letter in word:
        taken = _cells_of(letter)
        if used + taken > width:
            parts.append(part)
            part, used = "", 0
        part, used = part + letter, used + taken
    return [*parts, part]


def snippet(text: str, heading: tuple[str, ...], width: int, lines: int) -> list[str]:
    """Return the beginning of a passage without its heading, in at most `lines` lines."""
    # The slice is far more than is shown, as runs of white space shrink. It keeps a passage of
    # megabytes from being wrapped as a whole.
    body = in_one_line(_without_heading(text, heading)[: width * lines * 4])
    shown = list(islice(wrap(body, width), lines + 1))
    if len(shown) > lines:
        last = shown[lines - 1]
        while cells(last) + len(_ELLIPSIS) > width:
            last = last.rpartition(" ")[0] or last[: -len(_ELLIPSIS)]
        shown = [*shown[: lines - 1], last + _ELLIPSIS]
    return shown


def _without_heading(text: str, heading: tuple[str, ...]) -> str:
    """Return a passage without the line of its innermost heading, and its underline."""
    if not heading:
        return text
    first, _, rest = text.lstrip().partition("\n")
    if first.startswith("#") and _letters(first) == _letters(heading[-1]):
        # Compared by letters, because the title has no markup, such as code spans.
        return rest if rest.strip() else text
    title = re.escape(heading[-1])
    found = re.match(
        rf"(?:\s|{_UNDERLINE})*{title}[ \t#]*(?:\r?\n{_UNDERLINE}{{2,}}[ \t]*)?(?:\r?\n|$)", text
    )
    rest = text[found.end() :] if found else text
    return rest if rest.strip() else text


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def whole(text: str, width: int) -> Iterator[str]:
    """Yield all lines of a passage with their indentation, wrapping long ones."""
    for line in visible(text).expandtabs(4).strip("\n").split("\n"):
        body = line.lstrip(" ")
        indent = min(len(line) - len(body), width // 2)
        for part in wrap(body.rstrip(), width - indent):
            yield " " * indent + part

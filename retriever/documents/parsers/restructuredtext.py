"""Parse reStructuredText: section titles, whose levels go by the order of their underlines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from unicodedata import east_asian_width

from retriever.documents.decoding import decode
from retriever.documents.parsers.lines import with_plain_line_ends
from retriever.documents.parsers.text import encoding_metadata
from retriever.types import Document, Heading

MAX_TITLE = 200
"""Characters of a longer title that are kept."""

_RULE = re.compile(r"^([!-/:-@\[-`{-~])\1+[ \t]*$", re.MULTILINE)
_ROLE = re.compile(r":[\w:+.-]+:`([^`<>]*?)(?:\s*<[^<>`]*>)?`")


def parse_restructuredtext(data: bytes, path: str) -> list[Document]:
    """Return a reStructuredText file as one document with its headings.

    The title is the first heading.

    Raises:
        UnsupportedFormat: If the file is binary.
        UnreadableFile: If its encoding is broken or not recognised.
    """
    decoded = decode(data, path)
    headings = tuple(_headings(with_plain_line_ends(decoded.text)))
    title = headings[0].title if headings else None
    return [
        Document(decoded.text, metadata=encoding_metadata(decoded), title=title, headings=headings)
    ]


def _headings(text: str) -> Iterator[Heading]:
    levels: dict[str, int] = {}
    done = 0
    for rule in _RULE.finditer(text):
        title_start, title_line = _line_before(text, rule.start())
        title = title_line.strip()
        width = sum(2 if east_asian_width(letter) in "WF" else 1 for letter in title[:MAX_TITLE])
        if title_start < done or not title or _RULE.match(title_line):
            continue
        underline = rule[0].rstrip()
        # docutils accepts an underline shorter than its title from 4 characters on.
        if len(underline) < min(width, 4):
            continue
        above_start, above = _line_before(text, title_start)
        start, style = title_start, underline[0]
        # A title with a line above it too is of another style, and so of another level.
        if above.rstrip() == underline:
            start, style = above_start, underline[0] * 2
        elif above.strip() or title_line[0] in " \t":
            continue
        done = rule.end()
        yield Heading(start, levels.setdefault(style, len(levels) + 1), _plain(title))


def _line_before(text: str, position: int) -> tuple[int, str]:
    """Return the line that ends just before `position`, and where it begins."""
    end = position - 1
    if end < 0:
        return 0, ""
    start = text.rfind("\n", 0, end) + 1
    return start, text[start:end]


def _plain(title: str) -> str:
    """Return a title without roles and marks of emphasis."""
    title = _ROLE.sub(r"\1", title[: 4 * MAX_TITLE])
    return re.sub(r"\*+|`+_*", "", title).strip()[:MAX_TITLE].strip() or title[:MAX_TITLE]

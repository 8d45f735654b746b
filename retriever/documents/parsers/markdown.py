"""Markdown: headings as CommonMark has them, and the title.

Only headings are looked for; the text is kept as it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from retriever.documents.decoding import decode
from retriever.documents.parsers.lines import with_plain_line_ends
from retriever.documents.parsers.text import encoding_metadata
from retriever.types import Document, Heading

MAX_TITLE = 200
"""Characters of a heading's title that are kept."""

# Every construct that matters begins a line with at most three spaces. Each branch is anchored
# and none can be matched in two ways, so that the search is linear.
_MARK = re.compile(
    r"^ {0,3}(?:(?P<fence>`{3,}|~{3,})(?P<info>.*)|(?P<hashes>#{1,6})(?P<atx>[ \t].*)?$"
    r"|(?P<underline>=+|-+)[ \t]*$|(?P<comment><!--))",
    re.MULTILINE,
)
# A line that cannot be the text of an underlined heading: empty, code, list, quotation, table, …
_NO_TITLE = re.compile(r"\s*$| {4}|\t| {0,3}(?:[-*+>|#<]|\d{1,9}[.)][ \t]|={2,}[ \t]*$|`{3}|~{3})")
_FRONT_MATTER = re.compile(r"(---|\+\+\+)[ \t]*\n")
_FRONT_TITLE = re.compile(r"^title[ \t]*[:=][ \t]*(.+)$", re.MULTILINE)
_MAX_FRONT_MATTER = 1 << 16
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()]*\)")


def parse_markdown(data: bytes, path: str) -> list[Document]:
    """Return a Markdown file as one document with its headings.

    The title is that of the front matter, else the first heading of level 1.

    Raises:
        UnsupportedFormat: If the file is binary.
        UnreadableFile: If its encoding is broken or not recognised.
    """
    decoded = decode(data, path)
    text = with_plain_line_ends(decoded.text)
    start, title = _front_matter(text)
    headings = tuple(_headings(text, start))
    if title is None:
        title = next((heading.title for heading in headings if heading.level == 1), None)
    return [
        Document(decoded.text, metadata=encoding_metadata(decoded), title=title, headings=headings)
    ]


def _front_matter(text: str) -> tuple[int, str | None]:
    """Return where the text proper begins, and the title that the front matter gives."""
    opening = _FRONT_MATTER.match(text)
    if opening is None:
        return 0, None
    fence = opening[1]
    # One character more to the left, so that empty front matter ends too.
    close = re.compile(rf"^(?:{re.escape(fence)}|\.\.\.)[ \t]*$", re.MULTILINE)
    closing = close.search(text, opening.end(), _MAX_FRONT_MATTER)
    if closing is None:
        return 0, None
    found = _FRONT_TITLE.search(text, opening.end(), closing.start())
    title = found[1].strip().strip("\"'").strip() if found else ""
    is_plain = title and title[0] not in "|>&*![{"
    return closing.end(), title[:MAX_TITLE] if is_plain else None


def _headings(text: str, start: int) -> Iterator[Heading]:
    position = start
    while (found := _MARK.search(text, position)) is not None:
        position = max(found.end(), position + 1)
        if found["fence"]:
            if not (found["fence"][0] == "`" and "`" in found["info"]):
                position = _after_fence(text, found)
        elif found["comment"]:
            closing = text.find("-->", found.end())
            position = len(text) if closing < 0 else closing + 3
        elif found["hashes"]:
            title = _plain(re.sub(r"(?:^|(?<=[ \t]))#+[ \t]*$", "", found["atx"] or ""))
            if title:
                yield Heading(found.start(), len(found["hashes"]), title)
        elif (heading := _underlined(text, found, start)) is not None:
            yield heading


def _after_fence(text: str, opening: re.Match[str]) -> int:
    """Return where a fenced block ends: at its closing fence, or with the text."""
    fence = opening["fence"]
    close = re.compile(rf"^ {{0,3}}{re.escape(fence[0])}{{{len(fence)},}}[ \t]*$", re.MULTILINE)
    closing = close.search(text, opening.end())
    return len(text) if closing is None else closing.end()


def _underlined(text: str, found: re.Match[str], start: int) -> Heading | None:
    """Return the heading of an underline: the one line above it that stands alone."""
    above_end = found.start() - 1
    above_start = text.rfind("\n", start, max(above_end, start)) + 1 or start
    line = text[above_start:above_end]
    if above_end <= start or _NO_TITLE.match(line):
        return None
    if above_start > start:
        before_start = text.rfind("\n", start, above_start - 1) + 1 or start
        if not _NO_TITLE.match(text[before_start : above_start - 1]):
            return None
    title = _plain(line)
    level = 1 if found["underline"][0] == "=" else 2
    return Heading(above_start, level, title) if title else None


def _plain(title: str) -> str:
    """Return a title without links, anchors and marks of emphasis."""
    title = _LINK.sub(r"\1", title.strip()[: 4 * MAX_TITLE])
    title = re.sub(r"[ \t]*\{[#.:][^{}]*\}$", "", title)
    return re.sub(r"\*+|`+|(?<!\w)_+|_+(?!\w)", "", title).strip()[:MAX_TITLE].strip()

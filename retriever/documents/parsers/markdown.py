"""Markdown: headings as a reader sees them, and the title; the text is kept as it is written.

Blocks and titles are read by markdown-it-py, a CommonMark parser, with the tables of GitHub.
"""

from __future__ import annotations

import html
import re
from functools import cache
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from retriever.documents.decoding import decode
from retriever.documents.parsers.front_matter import read_front_matter
from retriever.documents.parsers.lines import with_plain_line_ends
from retriever.documents.parsers.text import encoding_metadata
from retriever.types import Document, Heading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_PART, _LARGEST_PART = 1 << 18, 1 << 20
"""Characters that are parsed at once; a block that is longer than a part gets a longer one."""
MAX_TITLE = 200
"""Characters of a heading's title that are kept."""
_INLINE = re.compile(r"[\\`*_\[\]<>&{]")
_ATTRIBUTES = re.compile(r"[ \t]*\{[#.:][^{}]*\}$")
_HTML_HEADING = re.compile(
    r"<h([1-6])\b[^<>]{0,500}>(.{0,2000}?)</h\1\s*>", re.DOTALL | re.IGNORECASE
)
# Headings in these do not count; each opening is looked for once, so that time stays linear.
_HTML_HIDDEN = re.compile(r"<!--|<(script|style|pre|textarea|template)\b", re.IGNORECASE)
_TAG = re.compile(r"<!--.*?-->|<[^<>]*>", re.DOTALL)
_ALT = re.compile(r"""<img\b[^<>]*?\balt\s*=\s*(?:"([^"<>]*)"|'([^'<>]*)')[^<>]*>""", re.IGNORECASE)


def parse_markdown(data: bytes, path: str) -> list[Document]:
    """Return a Markdown file as one document with its headings.

    The title is that of the front matter, else the first heading of level 1. Headings in a
    quotation belong to what is quoted, not to the document.

    Raises:
        UnsupportedFormat: If the file is binary.
        UnreadableFile: If its encoding is broken or not recognised.
    """
    decoded = decode(data, path)
    text = with_plain_line_ends(decoded.text)
    start, title = read_front_matter(text)
    headings = tuple(_headings(text, start))
    if title is None:
        title = next((heading.title for heading in headings if heading.level == 1), None)
    return [
        Document(
            decoded.text,
            metadata=encoding_metadata(decoded),
            title=title and title[:MAX_TITLE].strip(),
            headings=headings,
        )
    ]


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable("table")


def _headings(text: str, start: int) -> Iterator[Heading]:
    environment: dict[str, Any] = {}
    for place, block in _blocks(text, start, environment):
        quotes = 0
        for token, after in zip_longest(block, block[1:]):
            quotes += (token.type == "blockquote_open") - (token.type == "blockquote_close")
            if quotes or token.map is None:
                continue
            if token.type == "heading_open" and (title := _title(after.content, environment)):
                yield Heading(place(token.map[0]), int(token.tag[1:]), title)
            elif token.type == "html_block":
                yield from _html_headings(text, place(token.map[0]), token)


def _blocks(
    text: str, start: int, environment: dict[str, Any]
) -> Iterator[tuple[Callable[[int], int], list[Token]]]:
    """Yield the tokens of the blocks, a part of a large text at a time.

    What is in the last block of a part may go on beyond it: the next part begins with that block.

    Yields:
        What gives the offset of a line of the part, and its tokens.
    """
    parser, size = _parser(), _PART
    while start < len(text):
        end = len(text) if start + size >= len(text) else text.rfind("\n", start, start + size) + 1
        end = end if end > start else min(start + size, len(text))
        lines = [start, *(found.end() for found in re.compile("\n").finditer(text, start, end))]
        tokens: list[Token] = []
        parser.block.parse(text[start:end], parser, environment, tokens)
        if end < len(text):
            last = max((n for n, token in enumerate(tokens) if _begins_block(token)), default=0)
            cut = lines[(tokens[last].map or [0])[0]] if tokens else end
            if cut > start:
                end, tokens = cut, tokens[:last]
            elif size < _LARGEST_PART:
                size *= 2
                continue
        yield lines.__getitem__, tokens
        start = end


def _begins_block(token: Token) -> bool:
    return token.level == 0 and token.map is not None


def _title(content: str, environment: dict[str, Any]) -> str:
    """Return the text of a heading without its marks."""
    if _INLINE.search(content) is None:
        return " ".join(content[:MAX_TITLE].split())
    parser = _parser()
    tokens: list[Token] = []
    # Marks and targets of links are dropped, so more is read than is kept.
    parser.inline.parse(content[: 4 * MAX_TITLE], parser, environment, tokens)
    title = _ATTRIBUTES.sub("", " ".join(_plain(tokens).split()))
    return title[:MAX_TITLE].strip()


def _plain(tokens: Sequence[Token]) -> str:
    parts = []
    for token in tokens:
        if token.type == "image":
            parts.append(_plain(token.children or []))
        elif token.type in ("softbreak", "hardbreak"):
            parts.append(" ")
        elif token.type != "html_inline":
            parts.append(token.content)
    return "".join(parts)


def _html_headings(text: str, start: int, block: Token) -> Iterator[Heading]:
    """Yield the headings that a block of raw HTML has, each at the beginning of its line."""
    if "<h" not in block.content.lower():
        return
    shown = _shown(text[start : start + len(block.content)])
    last = -1
    for found in _HTML_HEADING.finditer(shown):
        inside = _TAG.sub("", _ALT.sub(lambda image: image[1] or image[2] or "", found[2]))
        title = " ".join(html.unescape(inside).split())[:MAX_TITLE].strip()
        place = start + shown.rfind("\n", 0, found.start()) + 1
        if title and place > last:
            yield Heading(place, int(found[1]), title)
            last = place


def _shown(source: str) -> str:
    """Return HTML of the same length, with blanks for what a browser does not show as such."""
    parts: list[str] = []
    done = 0
    while (opening := _HTML_HIDDEN.search(source, done)) is not None:
        close = f"</{opening[1].lower()}" if opening[1] else "-->"
        # Each search may read the rest of the block. Their number is bounded, and what comes after
        # the last one counts as hidden.
        end = source.lower().find(close, opening.end()) if len(parts) < _MAX_HIDDEN else -1
        end = len(source) if end < 0 else end + len(close)
        parts += [
            source[done : opening.start()],
            re.sub(r"[^\n]", " ", source[opening.start() : end]),
        ]
        done = end
    return "".join([*parts, source[done:]])


_MAX_HIDDEN = 200

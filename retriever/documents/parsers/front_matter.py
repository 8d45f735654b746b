"""Read front matter: where it ends, and the title that it gives."""

from __future__ import annotations

import json
import re
import tomllib

_OPENING = re.compile(r"(---|\+\+\+)[ \t]*\n")
_YAML_TITLE = re.compile(r"^(?:title|\"title\"|'title')[ \t]*:(?:[ \t]+(.*))?$", re.MULTILINE)
_BLOCK = re.compile(r"([|>])[+-]?\d?[+-]?(?:[ \t]+#.*)?$")
_MAX_LENGTH = 1 << 16


def read_front_matter(text: str) -> tuple[int, str | None]:
    r"""Return where a text proper begins, and the title that YAML or TOML above it gives.

    Args:
        text: Its lines end in `\n`.
    """
    opening = _OPENING.match(text)
    if opening is None:
        return 0, None
    fence = opening[1]
    ends = re.escape(fence) if fence == "+++" else r"(?:---|\.\.\.)"
    # One character more to the left, so that empty front matter ends too.
    closing = re.compile(rf"^{ends}[ \t]*$", re.MULTILINE).search(text, opening.end(), _MAX_LENGTH)
    if closing is None:
        return 0, None
    source = text[opening.end() : closing.start()]
    title = _toml_title(source) if fence == "+++" else _yaml_title(source)
    return closing.end(), " ".join(title.split()) or None if title else None


def _toml_title(source: str) -> str | None:
    try:
        title = tomllib.loads(source).get("title")
    except (tomllib.TOMLDecodeError, RecursionError):
        return None
    return title if isinstance(title, str) else None


def _yaml_title(source: str) -> str | None:
    """Return the title as YAML reads it: plain, quoted or as a block, over several lines."""
    found = _YAML_TITLE.search(source)
    if found is None:
        return None
    first = (found[1] or "").strip()
    indented = re.compile(r"(?:\n(?:[ \t]+.*)?)*").match(source, found.end())
    further = [line.strip() for line in (indented[0] if indented else "").split("\n")[1:]]
    if _BLOCK.match(first):
        return " ".join(further)
    whole = " ".join([first, *(line for line in further if line)]).strip()
    if whole.startswith('"'):
        return _double_quoted(whole)
    if whole.startswith("'"):
        closed = re.match(r"'((?:[^']|'')*)'", whole)
        return closed[1].replace("''", "'") if closed else None
    # A title that is a list, a mapping, an alias or a tag is ignored.
    return None if whole[:1] in "[{&*!|>%@`" else re.split(r"(?:^|[ \t])#", whole, maxsplit=1)[0]


def _double_quoted(whole: str) -> str | None:
    closed = re.match(r'"(?:[^"\\]|\\.)*"', whole)
    if closed is None:
        return None
    try:
        title = json.loads(closed[0])
    except ValueError:  # an escape that YAML has and JSON has not
        title = re.sub(r"\\(.)", r"\1", closed[0][1:-1])
    return str(title)

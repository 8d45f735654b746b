"""Glob patterns such as `**/*.{md,rst}`, matched on whole relative paths.

`fnmatch` and `pathlib` have no braces. `wcmatch` has them, but takes a malformed pattern, such as
`*.{md`, as literal text, so that a typing error would select no file without a word; it also reads
`{1..3}` as a sequence. Checking patterns for it would leave half of this module.
"""

from __future__ import annotations

import re

from retriever.errors import InvalidConfig


def compile_glob(glob: str) -> re.Pattern[str]:
    r"""Return the regular expression of a glob, for `fullmatch` on a relative path.

    `*` and `?` stay within a name, `**` crosses directories, `[abc]` and `[!abc]` are one
    character, `{md,rst}` is either; `\` takes the next character as it is. Without a slash the
    glob is matched on the name alone, at any depth.

    Raises:
        InvalidConfig: If the glob is empty, absolute, or malformed: a brace is not closed, say.
    """
    pattern = glob.removeprefix("./")
    if not pattern or pattern.startswith("/"):
        raise InvalidConfig(
            f"The glob {glob!r} can match nothing: it is matched on paths below the one given.",
            hint="Write it relative, as in '**/*.md'.",
        )
    if pattern.endswith("/"):
        pattern += "**"
    if "/" not in pattern:
        pattern = "**/" + pattern
    # In a row they match no more than one does, but multiply the time that a mismatch takes.
    pattern = re.sub(r"(?:\*\*/)+", "**/", pattern)
    try:
        return re.compile("".join(_translate(pattern)), re.DOTALL)
    except (re.error, ValueError) as error:
        raise InvalidConfig(
            f"The glob {glob!r} is malformed: {error}.",
            hint="Close every '{' and '['; a range is written as in [a-z].",
        ) from error


# Alternatives are tried in order: `**` as a whole path component first, or it would be two stars.
_PART = re.compile(
    r"(?P<deep>(?:(?<=/)|(?<![^{,]))\*\*/)|(?P<rest>(?<=/)\*\*\Z)|(?P<any>\*+)|(?P<one>\?)"
    r"|\[(?P<negated>!?)(?P<set>\]?[^\]/]*)\]|(?P<open>\{)|(?P<close>\})|(?P<comma>,)"
    r"|\\(?P<escaped>.)|(?P<literal>.)",
    re.DOTALL,
)
_MEMBER = re.compile(r"(.)-(.)|(.)", re.DOTALL)
_SIMPLE = {"deep": "(?:[^/]+/)*", "rest": ".+", "any": "[^/]*", "one": "[^/]", "open": "(?:"}


def _escape_member(found: re.Match[str]) -> str:
    """Return a range or a single character of a set, escaped for a regular expression."""
    first, last, alone = found.groups()
    return f"{re.escape(first)}-{re.escape(last)}" if alone is None else re.escape(alone)


def _translate(pattern: str) -> list[str]:
    parts: list[str] = []
    depth = 0
    for found in _PART.finditer(pattern):
        kind = str(found.lastgroup)
        depth += (kind == "open") - (kind == "close")
        if kind in _SIMPLE:
            parts.append(_SIMPLE[kind])
        elif kind == "close":
            parts.append(")")
        elif kind == "comma":
            parts.append("|" if depth else ",")
        elif kind == "set":
            members = _MEMBER.sub(_escape_member, found["set"])
            # A negated set would match the slash, and with it leave the name.
            parts.append(f"(?!/)[{'^' if found['negated'] else ''}{members}]")
        else:
            parts.append(re.escape(found[kind]))
        if depth < 0:
            raise ValueError("a '}' without its '{'")
    if depth:
        raise ValueError("a '{' is not closed")
    return parts

"""Match paths against `.gitignore` and `.retrieverignore` as git does.

This follows git's own sources: `dir.c` for how the files are read and which pattern decides, and
`wildmatch.c` for what a pattern matches. A test compares it with `git ls-files --others
--exclude-standard` on generated trees. Paths and patterns are bytes, as in git: `?` is one byte.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

IGNORE_FILES = (".gitignore", ".retrieverignore")
"""In ascending order of precedence: the later file may take back a rule of the earlier one."""

REPOSITORY_IGNORE_FILE = os.path.join(".git", "info", "exclude")  # noqa: PTH118
"""Relative to the root of a repository; every `.gitignore` in it takes precedence."""

_SPECIAL = re.compile(rb"[*?\[\\]")
_NOT_BELOW = rb"[^/]"
_CLASSES = {
    name: frozenset(byte for byte in range(256) if re.fullmatch(members, bytes([byte])))
    for name, members in (
        (b"alnum", rb"[0-9A-Za-z]"),
        (b"alpha", rb"[A-Za-z]"),
        (b"blank", rb"[ \t]"),
        (b"cntrl", rb"[\x00-\x1f\x7f]"),
        (b"digit", rb"[0-9]"),
        (b"graph", rb"[\x21-\x7e]"),
        (b"lower", rb"[a-z]"),
        (b"print", rb"[\x20-\x7e]"),
        (b"punct", rb"[!-/:-@\[-`{-~]"),
        (b"space", rb"[ \t\n\v\f\r]"),
        (b"upper", rb"[A-Z]"),
        (b"xdigit", rb"[0-9A-Fa-f]"),
    )
}


class IgnoreRules:
    """The rules that apply in one folder: its own, then those of the folders above.

    Args:
        folder: The folder that the patterns are relative to.
        files: The content of its ignore files, in ascending order of precedence.
        above: The rules of the folder above.
    """

    def __init__(self, folder: str, files: Iterable[bytes], above: IgnoreRules | None) -> None:
        self._base = len(os.path.join(os.fsencode(folder), b""))  # noqa: PTH118
        self._above = above
        # Most patterns are the plain name of a file or folder: those are looked up.
        self._names: dict[bytes, list[tuple[int, _Pattern]]] = {}
        self._others: list[tuple[int, _Pattern]] = []
        patterns = (pattern for data in files for pattern in _patterns(data))
        for position, pattern in enumerate(patterns):
            if pattern.name is not None:
                self._names.setdefault(pattern.name, []).append((position, pattern))
            else:
                self._others.append((position, pattern))
        # Last first, because the last pattern that matches decides.
        self._others.reverse()

    def exclude(self, path: str, *, is_folder: bool) -> bool:
        """Return whether a file or folder somewhere below is excluded.

        The last pattern that matches decides, and a folder's own patterns take precedence over
        those of the folders above. Do not ask about what lies in an excluded folder: git does not
        enter it.
        """
        encoded = os.fsencode(path)
        rules: IgnoreRules | None = self
        while rules is not None:
            decisive = rules._last_match(encoded[rules._base :], is_folder)
            if decisive is not None:
                return not decisive.is_negated
            rules = rules._above
        return False

    def _last_match(self, relative: bytes, is_folder: bool) -> _Pattern | None:
        name = relative.rpartition(b"/")[2]
        last, found = -1, None
        for position, pattern in reversed(self._names.get(name, ())):
            if is_folder or not pattern.is_for_folders:
                last, found = position, pattern
                break
        for position, pattern in self._others:
            if position < last:
                break
            if (is_folder or not pattern.is_for_folders) and pattern.matches(relative, name):
                return pattern
        return found


@dataclass(frozen=True, slots=True)
class _Pattern:
    """One line of an ignore file.

    Attributes:
        name: The name it matches, if it has no wildcard and no folder.
        regex: What it matches otherwise; None matches nothing.
        is_negated: Whether it includes again what an earlier line excludes.
        is_for_folders: Whether it matches folders only.
        is_for_names: Whether it is matched against the last part of a path, at any depth.
    """

    name: bytes | None
    regex: re.Pattern[bytes] | None
    is_negated: bool
    is_for_folders: bool
    is_for_names: bool

    def matches(self, relative: bytes, name: bytes) -> bool:
        subject = name if self.is_for_names else relative
        return self.regex is not None and self.regex.fullmatch(subject) is not None


def _patterns(data: bytes) -> Iterator[_Pattern]:
    """Yield the patterns of an ignore file (`add_patterns_from_buffer` of git's dir.c)."""
    for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        if not line or line.startswith(b"#"):
            continue
        pattern = _without_trailing_spaces(line.removesuffix(b"\r").partition(b"\0")[0])
        if pattern:
            yield _parse(pattern)


def _without_trailing_spaces(line: bytes) -> bytes:
    """Return a line without the spaces at its end, unless a backslash keeps one."""
    kept = position = 0
    while position < len(line):
        if line[position] == ord("\\"):
            position += 1
            kept = position + 1
        elif line[position] != ord(" "):
            kept = position + 1
        position += 1
    return line[:kept]


@lru_cache(4096)
def _parse(line: bytes) -> _Pattern:
    """Return the pattern of a line (`parse_path_pattern` and `match_pathname` of git's dir.c)."""
    is_negated = line.startswith(b"!")
    pattern = line[1:] if is_negated else line
    is_for_folders = pattern.endswith(b"/")
    pattern = pattern.removesuffix(b"/") if is_for_folders else pattern
    is_for_names = b"/" not in pattern
    special = _SPECIAL.search(pattern)
    name, regex = None, None
    if is_for_names and special is None:
        name = pattern
    else:
        pattern = pattern.removeprefix(b"/")
        # git compares the part before the first wildcard on its own. So in `a**/b` the stars are
        # at the beginning of the rest, where they match across folders.
        prefix = special.start() if (special := _SPECIAL.search(pattern)) else len(pattern)
        rest = _translate(pattern[prefix:])
        if rest is not None:
            regex = re.compile(re.escape(pattern[:prefix]) + rest, re.DOTALL)
    return _Pattern(name, regex, is_negated, is_for_folders, is_for_names)


_TOKEN = re.compile(
    rb"(?P<deep>(?:(?<=/)|(?<![\s\S]))\*\*+(?:/|\Z|(?=\\/)))|(?P<any>\*+)|(?P<one>\?)"
    rb"|(?P<set>\[)|\\(?P<escaped>[\s\S])|(?P<broken>\\\Z)|(?P<literal>[^*?\[\\])"
)


def _translate(pattern: bytes) -> bytes | None:
    """Return the regular expression of a pattern, or None if it matches nothing.

    Groups are atomic: where another wildcard follows, the earliest match of one is as good as any
    other, so it is never tried again. A pattern such as `*a*a*a*a*b` would take time that grows
    with a power of the length otherwise.
    """
    parts: list[list[bytes]] = [[]]  # divided at `**`
    position = 0
    while position < len(pattern):
        found = _TOKEN.match(pattern, position)
        if found is None or found.lastgroup == "broken":
            return None
        position = found.end()
        kind = found.lastgroup
        if kind == "deep":
            parts.append([b"(?:.*?/)??" if found[0].endswith(b"/") else b".*?"])
        elif kind == "any":
            parts[-1].append(b"*")
        elif kind == "one":
            parts[-1].append(_NOT_BELOW)
        elif kind == "set":
            members = _set(pattern, position)
            if members is None:
                return None
            position, regex = members
            parts[-1].append(regex)
        else:
            parts[-1].append(re.escape(found["escaped"] or found["literal"]))
    before = [b"(?>" + _part(part) + b")" for part in parts[:-1]]
    return b"".join(before) + _part(parts[-1], is_last=True)


def _part(tokens: list[bytes], *, is_last: bool = False) -> bytes:
    """Return the regular expression of what stands between two `**`."""
    stars = [position for position, token in enumerate(tokens) if token == b"*"]
    if not stars:
        return b"".join(tokens)
    pieces = [b"".join(tokens[: stars[0]])]
    for start, stop in zip(stars, [*stars[1:], len(tokens)], strict=True):
        piece = _NOT_BELOW + b"*?" + b"".join(tokens[start + 1 : stop])
        is_final = is_last and stop == len(tokens)
        pieces.append(piece if is_final else b"(?>" + piece + b")")
    return b"".join(pieces)


_RANGE = re.compile(rb"-(?=[^\]])")
_NAMED = re.compile(rb"\[:([^\]]*):\]")
_CHARACTER = re.compile(rb"\\(?P<escaped>[\s\S])|(?P<plain>[^\\])")


def _set(pattern: bytes, position: int) -> tuple[int, bytes] | None:
    """Return where a set `[…]` ends and its regular expression; None if it is malformed."""
    is_negated = pattern[position : position + 1] in (b"!", b"^")
    position += is_negated
    members: set[int] = set()
    previous: int | None = None
    is_first = True
    while is_first or pattern[position : position + 1] != b"]":
        is_first = False
        if named := _NAMED.match(pattern, position):
            if named[1] not in _CLASSES:
                return None
            members |= _CLASSES[named[1]]
            position, previous = named.end(), None
            continue
        is_range = previous is not None and _RANGE.match(pattern, position) is not None
        found = _CHARACTER.match(pattern, position + is_range)
        if found is None:
            return None
        (byte,) = found["escaped"] or found["plain"]
        members.update(range(previous, byte + 1) if previous and is_range else [byte])
        position, previous = found.end(), None if is_range else byte
    if is_negated:
        members = set(range(256)) - members
    # A set never matches the slash in git, not even a negated one.
    members.discard(ord("/"))
    escaped = b"".join(b"\\x%02x" % member for member in sorted(members))
    # `re` takes no empty set; `(?!)` matches nothing.
    return position + 1, b"[" + escaped + b"]" if escaped else b"(?!)"

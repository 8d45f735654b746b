"""Count files that were left out by kind: `120 HTML, 27 PDF, 22 notebooks`.

The kind is recognised in the reason, which is all that an index records of such a file. Reasons
are written by `parsers`, `decoding`, `walk` and `sources`; a test compares all of them with this
module.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

_PATTERNS = (
    re.compile(r"is (?P<kind>[^.]+), which no parser reads yet"),
    re.compile(r"is binary: it has (?P<none>)"),
    re.compile(r"is binary: (?:an? )?(?P<kind>[^.]+)"),
    re.compile(r"(?P<size>bytes), over the limit"),
    re.compile(r"^(?:an? )?(?P<kind>symbolic link|named pipe|socket|device)"),
    re.compile(r"^part of an (?P<kind>index)"),
)
_PLURALS = {
    "Jupyter notebook": ("notebook", "notebooks"),
    "archive": ("archive", "archives"),
    "image": ("image", "images"),
    "font": ("font", "fonts"),
    "program": ("program", "programs"),
    "database or data file": ("data file", "data files"),
    "symbolic link": ("symbolic link", "symbolic links"),
    "named pipe": ("named pipe", "named pipes"),
    "socket": ("socket", "sockets"),
    "device": ("device", "devices"),
    "index": ("other index", "other indexes"),
    "too large": ("file over the size limit", "files over the size limit"),
    "binary": ("other binary file", "other binary files"),
    "other": ("other file", "other files"),
}


def kind_of(reason: str) -> str:
    """Return what kind of file it is that was left out for a reason: `PDF`, `image`, `other`."""
    for pattern in _PATTERNS:
        if (found := pattern.search(reason)) is None:
            continue
        groups = found.groupdict()
        if "size" in groups:
            return "too large"
        return groups.get("kind") or "binary"
    return "other"


def counted(reasons: Iterable[str]) -> str:
    """Return how many files of each kind were left out, most first; empty if none was."""
    counts = Counter(map(kind_of, reasons))
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number:,} {_noun(kind, number)}" for kind, number in ordered)


def _noun(kind: str, number: int) -> str:
    singular, plural = _PLURALS.get(kind, (kind, kind))
    return singular if number == 1 else plural

r"""Print names on the terminal without hidden characters, and read them back as printed.

A name is printed unchanged, including spaces of any kind and emoji. Characters that a terminal
might interpret or hide are printed as escapes such as `\u001b`, so that each name is on one line
and different names look different.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from retriever import names
from retriever.cli.output import UNSEEN

if TYPE_CHECKING:
    from retriever.index import Index
    from retriever.types import Hit

# Joiners are part of emoji and of words in many scripts, so they are printed unchanged.
_UNSEEN = re.compile(f"(?![\u200c\u200d])(?:[\t\n]|{UNSEEN.pattern})")
_LIKE_AN_ESCAPE = re.compile(r"\\(?=u[0-9a-f]{4}|U[0-9a-f]{8})")
_ESCAPE = re.compile(r"\\u([0-9a-f]{4})|\\U([0-9a-f]{8})")
_LAST = 0x10FFFF


def shown(name: str) -> str:
    r"""Return a name as it is printed: ESC is `\u001b`; one that begins with `-` gets `./`."""
    text = _plain(name)
    if name.startswith("./-"):  # "-" is printed so; escape to tell them apart
        return _escaped(".") + text[1:]
    return f"./{text}" if name.startswith("-") else text


def _plain(name: str) -> str:
    text = _UNSEEN.sub(_escape, _LIKE_AN_ESCAPE.sub(_escape, name))
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = "".join(letter if _fits(letter, encoding) else _escaped(letter) for letter in text)
    return text


def _escape(found: re.Match[str]) -> str:
    return _escaped(found[0])


def _escaped(letter: str) -> str:
    code = ord(letter)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _fits(letter: str, encoding: str) -> bool:
    try:
        letter.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def read(text: str) -> str:
    """Return the name that `shown` prints as `text`."""
    bare = text.removeprefix("./") if text.startswith("./-") else text
    return _ESCAPE.sub(_unescape, bare)


def _unescape(found: re.Match[str]) -> str:
    code = int(found[1] or found[2], 16)
    return chr(code) if code <= _LAST and not 0xD800 <= code < 0xE000 else found[0]


def document_id(index: Index, typed: str) -> str:
    """Return the id for what a user typed: a printed name, an id, or the path of a file.

    If it names no document, it is returned unchanged.
    """
    printed = read(typed)
    first = [printed, typed] if shown(printed) == typed else [typed]
    return index.id_of(*first, *_of_paths(index, typed), printed) or typed


def _of_paths(index: Index, typed: str) -> Iterator[str]:
    """Yield the ids of the files with a path, read as a printed name and as typed."""
    from retriever.storage.base_folder import name_beneath

    base = str(index.base)
    for path in dict.fromkeys((_printed_path(typed), _typed_path(typed))):
        folder, leaf = os.path.split(path)
        if leaf:
            # Links in the folder are resolved, but not the last part: a file that was found through
            # a link is named by the link.
            whole = os.path.join(os.path.realpath(folder), leaf)  # noqa: PTH118
            yield names.id_of(name_beneath(base, os.path.normpath(whole)))


def _printed_path(text: str) -> bytes:
    try:
        return names.path_of(_ESCAPE.sub(_unescape, text))
    except UnicodeEncodeError:  # surrogate escapes of arguments that are not UTF-8
        return _typed_path(text)


def _typed_path(text: str) -> bytes:
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        return b""


def cited(hit: Hit, base: Path | None) -> str:
    """Return the printed citation of a hit, as a path that opens from the current folder.

    A file's name is relative to `base`. If the current folder is another one, the path begins with
    `./` or `../`, or with `/` if neither folder is inside the other.
    """
    citation = shown(str(hit.citation))
    source = hit.source
    if base is None or source is None or source.startswith("/"):
        return citation
    place = _from_here(source, base) if hit.file_state in ("unchanged", "changed") else None
    return citation if place is None else _plain(place + str(hit.citation)[len(source) :])


def located(document_id: str, base: Path | None) -> str:
    """Return a document's printed id; for a file, a path that opens, as in `cited`."""
    place = None if base is None else _from_here(document_id, base)
    return shown(document_id) if place is None else _plain(place)


def _from_here(name: str, base: Path) -> str | None:
    """Return the path from the current folder to a file that is named relative to `base`.

    Returns None if the name can be used as it is, or the file does not exist.
    """
    here = Path(os.path.realpath("."))
    if here == base or name.startswith("/"):
        return None
    path = Path(base, os.fsdecode(names.path_of(name)))
    if not os.path.lexists(path):
        return None
    if path.is_relative_to(here) or here.is_relative_to(base):
        relative = os.path.relpath(path, here)
        place = relative if relative.startswith("../") else f"./{relative}"
    else:
        place = os.fspath(path)
    return names.of_path(os.fsencode(place))

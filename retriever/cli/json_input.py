"""Documents as JSON: one per line, in an array, or objects one after another over several lines.

Only one object is in memory at a time. A broken object does not affect those after it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from itertools import chain
from typing import Any, NamedTuple

from retriever.errors import InvalidDocument

FIELDS = ("text", "id", "title", "source", "metadata", "embedding")
STRUCTURE = ("headings", "pages")
"""Further fields, which `export` writes; in other JSON they usually mean something else."""
BLOCK = 1 << 16
BOM = b"\xef\xbb\xbf"
MAX_BYTES = 1 << 30
"""The maximum size of an object in bytes of JSON; documents have at most 500 MB of text."""
EXAMPLE = 'Each is an object such as {"text": "…", "id": "a1", "metadata": {"year": 2024}}.'
_IN_STRING = re.compile(rb'["\\]')
_NEXT_ARRAY = re.compile(rb"\][\s,]*\[")
_OUTSIDE = re.compile(rb'["{}\[\]]')
_SHOWN = 40


class Piece(NamedTuple):
    """A part of the input that should be one object, and the number of its first line."""

    line: int
    data: bytes


def lines(source: Iterable[bytes]) -> Iterator[Piece]:
    """Yield the lines that are not blank; `source` may yield a line in several pieces."""
    number, held = 1, b""
    # The line feed at the end completes a last line that has none.
    for piece in chain(source, [b"\n"]):
        held += piece
        if not piece.endswith(b"\n"):
            continue
        data = held.removeprefix(BOM) if number == 1 else held
        if data.strip():
            yield Piece(number, data)
        number, held = number + 1, b""


def objects(blocks: Iterable[bytes], *, in_array: bool) -> Iterator[Piece]:
    """Yield the objects of an array, or objects one after another, and any other text between.

    White space, commas and the array's brackets are dropped; other text between objects is yielded
    as a piece of its own, which `parse` refuses. An array that is cut off ends with an empty piece.
    """
    splitter = _Splitter()
    opened = closed = False
    for piece in splitter.pieces(blocks):
        if piece.data.startswith(b"{"):
            yield piece
            continue
        rest = piece.data.strip(b"\xef\xbb\xbf \t\r\n,")
        # Between two arrays that were concatenated stands `] [`; they are read as one.
        if opened and not closed and _NEXT_ARRAY.fullmatch(rest):
            continue
        if in_array and not opened and rest.startswith(b"["):
            opened, rest = True, rest[1:].strip(b" \t\r\n,")
        if in_array and not closed and rest.endswith(b"]"):
            closed, rest = True, rest[:-1].strip(b" \t\r\n,")
        if rest:
            before = piece.data[: piece.data.index(rest)]
            yield Piece(piece.line + before.count(b"\n"), rest)
    if in_array and not closed:
        yield Piece(splitter.line, b"")


class _Splitter:
    """Splits a stream of bytes where objects begin and end, by brackets and quotes alone.

    It does not parse the JSON, so a broken object ends where its brackets are balanced, and the
    next one is read normally.
    """

    def __init__(self) -> None:
        self.line = 1
        self._held = bytearray()
        self._depth = 0
        self._is_in_string = False

    def pieces(self, blocks: Iterable[bytes]) -> Iterator[Piece]:
        skipped = 0  # bytes of the next block that belong to an escape
        for block in blocks:
            position, skipped = skipped, 0
            begin = 0
            while position < len(block):
                if self._depth == 0:
                    start = block.find(b"{", position)
                    if start < 0:
                        break
                    yield from self._piece(block[begin:start])
                    begin, position, self._depth = start, start + 1, 1
                    continue
                pattern = _IN_STRING if self._is_in_string else _OUTSIDE
                found = pattern.search(block, position)
                if found is None:
                    break
                position = found.end()
                if found[0] == b"\\":
                    position += 1
                    skipped = max(0, position - len(block))
                elif found[0] == b'"':
                    self._is_in_string = not self._is_in_string
                else:
                    self._depth += 1 if found[0] in b"{[" else -1
                    if self._depth == 0:
                        yield from self._piece(block[begin:position])
                        begin = position
            self._held += block[begin:]
            if len(self._held) > MAX_BYTES:
                raise InvalidDocument(
                    f"Line {self.line}: the object has over {MAX_BYTES:,} bytes, or does not end.",
                    hint="Write one object per line, so that a broken one ends with its line.",
                )
        yield from self._piece(b"")

    def _piece(self, end: bytes) -> Iterator[Piece]:
        data = bytes(self._held) + end
        self._held.clear()
        if data:
            yield Piece(self.line, data)
        self.line += data.count(b"\n")


def parse(data: bytes, text_field: str) -> dict[str, Any]:
    """Parse a document.

    Args:
        data: A JSON object in UTF-8.
        text_field: The field that holds the text. Unless it is `text`, unknown fields become
            metadata.

    Raises:
        InvalidDocument: It is not a document.
    """
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        raise InvalidDocument(f"not UTF-8 at byte {exc.start + 1}.", hint="JSON is UTF-8.") from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidDocument(f"not JSON: {_why(data, exc)}.", hint=EXAMPLE) from exc
    if not isinstance(value, dict):
        raise InvalidDocument(f"{_in_json(value)}, not an object.", hint=EXAMPLE)
    identifier = value.get("id")
    if isinstance(identifier, int) and not isinstance(identifier, bool):
        value["id"] = str(identifier)
    if text_field in value and not isinstance(value[text_field], str):
        raise InvalidDocument(
            f"the field {text_field!r} is {_in_json(value[text_field])}, not a string.",
            hint='Use "" for a document without text.',
        )
    if text_field != "text":
        return _renamed(value, text_field)
    for name in value:
        if name not in FIELDS + STRUCTURE:
            close = get_close_matches(name, FIELDS, 1)
            meant = f"Did you mean {close[0]!r}? " if close else ""
            raise InvalidDocument(
                f"unknown field {name!r}.",
                hint=f"{meant}Fields are {', '.join(FIELDS)}; put others under 'metadata', or name "
                "the field of the text with --text-field, so that all others become metadata.",
            )
    return value


def _in_json(value: Any) -> str:
    """Return the JSON name of a value's type, with its article."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    names = {str: "a string", int: "a number", float: "a number", list: "an array"}
    return names.get(type(value), "an object")


def _why(data: bytes, exc: Exception) -> str:
    if not data:
        return "the array does not end, so the input may be cut off"
    if not data.lstrip(b"\xef\xbb\xbf \t").startswith((b"{", b"[")):
        shown = data[: _SHOWN + 1].decode("utf-8", "backslashreplace")
        return f"{shown[:_SHOWN]!r}{'…' if len(shown) > _SHOWN else ''}"
    return str(exc)


def _renamed(value: dict[str, Any], text_field: str) -> dict[str, Any]:
    """Return a document whose text is in another field; unknown fields become metadata."""
    if text_field not in value:
        raise InvalidDocument(
            f"no field {text_field!r}: it has {fields_of(value)}.", hint="See --text-field."
        )
    document = {"text": value.pop(text_field)}
    document |= {name: value.pop(name) for name in FIELDS[1:] if name in value}
    if value:
        metadata = document.get("metadata") or {}
        document["metadata"] = {**value, **metadata} if isinstance(metadata, dict) else metadata
    return document


def fields_of(value: dict[str, Any]) -> str:
    """Return the first names of an object's fields, for a message."""
    names = [name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…" for name in value]
    return ", ".join(names[:8]) + (" …" if len(names) > 8 else "") or "none"

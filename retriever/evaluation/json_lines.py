"""Read files of JSON objects, one a line, such as the corpus and the queries of a collection.

A file may be compressed with gzip, may begin with a byte order mark, and its lines may end with
CRLF. One line is in memory at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from retriever.arguments import shown
from retriever.errors import InvalidEvaluation
from retriever.evaluation.text_lines import lines_of


class Line(NamedTuple):
    """An object, and the number of its line, from 1."""

    number: int
    value: dict[str, Any]


def existing(path: Path) -> Path:
    """Return a file, or its compressed form if only that exists."""
    compressed = path.with_name(f"{path.name}.gz")
    return compressed if not path.exists() and compressed.exists() else path


def read_objects(path: Path, *, example: str) -> Iterator[Line]:
    """Yield the objects of a file; blank lines are passed over.

    Args:
        path: The file.
        example: An object as it should be, for the hint of an error.

    Raises:
        InvalidEvaluation: A line is not a JSON object in UTF-8.
        UnreadableFile: The file cannot be read, or its compressed data is damaged.
    """
    with lines_of(path) as lines:
        for number, data in enumerate(lines, 1):
            if data.strip():
                yield Line(number, to_object(data, path, number, example))


def to_object(data: bytes, path: Path, number: int, example: str) -> dict[str, Any]:
    """Return the object of a line; `path`, `number` and `example` are for an error.

    Raises:
        InvalidEvaluation: It is not a JSON object in UTF-8.
    """
    try:
        value = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as exc:
        raise InvalidEvaluation(
            f"is not UTF-8 at byte {exc.start + 1}.",
            hint="JSON is UTF-8: convert the file with `iconv`.",
            path=str(path),
            line=number,
        ) from exc
    except (ValueError, RecursionError) as exc:
        beginning = shown(data[:60].decode("utf-8", "backslashreplace").strip(), 50)
        raise InvalidEvaluation(
            f"is not JSON: {beginning} ({exc}).",
            hint=f"Each line is one object, such as {example}.",
            path=str(path),
            line=number,
        ) from exc
    if not isinstance(value, dict):
        raise InvalidEvaluation(
            f"is {shown(value, 50)}, not a JSON object.",
            hint=f"Each line is one object, such as {example}.",
            path=str(path),
            line=number,
        )
    return value

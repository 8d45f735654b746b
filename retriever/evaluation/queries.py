"""Reads the texts of queries, from BEIR's `queries.jsonl` and from topics with tabs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from retriever.arguments import shown
from retriever.errors import InvalidEvaluation
from retriever.evaluation import trec

_EXAMPLE = '{"_id": "1", "text": "how far is the moon"}'
_HINT = f"Each line is a query: its id, a tab and its text; or an object such as {_EXAMPLE}."


def read_queries(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read queries: JSON Lines with `_id` and `text`, or lines of an id, a tab and a text.

    The file may be gzipped, may begin with a byte order mark, and its lines may end with CRLF.

    Returns:
        The texts by query id, in the order of the file.

    Raises:
        InvalidEvaluation: A line is malformed, or an id is there twice; the message has the file
            and the line.
        UnreadableFile: The file cannot be read.
    """
    queries: dict[str, str] = {}
    source = Path(path)
    for number, query, text in _objects(source) if _holds_json(source) else _topics(source):
        if query in queries:
            raise _refused(source, number, f"has the query {shown(query)} again.")
        queries[query] = text
    return queries


def _holds_json(path: Path) -> bool:
    with trec.lines_of(path) as lines:
        first = next((line for line in lines if line.strip()), b"")
    return first.lstrip().startswith(b"{")


def _objects(path: Path) -> Iterator[tuple[int, str, str]]:
    for number, line in _lines(path):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as exc:
            raise _refused(path, number, f"is not JSON: {shown(line)}.") from exc
        query = value.get("_id") if isinstance(value, dict) else None
        if isinstance(query, int) and not isinstance(query, bool):
            query = str(query)
        if not isinstance(query, str) or not isinstance(value.get("text"), str):
            raise _refused(path, number, f"has no `_id` and `text`: {shown(line)}.")
        yield number, query, value["text"]


def _topics(path: Path) -> Iterator[tuple[int, str, str]]:
    for number, line in _lines(path):
        query, tab, text = line.partition("\t")
        if not tab:
            raise _refused(path, number, f"has no tab: {shown(line)}.")
        yield number, query.strip(), text.strip()


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, with their numbers from 1."""
    with trec.lines_of(path) as lines:
        for number, line in enumerate(lines, 1):
            try:
                text = line.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as exc:
                raise _refused(path, number, f"is not UTF-8: {trec.shown(line)}.") from exc
            if text.strip():
                yield number, text


def _refused(path: Path, number: int, message: str) -> InvalidEvaluation:
    return InvalidEvaluation(message, path=os.fspath(path), line=number, hint=_HINT)

"""Reads the texts of queries, from BEIR's `queries.jsonl` and from topics with tabs."""

from __future__ import annotations

import os
from pathlib import Path

from retriever import arguments
from retriever.errors import InvalidEvaluation
from retriever.evaluation.json_lines import to_object
from retriever.evaluation.text_lines import lines_of, shown

_EXAMPLE = '{"_id": "1", "text": "how far is the moon"}'
_HINT = f"Each line is a query: its id, a tab and its text; or an object such as {_EXAMPLE}."


def read_queries(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read queries: JSON Lines with `_id` and `text`, or lines of an id, a tab and a text.

    The file may be gzipped, may begin with a byte order mark, and its lines may end with CRLF.

    Returns:
        The texts by query id, in the order of the file.

    Raises:
        InvalidEvaluation: A line is malformed, or an id occurs twice; the message has the file
            and the line.
        UnreadableFile: The file cannot be read.
    """
    queries: dict[str, str] = {}
    # The first line tells the format: to look at it beforehand would take it from a pipe.
    is_json: bool | None = None
    source = arguments.path(path, "The path of the queries")
    with lines_of(source) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            if is_json is None:
                is_json = line.lstrip().startswith(b"{")
            query, text = (_object if is_json else _topic)(line, source, number)
            if query in queries:
                raise _refused(source, number, f"has the query {arguments.shown(query)} again.")
            queries[query] = text
    return queries


def _object(line: bytes, path: Path, number: int) -> tuple[str, str]:
    value = to_object(line, path, number, _EXAMPLE)
    query, text = value.get("_id"), value.get("text")
    if isinstance(query, int) and not isinstance(query, bool):
        query = str(query)
    if not isinstance(query, str) or not isinstance(text, str):
        raise _refused(path, number, f"has no `_id` and `text`: {arguments.shown(value)}.")
    return query, text


def _topic(line: bytes, path: Path, number: int) -> tuple[str, str]:
    try:
        query, tab, text = line.decode("utf-8").partition("\t")
    except UnicodeDecodeError as exc:
        raise _refused(path, number, f"is not UTF-8: {shown(line)}.") from exc
    if not tab:
        raise _refused(path, number, f"has no tab: {arguments.shown(query.strip())}.")
    return query.strip(), text.strip()


def _refused(path: Path, number: int, message: str) -> InvalidEvaluation:
    return InvalidEvaluation(message, path=os.fspath(path), line=number, hint=_HINT)

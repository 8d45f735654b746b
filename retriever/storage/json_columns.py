"""JSON in columns and settings: reading it, with a check that we may have written it."""

from __future__ import annotations

import json
from typing import Any

from retriever.canonical import MAX_DEPTH, MAX_JSON
from retriever.storage.table import damaged

# Metadata of a document is the deepest; around it are the row's own levels.
_NESTED = MAX_DEPTH + 3


def _refuse_constant(_: str) -> None:
    raise ValueError("not a finite number")


_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode


def from_json(text: str, kind: type, table: str, key: object) -> Any:
    """Return what a JSON column holds, after checking that we may have written it.

    Raises:
        IndexCorrupt: It is not JSON, too large, nested too deeply, or of another kind.
    """
    try:
        if len(text) > MAX_JSON:
            raise ValueError("too large")
        found = _decode(text)
        if type(found) is not kind:
            raise ValueError("of another kind")
        # Depth is measured only where there are brackets enough to be too deep.
        if text.count("[") + text.count("{") > _NESTED:
            _require_shallow(found)
        if "\\u" in text:  # an escaped lone surrogate, which no UTF-8 output could show
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as exc:
        raise damaged(table, key) from exc
    return found


def _require_shallow(value: Any) -> None:
    level = [value]
    for _ in range(_NESTED):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise ValueError("nested too deeply")


def are(kind: type, *values: Any) -> bool:
    """Return whether all values are of a type."""
    return all(isinstance(value, kind) for value in values)

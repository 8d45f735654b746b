"""Filters written out: as a mapping, and as an expression."""

from __future__ import annotations

import json
import re
from typing import Any

from retriever.field_values import ValueType
from retriever.filters.expression import KEYWORDS, is_plain_key, is_plain_text
from retriever.filters.tree import And, Condition, Filter, Node, Not, Operator, Or
from retriever.filters.values import Value

_SYMBOLS = {
    Operator.GT: ">",
    Operator.GTE: ">=",
    Operator.LT: "<",
    Operator.LTE: "<=",
    Operator.CONTAINS: "contains",
    Operator.STARTSWITH: "startswith",
}
_KEY = re.compile(r"(?:\\.|[^.\\])*", re.DOTALL)


def to_dict(asked: Filter) -> dict[str, Any]:
    """Return the mapping that `parse` reads as a filter."""
    return _dict(asked.root)


def to_expression(asked: Filter) -> str:
    """Return the expression that `parse_expression` reads as a filter; "" for an empty one."""
    return _expression(asked.root)


def _dict(node: Node) -> dict[str, Any]:
    if isinstance(node, Condition):
        return {_key(node.path): _operators(node)}
    if isinstance(node, Not):
        inner = node.inner
        if not isinstance(inner, Condition):
            return {"$not": _dict(inner)}
        if inner.operator is Operator.EXISTS:
            return {_key(inner.path): {"$exists": False}}
        if inner.operator is Operator.IN:
            values = [one.value for one in inner.values]
            operators = {"$ne": values[0]} if len(values) == 1 else {"$nin": values}
            return {_key(inner.path): operators}
        return {_key(inner.path): {"$not": _operators(inner)}}
    if isinstance(node, Or):
        return {"$or": [_dict(part) for part in node.parts]}
    return {"$and": [_dict(part) for part in node.parts]} if node.parts else {}


def _key(path: str) -> str:
    return f"\\{path}" if path.startswith("$") else path


def _operators(condition: Condition) -> Any:
    values = [one.value for one in condition.values]
    if condition.operator is Operator.EXISTS:
        return {"$exists": True}
    if condition.operator is Operator.IN:
        return values[0] if len(values) == 1 else {"$in": values}
    return {str(condition.operator): values[0]}


def _expression(node: Node) -> str:
    if isinstance(node, Condition):
        return _condition(node)
    if isinstance(node, Not):
        inner = node.inner
        if isinstance(inner, Condition):
            if inner.operator is Operator.EXISTS:
                return f"missing {_field(inner.path)}"
            if inner.operator is Operator.IN:
                return _one_of(inner, "!=", "not in")
            return f"not {_condition(inner)}"
        return f"not ({_expression(inner)})"
    word = " or " if isinstance(node, Or) else " and "
    return word.join(
        f"({_expression(part)})" if isinstance(part, And | Or) else _expression(part)
        for part in node.parts
    )


def _condition(condition: Condition) -> str:
    if condition.operator is Operator.EXISTS:
        return f"exists {_field(condition.path)}"
    if condition.operator is Operator.IN:
        return _one_of(condition, "=", "in")
    symbol = _SYMBOLS[condition.operator]
    return f"{_field(condition.path)} {symbol} {_value(condition.values[0])}"


def _one_of(condition: Condition, for_one: str, for_several: str) -> str:
    field, values = _field(condition.path), [_value(value) for value in condition.values]
    if len(values) == 1:
        return f"{field} {for_one} {values[0]}"
    return f"{field} {for_several} ({', '.join(values)})"


def keys_of(path: str) -> list[str]:
    """Return the keys that a path is made of, outermost first."""
    keys, position = [], 0
    while True:
        found = _KEY.match(path, position)
        end = len(path) if found is None else found.end()
        keys.append(re.sub(r"\\(.)", r"\1", path[position:end], flags=re.DOTALL))
        if end >= len(path):
            return keys
        position = end + 1


def _field(path: str) -> str:
    keys = keys_of(path)
    if len(keys) == 1 and keys[0].lower() in KEYWORDS:
        return _quoted(keys[0])
    return ".".join(key if is_plain_key(key) else _quoted(key) for key in keys)


def _value(value: Value) -> str:
    if value.kind is ValueType.STRING:
        return value.value if is_plain_text(value.value) else _quoted(value.value)
    return json.dumps(value.value)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)

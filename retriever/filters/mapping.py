"""Filters as mappings: `{"year": {"$gte": 2020}, "language": {"$in": ["en", "de"]}}`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from retriever.arguments import described, is_flag, kind_of, shown
from retriever.errors import InvalidFilter
from retriever.filters.tree import (
    Budget,
    Condition,
    Filter,
    Node,
    Operator,
    all_of,
    any_of,
    comparison,
    negated,
    one_of,
    path_of,
)
from retriever.filters.values import no_field, value_of

_CONNECTIVES = {"$and": all_of, "$or": any_of}
_COMPARISONS = {str(one): one for one in Operator if one not in (Operator.IN, Operator.EXISTS)}
_EQUALITY = ("$eq", "$ne", "$in", "$nin")
_ON_FIELDS = (*_EQUALITY, *_COMPARISONS, "$exists", "$not")
_AROUND_FIELDS = ("$and", "$or", "$not")


def parse(mapping: Mapping[str, Any]) -> Filter:
    """Return the filter of a mapping.

    A key is a field, with a value that it has or a mapping of operators; or `$and` or `$or` with a
    list of filters, or `$not` with one. Several keys, or operators, must all be true. A field whose
    name begins with `$` is written with a backslash before it. An empty mapping passes everything.

    Raises:
        InvalidFilter: An operator is unknown, or given what it cannot compare.
        LimitExceeded: It has more than 1,000 conditions and connectives, compares with more than
            10,000 values, or is nested more than 32 deep.
    """
    if not isinstance(mapping, Mapping):
        raise InvalidFilter(f"filter is {described(mapping)}.", hint="Pass a dict.")
    return Filter(_Reader().filter(mapping, 1))


class _Reader:
    def __init__(self) -> None:
        self._budget = Budget()

    def filter(self, mapping: Mapping[str, Any], depth: int) -> Node:
        parts = []
        for key, value in mapping.items():
            if not isinstance(key, str):
                raise no_field(key)
            if key.startswith("$"):
                self._budget.node(depth)
                parts.append(self._connective(key, value, depth))
            else:
                # "\$price" is the field "$price".
                path = path_of(key[1:] if key.startswith("\\$") else key)
                parts.append(self._field(path, value, depth))
        return all_of(parts)

    def _connective(self, key: str, value: Any, depth: int) -> Node:
        if key == "$not":
            return negated(self._nested(key, value, depth))
        if key not in _CONNECTIVES:
            raise _unknown(key, "around fields", _AROUND_FIELDS)
        if not isinstance(value, list | tuple) or not value:
            what = "an empty list" if isinstance(value, list | tuple) else kind_of(value)
            raise InvalidFilter(
                f"{key} is given {what}.", hint=f"Pass a list of filters: {{'{key}': [{{…}}, …]}}."
            )
        return _CONNECTIVES[key](self._nested(key, part, depth) for part in value)

    def _nested(self, key: str, value: Any, depth: int) -> Node:
        if not isinstance(value, Mapping) or not value:
            what = "an empty filter" if isinstance(value, Mapping) else kind_of(value)
            raise InvalidFilter(
                f"{key} is given {what}.", hint="Pass a filter such as {'year': 2020}."
            )
        return self.filter(value, depth + 1)

    def _field(self, path: str, value: Any, depth: int) -> Node:
        if not isinstance(value, Mapping):
            self._budget.node(depth)
            self._budget.values(1)
            return one_of(path, [value_of(value, f"Field {shown(path)}")])
        if not value:
            raise InvalidFilter(
                f"The condition on field {shown(path)} is empty.",
                hint="Give operators, such as {'$exists': True}.",
            )
        parts = []
        for operator, operand in value.items():
            self._budget.node(depth)
            if not isinstance(operator, str) or not operator.startswith("$"):
                raise _no_operator(path, operator)
            parts.append(self._operation(path, operator, operand, depth))
        return all_of(parts)

    def _operation(self, path: str, operator: str, operand: Any, depth: int) -> Node:
        where = f"{operator} of field {shown(path)}"
        if operator == "$not":
            if not isinstance(operand, Mapping):
                raise InvalidFilter(
                    f"{where} is given {kind_of(operand)}.",
                    hint="Pass a mapping of operators, or use $ne.",
                )
            return negated(self._field(path, operand, depth + 1))
        if operator == "$exists":
            if not is_flag(operand):
                raise InvalidFilter(f"{where} is {described(operand)}.", hint="Pass True or False.")
            there = Condition(path, Operator.EXISTS)
            return there if operand else negated(there)
        if operator in ("$in", "$nin"):
            found = one_of(path, (value_of(one, where) for one in self._list(operand, where)))
            return found if operator == "$in" else negated(found)
        if operator not in _ON_FIELDS:
            raise _unknown(operator, f"of field {shown(path)}", _ON_FIELDS)
        self._budget.values(1)
        value = value_of(operand, where)
        if operator in ("$eq", "$ne"):
            same = one_of(path, [value])
            return same if operator == "$eq" else negated(same)
        return comparison(path, _COMPARISONS[operator], value)

    def _list(self, operand: Any, where: str) -> list[Any]:
        is_array = type(operand).__module__ == "numpy" and getattr(operand, "ndim", 0) == 1
        if not isinstance(operand, list | tuple | set | frozenset) and not is_array:
            raise InvalidFilter(
                f"{where} is given {kind_of(operand)}.", hint="Pass a list of values."
            )
        self._budget.values(len(operand))
        return list(operand)


def _no_operator(path: str, key: Any) -> InvalidFilter:
    """Return the error for a key that stands where an operator should."""
    hint = f"Operators are {', '.join(_ON_FIELDS)}."
    if isinstance(key, str) and f"${key}" in _ON_FIELDS:
        hint = f"Did you mean '${key}'?"
    elif isinstance(key, str):
        inner = shown(f"{path}.{key}")
        hint += f" For a field inside of an object join the names by a dot: {inner}."
    return InvalidFilter(
        f"The condition on field {shown(path)} has the key {shown(key)}, which is no operator.",
        hint=hint,
    )


def _unknown(operator: str, where: str, known: Iterable[str]) -> InvalidFilter:
    close = get_close_matches(operator.lower(), known, 1, 0.5)
    meant = f"Did you mean {close[0]!r}? " if close else ""
    return InvalidFilter(
        f"The operator {shown(operator)} {where} is unknown.",
        hint=f"{meant}Operators here are {', '.join(known)}.",
    )

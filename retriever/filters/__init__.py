"""Filters: conditions on the metadata of documents, as one tree with two front ends.

`parse` reads a mapping, `parse_expression` the text of a command line; both return a `Filter`.
Each condition is true or false of a document, never unknown; `docs/search.md` has the table.
Nothing here knows how documents are stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from retriever.arguments import described
from retriever.errors import InvalidFilter
from retriever.filters.expression import parse_expression
from retriever.filters.mapping import parse
from retriever.filters.printing import to_dict, to_expression
from retriever.filters.tree import (
    MAX_DEPTH,
    MAX_NODES,
    MAX_VALUES,
    And,
    Condition,
    Filter,
    Node,
    Not,
    Operator,
    Or,
)
from retriever.filters.values import Value

__all__ = [
    "MAX_DEPTH",
    "MAX_NODES",
    "MAX_VALUES",
    "And",
    "Condition",
    "Filter",
    "FilterLike",
    "Node",
    "Not",
    "Operator",
    "Or",
    "Value",
    "given",
    "parse",
    "parse_expression",
    "to_dict",
    "to_expression",
]


FilterLike: TypeAlias = Mapping[str, Any] | str | Filter


def given(value: Any) -> Filter | None:
    """Return the filter that a caller passed: a mapping, an expression, a `Filter`, or None.

    Raises:
        InvalidFilter: It is something else, or does not follow the grammar.
        LimitExceeded: It is too large; see `parse`.
    """
    if value is None or isinstance(value, Filter):
        return value
    if isinstance(value, str):
        return parse_expression(value)
    if isinstance(value, Mapping):
        return parse(value)
    raise InvalidFilter(
        f"filter is {described(value)}.",
        hint="Pass a dict such as {'year': {'$gte': 2020}}, or an expression: 'year >= 2020'.",
    )

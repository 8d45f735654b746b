r"""The tree of a filter: conditions joined by and, or and not, in one normal form.

Filters of the same meaning mostly have equal trees: `=` is `in` with one value, `!=` is `not` of
it, double negation, nested `and`s and repeated parts are removed. A `Filter` can be hashed, so what
was found by one is found again by an equal one.

Fields are named by paths: keys joined by `.`, in which a `.` or `\` that is part of a key is
written `\.` or `\\`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TypeAlias

from retriever.arguments import shown
from retriever.errors import InvalidFilter, LimitExceeded
from retriever.field_values import ValueType, field_name
from retriever.filters.values import Value, checked_text

MAX_NODES = 1_000
"""The most conditions and connectives of a filter."""
MAX_DEPTH = 32
"""How deep a filter may be nested."""
MAX_VALUES = 10_000
"""The most values that all conditions of a filter compare with."""


class Operator(StrEnum):
    """What a condition asks of a field; `$eq`, `$ne` and `$nin` are written with IN and `Not`."""

    IN = "$in"
    GT = "$gt"
    GTE = "$gte"
    LT = "$lt"
    LTE = "$lte"
    CONTAINS = "$contains"
    STARTSWITH = "$startswith"
    EXISTS = "$exists"


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on one field.

    Attributes:
        path: The field.
        operator: What is asked of it.
        values: What it is compared with: any number for IN, in order; none for EXISTS; else one.
    """

    path: str
    operator: Operator
    values: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class Not:
    """True where `inner` is false."""

    inner: Condition | And | Or


@dataclass(frozen=True, slots=True)
class And:
    """True where all parts are; the filter without any condition has none."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """True where any part is."""

    parts: tuple[Node, ...]


Node: TypeAlias = Condition | Not | And | Or


@dataclass(frozen=True)
class Filter:
    """A checked filter: equal, with an equal hash, to every filter of the same tree.

    Attributes:
        root: Its tree.
    """

    root: Node

    @property
    def is_empty(self) -> bool:
        """Return whether it has no condition, so that every document passes."""
        return self.root == And(())

    @cached_property
    def fields(self) -> frozenset[str]:
        """Return the paths of the fields that it asks about."""
        return frozenset(condition.path for condition in conditions(self.root))

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self.root)


def conditions(node: Node) -> Iterator[Condition]:
    """Yield every condition of a tree."""
    if isinstance(node, Condition):
        yield node
        return
    for part in (node.inner,) if isinstance(node, Not) else node.parts:
        yield from conditions(part)


# --- making trees of normal form -------------------------------------------------------------


def negated(node: Node) -> Node:
    """Return the negation of a tree."""
    return node.inner if isinstance(node, Not) else Not(node)


def all_of(parts: Iterable[Node]) -> Node:
    """Return a tree that is true where all of some trees are."""
    return _joined(And, parts)


def any_of(parts: Iterable[Node]) -> Node:
    """Return a tree that is true where any of some trees is."""
    return _joined(Or, parts)


def _joined(kind: type[And | Or], parts: Iterable[Node]) -> Node:
    flat: dict[Node, None] = {}
    for part in parts:
        if isinstance(part, kind):
            flat.update(dict.fromkeys(part.parts))
        else:
            flat[part] = None
    return next(iter(flat)) if len(flat) == 1 else kind(tuple(flat))


def one_of(path: str, values: Iterable[Value]) -> Condition:
    """Return the condition that a field has one of some values."""
    return Condition(path, Operator.IN, tuple(sorted(set(values))))


def comparison(path: str, operator: Operator, value: Value) -> Condition:
    """Return a condition that compares a field with one value.

    Raises:
        InvalidFilter: The operator does not take values of this kind.
    """
    text_only = operator in (Operator.CONTAINS, Operator.STARTSWITH)
    takes = (ValueType.STRING,) if text_only else (ValueType.STRING, ValueType.NUMBER)
    if value.kind not in takes:
        what = "a string" if text_only else "numbers or strings"
        raise InvalidFilter(
            f"{operator} of field {shown(path)} is given {shown(value.value)}; it takes {what}.",
            hint="Use $eq, which a list passes if it holds the value.",
        )
    return Condition(path, operator, (value,))


# --- fields ----------------------------------------------------------------------------------

_ESCAPED = re.compile(r"\\([.\\])|\\")


def path_of(name: str) -> str:
    r"""Return the path for the name of a field: a backslash before another character is itself.

    Raises:
        InvalidFilter: The name holds a lone surrogate.
    """
    checked_text(name, "The name of a field")
    if "\\" not in name:
        return name
    return _ESCAPED.sub(lambda found: found[0] if found[1] else r"\\", name)


def path_of_keys(keys: Iterable[str]) -> str:
    """Return the path of a value below some keys, outermost first."""
    return ".".join(map(field_name, keys))


# --- limits ----------------------------------------------------------------------------------


class Budget:
    """Counts what a filter is made of while it is read, and refuses too much.

    Raises:
        LimitExceeded: From each method, if the filter is over its limit.
    """

    def __init__(self) -> None:
        self._nodes = 0
        self._values = 0

    def node(self, depth: int) -> None:
        """Count a condition or a connective at a depth, from 1."""
        self._nodes += 1
        _require(self._nodes, MAX_NODES, "has", "conditions and connectives")
        _require(depth, MAX_DEPTH, "is nested", "deep")

    def values(self, number: int) -> None:
        """Count values that a condition compares with."""
        self._values += number
        _require(self._values, MAX_VALUES, "compares with", "values")


def _require(number: int, limit: int, verb: str, noun: str) -> None:
    if number > limit:
        raise LimitExceeded(
            f"The filter {verb} {number:,} or more {noun}; the limit is {limit:,}.",
            limit=limit,
            value=number,
            option="filter",
            hint="Split it, or store what it tests as a field of its own.",
        )

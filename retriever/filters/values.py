"""The values that a filter compares with: typed scalars, converted as metadata stores them."""

from __future__ import annotations

import math
from datetime import date, datetime
from typing import Any, NamedTuple

from retriever.arguments import described, kind_of, shown
from retriever.errors import InvalidFilter
from retriever.field_values import ValueType

_INT64 = 1 << 63


class Value(NamedTuple):
    """A value with its kind, so that equal tuples mean equal values: in Python, 1 == True.

    Attributes:
        kind: Its type; values of two types are never equal, nor is one before the other.
        value: None, or the `bool`, the `int` or finite `float`, or the `str`.
    """

    kind: ValueType
    value: Any


def value_of(given: Any, where: str) -> Value:
    """Return what a caller compares with, as metadata would store it.

    Args:
        given: A `str`, 64-bit `int`, finite `float`, `bool`, None, `date` or `datetime`, or one of
            NumPy's. Dates become ISO 8601 strings, with a zone in UTC.
        where: What the value belongs to, for errors.

    Raises:
        InvalidFilter: It is something else.
    """
    if type(given).__module__ == "numpy" and hasattr(given, "dtype"):
        from retriever.canonical import of_numpy

        given = of_numpy(given)
    if given is None:
        return Value(ValueType.NULL, None)
    # Before int, which bool is a subclass of.
    if isinstance(given, bool):
        return Value(ValueType.BOOLEAN, given)
    if isinstance(given, str):
        return Value(ValueType.STRING, checked_text(str.__str__(given), where))
    if isinstance(given, int | float):
        return Value(ValueType.NUMBER, _number(given, where))
    if isinstance(given, date):
        return Value(ValueType.STRING, _iso(given, where))
    raise InvalidFilter(f"{where} is compared with {described(given)}.", hint=_how(given))


def _how(given: Any) -> str:
    if isinstance(given, list | tuple | set | frozenset):
        return "Pass one value; for several use {'$in': […]}."
    if isinstance(given, bytes | bytearray):
        return "Decode it to a string first."
    return "Pass a string, a number, a boolean, None, a date or a datetime."


def _number(given: int | float, where: str) -> int | float:
    if isinstance(given, float):
        if math.isfinite(given):
            return float(given)
        raise InvalidFilter(
            f"{where} is compared with {given!r}; metadata holds finite numbers only.",
            hint="To ask whether the field is there use {'$exists': False}.",
        )
    if -_INT64 <= given < _INT64:
        return int(given)
    # The decimal digits of a very long integer are never computed: that takes minutes.
    raise InvalidFilter(
        f"{where} is compared with an integer of {int(given).bit_length():,} bits; metadata holds "
        "integers of 64 bits.",
        hint="Write it as a float, or as the string that is stored.",
    )


def _iso(given: date, where: str) -> str:
    # Before date, which datetime is a subclass of.
    if not isinstance(given, datetime):
        return given.isoformat()
    from retriever.canonical import moment

    try:
        return moment(given)
    except (ValueError, OverflowError) as exc:
        raise InvalidFilter(
            f"{where} is compared with {shown(given)}, which is not a time from year 1 to 9999.",
            hint="Pass a time in UTC, or its ISO 8601 string.",
        ) from exc


def checked_text(text: str, where: str) -> str:
    """Return a string of a filter.

    Raises:
        InvalidFilter: It holds a lone surrogate, which no stored string does.
    """
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidFilter(
            f"{where} holds a lone surrogate, {text[exc.start]!r}, at character {exc.start}.",
            hint="No stored string holds one: leave it out.",
        ) from exc
    return text


def no_field(given: Any) -> InvalidFilter:
    """Return the error for the name of a field that is not a string."""
    return InvalidFilter(
        f"A field of the filter is {kind_of(given)}, {shown(given)}.",
        hint="Names of fields are strings.",
    )

"""Checks for the arguments of public calls; an error names the argument and its value.

NumPy scalars count as numbers.
"""

from __future__ import annotations

import math
import operator
import os
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from numbers import Real
from pathlib import Path
from typing import TypeVar

from retriever.errors import InvalidConfig, UsageError

_T = TypeVar("_T")
_LONGEST_WAIT_S = 1e8  # three years; timeouts of a few centuries overflow in `threading`


def shown(value: object, length: int = 80) -> str:
    """Return a value's `repr` for an error message: on one line, shortened, never failing."""
    try:
        text = repr(value)
    except Exception as exc:  # `repr` of a class of the caller's
        text = f"<{type(value).__name__}, whose repr fails with {type(exc).__name__}>"
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


def kind_of(value: object) -> str:
    """Return a value's class with its article, for `is …` in an error."""
    if value is None:
        return "None"
    name = type(value).__name__
    begins_with_a_vowel = name[0] in "aeioAEIO" or name == "ndarray"  # but: a uint8, a UUID
    return f"an {name}" if begins_with_a_vowel else f"a {name}"


def described(value: object) -> str:
    """Return a value and its class, for `is …` in an error."""
    return "None" if value is None else f"{shown(value)}, {kind_of(value)}"


def as_whole(value: object) -> int | None:
    """Return a value as an int if it is an integer, NumPy's included; None for others and bool."""
    if isinstance(value, bool):
        return None
    try:
        # Unlike `int`, this refuses floats and strings.
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def is_number(value: object) -> bool:
    """Return whether a value is a real number of Python or NumPy; False for a bool."""
    return isinstance(value, Real) and not isinstance(value, bool)


def whole(
    value: object,
    name: str,
    *,
    least: int,
    most: int | None = None,
    error: Callable[..., UsageError] = InvalidConfig,
    hint: str,
) -> int:
    """Return an option that is a whole number.

    Raises:
        UsageError: It is not an integer, or out of bounds; its class is `error`.
    """
    number = as_whole(value)
    if number is None or number < least or (most is not None and number > most):
        raise error(f"{name} is {shown(value)}.", hint=hint)
    return number


def flag(value: object, name: str) -> bool:
    """Return an option that is True or False, NumPy's included.

    Raises:
        InvalidConfig: It is neither. Truth values are not accepted: "no" would count as true.
    """
    if is_flag(value):
        return bool(value)
    raise InvalidConfig(f"{name} is {shown(value)}.", hint="Pass True or False.")


def is_flag(value: object) -> bool:
    """Return whether a value is True or False, NumPy's included."""
    # By name: these checks work before NumPy is imported.
    is_numpy = type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_")
    return isinstance(value, bool) or is_numpy


def choice(value: object, name: str, choices: Iterable[str]) -> str:
    """Return an option that is one of a few words.

    Raises:
        InvalidConfig: It is another value; the hint names the closest word.
    """
    known = list(choices)
    if isinstance(value, str) and value in known:
        return value
    close = get_close_matches(value, known, 1) if isinstance(value, str) else []
    meant = f"Did you mean {close[0]!r}? " if close else ""
    listed = ", ".join(map(repr, known[:-1])) + f" or {known[-1]!r}"
    raise InvalidConfig(f"{name} is {shown(value)}.", hint=f"{meant}It is {listed}.")


def path(value: object, name: str) -> Path:
    """Return an option that is a path, with a leading `~` replaced by the home folder.

    Raises:
        InvalidConfig: It is not a path, is empty, or is not possible on this system.
    """
    text = value
    if isinstance(value, os.PathLike):
        text = os.fspath(value)
    if not isinstance(text, str):
        raise InvalidConfig(
            f"{name} is {described(value)}.", hint="Pass a path: a string or a Path."
        )
    if not text:
        raise InvalidConfig(f"{name} is empty.", hint="Name a path; '.' is the current folder.")
    try:
        is_possible = "\0" not in text and bool(os.fsencode(text))
    except UnicodeEncodeError:
        is_possible = False
    if not is_possible:
        raise InvalidConfig(
            f"{name} is {shown(text)}, which cannot be the name of a file.",
            hint="Remove the NUL character or the lone surrogate.",
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as exc:
        raise InvalidConfig(
            f"{name} is {text!r}, but that home folder does not exist.",
            hint=f"Write ./{text} for a path that begins with a tilde.",
        ) from exc


def seconds(value: object, name: str) -> float:
    """Return an option that is a time to wait; None and infinity become three years.

    Raises:
        InvalidConfig: It is not a number, or is NaN or negative.
    """
    if value is None:
        return _LONGEST_WAIT_S
    wait = math.nan
    if is_number(value):
        try:
            wait = float(value)  # type: ignore[arg-type]
        except OverflowError:
            wait = math.inf
    # In this form NaN is refused too.
    if not wait >= 0:
        raise InvalidConfig(
            f"{name} is {shown(value)}.",
            hint="Pass a number of seconds; 0 does not wait, and None waits for ever.",
        )
    return min(wait, _LONGEST_WAIT_S)


def text_or_none(value: object, name: str, *, hint: str) -> str | None:
    """Return an option that is a string or None.

    Raises:
        InvalidConfig: It is something else.
    """
    if value is None or isinstance(value, str):
        return value
    raise InvalidConfig(f"{name} is {described(value)}.", hint=hint)


def callback(value: _T, name: str) -> _T:
    """Return an option that is None or can be called.

    Raises:
        InvalidConfig: It is something else; before any work is done.
    """
    if value is not None and not callable(value):
        raise InvalidConfig(
            f"{name} is {described(value)}.",
            hint="Pass a function that takes one argument, or None.",
        )
    return value


def instance(value: object, name: str, kind: type[_T]) -> _T | None:
    """Return an option that is None or of a class.

    Raises:
        InvalidConfig: It is something else.
    """
    if value is None or isinstance(value, kind):
        return value
    raise InvalidConfig(f"{name} is {described(value)}.", hint=f"Pass a {kind.__name__}, or None.")


def has_masked_values(value: object) -> bool:
    """Return whether a value is a NumPy array with masked elements.

    If `numpy.ma` is not imported, there is no such array. It is not imported here, because that
    would delay every search.
    """
    masked = sys.modules.get("numpy.ma")
    return masked is not None and isinstance(value, masked.MaskedArray) and masked.is_masked(value)

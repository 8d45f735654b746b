"""Checks of what a caller's encoder, tokenizer or reranker returned.

Every function returns the value in the one form that the package uses, or raises an error that
names the method at fault: `ModelError`, and `InvalidConfig` for an identity.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.arguments import described, has_masked_values, kind_of, shown
from retriever.encoders.protocol import Tokens
from retriever.errors import InvalidConfig, ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Integers = NDArray[np.int32]

_NUMBERS = "fiu"
# The squares of 1e15 and of 1e-15 lie so far within float32 that their sum over any usual dimension
# neither overflows nor vanishes.
_LARGE = 1e15
_INT64 = 1 << 63
# Of an identity: how deep its lists and objects may nest, and the characters of its JSON.
_DEEPEST = 16
_LONGEST = 1_000_000


def vectors(answer: Any, who: str, count: int, dimension: int) -> Floats:
    """Return the embeddings of `count` texts, float32 `(count, dimension)`, none of them zero."""
    expected = f"float32 ({count}, {dimension}): a row of {dimension} numbers for each text"
    array = _numbers(answer, who, expected)
    if array.shape != (count, dimension):
        raise _wrong(who, f"an array of shape {array.shape}", expected)
    # As floats, because the absolute value of the lowest integer does not exist in its own type.
    given = array if array.dtype.kind == "f" else array.astype(np.float64)
    largest = np.abs(given).max(axis=1, keepdims=True).astype(np.float64)
    finite = np.isfinite(largest)
    if not finite.all():
        raise _wrong(who, f"values that are not finite for text {int(np.argmin(finite))}", expected)
    if not largest.all():
        position = int(np.argmin(largest))
        raise _wrong(who, f"a zero vector, which has no direction, for text {position}", expected)
    # Only the direction of a vector is kept, so one whose square overflows float32, or vanishes in
    # it, is scaled first.
    extreme = (largest > _LARGE) | (largest < 1 / _LARGE)
    if extreme.any():
        given = np.where(extreme, given / largest, given)
    return _as_float32(given)


def scores(answer: Any, who: str, count: int) -> Floats:
    """Return the scores of `count` texts, float32 `(count,)`, finite."""
    expected = f"float32 ({count},): a finite number for each text, higher is better"
    array = _numbers(answer, who, expected)
    if array.shape != (count,):
        raise _wrong(who, f"an array of shape {array.shape}", expected)
    found = _as_float32(array)
    if not np.isfinite(found).all():
        raise _wrong(who, "values that are not finite", expected)
    return found


def tokens(answer: Any, who: str, texts: Sequence[str]) -> list[Tokens]:
    """Return the tokens of each text, with offsets that lie in it."""
    expected = "a list of Tokens, one for each text"
    found = _list(answer, who, len(texts), expected)
    return [
        _tokens(one, f"{who} for text {position}", len(text))
        for position, (one, text) in enumerate(zip(found, texts, strict=True))
    ]


def counts(answer: Any, who: str, count: int) -> list[int]:
    """Return numbers of tokens, none negative."""
    expected = "a list of whole numbers from 0, one for each text"
    array = _numbers(_list(answer, who, count, expected), who, expected)
    if count and (array.ndim != 1 or array.dtype.kind not in "iu" or int(array.min()) < 0):
        raise _wrong(who, shown(answer), expected)
    return [int(number) for number in array]


def _tokens(given: Any, who: str, length: int) -> Tokens:
    expected = "Tokens of starts, ends and unknown, arrays of one length"
    if not isinstance(given, Tokens):
        raise _wrong(who, kind_of(given), expected)
    starts, ends, unknown = (
        _numbers(part, who, expected, also="b")
        for part in (given.starts, given.ends, given.unknown)
    )
    if not starts.ndim == ends.ndim == unknown.ndim == 1 or not (
        len(starts) == len(ends) == len(unknown)
    ):
        raise _wrong(who, f"arrays of {starts.shape}, {ends.shape}, {unknown.shape}", expected)
    if not len(starts):
        empty: Integers = np.empty(0, np.int32)
        return Tokens(empty, empty, np.empty(0, np.bool_))
    offsets = "offsets from 0 to the length of the text, with ascending starts"
    if starts.dtype.kind not in "iu" or ends.dtype.kind not in "iu":
        raise _wrong(who, f"offsets of {starts.dtype} and {ends.dtype}", "whole numbers")
    if int(starts.min()) < 0 or int(ends.max()) > length or (starts > ends).any():
        reach = f"[{int(starts.min())}, {int(ends.max())})"
        raise _wrong(who, f"offsets in {reach} of a text of {length} characters", offsets)
    if (starts[1:] < starts[:-1]).any():
        raise _wrong(who, "starts that descend", offsets)
    return Tokens(
        starts.astype(np.int32, copy=False),
        ends.astype(np.int32, copy=False),
        unknown.astype(np.bool_, copy=False),
    )


def _list(answer: Any, who: str, count: int, expected: str) -> list[Any]:
    if isinstance(answer, str | bytes) or not isinstance(answer, Sequence | np.ndarray):
        raise _wrong(who, kind_of(answer), expected)
    if len(answer) != count:
        raise _wrong(who, f"{len(answer)} for {count} texts", expected)
    return list(answer)


def _numbers(answer: Any, who: str, expected: str, *, also: str = "") -> NDArray[Any]:
    if inspect.iscoroutine(answer):
        answer.close()  # or it warns that nobody has awaited it
    if has_masked_values(answer):
        raise _wrong(who, "an array with masked values", expected)
    try:
        array = np.asarray(answer)
    except Exception as exc:  # rows of several lengths, a tensor on a GPU, an __array__ that raises
        raise _wrong(
            who,
            f"{kind_of(answer)} that is no array of numbers: {str(exc).rstrip('.')}",
            expected,
        ) from exc
    if array.size and array.dtype.kind not in _NUMBERS + also:
        held = f" of {_held(array)}" if isinstance(answer, np.ndarray | list | tuple) else ""
        raise _wrong(who, f"{kind_of(answer)}{held}", expected)
    return array


def _held(array: NDArray[Any]) -> str:
    return "strings" if array.dtype.kind in "US" else f"{array.dtype}s"


def _as_float32(array: NDArray[Any]) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):  # infinity is found by its own check
        return np.ascontiguousarray(array, np.float32)


def _wrong(who: str, found: str, expected: str) -> ModelError:
    return ModelError(f"{who} returned {found}.", hint=f"It must return {expected}.")


# ---- an identity


def identity(value: Any, what: str) -> dict[str, Any]:
    """Return an identity as it is stored and compared: as JSON reads it back.

    Args:
        value: What the encoder gave.
        what: What that is, for messages.

    Raises:
        InvalidConfig: It is not a JSON object, is empty, or is too long.
    """
    if not isinstance(value, Mapping) or not value:
        raise InvalidConfig(
            f"The {what} is {shown(value)}.",
            hint="It must be a dict, such as {'name': 'my-encoder', 'version': 1}, that is equal "
            "only where vectors are.",
        )
    plain: dict[str, Any] = _plain(value, what, 0)
    name = plain.get("name", "")
    if not isinstance(name, str):
        raise InvalidConfig(f"The name in the {what} is {shown(name)}.", hint="Make it a string.")
    size = len(json.dumps(plain))
    if size > _LONGEST:
        raise InvalidConfig(
            f"The {what} has {size:,} characters as JSON; the limit is {_LONGEST:,}.",
            hint="Put a hash in place of what is long.",
        )
    return plain


def _plain(value: Any, what: str, depth: int) -> Any:
    """Return a value as JSON gives it back: lists for tuples, numbers for NumPy's."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and _has_utf8(value):
        return str.__str__(value)  # not what an Enum of strings makes of it
    if isinstance(value, int) and -_INT64 <= value < _INT64:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if depth < _DEEPEST and isinstance(value, list | tuple):
        return [_plain(inner, what, depth + 1) for inner in value]
    if (
        depth < _DEEPEST
        and isinstance(value, Mapping)
        and all(isinstance(k, str) and _has_utf8(k) for k in value)
    ):
        return {
            str.__str__(key): _plain(inner, f"{key!r} in the {what}", depth + 1)
            for key, inner in value.items()
        }
    raise InvalidConfig(
        f"The {what} is {described(value)}, which JSON cannot hold.",
        hint=f"Use strings, 64-bit integers, finite floats, booleans, None, lists and dicts with "
        f"strings as keys, at most {_DEEPEST} deep.",
    )


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

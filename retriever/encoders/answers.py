"""What an encoder, a tokenizer or a reranker of somebody else's returned, checked.

Every function returns the value in the one form that the package uses, or raises `ModelError` that
names the part at fault.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.arguments import has_masked_values, kind_of, shown
from retriever.encoders.protocol import Tokens
from retriever.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Integers = NDArray[np.int32]

_NUMBERS = "fiu"
_LARGE = 1e15


def vectors(answer: Any, who: str, count: int, dimension: int) -> Floats:
    """Return the embeddings of `count` texts, float32 `(count, dimension)`, none of them zero."""
    expected = f"float32 ({count}, {dimension}): a row of {dimension} numbers for each text"
    array = _numbers(answer, who, expected)
    if array.shape != (count, dimension):
        raise _wrong(who, f"an array of shape {array.shape}", expected)
    given = array if array.dtype.kind == "f" else array.astype(np.float64)
    largest = np.abs(given).max(axis=1, keepdims=True).astype(np.float64)
    finite = np.isfinite(largest)
    if not finite.all():
        raise _wrong(who, f"values that are not finite for text {int(np.argmin(finite))}", expected)
    if not largest.all():
        position = int(np.argmin(largest))
        raise _wrong(who, f"a zero vector, which has no direction, for text {position}", expected)
    # Only directions are kept: what float32, or the square of it, could not hold is scaled first.
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
    except Exception as exc:  # rows of several lengths, a tensor on a GPU, an __array__ of theirs
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

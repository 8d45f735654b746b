"""Filterable fields of documents: their paths, and the bytes that their values are compared by.

Within a type, two encoded values compare as bytes (`memcmp`) exactly as the values themselves do,
so that an index of the database answers equality and ranges. Both sides of a filter use this
module: storage writes a document's rows with it, and a filter's operands are encoded by it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import Any, TypeAlias

LONGEST_PATH = 4_096
"""The characters of the folders of a source up to which it has any; no file system has more."""
_EXACT = 1 << 53  # up to here each integer is a double
_MAX = 1.7976931348623157e308
_SIGN = 1 << 63
_ALL = (1 << 64) - 1
_ZERO = _SIGN.to_bytes(8)
_NEGATIVE_INFINITY = bytes.fromhex("000fffffffffffff")
_double = struct.Struct(">d")
_bits = struct.Struct(">Q")


class ValueType(IntEnum):
    """The type of a value. Values of different types are neither equal nor ordered.

    LIST and OBJECT say that a path holds a list or an object, whatever is in it; they have no
    value.
    """

    NULL = 0
    BOOLEAN = 1
    NUMBER = 2
    STRING = 3
    LIST = 4
    OBJECT = 5


Encoded: TypeAlias = tuple[ValueType, bytes]
FieldRow: TypeAlias = tuple[str, ValueType, bytes]
_NUMBER, _STRING = ValueType.NUMBER, ValueType.STRING
_NULL: Encoded = (ValueType.NULL, b"")
_BOOLEANS: dict[bool, Encoded] = {
    False: (ValueType.BOOLEAN, b"\0"),
    True: (ValueType.BOOLEAN, b"\1"),
}
_LIST: Encoded = (ValueType.LIST, b"")
_OBJECT: Encoded = (ValueType.OBJECT, b"")


def encode_value(value: Any) -> Encoded:
    """Return the type of a JSON value and the bytes that it is compared by.

    Integers and floats are compared by their exact values: 1 equals 1.0, and 2**53 + 1 is between
    2.0**53 and 2.0**53 + 2. An integer may have any size. `True` is not 1. Strings are in order of
    their code points.

    Raises:
        ValueError: A float is infinite or NaN, or a string has a lone surrogate.
        TypeError: The value is not one of JSON.
    """
    if isinstance(value, str):
        return _STRING, value.encode()
    if value is None:
        return _NULL
    if isinstance(value, bool):  # before int, which it is a subclass of
        return _BOOLEANS[value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value!r} is no finite number")
        return _NUMBER, _ordered(value)
    if isinstance(value, int):
        return _NUMBER, _of_integer(value)
    if isinstance(value, list | tuple):
        return _LIST
    if isinstance(value, Mapping):
        return _OBJECT
    raise TypeError(f"{type(value).__name__} is no type of JSON")


def decode_value(kind: ValueType, data: bytes) -> Any:
    """Return a value that encodes to given bytes: an integer where an integer and a float do.

    A list or an object has no value of its own: `[]` and `{}` stand for any.

    Raises:
        ValueError: `encode_value` returns no such bytes.
    """
    match kind:
        case ValueType.NULL:
            value: Any = None
        case ValueType.BOOLEAN:
            value = data == b"\1"
        case ValueType.STRING:
            value = data.decode()
        case ValueType.LIST:
            value = []
        case ValueType.OBJECT:
            value = {}
        case ValueType.NUMBER:
            value = _number(data)
    if encode_value(value) != (kind, data):
        raise ValueError(f"{data.hex()} encodes no value")
    return value


def _ordered(value: float) -> bytes:
    """Return 8 bytes that compare as finite floats do.

    As big-endian IEEE 754 doubles compare by magnitude, the sign bit is flipped for positive
    numbers and all bits for negative ones (Terdiman, "Radix Sort Revisited", 2000).
    """
    if value > 0.0:
        return _double.pack(-value)
    if value == 0.0:
        return _ZERO  # of either sign
    (bits,) = _bits.unpack(_double.pack(value))
    return _bits.pack(bits ^ _ALL)


def _of_integer(value: int) -> bytes:
    """Return the bytes of the largest double that is not above an integer, and what is left.

    What is left is written only if it is not zero, as the number of its bytes and these bytes, so
    that it sorts after the double itself and by its size.
    """
    if -_EXACT <= value <= _EXACT:
        return _ordered(float(value))
    try:
        below = float(value)
    except OverflowError:
        if value < 0:
            return _NEGATIVE_INFINITY
        below = _MAX
    if int(below) > value:
        below = math.nextafter(below, -math.inf)
        if math.isinf(below):
            return _NEGATIVE_INFINITY
    left = value - int(below)
    if not left:
        return _ordered(below)
    size = (left.bit_length() + 7) // 8
    # Above 255 bytes no number that can be stored is near, and any bytes in order will do.
    rest = left.to_bytes(size) if size < 255 else b""
    return _ordered(below) + bytes([min(size, 255)]) + rest


def _number(data: bytes) -> int | float:
    if len(data) < 8:
        raise ValueError(f"{data.hex()} encodes no number")
    (bits,) = _bits.unpack(data[:8])
    (value,) = _double.unpack(_bits.pack(bits ^ (_SIGN if bits & _SIGN else _ALL)))
    if math.isfinite(value) and value.is_integer() and (len(data) > 8 or abs(value) < 2.0**63):
        return int(value) + int.from_bytes(data[9:])
    return float(value)


# --- the fields of a document ------------------------------------------------------------------


def field_name(key: str) -> str:
    r"""Return a key as one part of a path: `\` before each `.` and each `\` that is in it."""
    if "." in key or "\\" in key:
        return key.replace("\\", "\\\\").replace(".", "\\.")
    return key


def fields_of(
    metadata: Mapping[str, Any], *, source: str | None, title: str | None, language: str | None
) -> list[FieldRow]:
    r"""Return the fields of a document, each (path, type, encoded value) once.

    The keys that lead to a value are joined by `.`; a `.` or `\` inside a key is escaped by `\`.
    A list contributes each of its elements, those of lists inside it too, and says that it is one.
    An object contributes the values of its keys, and says that it is one. The document's own
    fields are `source`, `title`, `language` and `folder`, each only where the metadata has no such
    key; `folder` has each folder that the source is in, so that one equals the folder that is
    asked for.

    Raises:
        ValueError, TypeError: As `encode_value`.
    """
    found: list[FieldRow] = []
    for key, value in metadata.items():
        path = field_name(key)
        kind = type(value)
        if kind is str:
            found.append((path, _STRING, value.encode()))
        elif kind is int and -_EXACT <= value <= _EXACT:
            found.append((path, _NUMBER, _ordered(float(value))))
        elif kind is list or kind is dict or isinstance(value, list | tuple | Mapping):
            rows: list[FieldRow] = []
            _collect(path, value, rows)
            # Elements of a list may be equal, or have equal keys.
            found += dict.fromkeys(rows)
        else:
            found.append((path, *encode_value(value)))
    if source is not None and "source" not in metadata:
        found.append(("source", _STRING, source.encode()))
    if title is not None and "title" not in metadata:
        found.append(("title", _STRING, title.encode()))
    if language is not None and "language" not in metadata:
        found.append(("language", _STRING, language.encode()))
    if source is not None and "folder" not in metadata:
        found += _folder_rows(source[: source.rfind("/") + 1])
    return found


@lru_cache(maxsize=16)
def _folder_rows(folder: str) -> list[FieldRow]:
    return [("folder", _STRING, one.encode()) for one in folders_of(folder)]


def folders_of(source: str) -> Sequence[str]:
    """Return every folder that a source is in, outermost first; a path or a URL has `/`.

    What is longer than `LONGEST_PATH` up to its last `/` is no path, and in no folder.
    """
    if source.rfind("/") >= LONGEST_PATH:
        return ()
    found, end = [], source.find("/")
    if end == 0:
        found.append("/")
    while end >= 0:
        if source[end - 1 : end] not in ("", "/"):
            found.append(source[:end])
        end = source.find("/", end + 1)
    return found


def _collect(path: str, value: Any, rows: list[FieldRow]) -> None:
    rows.append((path, *encode_value(value)))
    if isinstance(value, list | tuple):
        for inner in value:
            _collect(path, inner, rows)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            _collect(f"{path}.{field_name(key)}", inner, rows)

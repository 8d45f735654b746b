"""Canonical forms of stored and compared values: JSON, a document's content, unit vectors."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.arguments import has_masked_values

if TYPE_CHECKING:
    from retriever.types import Document, Vector

MAX_DEPTH = 8
MAX_JSON = 16_000_000
"""The maximum characters of a document's metadata as JSON, and of its headings and pages."""
# Half the distance from 1 to the next float32.
_UNIT_ROUNDING = 2.0**-24

# Equal documents must give equal bytes here, so keys are sorted; storage keeps their order.
canonical_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode

to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=dict).encode
"""Return a value as the JSON that the index stores."""


def content_of(document: Document, embedding: Vector | None = None) -> str:
    """Return a hexadecimal digest of a document without its id; equal documents share it.

    Args:
        document: A canonical document.
        embedding: The supplied embedding, if it is not part of `document`.
    """
    given = document.embedding if embedding is None else embedding
    # Documents without an id are named by this digest, so `<f4` fixes the embedding's byte order.
    parts = {
        "text": document.text,
        **described_by(document),
        **({} if given is None else {"embedding": np.asarray(given, "<f4").tobytes().hex()}),
    }
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def described_by(document: Document) -> dict[str, Any]:
    """Return the fields of a document other than its text, its embedding and its id."""
    parts = {"metadata": document.metadata, "source": document.source, "title": document.title}
    return {name: value for name, value in parts.items() if value} | structure_of(document)


def structure_of(document: Document) -> dict[str, Any]:
    """Return a document's headings and pages as one JSON object, as stored."""
    structure: dict[str, Any] = {}
    if document.headings:
        structure["headings"] = [list(heading) for heading in document.headings]
    if document.pages:
        structure["pages"] = list(document.pages)
    return structure


def moment(value: datetime) -> str:
    """Return a datetime as ISO 8601: in UTC if its zone is known, else as it is.

    Raises:
        ValueError: It is pandas' NaT, a missing time.
        OverflowError: It is outside the years 1 to 9999 in UTC.
    """
    if value != value:
        raise ValueError("a missing time")
    if value.utcoffset() is None:
        return value.isoformat()
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def of_numpy(value: Any) -> Any:
    """Return a NumPy value as a Python value; the value itself if its kind is not stored."""
    if value.dtype.kind == "M":
        # `tolist` makes an integer of nanoseconds, and a datetime of microseconds.
        value = value.astype("datetime64[us]") if value.dtype != "datetime64[D]" else value
        return value.tolist()
    if value.dtype.kind == "f":
        return value.astype(np.float64).tolist()  # a long double has no form in Python
    return value.tolist() if value.dtype.kind in "biuU" else value


def unit_vector(value: Any, dimension: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a vector as float32 `(dimension,)` of unit length.

    Raises:
        ValueError: It has another shape, is not finite, or is zero; the message completes
            "The embedding …".
    """
    if has_masked_values(value):
        raise ValueError("holds masked values")
    try:
        given = np.asarray(value)
        if given.dtype.kind in "UScmM" or (given.dtype.kind == "O" and _has_text(given)):
            raise TypeError(f"it holds {_NO_NUMBERS.get(given.dtype.kind, 'strings')}")
        vector = given.astype(np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError) as exc:
        raise ValueError(f"is not a vector of numbers: {exc}") from exc
    if vector.shape != (dimension,):
        raise ValueError(f"has shape {vector.shape}; this index holds vectors of ({dimension},)")
    if not np.isfinite(vector).all():
        raise ValueError("holds NaN or infinity")
    # Scaled by the largest element first, so that squaring cannot overflow or underflow.
    largest = float(np.abs(vector).max())
    if largest == 0.0:
        raise ValueError("is all zeros and has no direction")
    scaled = vector / largest
    length = float(np.linalg.norm(scaled))
    # A vector that was scaled and rounded before is not scaled again, so that a stored embedding
    # which is added to an index once more keeps its exact bytes.
    is_unit = abs(length * largest - 1.0) <= _UNIT_ROUNDING
    unit: np.ndarray[Any, np.dtype[np.float32]] = (vector if is_unit else scaled / length).astype(
        np.float32
    )
    return unit


_NO_NUMBERS = {"c": "complex numbers", "m": "durations", "M": "dates"}


def _has_text(values: np.ndarray[Any, Any]) -> bool:
    return any(isinstance(value, str | bytes) for value in values.flat)

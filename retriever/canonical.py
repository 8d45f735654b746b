"""The one form of what is stored or compared: JSON, a document's content, a vector of length 1."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.arguments import has_masked_values

if TYPE_CHECKING:
    from retriever.types import Document, Vector

MAX_DEPTH = 8
MAX_JSON = 16_000_000
"""Characters of a document's metadata as JSON, and of its headings and pages together."""
_UNIT_ROUNDING = 2.0**-24

canonical_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode

to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=dict).encode
"""Return a value as the JSON that the index stores."""


def content_of(document: Document, embedding: Vector | None = None) -> str:
    """Return a digest in hexadecimal that documents share if they are equal but for their ids.

    Args:
        document: A canonical one.
        embedding: The one that a caller brought, where the document does not hold it.
    """
    given = document.embedding if embedding is None else embedding
    parts = {
        "text": document.text,
        **described_by(document),
        **({} if given is None else {"embedding": np.asarray(given, "<f4").tobytes().hex()}),
    }
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def described_by(document: Document) -> dict[str, Any]:
    """Return what a document has besides its text and its embedding."""
    parts = {"metadata": document.metadata, "source": document.source, "title": document.title}
    return {name: value for name, value in parts.items() if value} | structure_of(document)


def structure_of(document: Document) -> dict[str, Any]:
    """Return a document's headings and pages as the one object that is stored."""
    structure: dict[str, Any] = {}
    if document.headings:
        structure["headings"] = [list(heading) for heading in document.headings]
    if document.pages:
        structure["pages"] = list(document.pages)
    return structure


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
    largest = float(np.abs(vector).max())
    if largest == 0.0:
        raise ValueError("is all zeros and has no direction")
    scaled = vector / largest
    length = float(np.linalg.norm(scaled))
    # What was scaled and rounded once stays as it is, so that it can be handed in again.
    is_unit = abs(length * largest - 1.0) <= _UNIT_ROUNDING
    unit: np.ndarray[Any, np.dtype[np.float32]] = (vector if is_unit else scaled / length).astype(
        np.float32
    )
    return unit


_NO_NUMBERS = {"c": "complex numbers", "m": "durations", "M": "dates"}


def _has_text(values: np.ndarray[Any, Any]) -> bool:
    return any(isinstance(value, str | bytes) for value in values.flat)

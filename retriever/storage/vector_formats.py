"""The kinds of vectors that a space may hold, and the bytes of each.

A space has one table of vectors with one row for each chunk. What a row holds depends on the
space's format: one vector today; several for token vectors; indices and weights for sparse ones.
A new kind is a new entry here and needs no further table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_DIMENSION = 1 << 16


@dataclass(frozen=True, slots=True)
class VectorFormat:
    """Vectors of fixed dimension, one after another.

    Attributes:
        kind: What they are for: `dense`.
        dtype: The type of their numbers.
        metric: How they are compared.
        numpy: The type of their numbers as they are stored, for NumPy.
        per_chunk: The number of vectors in a row; None if it differs between chunks.
        has_unit_length: Whether each is finite and of length 1.
        itemsize: Bytes of a number.
    """

    kind: str
    dtype: str
    metric: str
    numpy: str
    per_chunk: int | None
    has_unit_length: bool
    itemsize: int = field(init=False)

    def __post_init__(self) -> None:
        """Derive `itemsize`."""
        object.__setattr__(self, "itemsize", np.dtype(self.numpy).itemsize)

    def fits(self, data: object, dimension: int) -> bool:
        """Return whether bytes have the size of a row of vectors of a dimension."""
        if type(data) is not bytes:
            return False
        vectors, rest = divmod(len(data), self.itemsize * dimension)
        return not rest and self.per_chunk in (None, vectors)

    def decode(self, data: bytes, dimension: int) -> NDArray[Any]:
        """Return the vectors of a row, `(n, dimension)`."""
        return np.frombuffer(data, self.numpy).reshape(-1, dimension)

    def encode(self, vectors: Iterable[NDArray[Any]]) -> Iterator[bytes]:
        """Yield the bytes of each row, given its vectors."""
        if self.per_chunk == 1:  # all rows are one array, `(n, dimension)`: converted at once
            vectors = np.ascontiguousarray(vectors, self.numpy)
        for one in vectors:
            yield one.astype(self.numpy, copy=False).tobytes()

    def problem(self, data: bytes, dimension: int) -> str:
        """Return why these cannot be vectors that we have written, or an empty string."""
        if not self.fits(data, dimension):
            return f"it is not of {dimension} numbers"
        vectors = self.decode(data, dimension)
        if self.has_unit_length and not are_unit(vectors).all():
            with np.errstate(over="ignore", invalid="ignore"):
                norm = float(np.linalg.norm(vectors[~are_unit(vectors)][0]))
            return f"its length is {norm}, not 1"
        return ""


DENSE = VectorFormat("dense", "float32", "cosine", "<f4", per_chunk=1, has_unit_length=True)
_FORMATS = {(one.kind, one.dtype, one.metric): one for one in (DENSE,)}


def format_of(kind: str, dtype: str, metric: str) -> VectorFormat | None:
    """Return the format of a space's vectors, or None if this version does not know it."""
    return _FORMATS.get((kind, dtype, metric))


def are_unit(vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which vectors are finite and of unit length, as all dense ones are."""
    with np.errstate(over="ignore", invalid="ignore"):
        # Numbers of a crafted row may be NaN or overflow when squared; the comparison is False for
        # both. `einsum` needs no temporary array of all squares, unlike `np.linalg.norm`.
        squares = np.einsum("...i,...i->...", vectors, vectors)
        return np.asarray(np.abs(np.sqrt(squares) - 1) < 1e-3)

"""What an exact search must return, computed in the plainest way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def exact_search(
    vectors: Iterable[NDArray[Any]], query: NDArray[Any], k: int
) -> list[tuple[int, float]]:
    """Return the positions and cosines of the `k` vectors nearest to a query.

    Cosines are summed in float64, as the scores of an index are, so the two can be compared for
    equality. Equal cosines are ordered by position.

    Args:
        vectors: Unit vectors, each `(dimension,)`.
        query: A unit vector, `(dimension,)`.
        k: How many to return at most.
    """
    scores = [float(np.clip((v.astype(float) * query.astype(float)).sum(), -1, 1)) for v in vectors]
    order = sorted(range(len(scores)), key=lambda position: (-scores[position], position))
    return [(position, scores[position]) for position in order[:k]]


def unit_vectors(count: int, dimension: int, seed: int) -> NDArray[np.float32]:
    """Return random vectors of unit length, float32 `(count, dimension)`, the same for each seed.

    Directions are uniform: normally distributed coordinates, scaled to length 1.
    """
    vectors = np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

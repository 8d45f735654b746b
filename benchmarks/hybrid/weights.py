"""Weights that follow the question, learned by least squares and tried on what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SCALES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
_DRAWS = 2000


class Followed(NamedTuple):
    """What a collection gains that took no part in the learning: means of nDCG@10.

    Attributes:
        low: The lower end of a bootstrap interval of the gain, 95 %.
        high: The upper end.
        oracle: With the best weight of each question, which nobody knows.
    """

    fixed: float
    following: float
    gain: float
    low: float
    high: float
    oracle: float


def learned(features: Sequence[Array], table: Sequence[Array]) -> Array:
    """Return coefficients of what more weight gains: the end of the table less its beginning.

    Each collection counts the same.
    """
    left = np.vstack([x / np.sqrt(len(x)) for x in features])
    right = np.concatenate([(t[:, -1] - t[:, 0]) / np.sqrt(len(t)) for t in table])
    ridge = 1e-3 * np.eye(left.shape[1])
    return np.linalg.solve(left.T @ left + ridge, left.T @ right)


def applied(
    coefficients: Array, scale: float, features: Array, table: Array, steps: Array
) -> Array:
    """Return each question's gain at the step that the coefficients give it."""
    wanted = np.clip(scale * (features @ coefficients), steps[0], steps[-1])
    nearest = np.abs(wanted[:, None] - steps).argmin(axis=1)
    return table[np.arange(len(table)), nearest]


def followed(features: Sequence[Array], table: Sequence[Array], steps: Array) -> list[Followed]:
    """Return for each collection what weights learned on the others gain.

    Args:
        features: Of the questions of each collection.
        table: nDCG@10 of each question at each step.
        steps: What is added to the fixed weight, ascending and with 0 in the middle.
    """
    found = []
    drawn = np.random.default_rng(1)
    middle = len(steps) // 2
    for out in range(len(table)):
        rest = [place for place in range(len(table)) if place != out]
        coefficients = learned([features[p] for p in rest], [table[p] for p in rest])
        scale = max(
            SCALES,
            key=lambda one: np.mean(
                [applied(coefficients, one, features[p], table[p], steps).mean() for p in rest]
            ),
        )
        mine = applied(coefficients, scale, features[out], table[out], steps)
        fixed = table[out][:, middle]
        difference = mine - fixed
        draws = drawn.integers(len(difference), size=(_DRAWS, len(difference)))
        low, high = np.percentile(difference[draws].mean(axis=1), [2.5, 97.5])
        found.append(
            Followed(
                float(fixed.mean()),
                float(mine.mean()),
                float(difference.mean()),
                float(low),
                float(high),
                float(table[out].max(axis=1).mean()),
            )
        )
    return found

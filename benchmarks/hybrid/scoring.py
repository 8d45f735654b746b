"""nDCG@10 of many rankings at once, and what two of them differ by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
K = 10
_DISCOUNT = 1 / np.log2(np.arange(2, K + 2))


def best(scores: Array, k: int = K) -> NDArray[np.intp]:
    """Return the best rows of each question, best first, equal ones by their number."""
    k = min(k, scores.shape[1])
    part = np.sort(np.argpartition(-scores, k - 1, axis=1)[:, :k], axis=1)
    order = np.argsort(-np.take_along_axis(scores, part, 1), axis=1, kind="stable")
    return np.take_along_axis(part, order, 1)


def gains(scores: Array, relevant: Sequence[Mapping[int, int]]) -> Array:
    """Return nDCG@10 of each question: gains are the grades, as trec_eval's."""
    found = [
        [grades.get(int(row), 0) for row in rows]
        for rows, grades in zip(best(scores), relevant, strict=True)
    ]
    return gains_of(found, relevant)


def gains_of(found: Sequence[Sequence[int]], relevant: Sequence[Mapping[int, int]]) -> Array:
    """Return nDCG@10 of each question, given the grades of what it found."""
    return np.array(
        [
            np.dot(row, _DISCOUNT[: len(row)]) / np.dot(ideal, _DISCOUNT[: len(ideal)])
            for row, grades in zip(found, relevant, strict=True)
            for ideal in [sorted(grades.values(), reverse=True)[:K]]
        ]
    )

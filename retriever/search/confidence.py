"""How likely it is that the best hit answers the question, from the scores alone.

A logistic formula of four measures, which need no labels:

- how far the cosine of the best hit stands out of the background: `(top - mean) / (1 - mean)`,
  where `mean` is that of a sample of passages (`background.py`), which differs between encoders;
- how far it stands out of the next nine: a question that nothing answers has many hits that are
  about its topic, and equally near;
- which share of the question's words the best hit has: its BM25 score over the highest that any
  passage could have, in which a word that stands nowhere counts as the rarest of all;
- how far that share stands out of the next nine.

The second says more than the gap between the first two hits, which often both answer. The
constants are learned on questions of SQuAD's training set and of MedQuAD: half of them answered, a
quarter with the answering passage left out of the index, a quarter asked of an index about
something else. `python -m benchmarks.confidence learn` computes them, and `measure` shows what
they are worth on other collections.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

HITS = 10  # the best hit, and those that it is compared with
# Constant, cosine over the background, cosine over the next hits.
_DENSE = (-4.87, 7.68, 7.69)
# Constant, share of the words, share over the next hits.
_LEXICAL = (-3.17, 5.64, 6.14)
# Constant, cosine over the background, root of the share of the words, cosine and share over the
# next hits.
_HYBRID = (-5.90, 4.72, 4.28, 2.34, 4.33)


def of_cosines(cosines: Sequence[float], background: float) -> float | None:
    """Return the confidence in the first of some hits of a dense search, from 0 to 1.

    Args:
        cosines: Of the best hits, best first; those after the tenth do not count.
        background: The mean cosine of passages to the question.

    Returns:
        None where there are no hits.
    """
    if not cosines:
        return None
    ahead, apart = _over_background(cosines[0], background), _lead(cosines)
    return _logistic(_DENSE, ahead, apart / _room(background))


def of_shares(shares: Sequence[float]) -> float | None:
    """Return the confidence in the first of some hits of a lexical search, from 0 to 1.

    Args:
        shares: Of the best hits, best first, the BM25 score over the highest that the question
            allows; those after the tenth do not count.

    Returns:
        None where there are no hits.
    """
    if not shares:
        return None
    return _logistic(_LEXICAL, shares[0], _lead(shares))


def of_both(cosines: Sequence[float], shares: Sequence[float], background: float) -> float | None:
    """Return the confidence in the first of some hits of a hybrid search, from 0 to 1.

    Args:
        cosines: As for `of_cosines`, in the order of the hybrid search.
        shares: As for `of_shares`, of the same hits; 0 where no word occurs.
        background: The mean cosine of passages to the question.

    Returns:
        None where there are no hits.
    """
    if not cosines:
        return None
    return _logistic(
        _HYBRID,
        _over_background(cosines[0], background),
        math.sqrt(max(shares[0], 0.0)),
        _lead(cosines) / _room(background),
        _lead(shares),
    )


def _room(background: float) -> float:
    """Return how far above the background a cosine can be; passages may all be the same."""
    return max(1.0 - background, 1e-3)


def _over_background(top: float, background: float) -> float:
    return (top - background) / _room(background)


def _lead(scores: Sequence[float]) -> float:
    """Return how far the first score is over the mean of the next nine; 0 where it is alone."""
    rivals = scores[1:HITS]
    return scores[0] - sum(rivals) / len(rivals) if rivals else 0.0


def _logistic(constants: Sequence[float], *measures: float) -> float:
    constant, *weights = constants
    exponent = constant + sum(w * one for w, one in zip(weights, measures, strict=True))
    return 1.0 / (1.0 + math.exp(-max(-50.0, min(50.0, exponent))))

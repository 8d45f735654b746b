"""The second stage: candidates put in a new order by a model that reads query and text together.

Owns the order that a reranker's scores make. Must not know where a reranker is found, nor how the
candidates were.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from retriever.errors import ModelError

if TYPE_CHECKING:
    from retriever.encoders.protocol import Reranker
    from retriever.types import Hit

MAX_CANDIDATES = 1_000


@dataclass(frozen=True, slots=True)
class Reranking:
    """How a search is to be reranked.

    Attributes:
        reranker: Gives the scores.
        name: Its name, for people.
        candidates: How many hits of the first stage it reads, from 1 to 1,000.
    """

    reranker: Reranker
    name: str
    candidates: int

    def apply(self, query: str, hits: Sequence[Hit], texts: Sequence[str]) -> list[Hit]:
        """Return the hits, best first by the reranker; of equal scores the earlier one first.

        Args:
            query: The question.
            hits: The candidates, best first.
            texts: What the reranker reads of each.

        Raises:
            ModelError: The reranker gives something else than a finite number for each text.
        """
        if not hits:
            return []
        scores = np.asarray(self.reranker.score(query, texts), np.float32)
        if scores.shape != (len(hits),) or not np.isfinite(scores).all():
            raise ModelError(
                f"The reranker {self.name!r} gave no finite number for each of {len(hits)} texts: "
                f"an array of shape {scores.shape}.",
                hint="Its score(query, texts) must return float32 (n,), higher is better.",
            )
        order = np.argsort(-scores, kind="stable")
        return _ranked(
            replace(
                hits[position],
                score=float(scores[position]),
                scores={**hits[position].scores, "rerank": float(scores[position])},
            )
            for position in order
        )


def best_of_each(hits: Iterable[Hit]) -> list[Hit]:
    """Return the first hit of each document, ranked anew."""
    best: dict[str, Hit] = {}
    for hit in hits:
        best.setdefault(hit.document_id, hit)
    return _ranked(best.values())


def _ranked(hits: Iterable[Hit]) -> list[Hit]:
    return [replace(hit, rank=rank) for rank, hit in enumerate(hits, 1)]

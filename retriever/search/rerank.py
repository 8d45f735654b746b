"""The second stage: candidates put in a new order by a model that reads query and text together.

Owns the order that a reranker's scores make. Must not know where a reranker is found, nor how the
candidates were.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from retriever.encoders.cross_encoder import CrossEncoder
    from retriever.encoders.plugged import PluggedReranker
    from retriever.types import Hit

CheckedReranker: TypeAlias = "CrossEncoder | PluggedReranker"


@dataclass(frozen=True, slots=True)
class Reranking:
    """How a search is to be reranked.

    Attributes:
        reranker: Gives the scores, a finite number for each text.
        name: Its name, for people.
    """

    reranker: CheckedReranker
    name: str

    def apply(self, query: str, hits: Sequence[Hit], texts: Sequence[str]) -> list[Hit]:
        """Return the hits, best first by the reranker; of equal scores the earlier one first.

        Args:
            query: The question.
            hits: The candidates, best first.
            texts: What the reranker reads of each.

        Raises:
            ModelError: The reranker fails.
        """
        if not hits:
            return []
        scores = self.reranker.score(query, texts)
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

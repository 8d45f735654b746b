"""The second stage: order candidates by a model that reads the query and a text together.

It knows neither where rerankers come from nor how the candidates were found.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from retriever import deadlines

if TYPE_CHECKING:
    from retriever.encoders.cross_encoder import CrossEncoder
    from retriever.encoders.plugged import PluggedReranker
    from retriever.types import Hit

CheckedReranker: TypeAlias = "CrossEncoder | PluggedReranker"


@dataclass(frozen=True, slots=True)
class Reranking:
    """The second stage of a search.

    Attributes:
        reranker: Returns a finite score for each text; larger is better.
        name: The reranker's name, for `Results.plan`.
    """

    reranker: CheckedReranker
    name: str

    def apply(self, query: str, hits: Sequence[Hit], texts: Sequence[str]) -> list[Hit]:
        """Return the hits in the order of the reranker's scores; ties keep the order of the hits.

        Args:
            query: The question.
            hits: The candidates, best first.
            texts: The text of each hit that the reranker reads.

        Raises:
            ModelError: The reranker fails.
        """
        if not hits:
            return []
        deadlines.check()
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
    """Return the first hit of each document, with ranks from 1."""
    best: dict[str, Hit] = {}
    for hit in hits:
        best.setdefault(hit.document_id, hit)
    return _ranked(best.values())


def _ranked(hits: Iterable[Hit]) -> list[Hit]:
    return [replace(hit, rank=rank) for rank, hit in enumerate(hits, 1)]

"""The rerankers that searches name: found when they are first needed, and kept."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from retriever.arguments import whole
from retriever.encoders.computing import Computing
from retriever.encoders.plugged import PluggedReranker
from retriever.encoders.protocol import Reranker
from retriever.errors import InvalidQuery, LimitExceeded
from retriever.search.rerank import MAX_CANDIDATES, Reranking

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder as LoadedCrossEncoder

    from retriever.encoders.cross_encoder import CrossEncoder

RerankerLike: TypeAlias = "str | os.PathLike[str] | Reranker | LoadedCrossEncoder"
_CHOICES = "Pass the name or path of a cross-encoder, or an object with score(query, texts)."


class RerankerSource:
    """Gives searches their rerankers. Nothing is looked for before a search names it.

    Args:
        allow_download: Whether a missing model may be fetched from the hub.
        computing: Where and in which numbers a cross-encoder that is named is computed.
    """

    def __init__(self, *, allow_download: bool, computing: Computing) -> None:
        self._allow_download = allow_download
        self._computing = computing
        self._loaded: dict[str, CrossEncoder] = {}
        self._lock = threading.Lock()

    def reranking(
        self, wanted: RerankerLike | None, candidates: int, *, has_text: bool
    ) -> Reranking | None:
        """Return how a search is to be reranked, None where it is not.

        Args:
            wanted: What the caller passed as `rerank`.
            candidates: What the caller passed as `candidates`.
            has_text: Whether there is a question to compare texts with.

        Raises:
            InvalidQuery: One of them is unusable.
            LimitExceeded: There are over 1,000 candidates.
            ModelError: The model is damaged, or is no cross-encoder.
            ModelUnavailable: It is not on this machine.
        """
        candidates = _check_candidates(candidates)
        given: Any = wanted
        if given is None or given is False:
            return None
        if given is True:
            raise InvalidQuery("rerank is True, which names no reranker.", hint=_CHOICES)
        if not has_text:
            raise InvalidQuery(
                "A search by vector has no question that a reranker could read.",
                hint="Pass the question as query, or leave rerank out.",
            )
        if isinstance(given, str | os.PathLike):
            return Reranking(self._load(given), os.fspath(given), candidates)
        plugged = PluggedReranker(given)
        return Reranking(plugged, plugged.name, candidates)

    def _load(self, given: str | os.PathLike[str]) -> CrossEncoder:
        name = os.fspath(given)
        if not name.strip():
            raise InvalidQuery(f"rerank is {name!r}.", hint=_CHOICES)
        with self._lock:
            if name not in self._loaded:
                from retriever.encoders.cross_encoder import load_cross_encoder

                self._loaded[name] = load_cross_encoder(
                    name if isinstance(given, str) else Path(given),
                    allow_download=self._allow_download,
                    threads=self._computing.threads,
                    device=self._computing.device,
                    precision=self._computing.wanted,
                )
            return self._loaded[name]


def _check_candidates(given: Any) -> int:
    candidates = whole(
        given,
        "candidates",
        least=1,
        error=InvalidQuery,
        hint="It is an integer from 1: how many are reranked.",
    )
    if candidates > MAX_CANDIDATES:
        raise LimitExceeded(
            f"candidates is {candidates:,}; the limit is {MAX_CANDIDATES:,}.",
            limit=MAX_CANDIDATES,
            value=candidates,
            option="candidates",
            hint="Rerank fewer: the first stage rarely puts an answer so far down.",
        )
    return candidates

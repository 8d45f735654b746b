"""Load rerankers at their first use, and keep them."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from retriever.config import SearchOptions
from retriever.encoders.computing import Computing
from retriever.encoders.plugged import PluggedReranker
from retriever.encoders.protocol import Reranker
from retriever.errors import InvalidQuery
from retriever.search.rerank import Reranking

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder as LoadedCrossEncoder

    from retriever.encoders.cross_encoder import CrossEncoder

RerankerLike: TypeAlias = "str | os.PathLike[str] | Reranker | LoadedCrossEncoder"


class RerankerSource:
    """Loads rerankers at their first use and keeps them. Thread-safe.

    Args:
        allow_download: Whether a missing model may be downloaded from the hub.
        computing: The device and precision of cross-encoders that are given by name.
    """

    def __init__(self, *, allow_download: bool, computing: Computing) -> None:
        self._allow_download = allow_download
        self._computing = computing
        self._loaded: dict[str, CrossEncoder] = {}
        self._lock = threading.Lock()

    def reranking(self, options: SearchOptions, *, has_text: bool) -> Reranking | None:
        """Return the second stage of a search, or None if it has none.

        Args:
            options: The options of the search.
            has_text: Whether the search has a question, rather than a vector or a document.

        Raises:
            InvalidQuery: There is no question, or the object is not a reranker.
            ModelError: The model is damaged, or is not a cross-encoder.
            ModelUnavailable: It is not on this machine.
        """
        given = options.rerank
        if given is None:
            return None
        if not has_text:
            raise InvalidQuery(
                "A search by vector or document has no question for the reranker to read.",
                hint="Pass the question as query, or leave rerank out.",
            )
        if isinstance(given, str | os.PathLike):
            return Reranking(self._load(given), os.fspath(given))
        plugged = PluggedReranker(given)
        return Reranking(plugged, plugged.name)

    def _load(self, given: str | os.PathLike[str]) -> CrossEncoder:
        name = os.fspath(given)
        with self._lock:
            if name not in self._loaded:
                from retriever.encoders.cross_encoder import load_cross_encoder

                self._loaded[name] = load_cross_encoder(
                    name if isinstance(given, str) else Path(given),
                    self._computing,
                    allow_download=self._allow_download,
                )
            return self._loaded[name]

"""The reference for cross-encoders: sentence-transformers' own CrossEncoder.

Owns how it is called. Any cross-encoder of one transformer can be computed here. Must not know
where a model is found or what the scores are for.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever import deadlines
from retriever.encoders.checkpoint.cross_encoder import CrossDescription
from retriever.encoders.computing import Computing
from retriever.encoders.reference import load_model
from retriever.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BATCH = 32  # pairs; sentence-transformers' own default


class CrossReference:
    """A model in sentence-transformers, float32; loaded at the first pair, once.

    Args:
        description: What `resolve_cross_encoder` returned.
        computing: As for `reference.Reference`.
    """

    precision = "float32"

    def __init__(self, description: CrossDescription, computing: Computing) -> None:
        """Take a resolved model."""
        self._description = description
        self._computing = computing
        self._lock = threading.Lock()
        self._model: Any = None

    def logits(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the network's output for each pair, float32 `(n,)`.

        Raises:
            MissingDependency: torch or sentence-transformers is not installed.
            ModelError: The model cannot be loaded, or does not give one number.
        """
        with deadlines.holding(self._lock):
            deadlines.check()
            found = self._loaded().predict(
                [(query, text) for text in texts],
                batch_size=_BATCH,
                activation_fn=lambda logits: logits,
                show_progress_bar=False,
                convert_to_numpy=True,
            )
        return np.asarray(found, np.float32)

    def _loaded(self) -> Any:
        if self._model is None:
            description = self._description
            model = load_model(description, self._computing, "CrossEncoder")
            if model.num_labels != 1:
                raise ModelError(
                    f"The model {description.name!r} gives {model.num_labels} scores for a pair; a "
                    "reranker gives one.",
                    hint="Choose a cross-encoder with one label (num_labels=1).",
                )
            # Pairs are truncated to this. It is lower than the model's own where that exceeds the
            # positions it has.
            model.max_seq_length = description.window
            self._model = model
        return self._model

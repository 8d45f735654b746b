"""The fast path of a cross-encoder: pairs, network and classification head in one.

Owns the steps from a query and texts to logits for models that this package computes itself.
Whether they are used is decided by `acceptance.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from retriever.encoders.acceptance import PROBES
from retriever.encoders.checkpoint.architecture import UnsupportedModel
from retriever.encoders.checkpoint.cross_encoder import CrossDescription
from retriever.encoders.computing import Computing
from retriever.encoders.forward.batching import Sequences
from retriever.encoders.forward.classification_head import read_head
from retriever.encoders.forward.pairs import PairTokenizer
from retriever.encoders.forward.runtime import Runtime, Runtimes
from retriever.encoders.forward.transformer import read_network

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

_MODES = ("cls",)  # the head reads this vector alone, so most of the last layer is not computed
# A query with every probe; and one longer than any window, with a short and a long text.
PAIRS = ((PROBES[1], PROBES), (PROBES[2], (PROBES[0], PROBES[2])))


class FastCrossEncoder:
    """Computes a cross-encoder of a family that this package knows.

    Args:
        description: What `resolve_cross_encoder` returned.
        computing: Where and in which precision.

    Attributes:
        fingerprint: Names the weights and this package's way of computing them.

    Raises:
        InvalidConfig, MissingDependency: As `environment.gpu`.
        UnsupportedModel: Only the reference can compute it; says why.
        ModelError: A tensor is missing, has another shape, or a file is damaged.
    """

    def __init__(self, description: CrossDescription, computing: Computing) -> None:
        """Map the weights; a GPU is given them, and compared on the probes."""
        self.description = description
        if description.cuts != "right":
            raise UnsupportedModel(f"its tokenizer cuts a text from the {description.cuts}")
        network = read_network(description)
        architecture = network.architecture
        self.fingerprint = network.fingerprint
        self._pairs = PairTokenizer(description.load_tokenizer(), description.window)
        self._with_types = architecture.types > 0 and description.marks
        if self._with_types and self._pairs.highest_type >= architecture.types:
            raise UnsupportedModel(
                f"its tokenizer marks more texts than its {architecture.types} token types"
            )
        self._head = read_head(architecture, description.transformer, description.name)
        self._runtimes = Runtimes(
            network, computing, probes=lambda: self._sequences(*PAIRS[0]), modes=_MODES
        )

    @property
    def is_on_cpu(self) -> bool:
        """Return whether it computes on the CPU, also because a GPU gave way."""
        return self._runtimes.is_on_cpu

    @property
    def precision(self) -> str:
        """Return the precision that pairs are computed in."""
        return self._runtimes.bulk.precision

    def logits(self, query: str, texts: Sequence[str]) -> Array:
        """Return the network's output for each pair, float32 `(n,)`."""
        return self._through(self._runtimes.bulk, query, texts)

    def exact_logits(self, query: str, texts: Sequence[str]) -> Array:
        """Return the network's output in float32, whatever the precision, float32 `(n,)`."""
        return self._through(self._runtimes.exact, query, texts)

    def _through(self, runtime: Runtime, query: str, texts: Sequence[str]) -> Array:
        sequences = self._sequences(query, texts)
        return self._head.logits(runtime.pooled(sequences, _MODES))

    def _sequences(self, query: str, texts: Sequence[str]) -> Sequences:
        asked = self.description.prompt + query
        return self._pairs.sequences(asked, texts, with_types=self._with_types)

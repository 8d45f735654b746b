"""The fast path of a bi-encoder: tokenizer, network, pooling and dense layers in one.

Owns the steps from texts to vectors for models that this package computes itself. Whether they are
used is decided by `acceptance.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from retriever.encoders import acceptance
from retriever.encoders.checkpoint.resolve import ModelDescription
from retriever.encoders.computing import Computing
from retriever.encoders.forward import blas
from retriever.encoders.forward.batching import Sequences
from retriever.encoders.forward.pooling import read_pooling
from retriever.encoders.forward.prefetch import prefetched
from retriever.encoders.forward.runtime import Runtime, Runtimes
from retriever.encoders.forward.transformer import read_network
from retriever.encoders.tokenization import HuggingFaceTokenizer
from retriever.errors import InvalidDocument

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

_BLOCK = 262_144  # characters that are tokenized at a time ahead of a GPU: some 65,000 tokens


class FastBiEncoder:
    """Computes a model whose family, pooling and modules this package knows.

    Args:
        description: What `resolve_model` returned.
        tokenizer: Its tokenizer.
        computing: Where and in which precision.

    Attributes:
        fingerprint: Names the weights and this package's way of computing them.

    Raises:
        InvalidConfig, MissingDependency: As `environment.gpu`.
        UnsupportedModel: Only the reference can compute it; says why.
        ModelError: A tensor is missing, has another shape, or a file is damaged.
    """

    def __init__(
        self,
        description: ModelDescription,
        tokenizer: HuggingFaceTokenizer,
        computing: Computing,
    ) -> None:
        """Map the weights; a GPU is given them, and compared on the probes."""
        self.description = description
        self._tokenizer = tokenizer
        self._threads = computing.threads
        self._pooling = read_pooling(description)
        network = read_network(description)
        self.fingerprint = network.fingerprint
        self._runtimes = Runtimes(
            network,
            computing,
            probes=lambda: self._sequences(self.probes(), "document"),
            modes=self._pooling.modes,
            warms_up=True,
        )

    @property
    def precision(self) -> str:
        """Return the precision that documents are computed in."""
        return self._runtimes.bulk.precision

    @property
    def is_on_cpu(self) -> bool:
        """Return whether it computes on the CPU, also because a GPU gave way."""
        return self._runtimes.is_on_cpu

    def probes(self) -> list[str]:
        """Return the probe texts in which the model sees a token."""
        return [text for text in acceptance.PROBES if self._tokenizer.token_ids(text)]

    def end_warm_up(self) -> None:
        """Compute documents in the precision asked for from now on, even a single one."""
        self._runtimes.end_warm_up()

    def encode(self, texts: Sequence[str], role: str) -> Array:
        """Return the model's vectors, float32 `(n, dimension)`, not yet of unit length.

        Args:
            texts: Any number; those beyond the window are truncated.
            role: `query` or `document`, for the prompt.

        Raises:
            InvalidDocument: A text has no tokens.
        """
        runtime = self._for(role)
        blocks = [] if self.is_on_cpu else self._blocks(texts)
        if len(blocks) < 2:
            return self._through(runtime, texts, role)
        # The GPU computes a block of texts while the next one is tokenized.
        tokenized = prefetched(
            lambda block: self._sequences(texts[block.start : block.stop], role, block.start),
            blocks,
        )
        with closing(tokenized):
            pooled = [runtime.pooled(block, self._pooling.modes) for block in tokenized]
        with blas.at_most(self._threads):
            return self._pooling.apply(np.concatenate(pooled))

    def encode_token_ids(self, ids: Sequence[NDArray[np.int32]]) -> Array:
        """Return what `encode` gives for documents of which the token ids are known.

        Args:
            ids: Of each text, int32 `(tokens,)`, without special tokens and without a prompt; those
                beyond the window are left out.

        Raises:
            InvalidDocument: A text has no tokens.
        """
        whole = self._tokenizer.with_special(ids, self.description.window)
        pooled = self._runtimes.bulk.pooled(_as_sequences(whole), self._pooling.modes)
        with blas.at_most(self._threads):
            return self._pooling.apply(pooled)

    def encode_exactly(self, texts: Sequence[str], role: str) -> Array:
        """Return the vectors in float32, the same on any device; see `encode`."""
        return self._through(self._runtimes.exact, texts, role)

    def token_vectors(self, texts: Sequence[str], role: str) -> list[Array]:
        """Return the last layer's vectors of each text's tokens, float32 `(tokens, hidden)`.

        Raises:
            InvalidDocument: A text has no tokens.
        """
        return self._for(role).token_vectors(self._sequences(texts, role))

    def _for(self, role: str) -> Runtime:
        return self._runtimes.queries if role == "query" else self._runtimes.bulk

    def _blocks(self, texts: Sequence[str]) -> list[range]:
        """Return ranges of texts with about as many characters each as are worth a batch."""
        ends = np.cumsum([len(text) + 1 for text in texts])
        # A block ends where the running count passes a multiple of `_BLOCK`. The -1 that is
        # appended differs from every quotient, so that the last text ends a block too.
        last = np.flatnonzero(np.diff(ends // _BLOCK, append=-1)) + 1
        return [range(start, stop) for start, stop in pairwise([0, *last.tolist()])]

    def _through(self, runtime: Runtime, texts: Sequence[str], role: str) -> Array:
        sequences = self._sequences(texts, role)
        pooled = runtime.pooled(sequences, self._pooling.modes)
        with blas.at_most(self._threads):
            return self._pooling.apply(pooled)

    def _sequences(self, texts: Sequence[str], role: str, first: int = 0) -> Sequences:
        prompt = self.description.prompts[role]
        whole = [prompt + text for text in texts] if prompt else texts
        return _as_sequences(self._tokenizer.ids(whole, self.description.window), first)


def _as_sequences(ids: Sequence[NDArray[np.int32]], first: int = 0) -> Sequences:
    """Return token ids, special tokens included, as a runtime takes them."""
    for position, one in enumerate(ids, first):
        if not len(one):
            raise InvalidDocument(
                f"Text {position} has no direction: the model sees no token in it.",
                hint="Leave it out.",
            )
    return Sequences(ids)

"""A bi-encoder computed by this package: tokenizer, network, pooling and dense layers in one.

Owns the way from text to a vector where no other library is needed. Whether it may be believed is
`acceptance.py`'s to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from retriever.encoders import acceptance
from retriever.encoders.checkpoint.architecture import read_architecture
from retriever.encoders.checkpoint.json_files import read_config
from retriever.encoders.checkpoint.resolve import ModelDescription
from retriever.encoders.computing import Computing
from retriever.encoders.forward import blas
from retriever.encoders.forward.batching import Sequences
from retriever.encoders.forward.numpy_runtime import NumpyRuntime
from retriever.encoders.forward.pooling import read_finish
from retriever.encoders.forward.prefetch import ahead
from retriever.encoders.forward.runtime import CpuRuntime, Runtime, choose_runtime
from retriever.encoders.forward.transformer import fingerprint, load_network
from retriever.encoders.tokenization import HuggingFaceTokenizer
from retriever.errors import InvalidDocument

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

_BLOCK = 262_144  # characters that are tokenized at once ahead of a GPU, some 65,000 tokens


class FastPath:
    """Computes a model whose family, pooling and modules this package knows.

    Args:
        description: What `resolve_model` returned.
        tokenizer: Its tokenizer.
        computing: Where and in which numbers.

    Raises:
        InvalidConfig, MissingDependency: As `devices.gpu`.
        UnsupportedModel: Only the reference can compute it; says why.
        ModelError: A tensor is missing, has another shape, or a file is damaged.
    """

    def __init__(
        self,
        description: ModelDescription,
        tokenizer: HuggingFaceTokenizer,
        computing: Computing,
    ) -> None:
        """Map the weights; a GPU is given them, and tried on a few probes."""
        self.description = description
        self._tokenizer = tokenizer
        self._finish = read_finish(description)
        architecture = read_architecture(read_config(description.transformer))
        network = load_network(architecture, description.transformer, description.name)
        self._numpy = NumpyRuntime(network, computing.threads)
        self._threads = computing.threads
        self._runtime = choose_runtime(
            network,
            self._numpy,
            computing=computing,
            key=fingerprint(description.identity),
            probes=lambda: self._sequences(self.probes(), "document"),
            modes=self._finish.modes,
            is_mixed=True,
        )
        self._asking: Runtime = self._runtime
        if isinstance(self._runtime, CpuRuntime):
            self._asking = self._runtime.for_questions()

    @property
    def precision(self) -> str:
        """Return what it computes documents in."""
        return self._runtime.precision

    @property
    def is_on_cpu(self) -> bool:
        """Return whether it computes on the CPU, as also where a GPU gave way to it."""
        return isinstance(self._runtime, CpuRuntime)

    def probes(self) -> list[str]:
        """Return the probe texts in which the model sees a token."""
        return [text for text in acceptance.PROBES if self._tokenizer.token_ids(text)]

    def settle(self) -> None:
        """Compute documents in the precision asked for from now on, were it a single one."""
        if isinstance(self._runtime, CpuRuntime):
            self._runtime.settle()

    def encode(self, texts: Sequence[str], role: str) -> Array:
        """Return the model's vectors, float32 `(n, dimension)`, not yet of unit length.

        Args:
            texts: Any number; what lies beyond the window is cut off.
            role: `query` or `document`, for the prompt.

        Raises:
            InvalidDocument: A text has no tokens.
        """
        runtime = self._for(role)
        blocks = [] if self.is_on_cpu else self._blocks(texts)
        if len(blocks) < 2:
            return self._through(runtime, texts, role)
        # The GPU computes a block of texts while the next one is tokenized.
        tokenized = ahead(
            lambda block: self._sequences(texts[block.start : block.stop], role, block.start),
            blocks,
        )
        with closing(tokenized):
            pooled = [runtime.pooled(block, self._finish.modes) for block in tokenized]
        return self._finish.apply(np.concatenate(pooled))

    def encode_token_ids(self, ids: Sequence[NDArray[np.int32]]) -> Array:
        """Return what `encode` gives for documents of which the token ids are known.

        Args:
            ids: Of each text, int32 `(tokens,)`, without special tokens and without a prompt; what
                lies beyond the window is cut off.

        Raises:
            InvalidDocument: A text has no tokens.
        """
        whole = self._tokenizer.with_special(ids, self.description.window)
        pooled = self._runtime.pooled(_as_sequences(whole), self._finish.modes)
        with blas.at_most(self._threads):
            return self._finish.apply(pooled)

    def encode_exactly(self, texts: Sequence[str], role: str) -> Array:
        """Return the vectors in float32, the same on any device; see `encode`."""
        return self._through(self._numpy, texts, role)

    def token_vectors(self, texts: Sequence[str], role: str) -> list[Array]:
        """Return the last layer's vectors of each text's tokens, float32 `(tokens, hidden)`.

        Raises:
            InvalidDocument: A text has no tokens.
        """
        return self._for(role).token_vectors(self._sequences(texts, role))

    def _for(self, role: str) -> Runtime:
        return self._asking if role == "query" else self._runtime

    def _blocks(self, texts: Sequence[str]) -> list[range]:
        """Return ranges of texts of about as many characters as are worth a batch."""
        ends = np.cumsum([len(text) + 1 for text in texts])
        last = np.flatnonzero(np.diff(ends // _BLOCK, append=-1)) + 1
        return [range(start, stop) for start, stop in pairwise([0, *last.tolist()])]

    def _through(self, runtime: Runtime | NumpyRuntime, texts: Sequence[str], role: str) -> Array:
        sequences = self._sequences(texts, role)
        pooled = runtime.pooled(sequences, self._finish.modes)
        with blas.at_most(self._threads):
            return self._finish.apply(pooled)

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

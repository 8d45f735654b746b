"""What an encoder and a reranker are to the rest of the package.

Anything with these attributes and methods is one; nothing need be inherited. The package's own are
in `bi_encoder.py` and `cross_encoder.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """The tokens of one text, without special tokens.

    Attributes:
        starts: Character offset at which each token begins, int32 `(n,)`.
        ends: Character offset after each token, int32 `(n,)`.
        unknown: Whether the vocabulary lacks the token, bool `(n,)`.
    """

    starts: NDArray[np.int32]
    ends: NDArray[np.int32]
    unknown: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.starts)


@runtime_checkable
class Tokenizer(Protocol):
    """Text to tokens: never truncated, never padded, special tokens left out."""

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of each text, in order."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """Text to vectors.

    Adding to an index encodes documents in a thread of its own, one call at a time; the tokenizer
    is used, and queries are encoded, in the threads of the callers, perhaps meanwhile.

    Attributes:
        identity: What makes two encoders the same: a JSON object. Equal identities promise equal
            vectors. `name` is for people and is not compared.
        dimension: Length of a vector.
        max_tokens: Tokens of a document's text that one vector covers: the model's window less
            special tokens and the document prompt.
        tokenizer: The tokenizer whose tokens `max_tokens` counts.
    """

    @property
    def identity(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def dimension(self) -> int: ...  # noqa: D102
    @property
    def max_tokens(self) -> int: ...  # noqa: D102
    @property
    def tokenizer(self) -> Tokenizer: ...  # noqa: D102

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of `texts`, float32 `(n, dimension)`, unit length."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of `texts` as queries, float32 `(n, dimension)`."""
        ...


@runtime_checkable
class Reranker(Protocol):
    """A query and texts to scores."""

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return how well each text answers the query, float32 `(n,)`; higher is better."""
        ...

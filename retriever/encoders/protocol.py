"""The protocols of an encoder, its tokenizer and a reranker.

Any object with these attributes and methods is one; nothing need be inherited. `Encoder`,
`Tokenizer` and `Reranker` are required; the protocols after them are optional. No other attribute
of an object that a caller passes in is read. The package's own encoders are in `bi_encoder.py` and
`cross_encoder.py`; `plugged.py` checks those of callers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """The tokens of one text, without special tokens.

    Attributes:
        starts: Character offset at which each token begins, int32 `(n,)`, ascending.
        ends: Character offset after each token, int32 `(n,)`, at most the length of the text.
        unknown: Whether the vocabulary lacks the token, bool `(n,)`.
        ids: The tokens' numbers in the vocabulary, int32 `(n,)`. Only the package's own tokenizer
            gives them, and only the package's own encoder uses them; others leave None.
    """

    starts: NDArray[np.int32]
    ends: NDArray[np.int32]
    unknown: NDArray[np.bool_]
    ids: NDArray[np.int32] | None = None

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

    Documents are encoded in a background thread, one call at a time. The tokenizer is used, and
    queries are encoded, in the threads of the callers, perhaps at the same time.

    What a method raises, and what it returns against this description, becomes a `ModelError`. A
    text that fails by itself, while others do not, is left out and reported.

    Attributes:
        identity: What makes two encoders the same: a JSON object. Equal identities promise equal
            vectors. `name`, a string, is for people and is not compared. Tuples and NumPy numbers
            are taken as the lists and numbers that they stand for.
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

    def encode_documents(self, texts: Sequence[str]) -> ArrayLike:
        """Return the embeddings of `texts`, `(n, dimension)`.

        Rows of any length but zero, in any floating point type; they are scaled to unit length and
        stored as float32.
        """
        ...

    def encode_queries(self, texts: Sequence[str]) -> ArrayLike:
        """Return the embeddings of `texts` as queries, `(n, dimension)`, likewise."""
        ...


@runtime_checkable
class Reranker(Protocol):
    """A query and texts to scores."""

    def score(self, query: str, texts: Sequence[str]) -> ArrayLike:
        """Return how well each text answers the query, finite, `(n,)`; higher is better."""
        ...


# ---- optional


@runtime_checkable
class CountsTokens(Protocol):
    """A tokenizer that counts tokens faster than it tokenises, since counting needs no offsets."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, as `tokenize` would find them."""
        ...


@runtime_checkable
class HasTokenIds(Protocol):
    """A tokenizer whose tokens are numbers in a vocabulary, which its encoder can start from."""

    def bare_ids(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the token ids of each text, int32 `(n,)`, without special tokens.

        They are those of the tokens that `tokenize` finds in the same text.
        """
        ...


@runtime_checkable
class HasCacheKey(Protocol):
    """An encoder that need not be compared with the canaries of an index at every opening.

    Attributes:
        cache_key: A string that is equal only where the embeddings are: it names the weights, the
            versions of what computes them, the precision and the hardware.
    """

    @property
    def cache_key(self) -> str: ...  # noqa: D102


@runtime_checkable
class HasPrecision(Protocol):
    """An encoder that may compute in less than float32; it has all of these or none.

    Attributes:
        precision: The precision that it computes in: `float32`, `bfloat16`, `float16` or `int8`.
            The index records it.
        is_automatic: Whether nobody named the precision, so that float32 may take its place if it
            turns out not to be exact enough.
    """

    @property
    def precision(self) -> str: ...  # noqa: D102
    @property
    def is_automatic(self) -> bool: ...  # noqa: D102

    def in_float32(self) -> Encoder:
        """Return the same encoder in float32."""
        ...

    def encode_exactly(self, texts: Sequence[str]) -> ArrayLike:
        """Return what `encode_documents` returns, computed in float32."""
        ...


@runtime_checkable
class HasName(Protocol):
    """A reranker with a name for people, shown in `results.plan`."""

    @property
    def name(self) -> str: ...  # noqa: D102

"""The encoder that the package works with, whose results are checked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.encoders.protocol import Encoder, Tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Tokenized(NamedTuple):
    """A text and, where the chunker has found them, its token ids.

    Attributes:
        text: What is to be encoded.
        ids: The ids of exactly this text, without special tokens, int32 `(n,)`, or None.
    """

    text: str
    ids: NDArray[np.int32] | None = None


class CheckedEncoder(ABC):
    """An encoder whose vectors are float32, finite, never zero, and as many as the texts.

    The package's own encoders are of this class; those of callers are wrapped in a subclass of it,
    `PluggedEncoder`. What is optional in `protocol.py` has a default here, so that no other module
    asks what an encoder can do.
    """

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Return what makes two encoders the same, a JSON object."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Return the length of a vector."""

    @property
    @abstractmethod
    def max_tokens(self) -> int:
        """Return how many tokens of a document's text one vector covers."""

    @property
    def max_query_tokens(self) -> int:
        """Return how many tokens of a query's text one vector covers."""
        return self.max_tokens

    def reads_whole(self, question: str) -> bool:
        """Return whether a query is certain to fit the window and to have no unknown token.

        If it is not certain, the caller tokenises the query.
        """
        return False

    @property
    @abstractmethod
    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer whose tokens `max_tokens` counts."""

    @abstractmethod
    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of documents, float32 `(n, dimension)`."""

    def encode_tokenized(self, texts: Sequence[Tokenized]) -> NDArray[np.float32]:
        """Return what `encode_documents` gives for texts whose token ids may be known already.

        An encoder that cannot start from token ids tokenises the texts.
        """
        return self.encode_documents([one.text for one in texts])

    @abstractmethod
    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of queries, float32 `(n, dimension)`."""

    @property
    def precision(self) -> str | None:
        """Return the precision of vectors; None if the encoder does not say, meaning float32."""
        return None

    @property
    def is_automatic(self) -> bool:
        """Return whether float32 may take the place of the precision, which nobody named."""
        return False

    @property
    def cache_key(self) -> str | None:
        """Return a string that is equal only where vectors are; None if there is none."""
        return None

    def in_float32(self) -> CheckedEncoder:
        """Return this encoder in float32."""
        return self

    def end_warm_up(self) -> None:  # noqa: B027 - most encoders have none
        """Compute all documents in one precision from now on, even a single one."""

    def encode_exactly(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of documents in float32."""
        return self.encode_documents(texts)


def name_of(encoder: CheckedEncoder | Encoder) -> str:
    """Return the name of an encoder, for messages."""
    return str(encoder.identity.get("name") or "the encoder")

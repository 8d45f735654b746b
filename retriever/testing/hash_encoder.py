"""An encoder that needs no model: a bag of hashed words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.encoders.protocol import Tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TOKEN = re.compile(r"\w+|[^\w\s]")
_LONGEST_WORD = 100


class WordTokenizer:
    """Splits text into words and single punctuation marks.

    A word of over 100 characters is marked as unknown, so that texts which no vocabulary covers
    can be tested as well.
    """

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of each text, with their character offsets."""
        return [self._tokenize(text) for text in texts]

    def _tokenize(self, text: str) -> Tokens:
        spans = np.array([match.span() for match in _TOKEN.finditer(text)], np.int32).reshape(-1, 2)
        starts, ends = np.ascontiguousarray(spans[:, 0]), np.ascontiguousarray(spans[:, 1])
        return Tokens(starts, ends, ends - starts > _LONGEST_WORD)


class HashEncoder:
    """A bag of hashed words as unit vectors: deterministic, fast and never zero.

    Each of the first `max_tokens` words of a text, in lower case, adds 1 to the coordinate that
    its hash selects (feature hashing, Weinberger et al. 2009, without signs). Texts that share
    words are therefore similar, and equal texts are equal on every machine. Meant for tests: pass
    one as `model=` to work with an index without loading a model.

    Args:
        dimension: Length of a vector.
        max_tokens: The window; later tokens of a text do not change its vector.
        name: For people; not compared.
        salt: Encoders with different salts have different identities and vectors.

    Attributes:
        encoded: Every text passed to `encode_documents`, in order. A test can look here what was
            encoded; it grows for as long as the encoder is used.
    """

    def __init__(
        self, dimension: int = 32, max_tokens: int = 32, name: str = "hash", salt: str = ""
    ) -> None:
        self.dimension = dimension
        self.max_tokens = max_tokens
        self.name = name
        self.salt = salt
        self.tokenizer = WordTokenizer()
        self.encoded: list[str] = []

    @property
    def identity(self) -> dict[str, Any]:
        """Return what determines the vectors, under the keys that the package's encoders use."""
        return {
            "name": self.name,
            "weights": hashlib.sha256(f"hash {self.salt}".encode()).hexdigest(),
            "tokenizer": hashlib.sha256(_TOKEN.pattern.encode()).hexdigest(),
            "pooling": "mean",
            "normalize": True,
            "dense": [],
            "prompts": {"query": "", "document": ""},
            "max_tokens": self.max_tokens,
            "dimension": self.dimension,
        }

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one unit vector per text, float32 `(n, dimension)`; add the texts to `encoded`."""
        self.encoded.extend(texts)
        return self._encode(texts)

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one unit vector per text, float32 `(n, dimension)`."""
        return self._encode(texts)

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), self.dimension))
        vectors[:, 0] = 0.25  # so that a text without words has a direction, too
        for row, text in enumerate(texts):
            for word in _TOKEN.findall(text)[: self.max_tokens]:
                vectors[row, bucket_of(self.salt, word.lower(), self.dimension)] += 1.0
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / lengths, dtype=np.float32)


@lru_cache(maxsize=1 << 16)
def bucket_of(salt: str, word: str, dimension: int) -> int:
    """Return the coordinate that a word adds to."""
    digest = hashlib.blake2b(f"{salt}\0{word}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % dimension

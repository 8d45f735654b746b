"""What the tests share: a small real encoder, and an exact search to compare with."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from retriever.encoders.protocol import Tokens

_TOKEN = re.compile(r"\w+|[^\w\s]")
_LONGEST_WORD = 100


class WordTokenizer:
    """Words and single punctuation marks; a word of over 100 characters is unknown."""

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of each text, with their offsets."""
        return [self._tokenize(text) for text in texts]

    def _tokenize(self, text: str) -> Tokens:
        spans = np.array([match.span() for match in _TOKEN.finditer(text)], np.int32).reshape(-1, 2)
        starts, ends = np.ascontiguousarray(spans[:, 0]), np.ascontiguousarray(spans[:, 1])
        return Tokens(starts, ends, ends - starts > _LONGEST_WORD)


class HashEncoder:
    """A bag of hashed words: deterministic, quick, and never a zero vector.

    Args:
        dimension: Length of a vector.
        max_tokens: The window; later tokens of a text are not seen.
        name: For people; not compared.
        salt: Another salt is another model, with other vectors.
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
        """Return what makes two of these the same, under the names the real encoders use."""
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

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """Return one unit vector a text, and remember the texts in `encoded`."""
        self.encoded.extend(texts)
        return self._encode(texts)

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """Return one unit vector a text."""
        return self._encode(texts)

    def _encode(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.zeros((len(texts), self.dimension))
        vectors[:, 0] = 0.25
        for row, text in enumerate(texts):
            for word in _TOKEN.findall(text)[: self.max_tokens]:
                vectors[row, _bucket(self.salt, word.lower(), self.dimension)] += 1.0
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@lru_cache(maxsize=1 << 16)
def _bucket(salt: str, word: str, dimension: int) -> int:
    digest = hashlib.blake2b(f"{salt}\0{word}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % dimension


def exact_search(
    vectors: Iterable[np.ndarray], query: np.ndarray, k: int
) -> list[tuple[int, float]]:
    """Return positions and float64 cosines of the k best vectors; ties in order of position."""
    scores = [float(np.clip((v.astype(float) * query.astype(float)).sum(), -1, 1)) for v in vectors]
    order = sorted(range(len(scores)), key=lambda position: (-scores[position], position))
    return [(position, scores[position]) for position in order[:k]]


def unit_vectors(count: int, dimension: int, seed: int) -> np.ndarray:
    """Return random vectors of unit length, float32 `(count, dimension)`."""
    vectors = np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

"""A program as users write it. `test_typing.py` has mypy check it; it is never run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retriever import (
    Chunk,
    CountsTokens,
    Document,
    Encoder,
    HasCacheKey,
    Hit,
    Index,
    IngestReport,
    Metadata,
    Progress,
    ProgressCallback,
    Reranker,
    Results,
    Tokens,
    Vector,
)


class Words:
    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        empty = np.empty(0, np.int32)
        return [Tokens(empty, empty, np.empty(0, np.bool_)) for _ in texts]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [0 for _ in texts]


class WithAttributes:
    dimension = 8
    max_tokens = 16
    cache_key = "a"

    def __init__(self) -> None:
        self.identity: Mapping[str, Any] = {"name": "mine"}
        self.tokenizer = Words()

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.ones((len(texts), 8), np.float32)

    def encode_queries(self, texts: Sequence[str]) -> list[list[float]]:
        return [[1.0] * 8 for _ in texts]


class Shortest:
    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        return [-float(len(text)) for text in texts]


encoder: Encoder = WithAttributes()
cached: HasCacheKey = WithAttributes()
counting: CountsTokens = Words()
reranker: Reranker = Shortest()
vector: Vector = np.ones(8, np.float32)
metadata: Metadata = {"year": 2024}


def told(progress: Progress) -> None:
    assert progress.done >= 0


callback: ProgressCallback = told

with Index.open(Path("~/a.index"), model=encoder, lock_timeout_s=None) as index:
    report: IngestReport = index.add(
        [
            Document("a", embedding=[0.1, 0.2]),
            Document("b", embedding=np.ones(8)),
            Document("c", embedding=np.ones(8, np.float16), metadata=metadata),
            Document("d", embedding=vector),
            {"text": "e"},
            "f",
        ],
        progress=callback,
    )
    results: Results = index.search("x", rerank=reranker)
    results = index.search(vector=[0.1] * 8)
    first: Hit = results[0]
    pair: tuple[Hit, ...] = results[:2]
    chunks: list[Chunk] = index.chunks("a")

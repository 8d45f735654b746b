"""Helpers for testing encoders, rerankers and code that uses an index.

`check_encoder` and `check_reranker` are for authors of encoders and adapters: they raise an error
that names what breaks the protocol and how to mend it. `HashEncoder` is an encoder without a model,
and `exact_search` gives the results that a search must have. None of it needs pytest, a network or
PyTorch.
"""

from __future__ import annotations

from retriever.testing.checks import check_encoder, check_reranker
from retriever.testing.exact import exact_search, unit_vectors
from retriever.testing.hash_encoder import HashEncoder, WordTokenizer

__all__ = [
    "HashEncoder",
    "WordTokenizer",
    "check_encoder",
    "check_reranker",
    "exact_search",
    "unit_vectors",
]

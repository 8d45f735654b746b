"""Helpers for testing code that uses this package: an encoder without a model, and exact answers.

Nothing here needs a model, a network or pytest.
"""

from __future__ import annotations

from retriever.testing.exact import exact_search, unit_vectors
from retriever.testing.hash_encoder import HashEncoder, WordTokenizer

__all__ = ["HashEncoder", "WordTokenizer", "exact_search", "unit_vectors"]

"""A query and texts to the token ids of pairs, as a cross-encoder gets them.

Owns where special tokens go in a pair, and how a pair that is too long is truncated. Must not know
models or what is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from retriever.encoders.checkpoint.architecture import UnsupportedModel
from retriever.encoders.forward.batching import Sequences
from retriever.encoders.tokenization import HuggingFaceTokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ids = NDArray[np.int32]

_PROBES = ("a", "b")


class PairTokenizer:
    """Composes pairs of token ids, so that a query is tokenised once for all its texts.

    Args:
        tokenizer: The model's.
        window: The most tokens of a pair, special tokens included.

    Raises:
        UnsupportedModel: The tokenizer composes pairs in a way that is not known here.
    """

    def __init__(self, tokenizer: HuggingFaceTokenizer, window: int) -> None:
        """Learn from a probe where the tokenizer puts special tokens and which types it gives."""
        self._tokenizer = tokenizer
        pair = tokenizer.compose_pair(*_PROBES)
        origins = [origin for _, _, origin in pair]
        if not {0, 1} <= set(origins):
            raise UnsupportedModel(f"its tokenizer finds no token in one of {_PROBES}")
        first, second = origins.index(0), origins.index(1)
        # The ids between the special tokens must be those of each text by itself: only then can a
        # query be tokenised once and put before every text.
        first_end, second_end = first + origins.count(0), second + origins.count(1)
        bare = tokenizer.bare_ids(_PROBES)
        ids = [token for token, _, _ in pair]
        if not first or [ids[first:first_end], ids[second:second_end]] != bare:
            raise UnsupportedModel(f"its tokenizer composes a pair as {origins}")
        self._before, self._between, self._after = (
            np.array([token[:2] for token in part], np.int32).reshape(-1, 2).T
            for part in (pair[:first], pair[first_end:second], pair[second_end:])
        )
        self._types = pair[first][1], pair[second][1]
        self.highest_type = max(token_type for _, token_type, _ in pair)
        self._capacity = window - sum(origin is None for origin in origins)
        if self._capacity < 1:
            raise UnsupportedModel(f"its window of {window} tokens holds no text")

    def sequences(self, query: str, texts: Sequence[str], *, with_types: bool) -> Sequences:
        """Return the pairs of one query and each text, in order.

        Args:
            query: Put first.
            texts: Put second.
            with_types: Whether to return which of the two each token belongs to.

        Raises:
            InvalidDocument: One is not a string that has a UTF-8 form.
        """
        (asked,) = self._ids([query])
        ids: list[Ids] = []
        types: list[Ids] = []
        for text in self._ids(texts):
            first, second = longest_first(len(asked), len(text), self._capacity)
            parts = (self._before[0], asked[:first], self._between[0], text[:second])
            ids.append(np.concatenate([*parts, self._after[0]]))
            if with_types:
                types.append(self._types_of(first, second))
        return Sequences(ids, types if with_types else None)

    def _ids(self, texts: Sequence[str]) -> list[Ids]:
        return self._tokenizer.bare_ids(texts)

    def _types_of(self, first: int, second: int) -> Ids:
        of_query, of_text = (
            np.full(length, token_type, np.int32)
            for length, token_type in zip((first, second), self._types, strict=True)
        )
        return np.concatenate(
            [self._before[1], of_query, self._between[1], of_text, self._after[1]]
        )


def longest_first(first: int, second: int, capacity: int) -> tuple[int, int]:
    """Return how many tokens of each half are kept, as `longest_first` of transformers truncates.

    The longer half is truncated to the length of the shorter one, then both to half the capacity;
    of an odd capacity the longer half gets the extra token.
    """
    if first + second <= capacity:
        return first, second
    shorter = min(first, second)
    kept = shorter if shorter <= capacity - shorter else capacity // 2
    return (kept, capacity - kept) if first <= second else (capacity - kept, kept)

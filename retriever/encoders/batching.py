"""Token ids in batches: sorted by length, under a budget of tokens, with little padding or none.

Owns the order in which texts are computed and the arrays that a runtime is given. Must not know
texts, models or runtimes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Sequences:
    """Texts, or pairs of texts, as a model gets them: special tokens included, none padded.

    Attributes:
        ids: Token ids of each, int32 `(tokens,)`, at least one.
        types: Where there are pairs: which of the two each token belongs to, int32 `(tokens,)`.
    """

    ids: Sequence[NDArray[np.int32]]
    types: Sequence[NDArray[np.int32]] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Return the number of tokens of each."""
        return np.fromiter(map(len, self.ids), np.int64, len(self.ids))


@dataclass(frozen=True, slots=True, eq=False)
class Padded:
    """One batch.

    Attributes:
        ids: int32 `(texts, longest)`, zero beyond a text's end.
        positions: Rows of the position embeddings, int32 `(texts, longest)`.
        types: Rows of the type embeddings, int32 `(texts, longest)`.
        lengths: int32 `(texts,)`.
    """

    ids: NDArray[np.int32]
    positions: NDArray[np.int32]
    types: NDArray[np.int32]
    lengths: NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """One batch, its texts one after the other and nothing between them.

    Attributes:
        ids: int32 `(tokens,)`.
        positions: Rows of the position embeddings, int32 `(tokens,)`.
        types: Rows of the type embeddings, int32 `(tokens,)`; None where all are 0.
        starts: Where each text begins and, last, where the last one ends, int32 `(texts + 1,)`.
        longest: Tokens of the longest text.
    """

    ids: NDArray[np.int32]
    positions: NDArray[np.int32]
    types: NDArray[np.int32] | None
    starts: NDArray[np.int32]
    longest: int


def plan(lengths: NDArray[np.int64], budget: int, multiple: int = 1) -> list[NDArray[np.int64]]:
    """Return which texts go together: longest first, so that memory runs out at once if at all.

    Args:
        lengths: Tokens of each text.
        budget: The most tokens of a batch, padding included; a longer text goes alone.
        multiple: Widths are rounded up to a multiple of this.
    """
    order = np.argsort(-lengths, kind="stable")
    widths = -(-lengths[order] // multiple) * multiple
    batches = []
    start = 0
    while start < len(order):
        end = start + max(1, budget // max(1, int(widths[start])))
        batches.append(order[start:end])
        start = end
    return batches


def pad(
    sequences: Sequences,
    members: NDArray[np.int64],
    *,
    multiple: int,
    longest: int,
    padding: int | None,
) -> Padded:
    """Return the batch of some sequences.

    Args:
        sequences: All of them.
        members: Which are in the batch.
        multiple: The width is rounded up to a multiple of this.
        longest: But not beyond this.
        padding: As `Architecture.padding`.
    """
    lengths = np.array([len(sequences.ids[member]) for member in members], np.int32)
    most = int(lengths.max())
    width = max(most, min(-(-most // multiple) * multiple, longest))
    ids = np.zeros((len(members), width), np.int32)
    types = np.zeros((len(members), width), np.int32)
    for row, member in enumerate(members):
        ids[row, : lengths[row]] = sequences.ids[member]
        if sequences.types is not None:
            types[row, : lengths[row]] = sequences.types[member]
    return Padded(ids, positions_of(ids, padding), types, lengths)


def pack(sequences: Sequences, members: NDArray[np.int64], *, padding: int | None) -> Packed:
    """Return the batch of some sequences.

    Args:
        sequences: All of them.
        members: Which are in the batch.
        padding: As `Architecture.padding`.
    """
    texts = [sequences.ids[member] for member in members]
    lengths = np.fromiter(map(len, texts), np.int32, len(texts))
    starts = np.zeros(len(texts) + 1, np.int32)
    np.cumsum(lengths, out=starts[1:])
    ids = np.concatenate(texts).astype(np.int32, copy=False)
    types = None
    if sequences.types is not None:
        types = np.concatenate([sequences.types[member] for member in members])
    if padding is None:
        positions = np.arange(len(ids), dtype=np.int32) - np.repeat(starts[:-1], lengths)
    else:
        counted = ids != padding
        total = np.cumsum(counted, dtype=np.int32)
        before = total[starts[:-1]] - counted[starts[:-1]]
        positions = ((total - np.repeat(before, lengths)) * counted + padding).astype(np.int32)
    return Packed(ids, positions, types, starts, int(lengths.max()))


def positions_of(ids: NDArray[np.int32], padding: int | None) -> NDArray[np.int32]:
    """Return the rows of the position embeddings of each row of ids, int32 of the same shape."""
    if padding is None:
        return np.ascontiguousarray(
            np.broadcast_to(np.arange(ids.shape[-1], dtype=np.int32), ids.shape)
        )
    counted = ids != padding
    return (np.cumsum(counted, axis=-1, dtype=np.int32) * counted + padding).astype(np.int32)

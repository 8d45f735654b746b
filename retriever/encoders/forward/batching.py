"""Token ids in batches: sorted by length, under a budget of tokens, with little padding or none.

Owns the order in which texts are computed and the arrays that a runtime is given. Must not know
texts, models or runtimes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from retriever.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

ResultT = TypeVar("ResultT")
_ALIKE = 7 / 8  # of the longest text of a batch
_WORTH = 256  # tokens: fewer are computed no faster


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

    A batch ends where its budget does; or, once it is large enough to be worth the call, where
    texts are so much shorter that padding them would cost more than a batch of their own.

    Args:
        lengths: Tokens of each text.
        budget: The most tokens of a batch, padding included; a longer text goes alone.
        multiple: As `widths`.
    """
    if len(lengths) == 1:  # a question, which is not to wait for what follows
        return [np.zeros(1, np.int64)]
    order = np.argsort(-lengths, kind="stable")
    rounded = widths(lengths[order], multiple)
    batches = []
    start = 0
    while start < len(order):
        widest = max(1, int(rounded[start]))
        alike = int(np.searchsorted(-rounded, -_ALIKE * widest, side="right"))
        worth = start + -(-_WORTH // widest)
        end = min(start + max(1, budget // widest), max(alike, worth))
        batches.append(order[start:end])
        start = end
    return batches


def widths(lengths: NDArray[np.int64], multiple: int) -> NDArray[np.int64]:
    """Return lengths rounded up, so that there are few shapes, each of which costs a compilation.

    Args:
        lengths: Tokens of each text.
        multiple: What is rounded to; for short texts less, by an eighth of a text at the most.
    """
    # 1 up to 16 tokens, 2 up to 32, 4 up to 64, ….
    octaves = np.ceil(np.log2(np.maximum(lengths, 16))).astype(np.int64)
    steps = np.minimum(1 << (octaves - 4), multiple)
    rounded: NDArray[np.int64] = -(-lengths // steps) * steps
    return rounded


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
        multiple: As `widths`, to which the longest is rounded.
        longest: But not beyond this.
        padding: As `Architecture.padding`.
    """
    lengths = np.array([len(sequences.ids[member]) for member in members], np.int32)
    most = int(lengths.max())
    width = max(most, min(int(widths(np.array([most]), multiple)[0]), longest))
    ids = np.zeros((len(members), width), np.int32)
    types = np.zeros((len(members), width), np.int32)
    for row, member in enumerate(members):
        ids[row, : lengths[row]] = sequences.ids[member]
        if sequences.types is not None:
            types[row, : lengths[row]] = sequences.types[member]
    return Padded(ids, positions_of(ids, padding), types, lengths)


class TokenBudget:
    """How many tokens go into a batch; halved, and kept so, where memory runs out.

    Args:
        tokens: The most tokens of a batch to begin with, padding to its longest text included.
        is_exhausted: Whether an error of a computation means that memory ran out.
        relieve: Called after that, when nothing of the failed batch is referred to any more.
    """

    def __init__(
        self,
        tokens: int,
        *,
        is_exhausted: Callable[[BaseException], bool],
        relieve: Callable[[], None],
    ) -> None:
        self.tokens = tokens
        self._is_exhausted = is_exhausted
        self._relieve = relieve

    def batches(
        self, lengths: NDArray[np.int64], compute: Callable[[NDArray[np.int64]], ResultT]
    ) -> Iterator[tuple[NDArray[np.int64], ResultT]]:
        """Yield which texts went together, longest first, and what was computed of them.

        Args:
            lengths: Tokens of each text.
            compute: Computes a batch; called again with less of it where memory ran out.

        Raises:
            ModelError: Memory does not suffice for a single text.
        """
        order = np.argsort(-lengths, kind="stable")
        start = 0
        while start < len(order):
            longest = max(1, int(lengths[order[start]]))
            members = order[start : start + max(1, self.tokens // longest)]
            result = self._attempt(members, longest, compute)
            if result is None:
                # Of what was tried, which can be less than was allowed.
                self.tokens = max(1, len(members) * longest // 2)
                self._relieve()
                continue
            yield members, result
            start += len(members)

    def _attempt(
        self,
        members: NDArray[np.int64],
        longest: int,
        compute: Callable[[NDArray[np.int64]], ResultT],
    ) -> ResultT | None:
        try:
            return compute(members)
        except (RuntimeError, MemoryError) as error:
            if not self._is_exhausted(error):
                raise
            if len(members) == 1:
                raise ModelError(
                    f"Memory ran out over a single text of {longest} tokens: {error}",
                    hint="Free some of it, shorten the model's window, or encode on the CPU: "
                    "`device='cpu'`.",
                ) from error
        return None


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
    positions: NDArray[np.int32] = np.cumsum(counted, axis=-1, dtype=np.int32) * counted
    return positions + np.int32(padding)

"""Token ids in batches: sorted by length, under a budget of tokens, with little padding or none.

Owns the order in which sequences are computed and the arrays that a runtime is given. Must not know
texts, models or runtimes.

CPU runtimes are given `Padded` batches, rectangles of `(texts, longest)`, because that is what
NumPy and OpenVINO multiply. GPUs are given `Packed` ones, where texts follow one another without
padding, because their kernels compute attention for texts of any length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from retriever import deadlines
from retriever.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

ResultT = TypeVar("ResultT")
# Texts of at least this share of the longest one are padded to it rather than split off.
_ALIKE = 7 / 8
# A batch of fewer tokens is computed no faster, so that splitting it would gain nothing.
_WORTH = 256


@dataclass(frozen=True, slots=True, eq=False)
class Sequences:
    """Texts, or pairs of texts, as a model gets them: special tokens included, no padding.

    Attributes:
        ids: Token ids of each, int32 `(tokens,)`, at least one.
        types: For pairs, which of the two texts each token belongs to, int32 `(tokens,)`; else
            None.
    """

    ids: Sequence[NDArray[np.int32]]
    types: Sequence[NDArray[np.int32]] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Return the number of tokens of each, int64 `(n,)`."""
        return np.fromiter(map(len, self.ids), np.int64, len(self.ids))


@dataclass(frozen=True, slots=True, eq=False)
class Padded:
    """One batch as a rectangle, each text padded to the longest.

    Attributes:
        ids: int32 `(texts, longest)`; zero after the end of a text, where masks hide it.
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
    """One batch without padding: its texts one after the other.

    Attributes:
        ids: int32 `(tokens,)`.
        positions: Rows of the position embeddings, int32 `(tokens,)`.
        types: Rows of the type embeddings, int32 `(tokens,)`; None if all are 0.
        starts: The offset of each text and, last, the end of the last text, int32 `(texts + 1,)`.
        longest: The number of tokens of the longest text.
    """

    ids: NDArray[np.int32]
    positions: NDArray[np.int32]
    types: NDArray[np.int32] | None
    starts: NDArray[np.int32]
    longest: int


def plan(lengths: NDArray[np.int64], budget: int, multiple: int = 1) -> list[NDArray[np.int64]]:
    """Return the batches to compute, as positions of texts, int64 `(texts,)` each.

    The longest texts come first: if memory does not suffice, that shows at once. A batch ends when
    its budget is spent; or, once it is large enough to be worth a call, where the next texts are so
    much shorter that padding them would cost more than another batch.

    Args:
        lengths: Tokens of each text, int64 `(n,)`.
        budget: The most tokens of a batch, padding included; a longer text is a batch by itself.
        multiple: As for `widths`.
    """
    if len(lengths) == 1:  # a query: skip the arithmetic, which would cost it measurable time
        return [np.zeros(1, np.int64)]
    # Stable, so that texts of equal length keep their order and results do not vary between runs.
    order = np.argsort(-lengths, kind="stable")
    rounded = widths(lengths[order], multiple)
    batches = []
    start = 0
    while start < len(order):
        widest = max(1, int(rounded[start]))
        # `rounded` descends, and searchsorted wants ascending numbers: hence both signs.
        alike = int(np.searchsorted(-rounded, -_ALIKE * widest, side="right"))
        worth = start + -(-_WORTH // widest)
        end = min(start + max(1, budget // widest), max(alike, worth))
        batches.append(order[start:end])
        start = end
    return batches


def widths(lengths: NDArray[np.int64], multiple: int) -> NDArray[np.int64]:
    """Return lengths rounded up, int64 `(n,)`: each width that occurs costs a compilation.

    Args:
        lengths: Tokens of each text, int64 `(n,)`.
        multiple: The largest step to round to. It is smaller for short texts, so that rounding adds
            at most an eighth to a text.
    """
    # The step is 1 up to 16 tokens, 2 up to 32, 4 up to 64, and so on up to `multiple`.
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
        members: The positions of those in the batch, int64 `(texts,)`.
        multiple: As for `widths`, by which the longest length is rounded up.
        longest: The largest width: the model has no positions beyond it.
        padding: As `Architecture.padding`.
    """
    lengths = np.array([len(sequences.ids[member]) for member in members], np.int32)
    most = int(lengths.max())
    # Never narrower than the longest text: one beyond the window is reported by `check_rows`, and
    # must fit into the arrays until then.
    width = max(most, min(int(widths(np.array([most]), multiple)[0]), longest))
    ids = np.zeros((len(members), width), np.int32)
    types = np.zeros((len(members), width), np.int32)
    for row, member in enumerate(members):
        ids[row, : lengths[row]] = sequences.ids[member]
        if sequences.types is not None:
            types[row, : lengths[row]] = sequences.types[member]
    return Padded(ids, positions_of(ids, padding), types, lengths)


class TokenBudget:
    """The number of tokens in a batch, which is halved for good when memory runs out.

    Args:
        tokens: The most tokens of a batch at the start, padding to its longest text included.
        is_exhausted: Returns whether an error of a computation means that memory ran out.
        relieve: Called after such an error, once nothing refers to the failed batch any more.
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
        """Yield the positions of the texts of each batch, longest first, and its result.

        Args:
            lengths: Tokens of each text, int64 `(n,)`.
            compute: Computes a batch; called again with fewer texts if memory ran out.

        Raises:
            ModelError: Memory does not suffice for a single text.
        """
        order = np.argsort(-lengths, kind="stable")
        start = 0
        while start < len(order):
            deadlines.check()
            longest = max(1, int(lengths[order[start]]))
            members = order[start : start + max(1, self.tokens // longest)]
            result = self._attempt(members, longest, compute)
            if result is None:
                # Half of what was tried: the last batch may have been smaller than the budget.
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
        # The retry is left to the caller, outside of `except`: while the error is handled, its
        # traceback keeps the tensors of the failed batch in memory.
        return None


def pack(sequences: Sequences, members: NDArray[np.int64], *, padding: int | None) -> Packed:
    """Return the batch of some sequences.

    Args:
        sequences: All of them.
        members: The positions of those in the batch, int64 `(texts,)`.
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
        # RoBERTa and MPNet number the tokens of a text from padding + 1 and skip padding tokens,
        # which stay at `padding`. One running sum over the whole batch counts them; what had been
        # counted before a text began is taken off again.
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

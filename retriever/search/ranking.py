"""Rankings of chunks, and what makes them: a ranker, one for each question.

What comes after a ranking (identical passages as one hit, the best chunk of each document, the
reranker) asks a ranker for more without knowing by what it ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from retriever.search.allowed import AllowedRows


class Ranking(NamedTuple):
    """Chunks with their scores, best first.

    Attributes:
        ids: The chunks.
        scores: The score of each, by which they are ordered; higher is better.
        components: What the scores are made of, by name, as `dense`; in the order of `ids`.
    """

    ids: list[int]
    scores: list[float]
    components: Mapping[str, list[float]]

    def at(self, positions: Sequence[int]) -> Ranking:
        """Return the chunks at some positions, in that order."""
        return Ranking(
            [self.ids[i] for i in positions],
            [self.scores[i] for i in positions],
            {name: [values[i] for i in positions] for name, values in self.components.items()},
        )

    def first(self, n: int) -> Ranking:
        """Return the first `n` chunks, or as many as there are."""
        if n >= len(self.ids):
            return self
        components = {name: values[:n] for name, values in self.components.items()}
        return Ranking(self.ids[:n], self.scores[:n], components)

    def followed_by(self, other: Ranking) -> Ranking:
        """Return these chunks and then those of another ranking by the same ranker."""
        if not self.ids:
            return other
        components = {
            name: [*values, *other.components.get(name, ())]
            for name, values in self.components.items()
        }
        return Ranking([*self.ids, *other.ids], [*self.scores, *other.scores], components)


NOTHING = Ranking([], [], {})
"""The ranking of no chunks."""


class Ranker(Protocol):
    """Ranks the rows of one view for one question.

    Attributes:
        copies_tie: Whether chunks of equal text and embedding have one score, to within rounding,
            and so stand together. They do not where titles count, or the language of a document.
    """

    @property
    def copies_tie(self) -> bool:
        """See the class."""
        ...

    def top_k(self, k: int, allowed: AllowedRows) -> Ranking:
        """Return the best `min(k, n)` of the `n` allowed rows that match the question.

        It is exact, and equal scores have one order that does not depend on `k` or `allowed`. The
        score of a row is the same in every call: what scores are normalised by belongs to the
        ranker.

        Args:
            k: Rows wanted, at least 1.
            allowed: Rows that may be found, among those that the ranker was made for.

        Raises:
            SegmentDisagrees: A segment is wrong; condemn it and search again.
            IndexCorrupt: A row is damaged.
        """
        ...

"""One or many searches with the same options, while they are answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from retriever.config import SearchOptions
from retriever.search.asking import Asked
from retriever.search.cursors import Page
from retriever.search.rerank import Reranking

if TYPE_CHECKING:
    import sqlite3
    from typing import TypeAlias

    from retriever.search.allowed import AllowedRows
    from retriever.search.view import View

    Allow: TypeAlias = Callable[[sqlite3.Connection, View], AllowedRows]


class Request(NamedTuple):
    """What is asked, and how it is answered.

    Attributes:
        asked: What is searched for, all of one kind: questions, vectors or documents.
        options: What is returned.
        reranking: The second stage, None where there is none.
        page: Where the hits begin.
        allow: What gives the rows that may be found; None allows all.
    """

    asked: Sequence[Asked]
    options: SearchOptions
    reranking: Reranking | None
    page: Page
    allow: Allow | None

    @property
    def depth(self) -> int:
        """Return the number of hits to find in the first stage.

        The pages of a reranked search are of one order of its candidates, so that they are found
        again for each page.
        """
        return self.options.depth + (self.page.offset if self.reranking is None else 0)

    @property
    def uses_words(self) -> bool:
        """Return whether the words of a question are looked for."""
        return self.options.mode != "dense"

    @property
    def uses_vectors(self) -> bool:
        """Return whether a question is encoded."""
        return self.options.mode != "lexical"

    @property
    def shown(self) -> slice:
        """Return which of the hits from the first are returned."""
        return slice(self.page.offset, self.page.offset + self.options.k)

"""Hits that differ: identical passages folded into one, or the best chunk of each document.

Works down the exact ranking. What is kept takes its copies, or its document's other chunks, out of
the view, and the rest is searched: so each search finds something new, and 10,000 copies cost no
more than their ids, and that only the first questions that meet them (`KnownCopies`).
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.search import dense
from retriever.search.dense import Ranking
from retriever.search.view import View
from retriever.storage import catalog

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retriever.storage.catalog import Passage, Text

_ROUNDING = 1e-6


class Copies(NamedTuple):
    """What is identical to a chunk: how many others, and documents of theirs, at most 10."""

    chunks: int
    document_ids: tuple[str, ...]


class Differing:
    """Finds the best hits that differ, in one view.

    Args:
        view: What to search; of the connection's read transaction.
        connection: Where.
        fold: Whether chunks with equal text and embedding count as one: that of the lowest id.
        by_document: Whether `best` may be asked for one chunk of each document.

    Attributes:
        searched: The view whose ranking `best` takes. Where only copies are folded, it is less
            those that are known; but a copy may stand for a document that has no other chunk.
    """

    def __init__(
        self, view: View, connection: sqlite3.Connection, *, fold: bool, by_document: bool
    ) -> None:
        self._view = view
        self.searched = view.known.folded(view) if fold and not by_document else view
        self._connection = connection
        self._fold = fold
        self._passages: dict[int, Passage] = {}
        self._chunks: dict[Text, NDArray[np.int64]] = {}

    def best(
        self, query: NDArray[np.float32], ranking: Ranking, most: int, *, by_document: bool
    ) -> Ranking:
        """Return the best `most` chunks of which no two are identical, or of one document.

        Args:
            query: float32 `(dimension,)`, of unit length.
            ranking: The exact beginning of the ranking of `searched`, at least one chunk unless
                there is none.
            most: Chunks wanted; there are fewer where not so many differ.
            by_document: Whether one chunk of a document is enough.

        Raises:
            SegmentDisagrees, IndexCorrupt: As `dense.top_k`.
        """
        view = self.searched
        if not (by_document or (self._fold and self._may_repeat(ranking))):
            return Ranking(ranking.ids[:most], ranking.scores[:most])
        kept = Ranking([], [])
        seen: set[Text | int] = set()
        depth = 0
        while ranking.ids:
            new: set[Text | int] = set()
            passages = catalog.passages(self._connection, view.space, ranking.ids)
            self._passages |= passages
            for chunk_id, score in zip(*ranking, strict=True):
                document, text = passages[chunk_id]
                marks: set[Text | int] = {document} if by_document else set()
                if self._fold and text is not None:
                    marks.add(text)
                if not seen.isdisjoint(marks):
                    continue
                kept.ids.append(chunk_id)
                kept.scores.append(score)
                seen |= marks
                new |= marks
            if len(kept.ids) >= most or len(ranking.ids) >= view.n_live:
                break
            view = view.without(np.concatenate([ranking.ids, *map(self._marked, new)]))
            depth = max(2 * depth, most - len(kept.ids))
            (ranking,) = dense.top_k(view, self._connection, query[None], depth)
        return Ranking(kept.ids[:most], kept.scores[:most])

    def _may_repeat(self, ranking: Ranking) -> bool:
        """Return whether a chunk of a ranking has copies, there or beyond it.

        Copies have one score and stand together: of chunks that differ from the next, as a rule
        all but the last, the catalog need not be asked.
        """
        if not ranking.ids:
            return False
        if not self._view.known.firsts.isdisjoint(ranking.ids):
            return True
        alike = np.abs(np.diff(ranking.scores)) <= _ROUNDING
        suspects = np.append(alike, True)
        suspects[1:] |= alike
        ids = np.array(ranking.ids, np.int64)[suspects]
        return catalog.has_copies(self._connection, ids.tolist())

    def copies(self, chunk_id: int) -> Copies | None:
        """Return what is identical to one of the best; None where nothing is, or if unfolded."""
        if not self._fold:
            return None
        document, text = self._passages.get(chunk_id, (0, None))
        if text is None or len(chunks := self._marked(text)) < 2:
            return None
        names = catalog.documents_with(self._connection, chunks, document)
        return Copies(len(chunks) - 1, names)

    def _marked(self, mark: Text | int) -> NDArray[np.int64]:
        """Return the chunks of a text or of a document."""
        if isinstance(mark, int):
            return catalog.chunks_of_documents(self._connection, [mark])
        if mark not in self._chunks:
            self._chunks[mark] = self._chunks_of(mark)
        return self._chunks[mark]

    def _chunks_of(self, text: Text) -> NDArray[np.int64]:
        """Return the chunks of a text; if they are many, spare later questions the same."""
        view, known = self._view, self._view.known
        if (ids := known.ids(text)) is None:
            ids = catalog.chunks_of_text(self._connection, view.space, text)
            known.note(text, ids)
        elif not known.is_masked(text):
            copies = catalog.with_equal_vector(self._connection, view.space, ids)
            known.mask(view, text, int(ids[0]), copies)
        return ids

"""Distinct hits: identical passages folded into one, or the best chunk of each document.

Works down the exact ranking. What is kept takes its copies, or its document's other chunks, out of
the allowed rows, and the rest is searched: so each search finds something new, and 10,000 copies
cost no more than their ids, and that only for the first searches that meet them
(`DuplicateCache`).
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.search.allowed import AllowedRows
from retriever.search.ranking import NOTHING, Ranker, Ranking
from retriever.search.view import View
from retriever.storage import catalog

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retriever.storage.catalog import Passage, Text

# Copies of one text may differ in the last bits of their vectors: the encoder computed them in
# other batches. Scores that are nearer than this may be of copies.
_ROUNDING = 1e-6


class Copies(NamedTuple):
    """What is identical to a chunk: how many others, and documents of theirs, at most 10."""

    chunks: int
    document_ids: tuple[str, ...]


class Folding:
    """Finds the best distinct hits among the allowed rows of one view.

    Args:
        view: What to search; of the connection's read transaction.
        connection: Where.
        allowed: The rows that may be found, and count as copies.
        fold: Whether chunks with equal text and embedding count as one: that of the lowest id.
        by_document: Whether `best` may be asked for one chunk of each document.
        copies_tie: Whether the rankers of `best` give copies one score.

    Attributes:
        searched: The rows whose ranking `best` takes. Where only copies are folded, and they have
            one score, they are the allowed ones less copies that are known; but a copy may be the
            only chunk of its document that is allowed, so nothing is left out when grouping.
    """

    def __init__(
        self,
        view: View,
        connection: sqlite3.Connection,
        allowed: AllowedRows,
        *,
        fold: bool,
        by_document: bool,
        copies_tie: bool,
    ) -> None:
        self._view = view
        self._allowed = allowed
        self._known = allowed.duplicates
        self._copies_tie = copies_tie
        spares_known = fold and copies_tie and not by_document
        self.searched = self._known.without_masked(allowed) if spares_known else allowed
        self._connection = connection
        self._fold = fold
        self._passages: dict[int, Passage] = {}
        self._chunks: dict[Text, NDArray[np.int64]] = {}

    def best(self, ranker: Ranker, ranking: Ranking, most: int, *, by_document: bool) -> Ranking:
        """Return the best `most` chunks of which no two are identical, or of one document.

        Args:
            ranker: What ranked, which is asked for more.
            ranking: The exact beginning of its ranking of `searched`, at least one chunk unless
                there is none.
            most: Chunks wanted; there are fewer where not so many differ.
            by_document: Whether one chunk of a document is enough.

        Raises:
            SegmentDisagrees, IndexCorrupt: As `Ranker.top_k`.
        """
        if not (by_document or (self._fold and self._may_repeat(ranking))):
            return ranking.first(most)
        kept = NOTHING
        seen: set[Text | int] = set()
        left = self.searched
        depth = 0
        while ranking.ids:
            distinct, new = self._distinct(ranking, seen, by_document=by_document)
            kept = kept.followed_by(distinct)
            seen |= new
            if len(kept.ids) >= most or len(ranking.ids) >= left.count:
                break
            # All that was ranked has been judged, and what is like the kept chunks will not be
            # kept: the next search is for the rest. It goes twice as deep each time, so that the
            # number of searches grows with the logarithm of what must be passed over.
            left = left.without(np.concatenate([ranking.ids, *map(self._marked, new)]))
            depth = max(2 * depth, most - len(kept.ids))
            ranking = ranker.top_k(depth, left)
        return kept.first(most)

    def _distinct(
        self, ranking: Ranking, seen: set[Text | int], *, by_document: bool
    ) -> tuple[Ranking, set[Text | int]]:
        """Return what differs from all of `seen`, and from what is above it, and its marks."""
        positions: list[int] = []
        new: set[Text | int] = set()
        passages = catalog.passages(self._connection, self._view.space, ranking.ids)
        self._passages |= passages
        for position, chunk_id in enumerate(ranking.ids):
            document, text = passages[chunk_id]
            marks: set[Text | int] = {document} if by_document else set()
            if self._fold and text is not None:
                marks.add(text)
            if seen.isdisjoint(marks) and new.isdisjoint(marks):
                positions.append(position)
                new |= marks
        return ranking.at(positions), new

    def _may_repeat(self, ranking: Ranking) -> bool:
        """Return whether a chunk of a ranking has copies, there or beyond it.

        Where copies have one score they stand together: of chunks that differ from the next, as a
        rule all but the last, the catalog need not be asked.
        """
        if not ranking.ids:
            return False
        if not self._copies_tie:
            return catalog.has_copies(self._connection, ranking.ids)
        if not self._known.firsts.isdisjoint(ranking.ids):
            return True
        alike = np.abs(np.diff(ranking.scores)) <= _ROUNDING
        # The last chunk is always suspect: what comes after it is not known.
        suspects = np.append(alike, True)
        suspects[1:] |= alike
        ids = np.array(ranking.ids, np.int64)[suspects]
        return catalog.has_copies(self._connection, ids.tolist())

    def copies(self, chunk_id: int) -> Copies | None:
        """Return what is identical to one of the best; None where nothing is, or if unfolded."""
        if not self._fold:
            return None
        # Where `_may_repeat` has ruled copies out, the passages were never looked up.
        document, text = self._passages.get(chunk_id, (0, None))
        if text is None or len(chunks := self._marked(text)) < 2:
            return None
        names = catalog.documents_with(self._connection, chunks, document)
        return Copies(len(chunks) - 1, names)

    def _marked(self, mark: Text | int) -> NDArray[np.int64]:
        """Return the chunks of a text, those that are allowed; or all chunks of a document."""
        if isinstance(mark, int):
            return catalog.chunks_of_documents(self._connection, [mark])
        if mark not in self._chunks:
            self._chunks[mark] = self._chunks_of(mark)
        return self._chunks[mark]

    def _chunks_of(self, text: Text) -> NDArray[np.int64]:
        """Return the allowed chunks of a text; if they are many, spare later searches the same."""
        view, known = self._view, self._known
        if (ids := known.ids(text)) is None:
            ids = catalog.chunks_of_text(self._connection, view.space, text)
            if self._allowed is not view.live:
                ids = self._allowed.among(ids)
            known.remember(text, ids)
        elif not known.is_masked(text):
            # A copy whose vector differs in its last bits may have the higher score: it stays.
            copies = catalog.with_equal_vector(self._connection, view.space, ids)
            known.mask(self._allowed, text, int(ids[0]), copies)
        return ids

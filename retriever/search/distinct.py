"""Hits that differ: identical passages folded into one, or the best chunk of each document.

Works down the exact ranking. What is kept takes its copies, or its document's other chunks, out of
the view, and the rest is searched: so each search finds something new, and 10,000 copies cost no
more than their ids.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import numpy as np

from retriever.search import dense
from retriever.search.dense import Ranking
from retriever.search.view import View
from retriever.storage import catalog

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retriever.storage.catalog import Text


def distinct(
    view: View,
    connection: sqlite3.Connection,
    query: NDArray[np.float32],
    ranking: Ranking,
    most: int,
    *,
    fold: bool,
    by_document: bool,
) -> Ranking:
    """Return the best `most` chunks of which no two are identical or of one document.

    Args:
        view: What to search; of the connection's read transaction.
        connection: Where.
        query: float32 `(dimension,)`, of unit length.
        ranking: The exact beginning of the ranking, at least one chunk unless there is none.
        most: Chunks wanted; there are fewer where not so many differ.
        fold: Whether chunks with equal text and embedding count as one: that of the lowest id.
        by_document: Whether one chunk of a document is enough.

    Raises:
        SegmentDisagrees, IndexCorrupt: As `dense.top_k`.
    """
    kept = Ranking([], [])
    texts: set[Text] = set()
    documents: set[int] = set()
    depth = 0
    while ranking.ids:
        first = len(kept.ids)
        passages = catalog.passages(connection, view.space, ranking.ids)
        for chunk_id, score in zip(*ranking, strict=True):
            document, text = passages[chunk_id]
            if (by_document and document in documents) or (fold and text in texts):
                continue
            kept.ids.append(chunk_id)
            kept.scores.append(score)
            if len(kept.ids) == most:
                return kept
            documents.add(document)
            if text is not None:
                texts.add(text)
        if len(ranking.ids) >= view.n_live:
            return kept
        new = [passages[chunk_id] for chunk_id in kept.ids[first:]]
        seen = [np.array(ranking.ids, np.int64)]
        if fold:
            new_texts = [text for _, text in new if text is not None]
            seen.append(catalog.chunks_of_texts(connection, view.space, new_texts))
        if by_document:
            new_documents = [document for document, _ in new]
            seen.append(catalog.chunks_of_documents(connection, new_documents))
        view = view.without(np.concatenate(seen))
        depth = max(2 * depth, most - len(kept.ids))
        (ranking,) = dense.top_k(view, connection, query[None], depth)
    return kept

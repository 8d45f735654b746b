"""The document of each chunk of a view: what leads from documents that pass a filter to chunks."""

from __future__ import annotations

import sqlite3

import numpy as np

from retriever.storage import catalog

# Entries of deleted chunks are dropped when there are as many as this for each live one.
_DEAD_FOR_EACH = 1


class KnownDocuments:
    """The documents of the chunks of one view, read once and handed on to later views.

    Thread-safe: readings at the same time read the same, and either may stay.

    Args:
        earlier: Those of a view of an earlier commit of the same history and chunking, or None.
    """

    def __init__(self, earlier: KnownDocuments | None) -> None:
        self._known: catalog.ChunkDocuments | None = None if earlier is None else earlier._known
        self._is_complete = False

    def at(
        self, connection: sqlite3.Connection, chunking_id: int, live: int
    ) -> catalog.ChunkDocuments:
        """Return the documents of all chunks of the view.

        Args:
            connection: Inside the view's read transaction.
            chunking_id: The view's chunking.
            live: How many chunks the view has. There may be entries of some that were deleted.
        """
        known = self._known
        if known is not None and self._is_complete:
            return known
        if known is None or len(known.ids) > live * (1 + _DEAD_FOR_EACH):
            known = catalog.chunk_documents(connection, chunking_id)
        else:
            # Chunk ids are never used twice, and a chunk never gets another document: those that
            # were added since come after the last one.
            last = int(known.ids[-1]) if len(known.ids) else 0
            fresh = catalog.chunk_documents(connection, chunking_id, last)
            if len(fresh.ids):
                known = catalog.ChunkDocuments(
                    np.concatenate([known.ids, fresh.ids]), np.concatenate([known.pks, fresh.pks])
                )
        self._known = known
        self._is_complete = True
        return known

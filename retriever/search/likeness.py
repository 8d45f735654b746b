"""More like a document: what it is searched by in place of a question."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, NamedTuple

from retriever.search.document_ids import find_pk
from retriever.search.query_encoding import mean
from retriever.storage import catalog

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from retriever.search.allowed import AllowedRows
    from retriever.search.view import View


class Likeness(NamedTuple):
    """What the passages like a document are searched by.

    Attributes:
        vector: The mean of the vectors of its chunks, float32 `(dimension,)`, of unit length; None
            if it has no text, so that nothing is like it.
        allowed: The rows that may be found: none of its own.
    """

    vector: NDArray[np.float32] | None
    allowed: AllowedRows


def of_document(
    view: View, connection: sqlite3.Connection, name: str, allowed: AllowedRows
) -> Likeness:
    """Return what to search by for passages that are like a document, and not its own.

    Raises:
        DocumentNotFound: No document has that name.
        IndexCorrupt: A vector of it is damaged.
    """
    pk = find_pk(connection, name)
    others = allowed.without(catalog.chunks_of_documents(connection, [pk]))
    vectors = catalog.vectors_of_document(connection, view.space, pk)
    if not len(vectors):
        return Likeness(None, others)
    return Likeness(mean([*vectors]), others)

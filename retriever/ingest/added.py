"""Turn documents that are added by hand into changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from retriever.documents.validation import OnInvalid, read_documents
from retriever.ingest.changes import Change
from retriever.ingest.commits import Ingest
from retriever.reports import IngestReport
from retriever.types import Document


def add_documents(
    ingest: Ingest,
    documents: Iterable[Document | Mapping[str, Any] | str] | Document | Mapping[str, Any] | str,
    on_invalid: OnInvalid | None,
) -> IngestReport:
    """Check documents and add them; see `Index.add`.

    Args:
        ingest: The call; it has not begun.
        documents: What the caller passed. A list or tuple is checked whole before anything is
            added, an iterator as it is read.
        on_invalid: Takes the position and the error of an unusable document; None raises it.
    """
    space = ingest.space
    checked = read_documents(
        documents,
        space.dimension,
        ingest.require_consistent,
        has_encoder=space.has_encoder,
        on_invalid=on_invalid,
    )
    return ingest.run(_changes(ingest, checked, is_counted=isinstance(documents, list | tuple)))


def _changes(
    ingest: Ingest, documents: Iterable[Document], *, is_counted: bool
) -> Iterator[Change]:
    """Yield a change for each document that is not in the index as it is.

    Args:
        ingest: The call; it is told of each document before it is looked at.
        documents: Checked documents.
        is_counted: Whether they are in memory already, so that progress can be a share of all.
    """
    total = size = None
    if is_counted:
        documents = list(documents)
        total, size = len(documents), sum(map(_size_of, documents))
    for position, document in enumerate(documents):
        own = _size_of(document)
        ingest.tell(position, total, "documents", document.id or "", size)
        if not ingest.is_unchanged(document, position):
            yield Change([document], size=own)
        elif size is not None:
            size -= own


def _size_of(document: Document) -> int:
    """Return the characters of a document that have to be encoded."""
    return len(document.text) if document.embedding is None else 0

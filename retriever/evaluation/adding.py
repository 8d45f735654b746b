"""Bring an index up to date with a collection, without encoding what it holds already."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from retriever import arguments
from retriever.errors import InvalidEvaluation
from retriever.evaluation.beir import Collection, DocumentIds
from retriever.index import Index
from retriever.reports import IngestReport
from retriever.types import Progress, ProgressCallback

_PAGE = 10_000


def add_collection(
    index: Index,
    collection: Collection,
    *,
    prune: bool = False,
    progress: ProgressCallback | None = None,
) -> IngestReport:
    """Add the documents of a collection that an index lacks or holds with another text.

    The whole corpus is checked first. What is unchanged is not encoded again, so that an
    interrupted call continues where it stopped when it is repeated.

    Args:
        index: The index.
        collection: The collection.
        prune: Whether to delete the documents of the index that are not in the collection. They
            are an error otherwise, and nothing is changed.
        progress: Called with a `Progress` from time to time.

    Returns:
        The report of `Index.add`; `removed` counts what was pruned.

    Raises:
        InvalidEvaluation: The corpus is malformed, or the index holds other documents.
        IndexLocked, IndexReadOnly, WriteFailed, ModelError, ModelMismatch, ModelUnavailable: As
            `Index.add`.
    """
    arguments.callback(progress, "progress")
    arguments.flag(prune, "prune")
    ids = collection.document_ids(progress)
    with index.writing():
        others = _others(index, ids)
        removed = 0
        if prune:
            while page := list(islice(others, _PAGE)):
                removed += index.delete(page)
        elif (other := next(others, None)) is not None:
            raise InvalidEvaluation(
                f"The index {index.path} holds documents that are not in the collection "
                f"{collection.path}, such as {other!r}.",
                hint="Name another index (-i), or have them deleted: --prune, or prune=True.",
            )
        report = index.add(collection.documents(), progress=_with_total(progress, len(ids)))
    return replace(report, removed=removed)


def _others(index: Index, ids: DocumentIds) -> Iterator[str]:
    """Yield the ids of an index's documents that are not in a collection."""
    for document in index.documents(embeddings=False):
        if document.id is not None and document.id not in ids:
            yield document.id


def _with_total(progress: ProgressCallback | None, total: int) -> ProgressCallback | None:
    """Return a callback that completes the reports of an iterator's documents by their number."""
    if progress is None:
        return None
    told = progress

    def tell(report: Progress) -> None:
        told(replace(report, total=total))

    return tell

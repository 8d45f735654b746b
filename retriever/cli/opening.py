"""Open the index that a command writes to, or make one where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from retriever.cli.options import DEFAULT_MODEL
from retriever.errors import IndexNotFound

if TYPE_CHECKING:
    from retriever.index import Index


def open_existing(
    path: Path, model: str | None, chunking: dict[str, Any] | None, opening: dict[str, Any]
) -> Index | None:
    """Return the open index, None if there is none.

    Args:
        path: The index directory.
        model: The model that it must have been built with.
        chunking: Fields of the chunking that it must have been created with.
        opening: Further arguments of `Index.open`.
    """
    from retriever.index import Index

    dimension = opening.get("dimension")
    try:
        # First without model and dimension, with which `open` would create an index.
        opened = Index.open(path, chunking=chunking, **{**opening, "dimension": None})
    except IndexNotFound:
        return None
    if model is not None or dimension is not None:
        # Opened again so that they are checked; the chunking has been compared above.
        opened.close()
        opened = Index.open(path, model=model, **opening)
    return opened


def create(
    path: Path, model: str | None, chunking: dict[str, Any] | None, opening: dict[str, Any]
) -> Index:
    """Return a new index, of the default model if neither a model nor a dimension is given."""
    from retriever.index import Index

    if opening.get("dimension") is None:
        model = model or DEFAULT_MODEL
    return Index.open(path, model=model, chunking=chunking, **opening)

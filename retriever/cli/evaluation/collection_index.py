"""The index of a collection in BEIR layout: where it is, and how it is opened or made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retriever.cli import opening
from retriever.errors import InvalidConfig, ModelMismatch

if TYPE_CHECKING:
    from retriever.index import Index


def default_path(folder: Path, ctx: click.Context) -> Path:
    """Return the path of the index of a collection: in this folder, named like the collection.

    Raises:
        UsageError: This folder is inside the collection.
    """
    folder = folder.resolve()
    if Path.cwd().resolve().is_relative_to(folder):
        raise click.UsageError(
            "The index would lie inside the collection, as this folder is part of it. Name its "
            "place with -i DIR, or go to another folder.",
            ctx,
        )
    return Path(f"{folder.name or 'collection'}.index")


def open_or_create(
    path: Path, model: str | None, chunking: dict[str, Any] | None, options: dict[str, Any]
) -> tuple[Index, bool]:
    """Return the open index, and whether it was created.

    Raises:
        InvalidConfig, ModelMismatch: There is one with another chunking or model; the hint says how
            to have both.
    """
    try:
        existing = opening.open_existing(path, model, chunking, options)
    except (InvalidConfig, ModelMismatch) as exc:
        exc.hint += " Or keep one more index: name it with -i."
        raise
    if existing is not None:
        return existing, False
    return opening.create(path, model, chunking, options), True

"""From the name that a caller gives a document to the document."""

from __future__ import annotations

import sqlite3
from difflib import get_close_matches

from retriever import names
from retriever.documents.validation import check_text
from retriever.errors import DocumentNotFound
from retriever.storage import catalog


def find_id(connection: sqlite3.Connection, name: str) -> str | None:
    """Return the id of the document that a name stands for, or None if there is none."""
    possible = names.meanings(name) if isinstance(name, str) else [name]
    for document_id in possible or [name]:
        check_text(document_id, "A document id")
    there = catalog.existing_ids(connection, possible)
    return next((document_id for document_id in possible if document_id in there), None)


def find_pk(connection: sqlite3.Connection, name: str) -> int:
    """Return the primary key of the document that a name stands for.

    Raises:
        DocumentNotFound: There is none.
    """
    meant = find_id(connection, name)
    pk = None if meant is None else catalog.document_pk(connection, meant)
    if pk is None:
        raise not_found(name, catalog.similar_ids(connection, name))
    return pk


def not_found(document_id: str, known: list[str]) -> DocumentNotFound:
    """Return the error for an unknown document id; `known` are similar ids."""
    same = [name for name in known if name.lower() == document_id.lower()]
    close = same or get_close_matches(document_id, known, 1)
    return DocumentNotFound(
        f"The index has no document {document_id!r}.",
        hint=f"Did you mean {close[0]!r}?" if close else "`retriever list` shows all ids.",
    )

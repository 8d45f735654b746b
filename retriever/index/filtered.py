"""What `Index` does with filters of documents; imported only where one is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retriever.arguments import described
from retriever.errors import InvalidFilter
from retriever.field_values import ValueType, decode_value
from retriever.filters import Filter, FilterLike
from retriever.filters.tree import path_of
from retriever.search import filters
from retriever.search.filters import of_documents
from retriever.storage.catalog import filtering
from retriever.storage.catalog.filtering import documents_matching as matching

if TYPE_CHECKING:
    import sqlite3
from retriever.storage.catalog.filtering import fields

__all__ = ["facets", "fields", "in_order", "matching", "of_documents", "of_field", "to_delete"]


def of_field(field: str) -> str:
    """Return the path of a field whose values are to be counted.

    Raises:
        InvalidFilter: It is not a string, or a field whose values are not counted.
    """
    if not isinstance(field, str):
        raise InvalidFilter(f"field is {described(field)}.", hint="Pass the name of a field.")
    if field in ("id", *filtering.OF_CHUNKS):
        what = "each document has its own" if field == "id" else "passages have it"
        raise InvalidFilter(
            f"The values of {field!r} are not counted: {what}.", hint="Name a field of metadata."
        )
    return path_of(field)


def facets(
    connection: sqlite3.Connection, path: str, asked: Filter, limit: int
) -> list[tuple[Any, int]]:
    """Return the most frequent values of a field; equally frequent ones in ascending order."""
    counted = [
        (-n, kind, data) for kind, data, n in filtering.value_counts(connection, path, asked)
    ]
    return [(decode_value(ValueType(kind), data), -n) for n, kind, data in sorted(counted)[:limit]]


def in_order(connection: sqlite3.Connection, asked: Filter) -> list[int]:
    """Return the primary keys of the documents that pass, in order of their ids."""
    return [pk for _, pk in filtering.ids_of_documents(connection, matching(connection, asked))]


def to_delete(value: FilterLike) -> Filter:
    """Return the filter of documents to delete.

    Raises:
        InvalidFilter: It has no condition; or as `of_documents`.
    """
    asked = filters.of_documents(value)
    if asked.is_empty:
        raise InvalidFilter(
            "The filter is empty: it would delete every document.",
            hint="Write a condition; {'id': {'$exists': True}} is true of every document.",
        )
    return asked


def ids(connection: sqlite3.Connection, asked: Filter) -> list[str]:
    """Return the ids of the documents that pass, in order."""
    found = filtering.ids_of_documents(connection, matching(connection, asked))
    return [document_id for document_id, _ in found]

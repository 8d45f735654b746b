"""Filters in a search: the rows of a view that pass one, and what to tell people about it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING

from retriever.errors import InvalidFilter
from retriever.filters import Filter, FilterLike, given, parse
from retriever.filters.fields import BUILT_IN, unknown_fields
from retriever.storage import catalog
from retriever.storage.catalog import filtering

if TYPE_CHECKING:
    from retriever.search.allowed import AllowedRows
    from retriever.search.view import View


def allow(value: FilterLike) -> Callable[[sqlite3.Connection, View], AllowedRows] | None:
    """Return what gives the rows that pass a filter, for `Searcher.search`; None allows all."""
    asked = given(value)
    if asked is None or asked.is_empty:
        return None

    def allowed(connection: sqlite3.Connection, view: View) -> AllowedRows:
        chunking_id = view.space.chunking.id

        def passing() -> catalog.Ids:
            chunks = view.chunk_documents.at(connection, chunking_id, view.live.count)
            return filtering.chunks_matching(connection, chunking_id, asked, chunks)

        found = view.allowed(asked, passing)
        if not found.note:  # it is kept with the rows
            found.note = _note(connection, asked, found.count, view.live.count)
        return found

    return allowed


def _note(connection: sqlite3.Connection, asked: Filter, passed: int, live: int) -> str:
    """Return what a filter did, for people: how much passed, and fields that no document has.

    A field that no document has is no error: documents that have it may come at any time, and a
    filter must work on an index that is still empty. But it is mostly a typing error.
    """
    said = f"filter: {passed:,} of {live:,} passages"
    unknown = asked.fields.difference(BUILT_IN)
    if not unknown or not live:
        return said
    return "; ".join([said, *unknown_fields(unknown, filtering.fields(connection))])


def of_documents(value: FilterLike | None) -> Filter:
    """Return a filter of documents as a caller gave it; None passes all.

    Raises:
        InvalidFilter: It does not follow the grammar, or asks about `page` or `heading`, which
            single passages have.
        LimitExceeded: It is too large.
    """
    asked = given(value) or parse({})
    for path in sorted(asked.fields & filtering.OF_CHUNKS):
        raise InvalidFilter(
            f"The filter asks about {path!r}, which passages have; this call is about documents.",
            hint="Only a search filters by it.",
        )
    return asked

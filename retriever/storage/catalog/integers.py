"""Columns of integers as arrays, and the document of each chunk."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from retriever.storage.table import damaged

if TYPE_CHECKING:
    from numpy.typing import NDArray

Ids: TypeAlias = "NDArray[np.int64]"


class ChunkDocuments(NamedTuple):
    """The document of each chunk.

    Attributes:
        ids: Chunk ids, ascending, int64 `(n,)`.
        pks: The primary key of the document of each, int64 `(n,)`.
    """

    ids: Ids
    pks: Ids


def chunk_documents(
    connection: sqlite3.Connection, chunking_id: int, after: int = 0
) -> ChunkDocuments:
    """Return the document of every chunk of a chunking that is after a chunk id."""
    ids, pks = integers(
        connection,
        "SELECT group_concat(id), group_concat(document_pk), count(*) FROM chunks"
        " WHERE id > ? AND chunking_id = ?",
        (after, chunking_id),
        "chunks",
    )
    order = np.argsort(ids)
    return ChunkDocuments(ids[order], pks[order])


def integers(
    connection: sqlite3.Connection, sql: str, values: Sequence[Any], table: str
) -> list[Ids]:
    """Return columns of integers as arrays, given a query of them joined by commas, and a count.

    One long string is read several times faster than as many rows.

    Raises:
        IndexCorrupt: A row holds something else.
    """
    *columns, number = connection.execute(sql, values).fetchone()
    try:
        read = [np.fromstring(text, dtype=np.int64, sep=",") for text in columns if number]
    except ValueError as exc:
        raise damaged(table, "(unknown)") from exc
    if not number:
        return [np.empty(0, dtype=np.int64) for _ in columns]
    if any(len(column) != number for column in read):
        raise damaged(table, "(unknown)")
    return read

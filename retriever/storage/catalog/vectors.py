"""Vectors of a space: by chunk, by range, by text and by document."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from retriever.errors import IndexCorrupt
from retriever.storage.catalog.documents import document_pk
from retriever.storage.catalog.state import active_space
from retriever.storage.records import Space
from retriever.storage.rows import vector_of
from retriever.storage.table import damaged
from retriever.storage.vector_formats import are_unit
from retriever.types import Document

if TYPE_CHECKING:
    from numpy.typing import NDArray


def fetch_vectors(
    connection: sqlite3.Connection, space: Space, ids: Sequence[int]
) -> dict[int, NDArray[np.float32]]:
    """Return vectors by chunk id, each checked against its CRC-32."""
    # As one parameter, because SQLite limits the number of parameters.
    found = connection.execute(
        f"SELECT chunk_id, data, crc FROM {space.table}"
        " WHERE chunk_id IN (SELECT value FROM json_each(?))",
        (json.dumps([int(chunk_id) for chunk_id in ids]),),
    )
    return {chunk_id: vector_of(space, chunk_id, data, crc) for chunk_id, data, crc in found}


def vector_blocks(
    connection: sqlite3.Connection, space: Space, after: int, upto: int, size: int = 1024
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield (ids, vectors) of the range `(after, upto]` in ascending order, in blocks."""
    while True:
        found = connection.execute(
            f"SELECT chunk_id, data, crc FROM {space.table}"
            " WHERE chunk_id > ? AND chunk_id <= ? ORDER BY chunk_id LIMIT ?",
            (after, upto, size),
        ).fetchall()
        if not found:
            return
        for chunk_id, data, crc in found:
            vector_of(space, chunk_id, data, crc)
        ids = np.array([row[0] for row in found], dtype=np.int64)
        if (np.diff(ids, prepend=after) <= 0).any():  # a damaged page; the loop might never end
            raise damaged(space.table, int(ids[0]))
        joined = b"".join(row[1] for row in found)
        block = np.frombuffer(joined, dtype="<f4").reshape(len(ids), space.dimension)
        _require_unit(space, ids, block)
        yield ids, block
        after = int(ids[-1])


def _require_unit(space: Space, ids: NDArray[np.int64], block: NDArray[np.float32]) -> None:
    """Refuse vectors that are not finite or not of unit length; all stored vectors are."""
    wrong = ~are_unit(block)
    if wrong.any():
        raise damaged(space.table, int(ids[int(wrong.argmax())]))


class ChunkRows(Protocol):
    """A space or a series of segments: it names a table with a row for each live chunk."""

    @property
    def table(self) -> str:
        """Return a table, or a query in brackets, with a column `chunk_id`."""
        ...


def ids_between(
    connection: sqlite3.Connection, rows: ChunkRows, after: int, upto: int
) -> NDArray[np.int64]:
    """Return the live chunk ids of the range `(after, upto]`, ascending, int64."""
    found = connection.execute(
        f"SELECT chunk_id FROM {rows.table} WHERE chunk_id > ? AND chunk_id <= ? ORDER BY chunk_id",
        (after, upto),
    )
    return np.fromiter((row[0] for row in found), dtype=np.int64)


def count_between(connection: sqlite3.Connection, rows: ChunkRows, after: int, upto: int) -> int:
    """Return the number of live rows of the range `(after, upto]`."""
    number: int = connection.execute(
        f"SELECT count(*) FROM {rows.table} WHERE chunk_id > ? AND chunk_id <= ?", (after, upto)
    ).fetchone()[0]
    return number


def chunks_without_vector(
    connection: sqlite3.Connection, space: Space, ids: Sequence[int]
) -> set[int]:
    """Return those of some chunks of a space's chunking that have no vector in it yet."""
    found = connection.execute(
        "SELECT id FROM chunks WHERE chunking_id = ? AND id IN (SELECT value FROM json_each(?))"
        f" AND NOT EXISTS (SELECT 1 FROM {space.table} v WHERE v.chunk_id = chunks.id)",
        (space.chunking.id, json.dumps(list(ids))),
    )
    return {row[0] for row in found}


def vectors_by_text(
    connection: sqlite3.Connection, space: Space, hashes: Iterable[bytes]
) -> dict[bytes, bytes]:
    """Return the stored vector, as bytes, of each text that is already encoded in a space."""
    known: dict[bytes, bytes] = {}
    for wanted in hashes:
        row = connection.execute(
            f"SELECT v.chunk_id, v.data, v.crc FROM chunks c JOIN {space.table} v"
            " ON v.chunk_id = c.id WHERE c.text_hash = ? AND c.precomputed = 0 LIMIT 1",
            (wanted,),
        ).fetchone()
        if row is None:
            continue
        # A damaged vector is not used again: its text is encoded instead.
        with suppress(IndexCorrupt):
            vector = vector_of(space, *row)
            _require_unit(space, np.array([row[0]]), vector[None])
            known[wanted] = row[1]
    return known


def precomputed_vector(
    connection: sqlite3.Connection, space: Space, pk: int
) -> NDArray[np.float32] | None:
    """Return the embedding that was supplied with a document, or None."""
    row = connection.execute(
        f"SELECT v.chunk_id, v.data, v.crc FROM chunks c JOIN {space.table} v"
        " ON v.chunk_id = c.id WHERE c.document_pk = ? AND c.chunking_id = ? AND c.precomputed = 1",
        (pk, space.chunking.id),
    ).fetchone()
    if row is None:
        return None
    vector = vector_of(space, *row)
    _require_unit(space, np.array([row[0]]), vector[None])
    return vector


def vectors_of_document(
    connection: sqlite3.Connection, space: Space, pk: int
) -> NDArray[np.float32]:
    """Return the vectors of a document's chunks, in their order, float32 `(n, dimension)`."""
    found = connection.execute(
        f"SELECT v.chunk_id, v.data, v.crc FROM chunks c JOIN {space.table} v"
        " ON v.chunk_id = c.id WHERE c.document_pk = ? AND c.chunking_id = ? ORDER BY c.ordinal",
        (pk, space.chunking.id),
    ).fetchall()
    vectors = np.empty((len(found), space.dimension), np.float32)
    for row, (chunk_id, data, crc) in enumerate(found):
        vectors[row] = vector_of(space, chunk_id, data, crc)
    _require_unit(space, np.array([row[0] for row in found]), vectors)
    return vectors


def with_embeddings(
    connection: sqlite3.Connection, documents: Sequence[Document]
) -> list[Document]:
    """Return documents with the embeddings that were supplied with them."""
    space = active_space(connection)
    found = []
    for document in documents:
        pk = document_pk(connection, document.id or "")
        vector = None if pk is None else precomputed_vector(connection, space, pk)
        found.append(document if vector is None else replace(document, embedding=vector))
    return found

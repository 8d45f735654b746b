"""Chunks and token ledgers of a chunking."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from retriever.storage.catalog.documents import documents_where
from retriever.storage.json_columns import from_json
from retriever.storage.records import FileRow, StoredChunk
from retriever.storage.rows import chunk_of_row
from retriever.storage.table import damaged
from retriever.storage.tables import CHUNKS, DOCUMENTS, FILES, LEDGERS
from retriever.types import Chunk, Ledger

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNK_COLUMNS = len(CHUNKS.names)


def chunks_of(connection: sqlite3.Connection, pk: int, chunking_id: int) -> list[Chunk]:
    """Return a document's chunks in order; the checksum of its whole text is checked too."""
    documents_where(connection, "d.pk = ?", (pk,))
    found = connection.execute(
        "SELECT id FROM chunks WHERE document_pk = ? AND chunking_id = ? ORDER BY ordinal",
        (pk, chunking_id),
    )
    ids = [row[0] for row in found]
    stored = fetch_chunks(connection, ids)
    if lost := set(ids) - stored.keys():
        raise damaged("chunks", min(lost))
    return [stored[chunk_id].chunk for chunk_id in ids]


def fetch_chunks(connection: sqlite3.Connection, ids: Sequence[int]) -> dict[int, StoredChunk]:
    """Return chunks by id, each with its slice of the document's text.

    Raises:
        IndexCorrupt: A row's checksum does not match, or the slice is not valid UTF-8.
    """
    found = connection.execute(
        f"SELECT {CHUNKS.listed('c')}, {DOCUMENTS.listed('d')},"
        # substr of an empty blob is NULL
        " coalesce(substr(t.utf8, c.byte_start + 1, c.byte_end - c.byte_start), x''),"
        f" {FILES.listed('f')} FROM chunks c JOIN documents d ON d.pk = c.document_pk"
        " JOIN texts t ON t.document_pk = d.pk LEFT JOIN files f ON f.id = d.file_id"
        " WHERE c.id IN (SELECT value FROM json_each(?))",
        (json.dumps([int(chunk_id) for chunk_id in ids]),),
    )
    of_document = slice(_CHUNK_COLUMNS, _CHUNK_COLUMNS + len(DOCUMENTS.names))
    stored: dict[int, StoredChunk] = {}
    for row in found:
        chunk = CHUNKS.checked(row[:_CHUNK_COLUMNS])
        _, document_id, _, source, title, metadata, *_ = DOCUMENTS.checked(row[of_document])
        utf8, _, *of_file, _ = row[of_document.stop :]
        try:
            text = utf8.decode()
        except (UnicodeDecodeError, AttributeError) as exc:
            raise damaged("texts", document_id) from exc
        if len(utf8) != chunk[7] - chunk[6]:
            raise damaged("chunks", chunk[0])
        shown = from_json(metadata, dict, "documents", document_id)
        # Not checked further: it is used only to tell whether the file has changed.
        file = FileRow(*of_file) if isinstance(of_file[0], bytes) else None
        stored[chunk[0]] = StoredChunk(
            chunk_of_row(chunk, document_id, text), chunk[14], source, title, shown, file
        )
    return stored


def chunks_of_documents(connection: sqlite3.Connection, pks: Sequence[int]) -> NDArray[np.int64]:
    """Return the ids of all chunks of documents, in every chunking, int64."""
    found = connection.execute(
        "SELECT id FROM chunks WHERE document_pk IN (SELECT value FROM json_each(?))",
        (json.dumps(list(pks)),),
    )
    return np.fromiter((row[0] for row in found), dtype=np.int64)


def ledger_of(connection: sqlite3.Connection, chunking_id: int, pk: int) -> Ledger | None:
    """Return a document's ledger in a chunking, or None if it is not chunked there."""
    row = connection.execute(
        f"SELECT {LEDGERS.listed()} FROM ledgers WHERE document_pk = ? AND chunking_id = ?",
        (pk, chunking_id),
    ).fetchone()
    return Ledger(*LEDGERS.checked(row)[2:]) if row else None


def ledger_total(connection: sqlite3.Connection, chunking_id: int) -> Ledger:
    """Return the sum of a chunking's ledgers."""
    row = connection.execute(
        "SELECT coalesce(sum(tokens), 0), coalesce(sum(encoded), 0), coalesce(sum(unknown), 0)"
        " FROM ledgers WHERE chunking_id = ?",
        (chunking_id,),
    ).fetchone()
    return Ledger(*row)


def unfamiliar(
    connection: sqlite3.Connection, chunking_id: int, share: float
) -> list[tuple[str, float]]:
    """Return (id, share) of documents with more than `share` of their tokens unknown."""
    found = connection.execute(
        "SELECT d.id, 1.0 * l.unknown / l.tokens FROM ledgers l JOIN documents d"
        " ON d.pk = l.document_pk WHERE l.chunking_id = ? AND l.tokens > 0"
        " AND l.unknown > ? * l.tokens ORDER BY 2 DESC, 1",
        (chunking_id, share),
    )
    return [row for row in found if isinstance(row[0], str) and isinstance(row[1], float)]


def count_precomputed(connection: sqlite3.Connection, chunking_id: int) -> int:
    """Return the number of documents that were added with an embedding."""
    number: int = connection.execute(
        "SELECT count(DISTINCT document_pk) FROM chunks WHERE chunking_id = ? AND precomputed = 1",
        (chunking_id,),
    ).fetchone()[0]
    return number

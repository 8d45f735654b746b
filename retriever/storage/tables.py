"""The tables of this format, each described once; `FORMAT.md` explains them.

They are ordered by their references: a row refers only to rows of tables before its own.
"""

from __future__ import annotations

import sqlite3
from functools import lru_cache

from retriever.storage import records, rows
from retriever.storage.table import Column, Table

SETTINGS = Table(
    "settings",
    (Column("key", str), Column("value", str, json=True)),
    key=("key",),
    decode=rows.setting_of_row,
)
FILES = Table(
    "files",
    (
        Column("id", int),
        Column("path", bytes, unique=True),
        Column("state", str),
        Column("reason", str, null=True),
        Column("size", int, null=True),
        Column("mtime_ns", int, null=True),
        Column("inode", int, null=True),
        Column("ctime_ns", int, null=True),
        Column("sha256", bytes, null=True),
    ),
    key=("id",),
    never_reused=True,
    decode=rows.file_of_row,
)
DOCUMENTS = Table(
    "documents",
    (
        Column("pk", int),
        Column("id", str, unique=True),
        Column("file_id", int, null=True, references="files"),
        Column("source", str, null=True),
        Column("title", str, null=True),
        Column("metadata", str, json=True),
        Column("structure", str, json=True),
        Column("language", str, null=True),
    ),
    key=("pk",),
    never_reused=True,
    indexes={"documents_by_file": "file_id"},
)
TEXTS = Table(
    "texts",
    (Column("document_pk", int, references="documents"), Column("utf8", bytes)),
    key=("document_pk",),
    has_payload=True,
)
# The fields of documents, for filters. They are made from the documents, and no content themselves.
FIELDS = Table(
    "fields",
    (Column("id", int), Column("path", str, unique=True)),
    key=("id",),
    never_reused=True,
    is_content=False,
)
FIELD_VALUES = Table(
    "field_values",
    (
        # No references, and no index on documents, which would hold each value again: a document's
        # rows are found by what its metadata says.
        Column("field_id", int),
        Column("type", int),
        Column("value", bytes),
        Column("document_pk", int),
    ),
    # In the order in which filters read them: a value, or a range of values, of a field.
    key=("field_id", "type", "value", "document_pk"),
    is_content=False,
    has_crc=False,  # verify compares them with the documents
)
CHUNKINGS = Table(
    "chunkings",
    (
        Column("id", int),
        Column("state", str),
        Column("options", str, json=True),
        Column("cutter", str, json=True),
    ),
    key=("id",),
    never_reused=True,
    decode=rows.chunking_of_row,
)
CHUNKS = Table(
    "chunks",
    (
        Column("id", int),
        Column("chunking_id", int, references="chunkings"),
        Column("document_pk", int, references="documents"),
        Column("ordinal", int),
        Column("char_start", int),
        Column("char_end", int),
        Column("byte_start", int),
        Column("byte_end", int),
        Column("first_line", int),
        Column("last_line", int),
        Column("page", int, null=True),
        Column("heading", str, json=True),
        Column("tokens", int),
        Column("precomputed", int),
        Column("text_hash", bytes),
    ),
    key=("id",),
    never_reused=True,
    indexes={"chunks_by_document": "document_pk", "chunks_by_text": "text_hash"},
)
LEDGERS = Table(
    "ledgers",
    (
        Column("chunking_id", int, references="chunkings"),
        Column("document_pk", int, references="documents"),
        Column("tokens", int),
        Column("encoded", int),
        Column("unknown", int),
    ),
    # The document comes first, so that deleting one finds its ledgers by the key.
    key=("document_pk", "chunking_id"),
)
SPACES = Table(
    "spaces",
    (
        Column("id", int),
        Column("chunking_id", int, references="chunkings"),
        Column("kind", str),
        Column("state", str),
        Column("identity", str, json=True),
        Column("dimension", int),
        Column("dtype", str),
        Column("metric", str),
        Column("canaries", bytes),
    ),
    key=("id",),
    never_reused=True,
    decode=rows.space_of_row,
)
SEGMENTS = Table(
    "segments",
    (
        Column("id", int),
        Column("kind", str),
        Column("chunking_id", int, references="chunkings"),
        Column("space_id", int, null=True, references="spaces"),
        Column("first_id", int),
        Column("last_id", int),
        Column("row_count", int),
        Column("files", str, json=True),
        Column("params", str, json=True),
    ),
    key=("id",),
    never_reused=True,
    is_content=False,
    indexes={"segments_by_range": "chunking_id, kind, first_id"},
    decode=rows.segment_of_row,
)
TOMBSTONES = Table(
    "tombstones",
    (Column("chunk_id", int), Column("seq", int)),
    key=("chunk_id",),
    is_content=False,
    indexes={"tombstones_by_seq": "seq"},
)
COMMITS = Table(
    "commits",
    (
        Column("seq", int),
        Column("at", str),
        Column("n_added", int),
        Column("n_deleted", int),
        Column("live_sum", bytes),
        Column("chain", bytes),
    ),
    key=("seq",),
    is_content=False,
    has_crc=False,  # the chain covers each row
)
TABLES = (
    SETTINGS,
    FILES,
    DOCUMENTS,
    TEXTS,
    FIELDS,
    FIELD_VALUES,
    CHUNKINGS,
    CHUNKS,
    LEDGERS,
    SPACES,
    SEGMENTS,
    TOMBSTONES,
    COMMITS,
)


@lru_cache(maxsize=64)
def vectors_of(space_id: int) -> Table:
    """Return the description of the table that holds a space's vectors."""
    return Table(
        records.vectors_table(space_id),
        (Column("chunk_id", int, references="chunks"), Column("data", bytes)),
        key=("chunk_id",),
        has_payload=True,
    )


def tables_of(
    connection: sqlite3.Connection, tables: tuple[Table, ...] = TABLES
) -> tuple[Table, ...]:
    """Return the tables of a database, those of the vectors of its spaces last."""
    spaces = [row[0] for row in connection.execute("SELECT id FROM spaces ORDER BY id")]
    return (*tables, *(vectors_of(space) for space in spaces if isinstance(space, int)))

"""The texts that chunks are found by: their own, with title and headings, in order of chunk id."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from retriever.storage.json_columns import are, from_json
from retriever.storage.table import damaged
from retriever.storage.tables import CHUNKS, DOCUMENTS, TEXTS

_PAGE = 512
_TITLE, _LANGUAGE = map(DOCUMENTS.names.index, ("title", "language"))


class ChunkText(NamedTuple):
    """A chunk with what it is found by.

    Attributes:
        id: The id of the chunk.
        text: Its slice of the document's text.
        title: The document's title.
        heading: The headings above the chunk, outermost first.
        language: The document's language, ISO 639-1; None if it is unknown, and for code.
    """

    id: int
    text: str
    title: str | None
    heading: tuple[str, ...]
    language: str | None


class _Source(NamedTuple):
    """A document while its chunks are read."""

    pk: int
    utf8: bytes
    title: str | None
    language: str | None


def chunk_texts(
    connection: sqlite3.Connection, chunking_id: int, after: int, upto: int
) -> Iterator[ChunkText]:
    """Yield the chunks of a chunking in the range `(after, upto]` of chunk ids, ascending.

    Raises:
        IndexCorrupt: A row is damaged.
    """
    # A text is read once for all chunks of a document: `substr` in SQL would read it whole for
    # each of them.
    source = _Source(-1, b"", None, None)
    while page := connection.execute(
        f"SELECT {CHUNKS.listed()} FROM chunks"
        " WHERE chunking_id = ? AND id > ? AND id <= ? ORDER BY id LIMIT ?",
        (chunking_id, after, upto, _PAGE),
    ).fetchall():
        for row in page:
            chunk = CHUNKS.checked(row)
            if chunk[0] <= after:  # a damaged page; the loop might never end
                raise damaged("chunks", chunk[0])
            after = chunk[0]
            if source.pk != chunk[2]:
                source = _source(connection, chunk[2])
            heading = from_json(chunk[11], list, "chunks", after)
            if not are(str, *heading):
                raise damaged("chunks", after)
            text = _slice(source.utf8, chunk[6], chunk[7], after)
            yield ChunkText(after, text, source.title, tuple(heading), source.language)


def _source(connection: sqlite3.Connection, pk: int) -> _Source:
    row = connection.execute(
        f"SELECT {DOCUMENTS.listed('d')}, {TEXTS.listed('t')} FROM documents d"
        " JOIN texts t ON t.document_pk = d.pk WHERE d.pk = ?",
        (pk,),
    ).fetchone()
    if row is None:
        raise damaged("documents", pk)
    n_columns = len(DOCUMENTS.names)
    document = DOCUMENTS.checked(row[:n_columns])
    _, utf8 = TEXTS.checked(row[n_columns:])
    return _Source(pk, utf8, document[_TITLE], document[_LANGUAGE])


def _slice(utf8: bytes, start: int, end: int, chunk_id: int) -> str:
    if not 0 <= start <= end <= len(utf8):
        raise damaged("chunks", chunk_id)
    try:
        return utf8[start:end].decode()
    except UnicodeDecodeError as exc:
        raise damaged("chunks", chunk_id) from exc

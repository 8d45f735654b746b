"""Chunks of identical text, which searches show as one hit."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.storage import checksums
from retriever.storage.records import Space
from retriever.storage.table import damaged

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Text(NamedTuple):
    """The content that identical chunks have in common.

    Attributes:
        hash: The hash of the encoded text.
        embedding: The bytes of a supplied embedding, which may differ for equal texts; None where
            the encoder computed it.
    """

    hash: bytes
    embedding: bytes | None


class Passage(NamedTuple):
    """A chunk's document and its text, as far as other chunks share it.

    Attributes:
        document_pk: The primary key of its document.
        text: Its text if another chunk has the same and it is not empty; else None.
    """

    document_pk: int
    text: Text | None


_NO_TEXT = checksums.text_hash("")
_COPIES_READ = 64
_COPIES_NAMED = 10


def has_copies(connection: sqlite3.Connection, ids: Sequence[int]) -> bool:
    """Return whether any of the chunks shares its text with another chunk, in any chunking."""
    found = connection.execute(
        "SELECT 1 FROM chunks c WHERE c.id IN (SELECT value FROM json_each(?)) AND EXISTS"
        " (SELECT 1 FROM chunks o WHERE o.text_hash = c.text_hash AND o.id <> c.id) LIMIT 1",
        (json.dumps(list(ids)),),
    )
    return found.fetchone() is not None


def passages(
    connection: sqlite3.Connection, space: Space, ids: Sequence[int]
) -> dict[int, Passage]:
    """Return the document and the shared text of each chunk, by id."""
    found = connection.execute(
        "SELECT id, document_pk, text_hash,"
        " CASE WHEN text_hash IS NOT NULL AND precomputed = 1 THEN"
        f" (SELECT data FROM {space.table} WHERE chunk_id = id) END"
        " FROM (SELECT c.id, c.document_pk, c.precomputed, CASE WHEN EXISTS (SELECT 1 FROM chunks o"
        " WHERE o.text_hash = c.text_hash AND o.id <> c.id) THEN c.text_hash END AS text_hash"
        " FROM chunks c WHERE c.id IN (SELECT value FROM json_each(?)))",
        (json.dumps(list(ids)),),
    )
    known = {}
    for chunk_id, pk, name, embedding in found:
        if type(pk) is not int or not _are_bytes(name, embedding):
            raise damaged("chunks", chunk_id)
        text = None if name is None or name == _NO_TEXT else Text(name, embedding)
        known[chunk_id] = Passage(pk, text)
    if lost := set(ids) - known.keys():
        raise damaged("chunks", min(lost))
    return known


def _are_bytes(*values: object) -> bool:
    return all(value is None or type(value) is bytes for value in values)


def chunks_of_text(connection: sqlite3.Connection, space: Space, text: Text) -> NDArray[np.int64]:
    """Return the ids of all chunks with a given text, ascending, int64."""
    found = connection.execute(
        "SELECT id FROM chunks WHERE text_hash = ? AND chunking_id = ? AND precomputed = 0"
        " ORDER BY id"
        if text.embedding is None
        else f"SELECT c.id FROM chunks c JOIN {space.table} v ON v.chunk_id = c.id"
        " WHERE c.text_hash = ? AND c.chunking_id = ? AND c.precomputed = 1 AND v.data = ?"
        " ORDER BY c.id",
        (text.hash, space.chunking.id, *([] if text.embedding is None else [text.embedding])),
    )
    return np.fromiter((row[0] for row in found), dtype=np.int64)


def with_equal_vector(
    connection: sqlite3.Connection, space: Space, ids: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return those of `ids[1:]` whose vector equals that of `ids[0]`, int64."""
    found = connection.execute(
        f"SELECT chunk_id FROM {space.table} WHERE chunk_id IN (SELECT value FROM json_each(?))"
        f" AND data = (SELECT data FROM {space.table} WHERE chunk_id = ?) ORDER BY chunk_id",
        (json.dumps(ids[1:].tolist()), int(ids[0])),
    )
    return np.fromiter((row[0] for row in found), dtype=np.int64)


def documents_with(
    connection: sqlite3.Connection, chunk_ids: NDArray[np.int64], but: int
) -> tuple[str, ...]:
    """Return the ids of at most 10 documents of some chunks, without the one with key `but`.

    Only the first 64 chunks are read, which bounds the cost if one document has many of them.
    """
    found = connection.execute(
        "SELECT d.id FROM json_each(?) j JOIN chunks c ON c.id = j.value"
        " JOIN documents d ON d.pk = c.document_pk WHERE d.pk <> ? ORDER BY c.id",
        (json.dumps(chunk_ids[:_COPIES_READ].tolist()), but),
    )
    return tuple(dict.fromkeys(row[0] for row in found))[:_COPIES_NAMED]

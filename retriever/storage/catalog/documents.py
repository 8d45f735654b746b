"""Documents by id and in order, documents that a space lacks, and ids similar to a given one."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from retriever.errors import IndexCorrupt
from retriever.storage.records import Space
from retriever.storage.rows import document_of_row, text_of
from retriever.storage.table import damaged
from retriever.storage.tables import DOCUMENTS, TEXTS
from retriever.types import Document

_PAGE = 64
_SIMILAR = 300
_LONGEST_TYPED = 1_000
_DOCUMENT_COLUMNS = len(DOCUMENTS.names)


def document(connection: sqlite3.Connection, document_id: str) -> Document | None:
    """Return a document by id."""
    found = documents_where(connection, "d.id = ?", (document_id,))
    return found[0][1] if found else None


def document_pks(connection: sqlite3.Connection, ids: Iterable[str]) -> dict[str, int]:
    """Return the primary keys of those of some documents that are in the index."""
    known: dict[str, int] = {}
    wanted = list(ids)
    # Bound one by one, because json_each cuts a string at a NUL character.
    for start in range(0, len(wanted), _PAGE):
        some = wanted[start : start + _PAGE]
        marks = ", ".join("?" * len(some))
        found = connection.execute(f"SELECT id, pk FROM documents WHERE id IN ({marks})", some)
        known.update(found.fetchall())
    return known


def document_pk(connection: sqlite3.Connection, document_id: str) -> int | None:
    """Return a document's primary key."""
    row = connection.execute("SELECT pk FROM documents WHERE id = ?", (document_id,)).fetchone()
    return row[0] if row else None


def documents_after(connection: sqlite3.Connection, document_id: str) -> list[Document]:
    """Return the next page of documents, in order of id."""
    found = documents_where(connection, "d.id > ? ORDER BY d.id LIMIT ?", (document_id, _PAGE))
    page = [document for _, document in found]
    _require_ascending("documents", [document_id, *(document.id for document in page)])
    return page


def documents_by_pk(connection: sqlite3.Connection, pks: Sequence[int]) -> list[Document]:
    """Return documents by primary key, in the order given, less those that are not there."""
    wanted = json.dumps(list(pks))
    found = dict(documents_where(connection, "d.pk IN (SELECT value FROM json_each(?))", (wanted,)))
    return [found[pk] for pk in pks if pk in found]


def _require_ascending(table: str, keys: Sequence[Any]) -> None:
    """Refuse keys that do not ascend: on a damaged page, reading on might never end."""
    for one, following in itertools.pairwise(keys):
        if one >= following:
            raise damaged(table, following)


def existing_pks(connection: sqlite3.Connection, pks: Sequence[int]) -> set[int]:
    """Return those primary keys of documents that are in the catalog."""
    return {
        pk
        for pk in pks
        if connection.execute("SELECT 1 FROM documents WHERE pk = ?", (pk,)).fetchone()
    }


def existing_ids(connection: sqlite3.Connection, ids: Iterable[str]) -> set[str]:
    """Return which of `ids` are documents of the index."""
    return set(document_pks(connection, ids))


# Documents `d` that are incomplete in a space: they have no ledger, so they are not chunked for its
# chunking, or one of their chunks has no vector in it yet.
_INCOMPLETE = (
    "(NOT EXISTS (SELECT 1 FROM ledgers l WHERE l.document_pk = d.pk AND l.chunking_id = {0})"
    " OR EXISTS (SELECT 1 FROM chunks c WHERE c.document_pk = d.pk AND c.chunking_id = {0}"
    " AND NOT EXISTS (SELECT 1 FROM {1} v WHERE v.chunk_id = c.id)))"
)


def _incomplete(space: Space) -> str:
    return _INCOMPLETE.format(int(space.chunking.id), space.table)


def count_incomplete(connection: sqlite3.Connection, space: Space) -> tuple[int, int]:
    """Return the number of documents that are incomplete in a space, and their texts' bytes."""
    count, size = connection.execute(
        "SELECT count(*), coalesce(sum(length(t.utf8)), 0) FROM documents d"
        f" JOIN texts t ON t.document_pk = d.pk WHERE {_incomplete(space)}"
    ).fetchone()
    return count, size


def incomplete_documents(
    connection: sqlite3.Connection, space: Space, limit: int, after_pk: int = 0
) -> list[tuple[int, Document]]:
    """Return (pk, document) of documents after a primary key that are incomplete in a space."""
    condition = f"d.pk > ? AND {_incomplete(space)} ORDER BY d.pk LIMIT ?"
    found = documents_where(connection, condition, (after_pk, limit))
    _require_ascending("documents", [after_pk, *(pk for pk, _ in found)])
    return found


def has_unchunked(connection: sqlite3.Connection, chunking_id: int) -> bool:
    """Return whether any document is not chunked for a chunking."""
    found = connection.execute(
        "SELECT 1 FROM documents d WHERE NOT EXISTS (SELECT 1 FROM ledgers l"
        " WHERE l.document_pk = d.pk AND l.chunking_id = ?) LIMIT 1",
        (chunking_id,),
    )
    return found.fetchone() is not None


def documents_where(
    connection: sqlite3.Connection, condition: str, values: tuple[Any, ...]
) -> list[tuple[int, Document]]:
    """Return (pk, document) of the documents `d` that meet an SQL condition."""
    found = connection.execute(
        f"SELECT {DOCUMENTS.listed('d')}, {TEXTS.listed('t')} FROM documents d"
        f" LEFT JOIN texts t ON t.document_pk = d.pk WHERE {condition}",
        values,
    )
    return [(row[0], document_with_text(row)) for row in found]


def document_with_text(row: Sequence[Any]) -> Document:
    """Return the document of a row that joins `documents` and `texts`, both checked."""
    values = DOCUMENTS.checked(row[:_DOCUMENT_COLUMNS])
    try:
        utf8 = TEXTS.checked(row[_DOCUMENT_COLUMNS:])[1]
    except IndexCorrupt as exc:
        raise damaged("texts", values[1]) from exc
    return document_of_row(values, text_of(utf8, values[1]))


def similar_ids(connection: sqlite3.Connection, wanted: str) -> list[str]:
    """Return up to 20 document ids that resemble a mistyped one, most similar first.

    Candidates are the ids next to it in sorted order and, among the first 50,000, those with the
    same second half (for a typing error in the first half) or that differ only in case. It takes a
    few milliseconds, however many documents there are.
    """
    if len(wanted) > _LONGEST_TYPED:
        return []
    half = max((len(wanted) - 1) // 2, 1)
    near = itertools.chain(
        connection.execute(
            f"SELECT id FROM documents WHERE id < ? ORDER BY id DESC LIMIT {_SIMILAR}", (wanted,)
        ),
        connection.execute(
            f"SELECT id FROM documents WHERE id >= ? ORDER BY id LIMIT {_SIMILAR}", (wanted,)
        ),
        connection.execute(
            "SELECT id FROM (SELECT id FROM documents LIMIT 50000)"
            f" WHERE substr(id, ?) = ? OR lower(id) = lower(?) LIMIT {_SIMILAR}",
            (-half, wanted[-half:], wanted),
        ),
    )
    found = dict.fromkeys(row[0] for row in near if isinstance(row[0], str))
    return sorted(found, key=lambda name: -_shared(name.lower(), wanted.lower()))[:20]


def _shared(one: str, other: str) -> int:
    """Return the number of characters that two names share at their beginnings and ends."""
    before = _alike(one, other)
    return before + _alike(one[before:][::-1], other[before:][::-1])


def _alike(one: str, other: str) -> int:
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return sum(1 for _ in alike)

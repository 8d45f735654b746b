"""The rows of filterable fields: they are written with a document, and say what its metadata says.

They hold nothing that the documents do not: `verify` compares the two, and a repair makes them
again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from retriever.errors import IndexCorrupt
from retriever.field_values import FieldRow, fields_of
from retriever.storage import catalog
from retriever.storage.check import Check
from retriever.storage.json_columns import from_json
from retriever.storage.table import damaged
from retriever.storage.tables import DOCUMENTS, FIELD_VALUES, FIELDS

if TYPE_CHECKING:
    from retriever.storage.writer import Writer


class FieldRows:
    """Writes the rows of documents' fields, in a transaction of the caller."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._ids: dict[str, int] = {}

    def add(
        self,
        pk: int,
        metadata: Mapping[str, Any],
        source: str | None,
        title: str | None,
        language: str | None,
    ) -> None:
        """Write the rows of a document that has none."""
        self._insert(pk, fields_of(metadata, source=source, title=title, language=language))

    def add_row(self, row: Sequence[Any]) -> None:
        """Write the rows of a document, given its row of `documents` without the checksum.

        Raises:
            IndexCorrupt: The row holds metadata that no version writes.
        """
        self._insert(row[0], fields_of_row(row))

    def replace_row(self, row: Sequence[Any]) -> None:
        """Write the rows of a document again, as its row of `documents` now is."""
        self._connection.execute("DELETE FROM field_values WHERE document_pk = ?", (row[0],))
        self.add_row(row)

    def _insert(self, pk: int, found: Iterable[FieldRow]) -> None:
        ids = self._ids
        rows = [
            (ids.get(path) or self._id(path), int(kind), data, pk) for path, kind, data in found
        ]
        self._connection.executemany(FIELD_VALUES.insert_sql, rows)

    def _id(self, path: str) -> int:
        """Return the id of a field, a new one if no document has it yet."""
        found = self._connection.execute(
            f"SELECT {FIELDS.listed()} FROM fields WHERE path = ?", (path,)
        ).fetchone()
        if found is None:
            number = catalog.next_id(self._connection, FIELDS)
            self._connection.execute(FIELDS.insert_sql, FIELDS.seal((number, path)))
        else:
            number = int(FIELDS.checked(found)[0])
        self._ids[path] = number
        return number


def remove_unused_fields(writer: Writer) -> None:
    """Remove the fields that no document has any more, names and all."""
    with writer.maintenance() as connection:
        connection.execute(
            "DELETE FROM fields WHERE NOT EXISTS"
            " (SELECT 1 FROM field_values v WHERE v.field_id = fields.id)"
        )


def fields_of_row(row: Sequence[Any]) -> list[FieldRow]:
    """Return the fields of a document, given its row of `documents` without the checksum.

    Raises:
        IndexCorrupt: The row holds metadata that no version writes.
    """
    _, document_id, _, source, title, metadata, _, language = row
    said = from_json(metadata, dict, "documents", document_id)
    try:
        return list(fields_of(said, source=source, title=title, language=language))
    except ValueError as exc:
        raise damaged("documents", document_id) from exc


def check_fields(check: Check, connection: sqlite3.Connection) -> None:
    """Check that the fields of each document are exactly those that its row of `documents` says.

    The rows are read from the index on documents. That index and the table, which filters read,
    have the same rows: SQLite's own check of the database compares them.
    """
    paths = {
        row[0]: row[1]
        for row in connection.execute(f"SELECT {FIELDS.listed()} FROM fields")
        if FIELDS.is_sound(row)  # a damaged one is reported with the rows of other tables
    }
    total = 0
    for row in connection.execute(f"SELECT {DOCUMENTS.listed()} FROM documents"):
        if not DOCUMENTS.is_sound(row):
            continue  # reported with the documents
        try:
            wanted = set(fields_of_row(row[:-1]))
        except IndexCorrupt as exc:
            check.blame(f"document {row[1]!r}: {exc.message}")
            continue
        found = {
            (paths.get(field_id), kind, data)
            for field_id, kind, data in connection.execute(
                "SELECT field_id, type, value FROM field_values WHERE document_pk = ?", (row[0],)
            )
        }
        total += len(found)
        if found != wanted:
            check.blame(_difference(row[1], found, wanted))
    check.detail = f"{total:,} values of {len(paths):,} fields"


def _difference(document_id: str, found: set[Any], wanted: set[FieldRow]) -> str:
    """Say in which fields a document has other values than its metadata."""
    paths = sorted({row[0] or "(unknown)" for row in found ^ wanted})
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    named = ", ".join(map(repr, paths[:3]))
    return f"document {document_id!r}: its rows of fields differ from its metadata in {named}{more}"

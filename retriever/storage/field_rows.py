"""The rows of filterable fields: they are written with a document, and say what its metadata says.

They hold nothing that the documents do not: `verify` compares the two, and a repair makes them
again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

    def remove(self, row: Sequence[Any]) -> None:
        """Remove the rows of a document, given its row of `documents` without the checksum."""
        found = self._numbered(row[0], fields_of_row(row))
        where = " AND ".join(f"{name} = ?" for name in FIELD_VALUES.key)
        removed = self._connection.executemany(f"DELETE FROM field_values WHERE {where}", found)
        if removed.rowcount < len(found):  # some are damaged; all are looked at
            self._connection.execute("DELETE FROM field_values WHERE document_pk = ?", (row[0],))

    def _insert(self, pk: int, found: Iterable[FieldRow]) -> None:
        self._connection.executemany(FIELD_VALUES.insert_sql, self._numbered(pk, found))

    def _numbered(self, pk: int, found: Iterable[FieldRow]) -> list[tuple[int, int, bytes, int]]:
        ids = self._ids
        return [
            (ids.get(path) or self._id(path), int(kind), data, pk) for path, kind, data in found
        ]

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

    For each document the hashes of its rows are added up, as the table is in order of values. A
    document is looked at row by row only where the sums differ.
    """
    sums: dict[int, int] = {}
    wrong: dict[int, str] = {}
    for row in connection.execute(f"SELECT {DOCUMENTS.listed()} FROM documents"):
        sums[row[0]] = 0
        if not DOCUMENTS.is_sound(row):
            wrong[row[0]] = ""  # reported with the documents
            continue
        try:
            sums[row[0]] = sum(map(hash, set(fields_of_row(row[:-1]))))
        except IndexCorrupt as exc:
            wrong[row[0]] = f"document {row[1]!r}: {exc.message}"
    total, strays = 0, set()
    for pk, *found in _rows(connection):
        total += 1
        if pk not in sums:
            strays.add(pk)
        elif type(found[2]) is not bytes:  # a string has the hash of its bytes
            wrong[pk] = f"document {pk}: a value of its field {found[0]!r} is {found[2]!r}"
        else:
            sums[pk] -= hash(tuple(found))
    differing = {pk for pk, left in sums.items() if left} - wrong.keys()
    for problem in (*wrong.values(), *_differences(connection, differing)):
        if problem:
            check.blame(problem)
    for pk in sorted(strays, key=str):
        check.blame(f"fields of document {pk}, which does not exist")
    check.detail = f"{total:,} values of {catalog.count(connection, 'fields'):,} fields"


def _rows(connection: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    """Yield (primary key of the document, path, type, value) of rows of fields."""
    # LEFT JOIN, so that a row whose field is lost is seen.
    return connection.execute(
        "SELECT v.document_pk, f.path, v.type, v.value FROM field_values v"
        " LEFT JOIN fields f ON f.id = v.field_id"
    )


def _differences(connection: sqlite3.Connection, pks: set[int]) -> Iterator[str]:
    """Say for each of some documents in which fields it has other values than its metadata."""
    held: dict[int, set[tuple[Any, ...]]] = {pk: set() for pk in pks}
    if pks:
        for pk, *found in _rows(connection):
            if pk in held:
                held[pk].add(tuple(found))
    for pk in sorted(pks):
        row = connection.execute(f"SELECT {DOCUMENTS.listed()} FROM documents WHERE pk = ?", (pk,))
        values = row.fetchone()[:-1]
        paths = sorted({one[0] or "(unknown)" for one in held[pk] ^ set(fields_of_row(values))})
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        named = ", ".join(map(repr, paths[:3]))
        yield f"document {values[1]!r}: fields differ from its metadata: {named}{more}"

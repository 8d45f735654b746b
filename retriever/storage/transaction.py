"""The changes of one commit, row by row, with the change of `live_sum` that they make."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from retriever import names
from retriever.canonical import structure_of, to_json
from retriever.storage import catalog, rows, schema
from retriever.storage.field_rows import FieldRows
from retriever.storage.records import FileRow, Space, StoredChunking
from retriever.storage.table import Table, damaged
from retriever.storage.tables import (
    CHUNKINGS,
    CHUNKS,
    DOCUMENTS,
    FILES,
    LEDGERS,
    SETTINGS,
    SPACES,
    TABLES,
    TEXTS,
    TOMBSTONES,
    tables_of,
    vectors_of,
)
from retriever.types import Chunk, Document, Ledger

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PAGE = 256


@dataclass(frozen=True, slots=True)
class Encoded:
    """A document's chunks, ready to be stored.

    Attributes:
        chunks: In order.
        hashes: The hash of each chunk's encoded text.
        vectors: float32 `(len(chunks), dimension)`, rows of unit length.
        precomputed: Whether the caller supplied the embedding; such a vector is never reused.
    """

    chunks: Sequence[Chunk]
    hashes: Sequence[bytes]
    vectors: NDArray[np.float32]
    ledger: Ledger
    precomputed: bool = False


class Transaction:
    """The changes of one commit; `live` is their sum, which the commit adds to `live_sum`.

    `is_committed` becomes True at the commit point, so that a caller that is interrupted before
    the acknowledgement can tell whether the commit was made.
    """

    def __init__(
        self, connection: sqlite3.Connection, seq: int, described: tuple[Table, ...] = TABLES
    ) -> None:
        self._described = described
        self.connection = connection
        self.seq = seq
        self.n_added = 0
        self.n_deleted = 0
        self.live = 0
        self.touched = False
        self.is_committed = False
        self._fields = FieldRows(connection)
        self._next_ids: dict[str, int] = {}
        self._tables: tuple[Table, ...] | None = None

    # --- rows of any table -------------------------------------------------------------------

    def insert(self, table: Table, rows: Iterable[Sequence[Any]]) -> None:
        """Insert rows, given without their checksums."""
        sealed = []
        for values in rows:
            row, digest = table.seal_and_digest(values)
            self.live += digest
            sealed.append(row)
        if sealed:
            self.connection.executemany(table.insert_sql, sealed)
            self.touched = True

    def update(self, table: Table, old: Sequence[Any], new: Sequence[Any]) -> None:
        """Replace a row by one with the same key; both are given without their checksums."""
        sealed, digest = table.seal_and_digest(new)
        self.connection.execute(table.update_sql, (*sealed, *table.key_of(old)))
        self.live += digest - table.digest(old)
        self.touched = True

    def delete(self, table: Table, column: str, keys: Sequence[int]) -> None:
        """Delete the rows whose `column` is in `keys`, and all rows that refer to them."""
        wanted = f"FROM {table.name} WHERE {column} IN (SELECT value FROM json_each(?))"
        for start in range(0, len(keys), _PAGE):
            listed = json.dumps(keys[start : start + _PAGE])
            rows = self.connection.execute(f"SELECT {table.listed()} {wanted}", (listed,))
            found = [table.checked(row) for row in rows]
            if not found:
                continue
            if table.integer_key:
                own = [table.key_of(values)[0] for values in found]
                # First, because SQLite checks references after each statement. ON DELETE CASCADE is
                # not used, since the digest of every deleted row must be subtracted from the sum.
                for other, reference in self._dependants(table):
                    self.delete(other, reference, own)
            self.live -= sum(table.digest(values) for values in found)
            self.connection.execute(f"DELETE {wanted}", (listed,))
            self.touched = True

    def _dependants(self, table: Table) -> Iterator[tuple[Table, str]]:
        """Yield (table, column) for each column that references a table."""
        if self._tables is None:
            self._tables = tables_of(self.connection, self._described)
        for other in self._tables:
            for column in other.references(table):
                yield other, column

    def _row(self, table: Table, condition: str, *values: Any) -> Sequence[Any] | None:
        """Return the checked values of the row that meets a condition, or None."""
        row = self.connection.execute(
            f"SELECT {table.listed()} FROM {table.name} WHERE {condition}", values
        ).fetchone()
        return table.checked(row) if row else None

    def _remove(self, table: Table, values: Sequence[Any]) -> None:
        """Delete one row that no other row refers to."""
        where = " AND ".join(f"{name} = ?" for name in table.key)
        self.connection.execute(f"DELETE FROM {table.name} WHERE {where}", table.key_of(values))
        self.live -= table.digest(values)
        self.touched = True

    def put_setting(self, name: str, value: str) -> None:
        """Set a setting."""
        old = self._row(SETTINGS, "key = ?", name)
        if old is None:
            self.insert(SETTINGS, [(name, value)])
        else:
            self.update(SETTINGS, old, (name, value))

    # --- files -------------------------------------------------------------------------------

    def put_file(self, row: FileRow, old: Sequence[Any] | None = None) -> int:
        """Insert or update a file and return its id; `old` is the row of a file to rename."""
        old = old or self._row(FILES, "path = ?", row.path)
        if old is None:
            file_id = catalog.next_id(self.connection, FILES)
            self.insert(FILES, [(file_id, *row)])
            return file_id
        # An equal row is left alone, so that a run in which no file changed makes no commit.
        if tuple(old[1:]) != tuple(row):
            self.update(FILES, old, (old[0], *row))
        return int(old[0])

    def forget_file(self, path: bytes) -> None:
        """Remove a file, whose documents must have been deleted before."""
        old = self._row(FILES, "path = ?", path)
        if old is not None:
            self._remove(FILES, old)

    def rename_file(self, old: bytes, new: bytes, covered: int) -> None:
        """Rename a file, and change the ids and sources of its documents accordingly.

        A file that had the new name, and documents that had the new ids, are deleted. `covered` is
        as for `delete_document`.
        """
        row = self._row(FILES, "path = ?", old)
        if row is None:
            return
        for document_id in catalog.ids_of_file(self.connection, new):
            self.delete_document(document_id, covered)
        self.forget_file(new)
        self.put_file(rows.file_of_row(row)._replace(path=new), row)
        for document_id in catalog.ids_of_file(self.connection, new):
            before, after = names.id_of(old), names.id_of(new)
            if document_id != before and not document_id.startswith(f"{before}#"):
                continue
            renamed = after + document_id[len(before) :]
            self.delete_document(renamed, covered)
            self._rename_document(document_id, renamed, names.of_path(old), names.of_path(new))

    def _rename_document(self, old: str, new: str, old_source: str, new_source: str) -> None:
        row = self._row(DOCUMENTS, "id = ?", old)
        if row is None:
            raise damaged("documents", old)
        pk, _, file_id, source, *rest = row
        source = new_source if source == old_source else source
        renamed = (pk, new, file_id, source, *rest)
        self.update(DOCUMENTS, row, renamed)
        self._fields.remove(row)
        self._fields.add_row(renamed)

    # --- documents ---------------------------------------------------------------------------

    def add_document(
        self,
        space: Space,
        document: Document,
        encoded: Encoded,
        file_id: int | None,
        language: str | None = None,
    ) -> None:
        """Insert a document with its fields and chunks; its id must be free.

        `language` is that of its text, as an ISO 639-1 code; None if it is not known.
        """
        (pk,) = self._new_ids(DOCUMENTS, 1)
        values = (
            pk,
            document.id,
            file_id,
            document.source,
            document.title,
            to_json(document.metadata),
            to_json(structure_of(document)),
            language,
        )
        self.insert(DOCUMENTS, [values])
        self._fields.add(pk, document.metadata, document.source, document.title, language)
        self.insert(TEXTS, [(pk, document.text.encode())])
        self.n_added += 1
        self.add_chunks(space, pk, encoded)

    def add_chunks(self, space: Space, pk: int, encoded: Encoded) -> None:
        """Insert a document's chunks and ledger in a space's chunking, and their vectors."""
        chunk_ids = self._new_ids(CHUNKS, len(encoded.chunks))
        parts = zip(chunk_ids, encoded.chunks, encoded.hashes, strict=True)
        self.insert(
            CHUNKS,
            (
                (
                    chunk_id,
                    space.chunking.id,
                    pk,
                    chunk.ordinal,
                    *chunk.span,
                    *chunk.byte_span,
                    *chunk.lines,
                    chunk.page,
                    to_json(chunk.heading),
                    chunk.tokens,
                    int(encoded.precomputed),
                    text_hash,
                )
                for chunk_id, chunk, text_hash in parts
            ),
        )
        self.add_vectors(space, chunk_ids, encoded.vectors)
        ledger = encoded.ledger
        counts = (space.chunking.id, pk, ledger.tokens, ledger.encoded, ledger.unknown)
        self.insert(LEDGERS, [counts])

    def add_vectors(
        self, space: Space, chunk_ids: Sequence[int], vectors: NDArray[np.float32]
    ) -> None:
        """Insert the vectors of chunks, `(len(chunk_ids), dimension)`, in a space."""
        rows = zip(chunk_ids, space.format.encode(vectors), strict=True)
        self.insert(vectors_of(space.id), rows)

    def _new_ids(self, table: Table, count: int) -> range:
        """Reserve ids that `table` has never used, within this transaction."""
        if table.name not in self._next_ids:
            self._next_ids[table.name] = catalog.next_id(self.connection, table)
        first = self._next_ids[table.name]
        self._next_ids[table.name] = first + count
        return range(first, first + count)

    def delete_document(self, document_id: str, covered: int) -> bool:
        """Delete a document and all rows that refer to it; return whether it existed.

        Args:
            document_id: The id of the document.
            covered: The last chunk id that segments of the active chunking cover; deleted chunks
                up to it leave a tombstone.
        """
        row = self._row(DOCUMENTS, "id = ?", document_id)
        if row is None:
            return False
        self._bury(row[0], covered)
        self._fields.remove(row)
        self.delete(DOCUMENTS, "pk", [row[0]])
        self.n_deleted += 1
        return True

    def delete_chunks(self, chunking: StoredChunking, pk: int, covered: int) -> None:
        """Delete a document's chunks, with their vectors, and its ledger of one chunking."""
        if chunking.state == "active":
            self._bury(pk, covered)
        found = self.connection.execute(
            "SELECT id FROM chunks WHERE document_pk = ? AND chunking_id = ?", (pk, chunking.id)
        )
        self.delete(CHUNKS, "id", [chunk_id for (chunk_id,) in found])
        ledger = self._row(LEDGERS, "document_pk = ? AND chunking_id = ?", pk, chunking.id)
        if ledger is not None:
            self._remove(LEDGERS, ledger)

    def _bury(self, pk: int, covered: int) -> None:
        """Write a tombstone for each chunk of a document that a segment holds, before its deletion.

        Segments are immutable and keep the vector; searches leave out chunks with a
        tombstone. Only chunks of the active chunking are in segments that are searched. Chunks in
        the tail, after `covered`, are read from the database and need none.
        """
        found = self.connection.execute(
            "SELECT c.id FROM chunks c JOIN chunkings k ON k.id = c.chunking_id"
            " WHERE c.document_pk = ? AND c.id <= ? AND k.state = 'active'",
            (pk, covered),
        ).fetchall()
        self.connection.executemany(
            "INSERT OR REPLACE INTO tombstones VALUES (?, ?, ?)",
            [TOMBSTONES.seal((chunk_id, self.seq)) for (chunk_id,) in found],
        )

    # --- spaces ------------------------------------------------------------------------------

    def add_space(self, space: Space) -> Space:
        """Insert a space with an empty table of vectors, and return it with its id.

        Its chunking is inserted too if it has no id yet.
        """
        chunking = space.chunking
        if not chunking.id:
            chunking = replace(chunking, id=catalog.next_id(self.connection, CHUNKINGS))
            self.insert(CHUNKINGS, [rows.values_of_chunking(chunking)])
        stored = replace(space, id=catalog.next_id(self.connection, SPACES), chunking=chunking)
        schema.create_vectors(self.connection, stored.id)
        self._tables = None
        self.insert(SPACES, [rows.values_of_space(stored)])
        return stored

    def replace_space(self, old: Space, new: Space) -> None:
        """Activate a complete space and drop the old active one.

        The old space's chunking is dropped with it, unless the new space uses the same one.
        """
        # The old one goes first: `catalog.spaces` refuses two active spaces of a kind as damage.
        self.drop_space(old)
        for table, key in ((CHUNKINGS, new.chunking.id), (SPACES, new.id)):
            row = self._row(table, "id = ?", key)
            if row is None:
                raise damaged(table.name, key)
            state = table.names.index("state")
            self.update(table, row, (*row[:state], "active", *row[state + 1 :]))

    def drop_space(self, space: Space) -> None:
        """Delete a space with its vectors and segments, and its chunking if no other uses it."""
        # First, because rows of segments refer to the space.
        self.connection.execute("DELETE FROM segments WHERE space_id = ?", (space.id,))
        self._drop_vectors(space)
        self._remove_by_id(SPACES, space.id)
        if all(one.chunking.id != space.chunking.id for one in catalog.spaces(self.connection)):
            self._drop_chunking(space.chunking)
        # Tombstones are of use only as long as there are segments.
        self.connection.execute("DELETE FROM tombstones WHERE NOT EXISTS (SELECT 1 FROM segments)")

    def _drop_vectors(self, space: Space) -> None:
        # The table is dropped whole, but every row is read, to subtract its digest from the sum.
        table, last = vectors_of(space.id), -1
        select = f"SELECT {table.listed()} FROM {table.name} WHERE chunk_id > ?"
        while page := self.connection.execute(
            f"{select} ORDER BY chunk_id LIMIT {_PAGE}", (last,)
        ).fetchall():
            self.live -= sum(table.digest(table.checked(row)) for row in page)
            if page[-1][0] <= last:  # a damaged page; the loop might never end
                raise damaged(table.name, last)
            last = page[-1][0]
        schema.drop_vectors(self.connection, space.id)
        self._tables = None

    def _drop_chunking(self, chunking: StoredChunking) -> None:
        # A document without any text has a ledger but no chunks.
        pks = self.connection.execute(
            "SELECT document_pk FROM ledgers WHERE chunking_id = ?"
            " UNION SELECT document_pk FROM chunks WHERE chunking_id = ?",
            (chunking.id, chunking.id),
        ).fetchall()
        for (pk,) in pks:
            # As if it were not active: its segments are deleted too, so no chunk needs a tombstone.
            self.delete_chunks(replace(chunking, state="building"), pk, 0)
        self.connection.execute("DELETE FROM segments WHERE chunking_id = ?", (chunking.id,))
        self._remove_by_id(CHUNKINGS, chunking.id)

    def _remove_by_id(self, table: Table, key: int) -> None:
        row = self._row(table, "id = ?", key)
        if row is None:
            raise damaged(table.name, key)
        self._remove(table, row)

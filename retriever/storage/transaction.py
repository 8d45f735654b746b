"""The changes of one commit, row by row, and what they add to `live_sum`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from retriever import names
from retriever.canonical import structure_of, to_json
from retriever.storage import catalog, checksums, records, schema
from retriever.storage.records import FileRow, Space
from retriever.types import Chunk, Document, Ledger

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Encoded:
    """A document's chunks, ready to be stored.

    Attributes:
        chunks: In order.
        hashes: Hash of the text that was encoded for each chunk.
        vectors: float32 `(len(chunks), dimension)`, rows of unit length.
        supplied: Whether the caller brought the embedding; such a vector is never reused.
    """

    chunks: Sequence[Chunk]
    hashes: Sequence[bytes]
    vectors: NDArray[np.float32]
    ledger: Ledger
    supplied: bool = False


class Transaction:
    """The changes of one commit; `live` is what they add to `live_sum`.

    `is_committed` turns true at the commit point, so that a caller who is interrupted between it
    and the acknowledgement knows.
    """

    def __init__(self, connection: sqlite3.Connection, seq: int) -> None:
        self.connection = connection
        self.seq = seq
        self.n_added = 0
        self.n_deleted = 0
        self.live = 0
        self.touched = False
        self.is_committed = False
        self._next_ids: dict[str, int] = {}

    def _insert(self, sql: str, packed: bytes, values: Sequence[Any], payload: bytes = b"") -> None:
        self.connection.execute(sql, (*values, crc32(packed)))
        self.live += checksums.digest(packed, payload)
        self.touched = True

    def put_setting(self, name: str, value: str) -> None:
        """Set a setting."""
        old = self.connection.execute(
            "SELECT key, value, crc FROM settings WHERE key = ?", (name,)
        ).fetchone()
        if old:
            self.live -= checksums.digest(
                checksums.pack("setting", *records.checked("setting", old))
            )
        packed = checksums.pack("setting", name, value)
        self._insert("INSERT OR REPLACE INTO settings VALUES (?, ?, ?)", packed, (name, value))

    # --- files -------------------------------------------------------------------------------

    def put_file(self, row: FileRow, old: Sequence[Any] | None = None) -> int:
        """Insert or update a file and return its id; `old` is its row under another name."""
        old = old or self._old_file(row.path)
        if old is not None and tuple(old[1:]) == tuple(row):
            return int(old[0])
        file_id = old[0] if old else next_id(self.connection, "files", "id")
        values = (file_id, *row)
        sql = (
            "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(id) DO UPDATE SET"
            " path = excluded.path, state = excluded.state, reason = excluded.reason,"
            " size = excluded.size, mtime_ns = excluded.mtime_ns, inode = excluded.inode,"
            " ctime_ns = excluded.ctime_ns, sha256 = excluded.sha256, crc = excluded.crc"
        )
        if old:
            self.live -= checksums.digest(checksums.pack("file", *old))
        self._insert(sql, checksums.pack("file", *values), values)
        return int(file_id)

    def forget_file(self, path: bytes) -> None:
        """Remove a file; its documents must be gone."""
        old = self._old_file(path)
        if old is not None:
            self.live -= checksums.digest(checksums.pack("file", *old))
            self.connection.execute("DELETE FROM files WHERE id = ?", (old[0],))
            self.touched = True

    def rename_file(self, old: bytes, new: bytes, covered: int) -> None:
        """Give a file another name, and its documents the ids and sources that go with it.

        What had that name, or such an id, goes; `covered` is as for `delete_document`.
        """
        row = self._old_file(old)
        if row is None:
            return
        for document_id in catalog.ids_of_file(self.connection, new):
            self.delete_document(document_id, covered)
        self.forget_file(new)
        self.put_file(records.file_of_row(row)._replace(path=new), row)
        for document_id in catalog.ids_of_file(self.connection, new):
            before, after = names.id_of(old), names.id_of(new)
            if document_id != before and not document_id.startswith(f"{before}#"):
                continue
            renamed = after + document_id[len(before) :]
            self.delete_document(renamed, covered)
            self._rename_document(document_id, renamed, names.of_path(old), names.of_path(new))

    def _rename_document(self, old: str, new: str, old_source: str, new_source: str) -> None:
        row = self.connection.execute(
            f"SELECT {records.DOCUMENT_COLUMNS}, d.crc, t.utf8 FROM documents d"
            " JOIN texts t ON t.document_pk = d.pk WHERE d.id = ?",
            (old,),
        ).fetchone()
        pk, _, file_id, source, *rest = records.checked("document", row[:8])
        self.live -= checksums.digest(checksums.pack("document", *row[:7]), row[8])
        values = (pk, new, file_id, new_source if source == old_source else source, *rest)
        packed = checksums.pack("document", *values)
        self.live += checksums.digest(packed, row[8])
        self.connection.execute(
            "UPDATE documents SET id = ?, source = ?, crc = ? WHERE pk = ?",
            (new, values[3], crc32(packed), pk),
        )
        self.touched = True

    def _old_file(self, path: bytes) -> Sequence[Any] | None:
        row = self.connection.execute(
            f"SELECT {records.FILE_COLUMNS}, crc FROM files WHERE path = ?", (path,)
        ).fetchone()
        return records.checked("file", row) if row else None

    # --- documents ---------------------------------------------------------------------------

    def add_document(
        self, space: Space, document: Document, encoded: Encoded, file_id: int | None
    ) -> None:
        """Insert a document with its chunks; its id must be free."""
        (pk,) = self._new_ids("documents", "pk", 1)
        values = (
            pk,
            document.id,
            file_id,
            document.source,
            document.title,
            to_json(document.metadata),
            to_json(structure_of(document)),
        )
        utf8 = document.text.encode()
        self._insert(
            "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            checksums.pack("document", *values),
            values,
            utf8,
        )
        self.connection.execute(
            "INSERT INTO texts VALUES (?, ?, ?)", (pk, utf8, checksums.keyed_crc(pk, utf8))
        )
        self.n_added += 1
        self.add_chunks(space, pk, encoded)

    def add_chunks(self, space: Space, pk: int, encoded: Encoded) -> None:
        """Insert a document's chunks and vectors in a space, and its ledger."""
        chunk_ids = self._new_ids("chunks", "id", len(encoded.chunks))
        chunk_rows, vector_rows = [], []
        data = np.ascontiguousarray(encoded.vectors, dtype="<f4")
        for position, (chunk_id, chunk) in enumerate(zip(chunk_ids, encoded.chunks, strict=True)):
            vector = data[position].tobytes()
            values = (
                chunk_id,
                space.id,
                pk,
                chunk.ordinal,
                *chunk.span,
                *chunk.byte_span,
                *chunk.lines,
                chunk.page,
                to_json(chunk.heading),
                chunk.tokens,
                int(encoded.supplied),
                encoded.hashes[position],
            )
            packed = checksums.pack("chunk", *values)
            chunk_rows.append((*values, crc32(packed)))
            vector_rows.append((chunk_id, vector, checksums.keyed_crc(chunk_id, vector)))
            self.live += checksums.digest(packed, vector)
        marks = ", ".join("?" * 16)
        self.connection.executemany(f"INSERT INTO chunks VALUES ({marks})", chunk_rows)
        self.connection.executemany(f"INSERT INTO {space.table} VALUES (?, ?, ?)", vector_rows)
        ledger = encoded.ledger
        counts = (space.id, pk, ledger.tokens, ledger.encoded, ledger.unknown)
        self._insert(
            "INSERT INTO ledgers VALUES (?, ?, ?, ?, ?, ?)",
            checksums.pack("ledger", *counts),
            counts,
        )

    def _new_ids(self, table: str, column: str, count: int) -> range:
        """Return ids that `table` has never used; only this transaction gives them out."""
        if table not in self._next_ids:
            self._next_ids[table] = next_id(self.connection, table, column)
        first = self._next_ids[table]
        self._next_ids[table] = first + count
        return range(first, first + count)

    def delete_document(self, document_id: str, covered: int) -> bool:
        """Delete a document with all that hangs on it; return whether it was there.

        Args:
            document_id: Which.
            covered: The last chunk id of the active space's segments; deleted chunks up to it
                leave a tombstone.
        """
        row = self.connection.execute(
            f"SELECT {records.DOCUMENT_COLUMNS}, d.crc, t.utf8, t.crc FROM documents d"
            " JOIN texts t ON t.document_pk = d.pk WHERE d.id = ?",
            (document_id,),
        ).fetchone()
        if row is None:
            return False
        packed = checksums.pack("document", *records.checked("document", row[:8]))
        pk, utf8 = row[0], row[8]
        records.text_of(pk, utf8, row[9], document_id)
        for space in catalog.spaces(self.connection):
            self.delete_chunks(space, pk, covered)
        for table, column in (("texts", "document_pk"), ("documents", "pk")):
            self.connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (pk,))
        self.live -= checksums.digest(packed, utf8)
        self.n_deleted += 1
        self.touched = True
        return True

    def delete_chunks(self, space: Space, pk: int, covered: int) -> None:
        """Delete a document's chunks, vectors and ledger of one space."""
        found = self.connection.execute(
            f"SELECT {records.CHUNK_COLUMNS}, c.crc, v.data, v.crc FROM chunks c"
            f" JOIN {space.table} v ON v.chunk_id = c.id"
            " WHERE c.document_pk = ? AND c.space_id = ?",
            (pk, space.id),
        ).fetchall()
        ids = []
        for row in found:
            packed = checksums.pack("chunk", *records.checked("chunk", row[:16]))
            records.vector_of(row[0], row[16], row[17], space.dimension)
            self.live -= checksums.digest(packed, row[16])
            ids.append((row[0],))
        self.connection.executemany(f"DELETE FROM {space.table} WHERE chunk_id = ?", ids)
        self.connection.executemany("DELETE FROM chunks WHERE id = ?", ids)
        if space.state == "active":
            self._bury([chunk_id for (chunk_id,) in ids if chunk_id <= covered])
        self._delete_ledger(space, pk)

    def _bury(self, ids: list[int]) -> None:
        self.connection.executemany(
            "INSERT OR REPLACE INTO tombstones VALUES (?, ?, ?)",
            [(i, self.seq, crc32(checksums.pack("tombstone", i, self.seq))) for i in ids],
        )

    def _delete_ledger(self, space: Space, pk: int) -> None:
        row = self.connection.execute(
            "SELECT space_id, document_pk, tokens, encoded, unknown, crc FROM ledgers"
            " WHERE document_pk = ? AND space_id = ?",
            (pk, space.id),
        ).fetchone()
        if row is None:
            return
        self.live -= checksums.digest(checksums.pack("ledger", *records.checked("ledger", row)))
        self.connection.execute(
            "DELETE FROM ledgers WHERE document_pk = ? AND space_id = ?", (pk, space.id)
        )

    # --- spaces ------------------------------------------------------------------------------

    def add_space(self, space: Space) -> Space:
        """Insert a space (its id is ignored) with an empty vector table, and return it."""
        space_id = next_id(self.connection, "spaces", "id")
        schema.create_vectors(self.connection, space_id)
        self._put_space(space_id, space)
        return next(s for s in catalog.spaces(self.connection) if s.id == space_id)

    def _put_space(self, space_id: int, space: Space) -> None:
        values = _space_values(space_id, space)
        self._insert(
            "INSERT INTO spaces VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            checksums.pack("space", *values),
            values,
        )

    def activate_space(self, space: Space) -> None:
        """Make a space the one that searches use; every other one must be gone."""
        self.live -= checksums.digest(checksums.pack("space", *self._space_row(space)))
        packed = checksums.pack("space", *_space_values(space.id, replace(space, state="active")))
        self.connection.execute(
            "UPDATE spaces SET state = 'active', crc = ? WHERE id = ?", (crc32(packed), space.id)
        )
        self.live += checksums.digest(packed)
        self.touched = True

    def drop_space(self, space: Space) -> None:
        """Delete a space with its chunks, vectors, ledgers, segments and tombstones."""
        pks = self.connection.execute(
            "SELECT document_pk FROM ledgers WHERE space_id = ?"
            " UNION SELECT document_pk FROM chunks WHERE space_id = ?",
            (space.id, space.id),
        ).fetchall()
        for (pk,) in pks:
            self.delete_chunks(replace(space, state="retired"), pk, 0)
        self.connection.execute("DELETE FROM segments WHERE space_id = ?", (space.id,))
        if space.state == "active":
            self.connection.execute("DELETE FROM tombstones")
        schema.drop_vectors(self.connection, space.id)
        self.live -= checksums.digest(checksums.pack("space", *self._space_row(space)))
        self.connection.execute("DELETE FROM spaces WHERE id = ?", (space.id,))
        self.touched = True

    def _space_row(self, space: Space) -> Sequence[Any]:
        row = self.connection.execute(
            f"SELECT {records.SPACE_COLUMNS}, crc FROM spaces WHERE id = ?", (space.id,)
        ).fetchone()
        return records.checked("space", row)


def _space_values(space_id: int, space: Space) -> tuple[Any, ...]:
    return (
        space_id,
        space.kind,
        space.state,
        to_json(space.identity),
        to_json(space.chunking),
        space.dimension,
        space.dtype,
        space.metric,
        space.canaries,
    )


def next_id(connection: sqlite3.Connection, table: str, column: str) -> int:
    """Return an id that `table` has never used."""
    used = connection.execute(
        f"SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = '{table}'), 0),"
        f" coalesce((SELECT max({column}) FROM {table}), 0)"
    ).fetchone()
    if not all(type(number) is int and 0 <= number < records.MAX_ID for number in used):
        raise records.damaged("sqlite_sequence", table)
    return int(max(used)) + 1

"""Salvage: copy every sound row of a damaged database into a new one, and report what is missing.

Which documents should exist is found out from b-trees other than that of `documents`: the unique
index on document ids, and the tables of texts, chunks and ledgers, whose rows name a document.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from retriever import names
from retriever.errors import IndexCorrupt, RetrieverError
from retriever.reports import LostDocument
from retriever.storage import (
    catalog,
    checksums,
    head_file,
    layout,
    records,
    row_checks,
    rows,
    schema,
)
from retriever.storage.damaged_database import DamagedDatabase
from retriever.storage.field_rows import FieldRows, fields_of_row
from retriever.storage.records import FileRow, Space, StoredChunking
from retriever.storage.repair_log import RepairLog
from retriever.storage.table import Table
from retriever.storage.tables import (
    CHUNKINGS,
    CHUNKS,
    COMMITS,
    DOCUMENTS,
    FILES,
    LEDGERS,
    SETTINGS,
    SPACES,
    TABLES,
    TEXTS,
    vectors_of,
)
from retriever.storage.transaction import Transaction
from retriever.storage.writer import now

# INDEXED BY makes SQLite read the index alone, which is a b-tree apart from the table's.
_BY_ID = "SELECT pk, id FROM documents INDEXED BY sqlite_autoindex_documents_1 ORDER BY id"
_BY_FILE = "SELECT pk, file_id FROM documents INDEXED BY documents_by_file ORDER BY file_id"
# In characters: a setting longer than `MAX_JSON` would itself be taken as damaged.
_MOST_LOSSES = 1_000_000
_SHOWN_LOSSES = 1_000
_PLACEHOLDER = "its record was damaged; index the folder again"


def beyond_repair(directory: Path, message: str, check: str) -> IndexCorrupt:
    """Return the error for an index that cannot be repaired."""
    return IndexCorrupt(
        message,
        path=str(directory),
        check=check,
        repair=False,
        hint="Restore a backup, or index the files again into a new directory.",
    )


def add_losses(change: Transaction, losses: Sequence[str]) -> None:
    """Append to the permanent list of losses that `status` shows."""
    known = catalog.losses(change.connection)
    fresh = list(losses)
    if sum(map(len, fresh)) > _MOST_LOSSES:
        shown = fresh[:_SHOWN_LOSSES]
        fresh = [*shown, f"{len(fresh) - len(shown):,} more, named in the report of that repair"]
    known += [{"at": now(), "detail": loss} for loss in fresh]
    change.put_setting(records.LOSSES, json.dumps(known, ensure_ascii=False))


def write_base(
    connection: sqlite3.Connection, seq: int, described: tuple[Table, ...] = TABLES
) -> head_file.Head:
    """Begin a new history at commit `seq`, with `live_sum` computed from the present rows.

    The chain begins with random bytes, so that it differs from every chain of the old history and
    an old HEAD cannot match it.
    """
    live = row_checks.live_sum(connection, described).to_bytes(32)
    chain = checksums.chain(secrets.token_bytes(32), seq, 0, 0, live)
    connection.execute("DELETE FROM commits")
    connection.execute(COMMITS.insert_sql, (seq, now(), 0, 0, live, chain))
    return head_file.Head(seq, chain)


# Tables that have a method of their own below; all others are copied by `_copy_plain`.
_TOGETHER = {SETTINGS, FILES, DOCUMENTS, TEXTS, CHUNKINGS, SPACES, CHUNKS, LEDGERS}


class Salvage:
    """Copies a damaged database once; `log` records what was lost.

    By default a table is copied row by row, without rows that are damaged or that refer to a row
    which was not copied.
    """

    def __init__(
        self,
        directory: Path,
        old: sqlite3.Connection,
        new: sqlite3.Connection,
        log: RepairLog,
        described: tuple[Table, ...] = TABLES,
    ) -> None:
        self._directory = directory
        self._described = described
        self._old = DamagedDatabase(old, described)
        self._new = new
        self._log = log
        self._expected: dict[int, str | None] = {}
        self._lost_files: set[int] = set()
        self._named: set[int] = set()
        self._precomputed: set[int] = set()
        # The chunks of a document are read one after another, so one text is enough.
        self._text = lru_cache(maxsize=1)(self._text_of)

    def run(self, head: head_file.Head | None, losses: list[str]) -> None:
        """Copy all sound rows, and begin a new history after the last acknowledged commit.

        The order follows the references: documents before their chunks, chunks before the ledgers,
        which are copied only for documents whose chunks are all there. A missing ledger makes the
        caller chunk and encode the document again. The losses are named last, once it is known
        what was copied.
        """
        # Rows are checked here instead: a reference to a damaged row must not end the copy.
        # The pragma has no effect inside a transaction.
        self._new.execute("PRAGMA foreign_keys=OFF")
        self._new.execute("BEGIN IMMEDIATE")
        schema.create(self._new, self._described)
        chunking, spaces = self._copy_spaces()
        self._copy_plain(SETTINGS)
        self._copy_plain(FILES)
        self._copy_documents()
        self._copy_ledgers(chunking, self._copy_chunks(chunking, spaces))
        for table in self._described:
            if table.is_content and table not in _TOGETHER and (lost := self._copy_plain(table)):
                self._log.actions.append(f"{lost} rows of table {table.name} could not be saved")
        self._name_lost_embeddings()
        self._name_the_missing()
        self._put_placeholders()
        self._forget_contents()
        self._keep_counters()
        seq = max(self._last_seq(), head.seq if head else 0) + 1
        add_losses(Transaction(self._new, seq), [*losses, *self._found_losses(bool(losses))])
        write_base(self._new, seq, self._described)
        self._new.execute("COMMIT")

    def _found_losses(self, is_told: bool) -> list[str]:
        lost = [f"document {one.document_id}: {one.reason}" for one in self._log.lost]
        for table in self._described:
            if table.name in self._old.unreadable and not table.integer_key:
                self._log.actions.append(f"part of the table {table.name} could not be read")
        if {"documents", _BY_ID} <= self._old.unreadable:
            lost.append("more documents may be lost, since not all documents and ids could be read")
        if lost or is_told:
            return lost
        return ["the database was damaged; no document was lost"]

    def _insert(self, table: Table, row: Sequence[Any]) -> bool:
        # From damaged pages, a row may be read twice, or two rows with the same key.
        sql = table.insert_sql.replace("INSERT", "INSERT OR IGNORE", 1)
        return self._new.execute(sql, tuple(row)).rowcount == 1

    def _copy_plain(self, table: Table) -> int:
        """Copy the sound rows of a table, except those that refer to a row that was not copied.

        Returns:
            The number of rows that were read but not copied.
        """
        lost = 0
        references = [
            (position, other)
            for position, column in enumerate(table.columns)
            for other in self._described
            if column.references == other.name
        ]
        for row in self._old.rows(table):
            if table.is_sound(row) and all(
                row[position] is None or self._is_copied(other, row[position])
                for position, other in references
            ):
                self._insert(table, row)
            else:
                lost += 1
        return lost

    def _is_copied(self, table: Table, key: int) -> bool:
        sql = f"SELECT 1 FROM {table.name} WHERE {table.integer_key} = ?"
        return self._new.execute(sql, (key,)).fetchone() is not None

    def _copy_spaces(self) -> tuple[StoredChunking, list[Space]]:
        """Copy the active chunking with its active spaces; an unfinished rebuild is dropped."""
        active = [row for row in self._old.rows(CHUNKINGS) if _is_active(CHUNKINGS, row)]
        if not active:
            raise self._no_settings("chunkings")
        chunking = rows.chunking_of_row(active[0][:-1])
        self._insert(CHUNKINGS, active[0])
        spaces = []
        for row in self._old.rows(SPACES):
            if _is_active(SPACES, row) and row[1] == chunking.id:
                space = rows.space_of_row(row[:-1], chunking)
                schema.create_vectors(self._new, space.id)
                self._insert(SPACES, row)
                spaces.append(space)
        if not any(space.format.kind == "dense" for space in spaces):
            raise self._no_settings("spaces")
        return chunking, spaces

    def _no_settings(self, check: str) -> IndexCorrupt:
        return beyond_repair(
            self._directory,
            f"The description of model and vectors in {self._directory} cannot be read.",
            check,
        )

    # --- documents ---------------------------------------------------------------------------

    def _copy_documents(self) -> None:
        """Copy documents with their texts; the rows of their fields are made again."""
        fields = FieldRows(self._new)
        for row in self._old.rows(DOCUMENTS):
            text = self._old.text(row[0])
            try:
                catalog.document_with_text((*row, *text))
                fields_of_row(row[:-1])
            except RetrieverError as exc:
                self._lose(row[0], str(row[1]), exc.message)
                self._lost_files.update(number for number in row[2:3] if isinstance(number, int))
            else:
                if self._insert(DOCUMENTS, row):
                    self._insert(TEXTS, text)
                    fields.add_row(row[:-1])

    def _lose(self, pk: int, name: str, reason: str) -> None:
        self._named.add(pk)
        self._log.lost.append(LostDocument(name, reason))

    def _text_of(self, pk: int) -> str | None:
        row = self._new.execute("SELECT utf8 FROM texts WHERE document_pk = ?", (pk,)).fetchone()
        return row[0].decode() if row else None

    def _title(self, pk: int) -> str | None:
        row = self._new.execute("SELECT title FROM documents WHERE pk = ?", (pk,)).fetchone()
        return row[0] if row else None

    def _copy_chunks(self, chunking: StoredChunking, spaces: list[Space]) -> dict[int, int]:
        """Copy chunks with their vectors; return the number of copied chunks by document."""
        encoded = row_checks.encoded_texts([chunking])
        copied: dict[int, int] = {}
        for row in self._old.rows(CHUNKS):
            if not CHUNKS.is_sound(row):
                continue
            pk = row[2]
            # Even if this chunk is lost, it is evidence that there was a document.
            self._expected.setdefault(pk, None)
            if row[13]:
                self._precomputed.add(pk)
            text = self._text(pk)
            if text is None or row_checks.chunk_problem(row, text, self._title(pk), encoded):
                continue
            vectors = [self._vectors(row[0], space) for space in spaces]
            if all(vectors):
                self._insert(CHUNKS, row)
                for space, vector in zip(spaces, vectors, strict=True):
                    self._insert(vectors_of(space.id), vector or ())
                copied[pk] = copied.get(pk, 0) + 1
        return copied

    def _vectors(self, chunk_id: int, space: Space) -> tuple[Any, ...] | None:
        """Return the row of a chunk's vectors in a space if it exists and is sound, else None."""
        table = vectors_of(space.id)
        sql = f"SELECT {table.listed()} FROM {table.name} WHERE chunk_id = ?"
        row = self._old.one(sql, (chunk_id,))
        return None if row is None or row_checks.vector_problem(space, row) else row

    def _copy_ledgers(self, chunking: StoredChunking, complete: dict[int, int]) -> None:
        """Copy the ledgers of documents all of whose chunks were saved.

        A document whose ledger is left out is chunked again by the caller.
        """
        for row in self._old.rows(LEDGERS):
            if not LEDGERS.is_sound(row):
                continue
            chunking_id, pk = row[0], row[1]
            self._expected.setdefault(pk, None)
            text = self._text(pk)
            if text and text.strip() and not row[2]:
                self._precomputed.add(pk)  # tokens are counted for every other text
            if chunking_id == chunking.id and text is not None:
                count = self._count_old(chunking_id, pk, text)
                if count is not None and count == complete.get(pk, 0):
                    self._insert(LEDGERS, row)

    def _count_old(self, chunking_id: int, pk: int, text: str) -> int | None:
        """Return the number of a document's chunks in the old database; None if it is uncertain.

        It is certain only if the ordinals run to the number of chunks. A damaged page may hide some
        rows; a document without any row is taken as complete only if its text is empty.
        """
        sql = "SELECT count(*), max(ordinal) FROM chunks WHERE document_pk = ? AND chunking_id = ?"
        count, highest = self._old.one(sql, (pk, chunking_id)) or (None, None)
        if not count:
            return 0 if count == 0 and not text.strip() else None
        return int(count) if highest == count - 1 else None

    def _name_lost_embeddings(self) -> None:
        """Report documents whose supplied embedding is lost."""
        sql = "SELECT 1 FROM chunks WHERE document_pk = ? AND precomputed = 1"
        for pk, name in self._new.execute("SELECT pk, id FROM documents ORDER BY pk").fetchall():
            if pk in self._precomputed and not self._new.execute(sql, (pk,)).fetchone():
                self._lose(
                    pk, name, "its supplied embedding is damaged; its text is encoded instead"
                )
            elif pk not in self._expected:
                self._log.actions.append(
                    f"document {name}: its chunks and ledger are lost, so its text is encoded"
                    " again; if it was added with an embedding, that is lost"
                )

    # --- what is missing ---------------------------------------------------------------------

    def _name_the_missing(self) -> None:
        """Report every document that another table or index names and that was not copied."""
        for pk, name in self._old.both_ways(_BY_ID):
            if isinstance(pk, int) and isinstance(name, str):
                self._expected[pk] = name
        for (pk,) in self._old.scan("texts", "document_pk", "document_pk"):
            self._expected.setdefault(pk, None)
        file_ids = dict(self._old.both_ways(_BY_FILE))
        sql = "SELECT 1 FROM documents WHERE pk = ? OR id = ?"
        for pk, name in sorted(self._expected.items()):
            if pk in self._named or self._new.execute(sql, (pk, name)).fetchone():
                continue
            self._lose(pk, name or f"#{pk}", "its record cannot be read")
            if isinstance(file_ids.get(pk), int):
                self._lost_files.add(file_ids[pk])

    def _put_placeholders(self) -> None:
        """Insert a placeholder for each lost row of `files` that documents refer to."""
        missing = self._new.execute(
            "SELECT file_id, min(id) FROM documents WHERE file_id IS NOT NULL"
            " AND file_id NOT IN (SELECT id FROM files) GROUP BY file_id"
        ).fetchall()
        for file_id, document_id in missing:
            path = names.file_of(document_id)
            while not self._put_file((file_id, *FileRow(path, "failed", _PLACEHOLDER))):
                # Another file has this name already, and names are unique.
                path += b"#%d" % file_id

    def _put_file(self, row: Sequence[Any]) -> bool:
        return self._insert(FILES, FILES.seal(row))

    def _forget_contents(self) -> None:
        """Mark files of which documents were lost, so that the next run reads them again."""
        found = self._new.execute(
            f"SELECT {FILES.listed()}, id IN (SELECT file_id FROM documents) FROM files"
            " WHERE state = 'indexed'"
        ).fetchall()
        for *row, _, has_documents in found:
            if not has_documents or row[0] in self._lost_files:
                self._new.execute("DELETE FROM files WHERE id = ?", (row[0],))
                self._put_file((row[0], *FileRow(*row[1:]).unread()))

    def _keep_counters(self) -> None:
        """Carry over the AUTOINCREMENT counters, so that no id is ever used a second time."""
        for name, number in self._old.whole("sqlite_sequence", "name, seq"):
            # A damaged counter close to the highest id would leave none for new rows.
            if not isinstance(number, int) or not 0 < number < records.MAX_ID - 1:
                continue
            # The table has no unique key, without which SQLite has no upsert.
            self._new.execute(
                "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (number, name)
            )
            self._new.execute(
                "INSERT INTO sqlite_sequence SELECT ?, ? WHERE NOT EXISTS"
                " (SELECT 1 FROM sqlite_sequence WHERE name = ?)",
                (name, number, name),
            )

    def _last_seq(self) -> int:
        row = self._old.one("SELECT max(seq) FROM commits WHERE seq < ?", (layout.MAX_SEQ - 1,))
        return row[0] or 0 if row else 0


def _is_active(table: Table, row: Sequence[Any]) -> bool:
    return table.is_sound(row) and row[table.names.index("state")] == "active"

"""Repair: save what can be saved, set aside what cannot, and say which is which.

Nothing is deleted: a damaged database is copied, row by row, into a new one, and the old one
goes to `quarantine/`. Chunks and vectors that cannot be saved are made again from the text by
the caller, who finds them as documents without a ledger.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

from retriever.documents.chunking import Chunking
from retriever.errors import DataLoss, IndexCorrupt, RetrieverError
from retriever.storage import (
    catalog,
    connections,
    files,
    integrity,
    records,
    rows,
    schema,
    segments,
)
from retriever.storage.locking import WriteLock
from retriever.storage.segments import Builder
from retriever.storage.transaction import Transaction
from retriever.storage.writer import Writer, now

_CACHES = {"head", "segments"}
_PAGE = 256
_STRIDE = 512


def repair(
    directory: Path, *, build: Builder, accept_loss: bool, lock_timeout_s: float
) -> dict[str, Any]:
    """Mend the database, HEAD and segments of an index; return a report.

    Raises:
        DataLoss: Acknowledged commits are missing and `accept_loss` is not set.
        IndexCorrupt: The settings that everything else depends on cannot be read.
    """
    report: dict[str, Any] = {"schema": 1, "actions": [], "quarantined": [], "lost": []}
    lock = WriteLock(directory)
    lock.acquire(lock_timeout_s)
    try:
        _settle(directory, report, accept_loss=accept_loss)
    except IndexCorrupt as exc:
        raise _beyond_repair(directory, exc.message, exc.check) from exc
    finally:
        lock.release()
    writer = Writer.open(directory, timeout_s=lock_timeout_s)
    try:
        _mend_segments(writer, build, report)
    finally:
        writer.close()
    return report


def _beyond_repair(directory: Path, message: str, check: str) -> IndexCorrupt:
    return IndexCorrupt(
        message,
        path=str(directory),
        check=check,
        repair=False,
        hint="Restore a backup, or index the files again into a new directory.",
    )


def _settle(directory: Path, report: dict[str, Any], *, accept_loss: bool) -> None:
    """Make the database sound and HEAD agree with it."""
    found = integrity.verify(directory)
    damaged = {problem["check"] for problem in found["problems"]} - _CACHES
    head, head_problem = _head(directory)
    loss = _missing(directory, head)
    if loss is not None and not accept_loss:
        raise loss
    if not damaged and loss is None:
        if head_problem:
            _restore_head(directory, report)
        return
    losses = [loss.message] if loss else []
    if damaged:
        _salvage(directory, report, head, losses)
    else:
        _record_loss(directory, head, losses)
        report["actions"].append("accepted the loss of acknowledged commits")


def _head(directory: Path) -> tuple[files.Head | None, bool]:
    try:
        head = files.read_head(directory)
    except IndexCorrupt:
        return None, True
    return head, head is None


def _missing(directory: Path, head: files.Head | None) -> DataLoss | None:
    """Return the loss that HEAD witnesses, if the database can still be asked."""
    if head is None:
        return None
    try:
        with connections.reading(directory) as connection:
            last = catalog.last_commit(connection)
            if catalog.chain_at(connection, head.seq) != head.chain:
                return files.missing_commits(directory, head, last.seq)
    except IndexCorrupt:
        return None
    return None


def _restore_head(directory: Path, report: dict[str, Any]) -> None:
    if (directory / files.HEAD).exists():
        report["quarantined"].append(files.quarantine(directory, files.HEAD))
    with connections.reading(directory) as connection:
        last = catalog.last_commit(connection)
    files.write_head(directory, files.Head(last.seq, last.chain))
    report["actions"].append(f"wrote HEAD again, at commit {last.seq}")


def _record_loss(directory: Path, head: files.Head | None, losses: list[str]) -> None:
    with connections.sqlite_errors(directory, writing=True):
        connection = connections.connect(directory, "rw")
        try:
            connection.execute("BEGIN IMMEDIATE")
            last = catalog.last_commit(connection)
            seq = max(last.seq, head.seq if head else 0) + 1
            _add_losses(Transaction(connection, seq), losses)
            new_head = _write_base(connection, seq)
            connection.execute("COMMIT")
        finally:
            connection.close()
    files.write_head(directory, new_head)


def _add_losses(change: Transaction, losses: Sequence[str]) -> None:
    known = json.loads(catalog.setting(change.connection, "losses") or "[]")
    known += [{"at": now(), "detail": loss} for loss in losses]
    change.put_setting("losses", json.dumps(known))


def _write_base(connection: sqlite3.Connection, seq: int) -> files.Head:
    """Begin a new history at `seq`, with `live_sum` as the rows now are."""
    live = integrity.live_sum(connection).to_bytes(32)
    chain = rows.chain(secrets.token_bytes(32), seq, 0, 0, live)
    connection.execute("DELETE FROM commits")
    connection.execute("INSERT INTO commits VALUES (?, ?, 0, 0, ?, ?)", (seq, now(), live, chain))
    return files.Head(seq, chain)


def _mend_segments(writer: Writer, build: Builder, report: dict[str, Any]) -> None:
    segments.sweep(writer)
    space = catalog.active_space(writer.connection)
    damaged = [
        segment.id
        for segment in catalog.segments(writer.connection, space.id)
        if segments.changed_files(writer.directory, segment)
    ]
    report["quarantined"] += segments.mend(writer, space, build, damaged)
    if damaged:
        report["actions"].append(f"built {len(damaged)} segments again from the catalog")


# --- salvage ---------------------------------------------------------------------------------


def _salvage(
    directory: Path, report: dict[str, Any], head: files.Head | None, losses: list[str]
) -> None:
    """Copy every sound row into a new database and put it in the old one's place."""
    aside = directory / f"repair.{secrets.token_hex(4)}{files.TEMPORARY}"
    files.make_directory(aside)
    new_head: files.Head | None = None
    with connections.sqlite_errors(directory):
        old = connections.connect(directory, "ro")
        try:
            with connections.sqlite_errors(aside, writing=True):
                new = connections.connect(aside, "rwc")
                try:
                    new_head = _Salvage(directory, old, new, report).run(head, losses)
                    new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                finally:
                    new.close()
        finally:
            old.close()
    _swap(directory, aside, report)
    files.write_head(directory, new_head)
    report["actions"].append("copied every sound row into a new database")


def _swap(directory: Path, aside: Path, report: dict[str, Any]) -> None:
    """Put the new database in place; the old log must go first, or it would be replayed."""
    for name in files.DATABASE_FILES[1:]:
        if (directory / name).exists():
            report["quarantined"].append(files.quarantine(directory, name))
    report["quarantined"].append(files.quarantine(directory, files.DATABASE, keep=True))
    files.replace(directory, f"{aside.name}/{files.DATABASE}", files.DATABASE)
    files.remove(directory, [aside.name])


class _Salvage:
    """One copy of a damaged database."""

    def __init__(
        self,
        directory: Path,
        old: sqlite3.Connection,
        new: sqlite3.Connection,
        report: dict[str, Any],
    ) -> None:
        self._directory = directory
        self._old = old
        self._new = new
        self._report = report
        self._texts: dict[int, str] = {}

    def run(self, head: files.Head | None, losses: list[str]) -> files.Head:
        """Copy all that is sound; return the head of the new history."""
        self._new.execute("PRAGMA foreign_keys=OFF")
        self._new.execute("BEGIN IMMEDIATE")
        schema.create(self._new)
        spaces = self._copy_spaces()
        self._copy_plain("setting", "settings", "key, value", key="")
        self._copy_plain("file", "files", records.FILE_COLUMNS, key="id")
        complete = self._copy_documents(spaces)
        self._copy_ledgers(spaces, complete)
        self._keep_counters()
        seq = max(self._last_seq(), head.seq if head else 0) + 1
        change = Transaction(self._new, seq)
        lost = [
            f"document {item['document_id']}: {item['reason']}" for item in self._report["lost"]
        ]
        _add_losses(change, [*losses, *lost] or ["the database was damaged; no document was lost"])
        new_head = _write_base(self._new, seq)
        self._new.execute("COMMIT")
        return new_head

    def _copy_spaces(self) -> list[records.Space]:
        copied = []
        for row in _scan(self._old, "spaces", f"{records.SPACE_COLUMNS}, crc", "id"):
            with suppress(RetrieverError, ValueError, TypeError):
                space = records.space_of_row(records.checked("space", row))
                if space.state == "active":
                    schema.create_vectors(self._new, space.id)
                    self._insert("spaces", row)
                    copied.append(space)
        if not copied:
            raise _beyond_repair(
                self._directory,
                f"The settings of {self._directory} cannot be read: model and vectors are unknown.",
                "spaces",
            )
        return copied

    def _copy_plain(self, kind: str, table: str, columns: str, *, key: str) -> None:
        for row in _scan(self._old, table, f"{columns}, crc", key):
            with suppress(ValueError, TypeError):
                if crc32(rows.pack(kind, *row[:-1])) == row[-1]:
                    self._insert(table, row)

    def _insert(self, table: str, row: Sequence[Any]) -> None:
        marks = ", ".join("?" * len(row))
        self._new.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", tuple(row))

    def _copy_documents(self, spaces: list[records.Space]) -> dict[tuple[int, int], int]:
        """Copy documents with their chunks; return the number of chunks by (space, document)."""
        texts = {row[0]: row[1:] for row in _scan_texts(self._old)}
        chunkings = {space.id: Chunking.parse(space.chunking) for space in spaces}
        for row in _scan(self._old, "documents", f"{_DOCUMENTS}, crc", "pk"):
            self._copy_document(row, texts)
        del texts
        copied: dict[tuple[int, int], int] = {}
        by_id = {space.id: space for space in spaces}
        for row in _scan(self._old, "chunks", f"{_CHUNKS}, crc", "id"):
            text = self._texts.get(row[2]) if isinstance(row[2], int) else None
            space = by_id.get(row[1])
            if text is None or space is None or integrity.chunk_problem(row, text, chunkings):
                continue
            if self._copy_vector(row[0], space):
                self._insert("chunks", row)
                copied[row[1], row[2]] = copied.get((row[1], row[2]), 0) + 1
        return copied

    def _copy_document(self, row: Sequence[Any], texts: dict[int, tuple[Any, ...]]) -> None:
        utf8, crc = texts.get(row[0], (None, None))
        try:
            document = records.document_of_row((*row, utf8, crc))
        except (RetrieverError, ValueError, TypeError) as exc:
            reason = exc.message if isinstance(exc, RetrieverError) else str(exc)
            self._report["lost"].append({"document_id": str(row[1]), "reason": reason})
            self._new.execute("DELETE FROM files WHERE id = ?", (row[2],))
            return
        self._insert("documents", row)
        self._insert("texts", (row[0], utf8, crc))
        self._texts[row[0]] = document.text

    def _copy_vector(self, chunk_id: int, space: records.Space) -> bool:
        sql = f"SELECT chunk_id, data, crc FROM {space.table} WHERE chunk_id = ?"
        try:
            row = self._old.execute(sql, (chunk_id,)).fetchone()
        except sqlite3.Error:
            return False
        if row is None or integrity.vector_problem(space, *row):
            return False
        self._insert(space.table, row)
        return True

    def _copy_ledgers(
        self, spaces: list[records.Space], complete: dict[tuple[int, int], int]
    ) -> None:
        """Copy the ledgers of documents all of whose chunks were saved.

        A document whose ledger is left out is chunked again by the caller.
        """
        known = {space.id for space in spaces}
        for row in _scan(self._old, "ledgers", f"{_LEDGERS}, crc", ""):
            with suppress(ValueError, TypeError):
                space_id, pk = row[0], row[1]
                sound = crc32(rows.pack("ledger", *row[:-1])) == row[-1]
                if sound and space_id in known and pk in self._texts:
                    count = self._count_old(space_id, pk)
                    if count is not None and count == complete.get((space_id, pk), 0):
                        self._insert("ledgers", row)

    def _count_old(self, space_id: int, pk: int) -> int | None:
        """Return the chunks the old database knows of a document; None when it cannot say."""
        sql = "SELECT count(*), max(ordinal) FROM chunks WHERE document_pk = ? AND space_id = ?"
        try:
            count, highest = self._old.execute(sql, (pk, space_id)).fetchone()
        except sqlite3.Error:
            return None
        if not count:
            return 0 if not self._texts[pk].strip() else None
        return count if highest == count - 1 else None

    def _keep_counters(self) -> None:
        """Make sure that no id is ever used a second time."""
        with suppress(sqlite3.Error):
            for name, number in self._old.execute("SELECT name, seq FROM sqlite_sequence"):
                self._new.execute(
                    "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (number, name)
                )
                self._new.execute(
                    "INSERT INTO sqlite_sequence SELECT ?, ? WHERE NOT EXISTS"
                    " (SELECT 1 FROM sqlite_sequence WHERE name = ?)",
                    (name, number, name),
                )

    def _last_seq(self) -> int:
        try:
            return catalog.last_commit(self._old).seq
        except (RetrieverError, sqlite3.Error):
            return 0


_DOCUMENTS = records.DOCUMENT_COLUMNS.replace("d.", "")
_CHUNKS = records.CHUNK_COLUMNS.replace("c.", "")
_LEDGERS = "space_id, document_pk, tokens, encoded, unknown"


def _scan_texts(connection: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    return _scan(connection, "texts", "document_pk, utf8, crc", "document_pk")


def _scan(
    connection: sqlite3.Connection, table: str, columns: str, key: str
) -> Iterator[tuple[Any, ...]]:
    """Yield the readable rows of a table, in order of an integer key, stepping over bad pages."""
    if not key:
        with suppress(sqlite3.Error):
            yield from connection.execute(f"SELECT {columns} FROM {table}")
        return
    top = _top(connection, table, key)
    last = 0
    while last < top:
        try:
            page = connection.execute(
                f"SELECT {columns} FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT ?",
                (last, _PAGE),
            ).fetchall()
        except sqlite3.Error:
            page = list(_one_by_one(connection, f"SELECT {columns} FROM {table}", key, last))
            yield from page
            last += _STRIDE
            continue
        if not page:
            return
        yield from page
        last = page[-1][0]


def _one_by_one(
    connection: sqlite3.Connection, select: str, key: str, last: int
) -> Iterator[tuple[Any, ...]]:
    for number in range(last + 1, last + 1 + _STRIDE):
        with suppress(sqlite3.Error):
            yield from connection.execute(f"{select} WHERE {key} = ?", (number,)).fetchall()


def _top(connection: sqlite3.Connection, table: str, key: str) -> int:
    """Return an upper bound of a table's keys, from whichever source can still be read."""
    counter = "documents" if table == "texts" else table
    sources: list[tuple[str, Callable[[Any], int]]] = [
        (f"SELECT max({key}) FROM {table}", int),
        (f"SELECT seq FROM sqlite_sequence WHERE name = '{counter}'", int),
    ]
    found = 0
    for sql, convert in sources:
        with suppress(sqlite3.Error, TypeError, ValueError):
            row = connection.execute(sql).fetchone()
            if row and row[0] is not None:
                found = max(found, convert(row[0]))
    return found

"""A table that is described once is created, checked, deleted from and salvaged like any other."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from retriever import Index, IndexCorrupt
from retriever.storage import connections, files, row_checks, schema
from retriever.storage.check import Check
from retriever.storage.repair_log import RepairLog
from retriever.storage.salvage import Salvage
from retriever.storage.table import Column, Table, damaged
from retriever.storage.tables import DOCUMENTS, TABLES, TEXTS
from retriever.storage.transaction import Transaction
from retriever.testing import HashEncoder


def note_of(values: Sequence[Any]) -> str:
    """Return what a note says, which is never nothing."""
    said: str = values[2]
    if said == "nothing":
        raise damaged("notes", values[0])
    return said


NOTES = Table(
    "notes",
    (
        Column("id", int),
        Column("document_pk", int, references="documents"),
        Column("said", str),
        Column("drawing", bytes, null=True),
    ),
    key=("id",),
    never_reused=True,
    indexes={"notes_by_document": "document_pk"},
    decode=note_of,
)
REPLIES = Table(
    "replies",
    (Column("note_id", int, references="notes"), Column("position", int), Column("data", bytes)),
    key=("note_id", "position"),
)
DESCRIBED = (*TABLES, NOTES, REPLIES)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An index whose database has two tables more, with a note on each document."""
    path = tmp_path / "a.index"
    with Index.open(path, model=HashEncoder()) as index:
        index.add([{"id": f"d{n}", "text": f"text {n}"} for n in range(5)])
    with closing(sqlite3.connect(path / "store.db", isolation_level=None)) as connection:
        for table in (NOTES, REPLIES):
            for sql in (table.sql, *table.index_sql.values()):
                connection.execute(sql)
        change = Transaction(connection, 9, DESCRIBED)
        change.insert(NOTES, [(pk, pk, f"note {pk}", b"\0\1") for pk in range(1, 6)])
        change.insert(REPLIES, [(pk, n, b"reply") for pk in range(1, 6) for n in range(2)])
    return path


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path / "store.db", isolation_level=None)) as connection:
        yield connection


def problems(connection: sqlite3.Connection) -> list[str]:
    check = Check("rows")
    row_checks.check_rows(check, connection, DESCRIBED)
    return check.problems


def keys(connection: sqlite3.Connection, table: Table) -> list[tuple[Any, ...]]:
    key = ", ".join(table.key)
    return connection.execute(f"SELECT {key} FROM {table.name} ORDER BY {key}").fetchall()


def test_the_schema_is_what_is_described(connection: sqlite3.Connection) -> None:
    schema.check(connection, "a.index", DESCRIBED)
    with pytest.raises(IndexCorrupt, match="notes"):
        schema.check(connection, "a.index")
    connection.execute("DROP INDEX notes_by_document")
    with pytest.raises(IndexCorrupt, match="notes_by_document"):
        schema.check(connection, "a.index", DESCRIBED)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE notes SET said = 'other' WHERE id = 2",
        "UPDATE notes SET id = 7 WHERE id = 2",
        "UPDATE notes SET said = x'00' WHERE id = 2",
        "UPDATE replies SET data = x'00' WHERE note_id = 2 AND position = 1",
        "UPDATE replies SET crc = crc + 1 WHERE note_id = 2 AND position = 1",
    ],
)
def test_verify_finds_damage_in_it(connection: sqlite3.Connection, damage: str) -> None:
    assert problems(connection) == []
    connection.execute(damage)
    (problem,) = problems(connection)
    assert "checksum does not match" in problem


def test_verify_finds_what_decoding_refuses(connection: sqlite3.Connection) -> None:
    connection.execute(NOTES.update_sql, (*NOTES.seal((2, 2, "nothing", None)), 2))
    assert len(problems(connection)) == 1


def test_its_rows_count_in_the_sum_of_live_rows(connection: sqlite3.Connection) -> None:
    before = row_checks.live_sum(connection, DESCRIBED)
    assert before != row_checks.live_sum(connection)
    change = Transaction(connection, 9, DESCRIBED)
    change.insert(NOTES, [(9, 1, "one more", None)])
    assert row_checks.live_sum(connection, DESCRIBED) == (before + change.live) % (1 << 256)


def test_deleting_a_document_deletes_what_refers_to_it(connection: sqlite3.Connection) -> None:
    before = row_checks.live_sum(connection, DESCRIBED)
    change = Transaction(connection, 9, DESCRIBED)
    assert change.delete_document("d1", 0)
    for table in (DOCUMENTS, TEXTS, NOTES):
        assert keys(connection, table) == [(1,), (3,), (4,), (5,)]
    assert (2, 0) not in keys(connection, REPLIES)
    assert row_checks.live_sum(connection, DESCRIBED) == (before + change.live) % (1 << 256)
    assert problems(connection) == []


def test_salvage_carries_over_the_sound_rows_whose_documents_are_saved(
    path: Path, connection: sqlite3.Connection, tmp_path: Path
) -> None:
    connection.execute("UPDATE notes SET said = 'other' WHERE id = 2")  # its replies go with it
    connection.execute("UPDATE texts SET utf8 = x'00' WHERE document_pk = 3")
    connection.execute("UPDATE replies SET crc = crc + 1 WHERE note_id = 4 AND position = 0")
    log, target = RepairLog(), tmp_path / "copy"
    files.make_directory(target)
    with (
        closing(connections.connect(path, "ro")) as old,
        connections.connected(target, "rwc") as new,
    ):
        Salvage(path, old, new, log, DESCRIBED).run(None, [])
        schema.check(new, "copy", DESCRIBED)
        assert keys(new, DOCUMENTS) == [(1,), (2,), (4,), (5,)]
        assert keys(new, NOTES) == [(1,), (4,), (5,)]
        assert keys(new, REPLIES) == [(1, 0), (1, 1), (4, 1), (5, 0), (5, 1)]
        assert problems(new) == []
        (stored,) = new.execute("SELECT live_sum FROM commits").fetchone()
        assert int.from_bytes(stored) == row_checks.live_sum(new, DESCRIBED)
        assert new.execute("PRAGMA foreign_key_check").fetchall() == []
    assert [lost.document_id for lost in log.lost] == ["d2"]
    assert "2 rows of table notes could not be saved" in log.actions

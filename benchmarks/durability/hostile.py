"""Hostile indexes: what a stranger may put into a directory, and what must not come of it.

Every checksum is as it should be, for who makes an index computes them. Whatever it holds, every
call answers or raises an error of ours, soon and in little memory; nothing of it is executed;
nothing outside of the directory is read into an answer or changed. `Index.adopt` hands no segment
to faiss or mmap, loads no model because the index names it, and leaves an index that is sound and
complete, or none.

`--count N` makes every named case and then N-1 generated ones.
"""

from __future__ import annotations

import json
import math
import os
import random
import resource
import shutil
import signal
import socket
import sqlite3
import struct
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from retriever import Document, Index, Limits
from retriever.encoders.checkpoint import resolve
from retriever.errors import (
    FormatMismatch,
    IndexCorrupt,
    ModelUnavailable,
    RetrieverError,
    StorageError,
    WriteFailed,
)
from retriever.storage import checksums, files, head_file, layout, row_checks
from retriever.storage.files import Stamp
from retriever.storage.table import Table
from retriever.storage.tables import FIELD_VALUES, SEGMENTS, SPACES, TABLES, TEXTS, vectors_of
from retriever.testing import HashEncoder, unit_vectors

from .runner import Options, Outcome, Seen, require, run_trials

DIMENSION = 16
ENCODER = HashEncoder(DIMENSION, max_tokens=12)
QUERIES = unit_vectors(3, DIMENSION, 1)
SECRET = "the combination is 31-7-22"
SECONDS = 20
HEADROOM = 3 << 29  # 1.5 GiB
DOCUMENTS = 18
BIG = 1 << 30
SOUND = "nothing at all"
_TABLES = {table.name: table for table in TABLES if table.has_crc and not table.has_payload}


class Target:
    """A copy of a healthy index, to be made hostile; and a folder outside of it."""

    def __init__(self, path: Path, outside: Path) -> None:
        self.path = path
        self.outside = outside
        self.secret = outside / "secret.txt"

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection that nothing restrains; what it did is then in `store.db`."""
        connection = sqlite3.connect(self / layout.DATABASE, isolation_level=None)
        with closing(connection):
            connection.execute("PRAGMA foreign_keys=OFF")
            connection.execute("PRAGMA secure_delete=OFF")
            yield connection
            with suppress(sqlite3.Error):
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def run(self, *statements: str) -> None:
        """Execute SQL in the database."""
        with self.database() as connection:
            for sql in statements:
                connection.execute(sql)

    def define(self, *statements: str) -> None:
        """Execute SQL that may write the schema itself."""
        self.run("PRAGMA writable_schema=ON", *statements)

    def change(self, table: str, column: str, value: Any, where: str = "1") -> int:
        """Set a column of rows, give them valid checksums, and return how many there were."""
        with self.database() as connection:
            done = connection.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (value,))
            _seal_rows(connection, _TABLES[table])
            return done.rowcount

    def set_vector(self, data: Any, chunk_id: int) -> None:
        """Replace a vector, its checksum valid."""
        self._set_payload(vectors_of(1), chunk_id, data)

    def set_text(self, utf8: Any, pk: int) -> None:
        """Replace a text, its checksum valid."""
        self._set_payload(TEXTS, pk, utf8)

    def _set_payload(self, table: Table, key: int, payload: Any) -> None:
        sealed = table.seal((key, payload)) if isinstance(payload, bytes) else (key, payload, 0)
        with self.database() as connection:
            connection.execute(table.update_sql, (*sealed, key))

    def segment(self, suffix: str) -> Path:
        """Return the first segment's file."""
        return sorted(self.path.glob(f"segment-*.{suffix}"))[0]

    def plant(self, suffix: str, data: bytes) -> None:
        """Replace a segment's file and have the catalog vouch for it."""
        path = self.segment(suffix)
        path.write_bytes(data)
        self.vouch()

    def vouch(self) -> None:
        """Have the catalog hold size, SHA-256 and stamp of the segments' files as they are."""
        with self.database() as connection:
            for number, text in connection.execute("SELECT id, files FROM segments").fetchall():
                published = json.loads(text)
                for file in published:
                    path = self / file["name"]
                    file["size"], file["sha256"] = files.hash_file(path)
                    file["stamp"] = list(Stamp.of(path))
                connection.execute(
                    "UPDATE segments SET files = ? WHERE id = ?", (json.dumps(published), number)
                )
            _seal_rows(connection, SEGMENTS)

    def name_segments(self, name: Callable[[str], str]) -> None:
        """Change the names of segment files in the catalog."""
        with self.database() as connection:
            for number, text in connection.execute("SELECT id, files FROM segments").fetchall():
                published = [{**file, "name": name(file["name"])} for file in json.loads(text)]
                connection.execute(
                    "UPDATE segments SET files = ? WHERE id = ?", (json.dumps(published), number)
                )
            _seal_rows(connection, SEGMENTS)

    def seal(self) -> None:
        """Write the last commit and HEAD again, so that they agree with the rows."""
        with self.database() as connection:
            live = row_checks.live_sum(connection).to_bytes(32)
            seq, *counts = connection.execute(
                "SELECT seq, n_added, n_deleted FROM commits ORDER BY seq DESC LIMIT 1"
            ).fetchone()
            previous = connection.execute(
                "SELECT chain FROM commits WHERE seq = ?", (seq - 1,)
            ).fetchone()
            chain = checksums.chain(previous[0] if previous else bytes(32), seq, *counts, live)
            connection.execute(
                "UPDATE commits SET live_sum = ?, chain = ? WHERE seq = ?", (live, chain, seq)
            )
        head_file.write_head(self.path, head_file.Head(seq, chain))

    def put(self, name: str, kind: str) -> None:
        """Put something that is no regular file in the place of a file."""
        path = self / name
        was = path.read_bytes() if path.is_file() else b""
        path.unlink(missing_ok=True)
        if kind == "link":
            copy = self.outside / f"copy of {name}"
            copy.write_bytes(was or SECRET.encode())
            path.symlink_to(copy)
        elif kind == "link to the secret":
            path.symlink_to(self.secret)
        elif kind == "broken link":
            path.symlink_to(self.outside / "not there")
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "socket":
            here = os.open(".", os.O_RDONLY)
            os.chdir(self.path)  # the path of a socket must be short
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(name)
            os.fchdir(here)
            os.close(here)
        else:
            path.mkdir()
            (path / "inside").write_text("x")


def _seal_rows(connection: sqlite3.Connection, table: Table) -> None:
    """Give every row of a table the checksum of what it now holds."""
    found = connection.execute(f"SELECT {table.listed()} FROM {table.name}").fetchall()
    where = " AND ".join(f"{column.name} IS ?" for column in table.columns)
    for *values, before in found:
        with suppress(ValueError, TypeError):
            crc = table.seal(values)[-1]
            if crc != before:
                connection.execute(f"UPDATE {table.name} SET crc = ? WHERE {where}", (crc, *values))


@dataclass(frozen=True)
class Case:
    """One way to be hostile.

    Attributes:
        refused: Whether opening must be refused, as damage or as another format.
        opened: Whether it is also opened, as an index of one's own; a hostile faiss body is not.
    """

    name: str
    attack: Callable[[Target], object]
    refused: bool = False
    opened: bool = True


# --- faiss -----------------------------------------------------------------------------------


def _flat(d: int, ntotal: int, length: int, fourcc: bytes = b"IxFI") -> bytes:
    header = struct.pack("<4siqqqBi", fourcc, d, ntotal, 1 << 20, 1 << 20, 1, 0)
    return header + struct.pack("<Q", length) + bytes(256)


def _absurd(fourcc: bytes) -> bytes:
    header = struct.pack("<4siqqqBi", fourcc, DIMENSION, 1 << 40, 1 << 20, 1 << 20, 1, 0)
    return header + b"\xff" * 4096


def _other_vectors(target: Target) -> None:
    path = target.segment("faiss")
    known = faiss.read_index(str(path))
    index = faiss.IndexFlatIP(DIMENSION)
    index.add(unit_vectors(known.ntotal, DIMENSION, 99))
    faiss.write_index(index, str(path))
    target.vouch()


def _faiss_cases() -> Iterator[Case]:
    bodies = {
        "2**40 vectors": _flat(DIMENSION, 1 << 40, 64),
        "2**31 dimensions": _flat((1 << 31) - 1, 12, 64),
        "negative sizes": _flat(-1, -1, 64),
        "a vector of length 2**62": _flat(DIMENSION, 12, 1 << 62),
        "no known kind": _flat(DIMENSION, 12, 64, b"EVIL"),
        "IVF with absurd fields": _absurd(b"IwFl"),
        "HNSW with absurd fields": _absurd(b"IHNf"),
        "a pre-transform with absurd fields": _absurd(b"IxPT"),
        "nothing": b"",
    }
    for name, body in bodies.items():
        yield Case(f"faiss: {name}", lambda t, body=body: t.plant("faiss", body), opened=False)
    yield Case(
        "faiss: cut off",
        lambda t: t.plant("faiss", t.segment("faiss").read_bytes()[:100]),
        opened=False,
    )
    yield Case("faiss: other vectors", _other_vectors)
    for name, numbers in {"negative": -1, "far away": 1 << 61, "all one": 1}.items():
        yield Case(
            f"ids: {name}",
            lambda t, n=numbers: t.plant(
                "ids", np.full(t.segment("ids").stat().st_size // 8, n, "<i8").tobytes()
            ),
        )


# --- schema ----------------------------------------------------------------------------------

_ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT"
_PWNED = "INSERT OR REPLACE INTO settings VALUES ('pwned', 'yes', 0)"
SCHEMAS: dict[str, tuple[str, ...]] = {
    "a trigger": (
        f"CREATE TRIGGER evil AFTER INSERT ON documents BEGIN {_PWNED}; END",
        f"CREATE TRIGGER worse AFTER DELETE ON segments BEGIN {_PWNED}; END",
    ),
    "a trigger named like a table": (
        f"CREATE TRIGGER documents AFTER INSERT ON documents BEGIN {_PWNED}; END",
    ),
    "a trigger that SQLite would name": (
        f"CREATE TRIGGER evil AFTER INSERT ON documents BEGIN {_PWNED}; END",
        "UPDATE sqlite_master SET name = 'sqlite_evil', sql = replace(sql, 'evil', 'sqlite_evil')"
        " WHERE name = 'evil'",
    ),
    "a view": (f"CREATE VIEW evil AS {_ENDLESS} x FROM c",),
    "an endless view for documents": (
        "ALTER TABLE documents RENAME TO hidden",
        f"CREATE VIEW documents AS {_ENDLESS} x AS pk, 'd' || x AS id, NULL AS file_id, NULL AS"
        " source, NULL AS title, '{}' AS metadata, '{}' AS structure, 0 AS crc FROM c",
    ),
    "an endless view for spaces": (
        "ALTER TABLE spaces RENAME TO hidden",
        f"CREATE VIEW spaces AS {_ENDLESS} x AS id, 'active' AS state, 0 AS crc FROM c",
    ),
    "an endless view for commits": (
        "ALTER TABLE commits RENAME TO hidden",
        f"CREATE VIEW commits AS {_ENDLESS} x AS seq, zeroblob(32) AS live_sum,"
        " zeroblob(32) AS chain FROM c",
    ),
    "another table": ("CREATE TABLE evil(x)",),
    "statistics": ("ANALYZE",),
    "vectors of no space": (
        "CREATE TABLE vectors_7(\n  chunk_id INTEGER PRIMARY KEY NOT NULL REFERENCES chunks(id),\n"
        "  data BLOB NOT NULL,\n  crc INTEGER NOT NULL\n)",
    ),
    "another index": ("CREATE INDEX evil ON documents(title)",),
    "an index over a function": (
        "CREATE INDEX evil ON documents(hex(zeroblob(length(id) * 100000)))",
    ),
    "a virtual table": ("CREATE VIRTUAL TABLE evil USING fts4(x)",),
    "a virtual table for texts": (
        "DROP TABLE texts",
        "CREATE VIRTUAL TABLE texts USING fts4(document_pk, utf8, crc)",
    ),
    "a generated column": (
        "ALTER TABLE files ADD COLUMN evil AS (hex(zeroblob(200000000)))",
        "INSERT INTO files(id, path, state, crc) VALUES (7, x'61', 'failed', 0)",
    ),
    "a condition that takes for ever": (
        "UPDATE sqlite_master SET sql = replace(sql, 'value TEXT NOT NULL', 'value TEXT NOT NULL"
        " CHECK (length(hex(zeroblob(400000000))) > 0)') WHERE name = 'settings'",
    ),
    "another definition": (
        "UPDATE sqlite_master SET sql = replace(sql, 'id TEXT NOT NULL UNIQUE',"
        " 'id TEXT NOT NULL UNIQUE DEFAULT (1)') WHERE name = 'documents'",
    ),
    "nonsense": ("INSERT INTO sqlite_master VALUES ('table', 'evil', 'evil', 0, 'nonsense')",),
    "a nameless entry": ("INSERT INTO sqlite_master VALUES (NULL, x'00', 1.5, -1, x'ff')",),
    "two tables on one page": (
        "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE name ="
        " 'texts') WHERE name = 'vectors_1'",
    ),
    "a table on no page": ("UPDATE sqlite_master SET rootpage = 99999 WHERE name = 'chunks'",),
    "the schema as a table": ("UPDATE sqlite_master SET rootpage = 1 WHERE name = 'settings'",),
    "another program's": ("PRAGMA application_id=1",),
    "a later format": ("PRAGMA user_version=77",),
}
# Which page a table lies on is not in the text of the schema: checksums of rows tell.
_PLACES = ("two tables on one page", "a table on no page", "the schema as a table")


def _many_tables(target: Target) -> None:
    with target.database() as connection:
        connection.execute("BEGIN")
        for number in range(500):
            connection.execute(f"CREATE TABLE evil_{number}(x)")
        connection.execute("COMMIT")


def _schema_cases() -> Iterator[Case]:
    for name, statements in SCHEMAS.items():
        yield Case(
            f"schema: {name}", lambda t, sql=statements: t.define(*sql), refused=name not in _PLACES
        )
    yield Case("schema: 500 tables", _many_tables, refused=True)
    yield Case(
        "schema: not a database", lambda t: (t / "store.db").write_bytes(b"x" * 99_999), True
    )


# --- rows ------------------------------------------------------------------------------------

JSONS = {
    "deep": "[" * 100_000 + "]" * 100_000,
    "just too deep": '{"a":' + "[" * 500 + "]" * 500 + "}",
    "large": "[" + "[]," * 6_000_000 + "[]]",
    "another kind": "42",
    "of odd items": '[[1], {"name": 1}, [null, {}, []], "x"]',
    "cut off": '{"a',
    "a long number": '{"a":' + "9" * 5_000 + "}",
    "infinite": '{"a": Infinity}',
    "half a character": '{"a": "\\ud800"}',
    "odd fields": '{"headings": [[1]], "pages": {"a": 1}, "unit": [], "tokens": -5}',
}


def _json_cases() -> Iterator[Case]:
    many = {"documents": "metadata", "documents ": "structure", "chunks": "heading"}
    for table, column in many.items():

        def attack(target: Target, table: str = table.strip(), column: str = column) -> None:
            key = _TABLES[table].integer_key
            for number, text in enumerate(JSONS.values(), 1):
                target.change(table, column, text, f"{key} = {number}")

        yield Case(f"JSON: in {column}, each kind", attack)
    single = {
        "identity": ("spaces", "identity", "1"),
        "chunking": ("chunkings", "options", "1"),
        "cutter": ("chunkings", "cutter", "1"),
        "files": ("segments", "files", "1"),
        "losses": ("settings", "value", "key = 'losses'"),
    }
    for name, (table, column, where) in single.items():
        for label in ("deep", "large", "another kind", "of odd items", "half a character"):

            def one(
                target: Target,
                table: str = table,
                column: str = column,
                where: str = where,
                label: str = label,
            ) -> None:
                if table == "settings":
                    target.run("INSERT INTO settings VALUES ('losses', '[]', 0)")
                target.change(table, column, JSONS[label], where)

            yield Case(f"JSON: {name} is {label}", one)


def _two_active(target: Target) -> None:
    with target.database() as connection:
        columns = ", ".join(SPACES.names[1:])
        connection.execute(f"INSERT INTO spaces({columns}) SELECT {columns} FROM spaces")
        sql = connection.execute(
            "SELECT sql FROM sqlite_master WHERE name = 'vectors_1'"
        ).fetchone()[0]
        connection.execute(sql.replace("vectors_1", "vectors_2"))
        _seal_rows(connection, SPACES)


def _numbers(target: Target) -> None:
    target.run("UPDATE sqlite_sequence SET seq = 9223372036854775807")


def _far_commit(target: Target) -> None:
    target.run("UPDATE commits SET seq = 9223372036854775807 WHERE seq = (SELECT max(seq) FROM"
               " commits)")  # fmt: skip


def _row_cases() -> Iterator[Case]:
    vectors: dict[str, Any] = {
        "NaN": np.full(DIMENSION, np.nan, "<f4").tobytes(),
        "infinite": np.full(DIMENSION, np.inf, "<f4").tobytes(),
        "huge": np.full(DIMENSION, 3e38, "<f4").tobytes(),
        "zero": bytes(4 * DIMENSION),
        "short": bytes(4),
        "text": "x" * 4 * DIMENSION,
    }
    for name, data in vectors.items():
        yield Case(f"row: a vector is {name}", lambda t, d=data: t.set_vector(d, 3))
    for name, utf8 in {"no UTF-8": b"\xff\xfe", "shorter": b"x", "text": "x"}.items():
        yield Case(f"row: a text is {name}", lambda t, u=utf8: t.set_text(u, 2))
    extremes = (-1, 0, 1 << 40, (1 << 63) - 1, -(1 << 63), "abc", b"\x00", 1.5)
    for column in ("dimension", "kind", "dtype", "metric", "state", "canaries"):
        for value in (0, -1, 1 << 40, "abc", b"x") if column == "dimension" else ("abc", b"x"):
            yield Case(
                f"row: {column} of the space is {value!r}",
                lambda t, c=column, v=value: t.change("spaces", c, v),
                refused=True,
            )
    yield Case("row: two active spaces", _two_active, refused=True)
    yield Case("row: no space", lambda t: t.run("DELETE FROM spaces"), refused=True)
    for table, columns in (
        ("chunks", ("char_start", "char_end", "byte_start", "byte_end", "ordinal", "chunking_id")),
        ("segments", ("first_id", "last_id", "row_count", "chunking_id", "space_id")),
        ("spaces", ("chunking_id",)),
        ("chunkings", ("state",)),
    ):
        for column in columns:

            def attack(target: Target, table: str = table, column: str = column) -> None:
                for number, value in enumerate(extremes, 1):
                    target.change(table, column, value, f"id = {number}")

            yield Case(f"row: {column} of {table}, each extreme", attack)
    yield Case("row: ids that are blobs", lambda t: t.change("documents", "id", b"abc", "pk = 1"))
    yield Case("row: a vector without a chunk", lambda t: t.run("DELETE FROM chunks WHERE id = 3"))
    yield Case("row: a chunk without a text", lambda t: t.run("DELETE FROM texts"))
    yield Case("row: one ordinal for all", lambda t: t.change("chunks", "ordinal", 0))
    yield Case("row: the last number is taken", _numbers)
    yield Case(
        "row: numbers that are words", lambda t: t.run("UPDATE sqlite_sequence SET seq = 'abc'")
    )
    yield Case("row: a commit at the end of time", _far_commit)
    yield Case("row: no commit", lambda t: t.run("DELETE FROM commits"), refused=True)


# --- files -----------------------------------------------------------------------------------

PLACES = ("HEAD", "LOCK", "store.db", "store.db-wal", "store.db-shm", "segment")
INSTEAD = ("link", "link to the secret", "broken link", "fifo", "socket", "directory")


def _journal(target: Target) -> None:
    """Leave a hot journal; a super-journal that it names may be deleted by rolling it back."""
    name = os.fsencode(target.secret)
    page = 8192
    header = bytes.fromhex("d9d505f920a163d7") + struct.pack(">IIIII", 0, 1, 10, 512, page)
    total = sum(name) & 0xFFFFFFFF
    tail = struct.pack(">I", page) + name + struct.pack(">II", len(name), total) + header[:8]
    (target / "store.db-journal").write_bytes(header.ljust(512, b"\0") + tail)


def _sparse(name: str) -> Callable[[Target], None]:
    def attack(target: Target) -> None:
        with (target / name).open("ab") as file:
            file.truncate(BIG)

    return attack


def _link_folder(name: str) -> Callable[[Target], None]:
    def attack(target: Target) -> None:
        (target / name).symlink_to(target.outside)
        # Something to be repaired, so that what is found there would be used.
        target.run("UPDATE documents SET crc = crc + 1 WHERE pk = 1")

    return attack


def _file_cases() -> Iterator[Case]:
    for place in PLACES:
        for kind in INSTEAD:

            def attack(target: Target, place: str = place, kind: str = kind) -> None:
                target.put(target.segment("faiss").name if place == "segment" else place, kind)

            # SQLite removes its log and shared memory when the last connection is closed.
            refused = place in ("HEAD", "store.db", "store.db-wal", "store.db-shm")
            yield Case(f"file: {kind} for {place}", attack, refused)
    for name in ("HEAD", "LOCK", "store.db-wal", "store.db-shm"):
        yield Case(f"file: {name} of a gigabyte", _sparse(name), refused=name == "HEAD")
    yield Case("file: a rollback journal", _journal, refused=True)
    for name in ("quarantine", "repaired-deadbeef", "repair.deadbeef.tmp", "HEAD.deadbeef.tmp"):
        yield Case(f"file: {name} is a link to a folder", _link_folder(name))
    yield Case("file: a deep HEAD", lambda t: (t / "HEAD").write_bytes(b"[" * 4000), True)
    endless = '{"format": 0, "seq": Infinity, "chain": "", "crc": 0}'
    yield Case("file: HEAD at infinity", lambda t: (t / "HEAD").write_text(endless), True)
    names: dict[str, Callable[[Target], Callable[[str], str]]] = {
        "beside it": lambda t: lambda name: f"../outside/{name}",
        "anywhere": lambda t: lambda name: str(t.outside / name),
        "in a folder": lambda t: lambda name: f"quarantine/{name}",
        "of our own files": lambda t: lambda name: "store.db",
        "empty": lambda t: lambda name: "",
        "with a zero": lambda t: lambda name: f"{name}\0",
    }
    for label, name in names.items():

        def rename(target: Target, name: Any = name) -> None:
            for path in target.path.glob("segment-*"):
                shutil.copy(path, target.outside)
            target.name_segments(name(target))

        yield Case(f"file: a segment's name is {label}", rename)


# --- models ----------------------------------------------------------------------------------


def _name_model(target: Target) -> None:
    folder = target.outside / "model"
    folder.mkdir()
    (folder / "modules.json").write_text(json.dumps([{"type": SECRET}]))
    identity = {**ENCODER.identity, "name": str(folder)}
    target.change("spaces", "identity", json.dumps(identity))
    # A document without a ledger: repair would encode it.
    target.run("DELETE FROM ledgers WHERE document_pk = 1")


def named_cases() -> list[Case]:
    """Return every hand-written case."""
    return [
        Case(SOUND, lambda t: None),
        *_faiss_cases(),
        *_schema_cases(),
        *_json_cases(),
        *_row_cases(),
        *_file_cases(),
        Case("model: a path", _name_model),
    ]


# --- generated -------------------------------------------------------------------------------

_VALUES: tuple[Any, ...] = (
    None, -1, 0, 1, 2, 1 << 31, 1 << 40, 1 << 62, (1 << 63) - 1, -(1 << 63), 1.5, -0.0, math.inf,
    "", "abc", "active", "building", "indexed", "\0", "../outside/secret.txt", "/etc/passwd",
    "x" * 100_000, "[]", "{}", "[[]]", '{"a": 1}', '{"name": "../x", "size": -1}', "é" * 7,
    b"", b"\0", b"\xff" * 16, b"\0" * 32, b"\xff" * 64, b"HEAD",
)  # fmt: skip


def mutate(target: Target, rng: random.Random) -> None:
    """Make one to four random changes of rows, every checksum valid."""
    for _ in range(rng.randint(1, 4)):
        with suppress(sqlite3.Error, OverflowError):
            _mutate_once(target, rng)
    if rng.random() < 0.5:
        with suppress(sqlite3.Error, RetrieverError, ValueError, TypeError, struct.error):
            target.seal()
    elif rng.random() < 0.2:
        head_file.write_head(
            target.path, head_file.Head(rng.choice((0, 1, 5, 1 << 61)), rng.randbytes(32))
        )


def _mutate_once(target: Target, rng: random.Random) -> None:
    what = rng.random()
    if what < 0.1:
        vector = np.frombuffer(rng.randbytes(4 * DIMENSION), "<f4").tobytes()
        target.set_vector(rng.choice((vector, vector[:-1], bytes(64), "x")), rng.randint(1, 40))
    elif what < 0.2:
        size = rng.randint(0, 60)
        text = rng.choice((rng.randbytes(size), b"x" * size, "é".encode() * size, "x"))
        target.set_text(text, rng.randint(1, DOCUMENTS))
    elif what < 0.25:
        with target.database() as connection:
            connection.execute(
                "UPDATE sqlite_sequence SET seq = ? WHERE name = ?",
                (rng.choice(_VALUES), rng.choice(("chunks", "documents", "segments", "files"))),
            )
    elif what < 0.3:
        column = rng.choice(("seq", "at", "n_added", "n_deleted", "live_sum", "chain"))
        with target.database() as connection:
            connection.execute(
                f"UPDATE commits SET {column} = ? WHERE seq = (SELECT max(seq) FROM commits) - ?",
                (rng.choice(_VALUES), rng.randrange(3)),
            )
    elif what < 0.35:
        table = rng.choice([*_TABLES.values(), FIELD_VALUES, TEXTS, vectors_of(1)])
        key = table.columns[0].name
        with target.database() as connection:
            for row in connection.execute(f"SELECT DISTINCT {key} FROM {table.name}").fetchall():
                if rng.random() < 0.2:
                    connection.execute(f"DELETE FROM {table.name} WHERE {key} IS ?", row)
    else:
        table = rng.choice([*_TABLES.values(), FIELD_VALUES])
        key, *_ = columns = [column.name for column in table.columns]
        with target.database() as connection:
            keys = connection.execute(f"SELECT {key} FROM {table.name}").fetchall()
            if not keys:
                return
            chosen = rng.choice(keys)[0]
            connection.execute(
                f"UPDATE {table.name} SET {rng.choice(columns)} = ? WHERE {key} IS ?",
                (rng.choice(_VALUES), chosen),
            )
            if table.has_crc:
                _seal_rows(connection, table)


# --- what must hold --------------------------------------------------------------------------


class Watch:
    """What the package asks of faiss, NumPy and models while an index is used."""

    def __init__(self) -> None:
        self.reads: list[str] = []
        self.models: list[str] = []
        for name in dir(faiss):
            if name.startswith(("read_", "deserialize_")) and callable(getattr(faiss, name)):
                self._record(faiss, name)
        for name in ("memmap", "fromfile"):
            self._record(np, name)
        stub = types.ModuleType("retriever.encoders.bi_encoder")
        stub.load_encoder = self._refuse  # type: ignore[attr-defined]
        sys.modules["retriever.encoders.bi_encoder"] = stub
        resolve.resolve_model = self._refuse

    def _record(self, module: Any, name: str) -> None:
        real = getattr(module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.reads.append(f"{name}({args[:1]!r:.200})")
            return real(*args, **kwargs)

        setattr(module, name, call)

    def _refuse(self, name: Any, **_: Any) -> Any:
        self.models.append(str(name))
        raise ModelUnavailable(f"{name} is a stub", hint="")


class Calls:
    """Makes calls, each within its time, and keeps what came of them."""

    def __init__(self) -> None:
        self.seen: Seen = Counter()
        self.answers: list[Any] = []

    def __call__(self, name: str, call: Callable[[], Any]) -> Any:
        """Return what a call answers, or the error of ours that it raises."""

        def late(*_: object) -> None:
            raise TimeoutError(f"{name} takes over {SECONDS} s")

        signal.signal(signal.SIGALRM, late)
        signal.alarm(SECONDS)
        try:
            answer = call()
            self.answers.append(answer)
            self.seen[f"{name} answers"] += 1
        except RetrieverError as exc:
            require(type(exc) is not RetrieverError, f"{name}: {exc!r}")
            self.answers.append(str(exc))
            self.seen["refused"] += 1
            self.seen[type(exc).__name__] += 1
            if type(exc) in (StorageError, WriteFailed):
                self.seen[f"{type(exc).__name__}: {str(exc.__cause__)[:60]}"] += 1
            return exc
        finally:
            signal.alarm(0)
        return answer


def _look(index: Index, calls: Calls, *, deep: bool) -> None:
    calls("status", lambda: json.dumps(index.status().to_dict()))
    calls("count", index.count)
    for name in ("d000", "d001", "nothing"):
        calls("get", lambda name=name: index.get(name))
    calls("documents", lambda: list(index.documents()))
    for number in range(6):
        calls("chunks", lambda n=number: index.chunks(f"d{n:03d}"))
    for k in (1, 5, 1000):
        calls("search", lambda k=k: index.search(vector=QUERIES[0], k=k))
    calls("group", lambda: index.search(vector=QUERIES[0], k=20, group="document"))
    calls("search_many", lambda: index.search_many(vectors=QUERIES))
    calls("search text", lambda: index.search("the pump"))
    calls("verify", lambda: json.dumps(index.verify(deep=deep).to_dict()))


def _write(index: Index, calls: Calls, aside: Path) -> None:
    calls("backup", lambda: index.backup(aside))
    calls("add", lambda: index.add([Document("A new pump", f"n{n}") for n in range(3)]))
    calls("delete", lambda: index.delete(["d001", "d002"], missing_ok=True))
    calls("search after", lambda: index.search(vector=QUERIES[0]))
    calls("compact", index.compact)
    calls("search after", lambda: index.search(vector=QUERIES[0]))
    calls("rebuild", index.rebuild)


def use(target: Target, case: Case) -> Seen:
    """Make every call on an index that is opened as one's own, and check what must hold."""
    calls = Calls()
    deep = not case.name.startswith("faiss")
    before = _content(target.outside)
    opened = calls("open", lambda: Index.open(target.path))
    if case.refused:
        require(isinstance(opened, IndexCorrupt | FormatMismatch), f"opened: {opened!r}")
    if isinstance(opened, Index):
        _look(opened, calls, deep=deep)
        opened.close()
        again = calls("open", lambda: Index.open(target.path, model=ENCODER))
        if isinstance(again, Index):
            _write(again, calls, target.outside.with_name("backup"))
            again.close()
    calls("verify", lambda: Index.verify_path(target.path, deep=deep))
    for model in (None, ENCODER):
        calls("repair", lambda m=model: Index.repair_path(target.path, model=m))
    calls("verify", lambda: Index.verify_path(target.path, deep=deep))
    _require_harmless(target, calls, before)
    if case.name == SOUND:
        _require_answers(calls, "ModelUnavailable", "DocumentNotFound")
    return calls.seen


def adopt(target: Target, watch: Watch, case: Case) -> Seen:
    """Adopt an index, and make every call on the index of one's own that comes of it."""
    calls = Calls()
    before = _content(target.outside)
    own = target.path.with_name("own.index")
    unnamed = calls("adopt without a model", lambda: Index.adopt(target.path, own))
    require(isinstance(unnamed, RetrieverError), "a model was chosen by the index")
    adopted = calls("adopt", lambda: Index.adopt(target.path, own, model=ENCODER))
    require(not watch.reads, f"segments were read: {watch.reads[:3]}")
    require(not watch.models, f"models were looked for: {watch.models[:3]}")
    if case.refused:
        require(isinstance(adopted, IndexCorrupt | FormatMismatch), f"adopted: {adopted!r}")
    if isinstance(adopted, RetrieverError):
        left = [path.name for path in own.parent.glob(f"{own.name}*")]
        require(not left, f"a refused adoption leaves {left}")
    else:
        with Index.open(own, model=ENCODER) as index:
            require(index.count() == adopted.added, f"{index.count()} of {adopted.added} are there")
            require(index.verify(deep=True).ok, "what was adopted is not sound")
            _look(index, calls, deep=True)
            _write(index, calls, target.outside.with_name("backup"))
    _require_harmless(target, calls, before)
    if case.name == SOUND:
        _require_answers(calls, "ModelUnavailable", "DocumentNotFound")
    return calls.seen


def _require_harmless(target: Target, calls: Calls, before: dict[str, Any]) -> None:
    require(_content(target.outside) == before, "what lies outside of the index has changed")
    require(SECRET not in repr(calls.answers), "an answer holds what lies outside of the index")
    require(not _is_pwned(target.path), "a trigger of the index was executed")


def _require_answers(calls: Calls, *but: str) -> None:
    wrong = {name for name in calls.seen if not name.endswith(" answers")}
    require(wrong <= {"refused", *but}, str(wrong))


def _content(folder: Path) -> dict[str, Any]:
    """Return what a folder holds: kinds, rights, times and bytes."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        seen = path.lstat()
        data = path.read_bytes() if path.is_file() else None
        found[str(path)] = (seen.st_mode, seen.st_nlink, seen.st_mtime_ns, data)
    return found


def _is_pwned(path: Path) -> bool:
    with suppress(sqlite3.Error, OSError):
        if not (path / layout.DATABASE).is_file():
            return False
        with closing(sqlite3.connect(path / layout.DATABASE)) as connection:
            sql = "SELECT count(*) FROM settings WHERE key = 'pwned'"
            return bool(connection.execute(sql).fetchone()[0])
    return False


def same_answers(target: Target, watch: Watch) -> None:
    """What is adopted from a sound index answers as that index does."""

    def answers(path: Path) -> list[list[tuple[str, float, str]]]:
        with Index.open(path, read_only=True) as index:
            found = [index.search(vector=query, k=k) for query in QUERIES for k in (1, 7, 99)]
        return [[(hit.document_id, hit.score, hit.text) for hit in results] for results in found]

    wanted = answers(target.path)
    require(watch.reads, "a search of an index of one's own reads no segment")
    watch.reads.clear()
    own = target.path.with_name("adopted.index")
    Index.adopt(target.path, own, model=ENCODER)
    require(not watch.reads, f"segments were read: {watch.reads[:3]}")
    require(answers(own) == wanted, "the answers differ")


# --- running ---------------------------------------------------------------------------------


def build(path: Path) -> None:
    """Make a healthy index: segments, a tail, deleted rows, several commits."""
    with Index.open(path, model=ENCODER, limits=Limits(tail_rows=7)) as index:
        for first in range(0, DOCUMENTS, 6):
            index.add([_document(n) for n in range(first, first + 6)])
        index.delete(["d004"])


def _document(number: int) -> Document:
    text = f"# Hall {number % 7}\n\nThe pump number {number} stands in hall {number % 7}. " * 2
    return Document(text, f"d{number:03d}", {"n": number}, title=f"Pump {number}")


@contextmanager
def _restrained() -> Iterator[None]:
    """Allow this process so much more memory, and no more."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + HEADROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def run(options: Options) -> Outcome:
    """Try every named case, and `count - 1` generated ones."""
    cases = named_cases()
    healthy = options.folder / "healthy.index"
    shutil.rmtree(healthy, ignore_errors=True)
    build(healthy)

    def trial(seed: str, folder: Path) -> Seen:
        number = int(seed.rsplit("-", 1)[1])
        if number < len(cases):
            return _try(cases[number], healthy, folder)
        case = Case("generated", lambda target: mutate(target, random.Random(seed)))
        return _try(case, healthy, folder)

    every = replace(options, count=len(cases) + options.count - 1)
    outcome = run_trials("hostile", every, trial, timeout_s=8 * SECONDS)
    outcome.notes["named cases"] = len(cases)
    return outcome


def _try(case: Case, healthy: Path, folder: Path) -> Seen:
    seen: Seen = Counter()
    watch = Watch()
    for how in ("adopt", "open") if case.opened else ("adopt",):
        here = folder / how
        target = Target(here / "strange.index", here / "outside")
        shutil.copytree(healthy, target.path)
        target.outside.mkdir()
        target.secret.write_text(SECRET)
        target.vouch()
        case.attack(target)
        watch.reads.clear()
        watch.models.clear()
        try:
            with _restrained():
                seen += adopt(target, watch, case) if how == "adopt" else use(target, case)
        except BaseException as exc:
            exc.add_note(f"case: {case.name}; {how}")
            raise
    if case.name == SOUND:
        target = Target(folder / "sound.index", folder)
        shutil.copytree(healthy, target.path)
        watch.reads.clear()
        same_answers(target, watch)
    return seen

"""The tables of format 0, byte for byte; `FORMAT.md` explains them."""

from __future__ import annotations

import sqlite3

from retriever.errors import FormatMismatch, IndexCorrupt
from retriever.storage.files import FORMAT

APPLICATION_ID = 0x52747276  # "Rtrv"

TABLES = {
    "settings": """CREATE TABLE settings(
  key TEXT PRIMARY KEY NOT NULL,
  value TEXT NOT NULL,
  crc INTEGER NOT NULL
) WITHOUT ROWID""",
    "files": """CREATE TABLE files(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  path BLOB NOT NULL UNIQUE,
  state TEXT NOT NULL,
  reason TEXT,
  size INTEGER,
  mtime_ns INTEGER,
  sha256 BLOB,
  crc INTEGER NOT NULL
)""",
    "documents": """CREATE TABLE documents(
  pk INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  file_id INTEGER REFERENCES files(id),
  source TEXT,
  title TEXT,
  metadata TEXT NOT NULL,
  structure TEXT NOT NULL,
  crc INTEGER NOT NULL
)""",
    "texts": """CREATE TABLE texts(
  document_pk INTEGER PRIMARY KEY NOT NULL REFERENCES documents(pk),
  utf8 BLOB NOT NULL,
  crc INTEGER NOT NULL
)""",
    "spaces": """CREATE TABLE spaces(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,
  state TEXT NOT NULL,
  identity TEXT NOT NULL,
  chunking TEXT NOT NULL,
  dimension INTEGER NOT NULL,
  dtype TEXT NOT NULL,
  metric TEXT NOT NULL,
  canaries BLOB NOT NULL,
  crc INTEGER NOT NULL
)""",
    "ledgers": """CREATE TABLE ledgers(
  space_id INTEGER NOT NULL REFERENCES spaces(id),
  document_pk INTEGER NOT NULL REFERENCES documents(pk),
  tokens INTEGER NOT NULL,
  encoded INTEGER NOT NULL,
  unknown INTEGER NOT NULL,
  crc INTEGER NOT NULL,
  PRIMARY KEY(document_pk, space_id)
) WITHOUT ROWID""",
    "chunks": """CREATE TABLE chunks(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  space_id INTEGER NOT NULL REFERENCES spaces(id),
  document_pk INTEGER NOT NULL REFERENCES documents(pk),
  ordinal INTEGER NOT NULL,
  char_start INTEGER NOT NULL,
  char_end INTEGER NOT NULL,
  byte_start INTEGER NOT NULL,
  byte_end INTEGER NOT NULL,
  first_line INTEGER NOT NULL,
  last_line INTEGER NOT NULL,
  page INTEGER,
  heading TEXT NOT NULL,
  tokens INTEGER NOT NULL,
  supplied INTEGER NOT NULL,
  text_hash BLOB NOT NULL,
  crc INTEGER NOT NULL
)""",
    "segments": """CREATE TABLE segments(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,
  space_id INTEGER NOT NULL REFERENCES spaces(id),
  first_id INTEGER NOT NULL,
  last_id INTEGER NOT NULL,
  row_count INTEGER NOT NULL,
  files TEXT NOT NULL,
  params TEXT NOT NULL,
  crc INTEGER NOT NULL
)""",
    "tombstones": """CREATE TABLE tombstones(
  chunk_id INTEGER PRIMARY KEY NOT NULL,
  seq INTEGER NOT NULL,
  crc INTEGER NOT NULL
)""",
    "commits": """CREATE TABLE commits(
  seq INTEGER PRIMARY KEY NOT NULL,
  at TEXT NOT NULL,
  n_added INTEGER NOT NULL,
  n_deleted INTEGER NOT NULL,
  live_sum BLOB NOT NULL,
  chain BLOB NOT NULL
)""",
}
INDEXES = {
    "documents_by_file": "CREATE INDEX documents_by_file ON documents(file_id)",
    "chunks_by_document": "CREATE INDEX chunks_by_document ON chunks(document_pk)",
    "chunks_by_text": "CREATE INDEX chunks_by_text ON chunks(text_hash)",
    "segments_by_space": "CREATE INDEX segments_by_space ON segments(space_id, first_id)",
    "tombstones_by_seq": "CREATE INDEX tombstones_by_seq ON tombstones(seq)",
}


def vectors_table(space_id: int) -> str:
    """Return the name of the table that holds a space's vectors."""
    return f"vectors_{int(space_id)}"


def _vectors_sql(space_id: int) -> str:
    return f"""CREATE TABLE {vectors_table(space_id)}(
  chunk_id INTEGER PRIMARY KEY NOT NULL REFERENCES chunks(id),
  data BLOB NOT NULL,
  crc INTEGER NOT NULL
)"""


def create(connection: sqlite3.Connection) -> None:
    """Create every table, inside the caller's transaction."""
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={FORMAT + 1}")
    for sql in (*TABLES.values(), *INDEXES.values()):
        connection.execute(sql)


def create_vectors(connection: sqlite3.Connection, space_id: int) -> None:
    """Create the table for one space's vectors."""
    connection.execute(_vectors_sql(space_id))


def drop_vectors(connection: sqlite3.Connection, space_id: int) -> None:
    """Drop a space's vectors."""
    connection.execute(f"DROP TABLE {vectors_table(space_id)}")


def is_blank(connection: sqlite3.Connection) -> bool:
    """Return whether the database has no table yet: its creation was cut short."""
    count: int = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    return count == 0


def check(connection: sqlite3.Connection, path: str) -> None:
    """Refuse a database that is not exactly ours: another format, a trigger, a view.

    Raises:
        FormatMismatch: It is an index of another format.
        IndexCorrupt: It is no index of ours, or its tables were altered.
    """
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application == APPLICATION_ID and version != FORMAT + 1:
        raise FormatMismatch(
            f"{path} has format {version - 1}; this version reads format {FORMAT}.",
            hint="Index the files again into a new directory with `retriever index`.",
            found=version - 1,
            supported=FORMAT,
        )
    found = dict(
        connection.execute(
            "SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        ).fetchall()
    )
    expected = {**TABLES, **INDEXES}
    if "spaces" in found:
        for (space_id,) in connection.execute("SELECT id FROM spaces"):
            expected[vectors_table(space_id)] = _vectors_sql(space_id)
    if application != APPLICATION_ID or found != expected:
        odd = sorted(set(found.items()) ^ set(expected.items()), key=str)
        names = ", ".join(sorted({str(name) for name, _ in odd})) or "application id"
        raise IndexCorrupt(
            f"{path}: the database's schema is not that of an index ({names}).",
            path=path,
            check="schema",
        )

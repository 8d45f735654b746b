"""The tables of this format, byte for byte; `FORMAT.md` explains them."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterable
from typing import Any

from retriever.errors import FormatMismatch, IndexCorrupt
from retriever.storage import files

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
  inode INTEGER,
  ctime_ns INTEGER,
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
# What SQLite defines of its own accord for these tables.
_BY_SQLITE: set[tuple[Any, ...]] = {
    ("table", "sqlite_sequence", "sqlite_sequence", "CREATE TABLE sqlite_sequence(name,seq)"),
    ("index", "sqlite_autoindex_files_1", "files", None),
    ("index", "sqlite_autoindex_documents_1", "documents", None),
}
_VECTORS = re.compile(r"vectors_(0|[1-9][0-9]{0,17})", re.ASCII).fullmatch
_HARMLESS = {
    "application_id",
    "user_version",
    "quick_check",
    "integrity_check",
    "foreign_key_check",
    "recursive_triggers",  # set by `sqlite_utils.Database`, which `integrity` counts rows with
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
    connection.execute(f"PRAGMA user_version={files.FORMAT + 1}")
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
    found = _format(connection)
    if found is not None and found != files.FORMAT:
        raise other_format(path, found)
    odd = _odd(connection)
    if found is None or odd:
        names = ", ".join(sorted(odd)) or "application id"
        raise IndexCorrupt(
            f"{path}: the database's schema is not that of an index ({names}).",
            path=path,
            check="schema",
        )


def _format(connection: sqlite3.Connection) -> int | None:
    """Return the format that a database of ours names, or None for any other."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version - 1 if application == APPLICATION_ID and version > 0 else None


def other_format(path: str, found: int) -> FormatMismatch:
    """Return the error for a sound index that an older or a newer version has written."""
    older = found < files.FORMAT
    return FormatMismatch(
        f"{path} has format {found}; this version of retriever reads format {files.FORMAT}.",
        hint="Index the files again into a new directory with `retriever index FOLDER -i NEW`."
        if older
        else "A newer version has written it: upgrade this one, or index the files again into a"
        " new directory.",
        found=found,
        supported=files.FORMAT,
    )


def _entries(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """Return (type, name, table, sql) of all that the database defines."""
    return connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema").fetchall()


def _definition(name: str, sql: str) -> tuple[Any, ...]:
    if sql.startswith("CREATE TABLE"):
        return ("table", name, name, sql)
    return ("index", name, sql.partition(" ON ")[2].partition("(")[0], sql)


_OURS = _BY_SQLITE | {_definition(*item) for item in (*TABLES.items(), *INDEXES.items())}


def _vectors_of(found: Iterable[tuple[Any, ...]]) -> set[tuple[Any, ...]]:
    """Return what the entries named like tables of vectors should be."""
    numbers = [_VECTORS(str(name)) for _, name, *_ in found]
    spaces = [int(number[1]) for number in numbers if number]
    return {_definition(vectors_table(space), _vectors_sql(space)) for space in spaces}


def _odd(connection: sqlite3.Connection) -> set[str]:
    """Return the names of what is missing, altered, doubled or not ours."""
    found = _entries(connection)
    rest = set(found) - _OURS
    vectors = _vectors_of(rest)
    odd = {str(name) for _, name, *_ in (rest ^ vectors) | (_OURS - set(found))}
    if len(set(found)) < len(found):
        odd |= {str(entry[1]) for entry, times in Counter(found).items() if times > 1}
    if not odd:
        spaces = {vectors_table(row[0]) for row in connection.execute("SELECT id FROM spaces")}
        odd = spaces ^ {name for _, name, *_ in vectors}
    return odd


def check_pages(connection: sqlite3.Connection, path: str) -> None:
    """Check every page, in an order in which nothing of a foreign schema is ever run.

    First the pages of the schema, then the schema itself, then all pages: a table that is not
    ours may have conditions that `quick_check` would evaluate.

    Raises:
        FormatMismatch, IndexCorrupt.
    """
    for target in ("sqlite_schema", 1):
        if target == 1:
            check(connection, path)
        (problem,) = connection.execute(f"PRAGMA quick_check({target})").fetchone()
        if problem != "ok":
            raise IndexCorrupt(
                f"The database of {path} is damaged: {problem}.", path=path, check="database"
            )


def restrict(connection: sqlite3.Connection) -> None:
    """Let a connection read nothing but tables that are exactly ours, and change nothing.

    A statement that would read a view, a virtual table or an altered table fails. The
    connection must be a read-only one.
    """
    found = _entries(connection)
    names = Counter(name for kind, name, *_ in found if kind != "index")
    expected = _OURS | _vectors_of(found)
    readable = {entry[1] for entry in found if entry in expected and names[entry[1]] == 1}
    readable |= {"sqlite_master", "sqlite_schema", "json_each"}

    def authorize(
        action: int, first: str | None, second: str | None, _: str | None, source: str | None
    ) -> int:
        if action == sqlite3.SQLITE_READ:
            is_allowed = first in readable and source is None
        elif action == sqlite3.SQLITE_PRAGMA:
            is_allowed = first in _HARMLESS
        elif action == sqlite3.SQLITE_FUNCTION:
            is_allowed = second != "load_extension"
        elif action == sqlite3.SQLITE_UPDATE:  # in name only: json_each declaring its columns
            is_allowed = first == "sqlite_master"
        else:
            is_allowed = action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_TRANSACTION)
        return sqlite3.SQLITE_OK if is_allowed else sqlite3.SQLITE_DENY

    connection.set_authorizer(authorize)

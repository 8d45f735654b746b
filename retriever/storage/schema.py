"""The schema of the database: create it from the descriptions of the tables, and check it."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from retriever.errors import FormatMismatch, IndexCorrupt
from retriever.storage import layout, tables
from retriever.storage.records import vectors_table
from retriever.storage.table import Table

APPLICATION_ID = 0x52747276  # "Rtrv"

# SQLite creates this table by itself once a table has AUTOINCREMENT.
_BY_SQLITE: set[tuple[Any, ...]] = {
    ("table", "sqlite_sequence", "sqlite_sequence", "CREATE TABLE sqlite_sequence(name,seq)"),
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


def create(connection: sqlite3.Connection, described: Sequence[Table] = tables.TABLES) -> None:
    """Create every table, inside the caller's transaction."""
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={layout.FORMAT + 1}")
    for table in described:
        for sql in (table.sql, *table.index_sql.values()):
            connection.execute(sql)


def create_vectors(connection: sqlite3.Connection, space_id: int) -> None:
    """Create the table for one space's vectors."""
    connection.execute(tables.vectors_of(space_id).sql)


def drop_vectors(connection: sqlite3.Connection, space_id: int) -> None:
    """Drop a space's vectors."""
    connection.execute(f"DROP TABLE {vectors_table(space_id)}")


def is_blank(connection: sqlite3.Connection) -> bool:
    """Return whether the database has no table yet, because its creation was interrupted."""
    count: int = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    return count == 0


def check(
    connection: sqlite3.Connection, path: str, described: tuple[Table, ...] = tables.TABLES
) -> None:
    """Refuse a database whose schema differs: another format, a trigger, a view.

    Raises:
        FormatMismatch: It is an index of another format.
        IndexCorrupt: It is not an index, or its schema was altered.
    """
    found = _format(connection)
    if found is not None and found != layout.FORMAT:
        raise other_format(path, found)
    odd = _odd(connection, described)
    if found is None or odd:
        names = ", ".join(sorted(odd)) or "application id"
        raise IndexCorrupt(
            f"{path}: the database's schema is not that of an index ({names}).",
            path=path,
            check="schema",
        )


def _format(connection: sqlite3.Connection) -> int | None:
    """Return the format that the database of an index records, or None for another database."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version - 1 if application == APPLICATION_ID and version > 0 else None


def other_format(path: str, found: int) -> FormatMismatch:
    """Return the error for an index that an older or a newer version wrote."""
    older = (
        "Nothing in it is lost or changed. Index its files again into a new directory with "
        "`retriever index FOLDER -i NEW`. Documents that did not come from files: export them with "
        "the version that wrote the index, `retriever export -i OLD > documents.jsonl`, and add "
        "them with this one, `retriever index - -i NEW < documents.jsonl`."
    )
    newer = (
        "A newer version wrote it: upgrade this one, or index the files again into a new directory."
    )
    return FormatMismatch(
        f"{path} has format {found}; this version of retriever reads format {layout.FORMAT}.",
        hint=older if found < layout.FORMAT else newer,
        found=found,
        supported=layout.FORMAT,
    )


def _entries(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """Return (type, name, table, sql) for each entry of the schema."""
    return connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema").fetchall()


def _definition(name: str, sql: str) -> tuple[Any, ...]:
    if sql.startswith("CREATE TABLE"):
        return ("table", name, name, sql)
    return ("index", name, sql.partition(" ON ")[2].partition("(")[0], sql)


@lru_cache(maxsize=8)
def _ours(described: tuple[Table, ...]) -> frozenset[tuple[Any, ...]]:
    """Return the entries of `sqlite_schema` for the described tables."""
    own = {_definition(table.name, table.sql) for table in described}
    for table in described:
        own |= {_definition(*item) for item in table.index_sql.items()}
        own |= {
            ("index", f"sqlite_autoindex_{table.name}_{number}", table.name, None)
            for number, _ in enumerate((c for c in table.columns if c.unique), 1)
        }
    return frozenset(own | _BY_SQLITE)


def _vectors_of(found: Iterable[tuple[Any, ...]]) -> set[tuple[Any, ...]]:
    """Return the expected entries for tables whose names are those of tables of vectors."""
    numbers = [_VECTORS(str(name)) for _, name, *_ in found]
    spaces = [int(number[1]) for number in numbers if number]
    described = [tables.vectors_of(space) for space in spaces]
    return {_definition(table.name, table.sql) for table in described}


def _odd(connection: sqlite3.Connection, described: tuple[Table, ...]) -> set[str]:
    """Return the names of entries that are missing, altered, duplicated or unknown."""
    ours = _ours(described)
    found = _entries(connection)
    rest = set(found) - ours
    vectors = _vectors_of(rest)
    odd = {str(name) for _, name, *_ in (rest ^ vectors) | (ours - set(found))}
    if len(set(found)) < len(found):
        odd |= {str(entry[1]) for entry, times in Counter(found).items() if times > 1}
    if not odd:
        spaces = {vectors_table(row[0]) for row in connection.execute("SELECT id FROM spaces")}
        odd = spaces ^ {name for _, name, *_ in vectors}
    return odd


def check_pages(connection: sqlite3.Connection, path: str) -> None:
    """Check every page, in an order in which no SQL of a crafted schema is ever run.

    First the pages of the schema are checked, then the schema itself, then all pages. A crafted
    table may have CHECK conditions, which `quick_check` of all pages would evaluate.

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


def restrict(connection: sqlite3.Connection, described: tuple[Table, ...] = tables.TABLES) -> None:
    """Restrict a read-only connection to tables with exactly the expected schema.

    A statement that would read a view, a virtual table or an altered table fails. SQLite asks
    the authorizer while it compiles a statement, so nothing of such an object is ever run.
    """
    found = _entries(connection)
    # A crafted schema may name two objects alike; which one a statement would read is unclear.
    names = Counter(name for kind, name, *_ in found if kind != "index")
    expected = _ours(described) | _vectors_of(found)
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
        elif action == sqlite3.SQLITE_UPDATE:  # reported when json_each declares its columns
            is_allowed = first == "sqlite_master"
        else:
            is_allowed = action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_TRANSACTION)
        return sqlite3.SQLITE_OK if is_allowed else sqlite3.SQLITE_DENY

    connection.set_authorizer(authorize)

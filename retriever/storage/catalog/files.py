"""Known files, and the documents that came from them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from retriever.storage.records import FileRow
from retriever.storage.rows import file_of_row
from retriever.storage.tables import FILES


def file_rows(connection: sqlite3.Connection) -> Iterator[FileRow]:
    """Yield every known file, ordered by path."""
    found = connection.execute(f"SELECT {FILES.listed()} FROM files ORDER BY path")
    for row in found:
        yield file_of_row(FILES.checked(row))


def files_beneath(
    connection: sqlite3.Connection, names: Sequence[bytes] | None
) -> Iterator[tuple[FileRow, bool]]:
    """Yield known files, and whether any of their documents is in the index.

    Args:
        connection: Inside a read transaction, or the writer's.
        names: Files, and folders, which stand for all files below; None means all files.
    """
    there = "EXISTS (SELECT 1 FROM documents d WHERE d.file_id = f.id)"
    select = f"SELECT {FILES.listed()}, {there} FROM files f"
    # "0" is the byte after "/", so the range holds all names below a folder.
    ranges = (
        [("", ())]
        if names is None
        else [
            (" WHERE path = ? OR (path > ? AND path < ?)", (name, name + b"/", name + b"0"))
            for name in names
        ]
    )
    for condition, values in ranges:
        for row in connection.execute(select + condition, values):
            yield file_of_row(FILES.checked(row[:-1])), bool(row[-1])


def file_of_document(connection: sqlite3.Connection, document_id: str) -> FileRow | None:
    """Return the file that a document came from, or None."""
    return _file(connection, "id = (SELECT file_id FROM documents WHERE id = ?)", document_id)


def file_at(connection: sqlite3.Connection, path: bytes) -> FileRow | None:
    """Return the file with a name, or None."""
    return _file(connection, "path = ?", path)


def _file(connection: sqlite3.Connection, condition: str, value: object) -> FileRow | None:
    row = connection.execute(
        f"SELECT {FILES.listed()} FROM files WHERE {condition}", (value,)
    ).fetchone()
    return file_of_row(FILES.checked(row)) if row else None


def some_names(connection: sqlite3.Connection, limit: int) -> list[bytes]:
    """Return at most `limit` names of indexed files with relative names, evenly spread."""
    # The condition leaves out names that begin with "/" (0x2f), which are absolute.
    found = connection.execute(
        "WITH named AS (SELECT path, row_number() OVER (ORDER BY id) AS n, count(*) OVER () AS many"
        " FROM files WHERE state = 'indexed' AND (path < x'2f' OR path >= x'30'))"
        " SELECT path FROM named WHERE n % max(1, many / ?) = 0 LIMIT ?",
        (limit, limit),
    )
    return [path for (path,) in found if isinstance(path, bytes)]


def ids_of_file(connection: sqlite3.Connection, path: bytes) -> list[str]:
    """Return the ids of the documents that came from a file."""
    found = connection.execute(
        "SELECT d.id FROM documents d JOIN files f ON f.id = d.file_id WHERE f.path = ?"
        " ORDER BY d.pk",
        (path,),
    )
    return [row[0] for row in found]

"""Checks of rows: each row by itself, and rows of several tables against each other."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from retriever.errors import RetrieverError
from retriever.storage import catalog, checksums, rows
from retriever.storage.check import Check
from retriever.storage.records import Space, StoredChunking
from retriever.storage.table import Table, damaged
from retriever.storage.tables import (
    CHUNKS,
    COMMITS,
    DOCUMENTS,
    FIELD_VALUES,
    TABLES,
    TEXTS,
    tables_of,
    vectors_of,
)
from retriever.types import Chunk

EncodedTexts: TypeAlias = Mapping[int, Callable[[Chunk, str | None], str]]
# Tables whose rows are read by the checks that compare tables.
_READ_WITH_CONTENT = {DOCUMENTS, TEXTS, FIELD_VALUES, CHUNKS, COMMITS}


def check_rows(
    check: Check, connection: sqlite3.Connection, described: tuple[Table, ...] = TABLES
) -> None:
    """Check each row of the tables that no other check reads: types, checksum and meaning."""
    total = 0
    for table in described:
        if table in _READ_WITH_CONTENT:
            continue
        for row in connection.execute(f"SELECT {table.listed()} FROM {table.name}"):
            total += 1
            if not table.is_sound(row):
                check.blame(f"row {row[0]} of table {table.name}: checksum does not match")
    check.detail = f"{total:,} rows of settings, files, ledgers and the like"


def check_documents(check: Check, connection: sqlite3.Connection) -> None:
    """Check documents and texts, and that each chunk is the slice that was encoded."""
    encoded = encoded_texts(catalog.chunkings(connection))
    total = 0
    for pk, problem, text, title in read_documents(connection):
        total += 1
        if problem:
            check.blame(problem)
            continue
        found = connection.execute(
            f"SELECT {CHUNKS.listed()} FROM chunks WHERE document_pk = ?", (pk,)
        ).fetchall()
        for row in found:
            if problem := chunk_problem(row, text, title, encoded):
                check.blame(problem)
        _check_ordinals(check, found, pk)
    check.detail = f"{total:,} documents"


def read_documents(
    connection: sqlite3.Connection,
) -> Iterator[tuple[int, str, str, str | None]]:
    """Yield (pk, problem or empty, text, title) of every document."""
    # LEFT JOIN, so that a document whose text is lost is reported too.
    found = connection.execute(
        f"SELECT {DOCUMENTS.listed('d')}, {TEXTS.listed('t')} FROM documents d"
        " LEFT JOIN texts t ON t.document_pk = d.pk"
    )
    for row in found:
        try:
            document = catalog.document_with_text(row)
        except RetrieverError as exc:
            yield row[0], f"document {row[1]!r}: {exc.message}", "", None
        else:
            yield row[0], "", document.text, document.title


def encoded_texts(chunkings: Iterable[StoredChunking]) -> EncodedTexts:
    """Return, by chunking id, the function that returns a chunk's encoded text."""
    return {one.id: one.options.encoded_text for one in chunkings}


def chunk_problem(row: Any, text: str, title: str | None, encoded: EncodedTexts) -> str:
    """Return the problem of a row of `chunks`, or an empty string.

    Args:
        row: The row, with its checksum.
        text: The text of its document.
        title: The title of its document.
        encoded: From `encoded_texts`.
    """
    try:
        values = CHUNKS.checked(row)
        start, end, byte_start, byte_end = values[4:8]
        piece = text[start:end]
        chunk = rows.chunk_of_row(values, "", piece)
        wanted = encoded[values[1]](chunk, title)
    except (RetrieverError, KeyError):
        return f"chunk {row[0]}: checksum does not match"
    size = len(piece.encode())
    if checksums.text_hash(wanted) != values[14] or size != byte_end - byte_start:
        return f"chunk {row[0]}: its span is not the text that was encoded"
    return ""


def _check_ordinals(check: Check, found: list[Any], pk: int) -> None:
    by_chunking: dict[int, list[int]] = {}
    for row in found:
        by_chunking.setdefault(row[1], []).append(row[3])
    for chunking_id, ordinals in by_chunking.items():
        if sorted(ordinals) != list(range(len(ordinals))):
            check.blame(f"document {pk}: chunks of chunking {chunking_id} are missing or doubled")


def check_ledgers(check: Check, connection: sqlite3.Connection) -> None:
    """Check that each document has a ledger in the active chunking; it may have no chunks."""
    chunking = catalog.active_space(connection).chunking
    for (document_id,) in connection.execute(
        "SELECT id FROM documents d WHERE NOT EXISTS (SELECT 1 FROM ledgers l"
        " WHERE l.document_pk = d.pk AND l.chunking_id = ?) ORDER BY d.pk",
        (chunking.id,),
    ):
        check.blame(f"document {document_id!r} is not chunked")
    check.detail = f"{catalog.count(connection, 'ledgers'):,} ledgers"


def check_vectors(check: Check, connection: sqlite3.Connection) -> None:
    """Check the vectors of each space, and that each chunk of its chunking has a row of vectors.

    A space that a rebuild fills for existing chunks is exempt: it may lack some of them.
    """
    total = 0
    for space in catalog.spaces(connection):
        of_chunking = connection.execute(
            "SELECT id FROM chunks WHERE chunking_id = ?", (space.chunking.id,)
        )
        missing = {row[0] for row in of_chunking}
        table = vectors_of(space.id)
        for row in connection.execute(f"SELECT {table.listed()} FROM {table.name}"):
            total += 1
            if row[0] not in missing:
                check.blame(f"vector {row[0]} of space {space.id} has no chunk")
            missing.discard(row[0])
            if problem := vector_problem(space, row):
                check.blame(problem)
        if space.state == "active" or space.chunking.state != "active":
            for chunk_id in sorted(missing):
                check.blame(f"chunk {chunk_id} has no vector in space {space.id}")
    check.detail = f"{total:,} vectors"


def vector_problem(space: Space, row: Sequence[Any]) -> str:
    """Return the problem of a row of a space's vectors, or an empty string."""
    try:
        _, data = vectors_of(space.id).checked(row)
    except RetrieverError:
        return f"vector {row[0]}: checksum does not match"
    problem = space.format.problem(data, space.dimension)
    return problem and f"vector {row[0]}: {problem}"


def live_sum(connection: sqlite3.Connection, described: tuple[Table, ...] = TABLES) -> int:
    """Compute the sum of the digests of all live rows from the rows themselves."""
    total = 0
    for table in tables_of(connection, described):
        if table.is_content:
            for row in connection.execute(f"SELECT {table.listed()} FROM {table.name}"):
                total += table.digest(row[:-1])
    return total % checksums.MODULUS


def check_history(check: Check, connection: sqlite3.Connection) -> None:
    """Recompute the chain of commits from its base, and `live_sum` from the live rows.

    The chain binds each commit to all before it, and `live_sum` binds the rows to the last commit:
    a row that was removed or exchanged with a valid checksum is noticed here.
    """
    chain: bytes | None = None
    commits = connection.execute(f"SELECT {COMMITS.listed()} FROM commits ORDER BY seq").fetchall()
    for commit in commits:
        if not COMMITS.has_types(commit):
            raise damaged("commits", commit[0])
        seq, _, n_added, n_deleted, live, link = commit
        # The oldest commit is the base: `compact` may have dropped those that it follows from.
        if chain is not None and checksums.chain(chain, seq, n_added, n_deleted, live) != link:
            check.blame(f"commit {seq}: its chain does not follow from the previous commit")
        chain = link
    if live_sum(connection).to_bytes(32) != commits[-1][4]:
        check.blame("the sum of the live rows differs from the one that the last commit recorded")
    check.detail = f"{len(commits):,} commits"

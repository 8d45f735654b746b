"""Reading the catalog: every query that the package asks of its database.

Functions take a connection inside a read transaction (or the writer's) and check the checksum
of each row they hand on. Writing is in `writer.py`.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from retriever.errors import IndexCorrupt
from retriever.storage import checksums
from retriever.storage.json_columns import from_json
from retriever.storage.records import (
    LOSSES,
    MAX_ID,
    PRECISIONS,
    Commit,
    FileRow,
    Key,
    Segment,
    Space,
    StoredChunk,
    StoredChunking,
    chunk_of_row,
    chunking_of_row,
    document_of_row,
    file_of_row,
    losses_of,
    precisions_of,
    segment_of_row,
    space_of_row,
    text_of,
    vector_of,
)
from retriever.storage.table import damaged
from retriever.storage.tables import (
    CHUNKINGS,
    CHUNKS,
    DOCUMENTS,
    FILES,
    LEDGERS,
    SEGMENTS,
    SETTINGS,
    SPACES,
    TEXTS,
    TOMBSTONES,
)
from retriever.storage.vector_formats import are_unit
from retriever.types import Chunk, Document, Ledger

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PAGE = 64
_SIMILAR = 300
_LONGEST_TYPED = 1_000
_DOCUMENT_COLUMNS = len(DOCUMENTS.names)
_CHUNK_COLUMNS = len(CHUNKS.names)


# --- state -----------------------------------------------------------------------------------


def key(connection: sqlite3.Connection) -> Key:
    """Return what the current view depends on."""
    row = connection.execute(
        "SELECT (SELECT max(seq) FROM commits), (SELECT coalesce(max(id), 0) FROM segments),"
        " (SELECT id FROM spaces WHERE kind = 'dense' AND state = 'active'),"
        " (SELECT chain FROM commits ORDER BY seq DESC LIMIT 1)"
    ).fetchone()
    if row[0] is None or row[2] is None:
        raise damaged("commits" if row[0] is None else "spaces", "(none)")
    return Key(*row)


def last_commit(connection: sqlite3.Connection) -> Commit:
    """Return the newest commit."""
    row = connection.execute(
        "SELECT seq, live_sum, chain FROM commits ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    if row is None:
        raise damaged("commits", "(none)")
    if not (_is_id(row[0]) and all(type(link) is bytes and len(link) == 32 for link in row[1:])):
        raise damaged("commits", row[0])
    return Commit(*row)


def _is_id(value: object) -> bool:
    return type(value) is int and 0 <= value < MAX_ID


def chain_at(connection: sqlite3.Connection, seq: int) -> bytes | None:
    """Return the chain at a commit, or None when the database does not hold that commit."""
    row = connection.execute("SELECT chain FROM commits WHERE seq = ?", (seq,)).fetchone()
    return row[0] if row else None


def chunkings(connection: sqlite3.Connection) -> list[StoredChunking]:
    """Return every chunking, oldest first; no two are in the same state."""
    found = connection.execute(f"SELECT {CHUNKINGS.listed()} FROM chunkings ORDER BY id")
    known = [chunking_of_row(CHUNKINGS.checked(row)) for row in found]
    if len({chunking.state for chunking in known}) < len(known):
        raise damaged("chunkings", known[-1].id)
    return known


def spaces(connection: sqlite3.Connection) -> list[Space]:
    """Return every space, oldest first; no two of a kind are in the same state.

    An active space is of the active chunking: what searches find together are the same chunks.
    """
    by_id = {chunking.id: chunking for chunking in chunkings(connection)}
    computed = precisions(connection)
    known = []
    for row in connection.execute(f"SELECT {SPACES.listed()} FROM spaces ORDER BY id").fetchall():
        values = SPACES.checked(row)
        if values[1] not in by_id:
            raise damaged("spaces", values[0])
        space = space_of_row(values, by_id[values[1]])
        if space.state == "active" != space.chunking.state:
            raise damaged("spaces", space.id)
        known.append(replace(space, precisions=computed.get(str(space.id), {})))
    if len({(space.format.kind, space.state) for space in known}) < len(known):
        raise damaged("spaces", known[-1].id)
    return known


def precisions(connection: sqlite3.Connection) -> dict[str, dict[str, float]]:
    """Return, by space id, in which precisions vectors were computed; see `Space`."""
    return precisions_of(setting(connection, PRECISIONS))


def active_space(connection: sqlite3.Connection, kind: str = "dense") -> Space:
    """Return the space of a kind that searches use."""
    for space in spaces(connection):
        if (space.format.kind, space.state) == (kind, "active"):
            return space
    raise damaged("spaces", "(active)")


def building_space(connection: sqlite3.Connection) -> Space | None:
    """Return the space of a rebuild that has not finished."""
    return next((space for space in spaces(connection) if space.state == "building"), None)


def setting(connection: sqlite3.Connection, name: str) -> str | None:
    """Return one setting's value."""
    row = connection.execute(
        f"SELECT {SETTINGS.listed()} FROM settings WHERE key = ?", (name,)
    ).fetchone()
    return str(SETTINGS.checked(row)[1]) if row else None


def losses(connection: sqlite3.Connection) -> list[dict[str, str]]:
    """Return what was lost, ever: `at` and `detail` of each loss."""
    return losses_of(setting(connection, LOSSES))


def segments(
    connection: sqlite3.Connection, kind: str, chunking_id: int, space_id: int | None
) -> list[Segment]:
    """Return the segments of one kind in ascending order of chunk id; no two of them overlap.

    Args:
        connection: Where.
        kind: The name of the kind.
        chunking_id: Whose chunks they are of.
        space_id: Whose vectors they hold; None for a kind that is made from texts.
    """
    found = connection.execute(
        f"SELECT {SEGMENTS.listed()} FROM segments"
        " WHERE chunking_id = ? AND kind = ? AND space_id IS ? ORDER BY first_id",
        (chunking_id, kind, space_id),
    )
    known = [segment_of_row(SEGMENTS.checked(row)) for row in found]
    for one, following in itertools.pairwise(known):
        if following.first_id <= one.last_id:
            raise damaged("segments", following.id)
    return known


def all_segments(connection: sqlite3.Connection) -> list[Segment]:
    """Return every segment, of whatever kind."""
    found = connection.execute(f"SELECT {SEGMENTS.listed()} FROM segments ORDER BY id")
    return [segment_of_row(SEGMENTS.checked(row)) for row in found]


def last_covered(connection: sqlite3.Connection, chunking_id: int) -> int:
    """Return the last chunk id that a segment of a chunking covers, of whatever kind.

    A chunk up to it may be in a segment, and leaves a tombstone when it is deleted.
    """
    of_chunking = (s for s in all_segments(connection) if s.chunking_id == chunking_id)
    return max((segment.last_id for segment in of_chunking), default=0)


# --- documents -------------------------------------------------------------------------------


def count(connection: sqlite3.Connection, table: str) -> int:
    """Return the number of rows of a table of ours."""
    number: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return number


def document(connection: sqlite3.Connection, document_id: str) -> Document | None:
    """Return a document by id."""
    found = _documents(connection, "d.id = ?", (document_id,))
    return found[0][1] if found else None


def document_pks(connection: sqlite3.Connection, ids: Iterable[str]) -> dict[str, int]:
    """Return the primary keys of those of some documents that are in the index."""
    known: dict[str, int] = {}
    wanted = list(ids)
    # Bound one by one: json_each cuts a string at a zero character.
    for start in range(0, len(wanted), _PAGE):
        some = wanted[start : start + _PAGE]
        marks = ", ".join("?" * len(some))
        found = connection.execute(f"SELECT id, pk FROM documents WHERE id IN ({marks})", some)
        known.update(found.fetchall())
    return known


def document_pk(connection: sqlite3.Connection, document_id: str) -> int | None:
    """Return a document's primary key."""
    row = connection.execute("SELECT pk FROM documents WHERE id = ?", (document_id,)).fetchone()
    return row[0] if row else None


def documents_after(connection: sqlite3.Connection, document_id: str) -> list[Document]:
    """Return the next page of documents, in order of id."""
    found = _documents(connection, "d.id > ? ORDER BY d.id LIMIT ?", (document_id, _PAGE))
    page = [document for _, document in found]
    _require_ascending("documents", [document_id, *(document.id for document in page)])
    return page


def _require_ascending(table: str, keys: Sequence[Any]) -> None:
    """Refuse keys that do not ascend, as a damaged page may hold them: reading on might not end."""
    for one, following in itertools.pairwise(keys):
        if one >= following:
            raise damaged(table, following)


def existing_pks(connection: sqlite3.Connection, pks: Sequence[int]) -> set[int]:
    """Return those primary keys of documents that are in the catalog."""
    return {
        pk
        for pk in pks
        if connection.execute("SELECT 1 FROM documents WHERE pk = ?", (pk,)).fetchone()
    }


# Documents `d` of which a space lacks something: they are not cut for its chunking, as a ledger
# would show, or a chunk of theirs has no vector in it yet.
_INCOMPLETE = (
    "(NOT EXISTS (SELECT 1 FROM ledgers l WHERE l.document_pk = d.pk AND l.chunking_id = {0})"
    " OR EXISTS (SELECT 1 FROM chunks c WHERE c.document_pk = d.pk AND c.chunking_id = {0}"
    " AND NOT EXISTS (SELECT 1 FROM {1} v WHERE v.chunk_id = c.id)))"
)


def _incomplete(space: Space) -> str:
    return _INCOMPLETE.format(int(space.chunking.id), space.table)


def count_incomplete(connection: sqlite3.Connection, space: Space) -> tuple[int, int]:
    """Return how many documents a space does not hold whole yet, and the bytes of their texts."""
    count, size = connection.execute(
        "SELECT count(*), coalesce(sum(length(t.utf8)), 0) FROM documents d"
        f" JOIN texts t ON t.document_pk = d.pk WHERE {_incomplete(space)}"
    ).fetchone()
    return count, size


def incomplete_documents(
    connection: sqlite3.Connection, space: Space, limit: int, after_pk: int = 0
) -> list[tuple[int, Document]]:
    """Return documents after a primary key that a space does not hold whole, with their keys."""
    condition = f"d.pk > ? AND {_incomplete(space)} ORDER BY d.pk LIMIT ?"
    found = _documents(connection, condition, (after_pk, limit))
    _require_ascending("documents", [after_pk, *(pk for pk, _ in found)])
    return found


def has_unchunked(connection: sqlite3.Connection, chunking_id: int) -> bool:
    """Return whether there is a document that is not cut for a chunking."""
    found = connection.execute(
        "SELECT 1 FROM documents d WHERE NOT EXISTS (SELECT 1 FROM ledgers l"
        " WHERE l.document_pk = d.pk AND l.chunking_id = ?) LIMIT 1",
        (chunking_id,),
    )
    return found.fetchone() is not None


def _documents(
    connection: sqlite3.Connection, condition: str, values: tuple[Any, ...]
) -> list[tuple[int, Document]]:
    found = connection.execute(
        f"SELECT {DOCUMENTS.listed('d')}, {TEXTS.listed('t')} FROM documents d"
        f" LEFT JOIN texts t ON t.document_pk = d.pk WHERE {condition}",
        values,
    )
    return [(row[0], document_with_text(row)) for row in found]


def document_with_text(row: Sequence[Any]) -> Document:
    """Return the document of its row and that of its text, one after the other, both checked."""
    values = DOCUMENTS.checked(row[:_DOCUMENT_COLUMNS])
    try:
        utf8 = TEXTS.checked(row[_DOCUMENT_COLUMNS:])[1]
    except IndexCorrupt as exc:
        raise damaged("texts", values[1]) from exc
    return document_of_row(values, text_of(utf8, values[1]))


def existing_ids(connection: sqlite3.Connection, ids: Iterable[str]) -> set[str]:
    """Return which of `ids` are documents of the index."""
    return set(document_pks(connection, ids))


def similar_ids(connection: sqlite3.Connection, wanted: str) -> list[str]:
    """Return up to 20 ids of documents of which one may have been meant, likest first.

    Looked at are ids near it in order and, of the first 50,000, those with its second half (which
    a slip in the first half leaves as it is) or its letters in another case: a few milliseconds,
    however many documents there are.
    """
    if len(wanted) > _LONGEST_TYPED:
        return []
    half = max((len(wanted) - 1) // 2, 1)
    near = itertools.chain(
        connection.execute(
            f"SELECT id FROM documents WHERE id < ? ORDER BY id DESC LIMIT {_SIMILAR}", (wanted,)
        ),
        connection.execute(
            f"SELECT id FROM documents WHERE id >= ? ORDER BY id LIMIT {_SIMILAR}", (wanted,)
        ),
        connection.execute(
            "SELECT id FROM (SELECT id FROM documents LIMIT 50000)"
            f" WHERE substr(id, ?) = ? OR lower(id) = lower(?) LIMIT {_SIMILAR}",
            (-half, wanted[-half:], wanted),
        ),
    )
    found = dict.fromkeys(row[0] for row in near if isinstance(row[0], str))
    return sorted(found, key=lambda name: -_shared(name.lower(), wanted.lower()))[:20]


def _shared(one: str, other: str) -> int:
    """Return how many characters two names share at their beginning and end."""
    before = _alike(one, other)
    return before + _alike(one[before:][::-1], other[before:][::-1])


def _alike(one: str, other: str) -> int:
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return sum(1 for _ in alike)


# --- files -----------------------------------------------------------------------------------


def file_rows(connection: sqlite3.Connection) -> Iterator[FileRow]:
    """Yield every known file, ordered by path."""
    found = connection.execute(f"SELECT {FILES.listed()} FROM files ORDER BY path")
    for row in found:
        yield file_of_row(FILES.checked(row))


def files_beneath(
    connection: sqlite3.Connection, names: Sequence[bytes] | None
) -> Iterator[tuple[FileRow, bool]]:
    """Yield known files, and whether documents of theirs are in the index.

    Args:
        connection: Where.
        names: Files, or folders whose files are meant; None means all files.
    """
    there = "EXISTS (SELECT 1 FROM documents d WHERE d.file_id = f.id)"
    select = f"SELECT {FILES.listed()}, {there} FROM files f"
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
    """Return the file of a name, or None."""
    return _file(connection, "path = ?", path)


def _file(connection: sqlite3.Connection, condition: str, value: object) -> FileRow | None:
    row = connection.execute(
        f"SELECT {FILES.listed()} FROM files WHERE {condition}", (value,)
    ).fetchone()
    return file_of_row(FILES.checked(row)) if row else None


def some_names(connection: sqlite3.Connection, limit: int) -> list[bytes]:
    """Return names of indexed files that are relative, from the first to the last of them."""
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


# --- chunks and vectors ----------------------------------------------------------------------


def chunks_of(connection: sqlite3.Connection, pk: int, chunking_id: int) -> list[Chunk]:
    """Return a document's chunks in order; its text is checked whole."""
    _documents(connection, "d.pk = ?", (pk,))
    found = connection.execute(
        "SELECT id FROM chunks WHERE document_pk = ? AND chunking_id = ? ORDER BY ordinal",
        (pk, chunking_id),
    )
    ids = [row[0] for row in found]
    stored = fetch_chunks(connection, ids)
    if lost := set(ids) - stored.keys():
        raise damaged("chunks", min(lost))
    return [stored[chunk_id].chunk for chunk_id in ids]


def fetch_chunks(connection: sqlite3.Connection, ids: Sequence[int]) -> dict[int, StoredChunk]:
    """Return chunks by id, with the slice of text each stands for.

    Raises:
        IndexCorrupt: A row's checksum does not match, or the slice is not valid UTF-8.
    """
    found = connection.execute(
        f"SELECT {CHUNKS.listed('c')}, {DOCUMENTS.listed('d')},"
        # substr of an empty blob is NULL
        " coalesce(substr(t.utf8, c.byte_start + 1, c.byte_end - c.byte_start), x''),"
        f" {FILES.listed('f')} FROM chunks c JOIN documents d ON d.pk = c.document_pk"
        " JOIN texts t ON t.document_pk = d.pk LEFT JOIN files f ON f.id = d.file_id"
        " WHERE c.id IN (SELECT value FROM json_each(?))",
        (json.dumps([int(chunk_id) for chunk_id in ids]),),
    )
    of_document = slice(_CHUNK_COLUMNS, _CHUNK_COLUMNS + _DOCUMENT_COLUMNS)
    stored: dict[int, StoredChunk] = {}
    for row in found:
        chunk = CHUNKS.checked(row[:_CHUNK_COLUMNS])
        _, document_id, _, source, title, metadata, _ = DOCUMENTS.checked(row[of_document])
        utf8, _, *of_file, _ = row[of_document.stop :]
        try:
            text = utf8.decode()
        except (UnicodeDecodeError, AttributeError) as exc:
            raise damaged("texts", document_id) from exc
        if len(utf8) != chunk[7] - chunk[6]:
            raise damaged("chunks", chunk[0])
        shown = from_json(metadata, dict, "documents", document_id)
        # Not checked any further: it only tells whether the file has changed.
        file = FileRow(*of_file) if isinstance(of_file[0], bytes) else None
        stored[chunk[0]] = StoredChunk(
            chunk_of_row(chunk, document_id, text), chunk[14], source, title, shown, file
        )
    return stored


def fetch_vectors(
    connection: sqlite3.Connection, space: Space, ids: Sequence[int]
) -> dict[int, NDArray[np.float32]]:
    """Return vectors by chunk id, each checked against its CRC."""
    found = connection.execute(
        f"SELECT chunk_id, data, crc FROM {space.table}"
        " WHERE chunk_id IN (SELECT value FROM json_each(?))",
        (json.dumps([int(chunk_id) for chunk_id in ids]),),
    )
    return {chunk_id: vector_of(space, chunk_id, data, crc) for chunk_id, data, crc in found}


def vector_blocks(
    connection: sqlite3.Connection, space: Space, after: int, upto: int, size: int = 1024
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield (ids, vectors) of the range `(after, upto]` in ascending order, in blocks."""
    while True:
        found = connection.execute(
            f"SELECT chunk_id, data, crc FROM {space.table}"
            " WHERE chunk_id > ? AND chunk_id <= ? ORDER BY chunk_id LIMIT ?",
            (after, upto, size),
        ).fetchall()
        if not found:
            return
        for chunk_id, data, crc in found:
            vector_of(space, chunk_id, data, crc)
        ids = np.array([row[0] for row in found], dtype=np.int64)
        if (np.diff(ids, prepend=after) <= 0).any():  # a damaged page: reading on might not end
            raise damaged(space.table, int(ids[0]))
        joined = b"".join(row[1] for row in found)
        block = np.frombuffer(joined, dtype="<f4").reshape(len(ids), space.dimension)
        _require_unit(space, ids, block)
        yield ids, block
        after = int(ids[-1])


def _require_unit(space: Space, ids: NDArray[np.int64], block: NDArray[np.float32]) -> None:
    """Refuse vectors that are not finite and of unit length, which all of ours are."""
    wrong = ~are_unit(block)
    if wrong.any():
        raise damaged(space.table, int(ids[int(wrong.argmax())]))


class ChunkRows(Protocol):
    """What has one row for each of its live chunks: a space, or a series of segments."""

    @property
    def table(self) -> str:
        """Return a table, or a query in brackets, with a column `chunk_id`."""
        ...


def ids_between(
    connection: sqlite3.Connection, rows: ChunkRows, after: int, upto: int
) -> NDArray[np.int64]:
    """Return the live chunk ids of the range `(after, upto]`, ascending, int64."""
    found = connection.execute(
        f"SELECT chunk_id FROM {rows.table} WHERE chunk_id > ? AND chunk_id <= ? ORDER BY chunk_id",
        (after, upto),
    )
    return np.fromiter((row[0] for row in found), dtype=np.int64)


def count_between(connection: sqlite3.Connection, rows: ChunkRows, after: int, upto: int) -> int:
    """Return the number of live rows of the range `(after, upto]`."""
    number: int = connection.execute(
        f"SELECT count(*) FROM {rows.table} WHERE chunk_id > ? AND chunk_id <= ?", (after, upto)
    ).fetchone()[0]
    return number


def tombstones(connection: sqlite3.Connection, after_seq: int) -> NDArray[np.int64]:
    """Return chunk ids deleted after a commit that segments may still hold, int64."""
    found = connection.execute(
        f"SELECT {TOMBSTONES.listed()} FROM tombstones WHERE seq > ?", (after_seq,)
    )
    return np.array([TOMBSTONES.checked(row)[0] for row in found], dtype=np.int64)


def vectors_by_text(
    connection: sqlite3.Connection, space: Space, hashes: Iterable[bytes]
) -> dict[bytes, bytes]:
    """Return the stored vector, as bytes, of each text that this space has already encoded."""
    known: dict[bytes, bytes] = {}
    for wanted in hashes:
        row = connection.execute(
            f"SELECT v.chunk_id, v.data, v.crc FROM chunks c JOIN {space.table} v"
            " ON v.chunk_id = c.id WHERE c.text_hash = ? AND c.precomputed = 0 LIMIT 1",
            (wanted,),
        ).fetchone()
        if row is None:
            continue
        with suppress(IndexCorrupt):
            vector = vector_of(space, *row)
            _require_unit(space, np.array([row[0]]), vector[None])
            known[wanted] = row[1]
    return known


class Text(NamedTuple):
    """What makes two chunks identical.

    Attributes:
        hash: Of the text that the encoder saw.
        embedding: The bytes of an embedding that a caller brought, which equal text need not share.
    """

    hash: bytes
    embedding: bytes | None


class Passage(NamedTuple):
    """What tells a chunk from others.

    Attributes:
        document_pk: The primary key of its document.
        text: Its text, where another chunk has it too and it is not empty; else None.
    """

    document_pk: int
    text: Text | None


_NO_TEXT = checksums.text_hash("")
_COPIES_READ = 64
_COPIES_NAMED = 10


def has_copies(connection: sqlite3.Connection, ids: Sequence[int]) -> bool:
    """Return whether any of the chunks has the text of another, of this chunking or another."""
    found = connection.execute(
        "SELECT 1 FROM chunks c WHERE c.id IN (SELECT value FROM json_each(?)) AND EXISTS"
        " (SELECT 1 FROM chunks o WHERE o.text_hash = c.text_hash AND o.id <> c.id) LIMIT 1",
        (json.dumps(list(ids)),),
    )
    return found.fetchone() is not None


def passages(
    connection: sqlite3.Connection, space: Space, ids: Sequence[int]
) -> dict[int, Passage]:
    """Return what tells each of the chunks from others."""
    found = connection.execute(
        "SELECT id, document_pk, text_hash,"
        " CASE WHEN text_hash IS NOT NULL AND precomputed = 1 THEN"
        f" (SELECT data FROM {space.table} WHERE chunk_id = id) END"
        " FROM (SELECT c.id, c.document_pk, c.precomputed, CASE WHEN EXISTS (SELECT 1 FROM chunks o"
        " WHERE o.text_hash = c.text_hash AND o.id <> c.id) THEN c.text_hash END AS text_hash"
        " FROM chunks c WHERE c.id IN (SELECT value FROM json_each(?)))",
        (json.dumps(list(ids)),),
    )
    known = {}
    for chunk_id, pk, name, embedding in found:
        if type(pk) is not int or not _are_bytes(name, embedding):
            raise damaged("chunks", chunk_id)
        text = None if name is None or name == _NO_TEXT else Text(name, embedding)
        known[chunk_id] = Passage(pk, text)
    if lost := set(ids) - known.keys():
        raise damaged("chunks", min(lost))
    return known


def _are_bytes(*values: object) -> bool:
    return all(value is None or type(value) is bytes for value in values)


def chunks_of_text(connection: sqlite3.Connection, space: Space, text: Text) -> NDArray[np.int64]:
    """Return the ids of all chunks that have a text, ascending, int64."""
    found = connection.execute(
        "SELECT id FROM chunks WHERE text_hash = ? AND chunking_id = ? AND precomputed = 0"
        " ORDER BY id"
        if text.embedding is None
        else f"SELECT c.id FROM chunks c JOIN {space.table} v ON v.chunk_id = c.id"
        " WHERE c.text_hash = ? AND c.chunking_id = ? AND c.precomputed = 1 AND v.data = ?"
        " ORDER BY c.id",
        (text.hash, space.chunking.id, *([] if text.embedding is None else [text.embedding])),
    )
    return np.fromiter((row[0] for row in found), dtype=np.int64)


def with_equal_vector(
    connection: sqlite3.Connection, space: Space, ids: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return those of some chunks, but the first, that have the first one's vector, int64."""
    found = connection.execute(
        f"SELECT chunk_id FROM {space.table} WHERE chunk_id IN (SELECT value FROM json_each(?))"
        f" AND data = (SELECT data FROM {space.table} WHERE chunk_id = ?) ORDER BY chunk_id",
        (json.dumps(ids[1:].tolist()), int(ids[0])),
    )
    return np.fromiter((row[0] for row in found), dtype=np.int64)


def chunks_of_documents(connection: sqlite3.Connection, pks: Sequence[int]) -> NDArray[np.int64]:
    """Return the ids of all chunks, of whatever chunking, of documents, int64."""
    found = connection.execute(
        "SELECT id FROM chunks WHERE document_pk IN (SELECT value FROM json_each(?))",
        (json.dumps(list(pks)),),
    )
    return np.fromiter((row[0] for row in found), dtype=np.int64)


def documents_with(
    connection: sqlite3.Connection, chunk_ids: NDArray[np.int64], but: int
) -> tuple[str, ...]:
    """Return ids of documents that chunks are of, at most 10, and not that of a primary key.

    Only the first chunks are looked at, so that many of one document cost no more.
    """
    found = connection.execute(
        "SELECT d.id FROM json_each(?) j JOIN chunks c ON c.id = j.value"
        " JOIN documents d ON d.pk = c.document_pk WHERE d.pk <> ? ORDER BY c.id",
        (json.dumps(chunk_ids[:_COPIES_READ].tolist()), but),
    )
    return tuple(dict.fromkeys(row[0] for row in found))[:_COPIES_NAMED]


def ledger_of(connection: sqlite3.Connection, chunking_id: int, pk: int) -> Ledger | None:
    """Return a document's account of tokens in a chunking, or None where it is not cut for it."""
    row = connection.execute(
        f"SELECT {LEDGERS.listed()} FROM ledgers WHERE document_pk = ? AND chunking_id = ?",
        (pk, chunking_id),
    ).fetchone()
    return Ledger(*LEDGERS.checked(row)[2:]) if row else None


def precomputed_vector(
    connection: sqlite3.Connection, space: Space, pk: int
) -> NDArray[np.float32] | None:
    """Return the embedding that a caller brought for a document, or None."""
    row = connection.execute(
        f"SELECT v.chunk_id, v.data, v.crc FROM chunks c JOIN {space.table} v"
        " ON v.chunk_id = c.id WHERE c.document_pk = ? AND c.chunking_id = ? AND c.precomputed = 1",
        (pk, space.chunking.id),
    ).fetchone()
    if row is None:
        return None
    vector = vector_of(space, *row)
    _require_unit(space, np.array([row[0]]), vector[None])
    return vector


def count_precomputed(connection: sqlite3.Connection, chunking_id: int) -> int:
    """Return the number of documents whose embedding a caller brought."""
    number: int = connection.execute(
        "SELECT count(DISTINCT document_pk) FROM chunks WHERE chunking_id = ? AND precomputed = 1",
        (chunking_id,),
    ).fetchone()[0]
    return number


def vectors_of_document(
    connection: sqlite3.Connection, space: Space, pk: int
) -> NDArray[np.float32]:
    """Return the vectors of a document's chunks, in their order, float32 `(n, dimension)`."""
    found = connection.execute(
        f"SELECT v.chunk_id, v.data, v.crc FROM chunks c JOIN {space.table} v"
        " ON v.chunk_id = c.id WHERE c.document_pk = ? AND c.chunking_id = ? ORDER BY c.ordinal",
        (pk, space.chunking.id),
    ).fetchall()
    vectors = np.empty((len(found), space.dimension), np.float32)
    for row, (chunk_id, data, crc) in enumerate(found):
        vectors[row] = vector_of(space, chunk_id, data, crc)
    _require_unit(space, np.array([row[0] for row in found]), vectors)
    return vectors


def with_embeddings(
    connection: sqlite3.Connection, documents: Sequence[Document]
) -> list[Document]:
    """Return documents with the embeddings that callers brought for them."""
    space = active_space(connection)
    found = []
    for document in documents:
        pk = document_pk(connection, document.id or "")
        vector = None if pk is None else precomputed_vector(connection, space, pk)
        found.append(document if vector is None else replace(document, embedding=vector))
    return found


def ledger_total(connection: sqlite3.Connection, chunking_id: int) -> Ledger:
    """Return the sum of a chunking's ledgers."""
    row = connection.execute(
        "SELECT coalesce(sum(tokens), 0), coalesce(sum(encoded), 0), coalesce(sum(unknown), 0)"
        " FROM ledgers WHERE chunking_id = ?",
        (chunking_id,),
    ).fetchone()
    return Ledger(*row)


def unfamiliar(
    connection: sqlite3.Connection, chunking_id: int, share: float
) -> list[tuple[str, float]]:
    """Return documents, and their share, of which over `share` of the tokens are unknown."""
    found = connection.execute(
        "SELECT d.id, 1.0 * l.unknown / l.tokens FROM ledgers l JOIN documents d"
        " ON d.pk = l.document_pk WHERE l.chunking_id = ? AND l.tokens > 0"
        " AND l.unknown > ? * l.tokens ORDER BY 2 DESC, 1",
        (chunking_id, share),
    )
    return [row for row in found if isinstance(row[0], str) and isinstance(row[1], float)]

"""The rows of the catalog as Python knows them, and the check that each is as it was written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import numpy as np

from retriever.errors import IndexCorrupt
from retriever.storage import rows
from retriever.storage.files import Published, Stamp
from retriever.storage.schema import vectors_table
from retriever.types import Chunk, Document, Heading, Span

if TYPE_CHECKING:
    from numpy.typing import NDArray

DOCUMENT_COLUMNS = "d.pk, d.id, d.file_id, d.source, d.title, d.metadata, d.structure"
CHUNK_COLUMNS = (
    "c.id, c.space_id, c.document_pk, c.ordinal, c.char_start, c.char_end, c.byte_start, "
    "c.byte_end, c.first_line, c.last_line, c.page, c.heading, c.tokens, c.supplied, c.text_hash"
)
FILE_COLUMNS = "id, path, state, reason, size, mtime_ns, sha256"
SPACE_COLUMNS = "id, kind, state, identity, chunking, dimension, dtype, metric, canaries"
SEGMENT_COLUMNS = "id, kind, space_id, first_id, last_id, row_count, files, params"


class Key(NamedTuple):
    """What a view of the index depends on; equal keys mean an equal view."""

    seq: int
    segment_top: int
    space_id: int


class Commit(NamedTuple):
    """One durable step of the index's history."""

    seq: int
    live_sum: bytes
    chain: bytes


@dataclass(frozen=True, slots=True)
class Space:
    """The vectors of one encoder and one chunking; searches use the active one."""

    id: int
    kind: str
    state: str
    identity: dict[str, Any]
    chunking: dict[str, Any]
    dimension: int
    dtype: str
    metric: str
    canaries: bytes

    @property
    def table(self) -> str:
        """Return the table of this space's vectors."""
        return vectors_table(self.id)

    def canary_vectors(self) -> NDArray[np.float32]:
        """Return the stored canaries, float32 `(n, dimension)`."""
        return np.frombuffer(self.canaries, dtype="<f4").reshape(-1, self.dimension)


@dataclass(frozen=True, slots=True)
class Segment:
    """An immutable pair of files that caches the vectors of a range of chunk ids."""

    id: int
    kind: str
    space_id: int
    first_id: int
    last_id: int
    rows: int
    files: tuple[Published, ...]


class FileRow(NamedTuple):
    """What is known of a file that was met in a walk."""

    path: bytes
    state: str
    reason: str | None
    size: int | None
    mtime_ns: int | None
    sha256: bytes | None


class StoredChunk(NamedTuple):
    """A chunk with what a hit shows of its document."""

    chunk: Chunk
    text_hash: bytes
    source: str | None
    title: str | None
    metadata: dict[str, Any]


def damaged(table: str, key: object, path: str = "") -> IndexCorrupt:
    """Return the error for a row whose checksum does not match."""
    return IndexCorrupt(
        f"Row {key} of table {table} is damaged: its checksum does not match.",
        path=path or "the index",
        check=f"crc:{table}",
        hint="Run `retriever verify` to see all damage and `retriever repair` to mend it.",
    )


def checked(kind: str, row: Sequence[Any]) -> Sequence[Any]:
    """Return a row less its trailing crc, or raise IndexCorrupt."""
    if crc32(rows.pack(kind, *row[:-1])) != row[-1]:
        raise damaged(kind, row[0])
    return row[:-1]


def space_of_row(row: Sequence[Any]) -> Space:
    """Return the space of a row of SPACE_COLUMNS."""
    space_id, kind, state, identity, chunking, dimension, dtype, metric, canaries = row
    return Space(
        id=space_id,
        kind=kind,
        state=state,
        identity=json.loads(identity),
        chunking=json.loads(chunking),
        dimension=dimension,
        dtype=dtype,
        metric=metric,
        canaries=canaries,
    )


def segment_of_row(row: Sequence[Any]) -> Segment:
    """Return the segment of a row of SEGMENT_COLUMNS."""
    published = tuple(
        Published(file["name"], file["size"], file["sha256"], Stamp(*file["stamp"]))
        for file in json.loads(row[6])
    )
    segment_id, kind, space_id, first_id, last_id, row_count = row[:6]
    return Segment(segment_id, kind, space_id, first_id, last_id, row_count, published)


def document_of_row(row: Sequence[Any]) -> Document:
    """Return the document of a row of (DOCUMENT_COLUMNS, crc, utf8, text crc)."""
    pk, document_id, _, source, title, metadata, structure = checked("document", row[:8])
    utf8, crc = row[8], row[9]
    if utf8 is None or rows.keyed_crc(pk, utf8) != crc:
        raise damaged("texts", document_id)
    shape = json.loads(structure)
    return Document(
        text=utf8.decode(),
        id=document_id,
        metadata=json.loads(metadata),
        source=source,
        title=title,
        headings=tuple(Heading(*heading) for heading in shape.get("headings", ())),
        pages=tuple(shape.get("pages", ())),
    )


def chunk_of_row(row: Sequence[Any], document_id: str, text: str) -> Chunk:
    """Return the chunk of a row of CHUNK_COLUMNS."""
    return Chunk(
        ordinal=row[3],
        span=Span(row[4], row[5]),
        byte_span=Span(row[6], row[7]),
        lines=(row[8], row[9]),
        page=row[10],
        heading=tuple(json.loads(row[11])),
        tokens=row[12],
        text=text,
        id=row[0],
        document_id=document_id,
    )


def vector_of(chunk_id: int, data: bytes, crc: int, dimension: int) -> NDArray[np.float32]:
    """Return one stored vector, float32 `(dimension,)`, or raise IndexCorrupt."""
    if rows.keyed_crc(chunk_id, data) != crc or len(data) != 4 * dimension:
        raise damaged("vectors", chunk_id)
    return np.frombuffer(data, dtype="<f4")

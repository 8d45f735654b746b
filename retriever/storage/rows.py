"""Convert rows to the objects that they stand for, and back.

Each `…_of_row` takes the values of a row whose types and checksum `Table.checked` has compared, and
refuses values that are never written.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever import names
from retriever.canonical import to_json
from retriever.config import Chunking
from retriever.errors import FormatMismatch, InvalidConfig
from retriever.storage import checksums, layout
from retriever.storage.files import Published, Stamp
from retriever.storage.json_columns import are, from_json
from retriever.storage.records import (
    BASE,
    FILE_STATES,
    LOSSES,
    MAX_ID,
    PRECISIONS,
    STATES,
    FileRow,
    Segment,
    Space,
    StoredChunking,
)
from retriever.storage.table import damaged
from retriever.storage.vector_formats import MAX_DIMENSION, format_of
from retriever.types import Chunk, Document, Heading, Span

if TYPE_CHECKING:
    from numpy.typing import NDArray


def chunking_of_row(row: Sequence[Any]) -> StoredChunking:
    """Return the chunking of a row.

    Raises:
        IndexCorrupt: It holds a value that no version writes.
        FormatMismatch: It has an option that only a later version of the package knows.
    """
    chunking_id, state, options, cutter = row
    given = from_json(options, dict, "chunkings", chunking_id)
    if unknown := sorted(given.keys() - {option.name for option in fields(Chunking)}):
        raise FormatMismatch(
            f"The documents of this index are cut with the chunking option {unknown[0]!r}, which "
            "this version of the package does not know.",
            hint="A newer version made the index: upgrade this one.",
            found=layout.FORMAT,
            supported=layout.FORMAT,
        )
    try:
        parsed = Chunking.parse(given)
    except InvalidConfig as exc:
        raise damaged("chunkings", chunking_id) from exc
    if state not in STATES or not 0 < chunking_id < MAX_ID:
        raise damaged("chunkings", chunking_id)
    shown = from_json(cutter, dict, "chunkings", chunking_id)
    return StoredChunking(chunking_id, state, parsed, shown)


_UNKNOWN = StoredChunking(0, "building", Chunking(), {})


def space_of_row(row: Sequence[Any], chunking: StoredChunking = _UNKNOWN) -> Space:
    """Return the space of a row; `chunking` is the one that the row names."""
    space_id, _, kind, state, identity, dimension, dtype, metric, canaries = row
    known = format_of(kind, dtype, metric)
    has_sense = (
        state in STATES
        and 0 < space_id < MAX_ID
        and 0 < dimension <= MAX_DIMENSION
        and len(canaries) % (4 * dimension) == 0
    )
    if known is None or not has_sense:
        raise damaged("spaces", space_id)
    found = from_json(identity, dict, "spaces", space_id)
    return Space(space_id, chunking, known, state, found, dimension, canaries)


def values_of_space(space: Space) -> tuple[Any, ...]:
    """Return the values of a space's row."""
    form = space.format
    return (
        space.id,
        space.chunking.id,
        form.kind,
        space.state,
        to_json(space.identity),
        space.dimension,
        form.dtype,
        form.metric,
        space.canaries,
    )


def values_of_chunking(chunking: StoredChunking) -> tuple[Any, ...]:
    """Return the values of a chunking's row."""
    options, cutter = to_json(chunking.options.to_dict()), to_json(chunking.cutter)
    return (chunking.id, chunking.state, options, cutter)


def segment_of_row(row: Sequence[Any]) -> Segment:
    """Return the segment of a row; its files are in the index directory."""
    segment_id, kind, chunking_id, space_id, first_id, last_id, row_count, described, _ = row
    try:
        published = tuple(map(_published, from_json(described, list, "segments", segment_id)))
    except (KeyError, TypeError) as exc:
        raise damaged("segments", segment_id) from exc
    # The database may be crafted: a name of any other form could lead out of the directory. The
    # files of a segment have the same name and differ in their suffix only.
    names = [layout.SEGMENT_FILE(file.name) for file in published]
    has_sense = (
        len({name and name[1] for name in names} - {None}) == 1
        and None not in names
        and len({file.name for file in published}) == len(published)
        and 0 < first_id <= last_id < MAX_ID
        and 0 < row_count <= last_id - first_id + 1
        and 0 < segment_id < MAX_ID
    )
    if not has_sense:
        raise damaged("segments", segment_id)
    return Segment(segment_id, kind, chunking_id, space_id, first_id, last_id, row_count, published)


def _published(file: Any) -> Published:
    """Return a file of a segment. Raises KeyError or TypeError for any other description."""
    name, size, sha256, stamp = file["name"], file["size"], file["sha256"], file["stamp"]
    if not are(str, name, sha256) or not are(int, size, *stamp):
        raise TypeError("not as described in FORMAT.md")
    return Published(name, size, sha256, Stamp(*stamp))


def file_of_row(row: Sequence[Any]) -> FileRow:
    """Return the file of a row."""
    if row[2] not in FILE_STATES:
        raise damaged("files", row[0])
    return FileRow(*row[1:])


def losses_of(value: str | None) -> list[dict[str, str]]:
    """Return the losses that a setting lists: when, and what."""
    found: list[Any] = from_json(value or "[]", list, "settings", LOSSES)
    for loss in found:
        if not isinstance(loss, dict) or not are(str, loss.get("at"), loss.get("detail")):
            raise damaged("settings", LOSSES)
    return found


def precisions_of(value: str | None) -> dict[str, dict[str, float]]:
    """Return, by space id, the precisions that a setting lists with their cosines."""
    found: dict[str, Any] = from_json(value or "{}", dict, "settings", PRECISIONS)
    for by_name in found.values():
        if not isinstance(by_name, dict) or not are(float, *by_name.values()):
            raise damaged("settings", PRECISIONS)
    return found


def base_of(value: str | None) -> tuple[str, str] | None:
    """Return the recorded paths of the index and of the folder that names were relative to.

    None if they are not recorded; the folder is then the index's parent.
    """
    if value is None:
        return None
    found: dict[str, Any] = from_json(value, dict, "settings", BASE)
    index, base = (_place(found.get(what)) for what in ("index", "base"))
    return index, base


def _place(path: Any) -> str:
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        raise damaged("settings", BASE)
    return os.fsdecode(names.path_of(path))


def setting_of_row(row: Sequence[Any]) -> object:
    """Return the value of a setting, decoded if the setting holds JSON."""
    decode = {LOSSES: losses_of, PRECISIONS: precisions_of, BASE: base_of}.get(row[0])
    return decode(row[1]) if decode else row[1]


def document_of_row(row: Sequence[Any], text: str) -> Document:
    """Return the document of a row, with its text."""
    _, document_id, _, source, title, metadata, structure, _ = row
    headings, pages = _structure(structure, document_id)
    return Document(
        text=text,
        id=document_id,
        metadata=from_json(metadata, dict, "documents", document_id),
        source=source,
        title=title,
        headings=headings,
        pages=pages,
    )


def text_of(utf8: bytes, document_id: str) -> str:
    """Return the text that is stored, or raise IndexCorrupt."""
    try:
        return utf8.decode()
    except UnicodeDecodeError as exc:
        raise damaged("texts", document_id) from exc


def _structure(text: str, document_id: str) -> tuple[tuple[Heading, ...], tuple[int, ...]]:
    shape = from_json(text, dict, "documents", document_id)
    try:
        headings = tuple(Heading(*heading) for heading in shape.get("headings", ()))
        pages = tuple(shape.get("pages", ()))
        is_plain = all(are(int, h.start, h.level) and are(str, h.title) for h in headings)
    except TypeError as exc:
        raise damaged("documents", document_id) from exc
    if not is_plain or not are(int, *pages):
        raise damaged("documents", document_id)
    return headings, pages


def chunk_of_row(row: Sequence[Any], document_id: str, text: str) -> Chunk:
    """Return the chunk of a row; `text` is the slice that it spans."""
    ordinal, start, end, byte_start, byte_end, first_line, last_line, page = row[3:11]
    heading = from_json(row[11], list, "chunks", row[0])
    has_sense = (
        0 <= start <= end
        and 0 <= byte_start <= byte_end
        and end - start == len(text)
        and 0 < first_line <= last_line
        and min(ordinal, row[12], page or 0) >= 0
    )
    if not has_sense or not are(str, *heading):
        raise damaged("chunks", row[0])
    return Chunk(
        ordinal=row[3],
        span=Span(row[4], row[5]),
        byte_span=Span(row[6], row[7]),
        lines=(row[8], row[9]),
        page=row[10],
        heading=tuple(heading),
        tokens=row[12],
        text=text,
        id=row[0],
        document_id=document_id,
    )


def vector_of(space: Space, chunk_id: int, data: Any, crc: Any) -> NDArray[np.float32]:
    """Return the vector of a chunk in a dense space, float32 `(dimension,)`.

    That it is of unit length is not checked here: callers check many vectors at a time.

    Raises:
        IndexCorrupt: Its checksum does not match, or it is of another size.
    """
    # What `Table.checked` does, without its general way: vectors are read by the thousand.
    packed = b"vectors_%d[%d]" % (space.id, chunk_id)
    if not space.format.fits(data, space.dimension) or checksums.crc(packed, data) != crc:
        raise damaged(space.table, chunk_id)
    return np.frombuffer(data, dtype=space.format.numpy)

"""The rows of the catalog as Python knows them, and what turns a row into them.

Each `…_of_row` takes the values of a row whose types and checksum `Table.checked` has compared, and
refuses values that are never written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever import names
from retriever.canonical import to_json
from retriever.config import VECTORS_ONLY, Chunking
from retriever.errors import InvalidConfig
from retriever.storage import checksums, layout
from retriever.storage.files import Published, Stamp
from retriever.storage.json_columns import are, from_json
from retriever.storage.table import damaged
from retriever.storage.vector_formats import MAX_DIMENSION, VectorFormat, format_of
from retriever.types import Chunk, Document, Heading, Span

if TYPE_CHECKING:
    from numpy.typing import NDArray

STATES = ("active", "building")
FILE_STATES = ("indexed", "partial", "skipped", "failed", "deleted")
MAX_ID = layout.MAX_SEQ
# Settings that hold JSON.
LOSSES = "losses"
PRECISIONS = "precisions"
BASE = "base"


class Key(NamedTuple):
    """What a view of the index depends on; equal keys mean an equal view.

    The chain tells indexes apart that have come to the same numbers: it covers all that was ever
    committed, the space's identity included.
    """

    seq: int
    segment_top: int
    space_id: int
    chain: bytes


class Commit(NamedTuple):
    """One durable step of the index's history."""

    seq: int
    live_sum: bytes
    chain: bytes


@dataclass(frozen=True, slots=True)
class StoredChunking:
    """A way of cutting documents, which owns the chunks that were cut so.

    Attributes:
        id: Its key; 0 before it is stored.
        state: `active` (its chunks are searched; exactly one is) or `building`.
        options: How documents are cut, the defaults written out.
        cutter: What else the chunks depend on: the tokenizer, and the tokens of a window. Two
            encoders with equal ones cut alike, so that their spaces can share the chunks.
    """

    id: int
    state: str
    options: Chunking
    cutter: dict[str, Any]

    def cuts_like(self, other: StoredChunking) -> bool:
        """Return whether both cut every document into the same chunks."""
        return self.options == other.options and self.cutter == other.cutter


@dataclass(frozen=True, slots=True)
class Space:
    """The vectors of one encoder for the chunks of a chunking.

    Searches use the active space of a kind. Several spaces may hold vectors for the same chunks.

    Attributes:
        id: Its key; 0 before it is stored.
        chunking: Whose chunks its vectors are of.
        format: Kind, type and metric of its vectors.
        state: `active` or `building`; at most one space of a kind is in each.
        identity: The encoder's.
        dimension: Length of a vector.
        canaries: Vectors of fixed texts, float32, as bytes.
        precisions: In which precisions vectors were computed, and the lowest cosine of each to the
            canaries.
        content: Tells spaces apart by what their encoder is and does; ids do not, since those of
            every index begin alike.
    """

    id: int
    chunking: StoredChunking
    format: VectorFormat
    state: str
    identity: dict[str, Any]
    dimension: int
    canaries: bytes
    precisions: Mapping[str, float] = field(default_factory=dict, compare=False)
    content: bytes = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Derive `content`."""
        identity = json.dumps(self.identity, sort_keys=True).encode()
        digest = sha256(b"%d %s" % (len(identity), identity) + self.canaries).digest()
        object.__setattr__(self, "content", digest)

    @property
    def has_encoder(self) -> bool:
        """Return whether texts can be encoded for it; otherwise embeddings come with documents."""
        return not self.identity.get(VECTORS_ONLY)

    @property
    def table(self) -> str:
        """Return the name of the table of this space's vectors."""
        return vectors_table(self.id)

    def canary_vectors(self) -> NDArray[np.float32]:
        """Return the stored canaries, float32 `(n, dimension)`."""
        return np.frombuffer(self.canaries, dtype="<f4").reshape(-1, self.dimension)


def vectors_table(space_id: int) -> str:
    """Return the name of the table of a space's vectors."""
    return f"vectors_{int(space_id)}"


@dataclass(frozen=True, slots=True)
class Segment:
    """Immutable files that cache what is searched of a range of chunk ids.

    Attributes:
        id: Its key.
        kind: What its files hold, by the name of the kind.
        chunking_id: Whose chunks the range is of.
        space_id: Whose vectors it holds; None for a kind that is made from texts.
        first_id: The first chunk id of the range.
        last_id: The last one.
        rows: Chunks in it.
        files: Its files as they were published.
    """

    id: int
    kind: str
    chunking_id: int
    space_id: int | None
    first_id: int
    last_id: int
    rows: int
    files: tuple[Published, ...]

    @property
    def seq(self) -> int:
        """Return the commit that it was built at, which the names of its files begin with."""
        name = layout.SEGMENT_FILE(self.files[0].name)
        return int(name[2]) if name else 0


class FileRow(NamedTuple):
    """What is known of a file that was met in a walk.

    `stamp` (size, mtime_ns, inode, ctime_ns) tells whether it has changed since it was read. It
    is four Nones where it could not tell, and the file must be read. `reason` says why a file was
    skipped or failed, or of an indexed one why the next run must index it again.
    """

    path: bytes
    state: str
    reason: str | None = None
    size: int | None = None
    mtime_ns: int | None = None
    inode: int | None = None
    ctime_ns: int | None = None
    sha256: bytes | None = None

    @property
    def is_whole(self) -> bool:
        """Return whether all documents of the file are in the index, none replaced by hand."""
        return self.state == "indexed" and self.reason is None

    @property
    def stamp(self) -> tuple[int | None, ...]:
        """Return what tells whether the file has changed."""
        return self.size, self.mtime_ns, self.inode, self.ctime_ns

    def stamped(self, stamp: tuple[int | None, ...] | None) -> FileRow:
        """Return the row with another stamp; without one the file must be read again."""
        size, mtime_ns, inode, ctime_ns = stamp or (None, None, None, None)
        return self._replace(size=size, mtime_ns=mtime_ns, inode=inode, ctime_ns=ctime_ns)

    def unread(self) -> FileRow:
        """Return the row of a file that must be read again, whatever its stamp."""
        return FileRow(self.path, self.state, self.reason)


class StoredChunk(NamedTuple):
    """A chunk with what a hit shows of its document, and the file that came from."""

    chunk: Chunk
    text_hash: bytes
    source: str | None
    title: str | None
    metadata: dict[str, Any]
    file: FileRow | None = None


def chunking_of_row(row: Sequence[Any]) -> StoredChunking:
    """Return the chunking of a row."""
    chunking_id, state, options, cutter = row
    try:
        parsed = Chunking.parse(from_json(options, dict, "chunkings", chunking_id))
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
    """Return a file of a segment. Raises KeyError or TypeError when it is not described so."""
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
    """Return where the index was, and the folder that names were relative to, resolved paths.

    None where that is not recorded: then it is the index's parent.
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
    """Return what a setting holds: its JSON where it is one that does, else its text."""
    decode = {LOSSES: losses_of, PRECISIONS: precisions_of, BASE: base_of}.get(row[0])
    return decode(row[1]) if decode else row[1]


def document_of_row(row: Sequence[Any], text: str) -> Document:
    """Return the document of a row, with its text."""
    _, document_id, _, source, title, metadata, structure = row
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

    Whether it is of unit length is not looked at here: callers look at many at a time.

    Raises:
        IndexCorrupt: Its checksum does not match, or it is of another size.
    """
    # What `Table.checked` does, without its general way: vectors are read by the thousand.
    packed = b"%s[%d]" % (space.table.encode(), chunk_id)
    if not space.format.fits(data, space.dimension) or checksums.crc(packed, data) != crc:
        raise damaged(space.table, chunk_id)
    return np.frombuffer(data, dtype=space.format.numpy)

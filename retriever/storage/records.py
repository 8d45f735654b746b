"""The rows of the catalog as Python knows them, and the check that each is as it was written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import numpy as np

from retriever import names
from retriever.canonical import MAX_DEPTH, MAX_JSON
from retriever.config import Chunking
from retriever.errors import IndexCorrupt, InvalidConfig, RetrieverError
from retriever.storage import checksums, files
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
FILE_COLUMNS = "id, path, state, reason, size, mtime_ns, inode, ctime_ns, sha256"
SPACE_COLUMNS = "id, kind, state, identity, chunking, dimension, dtype, metric, canaries"
SEGMENT_COLUMNS = "id, kind, space_id, first_id, last_id, row_count, files, params"
FILE_STATES = ("indexed", "partial", "skipped", "failed", "deleted")
MAX_ID = files.MAX_SEQ
MAX_DIMENSION = 1 << 16
_NESTED = MAX_DEPTH + 3
# The types of a row's columns; a capital letter means that NULL is one of them.
_COLUMNS = {
    "setting": "ss",
    "file": "ibsSIIIIB",
    "document": "isISSss",
    "chunk": "iiiiiiiiiiIsiib",
    "space": "issssissb",
    "ledger": "iiiii",
    "segment": "isiiiiss",
    "tombstone": "ii",
    "commit": "iiibb",
}
# In the identity of a space that was made without an encoder.
VECTORS_ONLY = "vectors_only"
# Which of them hold JSON.
PRECISIONS = "precisions"
BASE = "base"
_JSON = {"setting": (1,), "document": (5, 6), "chunk": (11,), "space": (3, 4), "segment": (6,)}
_TYPES: dict[str, tuple[type, ...]] = {
    "i": (int,),
    "s": (str,),
    "b": (bytes,),
    "I": (int, type(None)),
    "S": (str, type(None)),
    "B": (bytes, type(None)),
}


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
class Space:
    """The vectors of one encoder and one chunking; searches use the active one.

    `precisions` says in which precisions vectors were computed, and the lowest cosine of each to
    the canaries, which are float32. `content` tells spaces apart by what their encoder is and
    does; ids do not, since those of every index begin alike.
    """

    id: int
    kind: str
    state: str
    identity: dict[str, Any]
    chunking: dict[str, Any]
    dimension: int
    dtype: str
    metric: str
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


def damaged(table: str, key: object, path: str = "") -> IndexCorrupt:
    """Return the error for a row whose checksum does not match."""
    return IndexCorrupt(
        f"Row {key} of table {table} is damaged: its checksum does not match.",
        path=path or "the index",
        check=f"crc:{table}",
        hint="Run `retriever verify` to see all damage and `retriever repair` to mend it.",
    )


@lru_cache(maxsize=256)
def _has_types(kind: str, found: tuple[type, ...]) -> bool:
    columns = _COLUMNS[kind]
    return len(found) == len(columns) and all(
        one in _TYPES[letter] for one, letter in zip(found, columns, strict=True)
    )


def has_types(kind: str, row: Sequence[Any]) -> bool:
    """Return whether each value of a row is of its column's type; SQLite keeps any in any."""
    return _has_types(kind, tuple(map(type, row)))


def checked(kind: str, row: Sequence[Any]) -> Sequence[Any]:
    """Return a row less its trailing crc, or raise IndexCorrupt."""
    values = row[:-1]
    is_plausible = has_types(kind, values) and all(
        len(values[column]) <= MAX_JSON for column in _JSON.get(kind, ())
    )
    if not is_plausible or crc32(checksums.pack(kind, *values)) != row[-1]:
        raise damaged(kind, row[0])
    return values


def is_sound(kind: str, row: Sequence[Any]) -> bool:
    """Return whether a row, its crc at the end, is one that we may have written."""
    try:
        values = checked(kind, row)
        if kind in _DECODERS:
            _DECODERS[kind](values)
    except RetrieverError:
        return False
    return True


def _refuse_constant(_: str) -> None:
    raise ValueError("not a finite number")


_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode


def from_json(text: str, kind: type, table: str, key: object) -> Any:
    """Return what a JSON column holds, checked to be what we may have written there.

    Raises:
        IndexCorrupt: It is not JSON, too large, nested too deeply, or of another kind.
    """
    try:
        if len(text) > MAX_JSON:
            raise ValueError("too large")
        found = _decode(text)
        if type(found) is not kind:
            raise ValueError("of another kind")
        if text.count("[") + text.count("{") > _NESTED:
            _require_shallow(found)
        if "\\u" in text:
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as exc:
        raise damaged(table, key) from exc
    return found


def _require_shallow(value: Any) -> None:
    level = [value]
    for _ in range(_NESTED):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise ValueError("nested too deeply")


def _are(kind: type, *values: Any) -> bool:
    return all(isinstance(value, kind) for value in values)


def space_of_row(row: Sequence[Any]) -> Space:
    """Return the space of a row of SPACE_COLUMNS."""
    space_id, kind, state, identity, chunking, dimension, dtype, metric, canaries = row
    has_sense = (
        (kind, dtype, metric) == ("dense", "float32", "cosine")
        and state in ("active", "building")
        and 0 < space_id < MAX_ID
        and 0 < dimension <= MAX_DIMENSION
        and len(canaries) % (4 * dimension) == 0
    )
    cut = from_json(chunking, dict, "spaces", space_id)
    try:
        Chunking.parse(cut)
    except InvalidConfig as exc:
        raise damaged("spaces", space_id) from exc
    if not has_sense:
        raise damaged("spaces", space_id)
    return Space(
        id=space_id,
        kind=kind,
        state=state,
        identity=from_json(identity, dict, "spaces", space_id),
        chunking=cut,
        dimension=dimension,
        dtype=dtype,
        metric=metric,
        canaries=canaries,
    )


def segment_of_row(row: Sequence[Any]) -> Segment:
    """Return the segment of a row of SEGMENT_COLUMNS; its files are in the index directory."""
    segment_id, kind, space_id, first_id, last_id, row_count = row[:6]
    try:
        published = tuple(map(_published, from_json(row[6], list, "segments", segment_id)))
    except (KeyError, TypeError) as exc:
        raise damaged("segments", segment_id) from exc
    names = [files.SEGMENT_FILE(file.name) for file in published]
    has_sense = (
        [name and name[2] for name in names] == ["faiss", "ids"]
        and 0 < first_id <= last_id < MAX_ID
        and 0 < row_count <= last_id - first_id + 1
        and 0 < segment_id < MAX_ID
        and published[1].size == 8 * row_count
    )
    if not has_sense:
        raise damaged("segments", segment_id)
    return Segment(segment_id, kind, space_id, first_id, last_id, row_count, published)


def _published(file: Any) -> Published:
    """Return a file of a segment. Raises KeyError or TypeError when it is not described so."""
    name, size, sha256, stamp = file["name"], file["size"], file["sha256"], file["stamp"]
    if not _are(str, name, sha256) or not _are(int, size, *stamp):
        raise TypeError("not as described in FORMAT.md")
    return Published(name, size, sha256, Stamp(*stamp))


def file_of_row(row: Sequence[Any]) -> FileRow:
    """Return the file of a row of FILE_COLUMNS."""
    if row[2] not in FILE_STATES:
        raise damaged("files", row[0])
    return FileRow(*row[1:])


def losses_of(value: str | None) -> list[dict[str, str]]:
    """Return the losses that a setting lists: when, and what."""
    found: list[Any] = from_json(value or "[]", list, "settings", "losses")
    for loss in found:
        if not isinstance(loss, dict) or not _are(str, loss.get("at"), loss.get("detail")):
            raise damaged("settings", "losses")
    return found


def precisions_of(value: str | None) -> dict[str, dict[str, float]]:
    """Return, by space id, the precisions that a setting lists with their cosines."""
    found: dict[str, Any] = from_json(value or "{}", dict, "settings", PRECISIONS)
    for by_name in found.values():
        if not isinstance(by_name, dict) or not _are(float, *by_name.values()):
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


def _setting_of_row(row: Sequence[Any]) -> None:
    if row[0] == "losses":
        losses_of(row[1])
    if row[0] == PRECISIONS:
        precisions_of(row[1])
    if row[0] == BASE:
        base_of(row[1])


def document_of_row(row: Sequence[Any]) -> Document:
    """Return the document of a row of (DOCUMENT_COLUMNS, crc, utf8, text crc)."""
    pk, document_id, _, source, title, metadata, structure = checked("document", row[:8])
    headings, pages = _structure(structure, document_id)
    return Document(
        text=text_of(pk, row[8], row[9], document_id),
        id=document_id,
        metadata=from_json(metadata, dict, "documents", document_id),
        source=source,
        title=title,
        headings=headings,
        pages=pages,
    )


def text_of(pk: int, utf8: Any, crc: Any, document_id: str) -> str:
    """Return the text of a document from its row of `texts`, or raise IndexCorrupt."""
    if not isinstance(utf8, bytes) or checksums.keyed_crc(pk, utf8) != crc:
        raise damaged("texts", document_id)
    try:
        return utf8.decode()
    except UnicodeDecodeError as exc:
        raise damaged("texts", document_id) from exc


def _structure(text: str, document_id: str) -> tuple[tuple[Heading, ...], tuple[int, ...]]:
    shape = from_json(text, dict, "documents", document_id)
    try:
        headings = tuple(Heading(*heading) for heading in shape.get("headings", ()))
        pages = tuple(shape.get("pages", ()))
        is_plain = all(_are(int, h.start, h.level) and _are(str, h.title) for h in headings)
    except TypeError as exc:
        raise damaged("documents", document_id) from exc
    if not is_plain or not _are(int, *pages):
        raise damaged("documents", document_id)
    return headings, pages


def chunk_of_row(row: Sequence[Any], document_id: str, text: str) -> Chunk:
    """Return the chunk of a row of CHUNK_COLUMNS; `text` is the slice that it spans."""
    ordinal, start, end, byte_start, byte_end, first_line, last_line, page = row[3:11]
    heading = from_json(row[11], list, "chunks", row[0])
    has_sense = (
        0 <= start <= end
        and 0 <= byte_start <= byte_end
        and end - start == len(text)
        and 0 < first_line <= last_line
        and min(ordinal, row[12], page or 0) >= 0
    )
    if not has_sense or not _are(str, *heading):
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


def vector_of(chunk_id: int, data: bytes, crc: int, dimension: int) -> NDArray[np.float32]:
    """Return one stored vector, float32 `(dimension,)`, or raise IndexCorrupt."""
    is_blob = type(data) is bytes and len(data) == 4 * dimension
    if not is_blob or checksums.keyed_crc(chunk_id, data) != crc:
        raise damaged("vectors", chunk_id)
    return np.frombuffer(data, dtype="<f4")


def are_unit(vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which vectors are finite and of unit length, as all of ours are."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("...i,...i->...", vectors, vectors)
        return np.asarray(np.abs(np.sqrt(squares) - 1) < 1e-3)


_DECODERS: dict[str, Callable[[Sequence[Any]], object]] = {
    "setting": _setting_of_row,
    "file": file_of_row,
    "space": space_of_row,
    "segment": segment_of_row,
}

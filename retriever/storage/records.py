"""The objects that rows of the catalog stand for; `rows.py` converts between the two."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever.config import VECTORS_ONLY, Chunking
from retriever.storage import layout
from retriever.storage.files import Published
from retriever.storage.vector_formats import VectorFormat
from retriever.types import Chunk

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
    """A way of cutting documents, and the owner of the chunks that were cut in this way.

    Attributes:
        id: Its key; 0 before it is stored.
        state: `active` (its chunks are searched; exactly one is) or `building`.
        options: How documents are cut, the defaults written out.
        cutter: What else the chunks depend on: the tokenizer, the version of the rules and the
            tokens of a window. Two encoders with equal ones cut alike, so that their spaces can
            share the chunks.
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
        chunking: The chunking of the chunks that its vectors belong to.
        format: Kind, type and metric of its vectors.
        state: `active` or `building`; at most one space of a kind is in each.
        identity: The identity of the encoder.
        dimension: The number of components of a vector.
        canaries: Vectors of fixed texts, float32, as bytes.
        precisions: The precisions that vectors were computed in, each with its lowest cosine to
            the canaries.
        content: A digest of the encoder's identity and canaries, which distinguishes spaces across
            indexes. Ids do not: every index counts them from 1.
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
        # The length is hashed too: without it, bytes could move between identity and canaries.
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
    """Immutable files that cache what searches read for a range of chunk ids.

    Attributes:
        id: Its key.
        kind: The name of its kind, which determines what its files hold.
        chunking_id: The chunking whose chunks it covers.
        space_id: The space whose vectors it holds; None for a kind that is built from texts.
        first_id: The first chunk id of the range.
        last_id: The last one.
        rows: The number of chunks in it.
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
    """What is known of a file that was found in a folder.

    `stamp` (size, mtime_ns, inode, ctime_ns) tells whether it has changed since it was read. It
    is four Nones if it could not tell that, and the file must be read. `reason` says why a file was
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
    """A chunk, what a hit shows of its document, and the file that the document came from."""

    chunk: Chunk
    text_hash: bytes
    source: str | None
    title: str | None
    metadata: dict[str, Any]
    file: FileRow | None = None

"""The values of the public API: documents, chunks, hits, results and progress.

Frozen values without behaviour of their own. Every other part of the package may import this
module; it imports none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, overload

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Vector: TypeAlias = NDArray[np.float32]
    """An embedding, float32 `(dimension,)`."""

Metadata: TypeAlias = Mapping[str, Any]
"""A JSON object."""

FileState: TypeAlias = Literal["unchanged", "changed", "gone"]
MAX_FILE_SIZE = 100_000_000
"""Larger files are skipped, in bytes, unless a call says otherwise."""
UNFAMILIAR_SHARE = 0.10
"""A document of which more of the tokens are unknown to the encoder is called unfamiliar."""


class Span(NamedTuple):
    """A half-open range `[start, end)`; what it counts is said where it is used."""

    start: int
    end: int


class Heading(NamedTuple):
    """A heading of a document, at a character offset of its text."""

    start: int
    level: int
    title: str


@dataclass(frozen=True, slots=True)
class Document:
    """One document: what the user adds, replaces and deletes.

    Attributes:
        text: The whole text. It is stored once, as given.
        id: Unique in the index. None means an id computed from the content, so that equal documents
            share it and any difference makes another: the SHA-256, in hexadecimal, of the text, or,
            if other fields are set, of a JSON object of all fields.
        metadata: A JSON object; dates and datetimes are stored as ISO-8601 strings, in UTC where
            they have a zone. NumPy's numbers, times and arrays are converted to Python's.
        source: Path or URL of the text, shown in citations.
        title: A title, for display.
        embedding: A precomputed embedding, `(dimension,)`: a list or array of real numbers, not all
            zero. It is stored as float32, scaled to unit length; the document is then one chunk
            and is not encoded.
        headings: Headings by character offset, in ascending order.
        pages: Character offsets at which pages 1, 2, … begin; empty where there are no pages.
    """

    text: str
    id: str | None = None
    metadata: Metadata = field(default_factory=dict)
    source: str | None = None
    title: str | None = None
    embedding: ArrayLike | None = field(default=None, compare=False)
    headings: tuple[Heading, ...] = ()
    pages: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document with its own embedding.

    Attributes:
        ordinal: Position among the document's chunks, from 0.
        span: Characters of the document's text; `text` is exactly that slice.
        byte_span: The same slice in bytes of the document's text in UTF-8.
        lines: First and last line, from 1, both included.
        heading: The headings above the chunk, outermost first; where it begins among the rows of
            a table, the table's header row is the last.
        page: The page it begins on, from 1, where the format has pages.
        tokens: Tokens of the text that is encoded, without special tokens.
        text: The slice itself.
        id: Assigned by the index, never reused; None before that.
        document_id: The document's id; None until the chunk is stored.
    """

    ordinal: int
    span: Span
    byte_span: Span
    lines: tuple[int, int]
    heading: tuple[str, ...]
    page: int | None
    tokens: int
    text: str
    id: int | None = None
    document_id: str | None = None


@dataclass(frozen=True, slots=True)
class Ledger:
    """What became of a document's tokens.

    Attributes:
        tokens: Tokens of the whole text.
        encoded: Tokens whose characters lie in a chunk that fits the encoder's window.
        unknown: Tokens the encoder's vocabulary does not know.
        noise: Chunks that hold no language, such as a hex dump; not stored.
    """

    tokens: int = 0
    encoded: int = 0
    unknown: int = 0
    noise: int = field(default=0, compare=False)

    @property
    def truncated(self) -> int:
        """Return the tokens that no embedding has seen."""
        return self.tokens - self.encoded

    @property
    def unknown_share(self) -> float:
        """Return the share of the tokens that the encoder's vocabulary does not know."""
        return self.unknown / self.tokens if self.tokens else 0.0

    @property
    def is_unfamiliar(self) -> bool:
        """Return whether the encoder knows too little of the text, perhaps not its script."""
        return self.unknown > UNFAMILIAR_SHARE * self.tokens


@dataclass(frozen=True, slots=True)
class Citation:
    """Where a hit comes from; `str()` gives `path:line`, which editors and terminals open."""

    source: str
    lines: tuple[int, int]
    page: int | None = None
    heading: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.source}:{self.lines[0]}"


@dataclass(frozen=True, slots=True)
class Hit:
    """One chunk found by a search.

    Attributes:
        rank: Position in the results, from 1.
        score: The score it is ranked by; higher is better.
        scores: Every component score: `dense` is the cosine similarity, in [-1, 1]; `rerank` is the
            reranker's score, on its own scale.
        source: Path or URL of the document, or None.
        span: Characters of the document's text, half-open.
        lines: First and last line, from 1, both included.
        duplicates: How many further passages of the index are identical to this one and were
            folded into it: equal text, as the encoder saw it, and equal embedding. The one of the
            lowest chunk id is shown.
        also_in: Ids of other documents that these passages are of, at most 10.
        file_state: What has become of the file that the document is from, when the search was
            made: `unchanged` since it was indexed, `changed`, or `gone`. None where it is not
            from a file, or the file cannot be looked at.
    """

    rank: int
    score: float
    scores: Mapping[str, float]
    document_id: str
    chunk_id: int
    text: str
    metadata: Metadata
    source: str | None
    span: Span
    lines: tuple[int, int]
    page: int | None
    heading: tuple[str, ...]
    duplicates: int = 0
    also_in: tuple[str, ...] = ()
    file_state: FileState | None = None

    @property
    def stale(self) -> bool:
        """Return whether the file that the document is from has changed since, or is gone."""
        return self.file_state in ("changed", "gone")

    @property
    def citation(self) -> Citation:
        """Return the citation: the source, or the document's id if it has none."""
        return Citation(self.source or self.document_id, self.lines, self.page, self.heading)

    def to_dict(self) -> dict[str, Any]:
        """Return the hit as a JSON object, the form printed by `--json` and `--jsonl`."""
        return {
            "rank": self.rank,
            "score": self.score,
            "scores": dict(self.scores),
            "document_id": self.document_id,
            "chunk_id": self.chunk_id,
            "text": self.text,
            "metadata": dict(self.metadata),
            "source": self.source,
            "span": list(self.span),
            "lines": list(self.lines),
            "page": self.page,
            "heading": list(self.heading),
            "citation": str(self.citation),
            "duplicates": self.duplicates,
            "also_in": list(self.also_in),
            "stale": self.stale,
            "file_state": self.file_state,
        }


@dataclass(frozen=True, slots=True)
class Results(Sequence[Hit]):
    """The hits for one query, best first, and how they were found.

    Attributes:
        hits: Best first; equal scores in ascending order of chunk id, after reranking in the
            order of the first stage.
        exact: Whether these are provably the best hits, with no approximation involved; after
            reranking, whether this holds for the candidates.
        timings: Seconds by step: `encode_s`, `search_s`, `fetch_s`, `total_s`, and `rerank_s`
            where hits were reranked.
        plan: The steps taken, for people: `exact: 3 segments, 120 tail rows`.
    """

    hits: tuple[Hit, ...]
    exact: bool = True
    timings: Mapping[str, float] = field(default_factory=dict)
    plan: str = ""

    @overload
    def __getitem__(self, position: int) -> Hit: ...
    @overload
    def __getitem__(self, position: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, position: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[position]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)


class FileOutcome(NamedTuple):
    """What became of one file that was not simply indexed.

    `state` is `skipped` (not text, too large, excluded) or `failed` (could not be read).
    """

    path: str
    state: str
    reason: str


class Unfamiliar(NamedTuple):
    """A document that the encoder's vocabulary hardly knows: the share of its unknown tokens."""

    document_id: str
    unknown_share: float


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long call is; passed to the `progress=` callback.

    Attributes:
        stage: `index`, `adopt`, `rebuild`, `compact`, `verify`, `repair` or `backup`.
        done: Units finished and, where the stage writes, committed: an interrupt keeps them.
        total: Units in all, or None while that is not known.
        unit: What is counted: `files`, `documents`, `chunks`, `segments`, `checks`.
        tokens: Tokens encoded so far, where the stage encodes; ahead of what is committed.
        item: The file or document being processed.
        share: How much of the work is done, from 0 to 1, by the size of files or the length of
            texts, which differ: what the time left is to be estimated from. It counts what is
            encoded, ahead of `done`, and leaves out what needs no encoding, such as unchanged
            files. None where sizes are not known.
    """

    stage: str
    done: int
    total: int | None
    unit: str
    tokens: int = 0
    item: str = ""
    share: float | None = None


ProgressCallback: TypeAlias = Callable[[Progress], None]
"""The type of `progress=` callbacks; called in the thread of the reporting call."""


def __getattr__(name: str) -> Any:
    """Return `Vector`, which needs NumPy, where a program looks for it at runtime."""
    if name != "Vector":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import numpy as np
    from numpy.typing import NDArray

    return NDArray[np.float32]

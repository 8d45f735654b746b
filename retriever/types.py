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
"""The default size in bytes above which files are skipped."""
UNFAMILIAR_SHARE = 0.10
"""A document is called unfamiliar if a larger share of its tokens is unknown to the encoder."""


class Span(NamedTuple):
    """A half-open range `[start, end)`; the unit is given where it is used."""

    start: int
    end: int


class Heading(NamedTuple):
    """A heading of a document, at a character offset of its text."""

    start: int
    level: int
    title: str


@dataclass(frozen=True, slots=True)
class Document:
    """One document, the unit that is added, replaced and deleted.

    Attributes:
        text: The whole text. It is stored once, as given.
        id: Unique in the index. None means an id computed from the content, so that equal documents
            share it and any difference makes another: the SHA-256, in hexadecimal, of the text, or,
            if other fields are set, of a JSON object of all fields.
        metadata: A JSON object. Dates and datetimes are stored as ISO 8601 strings, in UTC if they
            have a time zone. NumPy's numbers, times and arrays are converted to Python's.
        source: Path or URL of the text, shown in citations.
        title: A title, for display.
        embedding: A precomputed embedding, `(dimension,)`: a list or array of real numbers, not all
            zero. It is stored as float32, scaled to unit length; the document is then one chunk
            and is not encoded.
        headings: Headings by character offset, in ascending order.
        pages: Character offsets at which pages 1, 2, … begin; empty if there are no pages.
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
        heading: The headings above the chunk, outermost first. If the chunk begins among the rows
            of a table, the table's header row is the last.
        page: The page it begins on, from 1; None if the format has no pages.
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
    """The token counts of a document.

    Attributes:
        tokens: Tokens of the whole text.
        encoded: Tokens whose characters lie in a chunk that fits the encoder's window.
        unknown: Tokens that are not in the encoder's vocabulary.
        noise: Chunks that hold no language, such as a hex dump; not stored.
    """

    tokens: int = 0
    encoded: int = 0
    unknown: int = 0
    noise: int = field(default=0, compare=False)

    @property
    def truncated(self) -> int:
        """Return the number of tokens that are not part of any embedding."""
        return self.tokens - self.encoded

    @property
    def unknown_share(self) -> float:
        """Return the share of tokens that are not in the encoder's vocabulary, from 0 to 1."""
        return self.unknown / self.tokens if self.tokens else 0.0

    @property
    def is_unfamiliar(self) -> bool:
        """Return whether over a tenth of the tokens are unknown, as in an unknown script."""
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
        duplicates: The number of further passages that are identical to this one and were folded
            into it: equal encoded text and equal embedding. The passage with the lowest chunk id
            is the one returned.
        also_in: Ids of other documents that contain these passages, at most 10.
        file_state: The state of the document's file at the time of the search: `unchanged` since
            it was indexed, `changed`, or `gone`. None if the document is not from a file, or the
            state of the file is unknown.
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
        """Return whether the document's file has changed since it was indexed, or is gone."""
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
            if hits were reranked.
        plan: A description of the search for people: `exact: 3 segments, 120 tail rows`.
        cursor: Where the next page begins, for `search(cursor=…)` with the same question and
            options; None after the last hit. It is valid until the index changes.
        confidence: How likely it is, in [0, 1], that the first hit answers the question, judged
            by the scores of the first stage alone; None where nothing was found, or where the
            index has fewer than 32 passages. See "Scores and thresholds" in docs/search.md.
    """

    hits: tuple[Hit, ...]
    exact: bool = True
    timings: Mapping[str, float] = field(default_factory=dict)
    plan: str = ""
    cursor: str | None = None
    confidence: float | None = None

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
    """The outcome for one file that was not indexed normally.

    `state` is `skipped` (not text, too large, excluded) or `failed` (could not be read).
    """

    path: str
    state: str
    reason: str


class Unfamiliar(NamedTuple):
    """A document with many tokens unknown to the encoder, and their share, from 0 to 1."""

    document_id: str
    unknown_share: float


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a long call; passed to the `progress=` callback.

    Attributes:
        stage: `index`, `adopt`, `rebuild`, `compact`, `verify`, `repair` or `backup`; of an
            evaluation also `read` and `search`.
        done: The number of units finished. In a stage that writes they are committed, so that an
            interrupt keeps them.
        total: The number of units in all, or None while it is not known.
        unit: What is counted: `files`, `documents`, `chunks`, `segments`, `checks`, `queries`.
        tokens: Tokens encoded so far, ahead of what is committed; 0 if the stage does not encode.
        item: The file or document being processed.
        share: The completed share of the work, from 0 to 1, by the size of files or the length of
            texts; use it to estimate the remaining time. It counts what is encoded, ahead of
            `done`, and leaves out what needs no encoding, such as unchanged files. None if the
            sizes are not known.
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
    """Return `Vector`, which needs NumPy, when a program accesses it at runtime."""
    if name != "Vector":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import numpy as np
    from numpy.typing import NDArray

    return NDArray[np.float32]

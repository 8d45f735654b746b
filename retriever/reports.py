"""The reports that calls which write, describe or maintain an index return.

They are frozen values. `to_dict()` returns the JSON object that the command line prints and that
`cli/SCHEMA.md` describes; the command line adds `"schema"`. Storage, ingest and maintenance build
the reports; this module imports none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retriever.types import FileOutcome, Unfamiliar

if TYPE_CHECKING:
    from retriever.config import Chunking


def _as_json(value: Any) -> Any:
    """Return a field's value in types that `json.dumps` accepts."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    if isinstance(value, tuple):
        return [_as_json(each) for each in value]
    if isinstance(value, Mapping):
        return dict(value)
    return value.to_dict() if hasattr(value, "to_dict") else value


class _Value:
    """The base of every report and of its parts."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes, by name, as a JSON object."""
        names = [each.name for each in fields(self)]  # type: ignore[arg-type]  # all dataclasses
        return {name: _as_json(getattr(self, name)) for name in names}


# --- add, add_files and rebuild -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IngestReport(_Value):
    """What a call of `add`, `add_files`, `rebuild` or `adopt` did.

    Counts are of documents unless another unit is named.

    Attributes:
        added: New documents.
        replaced: Documents that replaced an earlier version.
        unchanged: Files that had not changed and were not read; documents passed to `add` that
            were in the index, or came earlier in the call, with the same content.
        empty: Documents stored without a chunk because their text is empty.
        removed: Documents of missing files, removed by `prune`.
        missing: Files of the index that no longer exist and whose documents were kept.
        deleted: Files left out because their documents were deleted and that have not changed
            since.
        skipped: Files left out, with the reason.
        failed: Files that could not be read and documents that could not be encoded, with the
            reason.
        doubtful: Documents whose character encoding is a weak guess, or that hold bytes which
            are invalid in it, with the reason; they are indexed.
        unfamiliar: Documents with over a tenth of their tokens unknown to the encoder's
            vocabulary, as in an unknown script, with that share, rounded to four places.
        excluded: Hidden, ignored and version-control entries left out by the walk.
        chunks: Chunks written.
        noise: Those of these chunks that hold no language, such as hex dumps and minified code.
        encoded: Chunks that were encoded; the rest took their embedding from equal text.
        tokens: Tokens in the documents written.
        truncated: The number of these tokens beyond the encoder's window, which are not part of any
            embedding.
        commits: Commits made; each is durable.
        seconds: Wall time of the call.
    """

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    empty: int = 0
    removed: int = 0
    missing: int = 0
    deleted: int = 0
    skipped: tuple[FileOutcome, ...] = ()
    failed: tuple[FileOutcome, ...] = ()
    doubtful: tuple[FileOutcome, ...] = ()
    unfamiliar: tuple[Unfamiliar, ...] = ()
    excluded: int = 0
    chunks: int = 0
    noise: int = 0
    encoded: int = 0
    tokens: int = 0
    truncated: int = 0
    commits: int = 0
    seconds: float = 0.0


# --- status -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileCounts(_Value):
    """The number of files that the index knows, by state.

    Attributes:
        indexed: Files whose text is in the index.
        partial: Files of which only some documents are stored, because a run was interrupted; the
            next run reads them again.
        skipped: Files left out: not text, too large, or excluded.
        failed: Files that could not be read or encoded.
        deleted: Files left out because their documents were deleted.
    """

    indexed: int = 0
    partial: int = 0
    skipped: int = 0
    failed: int = 0
    deleted: int = 0


@dataclass(frozen=True, slots=True)
class TokenCounts(_Value):
    """The token counts of all documents.

    Attributes:
        corpus: Tokens of all texts.
        encoded: Tokens that lie in a chunk that fits the encoder's window.
        truncated: Tokens beyond the encoder's window, which are not part of any embedding.
        unknown: Tokens that are not in the encoder's vocabulary.
    """

    corpus: int
    encoded: int
    truncated: int
    unknown: int


@dataclass(frozen=True, slots=True)
class SegmentInfo(_Value):
    """One segment: immutable files that hold what searches read of a range of chunks.

    Attributes:
        name: The name of its first file, in the index directory.
        rows: The number of chunks in it, including deleted ones.
        bytes: The size of its files.
        kind: What it holds: `flat`, vectors; `lexical`, words.
    """

    name: str
    rows: int
    bytes: int
    kind: str


@dataclass(frozen=True, slots=True)
class Loss(_Value):
    """Data that was lost and could not be restored.

    Attributes:
        at: When `repair` recorded it: ISO 8601, in UTC.
        detail: What was lost.
    """

    at: str
    detail: str


@dataclass(frozen=True, slots=True)
class LockHolder(_Value):
    """The writer that holds the index's lock.

    Attributes:
        pid: Its process id. Each of the three is None if the lock file does not contain it.
        host: The name of its machine.
        since: When it took the lock: ISO 8601, in UTC.
    """

    pid: int | None
    host: str | None
    since: str | None


@dataclass(frozen=True, slots=True)
class IndexStatus(_Value):
    """The content and state of an index, as `Index.status` returns it.

    Attributes:
        path: The index directory, absolute.
        base: The folder that names of files are relative to.
        format: The format of the directory on disk.
        seq: The number of the last commit, from 1.
        documents: Documents in the index.
        chunks: Chunks that searches read.
        empty_documents: Documents without a chunk because their text is empty.
        unchunked_documents: Documents that a repair could not encode; searches do not find them.
        files: The number of files by state.
        problem_files: Every file that was skipped or failed, with the reason.
        deleted_files: Names of the files that are left out because their documents were deleted.
        model: The encoder's identity: `name`, `weights`, `dimension`, `max_tokens` and more; or
            `vectors_only` and `dimension` if every embedding is supplied with its document.
        precisions: The precisions in which vectors were computed, such as `bfloat16`, each with the
            lowest cosine between its canaries and those in float32.
        chunking: How documents are split into chunks.
        tokens: The token counts of all documents.
        unfamiliar: Documents with over a tenth of their tokens unknown to the encoder.
        segments: The segments that searches read, in ascending order of chunk id.
        tail_rows: Vectors outside every segment, which searches read from the database.
        bytes_on_disk: The size of the index's own files; `quarantine/` is not counted.
        losses: All losses that repairs ever recorded.
        locked_by: The present writer, or None.
        building: The name of the model of an unfinished rebuild, or None.
    """

    path: Path
    format: int
    seq: int
    documents: int
    chunks: int
    empty_documents: int
    unchunked_documents: int
    files: FileCounts
    problem_files: tuple[FileOutcome, ...]
    deleted_files: tuple[str, ...]
    model: Mapping[str, Any]
    precisions: Mapping[str, float]
    chunking: Chunking
    tokens: TokenCounts
    unfamiliar: tuple[Unfamiliar, ...]
    segments: tuple[SegmentInfo, ...]
    tail_rows: int
    bytes_on_disk: int
    losses: tuple[Loss, ...]
    locked_by: LockHolder | None
    building: str | None
    base: Path


# --- verify and repair --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Check(_Value):
    """One check of `verify`.

    Attributes:
        name: What was checked, such as `documents` or `segments`.
        ok: Whether it found no problem.
        detail: How much was checked, or the number of problems.
    """

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Problem(_Value):
    """One problem that `verify` found.

    Attributes:
        check: The name of the check that found it.
        path: The index directory.
        detail: What is wrong, and with what.
        hint: What to do about it.
    """

    check: str
    path: str
    detail: str
    hint: str


@dataclass(frozen=True, slots=True)
class VerifyReport(_Value):
    """What `verify` found.

    Attributes:
        path: The index directory, absolute.
        ok: The verdict: whether no check found a problem.
        seconds: Wall time.
        checks: Every check, in the order they were made.
        problems: The problems, at most 20 for each check.
        warnings: What is unusual but harmless, such as an unknown file in the directory.
    """

    path: Path
    ok: bool
    seconds: float
    checks: tuple[Check, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LostDocument(_Value):
    """A document that `repair` could not save, or only in part.

    Attributes:
        document_id: Its id, or `#` and a number if the id could not be read.
        reason: What was lost, and why.
    """

    document_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class RepairReport(_Value):
    """What `repair` did.

    Attributes:
        actions: Descriptions of what was done; empty if nothing was necessary.
        quarantined: Files that were moved to `quarantine/`, by name.
        lost: What could not be saved.
        verify: The verification afterwards; None if the index could not be verified.
        ok: Whether the repair was completed and the index is sound.
    """

    actions: tuple[str, ...]
    quarantined: tuple[str, ...]
    lost: tuple[LostDocument, ...]
    verify: VerifyReport | None
    ok: bool


# --- compact and backup -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CompactReport(_Value):
    """What `compact` did.

    Attributes:
        bytes_before: The size of the index's files before.
        bytes_after: Their size afterwards.
        segments_written: The number of segments that were written.
        seconds: Wall time.
    """

    bytes_before: int
    bytes_after: int
    segments_written: int
    seconds: float


@dataclass(frozen=True, slots=True)
class BackupReport(_Value):
    """The copy that `backup` made.

    Attributes:
        path: Its directory, absolute.
        seq: The number of the commit that was copied.
        documents: Documents in it.
        bytes: The size of its files.
    """

    path: Path
    seq: int
    documents: int
    bytes: int

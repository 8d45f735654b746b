"""Bring an index up to date with files and folders: plan, read, and hand on changes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from retriever import __version__, arguments, names
from retriever.documents import decoding
from retriever.documents.walk import Walk
from retriever.ingest import base_folder
from retriever.ingest.changes import Change
from retriever.ingest.planning import FolderPlan, KnownFile, PlannedFile, PlanOptions, names_beneath
from retriever.ingest.reading import FilePart, ReadOptions, read, read_in_order
from retriever.ingest.tally import IngestTally
from retriever.reports import IngestReport
from retriever.storage import catalog
from retriever.storage.records import FileRow
from retriever.types import MAX_FILE_SIZE, Document, FileOutcome

if TYPE_CHECKING:
    from retriever.ingest.commits import Ingest

    PathLike = str | os.PathLike[str]

_PARSERS = "parsers"
_log = logging.getLogger("retriever")


@dataclass(frozen=True, slots=True)
class FolderOptions:
    """What a caller of `add_files` wants; see there.

    Raises:
        InvalidConfig: A flag is neither True nor False, or `encoding` is unknown.
    """

    glob: str | None = None
    prune: bool = False
    checksum: bool = False
    restore: bool = False
    follow_links: bool = False
    max_file_size: int = MAX_FILE_SIZE
    encoding: str | None = None

    def __post_init__(self) -> None:
        for name in ("prune", "checksum", "restore", "follow_links"):
            arguments.flag(getattr(self, name), name)
        if self.encoding is not None:
            object.__setattr__(self, "encoding", decoding.check_encoding(self.encoding))

    def walk(self, paths: PathLike | Sequence[PathLike]) -> Walk:
        """Return the walk of paths.

        Raises:
            InvalidConfig: One is not a path, the glob is malformed, or the size not a whole number.
            UnreadableFile: One does not exist, and `prune` is not set.
        """
        return Walk(
            as_paths(paths),
            glob=self.glob,
            max_file_size=self.max_file_size,
            missing_ok=self.prune,
            follow_links=self.follow_links,
        )


def add_files(
    ingest: Ingest,
    walk: Walk,
    options: FolderOptions,
    *,
    base: Path | None,
) -> IngestReport:
    """Index the files of a walk, reading only what may have changed.

    Args:
        ingest: The call; it has not begun.
        walk: The files there are.
        options: What the caller wants.
        base: The folder that names are relative to from now on; None keeps the recorded one.
    """
    writer, space = ingest.writer, ingest.space
    # A file that was skipped by an older version may have a parser now.
    parsers_are_new = catalog.setting(writer.connection, _PARSERS) != __version__
    folder = base_folder.record(writer, space, base)
    ingest.note_base()
    found = catalog.files_beneath(writer.connection, names_beneath(folder, walk.roots))
    plan = FolderPlan(
        walk,
        folder,
        {row.path: KnownFile(row, has_documents) for row, has_documents in found},
        PlanOptions(
            max_file_size=options.max_file_size,
            retry_skipped=parsers_are_new,
            checksum=options.checksum,
            restore=options.restore,
            encoding=options.encoding,
        ),
    )
    sync = FolderSync(
        plan,
        ReadOptions(space.dimension, options.max_file_size, options.encoding, ingest.limits),
        ingest.tally,
        is_stored=ingest.is_stored,
        tell=lambda read, total, item, size: ingest.tell(read, total, "files", item, size),
    )
    report = ingest.run(sync.changes(walk, prune=options.prune, whole_folders=options.glob is None))
    # Only after the whole run: one that was cut short must try the skipped files again.
    if parsers_are_new:
        with writer.transaction() as change:
            change.put_setting(_PARSERS, __version__)
    return report


class FolderSync:
    """Turns a plan into changes, reading files as they are needed, and notes outcomes.

    Args:
        plan: What to do with each file.
        options: How to read.
        tally: Where outcomes are noted.
        is_stored: Whether a document of a file is in the index as it is.
        tell: Takes the number of files read, of files in all, the name of the next, and the bytes
            in all files that have to be encoded, as far as is known by then.
    """

    def __init__(
        self,
        plan: FolderPlan,
        options: ReadOptions,
        tally: IngestTally,
        *,
        is_stored: Callable[[Document, bytes], bool] = lambda document, path: False,
        tell: Callable[[int, int, str, int], None] = lambda done, total, item, size: None,
    ) -> None:
        self._plan = plan
        self._options = options
        self._tally = tally
        self._is_stored = is_stored
        self._tell = tell
        self._size = sum(planned.size for planned in plan.files)

    def changes(self, walk: Walk, *, prune: bool, whole_folders: bool) -> Iterator[Change]:
        """Yield what must change, in the order of the walk; removals last.

        Args:
            walk: That of the plan.
            prune: Remove documents whose file is gone.
            whole_folders: As `FolderPlan.missing`.
        """
        files = self._plan.files
        total = len(files)
        in_order = read_in_order(files, partial(read, options=self._options))
        for position, (planned, parts) in enumerate(in_order):
            self._tell(position, total, names.of_path(planned.name), self._size)
            if planned.renamed_from is not None and planned.known is not None:
                yield Change(file=planned.known.row, renamed_from=planned.renamed_from)
            self._note_unread(planned)
            yield from self._changes_of(planned, parts)
        self._tell(total, total, "", self._size)
        yield from self._left_out_of(walk)
        yield from self._missing(prune=prune, whole_folders=whole_folders)

    def _changes_of(self, planned: PlannedFile, parts: Iterator[FilePart]) -> Iterator[Change]:
        """Yield the changes that the parts of a file make, as they are read."""
        left = planned.size
        for part in parts:
            fresh = FileRow(planned.name, "indexed", sha256=part.sha256).stamped(part.stamp)
            if part.state == "same":
                yield self._same(planned, fresh)
            elif part.state in ("skipped", "failed"):
                yield from self._unusable(planned, part, fresh)
            else:
                # Sizes are planned in bytes, parts are counted in characters: the last part takes
                # the rest.
                share = left if part.state == "indexed" else min(left, _length(part))
                left -= share
                yield self._change(planned, part, fresh, share)
        self._size -= left  # what turned out to need no encoding

    def _change(self, planned: PlannedFile, part: FilePart, fresh: FileRow, size: int) -> Change:
        documents, continues = part.documents, part.total > len(part.documents)
        if planned.is_resumed:
            documents = tuple(d for d in documents if not self._is_stored(d, planned.name))
        if part.state == "indexed":
            return Change(documents, fresh, part.total, continues, size=size)
        reason = f"Only its first {part.total:,} documents are indexed: reading it was cut short."
        begun = FileRow(planned.name, "partial", reason, sha256=part.sha256)
        return Change(documents, begun, continues=continues, size=size)

    def _same(self, planned: PlannedFile, fresh: FileRow) -> Change:
        if planned.same_content == "deleted":
            self._tally.deleted += 1
            return Change(file=fresh._replace(state="deleted"))
        self._tally.unchanged += 1
        return Change(file=fresh)

    def _note_unread(self, planned: PlannedFile) -> None:
        if planned.step == "unchanged":
            self._tally.unchanged += 1
        elif planned.step == "deleted":
            self._tally.deleted += 1
        elif planned.step == "skipped" and planned.known is not None:
            self._note(planned.name, "skipped", planned.known.row.reason or "")

    def _unusable(self, planned: PlannedFile, part: FilePart, fresh: FileRow) -> Iterator[Change]:
        read = None if part.sha256 is None else fresh
        yield from self._left_out(planned.name, part.state, part.reason, read, part.total)

    def _left_out_of(self, walk: Walk) -> Iterator[Change]:
        """Record what the walk has passed over: links, devices, what is too large or unreadable."""
        for outcome in walk.skipped:
            reason = outcome.reason.removeprefix(f"{outcome.path} ")
            yield from self._left_out(self._plan.name_of(outcome.path), outcome.state, reason)
        self._tally.excluded += walk.excluded

    def _left_out(
        self, name: bytes, state: str, reason: str, fresh: FileRow | None = None, stored: int = 0
    ) -> Iterator[Change]:
        """Record a file that could not be used; what an earlier version gave is kept.

        Args:
            name: Which.
            state: `skipped` or `failed`.
            reason: Why.
            fresh: What would be recorded of it otherwise, if it could be read at all.
            stored: How many documents of it, its first ones, are stored all the same.
        """
        known = self._plan.known.get(name)
        if fresh is None and self._plan.stays_deleted(known):
            self._tally.deleted += 1  # it was not read, so it has not changed
            return
        if stored:
            reason = f"{reason} Its first {stored:,} documents are indexed."
        elif known is not None and known.has_documents:
            reason = f"{reason} The version indexed before is kept."
        self._note(name, state, reason)
        # A checksum says that the documents are all those of that content. It must not be kept
        # where they may be of two contents, or the content would count as unchanged later.
        before = None if known is None or known.row.state == "partial" else known.row.sha256
        left_out = FileRow(name, state, reason, sha256=None if stored else before)
        yield Change(file=left_out.stamped(fresh.stamp if fresh else None))

    def _note(self, name: bytes, state: str, reason: str) -> None:
        shown = names.of_path(name)
        outcomes = self._tally.skipped if state == "skipped" else self._tally.failed
        outcomes.append(FileOutcome(shown, state, reason))
        _log.debug("%s: %s: %s", state, shown, reason)

    def _missing(self, *, prune: bool, whole_folders: bool) -> Iterator[Change]:
        """Forget what is gone, or left out by a rule now; documents go only with `prune`."""
        for row, has_documents in self._plan.missing(whole_folders=whole_folders):
            if prune or not (has_documents or row.state == "deleted"):
                yield Change(file=row, removes_file=True)
            elif has_documents:
                self._tally.missing += 1


def _length(part: FilePart) -> int:
    return sum(len(document.text) for document in part.documents)


def as_paths(paths: PathLike | Sequence[PathLike]) -> list[Path]:
    """Return one or several paths as a list.

    Raises:
        InvalidConfig: One is not a path, or is empty.
    """
    if isinstance(paths, str | bytes | os.PathLike) or not isinstance(paths, Iterable):
        return [arguments.path(paths, "path")]
    return [arguments.path(path, "path") for path in paths]

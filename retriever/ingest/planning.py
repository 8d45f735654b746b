"""Plan which files of a folder are read: what is new, what may have changed, what is gone.

A file whose stamp (size, time of modification, inode, time of change) is as recorded is neither
read nor parsed. Every other one is read and hashed, and parsed unless its content is as recorded.
Nothing is read or stored here: a plan can be looked at, or thrown away.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from retriever import names
from retriever.documents import parsers
from retriever.documents.sources import FoundFile
from retriever.documents.walk import Walk
from retriever.storage.base_folder import name_beneath
from retriever.storage.records import FileRow
from retriever.types import MAX_FILE_SIZE

Reason: TypeAlias = Literal[
    "new",  # no file of that name is known
    "changed",  # its stamp is another one, or could not be trusted
    "unfinished",  # an earlier run did not come to its end
    "failed",  # it could not be used
    "incomplete",  # a document of it was replaced by hand, or is gone
    "restored",  # its documents were deleted, and are wanted again
    "parsers",  # this version may read what an earlier one could not
    "checksum",  # every file is to be compared by content
    "encoding",  # the caller says how files are encoded
]
Step: TypeAlias = Literal["read", "unchanged", "deleted", "skipped"]


class KnownFile(NamedTuple):
    """What the index has recorded of a file, and whether documents of it are in the index."""

    row: FileRow
    has_documents: bool


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What a caller wants of a run.

    Attributes:
        max_file_size: Larger files are not read, in bytes.
        retry_skipped: Read files again that an earlier version could not use.
        checksum: Read every file, whatever its stamp says.
        restore: Take files in again whose documents were deleted.
        encoding: What files without a byte order mark are in; every file is read again then,
            since it may have been taken for something else. None means to find out.
    """

    max_file_size: int = MAX_FILE_SIZE
    retry_skipped: bool = False
    checksum: bool = False
    restore: bool = False
    encoding: str | None = None


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file of a walk and what to do with it. It can be pickled, to be read by another process.

    Attributes:
        file: Where it is.
        name: What it is called in the index.
        step: `read`; or why it is not read: `unchanged`, `deleted` (its documents were deleted and
            it has not changed since) or `skipped` (as recorded).
        reason: Why it is read; None where it is not.
        known: What is recorded of it; None if it is new.
        same_content: What it is if its content turns out to be as recorded: `unchanged` or
            `deleted`. None parses it all the same.
        renamed_from: The name in another normal form of Unicode that it is recorded under.
        size: Bytes that seem to need encoding.
    """

    file: FoundFile
    name: bytes
    step: Step
    reason: Reason | None = None
    known: KnownFile | None = None
    same_content: Literal["unchanged", "deleted"] | None = None
    renamed_from: bytes | None = None
    size: int = 0

    @property
    def is_resumed(self) -> bool:
        """Return whether some documents of it are stored, and a run was cut short."""
        return self.known is not None and self.known.row.state == "partial"


class FolderPlan:
    """What a run is to do with the files of a walk.

    Args:
        base: The directory that names of files are relative to, resolved.
        known: The files of the index at or beneath the paths, by name.
        options: What the caller wants.

    Attributes:
        files: Every file of the walk, in its order.
        known: As given, under the names that files have now.
    """

    def __init__(
        self, walk: Walk, base: str, known: Mapping[bytes, KnownFile], options: PlanOptions
    ) -> None:
        self._walk = walk
        self._base = folder_of(base)
        self._options = options
        self.known = dict(known)
        self._alike: dict[str, list[bytes]] = {}
        for path in known:
            if (form := names.as_read(path)) is not None:
                self._alike.setdefault(form, []).append(path)
        found = [(file, self.name_of(file.path)) for file in walk]
        # Complete before the first file is planned: a record is taken over from another spelling of
        # a name only if no file of the walk has that spelling.
        self._seen = {name for _, name in found}
        self.files = [self._plan(file, name) for file, name in found]

    def name_of(self, path: Path | str) -> bytes:
        """Return the name of a path of the walk: relative to the base, or absolute outside it."""
        return name_beneath(self._base, os.fsencode(path))

    def _plan(self, file: FoundFile, name: bytes) -> PlannedFile:
        renamed_from = self._take_over_other_spelling(file, name)
        known = self.known.get(name)
        step, reason = self._step(file, known)
        same = self._same_content(known)
        size = self._size(file, name) if step == "read" else 0
        return PlannedFile(file, name, step, reason, known, same, renamed_from, size)

    def _step(self, file: FoundFile, known: KnownFile | None) -> tuple[Step, Reason | None]:
        if known is None:
            return "read", "new"
        row, options = known.row, self._options
        if options.encoding is not None:
            return "read", "encoding"
        if options.checksum:
            return "read", "checksum"
        # Before stamps are compared: an unchanged file must be read to its end all the same.
        if row.state == "partial":
            return "read", "unfinished"
        if row.stamp != file.stamp:
            return "read", "changed"
        if row.is_whole and known.has_documents:
            return "unchanged", None
        if row.state == "deleted":
            return ("read", "restored") if options.restore else ("deleted", None)
        if row.state == "skipped":
            return ("read", "parsers") if options.retry_skipped else ("skipped", None)
        return "read", "failed" if row.state == "failed" else "incomplete"

    def _same_content(self, known: KnownFile | None) -> Literal["unchanged", "deleted"] | None:
        if known is None:
            return None
        is_complete = known.row.is_whole or known.row.state not in ("indexed", "partial")
        if known.has_documents and is_complete and self._options.encoding is None:
            return "unchanged"
        return "deleted" if self.stays_deleted(known) else None

    def stays_deleted(self, known: KnownFile | None) -> bool:
        """Return whether a file stays out because its documents were deleted."""
        return known is not None and known.row.state == "deleted" and not self._options.restore

    def _size(self, file: FoundFile, name: bytes) -> int:
        size = file.stamp.size
        may_read = size <= self._options.max_file_size and parsers.may_read(os.fsdecode(name))
        return size if may_read else 0

    def _take_over_other_spelling(self, file: FoundFile, name: bytes) -> bytes | None:
        """Take over what is known of a file under the same name in another normal form of Unicode.

        Copying between systems may change the form. Two files whose names differ only in it are
        two files, for as long as both are there.
        """
        form = names.as_read(name)
        if form is None or name in self.known:
            return None
        for other in self._alike.get(form, ()):
            if other in self._seen or other not in self.known:
                continue
            path = Path(self._base, os.fsdecode(other))
            if _is_gone(path) or _is_same(path, file.path):
                before = self.known.pop(other)
                self.known[name] = before._replace(row=before.row._replace(path=name))
                return other
        return None

    def missing(self, *, whole_folders: bool) -> Iterator[KnownFile]:
        """Yield files of the index that are not in the walk, as it is when each is asked for.

        Args:
            whole_folders: Whether the walk leaves files out by rules of the folder only, not by
                a glob of this call; a file that exists and is left out then counts as gone too.
        """
        left_out = {self.name_of(outcome.path) for outcome in self._walk.skipped}
        # Files below a folder that could not be listed are unknown, and must not count as gone.
        unread = tuple(
            self.name_of(outcome.path) + b"/"
            for outcome in self._walk.skipped
            if outcome.state == "failed"
        )
        for path, known in self.known.items():
            if path in self._seen or path in left_out or path.startswith(unread):
                continue
            whole = Path(self._base, os.fsdecode(path))
            if self._walk.covers(whole) and (whole_folders or _is_gone(whole)):
                yield known


def folder_of(path: str | os.PathLike[str]) -> str:
    """Return a folder's path, resolved, with a slash at its end."""
    return os.path.realpath(path).rstrip(os.sep) + os.sep


def names_beneath(base: str, roots: Sequence[str]) -> list[bytes] | None:
    """Return the names under which files at or beneath `roots` are known; None means any name.

    Args:
        base: The directory that names are relative to.
        roots: Resolved paths.
    """
    folder = folder_of(base)
    beneath = []
    for root in roots:
        if folder.startswith(folder_of(root)):
            return None
        beneath.append(os.fsencode(root[len(folder) :] if root.startswith(folder) else root))
    return beneath


def _is_gone(path: Path) -> bool:
    """Return whether a path certainly does not exist; one that cannot be looked at might."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _is_same(path: Path, other: Path) -> bool:
    """Return whether two names are of one file, where a file system does not tell them apart."""
    try:
        return os.path.samestat(path.lstat(), other.lstat())
    except OSError:
        return False

"""Files of a folder against what the index knows of them: what changed, what is new, what is gone.

A file whose stamp (size, time of modification, inode, time of change) is as recorded is neither
read nor parsed. Anything else is read and hashed; equal content only has its record refreshed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from retriever import arguments, names
from retriever.documents import parsers, sources
from retriever.documents.validation import to_document
from retriever.errors import IngestError, RetrieverError, UnsupportedFormat, UsageError
from retriever.ingest.commits import Unit
from retriever.storage.base_folder import name_beneath
from retriever.storage.records import FileRow
from retriever.types import Document, FileOutcome, IngestReport

_log = logging.getLogger("retriever")


class FolderSync:
    """One walk of the paths given, compared with the files of the index.

    Args:
        base: The directory that names of files are relative to, resolved.
        known: The files of the index at or beneath the paths, by name, and whether documents of
            theirs are in it.
        dimension: Length of the index's vectors, for checking documents.
        max_file_size: Larger files are not read, in bytes.
        retry_skipped: Read files again that an earlier version could not use.
        checksum: Read every file, whatever its stamp says.
        restore: Take files in again whose documents were deleted.
        encoding: What files without a byte order mark are in; every file is read again then,
            since it may have been taken for something else. None means to find out.
        report: Where outcomes are noted.
    """

    def __init__(
        self,
        base: str,
        known: dict[bytes, tuple[FileRow, bool]],
        *,
        dimension: int,
        retry_skipped: bool,
        checksum: bool,
        restore: bool,
        max_file_size: int,
        report: IngestReport,
        encoding: str | None = None,
    ) -> None:
        self._base = _folder(base)
        self._known = known
        self._dimension = dimension
        self._retry_skipped = retry_skipped
        self._checksum = checksum
        self._restore = restore
        self._max_file_size = max_file_size
        self._report = report
        self._encoding = encoding
        self._alike: dict[str, list[bytes]] = {}
        for path in known:
            if (form := names.as_read(path)) is not None:
                self._alike.setdefault(form, []).append(path)

    def name_of(self, path: Path) -> bytes:
        """Return the name of a path of the walk: relative to the base, or absolute outside it."""
        return name_beneath(self._base, os.fsencode(path))

    def units(
        self,
        walk: sources.Walk,
        *,
        prune: bool,
        whole_folders: bool,
        tell: Callable[[int, int, str, int], None],
    ) -> Iterator[Unit]:
        """Yield what must change, in the order of the walk; removals last.

        Args:
            walk: The files there are.
            prune: Remove documents whose file is gone.
            whole_folders: Whether the walk leaves files out by rules of the folder only, not by
                a glob of this call; a file that exists and is left out then counts as gone too.
            tell: Takes the number of files read, of files in all, the name of the next, and the
                bytes in all files that have to be encoded, as far as is known by then.
        """
        found = [(file, self.name_of(file.path)) for file in walk]
        seen = {name for _, name in found}
        sizes = [self._work_of(file, name) for file, name in found]
        work = sum(sizes)
        for position, ((file, name), size) in enumerate(zip(found, sizes, strict=True)):
            tell(position, len(found), names.of_path(name), work)
            yield from self._respelt(file, name, seen)
            is_work = False
            for unit in self._unit(file, name):
                if unit.documents:
                    is_work, unit.size = True, size
                yield unit
            work -= 0 if is_work else size
        tell(len(found), len(found), "", work)
        for outcome in walk.skipped:
            name = self.name_of(Path(outcome.path))
            seen.add(name)
            reason = outcome.reason.removeprefix(f"{outcome.path} ")
            yield from self._left_out(name, outcome.state, reason)
        self._report.excluded += walk.excluded
        yield from self._vanished(walk, seen, prune=prune, whole_folders=whole_folders)

    def _respelt(self, file: sources.FoundFile, name: bytes, seen: set[bytes]) -> Iterator[Unit]:
        """Take over what is known of a file under the same name in another normal form of Unicode.

        Copying between systems may change the form. Two files whose names differ only in it are
        two files, for as long as both are there.
        """
        form = names.as_read(name)
        if form is None or name in self._known:
            return
        for other in self._alike.get(form, ()):
            if other in seen or other not in self._known:
                continue
            if _is_gone(path := Path(self._base, os.fsdecode(other))) or _is_same(path, file.path):
                row, has_documents = self._known.pop(other)
                self._known[name] = row._replace(path=name), has_documents
                yield Unit(file=self._known[name][0], renamed_from=other)
                return

    def _work_of(self, file: sources.FoundFile, name: bytes) -> int:
        """Return the bytes of a file that seem to need encoding, before any of them is read."""
        row, has_documents = self._known.get(name, (None, False))
        size = file.stamp.size
        if row is not None and row.stamp == file.stamp and self._encoding is None:
            is_left_out = row.state == "skipped" and not self._retry_skipped
            if has_documents or is_left_out or self._is_deleted(row):
                return 0
        return size if size <= self._max_file_size and parsers.may_read(os.fsdecode(name)) else 0

    def _unit(self, file: sources.FoundFile, name: bytes) -> Iterator[Unit]:
        row, has_documents = self._known.get(name, (None, False))
        read_all = self._checksum or self._encoding is not None
        if row is not None and not read_all and row.stamp == file.stamp:
            if row.is_whole and has_documents:
                self._report.unchanged += 1
                return
            if self._is_deleted(row):
                self._report.deleted += 1
                return
            if row.state == "skipped" and not self._retry_skipped:
                self._note(name, row.state, row.reason or "")
                return
        try:
            content = sources.read(file, max_file_size=self._max_file_size)
        except IngestError as exc:
            yield from self._left_out(name, "failed", _reason(exc, file.path, name))
            return
        fresh = FileRow(name, "indexed", sha256=content.sha256).stamped(content.stamp)
        if row is not None and row.sha256 == content.sha256:
            is_same = row.is_whole or row.state != "indexed"
            if has_documents and is_same and self._encoding is None:
                self._report.unchanged += 1
                yield Unit(file=fresh)
                return
            if self._is_deleted(row):
                self._report.deleted += 1
                yield Unit(file=fresh._replace(state="deleted"))
                return
        try:
            documents = self._parse(content.data, name, os.fspath(file.path))
        except UnsupportedFormat as exc:
            reason = _reason(exc, file.path, name)
            yield from self._left_out(name, "skipped", reason, fresh)
        except (IngestError, UsageError) as exc:
            reason = _reason(exc, file.path, name)
            yield from self._left_out(name, "failed", reason, fresh)
        else:
            yield Unit(documents, fresh, replaces_file=True)

    def _is_deleted(self, row: FileRow | None) -> bool:
        """Return whether a file stays out because its documents were deleted."""
        return row is not None and row.state == "deleted" and not self._restore

    def _parse(self, data: bytes, name: bytes, path: str) -> list[Document]:
        documents = []
        for position, document in enumerate(parsers.parse(data, path, self._encoding)):
            named = replace(
                document,
                id=names.id_of(name, position),
                source=document.source or names.of_path(name),
            )
            documents.append(to_document(named, position, self._dimension))
        return documents

    def _left_out(
        self, name: bytes, state: str, reason: str, fresh: FileRow | None = None
    ) -> Iterator[Unit]:
        """Record a file that could not be used; what an earlier version gave is kept."""
        row, has_documents = self._known.get(name, (None, False))
        if fresh is None and self._is_deleted(row):  # it was not read, so it has not changed
            self._report.deleted += 1
            return
        if has_documents:
            reason = f"{reason} The version indexed before is kept."
        self._note(name, state, reason)
        left_out = FileRow(name, state, reason, sha256=row.sha256 if row else None)
        yield Unit(file=left_out.stamped(fresh.stamp if fresh else None))

    def _note(self, name: bytes, state: str, reason: str) -> None:
        shown = names.of_path(name)
        outcomes = self._report.skipped if state == "skipped" else self._report.failed
        outcomes.append(FileOutcome(shown, state, reason))
        _log.debug("%s: %s: %s", state, shown, reason)

    def _vanished(
        self, walk: sources.Walk, seen: set[bytes], *, prune: bool, whole_folders: bool
    ) -> Iterator[Unit]:
        """Forget what is gone, or left out by a rule now; documents go only with `prune`."""
        unread = [
            self.name_of(Path(outcome.path)) + b"/"
            for outcome in walk.skipped
            if outcome.state == "failed"
        ]
        for path, (row, has_documents) in self._known.items():
            if path in seen or path.startswith(tuple(unread)):
                continue
            whole = Path(self._base, os.fsdecode(path))
            if not walk.covers(whole) or not (whole_folders or _is_gone(whole)):
                continue
            if prune or not (has_documents or row.state == "deleted"):
                yield Unit(file=row, removes_file=True)
            elif has_documents:
                self._report.vanished += 1


def _folder(path: str | os.PathLike[str]) -> str:
    return os.path.realpath(path).rstrip(os.sep) + os.sep


def names_beneath(base: str, roots: Sequence[str]) -> list[bytes] | None:
    """Return the names under which files at or beneath `roots` are known; None means any name.

    Args:
        base: The directory that names are relative to.
        roots: Resolved paths.
    """
    folder = _folder(base)
    beneath = []
    for root in roots:
        if folder.startswith(_folder(root)):
            return None
        beneath.append(os.fsencode(root[len(folder) :] if root.startswith(folder) else root))
    return beneath


def _reason(exc: RetrieverError, path: Path, name: bytes) -> str:
    """Return an error's message and hint without the file's name, which stands beside them."""
    text = str(exc).removeprefix(f"{path} ").replace(f" of {path} ", " ")
    return text.replace(f" ({names.id_of(name)!r})", "")


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


def as_paths(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return one or several paths as a list.

    Raises:
        InvalidConfig: One is no path, or is empty.
    """
    if isinstance(paths, str | bytes | os.PathLike) or not isinstance(paths, Iterable):
        return [arguments.path(paths, "path")]
    return [arguments.path(path, "path") for path in paths]

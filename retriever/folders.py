"""Files of a folder against what the index knows of them: what changed, what is new, what is gone.

A file whose size and modification time are as recorded is neither read nor parsed. Anything
else is read and hashed; equal content only has its record refreshed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from retriever.documents import parsers, sources
from retriever.documents.intake import to_document
from retriever.errors import IngestError, UnsupportedFormat, UsageError
from retriever.ingest import Unit
from retriever.storage.records import FileRow
from retriever.types import Document, FileOutcome, IngestReport

_log = logging.getLogger("retriever")


class FolderSync:
    """One walk of the paths given, compared with the files of the index.

    Args:
        base: The directory that file ids are relative to: the index's parent, resolved.
        known: The files of the index at or beneath the paths, by name, and whether documents of
            theirs are in it.
        dimension: Length of the index's vectors, for checking documents.
        max_file_size: Larger files are not read, in bytes.
        retry_skipped: Read files again that an earlier version could not use.
        report: Where outcomes are noted.
    """

    def __init__(
        self,
        base: Path,
        known: dict[bytes, tuple[FileRow, bool]],
        *,
        dimension: int,
        retry_skipped: bool,
        max_file_size: int,
        report: IngestReport,
    ) -> None:
        self._base = _folder(base)
        self._known = known
        self._dimension = dimension
        self._retry_skipped = retry_skipped
        self._max_file_size = max_file_size
        self._report = report
        self._real: dict[str, str] = {}

    def name_of(self, path: Path) -> str:
        """Return a file's id: its path relative to the index's parent, or absolute."""
        parent, leaf = os.path.split(path)
        real = self._real.get(parent)
        if real is None:
            real = self._real[parent] = os.path.realpath(parent)
        whole = real.rstrip(os.sep) + os.sep + leaf
        return whole[len(self._base) :] if whole.startswith(self._base) else whole

    def units(
        self,
        walk: sources.Walk,
        *,
        prune: bool,
        whole_folders: bool,
        tell: Callable[[int, int | None, str], None],
    ) -> Iterator[Unit]:
        """Yield what must change, in the order of the walk; removals last.

        Args:
            walk: The files there are.
            prune: Remove documents whose file is gone.
            whole_folders: Whether the walk leaves files out by rules of the folder only, not by
                a glob of this call; a file that exists and is left out then counts as gone too.
            tell: Takes the number of files read, of files in all, and the name of the next.
        """
        found = list(walk)
        seen: set[bytes] = set()
        for position, file in enumerate(found):
            name = self.name_of(file.path)
            tell(position, len(found), name)
            seen.add(os.fsencode(name))
            yield from self._unit(file, name)
        tell(len(found), len(found), "")
        for outcome in walk.skipped:
            name = self.name_of(Path(outcome.path))
            seen.add(os.fsencode(name))
            yield self._left_out(name, outcome.state, outcome.reason)
        self._report.excluded += walk.excluded
        yield from self._vanished(walk, seen, prune=prune, whole_folders=whole_folders)

    def _unit(self, file: sources.FoundFile, name: str) -> Iterator[Unit]:
        row, has_documents = self._known.get(os.fsencode(name), (None, False))
        same = row is not None and (row.size, row.mtime_ns) == (file.size, file.mtime_ns)
        if row is not None and same and row.state == "indexed" and has_documents:
            self._report.unchanged += 1
            return
        if row is not None and same and row.state == "skipped" and not self._retry_skipped:
            self._note(name, row.state, row.reason or "")
            return
        try:
            content = sources.read(file, max_file_size=self._max_file_size)
        except IngestError as exc:
            yield self._left_out(name, "failed", str(exc))
            return
        fresh = FileRow(
            os.fsencode(name), "indexed", None, content.size, content.mtime_ns, content.sha256
        )
        if row is not None and row.sha256 == content.sha256 and has_documents:
            self._report.unchanged += 1
            yield Unit(file=fresh)
            return
        try:
            documents = self._parse(content.data, name, os.fspath(file.path))
        except UnsupportedFormat as exc:
            yield self._left_out(name, "skipped", str(exc), fresh)
        except (IngestError, UsageError) as exc:
            yield self._left_out(name, "failed", str(exc), fresh)
        else:
            yield Unit(documents, fresh, replaces_file=True)

    def _parse(self, data: bytes, name: str, path: str) -> list[Document]:
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        documents = []
        for position, document in enumerate(parsers.parse(data, path)):
            document_id = shown if position == 0 else f"{shown}#{position}"
            named = replace(document, id=document_id, source=document.source or shown)
            documents.append(to_document(named, position, self._dimension))
        return documents

    def _left_out(self, name: str, state: str, reason: str, fresh: FileRow | None = None) -> Unit:
        """Record a file that could not be used; what an earlier version gave is kept."""
        path = os.fsencode(name)
        row, has_documents = self._known.get(path, (None, False))
        if has_documents:
            reason = f"{reason} The version indexed before is kept."
        self._note(name, state, reason)
        size, mtime_ns = (fresh.size, fresh.mtime_ns) if fresh else (None, None)
        return Unit(file=FileRow(path, state, reason, size, mtime_ns, row.sha256 if row else None))

    def _note(self, name: str, state: str, reason: str) -> None:
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        outcomes = self._report.skipped if state == "skipped" else self._report.failed
        outcomes.append(FileOutcome(shown, state, reason))
        _log.debug("%s: %s: %s", state, shown, reason)

    def _vanished(
        self, walk: sources.Walk, seen: set[bytes], *, prune: bool, whole_folders: bool
    ) -> Iterator[Unit]:
        """Forget what is gone, or left out by a rule now; documents go only with `prune`."""
        unread = [
            os.fsencode(self.name_of(Path(outcome.path))) + b"/"
            for outcome in walk.skipped
            if outcome.state == "failed"
        ]
        for path, (row, has_documents) in self._known.items():
            if path in seen or path.startswith(tuple(unread)):
                continue
            whole = Path(self._base, os.fsdecode(path))
            if not walk.covers(whole) or not (whole_folders or _is_gone(whole)):
                continue
            if prune or not has_documents:
                yield Unit(file=row, removes_file=True)
            else:
                self._report.vanished += 1


def _folder(path: str | os.PathLike[str]) -> str:
    return os.path.realpath(path).rstrip(os.sep) + os.sep


def names_beneath(base: Path, roots: Sequence[str]) -> list[bytes] | None:
    """Return the names under which files at or beneath `roots` are known; None means any name.

    Args:
        base: The directory that names are relative to.
        roots: Resolved paths.
    """
    folder = _folder(base)
    names = []
    for root in roots:
        if folder.startswith(_folder(root)):
            return None
        names.append(os.fsencode(root[len(folder) :] if root.startswith(folder) else root))
    return names


def _is_gone(path: Path) -> bool:
    """Return whether a path certainly does not exist; one that cannot be looked at might."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def as_paths(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return one or several paths as a list."""
    if isinstance(paths, str | os.PathLike):
        return [Path(paths)]
    return [Path(path) for path in paths]

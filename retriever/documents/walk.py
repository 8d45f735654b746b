"""Walk folders for the files that are documents.

Symbolic links are not followed unless the caller asks for it. The directory of an index is never
entered: closing a second descriptor of its database would drop the locks that SQLite holds on it.
"""

from __future__ import annotations

import errno
import heapq
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from retriever.arguments import text_or_none, whole
from retriever.documents.globs import compile_glob
from retriever.documents.ignoring import IGNORE_FILES, REPOSITORY_IGNORE_FILE, IgnoreRules
from retriever.documents.sources import FoundFile, read_path
from retriever.documents.stamps import FileStamp
from retriever.errors import UnreadableFile
from retriever.regular_files import kind_of
from retriever.types import MAX_FILE_SIZE, FileOutcome

_MAX_IGNORE_FILE_SIZE = 100_000_000  # as in git
_VERSION_CONTROL = frozenset({"CVS", "_darcs", "RCS", "SCCS"})  # those that are not hidden


class _Folder(NamedTuple):
    """A folder to be listed, and the device and inode of those above it if links are followed."""

    path: str
    rules: IgnoreRules | None
    above: tuple[tuple[int, int], ...] = ()


class Walk:
    """The files below some paths, sorted by the bytes of each part of the path.

    Hidden and version-control entries, entries that `.gitignore` and `.retrieverignore` name, and
    every index are passed over and counted. A path that is given by name is walked even if it is
    one of these, unless it is an index. A file below two of the paths appears once.

    Args:
        paths: Files and folders; a link given by name is followed, one found is not.
        glob: Matched on the path below each folder given, as in `**/*.{md,rst}`; without a slash
            on the name alone. A file given by name needs no match.
        max_file_size: In bytes; a larger file is skipped.
        missing_ok: Whether a path that does not exist is passed over.
        follow_links: Whether links that are found are followed, under the link's name; not into
            an index, nor to a folder above. What can be reached by two names is found twice.

    Attributes:
        excluded: Entries passed over, a folder counting as one, in the latest iteration.
        skipped: Links, special and oversized files and unreadable folders, in the latest
            iteration.

    Raises:
        UnreadableFile: If a path does not exist or cannot be reached.
        InvalidConfig: If the glob is malformed, or the size is not a whole number.
    """

    def __init__(
        self,
        paths: Sequence[Path | str],
        *,
        glob: str | None = None,
        max_file_size: int = MAX_FILE_SIZE,
        missing_ok: bool = False,
        follow_links: bool = False,
    ) -> None:
        glob = text_or_none(glob, "glob", hint="Pass one pattern, as in '**/*.{md,rst}', or None.")
        self._glob: re.Pattern[str] | None = None if glob is None else compile_glob(glob)
        self._max_file_size = whole(
            max_file_size, "max_file_size", least=0, hint="Pass a number of bytes."
        )
        self._follow_links = follow_links
        self._covered = {form for path in paths for form in (_absolute(path), _real(path))}
        roots = {_real(path): path for path in paths}
        self.roots = sorted(roots)
        self._roots = [
            root
            for root in sorted(roots, key=_parts)
            if _exists(root, roots[root], missing_ok=missing_ok)
        ]
        self.excluded = 0
        self.skipped: list[FileOutcome] = []
        self._indexes: dict[str, bool] = {}

    def covers(self, path: Path) -> bool:
        """Return whether an absolute path lies at or beneath one of the paths given."""
        parents = {str(path), *map(str, path.parents)}
        return not self._covered.isdisjoint(parents)

    def __iter__(self) -> Iterator[FoundFile]:
        self.excluded = 0
        self.skipped = []
        self._indexes = {}
        walks = [self._walk(root) for root in self._roots]
        if len(walks) == 1:
            yield from walks[0]
            return
        before: Path | None = None
        for found in heapq.merge(*walks, key=lambda found: _parts(os.fspath(found.path))):
            if found.path != before:
                yield found
            before = found.path

    def _walk(self, root: str) -> Iterator[FoundFile]:
        if self._lies_in_index(root):
            self.excluded += 1
            self._skip(root, "part of an index")
            return
        try:
            status = os.stat(root, follow_symlinks=False)  # noqa: PTH116
        except OSError as error:
            self._skip(root, f"cannot be read: {error.strerror}", state="failed")
            return
        if not stat.S_ISDIR(status.st_mode):
            if (found := self._accept(root, status)) is not None:
                yield found
            return
        below = len(os.path.join(root, ""))  # noqa: PTH118
        # A stack, because folders may be nested deeper than Python can recurse.
        stack = [iter(self._list(_Folder(root, self._rules_above(root)), below))]
        while stack:
            item = next(stack[-1], None)
            if item is None:
                stack.pop()
            elif isinstance(item, FoundFile):
                yield item
            else:
                stack.append(iter(self._list(item, below)))

    def _list(self, folder: _Folder, below: int) -> list[FoundFile | _Folder]:
        """Return the files and folders of a folder that are to be walked, in order."""
        # Listed through a descriptor that refuses links: a folder that is replaced by a link during
        # the walk must not lead it elsewhere.
        flags = os.O_RDONLY | os.O_DIRECTORY | (0 if self._follow_links else os.O_NOFOLLOW)
        try:
            descriptor = os.open(folder.path, flags)
        except OSError as error:
            self._skip(folder.path, f"cannot be listed: {error.strerror}", state="failed")
            return []
        try:
            with os.scandir(descriptor) as scan:
                # In the order of `_parts`, by which the walks of several paths are merged.
                entries = sorted(scan, key=lambda entry: os.fsencode(entry.name))
            above = folder.above
            if self._follow_links:
                status = os.fstat(descriptor)
                if (this := (status.st_dev, status.st_ino)) in above:
                    self._skip(folder.path, "a symbolic link to a folder above it")
                    return []
                above = (*above, this)
            names = {entry.name for entry in entries}
            if "store.db" in names and ("HEAD" in names or "LOCK" in names):
                self.excluded += 1
                return []
            rules = self._rules(folder.path, names, folder.rules)
            inside = folder._replace(rules=rules, above=above)
            items = (self._entry(inside, entry, below) for entry in entries)
            return [item for item in items if item is not None]
        except OSError as error:
            self._skip(folder.path, f"cannot be listed: {error.strerror}", state="failed")
            return []
        finally:
            os.close(descriptor)

    def _entry(
        self, folder: _Folder, entry: os.DirEntry[str], below: int
    ) -> FoundFile | _Folder | None:
        name, rules = entry.name, folder.rules
        path = os.path.join(folder.path, name)  # noqa: PTH118
        is_followed = self._follow_links and entry.is_symlink()
        is_folder = entry.is_dir(follow_symlinks=is_followed)
        if (
            name.startswith(".")
            or name in _VERSION_CONTROL
            or (rules is not None and rules.exclude(path, is_folder=is_folder))
            or (is_followed and self._lies_in_index(os.path.realpath(path)))
        ):
            self.excluded += 1
            return None
        if is_folder:
            return folder._replace(path=path)
        # A link is reported even if its name does not match: it may lead to a folder with matches.
        is_wanted = self._glob is None or self._glob.fullmatch(path[below:]) is not None
        if not is_wanted and not entry.is_symlink():
            return None
        try:
            return self._accept(path, entry.stat(follow_symlinks=is_followed), is_link=is_followed)
        except OSError as error:
            if is_followed and isinstance(error, FileNotFoundError):
                self._skip(path, "a symbolic link to what does not exist")
                return None
            self._skip(path, f"cannot be read: {error.strerror}", state="failed")
            return None

    def _accept(
        self, path: str, status: os.stat_result, *, is_link: bool = False
    ) -> FoundFile | None:
        if not stat.S_ISREG(status.st_mode):
            kind = kind_of(status.st_mode)
            self._skip(path, f"{kind}, which is not followed" if "link" in kind else kind)
            return None
        if status.st_size > self._max_file_size:
            self._skip(
                path, f"{status.st_size:,} bytes, over the limit of {self._max_file_size:,} bytes"
            )
            return None
        return FoundFile(Path(path), FileStamp.of(status), is_link)

    def _rules_above(self, root: str) -> IgnoreRules | None:
        """Return the rules of the repository around a path, unless they exclude the path itself."""
        folders = [str(parent) for parent in Path(root).parents]
        outermost = next(
            (i for i, f in enumerate(folders) if os.path.lexists(os.path.join(f, ".git"))),  # noqa: PTH118
            None,
        )
        if outermost is None or os.path.lexists(os.path.join(root, ".git")):  # noqa: PTH118
            return None
        rules: IgnoreRules | None = None
        inside = folders[outermost::-1]
        for folder, next_folder in zip(inside, [*inside[1:], root], strict=True):
            rules = self._rules(folder, {".git", *IGNORE_FILES}, rules)
            if rules is not None and rules.exclude(next_folder, is_folder=True):
                return None
        return rules

    def _rules(self, folder: str, names: set[str], above: IgnoreRules | None) -> IgnoreRules | None:
        """Return the rules in force in a folder, given the names in it."""
        if ".git" in names:
            above = self._rules_of(folder, [REPOSITORY_IGNORE_FILE], above)
        return self._rules_of(folder, [name for name in IGNORE_FILES if name in names], above)

    def _rules_of(
        self, folder: str, names: Sequence[str], above: IgnoreRules | None
    ) -> IgnoreRules | None:
        """Return the rules that some ignore files of a folder add to those above."""
        found: list[bytes] = []
        for name in names:
            path = os.path.join(folder, name)  # noqa: PTH118
            try:
                found.append(read_path(path, _MAX_IGNORE_FILE_SIZE).data)
            except UnreadableFile as error:
                if os.path.lexists(path):
                    self._skip(path, error.message, state="failed")
        return IgnoreRules(folder, found, above) if any(found) else above

    def _lies_in_index(self, path: str) -> bool:
        if path not in self._indexes:
            names = (os.path.join(path, name) for name in ("store.db", "HEAD", "LOCK"))  # noqa: PTH118
            database, head, lock = map(os.path.lexists, names)
            folder = os.path.dirname(path)  # noqa: PTH120
            is_inside = folder != path and self._lies_in_index(folder)
            self._indexes[path] = is_inside or (database and (head or lock))
        return self._indexes[path]

    def _skip(self, path: str, reason: str, *, state: str = "skipped") -> None:
        self.skipped.append(FileOutcome(path, state, reason))


def _parts(path: str) -> list[bytes]:
    return os.fsencode(path).split(b"/")


def _absolute(path: Path | str) -> str:
    return os.path.abspath(path)  # noqa: PTH100


def _real(path: Path | str) -> str:
    try:
        return os.path.realpath(path)
    except ValueError as error:
        raise UnreadableFile(
            f"{str(path)!r} is not a path: {error}.", path=str(path), hint="Check how it is spelt."
        ) from error


def _exists(root: str, given: Path | str, *, missing_ok: bool) -> bool:
    try:
        if given == "":
            raise FileNotFoundError(errno.ENOENT, "the path is empty")
        os.stat(root)  # noqa: PTH116
    except OSError as error:
        if missing_ok and isinstance(error, FileNotFoundError | NotADirectoryError):
            return False
        raise UnreadableFile(
            f"{str(given)!r} cannot be read: {error.strerror}.",
            path=str(given),
            hint="Check the path; it is relative to the current folder unless it begins with '/'.",
        ) from error
    return True

"""Files on disk: which of a folder are documents, and their bytes, read safely.

Nothing is followed out of the folders given unless asked: no symbolic link, and no file that is
not regular is ever opened for long. An index of ours is never entered, and its database never
opened: closing a second descriptor of it would drop SQLite's locks.
"""

from __future__ import annotations

import errno
import hashlib
import heapq
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from retriever.arguments import text_or_none, whole
from retriever.documents.globs import compile_glob
from retriever.documents.ignoring import IGNORE_FILES, REPOSITORY_IGNORE_FILE, IgnoreRules
from retriever.documents.stamps import FileStamp
from retriever.errors import UnreadableFile
from retriever.regular_files import NotRegular, kind_of, open_regular
from retriever.types import MAX_FILE_SIZE, FileOutcome

_MAX_IGNORE_FILE_SIZE = 100_000_000  # as in git
_VERSION_CONTROL = frozenset({"CVS", "_darcs", "RCS", "SCCS"})  # those that are not hidden
_READS = 3
# A file changed again so soon may keep its stamp: clocks of file systems tick slowly.
_FRESH_NS = 20_000_000
_FRESH_WHOLE_SECONDS_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file found by a walk, as it was then.

    Attributes:
        path: Absolute; below the path given to the walk no part of it is a link, unless the walk
            follows links.
        stamp: What tells whether it has changed since.
        is_link: Whether it was reached by a link of this name.
    """

    path: Path
    stamp: FileStamp
    is_link: bool = False


class Content(NamedTuple):
    """The bytes of a file, and what tells whether it has changed since.

    `stamp` is None where the file was changed so shortly before it was read that another change
    could leave the same times.
    """

    data: bytes
    stamp: FileStamp | None
    sha256: bytes


class _Folder(NamedTuple):
    """A folder to be listed, and what identifies those above it, where links are followed."""

    path: str
    rules: IgnoreRules | None
    above: tuple[tuple[int, int], ...] = ()


class Walk:
    """The files below some paths, sorted by the bytes of each part of the path.

    Hidden and version-control entries, what `.gitignore` and `.retrieverignore` name, and every
    index of ours are passed over and counted; a path that is given by name is walked even so
    (except an index). A file reached by two of the paths appears once.

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
        InvalidConfig: If the glob is malformed, or the size is none.
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
        flags = os.O_RDONLY | os.O_DIRECTORY | (0 if self._follow_links else os.O_NOFOLLOW)
        try:
            descriptor = os.open(folder.path, flags)
        except OSError as error:
            self._skip(folder.path, f"cannot be listed: {error.strerror}", state="failed")
            return []
        try:
            with os.scandir(descriptor) as scan:
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
        # A link is reported whatever its name, since a folder may lie behind it.
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
                found.append(_read(path, _MAX_IGNORE_FILE_SIZE).data)
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


def read(found: FoundFile, *, max_file_size: int = MAX_FILE_SIZE) -> Content:
    """Return the bytes of a file as they were at one moment.

    Raises:
        UnreadableFile: If it has vanished, grown over the size limit, may not be read, is no
            longer a regular file, or kept changing while it was read.
    """
    return _read(os.fspath(found.path), max_file_size, follow=found.is_link)


def digest(path: bytes, status: os.stat_result, max_size: int) -> bytes | None:
    """Return the SHA-256 of a file's content as it is now; None where that cannot be told."""
    if not stat.S_ISREG(status.st_mode):
        return None
    try:
        return _read(os.fsdecode(path), max_size, follow=True).sha256
    except UnreadableFile:
        return None


def _read(path: str, limit: int, *, follow: bool = False) -> Content:
    for _ in range(_READS):
        if (content := _read_once(path, limit, follow=follow)) is not None:
            return content
    raise UnreadableFile(
        f"{path} changed each time it was read ({_READS} times).",
        path=path,
        hint="Index it again when nothing writes to it.",
    )


def _read_once(path: str, limit: int, *, follow: bool) -> Content | None:
    """Return the bytes of a file; None if it changed meanwhile."""
    began_ns = time.time_ns()
    try:
        descriptor = open_regular(path, follow=follow)
        try:
            before = os.fstat(descriptor)
            _check(path, before, limit)
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(before.st_size + 1)
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except NotRegular as error:
        raise _not_regular(path, error) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    stamp = FileStamp.of(before)
    if len(data) != before.st_size or stamp != FileStamp.of(after):
        return None
    is_settled = all(_is_settled(time_ns, began_ns) for time_ns in (stamp.mtime_ns, stamp.ctime_ns))
    return Content(data, stamp if is_settled else None, hashlib.sha256(data).digest())


def _check(path: str, status: os.stat_result, limit: int) -> None:
    if status.st_size > limit:
        raise UnreadableFile(
            f"{path} has {status.st_size:,} bytes, over the limit of {limit:,} bytes.",
            path=path,
            hint="Raise the limit with --max-file-size, or split the file.",
        )


def _is_settled(time_ns: int, began_ns: int) -> bool:
    """Return whether a time lies far enough before the reading to be trusted."""
    is_whole_second = time_ns % 1_000_000_000 == 0
    return began_ns - time_ns >= (_FRESH_WHOLE_SECONDS_NS if is_whole_second else _FRESH_NS)


def _not_regular(path: str, error: NotRegular) -> UnreadableFile:
    hint = "Only regular files can be indexed."
    if "link" in error.kind:
        hint = "Name the file that the link points to, or follow links: --follow-links."
    kind = error.kind.replace("directory", "folder")  # the word of this package and its users
    return UnreadableFile(f"{path} is {kind}.", path=path, hint=hint)


def _unreadable(path: str, error: OSError) -> UnreadableFile:
    hints = {
        errno.ENOENT: "It was there a moment ago; index the folder again.",
        errno.EACCES: "Give yourself leave to read it: chmod u+r.",
    }
    return UnreadableFile(
        f"{path} cannot be read: {error.strerror}.",
        path=path,
        hint=hints.get(error.errno or 0, "Check the disk it is on, then index it again."),
    )


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

"""Backup: a copy of a live index that is itself an index."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from retriever.errors import IndexExists
from retriever.reports import BackupReport
from retriever.storage import (
    catalog,
    connections,
    files,
    head_file,
    inspection,
    layout,
    schema,
    segments,
)


@contextmanager
def directory_when_complete(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` to write an index to; rename it to `target` after the block.

    `target` is therefore complete or absent. If the block fails, what it wrote is removed.

    Raises:
        IndexExists: Something other than an empty directory is at `target` already.
        WriteFailed: The directory cannot be renamed to `target`.
    """
    if os.path.lexists(target):
        is_directory = target.is_dir() and not target.is_symlink()
        if not is_directory or any(target.iterdir()):
            what = "exists and is not empty" if is_directory else "exists and is no directory"
            hint = "Name a directory that does not exist yet."
            raise IndexExists(f"{target} {what}.", hint=hint)
    aside = target.with_name(f"{target.name}.{secrets.token_hex(4)}{layout.TEMPORARY}")
    try:
        yield aside
        with files.write_errors(target):
            if target.exists():
                target.rmdir()
            aside.rename(target)
            files.sync_directory(target.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def backup(source: Path, target: Path) -> BackupReport:
    """Copy an index, as of one commit, to a new directory; writers and readers are not blocked.

    The copy is made beside `target` and renamed into place, so `target` is complete or absent.

    Raises:
        IndexExists: Something is at `target` already.
        WriteFailed, IndexCorrupt, FormatMismatch.
    """
    with directory_when_complete(target) as aside:
        seq, documents, size = _copy(source, aside)
    return BackupReport(path=target, seq=seq, documents=documents, bytes=size)


def _copy(source: Path, target: Path) -> tuple[int, int, int]:
    """Copy to `target`; return the commit, the number of documents, and the bytes on disk."""
    files.make_directory(target)
    with connections.sqlite_errors(source):
        origin = connections.connect(source, "ro")
        try:
            schema.check(origin, str(source))
            with (
                connections.sqlite_errors(target, writing=True),
                connections.connected(target, "rwc") as copy,
            ):
                # All pages in one step, so that the copy is of one commit.
                origin.backup(copy)
                copy.execute("PRAGMA journal_mode=WAL")
                _copy_segments(source, target, copy)
                _write_head(target, copy)
                copy.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                seq, documents = catalog.key(copy).seq, catalog.count(copy, "documents")
        finally:
            origin.close()
    with files.write_errors(target):
        connections.protect(target)
        files.sync_directory(target)
    return seq, documents, inspection.bytes_on_disk(target)


def _copy_segments(source: Path, target: Path, copy: Any) -> None:
    """Copy the segments that the copied catalog names.

    A segment that a merge removed meanwhile, or that is damaged, is dropped together with all
    segments of its series that follow it. Searches read rows from the database only after the
    last segment, so that a gap between segments would never be searched.
    """
    copy.execute("BEGIN IMMEDIATE")
    cut_off: set[tuple[Any, ...]] = set()
    for segment in sorted(catalog.all_segments(copy), key=lambda s: s.first_id):
        published = []
        of = (segment.kind, segment.chunking_id, segment.space_id)
        if of not in cut_off:
            with suppress(OSError):
                published = [
                    files.copy_file(source / f.name, target, f.name) for f in segment.files
                ]
        whole = [(f.size, f.sha256) for f in published] == [
            (f.size, f.sha256) for f in segment.files
        ]
        if not whole:
            cut_off.add(of)
            files.remove(target, [f.name for f in segment.files])
            copy.execute("DELETE FROM segments WHERE id = ?", (segment.id,))
            continue
        segments.describe_again(copy, replace(segment, files=tuple(published)))
    copy.execute("COMMIT")


def _write_head(target: Path, copy: Any) -> None:
    """Write the copy's HEAD from the copied database."""
    last = catalog.last_commit(copy)
    head_file.write_head(target, head_file.Head(last.seq, last.chain))

"""Maintenance of an index: delete documents, compact, repair."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from retriever import names
from retriever.encoders.loading import EncoderSource
from retriever.errors import RetrieverError
from retriever.ingest.rebuild import fill
from retriever.ingest.tally import IngestTally
from retriever.limits import Limits
from retriever.reports import CompactReport, RepairReport
from retriever.search.segment_kinds import KINDS
from retriever.storage import catalog, inspection, integrity, layout, pending, segments
from retriever.storage import repair as storage_repair
from retriever.storage.field_rows import remove_unused_fields
from retriever.storage.records import FileRow
from retriever.storage.repair_log import RepairLog
from retriever.storage.writer import Writer
from retriever.types import Progress, ProgressCallback

if TYPE_CHECKING:
    import sqlite3

KEPT_COMMITS = 64
_log = logging.getLogger("retriever")


def delete(
    writer: Writer, ids: Sequence[str], give_way: Callable[[], bool], limits: Limits
) -> None:
    """Delete documents, in commits of bounded size.

    A file without any document left is marked as deleted, so that the next run does not index it
    again.
    """
    for start in range(0, len(ids), limits.commit_documents):
        if start:
            give_way()
        # Read again for each commit: the writers let in may have built segments, or a new space.
        space = catalog.active_space(writer.connection)
        covered = catalog.last_covered(writer.connection, space.chunking.id)
        with writer.transaction() as change:
            for document_id in ids[start : start + limits.commit_documents]:
                owner = _file_of(writer.connection, document_id)
                change.delete_document(document_id, covered)
                if owner and not catalog.ids_of_file(writer.connection, owner.path):
                    change.put_file(owner._replace(state="deleted", reason=None))


def _file_of(connection: sqlite3.Connection, document_id: str) -> FileRow | None:
    """Return the file that a document came from, or, for an added one, the file with its id."""
    owner = catalog.file_of_document(connection, document_id)
    if owner is None:
        owner = catalog.file_at(connection, names.file_of(document_id))
        return owner if owner and owner.sha256 else None  # not if the file was never read
    return owner


def compact(
    writer: Writer,
    timeout_s: float,
    progress: ProgressCallback | None,
    give_way: Callable[[], bool],
    limits: Limits,
) -> CompactReport:
    """Merge segments, fold the history, and rewrite the database without deleted bytes.

    Other writers may write between these steps. The log is emptied last, because the step before
    it writes the whole database to the log.
    """
    began = time.monotonic()
    before = inspection.bytes_on_disk(writer.directory)
    space = catalog.active_space(writer.connection)
    written = 0

    def merge() -> None:
        nonlocal written
        written = segments.compact(writer, space, KINDS, limits)

    pending.remove_all(writer.directory)
    # VACUUM follows the steps that delete rows, whose bytes it removes from the file.
    steps: dict[str, Callable[[], object]] = {
        "segments": merge,
        "fields": lambda: remove_unused_fields(writer),
        "history": lambda: writer.fold_commits(KEPT_COMMITS),
        "database": writer.vacuum,
        "log": lambda: writer.checkpoint(timeout_s),
    }
    for done, (name, step) in enumerate(steps.items()):
        if progress is not None:
            progress(Progress("compact", done, len(steps), "steps", item=name))
        if done:
            give_way()
        step()
    if progress is not None:
        progress(Progress("compact", len(steps), len(steps), "steps"))
    return CompactReport(
        bytes_before=before,
        bytes_after=inspection.bytes_on_disk(writer.directory),
        segments_written=written,
        seconds=time.monotonic() - began,
    )


def repair(
    directory: Path,
    encoders: EncoderSource,
    *,
    accept_loss: bool,
    limits: Limits,
    lock_timeout_s: float,
    progress: ProgressCallback | None,
) -> RepairReport:
    """Repair the files, chunk and encode documents that lost their chunks, and verify.

    An error, such as one of the model, carries the report of what was repaired until then as
    `repair_report`. Documents left without chunks are encoded by the next repair.
    """
    log = RepairLog()
    try:
        storage_repair.repair(
            directory,
            log,
            kinds=KINDS,
            accept_loss=accept_loss,
            lock_timeout_s=lock_timeout_s,
        )
        _fill(directory, encoders, log, limits, lock_timeout_s, progress)
    except BaseException as exc:
        if log:
            verified = None
            # After an interrupt there is no time for a verification. If the verification fails
            # itself, its error must not replace the first one.
            if isinstance(exc, RetrieverError):
                with suppress(Exception):
                    verified = integrity.verify(directory, kinds=KINDS)
            exc.repair_report = log.report(verified, finished=False)  # type: ignore[attr-defined]
        raise
    return log.report(integrity.verify(directory, kinds=KINDS))


def _fill(
    directory: Path,
    encoders: EncoderSource,
    log: RepairLog,
    limits: Limits,
    lock_timeout_s: float,
    progress: ProgressCallback | None,
) -> None:
    """Chunk and encode the documents that have lost their chunks."""
    writer = Writer.open(directory, timeout_s=lock_timeout_s)
    try:
        space = catalog.active_space(writer.connection)
        if not space.has_encoder:  # nothing to encode with; lost embeddings are in the report
            segments.maintain(writer, space, KINDS, limits)
            return
        encoders.check_identity(space)
        done = IngestTally()
        fill(
            writer,
            space,
            encoders,
            done,
            donors=[],
            stage="repair",
            progress=progress,
            limits=limits,
        )
        segments.maintain(writer, space, KINDS, limits)
    finally:
        writer.close()
    if done.replaced:
        log.actions.append(
            f"chunked {done.replaced} documents again; {done.encoded} chunks were encoded"
        )


def warn_of_quarantine(directory: Path) -> None:
    """Warn if files in quarantine may still hold purged documents."""
    aside = directory / layout.QUARANTINE
    names = sorted(path.name for path in aside.glob("*"))
    if names:
        _log.warning(
            "%s may still hold purged documents: %s. Delete it if you do not need it.",
            aside,
            ", ".join(names),
        )

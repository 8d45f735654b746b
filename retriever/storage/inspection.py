"""The status of an index: counts, sizes, model, token ledger and problems."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from retriever import names
from retriever.reports import (
    FileCounts,
    IndexStatus,
    LockHolder,
    Loss,
    SegmentInfo,
    TokenCounts,
)
from retriever.storage import catalog, layout, records, series
from retriever.storage.locking import read_holder
from retriever.types import UNFAMILIAR_SHARE, FileOutcome, Unfamiliar


def status(directory: Path, connection: sqlite3.Connection, *, base: Path) -> IndexStatus:
    """Return the status of an index, inside a read transaction.

    Args:
        directory: The index.
        connection: Inside a read transaction.
        base: The folder that names of files are relative to, where it is now.
    """
    key = catalog.key(connection)
    space = catalog.active_space(connection)
    found = sorted(catalog.all_segments(connection), key=lambda s: (s.kind, s.first_id))
    found = [s for s in found if s.chunking_id == space.chunking.id]
    chunking_id = space.chunking.id
    ledger = catalog.ledger_total(connection, chunking_id)
    building = catalog.building_space(connection)
    files, problems, deleted = _files(connection)
    tail = catalog.count_between(
        connection,
        space,
        series.covered([s for s in found if s.space_id == space.id]),
        (1 << 63) - 1,
    )
    return IndexStatus(
        path=directory,
        base=base,
        format=layout.FORMAT,
        seq=key.seq,
        documents=catalog.count(connection, "documents"),
        chunks=_chunks(connection, chunking_id),
        empty_documents=_empty_documents(connection, chunking_id),
        unchunked_documents=_unchunked(connection, chunking_id),
        files=files,
        problem_files=tuple(problems),
        deleted_files=tuple(deleted),
        model=space.identity,
        precisions=dict(space.precisions),
        chunking=space.chunking.options,
        tokens=TokenCounts(
            corpus=ledger.tokens,
            encoded=ledger.encoded,
            truncated=ledger.truncated,
            unknown=ledger.unknown,
        ),
        unfamiliar=tuple(
            Unfamiliar(document_id, round(share, 4))
            for document_id, share in catalog.unfamiliar(connection, chunking_id, UNFAMILIAR_SHARE)
        ),
        segments=tuple(
            SegmentInfo(s.files[0].name, s.rows, sum(f.size for f in s.files), s.kind)
            for s in found
        ),
        tail_rows=tail,
        bytes_on_disk=bytes_on_disk(directory),
        losses=tuple(Loss(loss["at"], loss["detail"]) for loss in catalog.losses(connection)),
        locked_by=_locked_by(directory),
        building=None if building is None else building.identity.get("name"),
    )


def _files(
    connection: sqlite3.Connection,
) -> tuple[FileCounts, list[FileOutcome], list[str]]:
    """Return the number of files by state, the files left out, and the names of deleted ones."""
    states = dict.fromkeys(records.FILE_STATES, 0)
    problems = []
    deleted = []
    for row in catalog.file_rows(connection):
        states[row.state] += 1
        if row.state == "deleted":
            deleted.append(names.of_path(row.path))
        elif row.state != "indexed":
            path = names.of_path(row.path)
            problems.append(FileOutcome(path, row.state, row.reason or ""))
    return FileCounts(**states), problems, deleted


def _locked_by(directory: Path) -> LockHolder | None:
    said = read_holder(directory)
    return None if said is None else LockHolder(**said)


def _empty_documents(connection: sqlite3.Connection, chunking_id: int) -> int:
    number: int = connection.execute(
        "SELECT count(*) FROM documents d JOIN ledgers l ON l.document_pk = d.pk"
        " WHERE l.chunking_id = ? AND NOT EXISTS"
        " (SELECT 1 FROM chunks c WHERE c.document_pk = d.pk AND c.chunking_id = l.chunking_id)",
        (chunking_id,),
    ).fetchone()[0]
    return number


def _unchunked(connection: sqlite3.Connection, chunking_id: int) -> int:
    """Return the number of documents that a repair could not encode; searches do not find them."""
    number: int = connection.execute(
        "SELECT count(*) FROM documents d WHERE NOT EXISTS"
        " (SELECT 1 FROM ledgers l WHERE l.document_pk = d.pk AND l.chunking_id = ?)",
        (chunking_id,),
    ).fetchone()[0]
    return number


def _chunks(connection: sqlite3.Connection, chunking_id: int) -> int:
    # There is usually one chunking, and counting all rows is far faster than filtering them.
    if catalog.count(connection, "chunkings") == 1:
        return catalog.count(connection, "chunks")
    number: int = connection.execute(
        "SELECT count(*) FROM chunks WHERE chunking_id = ?", (chunking_id,)
    ).fetchone()[0]
    return number


def bytes_on_disk(directory: Path) -> int:
    """Return the size in bytes of an index's own files, without `quarantine/`."""
    total = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # a writer renames and removes files meanwhile
                if entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
    return total

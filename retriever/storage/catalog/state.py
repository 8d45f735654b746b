"""The state of an index at a commit: history, settings, chunkings, spaces and segments."""

from __future__ import annotations

import itertools
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from retriever.storage.records import (
    LOSSES,
    MAX_ID,
    PRECISIONS,
    Commit,
    Key,
    Segment,
    Space,
    StoredChunking,
)
from retriever.storage.rows import (
    chunking_of_row,
    losses_of,
    precisions_of,
    segment_of_row,
    space_of_row,
)
from retriever.storage.table import Table, damaged
from retriever.storage.tables import CHUNKINGS, SEGMENTS, SETTINGS, SPACES, TOMBSTONES

if TYPE_CHECKING:
    from numpy.typing import NDArray


def key(connection: sqlite3.Connection) -> Key:
    """Return the key of the current view; a view stays valid while its key does not change."""
    # Ids are never used twice, so every new segment changes the largest id.
    row = connection.execute(
        "SELECT (SELECT max(seq) FROM commits), (SELECT coalesce(max(id), 0) FROM segments),"
        " (SELECT id FROM spaces WHERE kind = 'dense' AND state = 'active'),"
        " (SELECT chain FROM commits ORDER BY seq DESC LIMIT 1)"
    ).fetchone()
    if row[0] is None or row[2] is None:
        raise damaged("commits" if row[0] is None else "spaces", "(none)")
    return Key(*row)


def follows(connection: sqlite3.Connection, old: Key, key: Key) -> bool:
    """Return whether a key is of an earlier commit of the same history and space as the present.

    Args:
        connection: Inside a read transaction.
        old: A key from before.
        key: The key of the transaction.
    """
    # A transaction may have begun before the commit that the old key is of: it must not be given
    # rows of that commit.
    if old.space_id != key.space_id or old.seq > key.seq:
        return False
    # An older copy of the index may have taken its place, and reached the same number by other
    # commits: the chain differs.
    return chain_at(connection, old.seq) == old.chain


def last_commit(connection: sqlite3.Connection) -> Commit:
    """Return the newest commit."""
    row = connection.execute(
        "SELECT seq, live_sum, chain FROM commits ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    if row is None:
        raise damaged("commits", "(none)")
    if not (_is_id(row[0]) and all(type(link) is bytes and len(link) == 32 for link in row[1:])):
        raise damaged("commits", row[0])
    return Commit(*row)


def _is_id(value: object) -> bool:
    return type(value) is int and 0 <= value < MAX_ID


def chain_at(connection: sqlite3.Connection, seq: int) -> bytes | None:
    """Return the chain at a commit, or None when the database does not hold that commit."""
    row = connection.execute("SELECT chain FROM commits WHERE seq = ?", (seq,)).fetchone()
    return row[0] if row else None


def count(connection: sqlite3.Connection, table: str) -> int:
    """Return the number of rows of a table."""
    number: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return number


def setting(connection: sqlite3.Connection, name: str) -> str | None:
    """Return one setting's value."""
    row = connection.execute(
        f"SELECT {SETTINGS.listed()} FROM settings WHERE key = ?", (name,)
    ).fetchone()
    return str(SETTINGS.checked(row)[1]) if row else None


def losses(connection: sqlite3.Connection) -> list[dict[str, str]]:
    """Return all losses ever recorded, each with `at` and `detail`."""
    return losses_of(setting(connection, LOSSES))


def precisions(connection: sqlite3.Connection) -> dict[str, dict[str, float]]:
    """Return, by space id, the precisions that vectors were computed in; see `Space`."""
    return precisions_of(setting(connection, PRECISIONS))


def chunkings(connection: sqlite3.Connection) -> list[StoredChunking]:
    """Return every chunking, oldest first; no two are in the same state."""
    found = connection.execute(f"SELECT {CHUNKINGS.listed()} FROM chunkings ORDER BY id")
    known = [chunking_of_row(CHUNKINGS.checked(row)) for row in found]
    if len({chunking.state for chunking in known}) < len(known):
        raise damaged("chunkings", known[-1].id)
    return known


def spaces(connection: sqlite3.Connection) -> list[Space]:
    """Return every space, oldest first; no two of a kind are in the same state.

    All active spaces belong to the active chunking, so that searches in several spaces find the
    same chunks.
    """
    by_id = {chunking.id: chunking for chunking in chunkings(connection)}
    computed = precisions(connection)
    known = []
    for row in connection.execute(f"SELECT {SPACES.listed()} FROM spaces ORDER BY id").fetchall():
        values = SPACES.checked(row)
        if values[1] not in by_id:
            raise damaged("spaces", values[0])
        space = space_of_row(values, by_id[values[1]])
        if space.state == "active" != space.chunking.state:
            raise damaged("spaces", space.id)
        known.append(replace(space, precisions=computed.get(str(space.id), {})))
    if len({(space.format.kind, space.state) for space in known}) < len(known):
        raise damaged("spaces", known[-1].id)
    return known


def active_space(connection: sqlite3.Connection, kind: str = "dense") -> Space:
    """Return the active space of a kind, which searches use."""
    for space in spaces(connection):
        if (space.format.kind, space.state) == (kind, "active"):
            return space
    raise damaged("spaces", "(active)")


def building_space(connection: sqlite3.Connection) -> Space | None:
    """Return the space of an unfinished rebuild, or None."""
    return next((space for space in spaces(connection) if space.state == "building"), None)


def segments(
    connection: sqlite3.Connection, kind: str, chunking_id: int, space_id: int | None
) -> list[Segment]:
    """Return the segments of one kind in ascending order of chunk id; no two of them overlap.

    Args:
        connection: Inside a read transaction, or the writer's.
        kind: The name of the kind.
        chunking_id: The chunking whose chunks they cover.
        space_id: The space whose vectors they hold; None for a kind that is built from texts.
    """
    found = connection.execute(
        f"SELECT {SEGMENTS.listed()} FROM segments"
        " WHERE chunking_id = ? AND kind = ? AND space_id IS ? ORDER BY first_id",
        (chunking_id, kind, space_id),
    )
    known = [segment_of_row(SEGMENTS.checked(row)) for row in found]
    for one, following in itertools.pairwise(known):
        if following.first_id <= one.last_id:
            raise damaged("segments", following.id)
    return known


def all_segments(connection: sqlite3.Connection) -> list[Segment]:
    """Return every segment of every kind."""
    found = connection.execute(f"SELECT {SEGMENTS.listed()} FROM segments ORDER BY id")
    return [segment_of_row(SEGMENTS.checked(row)) for row in found]


def last_covered(connection: sqlite3.Connection, chunking_id: int) -> int:
    """Return the last chunk id that any segment of a chunking covers.

    A chunk up to this id may be in a segment, and needs a tombstone when it is deleted.
    """
    of_chunking = (s for s in all_segments(connection) if s.chunking_id == chunking_id)
    return max((segment.last_id for segment in of_chunking), default=0)


def tombstones(connection: sqlite3.Connection, after_seq: int) -> NDArray[np.int64]:
    """Return the ids of chunks deleted after a commit that segments may still hold, int64."""
    found = connection.execute(
        f"SELECT {TOMBSTONES.listed()} FROM tombstones WHERE seq > ?", (after_seq,)
    )
    return np.array([TOMBSTONES.checked(row)[0] for row in found], dtype=np.int64)


def next_id(connection: sqlite3.Connection, table: Table) -> int:
    """Return an id that `table` has never used, not even for a row that was deleted."""
    # The counter has no checksum. If it is damaged, it must not lead to an id that is in use.
    used = connection.execute(
        f"SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = '{table.name}'), 0),"
        f" coalesce((SELECT max({table.integer_key}) FROM {table.name}), 0)"
    ).fetchone()
    if not all(type(number) is int and 0 <= number < MAX_ID for number in used):
        raise damaged("sqlite_sequence", table.name)
    return int(max(used)) + 1

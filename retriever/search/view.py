"""A view: what one search sees. Immutable; a new commit makes a new view from the old one.

Nothing visible to a search is ever changed, so searches in other threads need no lock.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retriever.errors import StorageError
from retriever.search.allowed import AllowedRows, Mask
from retriever.search.background import Background
from retriever.search.chunk_documents import KnownDocuments
from retriever.search.flat_segment import FLAT
from retriever.search.stale import StaleView
from retriever.search.vectors import MemoryRows, Rows
from retriever.storage import catalog, segments, series
from retriever.storage.records import Key, Segment, Space
from retriever.storage.series import Series

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retriever.search.lexical_view import LexicalView, LexicalViews
    from retriever.search.postings import Postings
    from retriever.search.vectors import Ids

_FILTERS_KEPT = 8
_log = logging.getLogger("retriever")


@dataclass(frozen=True, slots=True)
class View:
    """Everything searchable at one commit.

    Attributes:
        key: What the view depends on.
        space: The space it is a view of.
        segments: What the blocks were read from.
        blocks: Segments by id, in ascending order of chunk id.
        tail: Rows that no segment covers yet.
        live: The rows that were not deleted: what a search without a filter may find.
        covered: The last chunk id that segments cover.
        background: A sample of its rows.
        chunk_documents: The documents of its chunks, read when a filter first needs them.
    """

    key: Key
    space: Space
    segments: tuple[Segment, ...]
    blocks: dict[int, Rows]
    tail: MemoryRows
    live: AllowedRows
    covered: int
    background: Background
    chunk_documents: KnownDocuments
    _lexicals: Callable[[], LexicalViews] = field(compare=False, repr=False)
    _opened: list[LexicalView] = field(init=False, compare=False, default_factory=list)
    _filtered: dict[Hashable, AllowedRows] = field(init=False, compare=False, default_factory=dict)

    @property
    def parts(self) -> list[Rows]:
        """Return the segments and the tail."""
        return [*self.blocks.values(), self.tail]

    @property
    def is_exact(self) -> bool:
        """Return whether a search of all parts finds the best rows for certain."""
        return all(part.exact for part in self.parts)

    def allowed(self, filter_key: Hashable, chunk_ids: Callable[[], Ids]) -> AllowedRows:
        """Return the live rows of some chunks; the last few answers are kept with the view.

        Args:
            filter_key: What the chunks are found by. A view is of one commit, so equal keys mean
                equal chunks.
            chunk_ids: Returns the chunks, int64, in any order; called if they are not known.
        """
        found = self._filtered.get(filter_key)
        if found is None:
            found = self.live.only(chunk_ids())
            # Searches in other threads may do the same at once: either one may stay.
            while len(self._filtered) >= _FILTERS_KEPT:
                self._filtered.pop(next(iter(self._filtered), None), None)
            self._filtered[filter_key] = found
        return found

    def lexical(self, connection: sqlite3.Connection) -> LexicalView:
        """Return the postings of the rows of this view, opened if this is the first use of them.

        Args:
            connection: Inside the read transaction that the view is of.

        Raises:
            StaleView: A merge has replaced a segment since, or one was found wrong.
            IndexCorrupt: A text that no segment covers is damaged.
        """
        if not self._opened or self._opened[-1].condemned:
            self._opened[:] = [self._lexicals().at(connection, self.key, self.space)]
        return self._opened[-1]

    def condemn_lexical(self, lexical: LexicalView, part: Postings) -> None:
        """Stop using the lexical segment that a part of a lexical view was read from."""
        self._lexicals().condemn(lexical, part)

    @property
    def plan(self) -> str:
        """Return what an exact search of this view does, for people."""
        return f"exact: {len(self.blocks)} segments, {len(self.tail.ids)} tail rows"


class Views:
    """The newest view of an index, brought up to date at each search.

    Thread-safe: refreshing is serialised, using a view is not.

    Args:
        directory: The index.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._view: View | None = None
        self._lock = threading.Lock()
        self.condemned: set[int] = set()
        self._lexical_views: LexicalViews | None = None

    def _lexicals(self) -> LexicalViews:
        """Return what opens postings, which a search by vectors alone never imports."""
        if self._lexical_views is None:
            from retriever.search.lexical_view import LexicalViews

            with self._lock:
                self._lexical_views = self._lexical_views or LexicalViews(
                    self._directory, self.condemned
                )
        return self._lexical_views

    @property
    def newest(self) -> View | None:
        """Return the view of the last search, which commits may have outdated since."""
        return self._view

    def at(self, connection: sqlite3.Connection, *, patient: bool = True) -> View:
        """Return the view for a connection's read transaction.

        Args:
            connection: Inside a read transaction.
            patient: Whether a missing segment file means `StaleView`; otherwise, and for a
                damaged one, the catalog's rows stand in.

        Raises:
            StaleView: See `patient`.
        """
        key = catalog.key(connection)
        view = self._view
        if view is not None and view.key == key:
            return view
        with self._lock:
            view = self._view
            if view is not None and view.key == key:
                return view
            fresh = self._refresh(connection, key, view, patient=patient)
            self._view = fresh
            return fresh

    def condemn(self, view: View, chunk_id: int) -> bool:
        """Stop using the segment that holds a chunk; return whether there was one."""
        for segment_id, block in view.blocks.items():
            # Rows in memory were read from the catalog, and there is nothing else to turn to.
            is_file = not isinstance(block, MemoryRows)
            if is_file and block.ids[0] <= chunk_id <= block.ids[-1]:
                _log.warning("segment %d disagrees with the catalog; using rows", segment_id)
                with self._lock:
                    # The view is dropped too, or the next refresh would take over its open segment.
                    self.condemned.add(segment_id)
                    self._view = None
                return True
        return False

    def forget(self) -> None:
        """Drop the view, and with it the files it maps."""
        with self._lock:
            self._view = None
        if self._lexical_views is not None:
            self._lexical_views.forget()

    def forget_index(self) -> None:
        """Drop all that is known: another index has taken the place of the one it is of."""
        with self._lock:
            self._view = None
            self.condemned.clear()
        if self._lexical_views is not None:
            self._lexical_views.forget()

    def _refresh(
        self, connection: sqlite3.Connection, key: Key, old: View | None, *, patient: bool
    ) -> View:
        same = old is not None and catalog.follows(connection, old.key, key)
        space = old.space if same and old else catalog.active_space(connection)
        found = Series(FLAT, space).segments(connection)
        known_files = {one.id: one.files for one in old.segments} if same and old else {}
        usable = {
            one.id: old.blocks[one.id]
            for one in found
            if old is not None and known_files.get(one.id) == one.files
        }
        if patient and any(s.id not in usable and self._is_missing(s) for s in found):
            raise StaleView
        blocks = {s.id: usable.get(s.id) or self._load(connection, space, s) for s in found}
        known = same and old is not None and all(s.id in usable for s in found)
        # Blocks of the old view have their deleted rows masked already; newer ones are added.
        dead = catalog.tombstones(connection, old.key.seq if known and old else -1)
        masks: dict[int, Mask | None] = {}
        if old is not None:
            # There is one mask more, that of the tail.
            masks = dict(zip(old.blocks, old.live.masks, strict=False))
        covered = series.covered(found)
        tail = self._tail(connection, space, covered, old.tail if same and old else None)
        # The tail needs no mask: its rows are read from the catalog, which has only live ones.
        live = AllowedRows(
            [*(block.ids for block in blocks.values()), tail.ids],
            [*(masks.get(number) if number in usable else None for number in blocks), None],
        )
        if len(dead):
            live = live.without(dead)
        background = Background(old.background if same and old else None)
        documents = KnownDocuments(old.chunk_documents if same and old else None)
        return View(
            key,
            space,
            tuple(found),
            blocks,
            tail,
            live,
            covered,
            background,
            documents,
            self._lexicals,
        )

    def _is_missing(self, segment: Segment) -> bool:
        return any(not (self._directory / file.name).exists() for file in segment.files)

    def _load(self, connection: sqlite3.Connection, space: Space, segment: Segment) -> Rows:
        try:
            if segment.id not in self.condemned and segments.is_intact(self._directory, segment):
                paths = [self._directory / file.name for file in segment.files]
                return FLAT.open(paths, space, segment)
        except StorageError as exc:
            _log.warning("%s Searching the catalog's rows instead.", exc.message)
        else:
            _log.warning(
                "segment %s is missing or damaged; searching the catalog's rows instead",
                segment.files[0].name,
            )
        return _read_rows(connection, space, segment.first_id - 1, segment.last_id)

    def _tail(
        self, connection: sqlite3.Connection, space: Space, covered: int, old: MemoryRows | None
    ) -> MemoryRows:
        """Read the rows after `covered`, taking over those the old tail already holds."""
        last = np.iinfo(np.int64).max
        if old is None or not len(old.ids):
            return _read_rows(connection, space, covered, last)
        ids = catalog.ids_between(connection, space, covered, last)
        kept = np.isin(old.ids, ids, assume_unique=True)
        newest = int(old.ids[-1])
        # Chunk ids are never used twice, so rows that were added since come after the newest one.
        fresh = _read_rows(connection, space, max(covered, newest), last)
        # They do not add up where a segment was dropped: rows before the old tail belong to it now.
        if kept.sum() + len(fresh.ids) != len(ids):
            return _read_rows(connection, space, covered, last)
        if not len(fresh.ids) and kept.all():
            return old
        return MemoryRows(
            np.concatenate([old.ids[kept], fresh.ids]),
            np.concatenate([old.vectors[kept], fresh.vectors]),
        )


def _read_rows(connection: sqlite3.Connection, space: Space, after: int, upto: int) -> MemoryRows:
    ids: list[NDArray[np.int64]] = []
    vectors: list[NDArray[np.float32]] = []
    for block_ids, block in catalog.vector_blocks(connection, space, after, upto):
        ids.append(block_ids)
        vectors.append(block)
    if not ids:
        return MemoryRows(np.empty(0, np.int64), np.empty((0, space.dimension), np.float32))
    return MemoryRows(np.concatenate(ids), np.concatenate(vectors))

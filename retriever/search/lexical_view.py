"""What a lexical search sees of a view: postings of segments and of the rows after them.

It is opened by the first lexical search of a view and carried over to later views, as far as it
stays the same. A view that is only searched by vectors never opens it.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retriever.errors import StorageError
from retriever.search.allowed import AllowedRows, Mask, rows_of_mask
from retriever.search.inversion import inverted, merged
from retriever.search.lexical_segment import LEXICAL
from retriever.search.postings import Analysis, Postings
from retriever.search.projection import Projection
from retriever.search.stale import StaleView
from retriever.storage import catalog, segments, series
from retriever.storage.records import Key, Segment, Space
from retriever.storage.series import Series

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retriever.search.view import View

_SLOW_S = 1.0  # texts that take longer than this to be cut into terms are warned of
_LAST = int(np.iinfo(np.int64).max)
_log = logging.getLogger("retriever")


@dataclass(eq=False)
class LexicalView:
    """The postings of everything searchable at one commit.

    Attributes:
        key: The key of the view that it belongs to.
        segments: What the blocks were read from.
        blocks: Postings by segment, in ascending order of chunk id.
        tail: Those of rows that no segment covers yet.
        live: The rows that were not deleted, over the parts here.
        condemned: Whether a part was found wrong, so that it must be opened again.
    """

    key: Key
    segments: tuple[Segment, ...]
    blocks: dict[int, Postings]
    tail: Postings
    live: AllowedRows
    condemned: bool = False
    _projected: tuple[AllowedRows, Projection] | None = field(init=False, default=None)
    _norms: dict[tuple[float, float], list[NDArray[np.float64]]] = field(
        init=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        self.parts = [*self.blocks.values(), self.tail]
        lengths = [
            int(rows_of_mask(part.lengths, mask).sum(dtype=np.int64))
            for part, mask in zip(self.parts, self.live.masks, strict=True)
        ]
        self.mean_length = sum(lengths) / max(self.live.count, 1)
        self.languages = self._languages()

    def _languages(self) -> frozenset[str | None]:
        """Return the languages of live rows, as analysed."""
        found: set[str | None] = set()
        for part, mask in zip(self.parts, self.live.masks, strict=True):
            counts = np.bincount(rows_of_mask(part.row_languages, mask))
            for code in np.flatnonzero(counts).tolist():
                if code >= len(part.languages):
                    raise part.corrupt("a language of its rows")
                found.add(part.languages[code] or None)
        return frozenset(found)

    def masks(self, view: View, allowed: AllowedRows) -> Sequence[Mask | None]:
        """Return which rows of each part are allowed, given the allowed rows of the view.

        The answer is kept with `allowed`, which is never changed.
        """
        if allowed is view.live:
            return self.live.masks
        # Where a segment was found wrong, one side is opened again, with other parts: both answers
        # that are kept say what they are of.
        kept = allowed.beside
        if kept is None or kept[0] is not self:
            kept = allowed.beside = self, self._projection_of(view).masks(allowed.masks)
        return kept[1]

    def _projection_of(self, view: View) -> Projection:
        kept = self._projected
        if kept is None or kept[0] is not view.live:
            parts = [part.ids for part in view.parts]
            kept = self._projected = (
                view.live,
                Projection(parts, [part.ids for part in self.parts]),
            )
        return kept[1]

    def norms(self, k1: float, b: float) -> list[NDArray[np.float64]]:
        """Return what BM25 adds to the frequency of a term in its denominator, for each row."""
        found = self._norms.get((k1, b))
        if found is None:
            mean = self.mean_length or 1.0
            found = [k1 * (1 - b + b * (part.lengths / mean)) for part in self.parts]
            if len(self._norms) >= 4:
                self._norms.clear()
            self._norms[k1, b] = found
        return found


class LexicalViews:
    """The newest lexical view of an index. Thread-safe, as `Views`.

    Args:
        directory: The index.
        condemned: Segments that are not used because they were found wrong; shared with `Views`.
    """

    def __init__(self, directory: Path, condemned: set[int]) -> None:
        self._directory = directory
        self._condemned = condemned
        self._newest: LexicalView | None = None
        self._missing: set[int] = set()
        self._lock = threading.Lock()

    def at(self, connection: sqlite3.Connection, key: Key, space: Space) -> LexicalView:
        """Return the lexical view of a view, inside the read transaction that it is of.

        Raises:
            StaleView: A file is gone: a merge has replaced it since. Begin a new view.
        """
        found = self._newest
        if found is None or found.key != key or found.condemned:
            with self._lock:
                found = self._newest
                if found is None or found.key != key or found.condemned:
                    found = self._refresh(connection, key, space, found)
                    self._newest = found
        return found

    def condemn(self, lexical: LexicalView, part: Postings) -> None:
        """Stop using the segment that a part was read from."""
        for segment_id, block in lexical.blocks.items():
            if block is part:
                _log.warning("segment %d is damaged; using the texts instead", segment_id)
                with self._lock:
                    self._condemned.add(segment_id)
                    lexical.condemned = True

    def forget(self) -> None:
        """Drop what is known, and with it the files it maps."""
        with self._lock:
            self._newest = None
            self._missing.clear()

    def _refresh(
        self, connection: sqlite3.Connection, key: Key, space: Space, old: LexicalView | None
    ) -> LexicalView:
        if old is not None and not catalog.follows(connection, old.key, key):
            old = None
        found = Series(LEXICAL, space).segments(connection)
        known_files = {one.id: one.files for one in old.segments} if old else {}
        usable = {
            one.id: old.blocks[one.id]
            for one in found
            if old is not None
            and known_files.get(one.id) == one.files
            and one.id not in self._condemned
        }
        self._require_files([one for one in found if one.id not in usable])
        began_at = time.monotonic()
        blocks = {one.id: usable.get(one.id) or self._load(connection, space, one) for one in found}
        covered = series.covered(found)
        tail = self._tail(connection, space, covered, old.tail if old else None)
        if (took := time.monotonic() - began_at) > _SLOW_S:
            _log.warning(
                "the texts of this index took %.1f s to be read for words, because their lexical "
                "segments are missing; the next write builds them",
                took,
            )
        known = old is not None and all(one.id in usable for one in found)
        dead = catalog.tombstones(connection, old.key.seq if known and old else -1)
        masks: dict[int, Mask | None] = {}
        if old is not None:
            masks = dict(zip(old.blocks, old.live.masks, strict=False))
        live = AllowedRows(
            [*(block.ids for block in blocks.values()), tail.ids],
            [*(masks.get(number) if number in usable else None for number in blocks), None],
        )
        if len(dead):
            live = live.without(dead)
        return LexicalView(key, tuple(found), blocks, tail, live)

    def _require_files(self, needed: Sequence[Segment]) -> None:
        """Raise StaleView if a file is missing, but not for the same segment again."""
        # Inside its transaction a search still sees a segment that a merge has replaced since. Seen
        # by a newer transaction, a file that is missing is really missing: the texts stand in.
        gone = {
            one.id
            for one in needed
            if any(not (self._directory / file.name).exists() for file in one.files)
        }
        if not gone <= self._missing:
            self._missing |= gone
            raise StaleView

    def _load(self, connection: sqlite3.Connection, space: Space, segment: Segment) -> Postings:
        name = segment.files[0].name
        try:
            is_sound = segment.id not in self._condemned
            if is_sound and segments.is_intact(self._directory, segment):
                paths = [self._directory / file.name for file in segment.files]
                opened = LEXICAL.open(paths, space, segment)
                if opened.analysis == Analysis.current():
                    return opened
                _log.warning("segment %s has the words of another version; using the texts", name)
            else:
                _log.warning("segment %s is missing or damaged; using the texts instead", name)
        except StorageError as exc:
            _log.warning("%s Using the texts instead.", exc.message)
        return _read(connection, space, segment.first_id - 1, segment.last_id)

    def _tail(
        self, connection: sqlite3.Connection, space: Space, covered: int, old: Postings | None
    ) -> Postings:
        """Read the rows after `covered`, taking over those the old tail already holds."""
        if old is None or not len(old):
            return _read(connection, space, covered, _LAST)
        ids = catalog.ids_between(connection, Series(LEXICAL, space), covered, _LAST)
        kept = np.isin(old.ids, ids, assume_unique=True)
        fresh = _read(connection, space, max(covered, int(old.ids[-1])), _LAST)
        # See `Views`: rows before the old tail belong to it now, where a segment was dropped.
        if kept.sum() + len(fresh) != len(ids):
            return _read(connection, space, covered, _LAST)
        if not len(fresh) and kept.all():
            return old
        return merged([(old, kept), (fresh, None)])


def _read(connection: sqlite3.Connection, space: Space, after: int, upto: int) -> Postings:
    return inverted(catalog.chunk_texts(connection, space.chunking.id, after, upto))

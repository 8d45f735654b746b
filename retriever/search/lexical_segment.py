"""Lexical segments: the terms of the chunks of a range, for BM25.

One file, `.terms`, of postings; see `postings.py`. It is made from texts, titles and headings.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retriever.errors import IndexCorrupt
from retriever.limits import Limits
from retriever.search import postings
from retriever.search.postings import Analysis, Postings
from retriever.storage import catalog
from retriever.storage.records import Segment, Space
from retriever.storage.series import Replaced, Series, WriteFile

if TYPE_CHECKING:
    from numpy.typing import NDArray


class LexicalKind:
    """See `SegmentKind` and `SegmentContent`."""

    name = "lexical"
    of_vectors = False

    def suits(self, space: Space) -> bool:
        """Return True: every chunk has a text."""
        return True

    def bytes_per_row(self, space: Space) -> int:
        """Return what a chunk of 128 tokens takes, and its share of the memory of building."""
        return 1_536

    def tail_rows(self, limits: Limits) -> int:
        """Return the texts that the first lexical search of a process cuts into terms."""
        return limits.tail_texts

    def is_current(self, paths: Sequence[Path]) -> bool:
        """Return whether the terms are those of the present analysis, in the present form."""
        try:
            return postings.read_analysis(paths[0]) == Analysis.current()
        except IndexCorrupt as exc:
            return isinstance(exc.__cause__, OSError)  # it cannot be read now: left as it is

    def build(
        self,
        connection: sqlite3.Connection,
        space: Space,
        span: tuple[int, int],
        n_rows: int,
        write: WriteFile,
        replaced: Replaced,
    ) -> None:
        """Merge the postings of old segments with those of the texts that none of them has."""
        from retriever.search.inversion import inverted, merged  # most processes only read

        built = merged(list(self._sources(connection, space, span, replaced)))
        if len(built) != n_rows:  # old segments lack rows that they should have
            built = inverted(catalog.chunk_texts(connection, space.chunking.id, *span))
        if len(built) != n_rows:
            raise IndexCorrupt(
                f"{len(built):,} texts are where {n_rows:,} chunks are counted.",
                path="the index",
                check="chunks",
                hint="Run `retriever verify` to see all damage, then `retriever repair`.",
            )
        write("terms", lambda sink: postings.write(built, sink))

    def _sources(
        self,
        connection: sqlite3.Connection,
        space: Space,
        span: tuple[int, int],
        replaced: Replaced,
    ) -> Iterator[tuple[Postings, NDArray[np.bool_]]]:
        """Yield postings of the range in ascending order, with which of their rows are live."""
        from retriever.search.inversion import inverted

        after, upto = span
        for segment, paths in replaced():
            if not self.is_current(paths):
                continue
            old = self.open(paths, space, segment)
            before = segment.first_id - 1
            texts = catalog.chunk_texts(connection, space.chunking.id, after, before)
            new = inverted(texts)
            yield new, np.ones(len(new), dtype=bool)
            after = segment.last_id
            live = catalog.ids_between(connection, Series(self, space), before, after)
            yield old, np.isin(old.ids, live, assume_unique=True)
        new = inverted(catalog.chunk_texts(connection, space.chunking.id, after, upto))
        yield new, np.ones(len(new), dtype=bool)

    def open(self, paths: Sequence[Path], space: Space, segment: Segment) -> Postings:
        """Map the file."""
        opened = _opened(paths)
        if len(opened) != segment.rows:
            raise opened.corrupt(f"{len(opened):,} rows where the catalog says {segment.rows:,}")
        return opened

    def verify(
        self,
        paths: Sequence[Path],
        connection: sqlite3.Connection,
        space: Space,
        segment: Segment,
        *,
        deep: bool,
    ) -> list[str]:
        """Check the order of everything and the ids; `deep`, that the texts give these terms."""
        opened = _opened(paths)
        name = paths[0].name
        if problems := opened.problems():
            return [f"{name}: {problem}" for problem in problems]
        span = (segment.first_id - 1, segment.last_id)
        chunking_id = space.chunking.id
        live = catalog.ids_between(connection, Series(self, space), *span)
        dead = catalog.tombstones(connection, -1)
        if len(opened) != segment.rows or not np.isin(live, opened.ids).all():
            return [f"{name}: live chunks are missing from it"]
        if not np.isin(np.setdiff1d(opened.ids, live), dead).all() or np.isin(live, dead).any():
            return [f"{name}: its deleted chunks are not those of the tombstones"]
        from retriever.search.inversion import inverted, merged

        # Another analysis is no damage: searches leave the segment out, and a writer replaces it.
        if deep and opened.analysis == Analysis.current():
            fresh = inverted(catalog.chunk_texts(connection, chunking_id, *span))
            if not _are_equal(merged([(opened, np.isin(opened.ids, live))]), fresh):
                return [f"{name}: its terms are not those of the texts"]
        return []


LEXICAL = LexicalKind()


def _opened(paths: Sequence[Path]) -> Postings:
    if [path.suffix for path in paths] != [".terms"]:
        raise IndexCorrupt(
            f"A lexical segment is of {', '.join(path.name for path in paths)}; it should be one "
            ".terms file.",
            path=str(paths[0].parent),
            check="segment",
        )
    return postings.read(paths[0])


def _are_equal(one: Postings, other: Postings) -> bool:
    return _digest(one) == _digest(other)


def _digest(given: Postings) -> bytes:
    """Return the SHA-256 of the file that postings would be."""
    digest = sha256()

    def sink(data: bytes | memoryview) -> int:
        digest.update(data)
        return len(data)

    postings.write(given, sink)
    return digest.digest()

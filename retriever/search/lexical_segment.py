"""Lexical segments: the terms of the chunks of a range, for BM25.

One file, `.terms`, of postings; see `postings.py`. It is made from texts, titles and headings.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from retriever.config import Limits
from retriever.errors import IndexCorrupt
from retriever.search import postings
from retriever.search.postings import Analysis, Postings
from retriever.storage import catalog
from retriever.storage.records import Segment, Space
from retriever.storage.series import Series, WriteFile


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

    def build(
        self,
        connection: sqlite3.Connection,
        space: Space,
        span: tuple[int, int],
        n_rows: int,
        write: WriteFile,
    ) -> None:
        """Cut the texts into terms and write their postings."""
        from retriever.search.inversion import inverted  # most processes only read

        built = inverted(catalog.chunk_texts(connection, space.chunking.id, *span))
        if len(built) != n_rows:
            raise IndexCorrupt(
                f"{len(built):,} texts are where {n_rows:,} chunks are counted.",
                path="the index",
                check="chunks",
                hint="Run `retriever verify` to see all damage, then `retriever repair`.",
            )
        write("terms", lambda sink: postings.write(built, sink))

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

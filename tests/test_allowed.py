"""Only allowed rows are found, and of those all that are wanted: beside brute force."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retriever import Document, Index, Limits, Results, SearchOptions
from retriever.canonical import unit_vector
from retriever.search import dense, vectors
from retriever.search.allowed import AllowedRows, Mask
from retriever.search.asking import Asked
from retriever.search.ranking import NOTHING
from retriever.search.vectors import FlatSegment, MemoryRows, exact_scores
from retriever.search.view import View
from retriever.storage import catalog
from retriever.testing import HashEncoder, unit_vectors

DIMENSION = 32
Allow = Callable[[sqlite3.Connection, View], AllowedRows]


@contextmanager
def viewed(index: Index) -> Iterator[tuple[View, sqlite3.Connection]]:
    with index._pool.transaction() as connection:
        yield index._views.at(connection), connection


def stored(index: Index) -> dict[int, np.ndarray]:
    """Return every vector of the catalog by chunk id."""
    with viewed(index) as (view, connection):
        ids = catalog.ids_between(connection, view.space, 0, 1 << 60)
        return catalog.fetch_vectors(connection, view.space, ids.tolist())


def brute_force(rows: dict[int, np.ndarray], query: np.ndarray, k: int) -> list[tuple[int, float]]:
    ids = sorted(rows)
    if not ids:
        return []
    scores = exact_scores(np.stack([rows[one] for one in ids]), query).tolist()
    return sorted(zip(ids, scores, strict=True), key=lambda row: (-row[1], row[0]))[:k]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """Several segments with deleted rows, and a tail; vectors of which some are copies."""
    limits = Limits(tail_rows=200, merge_segments=50)
    with Index.open(tmp_path / "x.index", model=HashEncoder(), limits=limits) as opened:
        for part in range(3):
            opened.add(documents(part, 300))
        opened.delete([f"{part}-{number:03}" for part in range(3) for number in range(0, 300, 9)])
        opened.add(documents(3, 120))
        status = opened.status()
        assert len(status.segments) > 1
        assert status.tail_rows
        yield opened


def documents(part: int, count: int) -> list[Document]:
    """Return documents of which a third are copies of four passages, some of two chunks."""
    random = np.random.default_rng(part)
    embeddings = unit_vectors(count, DIMENSION, part)
    copies = unit_vectors(4, DIMENSION, 99)
    made = []
    for number in range(count):
        copy = int(random.integers(0, 12))
        if copy < 4:
            given = Document(f"Copy {copy}.", id=f"{part}-{number:03}", embedding=copies[copy])
        elif copy == 4:
            words = " ".join(f"word{random.integers(0, 50)}" for _ in range(70))
            given = Document(words, id=f"{part}-{number:03}")
        else:
            given = Document(
                f"Text {part} {number}.", id=f"{part}-{number:03}", embedding=embeddings[number]
            )
        made.append(given)
    return made


def queries() -> np.ndarray:
    near_copies = unit_vectors(4, DIMENSION, 99) + 0.05 * unit_vectors(4, DIMENSION, 7)
    return np.stack(
        [unit_vector(q, DIMENSION) for q in (*near_copies, *unit_vectors(4, DIMENSION, 8))]
    )


def some(ids: list[int], share: float, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.permutation(np.array(ids)[random.random(len(ids)) < share])


@pytest.mark.parametrize("share", [0.003, 0.02, 0.1, 0.5, 0.97])
def test_random_allowed_rows_are_ranked_as_by_brute_force(index: Index, share: float):
    rows = stored(index)
    for seed in range(4):
        chosen = some(list(rows), share, seed)
        allowed_rows = {one: rows[one] for one in chosen.tolist()}
        with viewed(index) as (view, connection):
            allowed = view.live.only(chosen)
            assert allowed.count == len(chosen)
            for k in (1, 10, 400):
                together = dense.top_k(view, connection, queries(), k, allowed)
                for query, ranking in zip(queries(), together, strict=True):
                    expected = brute_force(allowed_rows, query, k)
                    assert list(zip(ranking.ids, ranking.scores, strict=True)) == expected
                    (alone,) = dense.top_k(view, connection, query[None], k, allowed)
                    assert alone == ranking


def test_no_row_and_every_row_allowed(index: Index):
    rows = stored(index)
    with viewed(index) as (view, connection):
        nothing = view.live.only(np.empty(0, np.int64))
        assert nothing.count == 0
        found = dense.top_k(view, connection, queries(), 10, nothing)
        assert found == [NOTHING] * len(queries())
        everything = view.live.only(np.array(sorted(rows)))
        assert everything.count == view.live.count == len(rows)
        for k in (5, 2_000):
            assert dense.top_k(view, connection, queries(), k, everything) == dense.top_k(
                view, connection, queries(), k
            )


def test_deleted_and_unknown_rows_are_not_found_though_they_are_allowed(index: Index):
    before = stored(index)
    gone = sorted(before)[:50]
    names = {index.search(vector=before[one], k=1, fold=False)[0].document_id for one in gone}
    index.delete(sorted(names))
    left = stored(index)
    assert len(left) < len(before)
    with viewed(index) as (view, connection):
        allowed = view.live.only(np.array([*gone, *sorted(left)[:30], 10**12]))
        expected = {one: left[one] for one in {*gone, *sorted(left)[:30]} & set(left)}
        assert allowed.count == len(expected)
        for query in queries():
            (ranking,) = dense.top_k(view, connection, query[None], 500, allowed)
            assert list(zip(ranking.ids, ranking.scores, strict=True)) == brute_force(
                expected, query, 500
            )


def only(chosen: np.ndarray) -> Allow:
    return lambda _, view: view.live.only(chosen)


def search(index: Index, query: np.ndarray, options: SearchOptions, chosen: np.ndarray) -> Results:
    (found,) = index._searcher.search([Asked(vector=query)], options, allow=only(chosen))
    return found


def expected_hits(
    index: Index, query: np.ndarray, options: SearchOptions, chosen: np.ndarray
) -> list[tuple[int, float, int]]:
    """Return chunk ids, scores and numbers of copies, from a full search without folding."""
    everything = index.search(vector=query, k=5_000, fold=False)
    wanted = set(chosen.tolist())
    hits: list[tuple[int, float, int]] = []
    texts: dict[Any, int] = {}
    documents: set[str] = set()
    for hit in everything:
        if hit.chunk_id not in wanted:
            continue
        is_copy = options.fold and hit.text in texts
        if is_copy:
            position = texts[hit.text]
            if position >= 0:
                chunk_id, score, copies = hits[position]
                hits[position] = (chunk_id, score, copies + 1)
            continue
        if options.group and hit.document_id in documents:
            continue
        texts[hit.text] = len(hits)
        documents.add(hit.document_id)
        hits.append((hit.chunk_id, hit.score, 0))
    return hits[: options.k]


@pytest.mark.parametrize(
    "options",
    [
        SearchOptions(k=8),
        SearchOptions(k=500),
        SearchOptions(k=12, fold=False),
        SearchOptions(k=12, group="document"),
        SearchOptions(k=300, group="document", fold=False),
    ],
)
@pytest.mark.parametrize("share", [0.05, 0.4])
def test_folding_and_grouping_see_the_allowed_rows_alone(
    index: Index, options: SearchOptions, share: float
):
    rows = list(stored(index))
    for seed in range(3):
        chosen = some(rows, share, seed)
        for query in queries():
            found = search(index, query, options, chosen)
            expected = expected_hits(index, query, options, chosen)
            assert [(h.chunk_id, h.score, h.duplicates) for h in found] == expected
            assert found.plan.endswith(f"{len(chosen)} of {len(rows)} rows allowed")
            assert found.exact


def test_copies_that_are_remembered_are_those_of_the_same_allowed_rows(tmp_path: Path):
    copy = unit_vectors(1, DIMENSION, 1)[0]
    with Index.open(tmp_path / "x.index", model=HashEncoder()) as index:
        index.add([Document("Notice.", id=f"{n:03}", embedding=copy) for n in range(300)])
        index.add(
            [Document(f"Pump {n}.", embedding=v) for n, v in enumerate(unit_vectors(20, 32, 2))]
        )
        ids = sorted(stored(index))
        cached: list[str] = []

        def allow_from(first: int) -> Allow:
            def chunk_ids() -> np.ndarray:
                cached.append(f"from {first}")
                return np.array(ids[first:])

            return lambda _, view: view.allowed(("from", first), chunk_ids)

        for _ in range(4):  # the copies are read, then masked, then known
            for first in (0, 10, 250):
                options = SearchOptions(k=3)
                (found,) = index._searcher.search(
                    [Asked(vector=copy)], options, allow=allow_from(first)
                )
                assert (found[0].document_id, found[0].duplicates) == (
                    f"{first:03}",
                    299 - first,
                )
                assert min(int(name) for name in found[0].also_in) == first + 1
            assert index.search(vector=copy, k=1)[0].duplicates == 299
        assert cached == ["from 0", "from 10", "from 250"]
        index.delete("299")
        index._searcher.search([Asked(vector=copy)], SearchOptions(), allow=allow_from(10))
        assert cached[3:] == ["from 10"]


def test_filters_kept_with_a_view_are_bounded(index: Index):
    with viewed(index) as (view, _):
        kept = [view.allowed(key, lambda: np.array([1, 2, 3])) for key in range(30)]
        assert view.allowed(29, lambda: np.empty(0, np.int64)) is kept[29]
        assert view.allowed(0, lambda: np.empty(0, np.int64)) is not kept[0]
        assert len(view._filtered) <= 8


@pytest.mark.parametrize("n_queries", [1, 5])
@pytest.mark.parametrize("count", [0, 1, 3, 40, 1_999, 2_000])
def test_a_segment_and_memory_rows_find_the_same_allowed_rows(
    tmp_path: Path, count: int, n_queries: int
):
    numbers = unit_vectors(2_000, DIMENSION, 5)
    ids = np.arange(10, 6_010, 3)
    with (tmp_path / "s.faiss").open("wb") as file:
        vectors.write_flat([numbers], DIMENSION, len(numbers), file.write)
    ids.astype("<i8").tofile(tmp_path / "s.ids")
    on_disk = FlatSegment.open(
        tmp_path / "s.faiss", tmp_path / "s.ids", dimension=DIMENSION, rows=len(numbers)
    )
    in_memory = MemoryRows(ids, numbers)
    flags = np.zeros(len(ids), bool)
    flags[np.random.default_rng(count).permutation(len(ids))[:count]] = True
    mask = Mask(flags)
    assert (mask.count, mask.positions.tolist()) == (count, np.flatnonzero(flags).tolist())
    asked = unit_vectors(n_queries, DIMENSION, 6)
    for rows in (on_disk, in_memory):
        found, scores = rows.search(asked, 50, mask)
        assert found.shape == scores.shape == (n_queries, min(50, count))
        for query, some_ids in zip(asked, found, strict=True):
            products = np.where(flags, numbers @ query, -np.inf)
            expected = ids[np.argsort(-products)[: min(50, count)]]
            assert set(some_ids.tolist()) == set(expected.tolist())
        near, _ = rows.near(asked[0], 0.1, mask)
        assert near.tolist() == ids[flags & (numbers @ asked[0] > 0.1)].tolist()


def test_allowed_rows_are_narrowed_without_changing():
    parts = [np.array([2, 4, 6]), np.array([7, 9])]
    all_rows = AllowedRows(parts, [None, None])
    less = all_rows.without(np.array([4, 9, 100]))
    assert (all_rows.count, less.count) == (5, 3)
    assert less.masks[0].flags.tolist() == [True, False, True]
    assert less.without(np.array([100])).masks[0] is less.masks[0]
    assert less.among(np.array([9, 7, 2, 4, 3])).tolist() == [7, 2]
    assert all_rows.among(np.array([100, 9, 1])).tolist() == [9]
    assert less.only(np.array([4, 6, 7])).count == 2

"""Equal and nearly equal vectors: the order is exact, and the cost grows with the hits alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retriever import Document, Index, Limits
from retriever.canonical import unit_vector
from retriever.search import dense, view
from retriever.storage import catalog
from retriever.testing import HashEncoder, exact_search, unit_vectors


def documents(vectors: np.ndarray, first: int = 0) -> list[Document]:
    return [
        Document(f"row {number}", id=f"{number:05}", embedding=vector)
        for number, vector in enumerate(vectors, first)
    ]


def found(index: Index, query: np.ndarray, k: int) -> list[tuple[str, float]]:
    return [(hit.document_id, hit.score) for hit in index.search(vector=query, k=k)]


def expected(rows: dict[str, np.ndarray], query: np.ndarray, k: int) -> list[tuple[str, float]]:
    names, vectors = list(rows), [unit_vector(vector, 32) for vector in rows.values()]
    best = exact_search(vectors, unit_vector(query, 32), k)
    return [(names[place], score) for place, score in best]


def nearly_equal(count: int, seed: int) -> np.ndarray:
    """Return copies of five vectors, a third of them moved by less than float32 can add up."""
    random = np.random.default_rng(seed)
    vectors = unit_vectors(5, 32, seed)[random.integers(0, 5, count)]
    moved = random.random(count) < 1 / 3
    vectors[moved] += random.standard_normal((moved.sum(), 32)).astype(np.float32) * 1e-6
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_ties_across_segments_and_tail_are_those_of_brute_force(tmp_path: Path):
    limits = Limits(tail_rows=300, merge_segments=50)
    rows: dict[str, np.ndarray] = {}
    with Index.open(tmp_path / "x.index", model=HashEncoder(), limits=limits) as index:
        for part in range(3):
            given = documents(nearly_equal(400, part // 2), first=400 * part)
            index.add(given)
            rows |= {document.id or "": document.embedding for document in given}
        gone = [f"{number:05}" for number in range(0, 1200, 7)]
        index.delete(gone)
        index.add(documents(nearly_equal(100, 0), first=2000))
        rows |= {d.id or "": d.embedding for d in documents(nearly_equal(100, 0), first=2000)}
        for name in gone:
            del rows[name]
        assert len(index.status().segments) > 1
        assert index.status().tail_rows
    queries = np.concatenate([nearly_equal(3, 0), unit_vectors(22, 32, 9)])
    with Index.open(tmp_path / "x.index", read_only=True) as index:
        for k in (1, 10, 150):
            for query in queries:
                assert found(index, query, k) == expected(rows, query, k)
        many = index.search_many(vectors=queries, k=25)
        for query, results in zip(queries, many, strict=True):
            assert [(h.document_id, h.score) for h in results] == expected(rows, query, 25)


def test_a_question_asks_the_catalog_for_its_hits_and_not_for_every_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    limits = Limits(tail_rows=1000)
    tie = np.eye(32, dtype=np.float32)[0]
    asked: list[int] = []
    fetch = catalog.fetch_vectors

    def counting(connection, space, ids):
        asked.append(len(ids))
        return fetch(connection, space, ids)

    with Index.open(tmp_path / "x.index", model=HashEncoder(), limits=limits) as index:
        index.add(documents(np.tile(tie, (3000, 1))))
        monkeypatch.setattr(catalog, "fetch_vectors", counting)
        assert [name for name, _ in found(index, tie, 10)] == [f"{n:05}" for n in range(10)]
    assert sum(asked) <= 2 * 10 + dense.SLACK


def test_a_segment_that_differs_among_ties_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    limits = Limits(tail_rows=100)
    vectors = np.tile(unit_vectors(1, 32, 3)[0], (300, 1))
    with Index.open(tmp_path / "x.index", model=HashEncoder(), limits=limits) as index:
        index.add(documents(vectors))
        (segment,) = [one for one in index.status().segments if one.kind == "flat"]
        (file,) = (tmp_path / "x.index").glob(f"**/{segment.name}*")
        whole = file.read_bytes()
        data = bytearray(whole)
        # A few numbers of the last row, longer by one in the last place.
        for number in np.flatnonzero(data_of(vectors[0]) < 0xFF)[:8]:
            data[len(data) - 4 * 32 + 4 * number] += 1
        file.write_bytes(data)
        monkeypatch.setattr(view.segments, "is_intact", lambda *_: True)
        index._views.forget()
        query = vectors[0] + unit_vectors(1, 32, 4)[0]
        assert [name for name, _ in found(index, query, 3)] == ["00000", "00001", "00002"]
        assert index._views.condemned
        file.write_bytes(whole)


def data_of(vector: np.ndarray) -> np.ndarray:
    """Return the lowest byte of each number."""
    return np.frombuffer(vector.tobytes(), np.uint8)[::4]

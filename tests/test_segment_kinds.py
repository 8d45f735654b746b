"""A second and a third kind of segment join beside the flat one, and storage is not changed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retriever import Document, Index, Limits
from retriever.errors import IndexCorrupt
from retriever.search import segment_kinds
from retriever.search.allowed import Mask
from retriever.search.flat_segment import FLAT
from retriever.search.lexical_segment import LEXICAL
from retriever.search.segment_kinds import KINDS, SegmentKind
from retriever.search.vectors import MemoryRows
from retriever.storage import catalog, integrity, segments
from retriever.storage.records import Segment, Space
from retriever.storage.series import Replaced, Series, WriteFile
from retriever.testing import HashEncoder, unit_vectors


class SumKind:
    """The number of chunks of a range, and their ids, as JSON: of texts, in one file."""

    name = "sum"
    of_vectors = False

    def suits(self, space: Space) -> bool:
        return True

    def bytes_per_row(self, space: Space) -> int:
        return 8

    def tail_rows(self, limits: Limits) -> int:
        return limits.tail_rows

    def is_current(self, paths: Sequence[Path]) -> bool:
        return True

    def build(
        self,
        connection: sqlite3.Connection,
        space: Space,
        span: tuple[int, int],
        n_rows: int,
        write: WriteFile,
        replaced: Replaced,
    ) -> None:
        ids = self._live(connection, space, span)
        assert len(ids) == n_rows
        write("sum", lambda sink: sink(json.dumps({"ids": ids, "sum": sum(ids)}).encode()))

    def open(self, paths: Sequence[Path], space: Space, segment: Segment) -> Any:
        (path,) = paths
        ids = np.array(json.loads(path.read_text())["ids"])
        if len(ids) != segment.rows:
            raise IndexCorrupt("not as many", path=str(path), check="segment")
        return MemoryRows(ids, np.ones((len(ids), 1), np.float32))

    def verify(
        self,
        paths: Sequence[Path],
        connection: sqlite3.Connection,
        space: Space,
        segment: Segment,
        *,
        deep: bool,
    ) -> list[str]:
        (path,) = paths
        held = json.loads(path.read_text())
        live = set(self._live(connection, space, (segment.first_id - 1, segment.last_id)))
        dead = set(catalog.tombstones(connection, -1).tolist())
        if not live <= set(held["ids"]) or set(held["ids"]) - live - dead or live & dead:
            return [f"{path.name}: other ids"]
        return [f"{path.name}: another sum"] if deep and held["sum"] != sum(held["ids"]) else []

    def _live(
        self, connection: sqlite3.Connection, space: Space, span: tuple[int, int]
    ) -> list[int]:
        found = connection.execute(
            "SELECT id FROM chunks WHERE chunking_id = ? AND id > ? AND id <= ? ORDER BY id",
            (space.chunking.id, *span),
        )
        return [row[0] for row in found]


SUM = SumKind()
BOTH: tuple[SegmentKind, ...] = (*KINDS, SUM)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """An index whose writers keep both kinds, in several segments."""
    for module in ("write_session", "maintenance", "index", "index.maintaining"):
        monkeypatch.setattr(f"retriever.{module}.KINDS", BOTH)
    limits = Limits(tail_rows=50)
    with Index.open(tmp_path / "x.index", model=HashEncoder(), limits=limits) as opened:
        for part in range(3):
            opened.add(documents(part))
        yield opened


def documents(part: int, count: int = 60) -> list[Document]:
    vectors = unit_vectors(count, 32, part)
    return [
        Document(f"Row {part} {n}.", id=f"{part}-{n:02}", embedding=vector)
        for n, vector in enumerate(vectors)
    ]


def series(index: Index) -> dict[str, list[Segment]]:
    with index._pool.transaction() as connection:
        space = catalog.active_space(connection)
        return {kind.name: Series(kind, space).segments(connection) for kind in BOTH}


def tombstones(index: Index) -> list[int]:
    with index._pool.transaction() as connection:
        return sorted(catalog.tombstones(connection, -1).tolist())


def sound(index: Index) -> bool:
    return integrity.verify(index.path, kinds=BOTH, deep=True).ok


def test_both_kinds_are_built_opened_and_verified_over_the_same_chunks(index: Index):
    found = series(index)
    assert [(s.first_id, s.last_id) for s in found["flat"]] == [(1, 60), (61, 120), (121, 180)]
    assert [(s.first_id, s.last_id) for s in found["sum"]] == [(1, 60), (61, 120), (121, 180)]
    assert [len(s.files) for s in found["flat"] + found["sum"]] == [2] * 3 + [1] * 3
    assert {s.space_id for s in found["sum"]} == {None}
    assert sound(index)
    with index._pool.transaction() as connection:
        space = catalog.active_space(connection)
        for segment in found["sum"]:
            rows = SUM.open([index.path / f.name for f in segment.files], space, segment)
            assert rows.ids.tolist() == list(range(segment.first_id, segment.last_id + 1))
    assert [hit.document_id for hit in index.search(vector=unit_vectors(60, 32, 1)[7], k=1)] == [
        "1-07"
    ]
    backup = index.path.with_name("copy.index")
    index.backup(backup)
    assert integrity.verify(backup, kinds=BOTH, deep=True).ok
    with Index.open(backup) as copy:
        assert {kind: len(of_kind) for kind, of_kind in series(copy).items()} == {
            "flat": 3,
            "lexical": 1,
            "sum": 3,
        }


@pytest.mark.parametrize("kind", ["flat", "sum"])
@pytest.mark.parametrize("is_gone", [True, False])
def test_a_damaged_segment_is_built_again_by_its_kind(index: Index, kind: str, is_gone: bool):
    before = series(index)
    path = index.path / before[kind][1].files[-1].name
    index._views.forget()
    data = path.read_bytes()
    path.unlink()
    if not is_gone:
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    report = integrity.verify(index.path, kinds=BOTH)
    assert [problem.check for problem in report.problems] == ["segments"]
    index.add("a new row")
    after = series(index)
    assert sound(index)
    other = "sum" if kind == "flat" else "flat"
    assert after[other] == before[other]
    assert after[kind][1].files != before[kind][1].files
    assert [(s.first_id, s.last_id) for s in after[kind]] == [(1, 60), (61, 120), (121, 180)]


def test_what_a_kind_finds_wrong_is_mended_by_repair(index: Index):
    """The bytes are as they were published, but they are not those that the rows give."""
    segment = series(index)["sum"][0]
    with index._sessions.session() as writer:
        path = index.path / segment.files[0].name
        held = json.loads(path.read_text())
        path.write_text(json.dumps({**held, "ids": held["ids"][:-1]}))
        size, sha256 = segments.files.hash_file(path)
        stamp = segments.Stamp.of(path)
        published = segments.Published(path.name, size, sha256, stamp)
        with writer.maintenance() as connection:
            forged = Segment(
                segment.id,
                segment.kind,
                segment.chunking_id,
                None,
                segment.first_id,
                segment.last_id,
                segment.rows,
                (published,),
            )
            segments.describe_again(connection, forged)
    (problem,) = integrity.verify(index.path, kinds=BOTH).problems
    assert "other ids" in problem.detail
    assert integrity.verify(index.path, kinds=KINDS).ok  # who does not know the kind cannot tell
    report = index.repair()
    assert report.quarantined
    assert sound(index)


def test_a_tombstone_stays_as_long_as_a_segment_of_any_kind_needs_it(index: Index):
    with index._pool.transaction() as connection:
        space = catalog.active_space(connection)
    index.delete(["0-03", "1-05"])
    assert tombstones(index) == [4, 66]
    assert sound(index)
    with index._sessions.session() as writer:
        segments.publish(writer, Series(FLAT, space), [(0, 60)])
        assert tombstones(index) == [4, 66]  # the other kind's segment holds chunk 4
        assert sound(index)
        segments.publish(writer, Series(SUM, space), [(0, 60)])
        assert tombstones(index) == [4, 66]  # as does the lexical one
        segments.publish(writer, Series(LEXICAL, space), [(0, 180)])
        assert tombstones(index) == [66]
        assert sound(index)
    index.compact()
    assert tombstones(index) == []
    found = series(index)
    assert [(s.first_id, s.last_id, s.rows) for s in found["flat"]] == [(1, 180, 178)]
    assert [(s.first_id, s.last_id, s.rows) for s in found["sum"]] == [(1, 180, 178)]
    assert index.compact().segments_written == 0
    assert sound(index)


def test_a_kind_covers_more_than_another_and_deleted_chunks_are_found_in_neither(index: Index):
    """Only the segment of texts reaches so far: its deleted rows must be known all the same."""
    with index._sessions.session() as writer:
        index.add(documents(4, 20))
        space = catalog.active_space(writer.connection)
        segments.publish(writer, Series(SUM, space), [(180, 200)])
    index.delete("4-00")
    assert tombstones(index) == [181]
    assert sound(index)


def test_a_segment_of_an_unknown_kind_is_left_alone_until_it_is_damaged(
    index: Index, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.undo()  # an older version, which knows the flat kind alone
    before = series(index)
    index.delete("2-01")
    index.add("a new row")
    assert index.verify(deep=True).ok
    assert series(index)["sum"] == before["sum"]
    assert sound(index)
    (index.path / before["sum"][0].files[0].name).write_bytes(b"{}")
    assert not index.verify().ok
    index.add("another one")
    assert index.verify().ok
    assert series(index)["sum"] == before["sum"][1:]


class HalfKind:
    """Vectors in float16, of which every third is missing: approximate, as a graph is."""

    def __init__(self, rows: MemoryRows) -> None:
        kept = np.arange(len(rows.ids)) % 3 > 0
        self._rows = MemoryRows(rows.ids, rows.vectors.astype(np.float16).astype(np.float32))
        self._kept = kept
        self.ids = rows.ids
        self.exact = False

    def search(self, queries: Any, k: int, allowed: Any) -> Any:
        flags = self._kept if allowed is None else self._kept & allowed.flags
        found, scores = self._rows.search(queries, k, Mask(flags))
        return found, scores + np.float32(0.01)  # as far off as a quantised score may be

    def near(self, query: Any, least: float, allowed: Any) -> Any:
        raise AssertionError("approximate rows are not asked")

    def vectors_at(self, positions: Any) -> Any:
        return self._rows.vectors_at(positions)


def test_scores_of_approximate_rows_are_exact_and_results_say_that_hits_may_be_missing(
    index: Index, monkeypatch: pytest.MonkeyPatch
):
    query = unit_vectors(60, 32, 1)[7]
    exact = index.search(vector=query, k=180)
    assert exact.exact
    monkeypatch.setattr(
        "retriever.search.flat_segment.FlatKind.open",
        lambda _, paths, space, segment: HalfKind(
            MemoryRows(
                np.arange(segment.first_id, segment.last_id + 1),
                unit_vectors(60, 32, segment.first_id // 60),
            )
        ),
    )
    index._views.forget()
    found = index.search(vector=query, k=120)
    assert not found.exact
    assert not index._views.condemned
    scores = {hit.document_id: hit.score for hit in exact}
    assert len(found) == 120
    assert all(scores[hit.document_id] == hit.score for hit in found)
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)


def test_the_names_of_kinds_differ():
    names = [kind.name for kind in segment_kinds.KINDS]
    assert len(set(names)) == len(names)

"""An index that a stranger made: `trust=False`, and what no index may do to who opens it.

The cases are those of benchmarks/durability/hostile.py, which makes as many more as are asked for.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import error_of, run, run_json

from benchmarks.durability import hostile, runner
from retriever import Document, Index
from retriever.canonical import MAX_JSON
from retriever.errors import IndexCorrupt, LimitExceeded, ModelMismatch, ModelUnavailable
from retriever.search import vectors
from retriever.storage import connections, integrity, pool, records, schema, segments, transaction
from retriever.testing import HashEncoder, unit_vectors

GENERATED = 20
DIMENSION = 16
ENCODER = HashEncoder(DIMENSION, max_tokens=12)
QUERIES = unit_vectors(4, DIMENSION, 3)
PLANTED = "The pump is safe to touch."


@pytest.mark.durability
@pytest.mark.damages
@pytest.mark.timeout(1200)
def test_no_index_does_harm(tmp_path: Path):
    outcome = hostile.run(runner.Options(1 + GENERATED, seed=5, jobs=2, folder=tmp_path))
    assert outcome.failures == []
    assert outcome.trials == len(hostile.named_cases()) + GENERATED
    assert min(outcome.seen[name] for name in ("IndexCorrupt", "FormatMismatch")) > 0
    assert outcome.seen["search answers"] > outcome.trials


def test_the_cases_are_many_and_differ():
    names = [case.name for case in hostile.named_cases()]
    assert len(names) > 150
    assert len(set(names)) == len(names)


@pytest.fixture
def strange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index with segments and a tail, which names a model that is not here."""
    monkeypatch.setattr(segments, "TAIL_ROWS", 12)
    path = tmp_path / "strange.index"
    with Index.open(path, model=ENCODER) as index:
        for first in range(0, 40, 10):
            index.add([f"The pump {n} stands in hall {n % 7}." for n in range(first, first + 10)])
        index.add(["And the last one in the yard."])
    assert len(list(path.glob("segment-*"))) >= 2
    return path


@pytest.fixture
def no_faiss(strange: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert strange.exists()

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a segment is read")

    monkeypatch.setattr(vectors.FlatSegment, "open", refuse)
    monkeypatch.setattr(vectors, "read_rows", refuse)
    monkeypatch.setattr(segments, "is_intact", refuse)
    monkeypatch.setattr(integrity.np, "fromfile", refuse)


def answers(index: Index) -> list[list[tuple[int | None, float, str]]]:
    found = index.search_many(vectors=QUERIES, k=9)
    return [[(hit.chunk_id, hit.score, hit.text) for hit in results] for results in found]


def test_without_trust_the_answers_are_the_same(strange: Path):
    with Index.open(strange) as index:
        wanted = answers(index)
        assert index.search(vector=QUERIES[0]).plan.endswith("tail rows")
    with Index.open(strange, trust=False) as index:
        assert answers(index) == wanted
        results = index.search(vector=QUERIES[0])
        assert results.exact
        assert results.plan == "exact: 41 rows, segments not trusted"


@pytest.mark.damages
@pytest.mark.usefixtures("no_faiss")
def test_without_trust_nothing_reads_a_segment(strange: Path, tmp_path: Path):
    with Index.open(strange, trust=False, check="full") as index:
        assert len(answers(index)[0]) == 9
        assert index.verify(deep=True).ok
        index.backup(tmp_path / "copy.index")
    assert list((tmp_path / "copy.index").glob("segment-*")) == []
    assert Index.verify_path(strange, deep=True, trust=False).ok


def test_the_first_write_without_trust_replaces_the_segments(strange: Path):
    came_with_it = {path.name for path in strange.glob("segment-*")}
    with Index.open(strange, model=ENCODER, trust=False) as index:
        wanted = answers(index)
        index.compact()
        built = {path.name for path in strange.glob("segment-*")}
        assert built
        assert not built & came_with_it
        assert answers(index) == wanted
        assert "not trusted" in index.search(vector=QUERIES[0]).plan
        index.add(["One more."])
        assert built <= {path.name for path in strange.glob("segment-*")}
    with Index.open(strange) as index:
        assert index.search(vector=QUERIES[0]).plan.startswith("exact: 1 segments")
        assert index.verify(deep=True).ok


def test_without_trust_repair_drops_the_segments(strange: Path):
    came_with_it = {path.name for path in strange.glob("segment-*")}
    report = Index.repair_path(strange, model=ENCODER, trust=False)
    assert report.ok
    assert not came_with_it & {path.name for path in strange.glob("segment-*")}
    with Index.open(strange) as index:
        assert index.verify(deep=True).ok


def test_an_index_that_is_not_trusted_chooses_no_model(
    strange: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a model is looked for")

    monkeypatch.setattr("retriever.encoders.checkpoint.resolve.resolve_model", refuse)
    with Index.open(strange, trust=False) as index:
        for call in (lambda: index.search("pump"), lambda: index.add(["x"]), index.rebuild):
            with pytest.raises(ModelUnavailable, match="not trusted") as caught:
                call()
            assert "model=" in caught.value.hint
        assert index.search(vector=QUERIES[0])
    with Index.open(strange, model=ENCODER, trust=False) as index:
        assert index.search("pump")
    with pytest.raises(ModelMismatch):
        Index.open(strange, model=HashEncoder(DIMENSION, salt="other"), trust=False)


def test_pages_are_checked_first_without_trust(strange: Path, monkeypatch: pytest.MonkeyPatch):
    statements: list[str] = []
    connect = connections.connect

    def traced(*args: Any, **kwargs: Any) -> Any:
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr(pool, "connect", traced)
    Index.open(strange, trust=False).close()
    asked = [sql for sql in statements if "quick_check" in sql or "FROM spaces" in sql]
    assert asked[0] == "PRAGMA quick_check(sqlite_schema)"
    assert asked[1] == "SELECT id FROM spaces"
    assert asked[2] == "PRAGMA quick_check(1)"


def test_a_restricted_connection_reads_our_tables_and_nothing_else(strange: Path):
    with connections.sqlite_errors(strange):
        connection = connections.connect(strange, "rw")
        connection.execute("CREATE VIEW evil AS SELECT * FROM texts")
        connection.close()
    connection = connections.connect(strange, "ro")
    schema.restrict(connection)
    assert connection.execute("SELECT count(*) FROM texts").fetchone() == (41,)
    for sql in (
        "SELECT * FROM evil",
        "ATTACH ':memory:' AS other",
        "PRAGMA writable_schema=ON",
        "DELETE FROM texts",
        "SELECT load_extension('x')",
    ):
        with pytest.raises(connections.sqlite3.DatabaseError, match=r"not authorized|prohibited"):
            connection.execute(sql)
    connection.close()
    with pytest.raises(IndexCorrupt, match="evil"):
        Index.open(strange)
    repaired = Index.repair_path(strange, model=ENCODER)
    assert repaired.ok


@pytest.mark.damages
@pytest.mark.parametrize("name", ["HEAD", "store.db", "store.db-wal", "store.db-shm"])
def test_a_file_that_is_a_pipe_is_named_and_refused(strange: Path, name: str):
    (strange / name).unlink(missing_ok=True)
    os.mkfifo(strange / name)
    with pytest.raises(IndexCorrupt, match=f"{name} is a named pipe") as caught:
        Index.open(strange)
    assert "Move it away" in caught.value.hint
    assert not Index.verify_path(strange).ok


@pytest.mark.damages
def test_a_lock_that_is_a_link_is_not_followed(strange: Path, tmp_path: Path):
    precious = tmp_path / "precious"
    precious.write_text("keep this")
    (strange / "LOCK").unlink()
    (strange / "LOCK").symlink_to(precious)
    with Index.open(strange, model=ENCODER) as index:
        assert index.search(vector=QUERIES[0])
        assert index.status().locked_by is None
        with pytest.raises(IndexCorrupt, match="LOCK is a symbolic link"):
            index.add(["x"])
    assert precious.read_text() == "keep this"


def test_a_directory_reached_by_a_link_is_fine(strange: Path, tmp_path: Path):
    (tmp_path / "link.index").symlink_to(strange)
    with Index.open(tmp_path / "link.index", model=ENCODER) as index:
        index.add(["by another way"])
        assert index.count() == 42


def test_metadata_has_a_limit(strange: Path):
    with Index.open(strange, model=ENCODER) as index:
        longest = MAX_JSON - len('{"a":""}')
        with pytest.raises(LimitExceeded, match=r"metadata of .*, as JSON, are 16,000,001 char"):
            index.add(Document("x", metadata={"a": "x" * (longest + 1)}))
        index.add(Document("y", "large", {"a": "é" * longest}))
        stored = index.get("large")
        assert stored is not None
        assert len(stored.metadata["a"]) == longest
        index.delete("large")


def test_headings_and_pages_have_a_limit_together(strange: Path):
    """What is accepted is read, verified, rebuilt and deleted; headings and pages share a row."""
    headings = [(0, 1, "\x01" * 300)] * 4_000
    pages = list(range(1_200_000))
    text = "x" + " " * len(pages)
    headings.append((0, 1, "x" * (MAX_JSON - stored_size(headings, pages) - len('[0,1,""],'))))
    assert stored_size(headings, pages) == MAX_JSON
    over = [*headings[:-1], (0, 1, headings[-1][2] + "x")]
    with Index.open(strange, model=ENCODER) as index:
        with pytest.raises(LimitExceeded, match=r"headings and pages .* 16,000,001 char") as caught:
            index.add(Document(text, "large", headings=over, pages=pages))
        assert caught.value.value == MAX_JSON + 1
        assert index.add(Document(text, "large", headings=headings, pages=pages)).added == 1
        stored = index.get("large")
        assert stored is not None
        assert (list(stored.headings), list(stored.pages)) == (headings, pages)
        assert index.search("x", k=50)
        assert index.verify(deep=True).ok
        assert index.rebuild().replaced == 42
        index.delete("large")
        assert index.verify(deep=True).ok


def stored_size(headings: list[tuple[int, int, str]], pages: list[int]) -> int:
    stored = {"headings": headings, "pages": pages}
    return len(json.dumps(stored, ensure_ascii=False, separators=(",", ":")))


def test_many_ordinary_headings_are_no_matter(strange: Path):
    headings = [(51 * n, 2, f"{n:050}") for n in range(45_000)]
    with Index.open(strange, model=ENCODER) as index:
        assert index.add(Document(" " * 51 * len(headings), "long", headings=headings)).added == 1
        stored = index.get("long")
        assert stored is not None
        assert list(stored.headings) == headings


class Liar(HashEncoder):
    """Has the identity and the canaries of an honest encoder, and a wrong vector for one text."""

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        vectors = super().encode_documents(texts)
        for row, text in enumerate(texts):
            if text == PLANTED:
                vectors[row] = np.eye(DIMENSION)[3]
        return vectors


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    path = tmp_path / "planted.index"
    with Index.open(path, model=Liar(DIMENSION, max_tokens=12)) as index:
        index.add([Document(PLANTED, "theirs"), "The pump stands in the yard."])
    return path


def vectors_of(index: Index, document_id: str) -> list[np.ndarray]:
    with sqlite3.connect(index.path / "store.db") as connection:
        ((space_id,),) = connection.execute("SELECT id FROM spaces").fetchall()
        found = connection.execute(
            f"SELECT v.data FROM {records.vectors_table(space_id)} v"
            " JOIN chunks c ON c.id = v.chunk_id JOIN documents d ON d.pk = c.document_pk"
            " WHERE d.id = ?",
            (document_id,),
        ).fetchall()
    connection.close()
    return [np.frombuffer(data, "<f4") for (data,) in found]


def test_without_trust_a_new_document_takes_no_vector_of_theirs(planted: Path):
    own, lie = ENCODER.encode_documents([PLANTED])[0], np.eye(DIMENSION)[3]
    with Index.open(planted, model=ENCODER) as index:
        assert index.add(Document(PLANTED, "trusting")).encoded == 0
        assert np.array_equal(vectors_of(index, "trusting"), [lie])
    with Index.open(planted, model=ENCODER, trust=False) as index:
        assert index.add(Document(PLANTED, "mine")).encoded == 1
        assert np.array_equal(vectors_of(index, "mine"), [own])


def test_without_trust_a_file_takes_no_vector_of_theirs(planted: Path, tmp_path: Path):
    (tmp_path / "mine.txt").write_text(PLANTED)
    with Index.open(planted, model=ENCODER, trust=False) as index:
        assert index.add_files(tmp_path / "mine.txt").encoded == 1
        assert np.array_equal(vectors_of(index, "mine.txt"), ENCODER.encode_documents([PLANTED]))


def test_without_trust_a_rebuild_takes_no_vector_of_theirs(
    planted: Path, monkeypatch: pytest.MonkeyPatch
):
    """Neither of the active space nor of a rebuild that they left unfinished."""
    with Index.open(planted, model=Liar(DIMENSION, max_tokens=12)) as index:
        with monkeypatch.context() as patch:
            patch.setattr(transaction.Transaction, "activate_space", interrupt)
            with pytest.raises(KeyboardInterrupt):
                index.rebuild()
        assert index.status().building
    with Index.open(planted, model=ENCODER, trust=False) as index:
        assert index.rebuild().encoded == 2
        assert np.array_equal(vectors_of(index, "theirs"), ENCODER.encode_documents([PLANTED]))


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.damages
def test_without_trust_repair_takes_no_vector_of_theirs(planted: Path):
    with Index.open(planted, model=Liar(DIMENSION, max_tokens=12)) as index:
        index.add(Document(PLANTED, "torn"))
    with sqlite3.connect(planted / "store.db") as connection:
        connection.execute(
            "UPDATE chunks SET tokens = tokens + 1 WHERE document_pk ="
            " (SELECT pk FROM documents WHERE id = 'torn')"
        )
    connection.close()
    report = Index.repair_path(planted, model=ENCODER, trust=False)
    assert report.ok
    with Index.open(planted, model=ENCODER) as index:
        assert np.array_equal(vectors_of(index, "torn"), ENCODER.encode_documents([PLANTED]))


def test_the_command_line_takes_untrusted(
    strange: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RETRIEVER_INDEX", str(strange))
    assert run_json("status", "--untrusted")["documents"] == 41
    assert run_json("list", "--untrusted")["count"] == 41
    verified = run_json("verify", "--deep", "--untrusted")
    assert verified["checks"][-1]["detail"].endswith("not trusted and not read")
    refused = error_of(run("search", "pump", "--untrusted", "--json"))
    assert refused["code"] == "model_unavailable"
    assert "--model" in refused["hint"]
    for place in ("bi_encoder.load_encoder", "checkpoint.resolve.resolve_model"):
        monkeypatch.setattr(f"retriever.encoders.{place}", lambda *_, **__: ENCODER)
    found = run_json("search", "the", "pump", "--untrusted", "--model", "mine")
    assert found["plan"] == "exact: 41 rows, segments not trusted"
    assert run_json("repair", "--untrusted")["ok"]


@pytest.mark.damages
@pytest.mark.usefixtures("no_faiss")
def test_repair_without_trust_reads_no_segment_afterwards_either(strange: Path):
    report = Index.repair_path(strange, model=ENCODER, trust=False)
    assert report.ok
    (check,) = [check for check in report.verify.checks if check.name == "segments"]
    assert "not trusted and not read" in check.detail

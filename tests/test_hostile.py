"""An index that a stranger made: `Index.adopt`, and what no index may do to who opens it.

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
from retriever import Document, Index, Limits
from retriever.canonical import MAX_JSON
from retriever.documents import validation
from retriever.errors import (
    IndexCorrupt,
    IndexExists,
    IndexNotFound,
    InvalidConfig,
    LimitExceeded,
    ModelMismatch,
    ModelUnavailable,
)
from retriever.search import vectors
from retriever.storage import (
    catalog,
    checksums,
    connections,
    pool,
    records,
    schema,
    segments,
    transaction,
)
from retriever.storage.pending import PendingVectors
from retriever.testing import HashEncoder, unit_vectors
from retriever.types import Heading, Progress

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
def strange(tmp_path: Path) -> Path:
    """An index with segments and a tail, which names a model that is not here."""
    path = tmp_path / "strange.index"
    with Index.open(path, model=ENCODER, limits=Limits(tail_rows=12)) as index:
        for first in range(0, 40, 10):
            index.add([f"The pump {n} stands in hall {n % 7}." for n in range(first, first + 10)])
        index.add(["And the last one in the yard."])
    assert len(list(path.glob("segment-*"))) >= 2
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Return what an index holds, but SQLite's shared memory, which each reader writes to."""
    files = (path for path in folder.iterdir() if not path.name.endswith("-shm"))
    return {path.name: path.read_bytes() for path in files}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "own.index"


def test_adopted_documents_are_the_same_and_so_are_the_answers(strange: Path, own: Path):
    described = Document(
        "# Valve\n\nThe valve is red.\fThe pump is blue.",
        "described",
        {"year": 2024, "nested": [{"a": None}]},
        source="https://example.org/valve",
        title="Valve",
        headings=[Heading(0, 1, "Valve")],
        pages=[0, 27],
    )
    with Index.open(strange, model=ENCODER) as index:
        index.add([described, Document("", "empty")])
        wanted, documents = texts_and_scores(index), list(index.documents())
    before = contents(strange)
    report = Index.adopt(strange, own, model=ENCODER)
    assert contents(strange) == before
    assert (report.added, report.empty, report.encoded) == (43, 1, report.chunks)
    with Index.open(own) as index:
        assert texts_and_scores(index) == wanted
        assert list(index.documents()) == documents
        assert index.verify(deep=True).ok
        assert index.status().chunking == Index.open(strange).status().chunking
        assert index.base == own.parent


def texts_and_scores(index: Index) -> list[set[tuple[str, float, str]]]:
    found = index.search_many(vectors=QUERIES, k=100, fold=False)
    return [{(hit.document_id, hit.score, hit.text) for hit in results} for results in found]


@pytest.mark.damages
def test_adopting_reads_no_segment(strange: Path, own: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a segment is read")

    monkeypatch.setattr(vectors.FlatSegment, "open", refuse)
    monkeypatch.setattr(vectors, "read_rows", refuse)
    monkeypatch.setattr(segments, "is_intact", refuse)
    monkeypatch.setattr(np, "fromfile", refuse)
    for path in strange.glob("segment-*"):
        path.write_bytes(b"not a segment")
    assert Index.adopt(strange, own, model=ENCODER).added == 41
    assert list(own.glob("segment-*")) == []


def test_an_index_that_is_adopted_chooses_no_model(
    strange: Path, own: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a model is looked for")

    monkeypatch.setattr("retriever.encoders.checkpoint.resolve.resolve_model", refuse)
    with pytest.raises(ModelUnavailable, match="is not loaded automatically") as caught:
        Index.adopt(strange, own)
    assert "model=" in caught.value.hint
    other = HashEncoder(DIMENSION, max_tokens=12, salt="other")
    assert Index.adopt(strange, own, model=other).encoded > 0
    with pytest.raises(ModelMismatch):
        Index.open(own, model=ENCODER)


def test_an_adoption_that_fails_leaves_nothing(strange: Path, own: Path):
    with sqlite3.connect(strange / "store.db") as connection:
        connection.execute("UPDATE texts SET utf8 = utf8 || 'x' WHERE document_pk = 30")
    connection.close()
    before = sorted(strange.parent.iterdir())
    with pytest.raises(IndexCorrupt, match=r"texts") as caught:
        Index.adopt(strange, own, model=ENCODER, limits=Limits(commit_documents=2))
    assert "Nothing was adopted" in caught.value.hint
    assert caught.value.report is None
    assert sorted(strange.parent.iterdir()) == before


def test_a_document_that_could_not_have_been_added_is_damage(
    strange: Path, own: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its checksums are right: only the checks of `add` can tell."""
    with monkeypatch.context() as patch:
        patch.setattr(validation, "_pages", lambda value, *_: tuple(value))
        with Index.open(strange, model=ENCODER) as index:
            index.add(Document("short", "impossible", pages=[3, 1_000]))
    with pytest.raises(IndexCorrupt, match=r"document 41 .* pages of Document 41 \('impossible'\)"):
        Index.adopt(strange, own, model=ENCODER)


def test_documents_that_the_index_on_ids_hides_are_damage(strange: Path, own: Path):
    """Documents are read in the order of their ids, so that such a one would just be left out."""
    roots = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
    put_root = "UPDATE sqlite_schema SET rootpage = ? WHERE name = 'shadow'"
    with hostile.Target(strange, strange.parent / "outside").database() as connection:
        connection.execute("CREATE TABLE shadow(id TEXT PRIMARY KEY, pk INTEGER) WITHOUT ROWID")
        (index,) = connection.execute(roots, ("sqlite_autoindex_documents_1",)).fetchone()
        (shadow,) = connection.execute(roots, ("shadow",)).fetchone()
        for root, sql in (
            (index, "DELETE FROM shadow WHERE id = (SELECT min(id) FROM shadow)"),
            (shadow, "DROP TABLE shadow"),
        ):
            connection.execute("PRAGMA writable_schema=ON")
            connection.execute(put_root, (root,))
            connection.execute("PRAGMA writable_schema=RESET")
            connection.execute(sql)
        assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    with pytest.raises(IndexCorrupt, match="only 40 of its documents are listed by their ids"):
        Index.adopt(strange, own, model=ENCODER)


def test_nothing_is_adopted_over_what_is_there(strange: Path, own: Path):
    own.mkdir()
    (own / "precious").write_text("keep this")
    for target in (own, strange):
        with pytest.raises(IndexExists):
            Index.adopt(strange, target, model=ENCODER)
    assert (own / "precious").read_text() == "keep this"
    (own / "precious").unlink()
    assert Index.adopt(strange, own, model=ENCODER).added == 41
    with pytest.raises(IndexNotFound):
        Index.adopt(own.parent / "nowhere", own.parent / "other", model=ENCODER)


def test_what_is_adopted_is_cut_as_it_was_or_as_is_asked(strange: Path, own: Path):
    Index.adopt(strange, own, model=ENCODER, chunking="document")
    with Index.open(own) as index:
        assert index.status().chunking.unit == "document"
        assert index.status().chunks == 41


def test_an_index_without_a_model_is_adopted_with_its_embeddings(own: Path, tmp_path: Path):
    rows = unit_vectors(5, DIMENSION, 7)
    with Index.open(tmp_path / "rows.index", dimension=DIMENSION) as index:
        index.add([Document(f"row {n}", f"{n}", embedding=row) for n, row in enumerate(rows)])
        wanted = texts_and_scores(index)
    report = Index.adopt(tmp_path / "rows.index", own)
    assert (report.added, report.encoded) == (5, 0)
    with Index.open(own) as index:
        assert texts_and_scores(index) == wanted
        assert index.status().model["vectors_only"]
    other = tmp_path / "other.index"
    with pytest.raises(InvalidConfig, match=r"5 documents .* were added with an embedding"):
        Index.adopt(tmp_path / "rows.index", other, model=ENCODER)
    with pytest.raises(InvalidConfig, match="created without a model"):
        Index.adopt(tmp_path / "rows.index", other, discard_embeddings=True)
    report = Index.adopt(tmp_path / "rows.index", other, model=ENCODER, discard_embeddings=True)
    assert (report.added, report.encoded) == (5, 5)


def test_supplied_embeddings_of_the_same_model_are_kept(strange: Path, own: Path, tmp_path: Path):
    vector = np.eye(DIMENSION, dtype=np.float32)[2]
    with Index.open(strange, model=ENCODER) as index:
        index.add(Document("brought", "brought", embedding=vector))
    Index.adopt(strange, own, model=ENCODER)
    with Index.open(own) as index:
        assert np.array_equal(index.get("brought").embedding, vector)
    other = HashEncoder(DIMENSION, max_tokens=12, salt="other")
    with pytest.raises(InvalidConfig, match=r"1 documents .* with an embedding of another model"):
        Index.adopt(strange, tmp_path / "other.index", model=other)


def test_an_adoption_tells_how_far_it_is(strange: Path, own: Path):
    said: list[Progress] = []
    Index.adopt(strange, own, model=ENCODER, progress=said.append)
    assert {(each.stage, each.total, each.unit) for each in said} == {("adopt", 41, "documents")}
    assert said[-1].done == 41


def test_pages_are_checked_before_anything_is_adopted(
    strange: Path, own: Path, monkeypatch: pytest.MonkeyPatch
):
    statements: list[str] = []
    connect = connections.connect

    def traced(*args: Any, **kwargs: Any) -> Any:
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr(pool, "connect", traced)
    Index.adopt(strange, own, model=ENCODER)
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


def test_what_is_adopted_takes_no_vector_of_theirs(planted: Path, own: Path):
    """Not of a document, nor later for one of one's own with the same text."""
    mine, lie = ENCODER.encode_documents([PLANTED])[0], np.eye(DIMENSION)[3]
    with Index.open(planted, model=ENCODER) as index:
        assert index.add(Document(PLANTED, "trusting")).encoded == 0
        assert np.array_equal(vectors_of(index, "trusting"), [lie])
    assert Index.adopt(planted, own, model=ENCODER).encoded == 2
    with Index.open(own, model=ENCODER) as index:
        index.add(Document(PLANTED, "mine"))
        for name in ("theirs", "trusting", "mine"):
            assert np.array_equal(vectors_of(index, name), [mine])


def test_what_is_adopted_takes_no_vector_of_their_unfinished_rebuild(
    planted: Path, own: Path, monkeypatch: pytest.MonkeyPatch
):
    with Index.open(planted, model=Liar(DIMENSION, max_tokens=12)) as index:
        with monkeypatch.context() as patch:
            patch.setattr(transaction.Transaction, "replace_space", interrupt)
            with pytest.raises(KeyboardInterrupt):
                index.rebuild()
        assert index.status().building
    Index.adopt(planted, own, model=ENCODER)
    with Index.open(own, model=ENCODER) as index:
        assert index.status().building is None
        assert index.rebuild().replaced == 2
        assert np.array_equal(vectors_of(index, "theirs"), ENCODER.encode_documents([PLANTED]))


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_what_they_kept_ahead_goes_unread(planted: Path, own: Path):
    with Index.open(planted, model=ENCODER) as index, index._pool.transaction() as connection:
        space = catalog.active_space(connection)
    name = checksums.text_hash(PLANTED)
    PendingVectors(planted, space).keep([name], np.eye(DIMENSION, dtype=np.float32)[3:4])
    Index.adopt(planted, own, model=ENCODER)
    assert list(own.glob("pending-*")) == []
    with Index.open(own) as index:
        assert np.array_equal(vectors_of(index, "theirs"), ENCODER.encode_documents([PLANTED]))


def test_the_command_line_adopts(strange: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    refused = error_of(run("adopt", f"{strange}", "own.index", "--json"))
    assert refused["code"] == "model_unavailable"
    assert "--model" in refused["hint"]
    for place in ("bi_encoder.load_encoder", "checkpoint.resolve.resolve_model"):
        monkeypatch.setattr(f"retriever.encoders.{place}", lambda *_, **__: ENCODER)
    answer = run_json("adopt", f"{strange}", "own.index", "--model", "mine")
    assert (answer["index"], answer["stranger"], answer["added"]) == ("own.index", f"{strange}", 41)
    assert run_json("search", "the", "pump", "-i", "own.index", "-m", "mine")["hits"]
    said = run("adopt", f"{strange}", "again.index", "-m", "mine", "--chunking", "document").stdout
    assert said.startswith("Created again.index.\n41 documents adopted in")
    assert run("adopt", f"{strange}", "own.index", "-m", "mine").exit_code == 2
    assert run("adopt", "nowhere", "new.index", "-m", "mine").exit_code == 3
    (strange / "HEAD").write_text("nonsense")
    assert run("adopt", f"{strange}", "new.index", "-m", "mine").exit_code == 4
    assert not (tmp_path / "new.index").exists()

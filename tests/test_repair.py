"""Repair says what is lost, survives being cut short, and leaves alone what is not damaged."""

from __future__ import annotations

import json
import os
import pickle
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import stand_in
from command_line import run as command
from command_line import small_models  # noqa: F401

from retriever import Document, Index, Limits, RepairReport
from retriever.errors import (
    DataLoss,
    FormatMismatch,
    IndexCorrupt,
    IndexLocked,
    ModelUnavailable,
    StorageError,
)
from retriever.search.segment_kinds import KINDS
from retriever.storage import catalog, head_file, integrity, salvage, tables
from retriever.storage import repair as storage_repair
from retriever.storage.locking import WriteLock
from retriever.storage.repair import repair as mend
from retriever.storage.repair_log import RepairLog
from retriever.testing import HashEncoder

PAGE = 8192
pytestmark = [pytest.mark.damages]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.index"


def fill(path: Path, n: int = 20, padding: int = 0, limits: Limits | None = None) -> None:
    with Index.open(path, model=HashEncoder(), limits=limits) as index:
        index.add(
            [Document(f"pump number {i}", f"d{i:03}", {"pad": "p" * padding}) for i in range(n)]
        )


def execute(path: Path, sql: str) -> list[Any]:
    connection = sqlite3.connect(path / "store.db")
    try:
        found = connection.execute(sql).fetchall()
        connection.commit()
    finally:
        connection.close()
    return found


def wipe_leaf(path: Path, table: str, *, which: int = 1) -> None:
    """Zero a leaf page, found by walking down from the root of a table or an index."""
    (root,) = execute(path, f"SELECT rootpage FROM sqlite_schema WHERE name = '{table}'")[0]
    data = bytearray((path / "store.db").read_bytes())
    start = (root - 1) * PAGE
    assert data[start] in (2, 5), f"{table} has one page only"
    which = min(which, int.from_bytes(data[start + 3 : start + 5]) - 1)
    cell = int.from_bytes(data[start + 12 + 2 * which : start + 14 + 2 * which])
    child = int.from_bytes(data[start + cell : start + cell + 4])
    data[(child - 1) * PAGE : child * PAGE] = bytes(PAGE)
    (path / "store.db").write_bytes(data)


def repaired(path: Path, **options: Any) -> RepairReport:
    report = Index.repair_path(path, model=HashEncoder(), **options)
    assert report.ok, report.verify.problems
    return report


def contents(path: Path) -> tuple[set[str], list[str]]:
    with Index.open(path, model=HashEncoder(), check="full") as index:
        ids = {document.id for document in index.documents()}
        return ids, [loss.detail for loss in index.status().losses]


# --- documents that cannot be read ---------------------------------------------------------------


def test_documents_on_an_unreadable_page_are_named(path: Path):
    fill(path, 300, padding=200)
    wipe_leaf(path, "documents")
    report = repaired(path)
    ids, losses = contents(path)
    named = {item.document_id for item in report.lost}
    assert 5 < len(named) < 100
    assert named | ids == {f"d{i:03}" for i in range(300)}
    assert not named & ids
    assert len(losses) == len(named)
    assert "no document was lost" not in "".join(losses)


def test_documents_are_numbered_where_their_ids_are_gone_too(path: Path):
    with Index.open(path, model=HashEncoder()) as index:
        long_ids = [f"{i:04}{'x' * 300}" for i in range(300)]
        index.add([Document(f"pump {i}", name) for i, name in enumerate(long_ids)])
    wipe_leaf(path, "documents")
    wipe_leaf(path, "sqlite_autoindex_documents_1", which=0)
    wipe_leaf(path, "sqlite_autoindex_documents_1", which=1)
    report = repaired(path)
    ids, losses = contents(path)
    named = [item.document_id for item in report.lost]
    assert len(ids) + len(named) == 300
    assert any(re.fullmatch(r"#\d+", name) for name in named)
    assert any("more documents may be lost" in loss for loss in losses)


def test_a_damaged_index_of_ids_alone_loses_nothing(path: Path):
    with Index.open(path, model=HashEncoder()) as index:
        index.add([Document(f"pump {i}", f"{i:04}{'x' * 300}") for i in range(300)])
    wipe_leaf(path, "sqlite_autoindex_documents_1")
    report = repaired(path)
    ids, losses = contents(path)
    assert len(ids) == 300
    assert report.lost == ()
    assert losses == ["the database was damaged; no document was lost"]


def test_files_of_lost_documents_are_read_again(path: Path, tmp_path: Path):
    folder = tmp_path / "docs"
    folder.mkdir()
    for i in range(300):
        (folder / f"f{i:03}.txt").write_text(f"pump number {i}")
        os.utime(folder / f"f{i:03}.txt", (1e9, 1e9))
    with Index.open(path, model=HashEncoder()) as index:
        index.add_files(folder)
    wipe_leaf(path, "documents")
    execute(path, "UPDATE documents SET crc = crc + 1 WHERE pk = 300")
    lost = len(repaired(path).lost)
    assert lost > 5
    with Index.open(path, model=HashEncoder()) as index:
        assert index.count() == 300 - lost
        report = index.add_files(folder)
        assert (report.added, report.unchanged) == (lost, 300 - lost)
        assert index.count() == 300
        assert index.verify().ok


def test_a_table_that_could_be_read_in_part_only_is_told(path: Path):
    fill(path, 600)
    wipe_leaf(path, "ledgers")
    report = repaired(path)
    assert "part of the table ledgers could not be read" in report.actions
    assert len(contents(path)[0]) == 600


# --- files ---------------------------------------------------------------------------------------


def test_a_damaged_row_of_a_file_gets_a_placeholder(path: Path, tmp_path: Path):
    folder = tmp_path / "docs"
    folder.mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text(f"the text of {name}")
    with Index.open(path, model=HashEncoder()) as index:
        index.add_files(folder)
    execute(path, "UPDATE files SET crc = crc + 1 WHERE path = CAST('docs/a.txt' AS BLOB)")
    assert repaired(path).lost == ()
    with Index.open(path, model=HashEncoder()) as index:
        assert index.count() == 2
        assert index.get("docs/a.txt").text == "the text of a.txt"
        (problem,) = index.status().problem_files
        assert "index the folder again" in str(problem)
        index.add_files(folder)
        assert index.status().problem_files == ()
        assert index.count() == 2
        assert index.verify().ok


def test_a_placeholder_does_not_take_the_path_of_another_file(path: Path, tmp_path: Path):
    (tmp_path / "a.txt").write_text("alpha")
    with Index.open(path, model=HashEncoder()) as index:
        index.add_files(tmp_path / "a.txt")
    ((name,),) = execute(path, "SELECT id FROM documents")
    other = (7, os.fsencode(name), "skipped", "too large", *[None] * 5)
    execute(path, "UPDATE files SET path = x'00'")
    execute(
        path,
        f"INSERT INTO files VALUES (7, x'{other[1].hex()}', 'skipped', 'too large', NULL, NULL,"
        f" NULL, NULL, NULL, {tables.FILES.seal(other)[-1]})",
    )
    assert repaired(path).lost == ()
    assert execute(path, "SELECT id, state FROM files") == [(1, "failed"), (7, "skipped")]


# --- cut short -----------------------------------------------------------------------------------

KILLED = """
import os, sys
from retriever.testing import HashEncoder
from retriever import Index
from retriever.storage import files, head_file
step = sys.argv[2]
def die_at(module, name):
    real, count = getattr(module, name), 0
    def call(*arguments, **options):
        nonlocal count
        count += 1
        if f"{name} {count}" == step:
            os._exit(9)
        return real(*arguments, **options)
    setattr(module, name, call)
for name in ("replace", "quarantine", "remove"):
    die_at(files, name)
die_at(head_file, "write_head")
Index.repair_path(sys.argv[1], model=HashEncoder())
"""
WITH_LOG = """
import os, sys
from retriever.testing import HashEncoder
from retriever import Document, Index
index = Index.open(sys.argv[1], model=HashEncoder())
with index.writing():
    index.add([Document(f"late pump {i}", f"late{i:02}") for i in range(20)])
    os._exit(0)
"""


def run(code: str, *args: object) -> int:
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, timeout=60, check=False).returncode


def damage_with_log(path: Path) -> None:
    """Leave a damaged row and acknowledged commits that are in the write-ahead log only."""
    fill(path)
    execute(path, "UPDATE vectors_1 SET crc = crc + 1 WHERE chunk_id = 1")
    assert run(WITH_LOG, path) == 0
    assert (path / "store.db-wal").stat().st_size > 0


@pytest.mark.durability
@pytest.mark.parametrize(
    "step",
    ["quarantine 1", "quarantine 2", "quarantine 3", "replace 2", "write_head 1", "remove 1"],
)
def test_a_swap_that_is_cut_short_is_finished_by_the_next_repair(path: Path, step: str):
    damage_with_log(path)
    assert run(KILLED, path, step) == 9
    assert list(path.glob("repaired-*"))
    with suppress(DataLoss, IndexCorrupt):
        Index.open(path, model=HashEncoder()).close()
    assert any(
        "interrupted repair" in warning for warning in integrity.verify(path, kinds=KINDS).warnings
    )
    report = repaired(path)
    assert any("interrupted repair" in action for action in report.actions)
    assert len(contents(path)[0]) == 40
    assert not list(path.glob("repair*"))


def test_a_leftover_of_a_repair_hides_no_loss(path: Path, tmp_path: Path):
    fill(path)
    (path / "repaired-01234567").mkdir()
    shutil.copytree(path, tmp_path / "older")
    with Index.open(path, model=HashEncoder()) as index:
        index.add("acknowledged")
    shutil.copy(path / "HEAD", tmp_path / "older" / "HEAD")
    with pytest.raises(DataLoss):
        Index.repair_path(tmp_path / "older", model=HashEncoder())


def test_a_copy_older_than_the_index_is_discarded(path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(path)
    execute(path, "UPDATE vectors_1 SET crc = crc + 1 WHERE chunk_id = 1")

    def swap(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage_repair, "_swap", swap)
        with pytest.raises(KeyboardInterrupt):
            mend(path, RepairLog(), kinds=(), accept_loss=False, lock_timeout_s=1)
    with Index.open(path, model=HashEncoder()) as index:
        index.add(Document("written in between", "new"))
    report = repaired(path)
    assert any("discarded the copy" in action for action in report.actions)
    assert "new" in contents(path)[0]
    assert len(contents(path)[0]) == 21


def test_a_salvage_that_fails_leaves_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(path)
    execute(path, "UPDATE vectors_1 SET crc = crc + 1 WHERE chunk_id = 1")

    def broken(*_: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(storage_repair.Salvage, "run", broken)
        with pytest.raises(MemoryError):
            mend(path, RepairLog(), kinds=(), accept_loss=False, lock_timeout_s=1)
    assert not list(path.glob("repair*"))
    repaired(path)


# --- what is not damage --------------------------------------------------------------------------


def test_an_index_of_another_format_is_left_alone(path: Path):
    fill(path)
    execute(path, "PRAGMA user_version = 7")
    before = (path / "store.db").read_bytes()
    with pytest.raises(FormatMismatch):
        Index.repair_path(path, model=HashEncoder())
    assert (path / "store.db").read_bytes() == before
    assert not (path / "quarantine").exists()


def test_no_descriptors_left_is_not_damage(path: Path):
    fill(path)
    integrity.verify(path, kinds=KINDS)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    raised: list[Exception] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        with suppress(OSError):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        for _ in range(12):
            try:
                assert integrity.verify(path, kinds=KINDS).ok
            except (StorageError, OSError) as exc:
                raised.append(exc)
            os.close(held.pop())
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert raised
    assert not any(isinstance(exc, IndexCorrupt) for exc in raised)
    assert integrity.verify(path, kinds=KINDS).ok


# --- chunks that are made again ------------------------------------------------------------------


class Failing(HashEncoder):
    def encode_documents(self, texts: Any) -> Any:
        raise ModelUnavailable("The model is not here.", hint="Fetch it.")


def test_documents_without_chunks_are_noticed_and_wait_for_the_model(path: Path):
    fill(path)
    execute(path, "UPDATE vectors_1 SET crc = crc + 1 WHERE chunk_id = 1")
    with pytest.raises(ModelUnavailable) as caught:
        Index.repair_path(path, model=Failing())
    unfinished = caught.value.repair_report
    assert "copied every sound row into a new database" in unfinished.actions
    assert not unfinished.ok
    assert [problem.check for problem in unfinished.verify.problems] == ["ledgers"]
    assert pickle.loads(pickle.dumps(caught.value)).repair_report == unfinished
    report = integrity.verify(path, kinds=KINDS)
    assert [problem.check for problem in report.problems] == ["ledgers"]
    assert "'d000' is not chunked" in report.problems[0].detail
    actions = repaired(path).actions
    assert not any("copied" in action for action in actions), "there was nothing to salvage"
    with Index.open(path, model=HashEncoder()) as index:
        assert index.search("pump number 0", k=1).hits[0].document_id == "d000"


@pytest.mark.usefixtures("small_models")
@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_shows_what_it_has_mended_before_it_misses_the_model(
    path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
):
    fill(path)
    execute(path, "UPDATE vectors_1 SET crc = crc + 1 WHERE chunk_id = 1")
    execute(path, "UPDATE texts SET crc = crc + 1 WHERE document_pk = 3")
    with monkeypatch.context() as patch:
        for module, name, value in stand_in.replacements(Failing):
            patch.setattr(module, name, value)
        done = command("repair", "-i", str(path), *(["--json"] if as_json else ["--quiet"]))
    assert done.exit_code == ModelUnavailable.exit_code
    assert "Fetch it." in done.stderr
    if as_json:
        report = json.loads(done.stdout)
        assert report["actions"]
        assert not report["ok"]
        assert report["lost"][0]["document_id"] == "d002"
        assert json.loads(done.stderr)["error"]["code"] == "model_unavailable"
    else:
        assert "copied every sound row" in done.stdout
        assert "set aside quarantine/" in done.stdout
        assert "lost d002" in done.stdout
        assert "'d000' is not chunked" in done.stdout
    assert command("repair", "-i", str(path)).exit_code == 0


def test_a_repair_that_fails_before_it_has_done_anything_has_no_report(path: Path):
    fill(path)
    lock = WriteLock(path)
    lock.acquire(0)
    with pytest.raises(IndexLocked) as caught:
        Index.repair_path(path, model=HashEncoder(), lock_timeout_s=0)
    assert caught.value.repair_report is None
    lock.release()


def test_an_open_index_is_repaired_and_stays_open(path: Path):
    fill(path)
    with Index.open(path, model=HashEncoder()) as index:
        assert index.repair().ok
        assert index.count() > 0
        before = index.search("pump number 5", k=1)[0].document_id
        execute(path, "UPDATE texts SET crc = crc + 1 WHERE document_pk = 3")
        report = index.repair()
        assert report.ok
        assert report.quarantined
        assert index.get("d002") is None
        assert index.search("pump number 5", k=1)[0].document_id == before
        index.add({"id": "d002", "text": "pump number 2 again"})
        assert index.search("pump again", k=1, mode="dense")[0].document_id == "d002"
        assert index.verify().ok


def test_an_index_stays_open_when_its_repair_is_refused(path: Path):
    fill(path)
    head = (path / "HEAD").read_bytes()
    with Index.open(path, model=HashEncoder()) as index:
        count = index.count()
        head_file.write_head(path, head_file.Head(99, bytes(32)))
        with pytest.raises(DataLoss):
            index.repair()
        assert index.count() == count
        (path / "HEAD").write_bytes(head)
        assert index.repair().ok
        index.add("goes on")
        assert index.count() == count + 1


def half_chunked(path: Path, limits: Limits | None = None) -> None:
    """Leave one long document with chunks but no ledger, as a repair without a model does."""
    with Index.open(path, model=HashEncoder(), limits=limits) as index:
        index.add(Document(" ".join(f"word{i}" for i in range(200)), "long"))
    last = execute(path, "SELECT max(id) FROM chunks")[0][0]
    execute(path, f"UPDATE vectors_1 SET crc = crc + 1 WHERE chunk_id = {last}")
    with pytest.raises(ModelUnavailable):
        Index.repair_path(path, model=Failing())
    assert execute(path, "SELECT count(*) FROM chunks")[0][0] > 0
    assert execute(path, "SELECT count(*) FROM ledgers") == [(0,)]


def test_chunks_made_again_leave_tombstones_in_segments(path: Path):
    limits = Limits(tail_rows=24)
    half_chunked(path, limits)
    with Index.open(path, model=HashEncoder(), limits=limits) as index:
        index.add([Document(f"filler {i}", f"f{i}") for i in range(40)])
        assert index.status().segments
    assert repaired(path, limits=limits).lost == ()
    with Index.open(path, model=HashEncoder(), limits=limits) as index:
        assert "long" in {hit.document_id for hit in index.search("word5 word7", k=100)}
        assert index.verify(deep=True).ok


def test_a_rebuild_drops_chunks_without_a_ledger(path: Path):
    half_chunked(path)
    with Index.open(path, model=HashEncoder()) as index:
        index.rebuild(model=HashEncoder(salt="other"))
        report = index.verify(deep=True)
        assert report.ok, report.problems


def test_a_segment_with_the_wrong_tombstones_is_built_again(path: Path):
    fill(path, 40, limits=Limits(tail_rows=24))
    with Index.open(path, model=HashEncoder()) as index:
        index.delete(["d003"])
    execute(path, "DELETE FROM tombstones")
    assert not integrity.verify(path, kinds=KINDS).ok
    repaired(path)


def test_filling_a_space_looks_at_each_document_once(path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(path, 200)
    real, asked = catalog.incomplete_documents, []

    def remember(*arguments: Any) -> Any:
        if len(arguments) > 3:  # the question whether any is left names no place to go on from
            asked.append(arguments[3])
        return real(*arguments)

    monkeypatch.setattr(catalog, "incomplete_documents", remember)
    with Index.open(path, model=HashEncoder()) as index:
        index.rebuild(model=HashEncoder(salt="other"))
    assert asked == [*range(0, 200, 16), 200]


def test_salvage_holds_the_text_of_one_document_at_a_time(path: Path, monkeypatch):
    fill(path, 12)
    damaged = execute(path, "SELECT id FROM chunks ORDER BY id LIMIT 1")[0][0]
    execute(path, f"UPDATE chunks SET tokens = tokens + 1 WHERE id = {damaged}")
    given: list[weakref.ref[Text]] = []
    most = 0
    text_of = salvage.Salvage._text_of

    def watched(self: salvage.Salvage, pk: int) -> Text:
        nonlocal most
        given.append(weakref.ref(text := Text(text_of(self, pk))))
        most = max(most, sum(one() is not None for one in given))
        return text

    monkeypatch.setattr(salvage.Salvage, "_text_of", watched)
    repaired(path)
    assert len(given) >= 12
    assert most <= 3  # the new one, the one remembered, and the one of the round before


class Text(str):
    """A string of which one can see whether it is still held."""

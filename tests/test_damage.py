"""Damage to any file is noticed, or makes no difference; and repair mends what can be mended.

A slice of `python -m benchmarks.durability damage`, and what is known of each file.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.durability import damage, harm, work
from benchmarks.durability import healthy as of
from benchmarks.durability.harm import Victim
from benchmarks.durability.healthy import Healthy
from benchmarks.durability.runner import Options, Seen, run_trials
from retriever import Document, Index
from retriever.errors import DataLoss, DocumentNotFound, IndexCorrupt
from retriever.search.segment_kinds import KINDS
from retriever.storage import catalog, integrity, layout, pool
from retriever.storage.records import FILE_STATES

TRIALS = 90
PAGE = 8192
pytestmark = [pytest.mark.durability, pytest.mark.damages]


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> list[Healthy]:
    return damage.build(tmp_path_factory.mktemp("healthy"))


@pytest.fixture
def healthy(indexes: list[Healthy]) -> Healthy:
    return indexes[0]


def copy_of(healthy: Healthy, folder: Path) -> Victim:
    victim = Victim(healthy, folder / "damaged.index", random.Random(0))
    shutil.copytree(healthy.path, victim.path)
    return victim


def harmed(victim: Victim, kind: Callable[[Path, random.Random], str], name: str) -> Seen:
    """Damage one file and require all that the harness requires."""
    victim.classes.add(harm.class_of(name))
    victim.kinds.append(kind.__name__)
    victim.told.append(kind(victim.path / name, victim.rng))
    return damage.examine(victim)


def noticed(seen: Seen) -> bool:
    return any(name.startswith("noticed") for name in seen)


def said(victim: Victim) -> tuple[of.State, list[str]]:
    return of.ask(victim.path, victim.healthy.ids)


def is_sound(victim: Victim) -> bool:
    ok: bool = integrity.verify(victim.path, kinds=KINDS).ok
    return ok


def test_the_indexes_under_test_have_all_parts(indexes: list[Healthy]) -> None:
    killed, closed, rebuilding_ = indexes
    names = {path.name for path in killed.path.iterdir()}
    assert set(harm.CLASSES) <= names
    assert len(list(killed.path.glob("*.faiss"))) >= 3
    assert (killed.path / "store.db").stat().st_size > 10 * PAGE
    assert {"store.db-wal", "store.db-shm"} & {path.name for path in closed.path.iterdir()} == set()
    assert rebuilding_.newest["status"]["building"]
    for healthy in indexes:
        assert len(healthy.older) >= 5
        assert len(healthy.newest["search all"]) > 90
        assert asdict(healthy.newest["status"]["files"]) == dict.fromkeys(FILE_STATES, 1)
        assert healthy.newest["get d003"] is None
        assert healthy.newest["search supplied"][0].document_id == "supplied"


def test_stamping_again_leaves_the_log_and_all_answers(healthy: Healthy, tmp_path: Path) -> None:
    victim = copy_of(healthy, tmp_path)
    log = victim.path / "store.db-wal"
    size = log.stat().st_size
    of.stamp_again(victim.path)
    assert log.stat().st_size > size
    assert said(victim) == (healthy.newest, [])


def test_random_damage_is_noticed_or_harmless_and_is_mended(
    indexes: list[Healthy], tmp_path: Path
) -> None:
    outcome = run_trials(
        "damage",
        Options(TRIALS, folder=tmp_path),
        lambda seed, folder: damage.trial(indexes, seed, folder),
    )
    assert not outcome.failures, outcome.failures[0]
    for name in ("open", "operation", "verify only"):
        assert outcome.seen[f"noticed by {name}"], dict(outcome.seen)
    for name in ("repaired whole", "repaired with a named loss", "written to"):
        assert outcome.seen[name], dict(outcome.seen)


@pytest.mark.parametrize("kind", [harm.cut, harm.zero, harm.remove, harm.empty])
@pytest.mark.parametrize("what", ["store.db", "store.db-wal", "store.db-shm", "HEAD"])
def test_a_damaged_database_or_head_is_noticed_and_mended(
    healthy: Healthy, tmp_path: Path, kind: Callable[[Path, random.Random], str], what: str
) -> None:
    seen = harmed(copy_of(healthy, tmp_path), kind, what)
    assert noticed(seen) or what == "store.db-shm" or kind in (harm.zero, harm.cut)


@pytest.mark.parametrize("kind", [harm.cut, harm.zero, harm.remove, harm.empty])
def test_damaged_segments_change_no_answer_and_are_built_again(
    healthy: Healthy, tmp_path: Path, kind: Callable[[Path, random.Random], str]
) -> None:
    for path in healthy.path.glob("segment-*"):
        seen = harmed(copy_of(healthy, tmp_path / path.name), kind, path.name)
        assert seen["noticed by verify only"]
        assert seen["repaired whole"]


def test_every_segment_may_go_at_once(healthy: Healthy, tmp_path: Path) -> None:
    victim = copy_of(healthy, tmp_path)
    for segment in victim.path.glob("segment-*"):
        segment.unlink()
    assert said(victim) == (healthy.newest, [])
    victim.classes |= harm.SEGMENT_CLASSES
    assert damage.examine(victim)["repaired whole"]


def test_a_change_whose_time_was_put_back_is_noticed(healthy: Healthy, tmp_path: Path) -> None:
    """A segment's stamp has the time of its inode's last change, which nobody can set."""
    victim = copy_of(healthy, tmp_path)
    of.stamp_again(victim.path)
    harm.hide(victim.path / segment_names(victim)[0], random.Random(1))
    assert said(victim) == (healthy.newest, [])
    assert not is_sound(victim)


def test_rot_that_no_stamp_tells_of_is_noticed_by_the_scores(
    healthy: Healthy, tmp_path: Path
) -> None:
    victim = copy_of(healthy, tmp_path)
    name = next(name for name in segment_names(victim) if name.endswith(".faiss"))
    data = bytearray((victim.path / name).read_bytes())
    data[-64:] = bytes(64)  # the last vector
    (victim.path / name).write_bytes(data)
    of.stamp_again(victim.path)
    answers, raised = said(victim)
    assert not raised
    assert answers == healthy.newest
    assert not is_sound(victim)


def segment_names(victim: Victim) -> list[str]:
    return [name for name in victim.names() if name.startswith(layout.SEGMENT)]


@pytest.mark.parametrize("names", [("store.db", "store.db-wal"), ("store.db-wal",)])
def test_an_older_copy_of_the_database_is_data_loss(
    healthy: Healthy, tmp_path: Path, names: tuple[str, ...]
) -> None:
    victim = copy_of(healthy, tmp_path)
    for name in names:
        shutil.copy(healthy.older[1] / name, victim.path / name)
        victim.classes.add(harm.class_of(name))
    with pytest.raises(DataLoss) as caught:
        of.open_index(victim.path)
    assert caught.value.hint
    with pytest.raises(DataLoss):
        Index.repair_path(victim.path, model=of.encoder())
    assert damage.examine(victim)["repaired with a named loss"]


def test_an_older_head_is_a_commit_before_its_acknowledgement(
    healthy: Healthy, tmp_path: Path
) -> None:
    victim = copy_of(healthy, tmp_path)
    shutil.copy(healthy.older[1] / "HEAD", victim.path / "HEAD")
    assert said(victim) == (healthy.newest, [])
    assert is_sound(victim)


def test_a_database_without_its_first_page_is_refused_and_kept(
    healthy: Healthy, tmp_path: Path
) -> None:
    path = copy_of(healthy, tmp_path).path
    (path / "store.db-wal").unlink()
    (path / "store.db-shm").unlink()
    with (path / "store.db").open("r+b") as file:
        file.write(bytes(PAGE))
    with pytest.raises(IndexCorrupt):
        of.open_index(path)
    with pytest.raises(IndexCorrupt) as caught:
        Index.repair_path(path, model=of.encoder(), accept_loss=True)
    assert caught.value.repair is False
    assert (path / "store.db").stat().st_size > 0


def test_a_directory_in_the_place_of_head_is_set_aside_with_a_damaged_database(
    healthy: Healthy, tmp_path: Path
) -> None:
    victim = copy_of(healthy, tmp_path)
    (victim.path / "HEAD").unlink()
    (victim.path / "HEAD").mkdir()
    work.spoil_database(victim.path, 0)
    report = Index.repair_path(victim.path, model=of.encoder())
    assert report.ok
    assert any(name.startswith("quarantine/HEAD.") for name in report.quarantined)
    assert is_sound(victim)


def test_a_deleted_document_does_not_come_back_with_a_repair(
    healthy: Healthy, tmp_path: Path
) -> None:
    path = copy_of(healthy, tmp_path).path
    (path / "HEAD").write_bytes(b"{}\n")
    report = Index.repair_path(path, model=of.encoder())
    assert "HEAD was missing or damaged, so lost commits cannot be detected" in report.actions
    with of.open_index(path) as index:
        assert index.get("d003") is None
        with pytest.raises(DocumentNotFound):
            index.delete(["d003"])


def test_an_embedding_brought_by_the_caller_is_named_when_it_is_lost(
    healthy: Healthy, tmp_path: Path
) -> None:
    path = copy_of(healthy, tmp_path).path
    connection = sqlite3.connect(path / "store.db")
    connection.execute(
        "UPDATE vectors_1 SET crc = crc + 1 WHERE chunk_id ="
        " (SELECT id FROM chunks WHERE precomputed = 1 AND chunking_id = 1)"
    )
    connection.commit()
    connection.close()
    report = Index.repair_path(path, model=of.encoder())
    (lost,) = report.lost
    assert lost.document_id == "supplied"
    assert "embedding" in lost.reason
    with of.open_index(path) as index:
        assert "embedding" in str(index.status().losses)
        assert index.get("supplied") == healthy.newest["documents"]["supplied"]


# --- pages in the place of others ----------------------------------------------------------------


def leaves_of(path: Path, table: str) -> list[int]:
    """Return the pages below the root of a table or an index, in order."""
    connection = sqlite3.connect(path / "store.db")
    sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
    (root,) = connection.execute(sql, (table,)).fetchone()
    connection.close()
    data = (path / "store.db").read_bytes()
    page = data[(root - 1) * PAGE : root * PAGE]
    assert page[0] in (2, 5), f"{table} has one page only"
    count = int.from_bytes(page[3:5])
    cells = [int.from_bytes(page[12 + 2 * i : 14 + 2 * i]) for i in range(count)]
    return [int.from_bytes(page[cell : cell + 4]) for cell in cells]


@pytest.mark.parametrize("table", ["documents", "sqlite_autoindex_documents_1", "vectors_1"])
@pytest.mark.parametrize("source", [0, 1])
def test_reading_ends_where_a_page_holds_the_rows_of_another(
    tmp_path: Path, table: str, source: int
) -> None:
    path = tmp_path / "a.index"
    with of.open_index(path) as index:
        index.add([Document(f"pump {i}", f"{i:04}{'x' * 300}") for i in range(600)])
    leaves = leaves_of(path, table)
    data = bytearray((path / "store.db").read_bytes())
    good, bad = (leaves[source] - 1) * PAGE, (leaves[2] - 1) * PAGE
    data[bad : bad + PAGE] = data[good : good + PAGE]
    (path / "store.db").write_bytes(data)
    with of.open_index(path, read_only=True) as index, suppress(IndexCorrupt):
        assert len(list(index.documents())) == 600
    with pool.reading(path) as connection, suppress(IndexCorrupt):
        space = catalog.active_space(connection)
        blocks = list(catalog.vector_blocks(connection, space, 0, 1 << 40, size=16))
        assert sum(len(ids) for ids, _ in blocks) == 600
    assert not integrity.verify(path, kinds=KINDS).ok
    report = Index.repair_path(path, model=of.encoder())
    assert report.ok
    named = {item.document_id for item in report.lost}
    with of.open_index(path, check="full") as index:
        found = {document.id for document in index.documents()}
        assert len(found) + len(named - found) == 600
        assert not named & found

"""Damage to any file is noticed, or makes no difference; and repair mends what can be mended.

RETRIEVER_DAMAGE_TRIALS=1000 RETRIEVER_DAMAGE_SEED=7 pytest tests/test_damage.py runs more.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import HashEncoder, unit_vectors

from retriever import Index
from retriever.errors import DataLoss, DocumentNotFound, IndexCorrupt, RetrieverError
from retriever.storage import files, integrity, segments

TRIALS = int(os.environ.get("RETRIEVER_DAMAGE_TRIALS", "60"))
SEED = int(os.environ.get("RETRIEVER_DAMAGE_SEED", "0"))
DIMENSION = 16
ENCODER = HashEncoder(DIMENSION, max_tokens=12)
QUERIES = unit_vectors(6, DIMENSION, 1)
PAGE = 8192
# A process that ends without closing leaves the write-ahead log, as a kill does.
BUILD = """
import os, sys
sys.path.insert(0, sys.argv[1])
from support import HashEncoder
from retriever import Document, Index
from retriever.storage import segments
segments.TAIL_ROWS, segments._FAN_IN = 24, 99
index = Index.open(sys.argv[2], model=HashEncoder(16, max_tokens=12))
def text(n):
    return f"The pump number {n} stands in hall {n % 7}. " * (1 + n % 5) + f"Öl {n}"
def add(first, last, more=""):
    index.add([Document(text(n) + more, f"d{n:03d}", {"n": n}) for n in range(first, last)])
if sys.argv[3] == "first":
    for first in range(0, 60, 20):
        add(first, first + 20)
    index.add([Document("", "empty")])
else:
    index.delete(["d003", "d025"])
    add(30, 32, " since yesterday")
    add(60, 64)
os._exit(0)
"""
pytestmark = [pytest.mark.durability, pytest.mark.damages]


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "TAIL_ROWS", 24)


class Healthy:
    """An index with segments, a tail, deleted rows and a log; and a copy from before the end."""

    def __init__(self, folder: Path) -> None:
        self.path, self.older = folder / "healthy.index", folder / "older.index"
        self._build("first")
        shutil.copytree(self.path, self.older)
        self._build("second")
        copy = folder / "copy.index"
        shutil.copytree(self.path, copy)
        self.content, self.problems = observe(copy)
        with Index.open(copy, read_only=True) as index:
            self.status = index.status()
        shutil.copytree(self.older, folder / "older copy.index")
        self.before = observe(folder / "older copy.index")[0]["documents"]

    def _build(self, stage: str) -> None:
        tests = str(Path(__file__).parent)
        command = [sys.executable, "-c", BUILD, tests, str(self.path), stage]
        subprocess.run(command, check=True, timeout=60)

    def names(self) -> list[str]:
        ours = [path.name for path in self.path.iterdir() if path.is_file()]
        return sorted(name for name in ours if name not in (files.LOCK, files.IGNORE))


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Healthy:
    return Healthy(tmp_path_factory.mktemp("healthy"))


def observe(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return all that an index says when asked everything, and the errors it raised."""
    said: dict[str, Any] = {}
    raised: list[str] = []

    def ask(name: str, question: Callable[[], Any]) -> None:
        try:
            said[name] = question()
        except RetrieverError as error:
            raised.append(f"{name}: {error}")

    try:
        index = Index.open(path, model=ENCODER, read_only=True)
    except RetrieverError as error:
        return said, [f"open: {error}"]
    with index:
        ask("documents", lambda: {document.id: document for document in index.documents()})
        ask("count", index.count)
        for name in said.get("documents", ()):
            ask(f"get {name}", lambda name=name: index.get(name))
            ask(f"chunks {name}", lambda name=name: index.chunks(name))
        for number, query in enumerate(QUERIES):
            ask(f"search {number}", lambda query=query: index.search(vector=query, k=30).hits)
        ask("all", lambda: index.search("pump in hall 3", k=1000).hits)
    return said, raised


def damaged_copy(healthy: Healthy, folder: Path, damage: Callable[[Path], None]) -> Path:
    path = folder / "damaged.index"
    shutil.copytree(healthy.path, path)
    damage(path)
    return path


def check_nothing_is_silent(healthy: Healthy, path: Path) -> bool:
    """Require that what is said is right, or that something complains; return whether it does."""
    said, raised = observe(path)
    report = integrity.verify(path)
    assert raised or not report["ok"] or said == healthy.content
    for name, answer in said.items():
        if name != "count":
            assert answer == healthy.content[name] or not report["ok"], f"{name} is wrong"
    if "documents" in said:
        for name, document in said["documents"].items():
            assert document == healthy.content["documents"][name]
    hits = [hit for name, found in said.items() if name[0] in "sa" for hit in found]
    for hit in hits:
        kept = healthy.content["documents"][hit.document_id]
        assert hit.text == kept.text[slice(*hit.span)], "a hit shows text that was not written"
    return bool(raised) or not report["ok"]


def check_repair(healthy: Healthy, path: Path) -> None:
    """Require that repair leaves a sound index and names what is lost, or says it cannot."""
    before = {name.name for name in path.iterdir()}
    accepted = False
    try:
        try:
            report = Index.repair_path(path, model=ENCODER)
        except DataLoss:
            accepted = True
            report = Index.repair_path(path, model=ENCODER, accept_loss=True)
    except IndexCorrupt as error:
        _check_refusal(path, error, before)
        return
    assert report["ok"], report["verify"]["problems"]
    for name in report["quarantined"]:
        assert (path / name).is_file()
    with Index.open(path, model=ENCODER, check="full") as index:
        found = {document.id: document for document in index.documents()}
        losses = index.status()["losses"]
        assert not accepted or losses
        _check_loss(healthy, found, report, losses)
        for query in QUERIES:
            for hit in index.search(vector=query, k=30):
                assert hit.text == found[hit.document_id].text[slice(*hit.span)]
        total = sum(len(index.chunks(name)) for name in found)
        assert len(index.search(vector=QUERIES[0], k=10_000)) == total
        index.add(["one more"])
        assert index.verify(deep=True)["ok"]


def _check_refusal(path: Path, error: IndexCorrupt, before: set[str]) -> None:
    assert error.repair is False, f"repair gave up without saying so: {error}"
    assert error.hint
    kept = {name.name for name in path.iterdir()}
    assert {name for name in before if not name.endswith(("-shm", "-wal"))} <= kept


def _check_loss(
    healthy: Healthy, found: dict[str, Any], report: dict[str, Any], losses: list[Any]
) -> None:
    wanted = healthy.content["documents"]
    for name, document in found.items():
        is_older = losses and document == healthy.before.get(name)
        assert document == wanted.get(name) or is_older, f"{name} was never written like that"
    missing = wanted.keys() - found.keys()
    named = {item["document_id"] for item in report["lost"]}
    assert missing <= named or losses, f"{sorted(missing)} are lost, and nothing says so"


def flip(path: Path, rng: random.Random) -> str:
    position, bit = rng.randrange(path.stat().st_size), rng.randrange(8)
    with path.open("r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 1 << bit]))
    return f"bit {bit} of byte {position} of {path.name}"


def zero_a_page(path: Path, rng: random.Random) -> str:
    size = path.stat().st_size
    start = rng.randrange(0, size, PAGE)
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(min(PAGE, size - start)))
    return f"page at {start} of {path.name}"


def truncate(path: Path, rng: random.Random) -> str:
    size = rng.randrange(path.stat().st_size)
    os.truncate(path, size)
    return f"{path.name} cut to {size} bytes"


def remove(path: Path, _: random.Random) -> str:
    path.unlink()
    return f"{path.name} removed"


def empty(path: Path, _: random.Random) -> str:
    os.truncate(path, 0)
    return f"{path.name} emptied"


def harm(healthy: Healthy, folder: Path, kind: Any, name: str, seed: str) -> bool:
    rng = random.Random(seed)
    told = ""

    def damage(path: Path) -> None:
        nonlocal told
        told = kind(path / name, rng)

    path = damaged_copy(healthy, folder, damage)
    logging.getLogger(__name__).info("seed %r: %s", seed, told)
    complained = check_nothing_is_silent(healthy, path)
    check_repair(healthy, path)
    return complained


def test_the_index_under_test_has_all_parts(healthy: Healthy) -> None:
    names = healthy.names()
    assert healthy.problems == []
    assert {"HEAD", "store.db", "store.db-wal"} <= set(names)
    assert len([name for name in names if name.endswith(".faiss")]) >= 3
    assert healthy.status["tail_rows"] > 0
    assert len(healthy.content["all"]) > 90


@pytest.mark.parametrize("part", range(6))
def test_a_flipped_bit_is_noticed_or_harmless_and_is_mended(
    healthy: Healthy, tmp_path: Path, part: int
) -> None:
    names = [name for name in healthy.names() if not name.endswith("-shm")]
    weights = [6 if name.startswith("store.db") else 1 for name in names]
    complaints = 0
    for number in range(part, TRIALS, 6):
        seed = f"{SEED} flip {number}"
        (name,) = random.Random(seed).choices(names, weights)
        complaints += harm(healthy, tmp_path / str(number), flip, name, seed)
    assert complaints


@pytest.mark.parametrize("kind", [truncate, zero_a_page, remove, empty])
@pytest.mark.parametrize("what", ["store.db", "store.db-wal", "store.db-shm", "HEAD"])
def test_a_damaged_database_or_head_is_noticed_and_mended(
    healthy: Healthy, tmp_path: Path, kind: Any, what: str
) -> None:
    for number in range(max(1, TRIALS // 30)):
        seed = f"{SEED} {kind.__name__} {what} {number}"
        complained = harm(healthy, tmp_path / str(number), kind, what, seed)
        assert complained or what == "store.db-shm" or kind in (zero_a_page, truncate)


@pytest.mark.parametrize("kind", [truncate, zero_a_page, remove, empty])
def test_damaged_segments_change_no_answer_and_are_built_again(
    healthy: Healthy, tmp_path: Path, kind: Any
) -> None:
    for name in healthy.names():
        if name.startswith(files.SEGMENT):
            path = damaged_copy(
                healthy,
                tmp_path / name,
                lambda path, name=name: kind(path / name, random.Random(1)),
            )
            said, raised = observe(path)
            assert not raised
            assert said == healthy.content
            assert not integrity.verify(path)["ok"]
            check_repair(healthy, path)


def test_every_segment_may_go_at_once(healthy: Healthy, tmp_path: Path) -> None:
    def damage(path: Path) -> None:
        for segment in path.glob("segment-*"):
            segment.unlink()

    path = damaged_copy(healthy, tmp_path, damage)
    assert observe(path) == (healthy.content, [])
    check_repair(healthy, path)


@pytest.mark.parametrize("names", [("store.db", "store.db-wal"), ("store.db-wal",), ("store.db",)])
def test_an_older_copy_of_the_database_is_data_loss(
    healthy: Healthy, tmp_path: Path, names: tuple[str, ...]
) -> None:
    def damage(path: Path) -> None:
        (path / "store.db-shm").unlink()
        for name in names:
            shutil.copy(healthy.older / name, path / name)

    path = damaged_copy(healthy, tmp_path, damage)
    if (healthy.path / "store.db").read_bytes() == (healthy.older / "store.db").read_bytes():
        names = tuple(name for name in names if name != "store.db")
    if names:
        with pytest.raises((DataLoss, IndexCorrupt)) as caught:
            Index.open(path, model=ENCODER)
        assert caught.value.hint or isinstance(caught.value, IndexCorrupt)
    if names == ("store.db", "store.db-wal"):
        assert isinstance(caught.value, DataLoss)
        with pytest.raises(DataLoss):
            Index.repair_path(path, model=ENCODER)
    check_repair(healthy, path)


def test_an_older_head_is_a_commit_before_its_acknowledgement(
    healthy: Healthy, tmp_path: Path
) -> None:
    path = damaged_copy(
        healthy, tmp_path, lambda path: shutil.copy(healthy.older / "HEAD", path / "HEAD") and None
    )
    assert observe(path) == (healthy.content, [])
    assert integrity.verify(path)["ok"]


def test_a_database_without_its_first_page_is_refused_and_kept(
    healthy: Healthy, tmp_path: Path
) -> None:
    def damage(path: Path) -> None:
        (path / "store.db-wal").unlink()
        (path / "store.db-shm").unlink()
        with (path / "store.db").open("r+b") as file:
            file.write(bytes(PAGE))

    path = damaged_copy(healthy, tmp_path, damage)
    with pytest.raises(IndexCorrupt):
        Index.open(path, model=ENCODER)
    with pytest.raises(IndexCorrupt) as caught:
        Index.repair_path(path, model=ENCODER, accept_loss=True)
    assert caught.value.repair is False
    assert (path / "store.db").stat().st_size > 0


def test_a_deleted_document_does_not_come_back_with_a_repair(
    healthy: Healthy, tmp_path: Path
) -> None:
    def damage(path: Path) -> None:
        (path / "HEAD").write_bytes(b"{}\n")

    path = damaged_copy(healthy, tmp_path, damage)
    Index.repair_path(path, model=ENCODER)
    with Index.open(path, model=ENCODER) as index:
        assert index.get("d003") is None
        with pytest.raises(DocumentNotFound):
            index.delete(["d003"])

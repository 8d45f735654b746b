"""The model of a disk that loses its power, and a slice of benchmarks/durability/power.py."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from benchmarks.durability import disk, shim
from benchmarks.durability.shim import Event
from benchmarks.durability.work import spoil_database
from retriever import Index
from retriever.storage import head_file
from retriever.testing import HashEncoder

ROOT = "/disk"
REPOSITORY = Path(__file__).parent.parent


class Recording:
    """Writes events by hand; every path is below the root."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._handles = count(1)

    def put(self, kind: str, path: str = "", target: str = "", **fields: object) -> None:
        blank = {"handle": 0, "offset": 0, "data": b"", "created": False, "truncated": False}
        names = [f"{ROOT}/{name}".rstrip("/") for name in (path, target)]
        self.events.append(Event(kind=kind, path=names[0], target=names[1], **{**blank, **fields}))

    def open(self, path: str, **flags: bool) -> int:
        handle = next(self._handles)
        self.put("open", path, handle=handle, **flags)
        return handle

    def write(self, handle: int, data: bytes, offset: int = 0) -> None:
        self.put("write", handle=handle, offset=offset, data=data)

    def sync(self, handle: int) -> None:
        self.put("fsync", handle=handle)

    def sync_directory(self, path: str = "") -> None:
        self.sync(self.open(path))

    def made(self, path: str, data: bytes) -> int:
        """A file with its data and its name synced."""
        handle = self.open(path, created=True)
        self.write(handle, data)
        self.sync(handle)
        self.sync_directory(path.rpartition("/")[0])
        return handle

    def states(self, model: str, policies: list[str] = disk.POLICIES) -> Iterator[disk.Files]:
        for policy in policies:
            for seed in range(60):
                rng = random.Random(f"{policy} {seed}")
                yield disk.replay(self.events, ROOT, model, policy, rng).files

    def seen(self, model: str, path: str) -> set[bytes | None]:
        return {files.get(path) for files in self.states(model)}


@pytest.fixture
def recording() -> Recording:
    return Recording()


@pytest.mark.parametrize("model", disk.MODELS)
def test_what_was_synced_is_in_every_state(recording: Recording, model: str) -> None:
    recording.made("a", b"kept")
    assert recording.seen(model, "a") == {b"kept"}


@pytest.mark.parametrize("model", disk.MODELS)
def test_data_not_synced_may_be_lost_or_kept_and_the_size_may_be_either(
    recording: Recording, model: str
) -> None:
    handle = recording.made("a", b"old")
    recording.write(handle, b"NEWER")
    seen = recording.seen(model, "a")
    assert {b"old", b"NEWER", b"NEW", b"old\0\0"} <= seen


def test_a_file_whose_name_was_not_synced_may_be_gone_in_the_weak_model_only(
    recording: Recording,
) -> None:
    handle = recording.open("a", created=True)
    recording.write(handle, b"data")
    recording.sync(handle)
    assert recording.seen("weak", "a") == {None, b"data"}
    assert recording.seen("journalled", "a") == {b"data"}


def replaced(recording: Recording) -> None:
    recording.made("HEAD", b"1")
    recording.made("HEAD.tmp", b"2")
    recording.put("rename", "HEAD.tmp", "HEAD")


@pytest.mark.parametrize("model", ["journalled", "weak"])
def test_a_rename_without_fsync_of_the_directory_happened_or_did_not(
    recording: Recording, model: str
) -> None:
    replaced(recording)
    seen = {(files.get("HEAD"), files.get("HEAD.tmp")) for files in recording.states(model)}
    assert seen == {(b"1", b"2"), (b"2", None)}


def test_a_split_rename_may_leave_both_names_or_neither(recording: Recording) -> None:
    recording.made("a", b"1")
    recording.put("rename", "a", "b")
    seen = {(files.get("a"), files.get("b")) for files in recording.states("weak, split")}
    assert seen == {(b"1", None), (None, b"1"), (b"1", b"1"), (None, None)}


@pytest.mark.parametrize("model", disk.MODELS)
def test_a_rename_is_sure_after_an_fsync_of_the_directory(recording: Recording, model: str) -> None:
    replaced(recording)
    recording.sync_directory()
    assert recording.seen(model, "HEAD") == {b"2"}
    assert recording.seen(model, "HEAD.tmp") == {None}


def test_a_rename_before_the_fsync_of_its_file_may_show_no_data(recording: Recording) -> None:
    recording.made("HEAD", b"1")
    handle = recording.open("HEAD.tmp", created=True)
    recording.write(handle, b"2")
    recording.put("rename", "HEAD.tmp", "HEAD")
    recording.sync_directory()
    for model in disk.MODELS:
        assert {b"", b"\0", b"2"} == recording.seen(model, "HEAD")


def test_names_keep_their_order_in_the_journal_and_not_in_the_weak_model(
    recording: Recording,
) -> None:
    for name in "ab":
        recording.sync(recording.open(name, created=True))
    recording.put("unlink", "a")
    recording.put("unlink", "b")

    def left(model: str) -> set[str]:
        return {"".join(sorted(files)) for files in recording.states(model)}

    assert left("journalled") == {"ab", "b", ""}
    assert left("weak") == {"ab", "b", "a", ""}


@pytest.mark.parametrize("model", disk.MODELS)
def test_sectors_are_lost_one_by_one_and_never_torn(recording: Recording, model: str) -> None:
    handle = recording.made("a", b"o" * 4 * disk.SECTOR)
    recording.write(handle, b"n" * 4 * disk.SECTOR)
    seen = recording.seen(model, "a")
    assert len(seen) > 10
    for content in seen:
        assert content is not None
        for at in range(0, len(content), disk.SECTOR):
            assert len(set(content[at : at + disk.SECTOR])) == 1


@pytest.mark.parametrize("model", disk.MODELS)
def test_a_later_write_may_survive_an_earlier_one(recording: Recording, model: str) -> None:
    handle = recording.made("a", b"." * 2 * disk.SECTOR)
    recording.write(handle, b"1" * disk.SECTOR)
    recording.write(handle, b"2" * disk.SECTOR, disk.SECTOR)
    assert b"." * disk.SECTOR + b"2" * disk.SECTOR in recording.seen(model, "a")


@pytest.mark.parametrize("model", disk.MODELS)
def test_what_was_truncated_away_does_not_come_back_behind_what_was_written_after(
    recording: Recording, model: str
) -> None:
    handle = recording.made("log", b"o" * 2 * disk.SECTOR)
    recording.put("truncate", handle=handle, offset=0)
    recording.write(handle, b"n" * disk.SECTOR)
    old = b"o" * 2 * disk.SECTOR
    seen = recording.seen(model, "log")
    assert {old, b"", b"n" * disk.SECTOR} <= seen
    assert all(content == old or b"o" not in (content or b"") for content in seen)


@pytest.mark.parametrize("model", disk.MODELS)
def test_nothing_beneath_a_directory_outlives_its_name(recording: Recording, model: str) -> None:
    recording.put("mkdir", "d")
    recording.made("d/a", b"1")
    seen = {tuple(sorted(files)) for files in recording.states(model)}
    assert seen == ({("d", "d/a")} if model == "journalled" else {(), ("d", "d/a")})
    recording.sync_directory()
    assert {tuple(sorted(files)) for files in recording.states(model)} == {("d", "d/a")}


def test_two_names_of_one_file_show_the_same(recording: Recording) -> None:
    handle = recording.made("a", b"1")
    recording.put("link", "a", "b")
    recording.sync_directory()
    recording.write(handle, b"2")
    for state in recording.states("weak"):
        assert state["a"] == state["b"]


def test_what_was_there_before_the_recording_is_sure(recording: Recording) -> None:
    before = {"d": None, "d/a": b"old"}
    recording.put("unlink", "d/a")
    for policy, left in (("nothing", before), ("everything", {"d": None})):
        state = disk.replay(recording.events, ROOT, "weak", policy, random.Random(0), before=before)
        assert state.files == left


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_failed_fsync_loses_the_data_for_good_if_asked(
    recording: Recording, is_lost: bool
) -> None:
    handle = recording.made("a", b"old")
    recording.write(handle, b"new")
    recording.put("fsync failed", handle=handle)
    recording.sync(handle)
    state = disk.replay(
        recording.events, ROOT, "weak", "everything", random.Random(0), failed_syncs=is_lost
    )
    assert state.files == {"a": b"old" if is_lost else b"new"}


def test_marks_come_back_and_a_state_becomes_files(recording: Recording, tmp_path: Path) -> None:
    recording.put("mark", data=b"before")
    recording.put("mkdir", "d")
    recording.made("d/a", b"1")
    recording.put("mark", data=b"after")
    state = disk.replay(recording.events, ROOT, "weak", "everything", random.Random(0))
    assert state.marks == ["before", "after"]
    disk.materialise(state.files, tmp_path / "there")
    assert (tmp_path / "there" / "d" / "a").read_bytes() == b"1"


def test_a_repair_whose_rename_has_left_both_names_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "an.index"
    with Index.open(path, model=HashEncoder()) as index:
        index.add([f"pump {number}" for number in range(30)])
    spoil_database(path, 0)
    with monkeypatch.context() as patch:
        patch.setattr(head_file, "write_head", lambda *_: (_ for _ in ()).throw(InterruptedError))
        with pytest.raises(InterruptedError):
            Index.repair_path(path, model=HashEncoder())
    (ready,) = path.glob("repaired-*")
    os.link(path / "store.db", ready / "store.db")
    assert Index.repair_path(path, model=HashEncoder()).ok
    assert not list(path.glob("repaired-*"))
    with Index.open(path, model=HashEncoder()) as index:
        assert index.count() == 30


@pytest.mark.durability
@pytest.mark.skipif(bool(shim.unavailable()), reason=shim.unavailable() or "-")
def test_sixty_power_cuts_lose_nothing_acknowledged(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.durability", "power", "--count", "60"]
    ran = subprocess.run(
        [*command, "--seed", "60", "--folder", str(tmp_path / "power")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "power: 60 trials" in ran.stdout
    assert " 0 failed" in ran.stdout
    for what in ("torn", "something was dropped", "with acknowledged calls", "backups"):
        assert f"{what} " in ran.stdout

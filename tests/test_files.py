"""Files of an index: who may read them, how they get to the disk, where SQLite needs disk space."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from retriever import Index, Limits
from retriever.errors import IndexBusy, IndexCorrupt, WriteFailed
from retriever.storage import connections, files, head_file, pool
from retriever.storage.writer import Writer
from retriever.testing import HashEncoder

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "i.index"
    with Index.open(path, model=HashEncoder()) as index:
        index.add([{"id": f"{i:03}", "text": f"pump number {i}"} for i in range(40)])
    return path


def modes(path: Path) -> dict[str, int]:
    found = {entry.name: entry.stat().st_mode & 0o777 for entry in path.iterdir()}
    return {name: mode for name, mode in found.items() if name.startswith(("HEAD", "seg", "store"))}


def share(path: Path, mode: int) -> None:
    path.chmod(0o755)
    for entry in path.iterdir():
        entry.chmod(mode)


# --- who may read them ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o600])
def test_new_files_can_be_read_by_those_who_could_read_the_old_ones(path: Path, mode: int) -> None:
    share(path, mode)
    before = os.umask(0o077)
    try:
        with Index.open(path, model=HashEncoder(), limits=Limits(tail_rows=5)) as index:
            index.add("another commit, another segment, another log")
            index.count()
            found = modes(path)
            assert any(name.startswith("segment-") for name in found)
            assert set(found.values()) == {mode}, found
    finally:
        os.umask(before)


@pytest.mark.damages
@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_a_repaired_database_can_be_read_by_those_who_could_read_the_old_one(
    path: Path, mode: int
) -> None:
    share(path, mode)
    connection = sqlite3.connect(path / "store.db")
    connection.execute("UPDATE texts SET crc = crc + 1 WHERE document_pk = 3")
    connection.commit()
    connection.close()
    assert Index.repair_path(path, model=HashEncoder()).quarantined
    assert set(modes(path).values()) == {mode}


@needs_root
def test_files_written_by_root_stay_those_of_the_owner(path: Path) -> None:
    for entry in (path, *path.iterdir()):
        os.chown(entry, 65534, 65534)
    with Index.open(path, model=HashEncoder()) as index:
        index.add("root writes")
        index.compact()
    owners = {entry.name: entry.stat().st_uid for entry in path.iterdir()}
    assert set(owners.values()) == {65534}, owners


@needs_root
def test_a_group_that_cannot_be_kept_gives_no_other_group_rights(path: Path) -> None:
    share(path, 0o640)
    os.chown(path, 65534, 65534)
    for entry in path.iterdir():
        os.chown(entry, 65534, 4)
    (path / "LOCK").chmod(0o600)
    code = (
        "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "from pathlib import Path\n"
        "from retriever.storage import files\n"
        "path = Path(sys.argv[1])\n"
        "raw = path.joinpath('HEAD').read_bytes()\n"
        "files.publish(path, 'HEAD', lambda sink: sink(raw) and None)"
    )
    path.parent.chmod(0o755)
    for parent in path.parents:
        if not parent.stat().st_mode & 0o005:
            pytest.skip(f"{parent} is closed to others")
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    if "Permission" in done.stderr and "site-packages" in done.stderr:
        pytest.skip("the interpreter is closed to others")
    assert done.returncode == 0, done.stderr
    assert (path / "HEAD").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("fails", [True, False])
def test_a_write_under_a_reader_who_may_not_write_is_not_damage(
    path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    monkeypatch.setattr(pool, "is_frozen", lambda _: True)
    with pytest.raises(IndexBusy), pool.reading(path) as connection:  # noqa: PT012
        connection.execute("SELECT count(*) FROM documents").fetchone()
        os.utime(path / "store.db", ns=(1, 1))
        if fails:
            raise IndexCorrupt("half of a write", path=str(path), check="database")


# --- how they get to the disk --------------------------------------------------------------------


def test_what_macos_needs_is_asked_for_where_it_is_known(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[int] = Counter()
    synced = []
    fsync = os.fsync

    def full(descriptor: int, operation: int) -> int:
        asked[operation] += 1
        return 0

    monkeypatch.setattr(files, "_FULL_SYNC", 51)
    monkeypatch.setattr(files.fcntl, "fcntl", full)
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(fsync(descriptor)))
    head_file.write_head(path, head_file.read_head(path) or head_file.Head(0, b""))
    assert asked == {51: 2}  # HEAD, and its directory
    assert not synced
    connection = connections.connect(path, "rw")
    for pragma in ("fullfsync", "checkpoint_fullfsync"):
        assert connection.execute(f"PRAGMA {pragma}").fetchone() == (1,)
    connection.close()


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.EIO])
def test_a_full_sync_that_fails_is_not_taken_for_one_that_is_not_known(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, "_FULL_SYNC", 51)
    monkeypatch.setattr(files.fcntl, "fcntl", fail)
    head = head_file.read_head(path)
    assert head is not None
    if number == errno.ENOTSUP:
        head_file.write_head(path, head)
    else:
        with pytest.raises(WriteFailed):
            head_file.write_head(path, head)


def test_nothing_is_synced_but_by_the_one_function() -> None:
    package = Path(files.__file__).parent.parent
    for source in package.rglob("*.py"):
        is_ours = source == Path(files.__file__)
        assert source.read_text(encoding="utf-8").count("os.fsync(") == is_ours, source


# --- where SQLite needs disk space --------------------------------------------------------------


def test_the_hint_names_the_directory_in_which_there_is_no_room(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nothing is here"))
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path))
    writer = Writer.open(path, timeout_s=1)
    monkeypatch.setattr(writer, "_commit", _no_room)
    with pytest.raises(WriteFailed) as caught:
        writer.vacuum()
    writer.close()
    assert str(tmp_path) in caught.value.hint
    assert "SQLITE_TMPDIR" in caught.value.hint
    assert " 1 MB" in caught.value.hint


def _no_room(_: str) -> None:
    exc = sqlite3.OperationalError("database or disk is full")
    exc.sqlite_errorcode = sqlite3.SQLITE_FULL
    raise exc


# --- while a repair puts another database in place -----------------------------------------------


@pytest.mark.damages
def test_who_opens_or_reads_during_a_repair_sees_the_index_before_or_after_it(path: Path) -> None:
    code = """
import sys
from pathlib import Path
from retriever.testing import HashEncoder
from retriever import Index
path = Path(sys.argv[1])
held = Index.open(path, model=HashEncoder())
last, opened = -1, 0
print("ready", flush=True)
while not (path.parent / "stop").exists():
    with Index.open(path, model=HashEncoder()) as index:
        assert index.count() == 40
        opened += 1
    assert held.count() == 40
    assert held.search("pump number 7", k=1)[0].document_id
    seq = held.status().seq
    assert seq >= last, (seq, last)
    last = seq
held.close()
print(opened)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        try:
            for turn in range(8):
                with Index.open(path, model=HashEncoder()) as index:
                    index.add([{"id": "007", "text": f"pump number 7 turn {turn}"}])
                connection = sqlite3.connect(path / "store.db")
                connection.execute(
                    "UPDATE commits SET n_added = n_added + 1"  # which no search reads
                    " WHERE seq = (SELECT max(seq) FROM commits)"
                )
                connection.commit()
                connection.close()
                report = Index.repair_path(path, model=HashEncoder())
                assert "copied every sound row into a new database" in report.actions
        finally:
            (path.parent / "stop").touch()
        said, complaint = process.communicate(timeout=60)
    assert process.returncode == 0, complaint
    assert int(said) > 0


@pytest.mark.damages
def test_a_copy_that_a_dead_repair_has_left_makes_nobody_wait(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path / "repaired-0123abcd").mkdir()
    waited = []
    monkeypatch.setattr(pool, "sleep", waited.append)
    with Index.open(path, model=HashEncoder()) as index:
        assert index.count() == 40
    assert not waited
    with Index.open(path, model=HashEncoder()) as index, index.writing():
        thread = threading.Thread(target=index.count)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()

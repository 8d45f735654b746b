"""The index directory under stress: locks, forks, HEAD, full and read-only disks."""

from __future__ import annotations

import errno
import itertools
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

import retriever
from retriever import Document, Index, Limits
from retriever.search.vectors import write_flat
from retriever.storage import (
    catalog,
    checksums,
    files,
    head_file,
    layout,
    locking,
    row_checks,
    tables,
)
from retriever.storage.writer import Writer
from retriever.testing import HashEncoder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.index"


def fill(path: Path, n: int = 20, **options) -> None:
    with Index.open(path, model=HashEncoder(), **options) as index:
        index.add([{"text": f"pump number {i}", "id": f"{i:03}"} for i in range(n)])


def run_as_nobody(code: str, *args: object) -> subprocess.CompletedProcess:
    """Run Python without root's power over permissions, once everything is imported."""
    prelude = (
        "import os, sys\n"
        "from retriever.testing import HashEncoder\n"
        "import faiss, sqlite_utils, retriever.index, retriever.encoders.canaries\n"
        "import retriever.maintenance, retriever.ingest.folder, retriever.storage.backup\n"
        "if os.geteuid() == 0: os.setgid(65534); os.setuid(65534)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", prelude + code, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=60,
    )


# --- locks and processes -------------------------------------------------------------------------


def test_the_lock_of_a_killed_writer_is_free_at_once(path: Path):
    fill(path)
    code = (
        "import sys, time; from retriever import Index\n"
        "from retriever.testing import HashEncoder\n"
        "with Index.open(sys.argv[1], model=HashEncoder()).writing() as index:\n"
        "    index.add('before the kill'); print('ready', flush=True); time.sleep(60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "ready\n"
    with Index.open(path, model=HashEncoder(), lock_timeout_s=0.1) as index:
        with pytest.raises(retriever.IndexLocked, match=f"process {child.pid} on") as caught:
            index.add("too early")
        assert caught.value.pid == child.pid
        assert caught.value.exit_code == 5
        assert index.count() == 21
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        index.add("after the kill")
        assert index.count() == 22
        assert index.status().locked_by is None


def test_after_a_fork_every_call_raises_and_the_parent_keeps_its_lock(path: Path):
    context = multiprocessing.get_context("fork")
    with Index.open(path, model=HashEncoder()) as index, index.writing():
        index.add("one")
        receiver, sender = context.Pipe()

        def child() -> None:
            codes = []
            for call in (index.count, lambda: index.add("two"), lambda: index.search("one")):
                try:
                    call()
                    codes.append("worked")
                except retriever.RetrieverError as exc:
                    codes.append(exc.code)
            index.close()
            sender.send(codes)
            os._exit(0)

        process = context.Process(target=child)
        process.start()
        codes = receiver.recv()
        process.join()
        sender.close()
        receiver.close()
        assert codes == ["index_closed"] * 3
        index.add("three")
        assert index.count() == 2
        other = Index.open(path, model=HashEncoder(), lock_timeout_s=0.05)
        with other, pytest.raises(retriever.IndexLocked):
            other.add("four")


def test_a_forked_child_that_outlives_its_parent_holds_no_lock(path: Path):
    fill(path)
    code = (
        "import os, sys, time; from retriever import Index\n"
        "from retriever.testing import HashEncoder\n"
        "with Index.open(sys.argv[1], model=HashEncoder()).writing() as index:\n"
        "    if os.fork() == 0:\n"
        "        time.sleep(20); os._exit(0)\n"
        "    print('ready', flush=True); os.kill(os.getpid(), 9)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdout.readline() == "ready\n"
    child.stdout.close()
    child.wait()
    with Index.open(path, model=HashEncoder(), lock_timeout_s=0.5) as index:
        index.add("free")
        assert index.count() == 21
    os.killpg(child.pid, signal.SIGKILL)


def test_a_network_file_system_is_refused_for_writing_unless_told_otherwise(
    path: Path, tmp_path: Path, monkeypatch
):
    fill(path)
    device = path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 0:5 / /proc rw - proc proc rw\n"
        f"30 1 {os.major(device)}:{os.minor(device)} / {path} rw - nfs4 server:/x rw\n"
    )
    monkeypatch.setattr(locking, "_MOUNTS", mounts)
    with Index.open(path, model=HashEncoder()) as index:
        with pytest.raises(retriever.IndexReadOnly, match="on a nfs4 file system") as caught:
            index.add("no")
        assert locking.ALLOW_NETWORK in caught.value.hint
        assert len(index.search("pump", k=30)) == 20
        monkeypatch.setenv(locking.ALLOW_NETWORK, "1")
        index.add("yes")
        assert index.count() == 21


def test_the_content_of_lock_never_decides(path: Path):
    fill(path)
    (path / "LOCK").write_text(json.dumps({"pid": os.getpid(), "host": "h", "since": "then"}))
    assert locking.read_holder(path) is None
    fill(path, 1)


# --- HEAD ----------------------------------------------------------------------------------------


def test_head_names_the_last_commit_and_its_chain(path: Path):
    fill(path)
    head = head_file.read_head(path)
    connection = sqlite3.connect(path / "store.db")
    last = connection.execute(
        "SELECT seq, n_added, n_deleted, live_sum, chain FROM commits ORDER BY seq DESC"
    ).fetchall()
    connection.close()
    assert (head.seq, head.chain) == (last[0][0], last[0][4])
    for (seq, added, deleted, live, chain), (*_, previous) in itertools.pairwise(last):
        assert checksums.chain(previous, seq, added, deleted, live) == chain


def test_a_crash_between_commit_and_head_is_repaired_by_the_next_writer(path: Path):
    fill(path)
    old = (path / "HEAD").read_bytes()
    fill(path, 1)
    (path / "HEAD").write_bytes(old)
    with Index.open(path, model=HashEncoder()) as index:
        assert index.count() == 20
        index.add("next")
        assert head_file.read_head(path).seq == index.status().seq


@pytest.mark.damages
def test_an_older_database_under_a_newer_head_is_data_loss(path: Path):
    fill(path)
    shutil.copytree(path, path.with_name("old"))
    with Index.open(path, model=HashEncoder()) as index:
        index.add("the commit that will be lost")
    shutil.copy(path.with_name("old") / "store.db", path / "store.db")
    with pytest.raises(retriever.DataLoss, match="was acknowledged") as caught:
        Index.open(path)
    assert caught.value.exit_code == 4
    with pytest.raises(retriever.DataLoss):
        Index.repair_path(path)
    report = Index.repair_path(path, model=HashEncoder(), accept_loss=True)
    assert report.ok, report
    with Index.open(path, model=HashEncoder()) as index:
        assert index.count() == 20
        assert "was acknowledged" in index.status().losses[0].detail
        index.add("life goes on")
        assert index.verify(deep=True).ok


@pytest.mark.damages
@pytest.mark.parametrize("damage", ["missing", "garbage", "flipped", "empty"])
def test_a_damaged_head_is_named_and_repaired(path: Path, damage: str):
    fill(path)
    head = path / "HEAD"
    raw = head.read_bytes()
    if damage == "missing":
        head.unlink()
    else:
        flipped = raw.replace(b'"seq": 1', b'"seq": 3')
        head.write_bytes({"garbage": b"\xff\x00", "flipped": flipped, "empty": b""}[damage])
    with pytest.raises(retriever.IndexCorrupt, match="HEAD"):
        Index.open(path)
    report = Index.repair_path(path, model=HashEncoder())
    assert report.ok
    assert "HEAD" in report.actions[0]
    with Index.open(path, model=HashEncoder()) as index:
        assert index.count() == 20
        assert index.status().losses == ()


# --- formats and foreign databases ---------------------------------------------------------------


@pytest.mark.damages
def test_another_format_is_refused_with_a_remedy(path: Path):
    fill(path)
    connection = sqlite3.connect(path / "store.db")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(retriever.FormatMismatch, match="format 98") as caught:
        Index.open(path)
    assert (caught.value.found, caught.value.supported) == (98, layout.FORMAT)
    assert "newer version" in caught.value.hint


@pytest.mark.damages
@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TRIGGER t AFTER DELETE ON texts BEGIN DELETE FROM documents; END",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TABLE extra(x)",
        "DROP INDEX chunks_by_text",
    ],
)
def test_a_schema_that_is_not_ours_is_refused(path: Path, sql: str):
    fill(path)
    connection = sqlite3.connect(path / "store.db")
    connection.execute(sql)
    connection.close()
    with pytest.raises(retriever.IndexCorrupt, match="schema"):
        Index.open(path)


def test_a_schema_that_is_no_text_is_damage(path: Path):
    Index.open(path, model=HashEncoder()).close()
    database = path / "store.db"
    database.write_bytes(
        database.read_bytes().replace(b"CREATE TABLE texts", b"CREATE TABL\xbc texts")
    )
    with pytest.raises(retriever.IndexCorrupt, match=r"is damaged: its schema is no text"):
        Index.open(path, model=HashEncoder(), read_only=True)
    assert not Index.verify_path(path).ok
    with pytest.raises(retriever.IndexCorrupt) as caught:
        Index.repair_path(path, model=HashEncoder())
    assert not caught.value.repair


def test_a_creation_that_was_cut_short_is_finished(path: Path):
    path.mkdir()
    (path / "LOCK").touch()
    (path / "store.db").touch()
    with pytest.raises(retriever.IndexNotFound):
        Index.open(path)
    fill(path)
    with Index.open(path) as index:
        assert index.count() == 20


def test_an_index_is_private_to_its_owner(path: Path):
    fill(path)
    assert path.stat().st_mode & 0o077 == 0
    assert (path / "store.db").stat().st_mode & 0o077 == 0
    assert (path / ".gitignore").read_text() == "*\n"


# --- segments ------------------------------------------------------------------------------------


@pytest.mark.damages
@pytest.mark.parametrize("suffix", ["faiss", "ids"])
@pytest.mark.parametrize("damage", ["gone", "cut", "flipped", "empty"])
def test_a_damaged_segment_is_noticed_searched_around_and_rebuilt(
    path: Path, caplog, suffix: str, damage: str
):
    limits = Limits(tail_rows=5)
    fill(path, limits=limits)
    with Index.open(path, model=HashEncoder(), limits=limits) as index:
        index.delete("003")
        expected = [(hit.document_id, hit.score) for hit in index.search("pump number 7", k=19)]
    (victim,) = path.glob(f"segment-*.{suffix}")
    raw = bytearray(victim.read_bytes())
    raw[len(raw) // 2] ^= 16
    if damage == "gone":
        victim.unlink()
    else:
        victim.write_bytes({"cut": raw[:-9], "flipped": raw, "empty": b""}[damage])
    with Index.open(path, model=HashEncoder(), limits=limits) as index:
        assert not index.verify().ok
        found = [(hit.document_id, hit.score) for hit in index.search("pump number 7", k=19)]
        assert found == expected
        assert "missing or damaged" in caplog.text
        index.add("the next write mends it")
        assert index.verify(deep=True).ok
    assert any((path / "quarantine").iterdir())


def test_a_copied_index_is_hashed_once_and_stamped_again(path: Path, caplog):
    limits = Limits(tail_rows=5)
    fill(path, limits=limits)
    copy = path.with_name("copy.index")
    shutil.copytree(path, copy)
    with Index.open(copy, model=HashEncoder(), limits=limits) as index:
        assert len(index.search("pump", k=20)) == 20
        assert caplog.text == ""
        index.add("one more")
        for segment in copy.glob("segment-*"):
            assert segment.stat().st_ino
        assert index.verify(deep=True).ok


def test_segments_are_merged_within_a_limit_and_by_compact(path: Path):
    limits = Limits(tail_rows=10, merge_bytes=100 * 32 * 4)
    with Index.open(path, model=HashEncoder(), limits=limits) as index:
        for i in range(40):
            index.add([{"text": f"pump {i} {j}", "id": f"{i}-{j}"} for j in range(11)])
        found = [s for s in index.status().segments if s.name.endswith(".faiss")]
        assert sum(segment.rows for segment in found) == 440
        assert 4 <= len(found) <= 12
        assert all(segment.rows <= 100 for segment in found)
        index.delete([f"{i}-0" for i in range(40)])
        report = index.compact()
        assert [segment.rows for segment in index.status().segments] == [400, 400]
        assert report.segments_written == 2
        assert index.compact().segments_written == 0
    assert len(list(path.glob("segment-*"))) == 3


def test_stray_files_are_left_alone_and_temporary_ones_swept(path: Path):
    fill(path)
    (path / "notes.txt").write_text("mine")
    (path / "HEAD.12345678.tmp").write_text("half")
    (path / "segment-000000000001-0123456789ab.faiss").write_bytes(b"never published")
    fill(path, 1)
    names = {entry.name for entry in path.iterdir()}
    assert "notes.txt" in names
    assert not any(name.endswith(".tmp") or name.startswith("segment-") for name in names)
    with Index.open(path) as index:
        assert index.verify().warnings == ("notes.txt is not a file of the index",)


# --- disks ---------------------------------------------------------------------------------------


def add_until_full(index: Index) -> None:
    for i in range(50):
        index.add({"text": f"{i} " + "x" * 20_000, "id": f"big-{i}"})


def test_a_full_disk_is_write_failed_and_loses_nothing(path: Path):
    fill(path)
    with Index.open(path, model=HashEncoder()) as index:
        # The model of languages is loaded here, for which it writes a larger temporary file.
        index.add({"text": "x" * 20_000, "id": "before"})
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
        try:
            with pytest.raises(retriever.WriteFailed, match="failed") as caught:
                add_until_full(index)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.exit_code == 8
        kept = index.count()
        assert 20 <= kept < 70
        index.add("there is space again")
        assert index.count() == kept + 1


def test_a_directory_that_cannot_be_written_is_readable_and_says_so(tmp_path: Path):
    path = Path("/tmp") / f"retriever-test-{os.getpid()}-{time.time_ns()}"
    try:
        fill(path)
        path.chmod(0o555)
        for entry in path.iterdir():
            entry.chmod(0o444)
        done = run_as_nobody(
            "from retriever import Index, RetrieverError\n"
            "with Index.open(sys.argv[1], model=HashEncoder()) as index:\n"
            "    print(len(index.search('pump', k=30)), index.verify().ok)\n"
            "    try: index.add('x')\n"
            "    except RetrieverError as exc: print(exc.code, exc.exit_code)\n",
            path,
        )
        assert done.stdout.split("\n")[:2] == ["20 True", "index_read_only 8"], done.stderr
    finally:
        path.chmod(0o755)
        shutil.rmtree(path)


def test_a_failed_fsync_is_never_retried(path: Path, monkeypatch):
    fill(path)
    calls = []

    def refuse(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(5, "Input/output error")

    with Index.open(path, model=HashEncoder()) as index:
        with index.writing():
            monkeypatch.setattr(os, "fsync", refuse)
            with pytest.raises(retriever.WriteFailed) as caught:
                index.add({"text": "committed, but HEAD was not", "id": "late"})
            assert caught.value.durable
            assert len(calls) == 1
            monkeypatch.undo()
            with pytest.raises(retriever.WriteFailed, match="closed by an earlier failure"):
                index.add("not before reopening")
        assert index.get("late") is not None
        index.add("fine again")
        assert index.verify().ok


# --- rot in the database -------------------------------------------------------------------------


@pytest.mark.damages
@pytest.mark.parametrize(
    ("sql", "check"),
    [
        ("UPDATE texts SET utf8 = CAST('rotten' AS BLOB) WHERE document_pk = 3", "documents"),
        ("UPDATE documents SET metadata = '{\"a\":1}' WHERE pk = 3", "documents"),
        ("UPDATE chunks SET char_start = 1 WHERE id = 3", "documents"),
        ("UPDATE vectors_1 SET data = zeroblob(128) WHERE chunk_id = 3", "vectors"),
        ("DELETE FROM vectors_1 WHERE chunk_id = 3", "vectors"),
        ("DELETE FROM ledgers WHERE document_pk = 3", "history"),
        ("UPDATE commits SET live_sum = zeroblob(32) WHERE seq = 1", "history"),
        ("UPDATE settings SET value = 'x'", "rows"),
        ("INSERT INTO tombstones VALUES (3, 1, 0)", "rows"),
    ],
)
def test_rot_in_a_row_is_found_and_repaired(path: Path, sql: str, check: str):
    vector = np.eye(32)[5]
    fill(path)
    with Index.open(path, model=HashEncoder()) as index:
        index.add([Document("supplied", id="own", embedding=vector), {"text": "", "id": "empty"}])
    connection = sqlite3.connect(path / "store.db")
    connection.execute(sql)
    connection.commit()
    connection.close()
    with Index.open(path, model=HashEncoder()) as index:
        report = index.verify()
        assert check in {problem.check for problem in report.problems}
    with pytest.raises(retriever.IndexCorrupt, match="is damaged"):
        Index.open(path, check="full")
    repaired = Index.repair_path(path, model=HashEncoder())
    assert repaired.ok, repaired.verify.problems
    lost = [item.document_id for item in repaired.lost]
    assert lost == (["002"] if "texts" in sql or "metadata" in sql else [])
    with Index.open(path, model=HashEncoder(), check="full") as index:
        assert index.count() == 22 - len(lost)
        assert index.search(vector=vector, k=1)[0].document_id == "own"
        best = index.search("pump number 4", k=1)[0]
        assert best.document_id == "004"
        index.add({"text": "pump number 2", "id": "002"})
        assert index.count() == 22
    assert any("store.db" in name for name in repaired.quarantined)


@pytest.mark.damages
def test_a_damaged_hit_is_an_error_and_not_an_answer(path: Path):
    fill(path)
    connection = sqlite3.connect(path / "store.db")
    connection.execute(
        "UPDATE texts SET utf8 = CAST(replace(utf8, 'pump', 'pimp') AS BLOB) WHERE document_pk = 5"
    )
    connection.commit()
    connection.close()
    with Index.open(path, model=HashEncoder()) as index:
        with pytest.raises(retriever.IndexCorrupt, match="checksum"):
            index.search("pump", k=20)
        with pytest.raises(retriever.IndexCorrupt, match="texts"):
            index.get("004")


def test_an_open_reader_notices_that_repair_has_replaced_the_database(path: Path):
    fill(path)
    with Index.open(path, model=HashEncoder()) as reader:
        assert len(reader.search("pump", k=50)) == 20
        aside = path.with_name("other.index")
        with Index.open(aside, model=HashEncoder()) as other:
            other.add([{"text": f"pump number {i}", "id": f"{i:03}"} for i in range(7)])
        for name in ("store.db", "HEAD"):
            (aside / name).replace(path / name)
        for name in ("store.db-wal", "store.db-shm"):
            (path / name).unlink(missing_ok=True)
        assert reader.count() == 7
        assert len(reader.search("pump", k=50)) == 7


def test_a_new_lock_file_is_not_a_second_lock(path: Path):
    fill(path)
    with Index.open(path, model=HashEncoder()) as index, index.writing():
        index.add("one")
        (path / "LOCK").unlink()
        (path / "LOCK").touch()
        index.add("two")
    fill(path, 1)


def test_files_of_a_user_that_look_temporary_are_left_alone(path: Path):
    fill(path)
    (path / "precious.tmp").write_text("mine")
    fill(path, 1)
    assert (path / "precious.tmp").read_text() == "mine"


def test_a_repository_is_not_taken_for_an_index(tmp_path: Path):
    (tmp_path / "HEAD").write_text("ref: refs/heads/main\n")
    with pytest.raises(retriever.IndexNotFound):
        Index.open(tmp_path)
    with pytest.raises(retriever.IndexNotFound):
        Index.repair_path(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["HEAD"]


@pytest.mark.damages
@pytest.mark.parametrize(
    ("length", "is_sound"),
    [(1.0005, True), (0.9995, True), (1.003, False), (0.997, False), (np.nan, False)],
)
def test_search_and_verify_agree_on_what_is_of_unit_length(path: Path, length, is_sound):
    fill(path, 1)
    vector = (HashEncoder().encode_documents(["pump"])[0] * length).astype("<f4")
    connection = sqlite3.connect(path / "store.db")
    space = catalog.active_space(connection)
    row = tables.vectors_of(space.id).seal((1, vector.tobytes()))
    connection.execute(f"UPDATE {space.table} SET (chunk_id, data, crc) = (?, ?, ?)", row)
    assert (row_checks.vector_problem(space, row) == "") is is_sound
    if is_sound:
        assert len(list(catalog.vector_blocks(connection, space, 0, 9))) == 1
    else:
        with pytest.raises(retriever.IndexCorrupt):
            list(catalog.vector_blocks(connection, space, 0, 9))
    connection.close()


# --- what this process may not read --------------------------------------------------------------


def small_segments(path: Path) -> list[Path]:
    fill(path, limits=Limits(tail_rows=10))
    found = sorted(path.glob("segment-*"))
    assert len(found) == 2
    return found


@pytest.mark.damages
@pytest.mark.parametrize("name", ["HEAD", "segment"])
def test_a_file_without_rights_is_no_damage(monkeypatch, name: str):
    path = Path(tempfile.mkdtemp()) / "a.index"  # pytest's own folders are closed to others
    try:
        path.parent.chmod(0o755)
        found = small_segments(path)
        for file in [path, *path.iterdir()]:
            os.chown(file, 65534, 65534) if os.geteuid() == 0 else None
        (path / name if name == "HEAD" else found[0]).chmod(0)
        done = run_as_nobody(
            "from retriever import Index, StorageError\n"
            "for call in (Index.verify_path, Index.repair_path):\n"
            "    try: print(call(sys.argv[1]).ok)\n"
            "    except StorageError as exc: print(exc.code, 'cannot be read: P' in exc.message)\n",
            path,
        )
        assert done.stdout == "storage_error True\n" * 2, done.stdout + done.stderr
        assert not (path / "quarantine").exists()
    finally:
        shutil.rmtree(path.parent)


@pytest.mark.damages
@pytest.mark.parametrize("refusal", [errno.EMFILE, errno.ENFILE, errno.EACCES])
def test_a_segment_that_cannot_be_opened_now_is_not_damaged(
    path: Path, monkeypatch, caplog, refusal: int
):
    found = small_segments(path)
    for file in found:
        os.utime(file, (1, 1))  # or its stamp is enough
    hash_file = files.hash_file

    def refuse(file: Path) -> tuple[int, str]:
        if file.name.startswith("segment-"):
            raise OSError(refusal, os.strerror(refusal))
        return hash_file(file)

    with monkeypatch.context() as patch, Index.open(path, model=HashEncoder()) as index:
        patch.setattr(files, "hash_file", refuse)
        assert index.search("pump number 7", k=1).hits[0].document_id == "007"
        assert "cannot be read" in caplog.text
        for call in (index.verify, lambda: Index.repair_path(path, model=HashEncoder())):
            with pytest.raises(retriever.StorageError, match="cannot be read") as caught:
                call()
            assert type(caught.value) is retriever.StorageError
        index.add("one more")
        assert "damaged" not in caplog.text
    assert sorted(path.glob("segment-*")) == found
    assert not (path / "quarantine").exists()
    assert Index.verify_path(path).ok


def test_an_index_is_read_where_the_flags_of_posix_do_not_exist(path: Path):
    fill(path)
    code = (
        "import os, sys\n"
        "for name in ('O_NOFOLLOW', 'O_NONBLOCK', 'O_CLOEXEC'): delattr(os, name)\n"
        "from retriever import Index\n"
        "from retriever.testing import HashEncoder\n"
        "with Index.open(sys.argv[1], model=HashEncoder(), read_only=True) as index:\n"
        "    print(index.search('pump number 7', k=1).hits[0].document_id)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "007\n", done.stderr


def test_sweep_leaves_alone_what_only_begins_like_a_segment(path: Path):
    fill(path)
    named_alike = path / "segment-000000000001-0123456789ab.faiss"
    for folder in (path / "segment-notes", named_alike):
        folder.mkdir()
        (folder / "mine.txt").write_text("mine")
    (path / "segment-list.csv").write_text("mine")
    (path / "segment-000000000001-0123456789ab.ids").symlink_to(path / "HEAD")
    fill(path, 1)
    assert (path / "segment-notes" / "mine.txt").exists()
    assert (named_alike / "mine.txt").exists()
    assert {file.name for file in path.glob("segment-*")} == {
        "segment-notes",
        named_alike.name,
        "segment-list.csv",
    }
    with Index.open(path) as index:
        assert len(index.verify().warnings) == 3


def test_a_checkpoint_leaves_the_writer_as_patient_as_before(path: Path):
    fill(path)
    writer = Writer.open(path, timeout_s=1)
    try:
        before = writer.connection.execute("PRAGMA busy_timeout").fetchone()
        writer.checkpoint(0)
        assert writer.connection.execute("PRAGMA busy_timeout").fetchone() == before == (10_000,)
    finally:
        writer.close()


@pytest.mark.parametrize("rows", [0, 1, 5, 2500])
@pytest.mark.parametrize("dimension", [1, 48])
def test_a_segment_is_what_faiss_writes_of_a_flat_index(rows: int, dimension: int):
    import faiss

    numbers = np.random.default_rng(rows).standard_normal((rows, dimension), np.float32)
    index = faiss.IndexFlatIP(dimension)
    index.add(numbers)
    written: list[bytes] = []
    blocks = [numbers[start : start + 999] for start in range(0, rows, 999)]
    found = write_flat(
        blocks, dimension, rows, lambda data: written.append(bytes(data)) or len(data)
    )
    assert found == rows
    assert b"".join(written) == faiss.serialize_index(index).tobytes()
    assert len(written) == 1 + len(blocks)  # none but a block is in memory


def test_a_segment_with_too_few_vectors_is_not_published(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(
        "retriever.search.flat_segment.write_flat", lambda *given: write_flat(*given) - 1
    )
    limits = Limits(tail_rows=5)
    with Index.open(tmp_path / "x.index", model=HashEncoder(), limits=limits) as index:
        with pytest.raises(retriever.IndexCorrupt, match="9 vectors are where 10 are counted"):
            index.add([f"the tide {number}" for number in range(10)])
        monkeypatch.undo()
        assert index.count() == 10
        assert index.status().segments == ()
        assert not list((tmp_path / "x.index").glob("segment-*"))
        assert index.verify().ok

"""The disk refuses: what a call then says, what it leaves, and how the index goes on."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.durability import shim
from retriever import Index, maintenance
from retriever.errors import IndexReadOnly, WriteFailed
from retriever.storage import files, layout, segments
from retriever.testing import HashEncoder

pytestmark = pytest.mark.durability
ROOT = Path(__file__).parent.parent
needs_shim = pytest.mark.skipif(bool(shim.unavailable()), reason=shim.unavailable())


@pytest.fixture
def index(tmp_path: Path):
    with Index.open(tmp_path / "i.index", model=HashEncoder()) as opened:
        opened.add([{"text": f"pump number {i}", "id": f"{i:03}"} for i in range(20)])
        yield opened


def refuse(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, number: int) -> None:
    """Have a function fail as the operating system does."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(owner, name, fail)


def run_python(code: str, *args: object) -> str:
    """Run a program that may load the shim; return what it prints."""
    prelude = (
        "import sys, errno; from pathlib import Path\n"
        "from benchmarks.durability import shim, work\n"
        "from benchmarks.durability.refusals import drop_capabilities\n"
        "from retriever.errors import *; path = Path(sys.argv[1])\n"
        "document = lambda name: work.make_document(name, 1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", prelude + code, *map(str, args)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_shim
@pytest.mark.timeout(600)
def test_a_slice_of_the_harness(tmp_path: Path):
    command = [sys.executable, "-m", "benchmarks.durability", "faults", "--count", "60"]
    done = subprocess.run(
        [*command, "--seed", "11", "--folder", str(tmp_path / "work")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=590,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for word in (
        "fired",
        "sticky",
        "durable True",
        "durable False",
        "rebuilt after a failed fsync",
    ):
        assert f"{word} 0" not in done.stdout
        assert word in done.stdout


# --- a commit whose fsync fails ------------------------------------------------------------------


@needs_shim
@pytest.mark.parametrize("times", [1, 3])
def test_a_commit_whose_fsync_failed_never_comes_back(tmp_path: Path, times: int):
    code = """
shim.load()
shim.watch(path)
index = work.open_index(path, create=True)
index.add([document("first")])
for number in range(int(sys.argv[2])):
    index.count()  # a reader stays, so that the log is not emptied when the writer goes
    shim.arm("fail", ["fsync"], "store.db-wal", 1, errno.EIO, sticky=True)
    try:
        index.add([document(f"refused {number}")])
    except WriteFailed as exc:
        assert not exc.durable
    else:
        raise AssertionError("not refused")
    shim.disarm()
index.close()
with work.open_index(path) as again:
    assert [found.id for found in again.documents()] == ["first"]
    assert again.verify(deep=True).ok
assert shim.retried_fsyncs() == 0
"""
    run_python(code, tmp_path / "i.index", times)


@needs_shim
def test_what_a_failed_fsync_dropped_is_not_built_upon(tmp_path: Path):
    code = """
import random
from benchmarks.durability import disk
shim.load()
log = path.with_name("log")
shim.watch(path)
shim.record(log)
index = work.open_index(path, create=True)
index.add([document("first")])
for number in range(3):
    index.count()
    shim.arm("fail", ["fsync"], "store.db-wal", 1, errno.EIO)
    try:
        index.add([document(f"refused {number}")])
    except WriteFailed:
        pass
    shim.disarm()
index.add([document("last")])
shim.record(None)
events = list(shim.read(log))
for policy in disk.POLICIES:
    rng = random.Random(policy)
    state = disk.replay(events, path, "journalled", policy, rng, failed_syncs=True)
    copy = path.with_name(policy)
    disk.materialise(state.files, copy)
    with work.open_index(copy) as found:
        assert {"first", "last"} <= {document.id for document in found.documents()}
        assert found.verify(deep=True).ok
"""
    run_python(code, tmp_path / "i.index")


def test_head_is_written_again_only_once_the_log_is_on_the_disk(
    index: Index, monkeypatch: pytest.MonkeyPatch
):
    old = (index.path / layout.HEAD).read_bytes()
    index.count()
    index.add([{"text": "a tide", "id": "tide"}])
    (index.path / layout.HEAD).write_bytes(old)  # as after a crash between COMMIT and HEAD
    with monkeypatch.context() as patch:
        refuse(patch, files, "renew", errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            index.add([{"text": "a clock", "id": "clock"}])
    assert (index.path / layout.HEAD).read_bytes() == old
    index.add([{"text": "a clock", "id": "clock"}])
    assert index.count() == 22


@needs_shim
def test_a_transaction_that_is_undone_writes_nothing_to_the_log(tmp_path: Path):
    code = """
import sqlite3
shim.load()
index = work.open_index(path, create=True)
index.add([document(f"{number}") for number in range(40)])
connection = sqlite3.connect(path / "store.db")
connection.execute("UPDATE texts SET crc = crc + 1 WHERE document_pk = 7")
connection.commit()
connection.close()
index.count()  # a reader stays
log = path.with_name("log")
shim.watch(path)
shim.record(log)
with index.writing():
    try:
        index.delete([str(number) for number in range(40)])
    except IndexCorrupt:
        pass
    else:
        raise AssertionError("not refused")
    touched = {event.kind for event in shim.read(log) if event.path.endswith("-wal")}
    assert touched <= {"open"}, touched
    index.add([document("next")])  # a row cannot be read; the disk is well
assert index.get("next") is not None
"""
    run_python(code, tmp_path / "i.index")


@needs_shim
def test_a_log_that_begins_again_for_a_failed_commit_is_synced_before_its_frames(tmp_path: Path):
    code = """
shim.load()
shim.watch(path)
index = work.open_index(path, create=True)
index.add([document("first")])
index.count()
log = path.with_name("log")
for nth in (1, 2):
    writer = Writer.open(path, timeout_s=1)
    with writer.transaction() as change:
        change.put_setting("large", "x" * 100_000)
    writer.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")  # the next begins the log again
    log.unlink(missing_ok=True)
    shim.record(log)
    shim.arm("fail", ["fsync"], "store.db-wal", nth, errno.EIO)
    try:
        with writer.transaction() as change:
            change.put_setting("small", "y")
    except WriteFailed as exc:
        assert not exc.durable
    writer.close()
    shim.record(None)
    header_is_synced = True
    for event in shim.read(log):
        if event.path.endswith("-wal") and event.kind == "write":
            assert event.offset < 32 or header_is_synced, (nth, event.offset)
            header_is_synced &= event.offset >= 32
        elif event.path.endswith("-wal") and event.kind == "fsync":
            header_is_synced = True
    assert shim.fired() == 1 and shim.retried_fsyncs() == 0
    shim.disarm()
index.add([document("last")])
index.close()
with work.open_index(path) as again:
    assert sorted(found.id for found in again.documents()) == ["first", "last"]
    assert again.verify().ok
"""
    run_python("from retriever.storage.writer import Writer\n" + code, tmp_path / "i.index")


@needs_shim
@pytest.mark.parametrize("how", ["with a reader", "alone"])
def test_a_log_that_cannot_be_renewed_is_left_alone(tmp_path: Path, how: str):
    code = """
shim.load()
shim.watch(path)
index = work.open_index(path, create=True)
index.add([document("first")])
head = (path / "HEAD").read_bytes()
keeper = work.open_index(path)
keeper.count()
index.add([document("late")])
(path / "HEAD").write_bytes(head)  # as after a crash between COMMIT and HEAD
if sys.argv[3] == "dead":
    (path / "LOCK").write_text('{"pid": 1}')  # and its writer has not come to its end
if sys.argv[2] == "alone":
    import shutil, subprocess
    subprocess.run(["cp", "-r", path, path.with_name("crashed")], env={}, check=True)
    index.close(); keeper.close()
    path = path.with_name("crashed")
    (path / "store.db-shm").unlink()
    shim.watch(path)
    index = keeper = work.open_index(path)
    index._pool.close_idle()
before = (path / "store.db").read_bytes() if sys.argv[2] == "alone" else b""
shim.arm("fail", ["fsync"], "store.db-wal", 1, errno.EIO, sticky=True)
try:
    index.add([document("refused")])
except WriteFailed:
    pass
else:
    raise AssertionError("not refused")
assert shim.fired() == 1 and shim.retried_fsyncs() == 0, (shim.fired(), shim.retried_fsyncs())
assert (path / "HEAD").read_bytes() == head
assert (path / "store.db-wal").stat().st_size > 0  # nothing was moved into the database
if sys.argv[2] == "alone":
    assert (path / "store.db").read_bytes() == before
shim.disarm()
index.add([document("next")])
assert sorted(found.id for found in index.documents()) == ["first", "late", "next"]
keeper.close(); index.close()
"""
    for state in ("clean", "dead"):
        run_python(code, tmp_path / state / "i.index", how, state)


@needs_shim
@pytest.mark.parametrize("what", ["maintenance", "vacuum", "commit"])
def test_what_a_process_that_died_of_a_failed_fsync_has_left_is_not_built_upon(
    tmp_path: Path, what: str
):
    code = """
import os, random
from retriever.storage.writer import Writer
from benchmarks.durability import disk
shim.load()
log = path.with_name("log")
shim.watch(path)
shim.record(log)
index = work.open_index(path, create=True)
index.add([document(f"{number}") for number in range(40)])
if os.fork() == 0:
    writer = Writer.open(path, timeout_s=1)
    shim.arm("fail", ["fsync"], "store.db-wal", 1, errno.EIO)
    try:
        if sys.argv[2] == "maintenance":
            with writer.maintenance() as connection:
                connection.execute("DELETE FROM commits WHERE seq < 1")
        elif sys.argv[2] == "vacuum":
            writer.vacuum()
        else:
            with writer.transaction() as change:
                change.put_setting("name", "value")
    finally:
        os._exit(shim.fired())
assert os.waitstatus_to_exitcode(os.wait()[1]) == 1
index.add([document("last")])
shim.record(None)
events = list(shim.read(log))
for policy in disk.POLICIES:
    rng = random.Random(policy)
    state = disk.replay(events, path, "journalled", policy, rng, failed_syncs=True)
    copy = path.with_name(policy)
    disk.materialise({k: v for k, v in state.files.items() if "-shm" not in k}, copy)
    with work.open_index(copy) as found:
        assert found.get("last") is not None
        assert found.verify(deep=True).ok
"""
    run_python(code, tmp_path / "i.index", what)


def test_renewing_writes_the_same_bytes(tmp_path: Path):
    path = tmp_path / "log"
    content = os.urandom((1 << 20) + 12345)
    path.write_bytes(content)
    files.renew(path)
    assert path.read_bytes() == content
    files.renew(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


# --- what WriteFailed says -----------------------------------------------------------------------


NOT_WRITTEN = [WriteFailed("no", hint="", durable=False), IndexReadOnly("no")]


def raising(error: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", NOT_WRITTEN)
def test_a_delete_succeeds_though_its_segments_cannot_be_written(
    index: Index, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    with monkeypatch.context() as patch:
        patch.setattr(segments, "maintain", raising(error))
        assert index.delete("001") == 1
    assert index.get("001") is None


@pytest.mark.parametrize("error", NOT_WRITTEN)
def test_a_purge_that_fails_says_that_the_documents_are_deleted(
    index: Index, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    with monkeypatch.context() as patch:
        patch.setattr(maintenance, "compact", raising(error))
        with pytest.raises(WriteFailed) as caught:
            index.delete("001", purge=True)
    assert caught.value.durable
    assert index.get("001") is None


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO])
def test_a_failure_to_write_head_says_that_the_commit_is_durable(
    index: Index, monkeypatch: pytest.MonkeyPatch, number: int
):
    with monkeypatch.context() as patch:
        refuse(patch, files, "_create_private", number)
        with pytest.raises(WriteFailed) as caught:
            index.add([{"text": "a tide", "id": "tide"}])
        assert caught.value.durable
        assert caught.value.report.added == 1
        # The next cannot even write the HEAD that is missing: nothing of it is there.
        with pytest.raises((WriteFailed, IndexReadOnly)) as caught:
            index.add([{"text": "a clock", "id": "clock"}])
        assert not getattr(caught.value, "durable", False)
    assert index.get("tide") is not None
    assert index.get("clock") is None


def test_a_stray_file_that_stays_says_that_nothing_is_durable(
    index: Index, monkeypatch: pytest.MonkeyPatch
):
    (index.path / "HEAD.0a1b2c3d.tmp").touch()
    with monkeypatch.context() as patch:
        refuse(patch, Path, "unlink", errno.EIO)
        with pytest.raises(WriteFailed) as caught:
            index.add([{"text": "a tide", "id": "tide"}])
    assert not caught.value.durable
    assert index.get("tide") is None


@needs_shim
def test_a_reader_from_a_bad_time_does_not_stop_writers_later(tmp_path: Path):
    code = """
shim.load()
shim.watch(path)
with work.open_index(path, create=True) as index:
    index.add([document("first")])
    keeper = work.open_index(path)
    keeper.count()  # keeps the shared memory's file there
    import subprocess
    again = (
        "import sys, errno; from pathlib import Path\\n"
        "from benchmarks.durability import shim, work\\n"
        "path = Path(sys.argv[1]); shim.watch(path)\\n"
        "shim.arm('fail', ['open'], 'store.db-shm', 1, errno.EDQUOT, sticky=True)\\n"
        "index = work.open_index(path); assert index.count() == 1; shim.disarm()\\n"
        "index.add([work.make_document('second', 1)]); assert index.count() == 2\\n"
    )
    import os
    environment = {**os.environ, "LD_PRELOAD": str(shim.build())}
    subprocess.run([sys.executable, "-c", again, str(path)], check=True, env=environment)
    assert index.count() == 2
    keeper.close()
"""
    run_python(code, tmp_path / "i.index")


# --- creating, copying, opening ------------------------------------------------------------------


def test_a_creation_that_failed_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        refuse(patch, files, "sync_directory", errno.EIO)
        with pytest.raises(WriteFailed):
            Index.open(tmp_path / "i.index", model=HashEncoder())
    with Index.open(tmp_path / "i.index", model=HashEncoder()) as index:
        assert index.count() == 0


@pytest.mark.parametrize("place", ["sync_directory", "_create_private"])
def test_a_backup_that_failed_leaves_nothing(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
):
    before = sorted(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        refuse(patch, files, place, errno.EIO)
        with pytest.raises(WriteFailed):
            index.backup(tmp_path / "copy")
    assert sorted(tmp_path.iterdir()) == before
    index.backup(tmp_path / "copy")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="capabilities are Linux's")
def test_a_directory_that_may_not_be_entered_is_told_as_that(tmp_path: Path):
    code = """
index = work.open_index(path, create=True)
index.add([document("first")])
drop_capabilities()
path.chmod(0)
calls = [work.open_index, work.Index.verify_path, lambda _: index.get("first")]
for what in calls:
    try:
        what(path)
    except StorageError as exc:
        assert "Permission denied" in exc.message, exc
        assert not isinstance(exc, IndexCorrupt | DataLoss)
    else:
        raise AssertionError("not refused")
path.chmod(0o700)
assert index.get("first")
"""
    run_python(code, tmp_path / "i.index")

"""One writer, whatever happens to LOCK and to the processes that race for it."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

import retriever
from benchmarks.durability import locks, runner
from retriever import Index
from retriever.storage import locking, waiting
from retriever.storage.locking import WriteLock, read_holder
from retriever.testing import HashEncoder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "i.index"
    with Index.open(path, model=HashEncoder()) as index:
        index.add([{"text": "pump", "id": "first"}])
    return path


def in_a_fork(work: Callable[[], object]) -> object:
    """Return what a forked child returns, or the code of the error it met."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def child() -> None:
        try:
            sender.send(work())
        except retriever.RetrieverError as exc:
            sender.send(exc.code)
        os._exit(0)

    process = context.Process(target=child)
    process.start()
    found = receiver.recv()
    process.join()
    process.close()
    receiver.close()
    sender.close()
    return found


@pytest.mark.durability
def test_a_race_has_one_writer_at_a_time_and_leaves_no_lock_behind(tmp_path: Path):
    outcome = locks.run(runner.Options(8, seed=11, jobs=2, folder=tmp_path))
    assert outcome.failures == []
    assert outcome.trials == 8
    for name in ("acquisitions", "kills", "refused after a fork", "processes"):
        assert outcome.seen[name] > 0, dict(outcome.seen)


@pytest.mark.parametrize("how", ["removed", "replaced", "renamed"])
def test_whatever_becomes_of_lock_there_is_no_second_writer(path: Path, how: str):
    lock = path / "LOCK"
    with (
        Index.open(path, lock_timeout_s=0) as index,
        Index.open(path, model=HashEncoder(), lock_timeout_s=0) as other,
    ):
        with index.writing():
            if how == "renamed":
                lock.rename(path.with_name("aside"))
            else:
                lock.unlink()
            if how == "replaced":
                lock.touch()
            with pytest.raises(retriever.IndexLocked) as caught:
                other.add("too early")
            assert caught.value.pid is None
        other.add("in time")
        assert index.count() == 2


def test_where_directories_cannot_be_locked_lock_itself_decides(path: Path, monkeypatch):
    real = locking.fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").resolve() == path:
            raise OSError(9, "Bad file descriptor")
        real(descriptor, operation)

    monkeypatch.setattr(locking.fcntl, "flock", flock)
    first, second = WriteLock(path), WriteLock(path)
    first.acquire(0)
    with pytest.raises(retriever.IndexLocked, match=f"process {os.getpid()} on"):
        second.acquire(0)
    first.release()
    second.acquire(0)
    second.release()


def test_a_copy_of_the_descriptors_keeps_no_lock(path: Path):
    lock = WriteLock(path)
    lock.acquire(0)
    copies = [os.dup(lock._descriptor), os.dup(lock._root)]
    lock.release()
    try:
        lock.acquire(0)
    finally:
        lock.release()
        for copy in copies:
            os.close(copy)


def test_looking_at_the_holder_is_in_no_writers_way(path: Path):
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            read_holder(path)

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    try:
        lock = WriteLock(path)
        for _ in range(300):
            lock.acquire(0)
            lock.release()
    finally:
        stop.set()
        for looker in lookers:
            looker.join()


def test_a_worker_forked_from_a_reader_misses_nothing(path: Path):
    context = multiprocessing.get_context("fork")
    index = Index.open(path, model=HashEncoder())
    assert index.count() == 1
    receiver, sender = context.Pipe()
    go_on, told = context.Event(), context.Event()

    def child() -> None:
        with Index.open(path, model=HashEncoder()) as mine:
            sender.send(mine.count())
            go_on.wait(60)
            sender.send(mine.count())
            mine.add("from the worker")
            sender.send(mine.count())
        told.wait(60)
        os._exit(0)

    process = context.Process(target=child)
    process.start()
    assert receiver.recv() == 1
    index.close()
    # The last connection to be closed removes the log, and SQLite's locks tell which is the last.
    with Index.open(path, model=HashEncoder()) as other:
        other.add("two")
    with Index.open(path, model=HashEncoder()) as other:
        other.add(["three", "four"])
        go_on.set()
        assert receiver.recv() == 4
        assert receiver.recv() == 5
        assert other.count() == 5
    told.set()
    process.join()
    process.close()
    receiver.close()
    sender.close()


def test_what_was_in_use_at_a_fork_cannot_be_opened_in_the_child(path: Path, tmp_path: Path):
    def reopen() -> int:
        with Index.open(path) as index:
            return index.count()

    def open_another() -> int:
        with Index.open(tmp_path / "other.index", model=HashEncoder()) as index:
            index.add("one")
            return index.count()

    with Index.open(path, model=HashEncoder()) as index:
        assert in_a_fork(reopen) == 1
        with index.writing():
            assert in_a_fork(reopen) == "index_closed"
            assert in_a_fork(lambda: Index.verify_path(path)) == "index_closed"
            assert in_a_fork(open_another) == 1
            index.add("second")
        assert in_a_fork(reopen) == 2


def test_a_fork_waits_for_the_searches_of_other_threads(path: Path):
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            index.search("pump")

    def look() -> int:
        with Index.open(path, model=HashEncoder(), read_only=True) as mine:
            return len(mine.search("pump"))

    with Index.open(path, model=HashEncoder()) as index:
        threads = [threading.Thread(target=search) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            assert [in_a_fork(look) for _ in range(10)] == [1] * 10
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def test_a_child_forked_inside_a_call_writes_nothing(path: Path):
    with Index.open(path, model=HashEncoder()) as index:
        parent = os.getpid()
        children = []

        def documents():
            yield {"text": "one", "id": "one"}
            if child := os.fork():
                children.append(child)
            yield {"text": "two", "id": "two"}

        try:
            index.add(documents())
        except retriever.IndexClosed:
            os._exit(0 if os.getpid() != parent else 1)
        finally:
            if os.getpid() != parent:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
        assert index.count() == 3


def test_lock_says_whether_its_last_holder_came_to_an_end(path: Path, monkeypatch):
    renewed = []
    monkeypatch.setattr(locking.files, "renew", renewed.append)

    def add(text: str) -> int:
        renewed.clear()
        with Index.open(path, model=HashEncoder()) as index:
            index.add(text)
        return len(renewed)

    assert add("the one before has come to its end") == 0
    for content in (b"", b'{"pid": 1}', b"clean\nclean\n", b"clean"):
        (path / "LOCK").write_bytes(content)
        assert add(f"after {content!r}") == 1
    (path / "LOCK").unlink()
    assert add("LOCK was taken away") == 1
    assert add("and is there again") == 0
    lock = WriteLock(path)
    lock.acquire(0)
    lock.release(clean=False)
    assert add("a disk that failed") == 1
    assert read_holder(path) is None


def test_lock_is_written_in_place_for_a_truncated_file_is_flushed_with_every_commit(
    path: Path, monkeypatch
):
    cuts: list[int] = []
    cut = os.ftruncate

    def counted(descriptor: int, length: int) -> None:
        cuts.append(length)
        cut(descriptor, length)

    with Index.open(path, model=HashEncoder()) as index:
        index.add("the first makes LOCK as long as it stays")
        monkeypatch.setattr(locking.os, "ftruncate", counted)
        sizes = {(path / "LOCK").stat().st_size}
        with index.writing():
            sizes.add((path / "LOCK").stat().st_size)
            holder = read_holder(path)
        index.add("another")
        sizes.add((path / "LOCK").stat().st_size)
    assert holder is not None
    assert holder["pid"] == os.getpid()
    assert (cuts, len(sizes)) == ([], 1)


def test_a_full_disk_leaves_no_word_of_the_holder_before(path: Path, monkeypatch):
    with Index.open(path, model=HashEncoder()) as index:
        index.add("a document")
        clean = (path / "LOCK").read_bytes()

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        lock = WriteLock(path)
        with monkeypatch.context() as patched:
            patched.setattr(locking.os, "pwrite", full)
            lock.acquire(0)
            assert (path / "LOCK").read_bytes() == b""
        lock.release()
        assert (path / "LOCK").read_bytes() == clean


def test_who_does_not_get_the_lock_leaves_the_advice_of_its_holder(path: Path, monkeypatch):
    holder = WriteLock(path)
    holder.acquire(0)
    try:
        said = (path / "LOCK").read_bytes()
        assert b"pid" in said
        flock = fcntl.flock
        calls = []

        def interrupted(descriptor: int, how: int) -> None:
            calls.append(how)
            if len(calls) == 2:
                raise KeyboardInterrupt
            if len(calls) > 2:
                flock(descriptor, how)

        monkeypatch.setattr(locking.fcntl, "flock", interrupted)
        with pytest.raises(KeyboardInterrupt):
            WriteLock(path).acquire(0)
        assert (path / "LOCK").read_bytes() == said
    finally:
        holder.release()


def test_without_flock_nobody_is_named_as_the_holder(path: Path, monkeypatch):
    monkeypatch.setattr(locking, "sys", SimpleNamespace(platform="win32"))
    monkeypatch.delattr(locking, "fcntl")
    assert read_holder(path) is None


def test_a_reader_in_the_way_is_no_lock(path: Path):
    with Index.open(path, model=HashEncoder(), lock_timeout_s=0.1) as index:
        index.add("one")
        reader = sqlite3.connect(path / "store.db", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM documents").fetchone()
        index.add("two")
        with pytest.raises(retriever.IndexBusy, match="kept an old snapshot open") as caught:
            index.compact()
        assert caught.value.exit_code == 5
        assert not isinstance(caught.value, retriever.IndexLocked)
        reader.close()
        index.compact()
        assert index.count() == 3


# --- giving way ------------------------------------------------------------------------------


class Slow(HashEncoder):
    """Takes a while for each call on documents that say so."""

    def __init__(self) -> None:
        super().__init__()
        self.is_at_work = threading.Event()

    def encode_documents(self, texts):
        if any("slow" in text for text in texts):
            self.is_at_work.set()
            time.sleep(0.4)
        return super().encode_documents(texts)


@contextmanager
def at_work(path: Path, call: Callable[[Index], object]) -> Iterator[list[object]]:
    """Have a slow call at work in a thread; give what it returned or raised at the end."""
    encoder = Slow()
    outcome: list[object] = []

    def work() -> None:
        with Index.open(path, model=encoder) as index:
            try:
                outcome.append(call(index))
            except retriever.RetrieverError as exc:
                outcome.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    assert encoder.is_at_work.wait(30)
    try:
        yield outcome
    finally:
        thread.join()


def adding_for_long(path: Path, count: int = 16) -> AbstractContextManager[list[object]]:
    """Have a call of `add` at work."""
    documents = [{"text": f"slow {n} " + "word " * 25_000, "id": f"slow-{n}"} for n in range(count)]
    return at_work(path, lambda index: index.add(iter(documents)))


def test_a_long_call_lets_others_write_between(path: Path):
    with adding_for_long(path) as outcome, Index.open(path, model=HashEncoder()) as other:
        for number in range(3):
            other.add({"text": "quick", "id": f"quick-{number}"})
        other.delete("quick-1")
        assert not outcome
        code = (
            "import sys; from retriever import Index; from retriever.testing import HashEncoder;"
            "Index.open(sys.argv[1], model=HashEncoder()).add('of a process')"
        )
        subprocess.run([sys.executable, "-c", code, path], check=True)
        assert not outcome
    assert outcome[0].added == 16
    with Index.open(path, model=HashEncoder()) as index:
        assert index.count() == 16 + 2 + 1 + 1


def test_threads_of_one_index_take_turns_with_a_long_call(path: Path):
    encoder = Slow()
    with Index.open(path, model=encoder) as index:
        texts = [f"slow {number} " + "word " * 25_000 for number in range(6)]
        long = threading.Thread(target=lambda: index.add(iter(texts)))
        long.start()
        assert encoder.is_at_work.wait(30)
        index.add("quick")
        assert long.is_alive()
        long.join()
        assert index.count() == 1 + 6 + 1


def test_who_asked_first_writes_first(path: Path):
    order: list[int] = []
    indexes = [Index.open(path, model=HashEncoder()) for _ in range(5)]

    def add(number: int) -> None:
        with indexes[number % 5].writing():
            order.append(number)

    threads = [threading.Thread(target=add, args=[number]) for number in range(10)]
    with Index.open(path, model=HashEncoder()) as holder, holder.writing():
        for waiting, thread in enumerate(threads, 1):
            thread.start()
            until = time.monotonic() + 30
            while len(list(path.glob("LOCK-*"))) < waiting:
                assert time.monotonic() < until
                time.sleep(0.005)
    for thread in threads:
        thread.join()
    assert order == list(range(10))
    for index in indexes:
        index.close()
    assert not list(path.glob("LOCK-*"))


def test_a_block_of_writing_gives_no_way(path: Path):
    with (
        Index.open(path, model=HashEncoder()) as index,
        Index.open(path, model=HashEncoder(), lock_timeout_s=0.5) as other,
        index.writing(),
    ):

        def add() -> None:
            with pytest.raises(retriever.IndexLocked):
                other.add("outside")

        waiting = threading.Thread(target=add)
        waiting.start()
        while waiting.is_alive():
            index.add(f"inside {time.monotonic()} {n}" for n in range(20))
        waiting.join()
        assert {document.text.split()[0] for document in index.documents()} == {"pump", "inside"}


def test_places_of_the_dead_hold_nobody_up(path: Path):
    (path / f"LOCK-{5:020d}-0123abcd").touch()
    with Index.open(path, model=HashEncoder(), lock_timeout_s=0) as index:
        index.add("second")
        assert not list(path.glob("LOCK-*"))


def test_an_index_that_is_rebuilt_meanwhile_ends_the_call(path: Path):
    with adding_for_long(path) as outcome, Index.open(path, model=HashEncoder()) as other:
        other.rebuild(chunking={"overlap": 0})
    assert isinstance(outcome[0], retriever.IndexBusy)
    assert "rebuilt by another writer" in str(outcome[0])
    with Index.open(path, model=HashEncoder()) as index:
        assert index.count() == 1 + outcome[0].report.added
        assert index.add(f"later {number}" for number in range(3)).added == 3


def test_what_is_added_and_deleted_during_a_rebuild_is_right_after_it(path: Path):
    encoder = Slow()
    with Index.open(path, model=encoder) as index:
        texts = [f"slow {number} " + "word " * 25_000 for number in range(6)]
        index.add({"text": text, "id": f"{n}"} for n, text in enumerate(texts))
        encoder.is_at_work.clear()
        rebuilding = threading.Thread(target=lambda: index.rebuild(chunking={"tokens": 30}))
        rebuilding.start()
        assert encoder.is_at_work.wait(30)
        with Index.open(path, model=HashEncoder()) as other:
            other.add({"text": "a newcomer", "id": "new"})
            other.delete("5")
        assert rebuilding.is_alive()
        rebuilding.join()
        assert index.count() == 1 + 6 + 1 - 1
        found = {document.id for document in index.documents()}
        assert found == {"first", "new", *"01234"}
        assert all(index.chunks(name) for name in found)
        assert index.search("a newcomer", k=1)[0].document_id == "new"


def test_an_id_that_occurs_twice_is_found_though_others_wrote_between(path: Path):
    encoder = Slow()
    with Index.open(path, model=encoder) as index, Index.open(path, model=HashEncoder()) as other:

        def documents() -> Iterator[dict[str, str]]:
            for number in range(6):
                yield {"text": f"slow {number} " + "word " * 25_000, "id": f"{number}"}
                if number == 3:
                    threads[0].start()
                    time.sleep(1)
            while threads[0].is_alive():
                time.sleep(0.01)
            yield {"text": "again", "id": "1"}

        threads = [threading.Thread(target=other.add, args=[[f"of others {n}" for n in range(9)]])]
        with pytest.raises(retriever.InvalidDocument, match=r"Documents 1 and 6 .* '1'"):
            index.add(documents())


@contextmanager
def stopped_while_waiting(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Have a process that was stopped while it waited to write; nobody writes."""
    code = (
        "import sys; from retriever import Index; from retriever.testing import HashEncoder;"
        "Index.open(sys.argv[1], model=HashEncoder(), lock_timeout_s=60).add('of a stopped one')"
    )
    with Index.open(path, model=HashEncoder()) as holder, holder.writing():
        process = subprocess.Popen([sys.executable, "-c", code, path])
        until = time.monotonic() + 30
        while not list(path.glob("LOCK-*")):
            assert time.monotonic() < until
            time.sleep(0.005)
        process.send_signal(signal.SIGSTOP)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_process_that_is_stopped_while_it_waits_holds_nobody_up(path: Path):
    with (
        stopped_while_waiting(path) as process,
        Index.open(path, model=HashEncoder(), lock_timeout_s=5) as index,
    ):
        index.add("before it went on")
        began = time.monotonic()
        for number in range(5):
            index.add(f"at once {number}")
        assert time.monotonic() - began < 2
        assert index.count() == 1 + 1 + 5
        process.send_signal(signal.SIGCONT)
        assert process.wait(30) == 0
        assert index.count() == 1 + 1 + 5 + 1


def test_who_does_not_wait_takes_what_is_free(path: Path):
    with (
        stopped_while_waiting(path),
        Index.open(path, model=HashEncoder(), lock_timeout_s=0) as index,
    ):
        index.add("at once")
        assert index.count() == 2


def test_who_gave_way_waits_for_longer_than_who_has_not_begun(path: Path):
    encoder = Slow()
    texts = [f"slow {number} " + "word " * 25_000 for number in range(6)]
    with Index.open(path, model=encoder, lock_timeout_s=0) as index:
        long = threading.Thread(target=lambda: index.add(iter(texts)))
        long.start()
        assert encoder.is_at_work.wait(30)
        with Index.open(path, model=HashEncoder(), lock_timeout_s=30) as other, other.writing():
            assert long.is_alive()
            time.sleep(0.5)
        long.join()
        assert index.count() == 1 + 6


def test_the_order_does_not_depend_on_the_clock(path: Path, monkeypatch: pytest.MonkeyPatch):
    first = waiting.QueueTicket(path)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    second = waiting.QueueTicket(path)
    for ticket in (first, second):
        ticket.wait()
    try:
        assert second.is_behind(lambda: False)
        assert not first.is_behind(lambda: False)
    finally:
        first.leave()
        second.leave()
    assert not list(path.glob("LOCK-*"))


def test_a_forked_child_keeps_no_place_of_its_parent(path: Path):
    def waits() -> None:
        with Index.open(path, model=HashEncoder(), lock_timeout_s=60) as index:
            index.add(threading.current_thread().name)

    def places() -> list[str]:
        seen = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))  # noqa: PTH208
        return [name for name in map(_link, seen) if "LOCK-" in name]

    threads = [threading.Thread(target=waits, name=f"{number}") for number in range(3)]
    with Index.open(path, model=HashEncoder()) as holder, holder.writing():
        for count, thread in enumerate(threads, 1):
            thread.start()
            until = time.monotonic() + 30
            while len(list(path.glob("LOCK-*"))) < count:
                assert time.monotonic() < until
                time.sleep(0.005)
        assert len(places()) == 3
        assert in_a_fork(places) == []
    for thread in threads:
        thread.join()


def _link(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115
    except OSError:
        return ""


def indexing_for_long(path: Path, folder: Path) -> AbstractContextManager[list[object]]:
    """Have a call of `add_files` at work: `a.txt` was read again unchanged, `b.txt` takes long."""
    folder.mkdir()
    (folder / "a.txt").write_text("a pump")
    with Index.open(path, model=HashEncoder()) as index:
        index.add_files(folder)
    os.utime(folder / "a.txt", (1, 1))
    (folder / "b.txt").write_text("slow " + "word " * 25_000)
    return at_work(path, lambda index: index.add_files(folder))


def test_what_is_deleted_while_a_folder_is_indexed_stays_away(path: Path, tmp_path: Path):
    with (
        indexing_for_long(path, tmp_path / "docs") as outcome,
        Index.open(path, model=HashEncoder()) as other,
    ):
        assert other.delete("docs/a.txt") == 1
        assert not outcome
    assert outcome[0].added == 1
    with Index.open(path, model=HashEncoder()) as index:
        assert index.get("docs/a.txt") is None
        report = index.add_files(tmp_path / "docs")
        assert (report.deleted, report.added, report.unchanged) == (1, 0, 1)
        assert index.get("docs/a.txt") is None


def test_a_folder_is_not_indexed_on_by_names_that_are_outdated(path: Path, tmp_path: Path):
    folder = tmp_path / "docs"
    with (
        indexing_for_long(path, folder) as outcome,
        Index.open(path, model=HashEncoder(), base=folder) as other,
    ):
        other.add_files(folder / "a.txt")
        assert not outcome
    assert isinstance(outcome[0], retriever.IndexBusy)
    assert "base" in str(outcome[0])
    with Index.open(path, model=HashEncoder()) as index:
        index.add_files(folder)
        assert {document.id for document in index.documents()} == {"first", "a.txt", "b.txt"}


def test_a_child_forked_in_a_call_reads_nothing_with_its_parents_writer(path: Path):
    reader, writer = os.pipe()

    def documents() -> Iterator[dict[str, str]]:
        child.append(os.fork())
        yield {"text": "pump", "id": "first"}  # there already, so nothing would be written

    child: list[int] = []
    owner = os.getpid()
    with Index.open(path, model=HashEncoder()) as index:
        said = b"nothing"
        try:
            report = index.add(documents())
            said = b"it went on"
        except retriever.RetrieverError as exc:
            said = exc.code.encode()
        finally:
            if os.getpid() != owner:
                os.write(writer, said)
                os._exit(0)
        assert report.unchanged == 1
        assert os.read(reader, 100) == b"index_closed"
        os.waitpid(child[0], 0)
    os.close(reader)
    os.close(writer)

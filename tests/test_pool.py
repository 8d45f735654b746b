"""Read connections: how many are kept, and what becomes of them if the index is read as files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from retriever import Index, Limits
from retriever.errors import IndexBusy
from retriever.testing import HashEncoder

ADD = """
import sys
from retriever.testing import HashEncoder
from retriever import Index
with Index.open(sys.argv[1], model=HashEncoder()) as index:
    index.add([{"id": name, "text": "zebra " + name} for name in sys.argv[2:]])
"""
ROOT = Path(__file__).parent


@pytest.fixture
def limits() -> Limits:
    """Return the limits of `index`; a test that needs others is parametrized with them."""
    return Limits()


@pytest.fixture
def index(tmp_path: Path, limits: Limits):
    with Index.open(tmp_path / "i.index", model=HashEncoder(), limits=limits) as opened:
        opened.add([{"id": f"{i}", "text": f"pump {i}"} for i in range(20)])
        opened.count()
        yield opened


def add_elsewhere(path: Path, *names: str) -> None:
    """Add documents in another process, which closes the index again."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT.parent}"}
    command = [sys.executable, "-c", ADD, str(path), *names]
    subprocess.run(command, check=True, env=environment, timeout=60)


def ids(index: Index) -> set[str]:
    return {document.id or "" for document in index.documents()} - {f"{i}" for i in range(20)}


# --- files of a live index that this process reads ---------------------------------------------


@pytest.mark.parametrize("how", ["copied", "read"])
@pytest.mark.parametrize("first", ["read", "write"])
def test_commits_of_others_are_seen_after_the_index_was_read_as_files(
    index: Index, how: str, first: str
) -> None:
    link = index.path.with_name("link")
    link.symlink_to(index.path)
    other = Index.open(link, model=HashEncoder())  # another one in this process
    other.count()
    if how == "copied":
        shutil.copytree(index.path, index.path.with_name("copy"))
    else:
        (index.path / "store.db").read_bytes()
    add_elsewhere(index.path, "one")
    add_elsewhere(index.path, "two")
    expected = {"one", "two"}
    if first == "write":
        index.add([{"id": "mine", "text": "zebra mine"}])
        expected.add("mine")
    assert ids(index) == ids(other) == expected
    assert index.search("zebra two", k=1)[0].document_id == "two"
    other.add([{"id": "last", "text": "zebra last"}])
    add_elsewhere(index.path, "three")
    assert ids(index) == ids(other) == {*expected, "last", "three"}
    other.close()


def test_two_long_lived_writers_go_on_after_one_has_copied_the_index(index: Index) -> None:
    code = """
import sys
from retriever.testing import HashEncoder
from retriever import Index
with Index.open(sys.argv[1], model=HashEncoder()) as index:
    for line in sys.stdin:
        index.add([{"id": line.strip(), "text": "zebra " + line}])
        print(index.count(), flush=True)
"""
    shutil.copytree(index.path, index.path.with_name("copy"))
    add_elsewhere(index.path, "short")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT.parent}"}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(index.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for turn in range(3):
            print(f"theirs {turn}", file=process.stdin, flush=True)
            assert process.stdout.readline() == f"{22 + 2 * turn}\n"
            index.add([{"id": f"mine {turn}", "text": "zebra"}])
        process.stdin.close()
    assert process.returncode == 0
    assert index.count() == 27
    assert index.verify(deep=True).ok


def test_what_was_read_while_the_log_was_removed_is_refused(index: Index) -> None:
    with pytest.raises(IndexBusy, match="as a file") as caught:  # noqa: SIM117, PT012
        with index._pool.transaction() as connection:
            connection.execute("SELECT count(*) FROM documents").fetchone()
            (index.path / "store.db").read_bytes()
            add_elsewhere(index.path, "one")
            with pytest.raises(IndexBusy):  # its index of the log would be shared
                index.add("refused")
    assert "backup" in caught.value.hint
    assert ids(index) == {"one"}


def test_a_writer_waits_for_a_search_that_reads_a_log_that_was_removed(index: Index) -> None:
    taken, end = threading.Event(), threading.Event()

    def read() -> None:
        with pytest.raises(IndexBusy), index._pool.transaction() as connection:  # noqa: PT012
            connection.execute("SELECT count(*) FROM documents").fetchone()
            taken.set()
            end.wait(30)

    thread = threading.Thread(target=read)
    thread.start()
    taken.wait(30)
    (index.path / "store.db").read_bytes()
    add_elsewhere(index.path, "one")
    threading.Timer(0.5, end.set).start()
    index.add([{"id": "two", "text": "zebra"}])
    thread.join()
    assert ids(index) == {"one", "two"}


# --- how many there are ---------------------------------------------------------------------------


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def lend(index: Index, count: int) -> None:
    """Have as many transactions at the same time."""
    barrier = threading.Barrier(count)

    def read() -> None:
        with index._pool.transaction():
            barrier.wait(30)

    threads = [threading.Thread(target=read) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("limits", [Limits(idle_seconds=0.5)])
def test_idle_connections_are_given_back(index: Index, limits: Limits) -> None:
    lend(index, limits.read_connections)
    assert len(index._pool._idle) == limits.idle_connections
    time.sleep(2 * limits.idle_seconds)
    index.count()
    assert len(index._pool._idle) == 1


@pytest.mark.parametrize("limits", [Limits(idle_connections=0)])
def test_no_idle_connection_is_kept_where_none_is_wanted(index: Index) -> None:
    lend(index, 3)
    assert index._pool._idle == []


def test_a_burst_of_searches_has_enough_descriptors(index: Index, limits: Limits) -> None:
    before = descriptors()
    most, failed = [0], []
    barrier = threading.Barrier(200)

    def search(number: int) -> None:
        barrier.wait(60)
        for _ in range(3):
            try:
                index.search(f"pump {number}", k=3)
            except Exception as exc:
                failed.append(exc)
            most[0] = max(most[0], descriptors())

    threads = [threading.Thread(target=search, args=(n,)) for n in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert most[0] < before + 4 * limits.read_connections
    # SQLite keeps descriptors of the database for the next connection while it has a lock on it.
    assert descriptors() <= before + limits.read_connections + limits.idle_connections + 4
    assert index._pool._in_use == 0


@pytest.mark.parametrize("limits", [Limits(read_connections=2, read_wait_seconds=0.1)])
def test_a_transaction_inside_many_others_does_not_wait_for_ever(index: Index) -> None:
    with index._pool.transaction(), index._pool.transaction(), index._pool.transaction():
        assert index.count() == 20
    assert index._pool._in_use == 0

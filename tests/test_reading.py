"""A folder is planned, read and stored in steps that stand on their own."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from retriever import Index, Limits, names
from retriever.documents.parsers import registered
from retriever.documents.walk import Walk
from retriever.errors import UnreadableFile
from retriever.ingest.planning import FolderPlan, KnownFile, PlannedFile, PlanOptions
from retriever.ingest.reading import ReadOptions, read, read_in_order
from retriever.storage.records import FileRow
from retriever.testing import HashEncoder
from retriever.types import Document

ROWS = 2_500
OPTIONS = ReadOptions(dimension=32, limits=Limits(commit_documents=4))
SMALL = Limits(commit_documents=10)


def parse_rows(data: bytes, path: str) -> Iterator[Document]:
    """Yield a document for each line; `!` breaks the file off, as damage in its middle does."""
    for number, line in enumerate(data.decode().splitlines()):
        if line == "!":
            raise UnreadableFile(
                f"{path} is damaged after {number} rows.", path=path, hint="Write it again."
            )
        yield Document(line)


@pytest.fixture(autouse=True)
def rows_are_read() -> Iterator[None]:
    with registered({".rows": parse_rows}):
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    return tmp_path / "docs"


def write(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join(rows))
    old = path.stat().st_mtime - 60
    os.utime(path, (old, old))
    return path


def rows_of(count: int, version: str = "first") -> list[str]:
    return [f"row {number} of the {version} version" for number in range(count)]


def plan_of(folder: Path, *rows: KnownFile, **options: object) -> FolderPlan:
    known = {one.row.path: one for one in rows}
    return FolderPlan(Walk([folder]), str(folder), known, PlanOptions(**options))


def recorded(file: PlannedFile, state: str = "indexed", sha256: bytes | None = None) -> FileRow:
    return FileRow(file.name, state, sha256=sha256).stamped(file.file.stamp)


# --- the plan ------------------------------------------------------------------------------------


def test_a_plan_says_what_is_read_and_why_and_reads_nothing(folder: Path):
    for name in ("a.txt", "b.txt", "c.txt"):
        write(folder / name, [name])
        (folder / name).chmod(0)  # planning does not read it
    files = plan_of(folder).files
    assert [(one.name, one.step, one.reason) for one in files] == [
        (b"a.txt", "read", "new"),
        (b"b.txt", "read", "new"),
        (b"c.txt", "read", "new"),
    ]
    first, second, third = files
    expected = {
        "unchanged": (KnownFile(recorded(first), True), {}),
        "deleted": (KnownFile(recorded(first, "deleted"), False), {}),
        "skipped": (KnownFile(recorded(first, "skipped"), False), {}),
        "checksum": (KnownFile(recorded(first), True), {"checksum": True}),
        "encoding": (KnownFile(recorded(first), True), {"encoding": "cp1252"}),
        "restored": (KnownFile(recorded(first, "deleted"), False), {"restore": True}),
        "parsers": (KnownFile(recorded(first, "skipped"), False), {"retry_skipped": True}),
        "failed": (KnownFile(recorded(first, "failed"), True), {}),
        "incomplete": (KnownFile(recorded(first), False), {}),
        "unfinished": (KnownFile(recorded(first, "partial"), True), {}),
        "changed": (KnownFile(recorded(first)._replace(size=1), True), {}),
    }
    for why, (known, options) in expected.items():
        planned = plan_of(folder, known, **options).files[0]
        assert (planned.reason or planned.step) == why
        assert bool(planned.size) == (planned.step == "read")
    gone = KnownFile(recorded(second)._replace(path=b"gone.txt"), True)
    plan = plan_of(folder, gone, KnownFile(recorded(third), True))
    assert [known.row.path for known in plan.missing(whole_folders=True)] == [b"gone.txt"]


# --- reading -------------------------------------------------------------------------------------


def test_a_file_is_read_in_parts_of_bounded_size(folder: Path):
    write(folder / "x.rows", rows_of(10))
    (planned,) = plan_of(folder).files
    parts = list(read(planned, OPTIONS))
    assert [len(part.documents) for part in parts] == [4, 4, 2]
    assert [part.state for part in parts] == ["partial", "partial", "indexed"]
    assert [part.total for part in parts] == [4, 8, 10]
    documents = [document for part in parts for document in part.documents]
    assert [document.text for document in documents] == rows_of(10)
    assert [names.row_of(b"x.rows", document.id or "") for document in documents] == [*range(10)]
    long = ReadOptions(32, limits=Limits(commit_documents=100, part_characters=50))
    assert [len(part.documents) for part in read(planned, long)] == [2] * 5
    assert [len(part.documents) for part in read(planned, ReadOptions(32))] == [10]


def test_a_file_is_read_a_part_at_a_time_and_only_when_asked(folder: Path):
    for name in "abc":
        write(folder / f"{name}.rows", rows_of(9))
    opened: list[bytes] = []

    def watched(planned: PlannedFile) -> Iterator[object]:
        opened.append(planned.name)
        yield from read(planned, OPTIONS)

    files = read_in_order(plan_of(folder).files, watched)
    planned, parts = next(files)
    assert (planned.name, opened) == (b"a.rows", [])
    assert next(parts).total == 4
    assert opened == [b"a.rows"]
    assert [part.total for part in parts] == [8, 9]
    assert [planned.name for planned, _ in files] == [b"b.rows", b"c.rows"]


def test_what_is_read_and_what_comes_of_it_can_cross_processes(folder: Path):
    write(folder / "x.rows", rows_of(6))
    call = partial(read, options=OPTIONS)
    (planned,) = plan_of(folder).files
    call, planned = pickle.loads(pickle.dumps((call, planned)))
    parts = list(call(planned))
    assert pickle.loads(pickle.dumps(parts)) == parts


def test_what_is_wrong_with_a_file_is_a_part_and_no_error(folder: Path):
    write(folder / "x.rows", [*rows_of(5), "!"])
    write(folder / "y.pdf", ["%PDF"])
    broken, pdf = plan_of(folder).files
    first, last = read(broken, OPTIONS)
    assert (first.state, len(first.documents)) == ("partial", 4)
    assert (last.state, last.documents, last.total) == ("failed", (), 4)
    assert last.reason == "is damaged after 5 rows. Write it again."
    assert [part.state for part in read(pdf, OPTIONS)] == ["skipped"]
    (folder / "x.rows").unlink()
    (gone,) = read(broken, OPTIONS)
    assert (gone.state, gone.sha256) == ("failed", None)


def test_content_as_recorded_is_not_parsed(folder: Path):
    write(folder / "x.rows", ["!"])
    (planned,) = plan_of(folder).files
    (failed,) = read(planned, OPTIONS)
    row = recorded(planned, sha256=failed.sha256)._replace(mtime_ns=0)
    (again,) = plan_of(folder, KnownFile(row, True)).files
    assert (again.reason, again.same_content) == ("changed", "unchanged")
    assert [part.state for part in read(again, OPTIONS)] == ["same"]


# --- a file of many documents spans commits ------------------------------------------------------


def stored_rows(index: Index, name: str = "docs/x.rows") -> list[str]:
    """Return the texts of a file's documents by row."""
    found = {names.row_of(name.encode(), d.id or ""): d.text for d in index.documents()}
    return [found[row] for row in range(len(found))]


def test_a_file_of_many_documents_is_stored_as_it_is_read(tmp_path: Path, folder: Path):
    write(folder / "x.rows", rows_of(ROWS))
    write(folder / "y.txt", ["another file"])
    time.sleep(0.05)  # the time stamps of files that were only just written are not kept
    seen = []
    with Index.open(tmp_path / "i", model=HashEncoder()) as index:

        def look(progress):
            if progress.unit == "files":
                seen.append((progress.done, index.count(), index.status().files.partial))

        report = index.add_files(folder, progress=look)
        assert (report.added, report.commits) == (ROWS + 1, 3)
        assert (0, 1_000, 1) in seen  # nothing of the file is called done before it is
        assert (0, 2_000, 1) in seen
        assert seen[-1] == (2, ROWS + 1, 0)
        assert all(done == 0 for done, count, _ in seen if count <= 2_000)
        assert index.status().problem_files == ()
        assert index.delete("docs/y.txt") == 1
        assert stored_rows(index) == rows_of(ROWS)
        again = index.add_files(folder)
        assert (again.unchanged, again.deleted, again.commits) == (1, 1, 0)
        assert index.verify().ok


def test_a_run_that_ends_in_the_middle_of_a_file_goes_on_there(tmp_path: Path, folder: Path):
    write(folder / "x.rows", rows_of(ROWS))
    encoder = HashEncoder()
    with Index.open(tmp_path / "i", model=encoder) as index:

        def stop(progress):
            if index.count():
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            index.add_files(folder, progress=stop)
        kept = index.count()
        assert kept == 1_000
        status = index.status()
        assert status.files.partial == 1
        (problem,) = status.problem_files
        assert (problem.path, problem.state) == ("docs/x.rows", "partial")
        assert "first 1,000 documents" in problem.reason
        before = {d.id: index.chunks(d.id or "")[0].id for d in index.documents()}
        encoder.encoded.clear()

        report = index.add_files(folder)
        assert (report.added, report.replaced) == (ROWS - kept, 0)
        assert len(encoder.encoded) <= ROWS - kept + 8  # canaries
        assert stored_rows(index) == rows_of(ROWS)
        assert {name: index.chunks(name or "")[0].id for name in before} == before
        assert index.status().files.partial == 0
        assert index.add_files(folder).unchanged == 1
        assert index.verify().ok


KILLED = """
import os, signal, sys
sys.path[:0] = [sys.argv[1]]
from test_reading import parse_rows
from retriever.testing import HashEncoder
from retriever import Index
from retriever.documents.parsers import registered

with registered({".rows": parse_rows}), Index.open(sys.argv[2], model=HashEncoder()) as index:
    def kill(progress):
        if index.count() >= 2_000:
            os.kill(os.getpid(), signal.SIGKILL)
    index.add_files(sys.argv[3], progress=kill)
"""


def test_a_kill_in_the_middle_of_a_file_keeps_whole_documents(tmp_path: Path, folder: Path):
    write(folder / "x.rows", rows_of(ROWS))
    path = tmp_path / "i"
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(path), str(folder)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    with Index.open(path, model=HashEncoder()) as index:
        assert stored_rows(index) == rows_of(2_000)
        assert index.status().files.partial == 1
        assert index.verify().ok
        assert index.add_files(folder).added == ROWS - 2_000
        assert stored_rows(index) == rows_of(ROWS)
        assert index.verify().ok


def test_a_version_with_fewer_documents_takes_the_rest_away(tmp_path: Path, folder: Path):
    path = write(folder / "x.rows", rows_of(ROWS))
    with Index.open(tmp_path / "i", model=HashEncoder()) as index:
        index.add_files(folder)
        write(path, rows_of(1_200, "second"))
        report = index.add_files(folder)
        assert (report.added, report.replaced, report.removed) == (0, 1_200, ROWS - 1_200)
        assert stored_rows(index) == rows_of(1_200, "second")
        write(path, rows_of(3))
        assert index.add_files(folder).removed == 1_197
        assert stored_rows(index) == rows_of(3)
        path.unlink()
        assert index.add_files(folder, prune=True).removed == 3
        assert index.count() == 0
        assert index.verify().ok


def test_an_interrupted_run_with_fewer_documents_is_completed(tmp_path: Path, folder: Path):
    path = write(folder / "x.rows", rows_of(ROWS))
    with Index.open(tmp_path / "i", model=HashEncoder()) as index:
        index.add_files(folder)
        write(path, rows_of(1_500, "second"))

        def stop(progress):
            if index.status().files.partial:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            index.add_files(folder, progress=stop)
        # Rows that the new version has no longer stay until it is known where it ends.
        assert stored_rows(index) == rows_of(1_000, "second") + rows_of(ROWS)[1_000:]
        report = index.add_files(folder)
        assert (report.replaced, report.removed) == (500, 1_000)
        assert stored_rows(index) == rows_of(1_500, "second")


def test_prune_removes_a_file_of_which_only_a_part_was_stored(tmp_path: Path, folder: Path):
    path = write(folder / "x.rows", [*rows_of(1_100), "!"])
    with Index.open(tmp_path / "i", model=HashEncoder()) as index:
        report = index.add_files(folder)
        assert report.added == 1_000
        ((name, state, reason),) = report.failed
        assert (name, state) == ("docs/x.rows", "failed")
        assert reason.endswith("Its first 1,000 documents are indexed.")
        write(path, rows_of(1_100))
        report = index.add_files(folder)
        assert (report.failed, report.added, report.replaced) == ((), 100, 1_000)
        path.unlink()
        assert index.add_files(folder, prune=True).removed == 1_100
        assert index.count() == 0


class Refusing(HashEncoder):
    """Fails for one text, and does all others."""

    def encode_documents(self, texts):
        if any("row 1200 " in text for text in texts):
            raise ValueError("this text cannot be encoded")
        return super().encode_documents(texts)


def test_a_part_that_cannot_be_encoded_leaves_the_file_to_the_next_run(
    tmp_path: Path, folder: Path
):
    write(folder / "x.rows", rows_of(ROWS))
    path = tmp_path / "i"
    with Index.open(path, model=Refusing()) as index:
        report = index.add_files(folder)
        assert report.added == ROWS - 1_000
        assert [outcome.path for outcome in report.failed] == ["docs/x.rows#1200"]
        files = index.status().files
        assert (files.failed, files.indexed, files.partial) == (1, 0, 0)
    with Index.open(path, model=HashEncoder()) as index:
        report = index.add_files(folder)
        assert report.failed == ()
        assert stored_rows(index) == rows_of(ROWS)
        assert index.add_files(folder).unchanged == 1


@pytest.mark.parametrize("interrupted", [True, False])
def test_a_file_that_is_damaged_at_its_end_is_never_taken_for_a_whole_one(
    tmp_path: Path, folder: Path, interrupted: bool
):
    write(folder / "x.rows", [*rows_of(25), "!"])
    with Index.open(tmp_path / "i", model=HashEncoder(), limits=SMALL) as index:
        if interrupted:
            with pytest.raises(KeyboardInterrupt):
                index.add_files(folder, progress=stop_when_partial(index))
        for _ in range(3):
            report = index.add_files(folder)
            assert report.unchanged == 0
            (problem,) = report.failed
            assert problem.reason.endswith("Its first 20 documents are indexed.")
            assert index.status().files.failed == 1


@pytest.mark.parametrize("way", ["damaged", "interrupted and then too large"])
def test_a_file_that_is_as_it_was_is_read_again_where_some_of_another_version_were_stored(
    tmp_path: Path, folder: Path, way: str
):
    file = folder / "x.rows"
    first, second = rows_of(25), rows_of(25, "second")
    write(file, first)
    with Index.open(tmp_path / "i", model=HashEncoder(), limits=SMALL) as index:
        index.add_files(folder)
        if way == "damaged":
            write(file, [*second, "!"])
            assert index.add_files(folder).replaced == 20
            write(file, first)
        else:
            write(file, second)
            with pytest.raises(KeyboardInterrupt):
                index.add_files(folder, progress=stop_when_partial(index))
            (skipped,) = index.add_files(folder, max_file_size=100).skipped
            assert skipped.path == "docs/x.rows"
        assert index.add_files(folder).unchanged == 0
        assert stored_rows(index) == (first if way == "damaged" else second)


@pytest.mark.parametrize("what", ["deleted", "replaced"])
def test_what_others_do_with_a_file_while_it_is_read_is_not_undone_by_halves(
    tmp_path: Path, folder: Path, what: str
):
    write(folder / "x.rows", rows_of(25))
    with Index.open(tmp_path / "i", model=HashEncoder(), limits=SMALL) as index:
        done: list[int] = []

        def change_it(_: object) -> None:
            if not done and index.count() == 10:
                done.append(1)
                if what == "deleted":
                    index.delete([document.id or "" for document in index.documents()])
                else:
                    index.add({"id": "docs/x.rows#3", "text": "by hand"})

        index.add_files(folder, progress=change_it)
        assert done
        if what == "deleted":
            assert index.count() == 0
            assert index.add_files(folder).deleted == 1
            assert index.add_files(folder, restore=True).added == 25
        else:
            assert index.get("docs/x.rows#3").text == "by hand"
            assert index.add_files(folder).replaced == 25
        assert stored_rows(index) == rows_of(25)


def stop_when_partial(index: Index) -> Callable[[object], None]:
    def stop(_: object) -> None:
        if index.status().files.partial:
            raise KeyboardInterrupt

    return stop

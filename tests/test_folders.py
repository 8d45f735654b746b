"""Indexing folders: what is read, what is not, what is kept, what is removed."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import time
from pathlib import Path

import pytest

import retriever
from retriever import Index, Limits
from retriever.testing import HashEncoder
from retriever.types import FileOutcome


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "manuals"
    (root / "sub").mkdir(parents=True)
    (root / "pump.md").write_text("# Pump\n\nReset the pump.\n\n## Oil\n\nChange the oil.\n")
    (root / "ferry.txt").write_text("The ferry leaves at noon.\n")
    (root / "sub" / "code.py").write_text('def bake():\n    """Bake the bread."""\n')
    for path in root.rglob("*"):
        age(path)
    return root


@pytest.fixture
def index(tmp_path: Path):
    with Index.open(tmp_path / "manuals.index", model=HashEncoder()) as opened:
        yield opened


def age(path: Path, seconds: float = 60.0) -> None:
    """Set a file's times back, as if it had been written a while ago."""
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - int(seconds * 1e9) - 1))


def wait_until_times_are_old() -> None:
    """Wait until the times of files written before are no longer too fresh to be trusted."""
    time.sleep(0.03)


def ids(index: Index) -> list[str | None]:
    return [document.id for document in index.documents()]


opened: list[str] | None = None


def watch(event: str, args: tuple) -> None:
    if opened is not None and event == "open" and isinstance(args[0], str | bytes):
        opened.append(os.fsdecode(args[0]))


sys.addaudithook(watch)


class Opened:
    """Records every file that this process opens."""

    def __enter__(self) -> list[str]:
        global opened
        opened = []
        return opened

    def __exit__(self, *_: object) -> None:
        global opened
        opened = None


def test_files_are_documents_named_by_their_path_below_the_index_parent(index, folder):
    report = index.add_files(folder)
    assert (report.added, report.commits, report.skipped, report.failed) == (3, 1, (), ())
    assert ids(index) == ["manuals/ferry.txt", "manuals/pump.md", "manuals/sub/code.py"]
    hit = index.search("Reset the pump. Change the oil.", k=1)[0]
    assert (hit.source, hit.lines[0] <= 5 <= hit.lines[1]) == ("manuals/pump.md", True)
    assert str(hit.citation) == f"manuals/pump.md:{hit.lines[0]}"
    assert index.get("manuals/pump.md").title == "Pump"


def test_a_file_outside_the_index_parent_is_named_by_its_absolute_path(tmp_path, folder):
    with Index.open(tmp_path / "deep" / "er" / "x.index", model=HashEncoder()) as index:
        index.add_files(folder / "ferry.txt")
        assert ids(index) == [str((folder / "ferry.txt").resolve())]


def test_an_unchanged_folder_is_neither_read_nor_encoded(tmp_path, folder):
    encoder = HashEncoder()
    time.sleep(0.05)  # files that were only just written are read once more
    with Index.open(tmp_path / "x.index", model=encoder) as index:
        index.add_files(folder)
        seq = index.status().seq
        encoder.encoded.clear()
        with Opened() as names:
            report = index.add_files(folder)
        assert (report.unchanged, report.added, report.commits) == (3, 0, 0)
        assert [name for name in names if str(folder) in name and Path(name).is_file()] == []
        assert encoder.encoded == []
        assert index.status().seq == seq


def test_a_touched_file_is_read_once_and_not_encoded(tmp_path, folder):
    encoder = HashEncoder()
    with Index.open(tmp_path / "x.index", model=encoder) as index:
        index.add_files(folder)
        encoder.encoded.clear()
        age(folder / "pump.md", 5)
        wait_until_times_are_old()
        assert index.add_files(folder).unchanged == 3
        with Opened() as names:
            assert index.add_files(folder).unchanged == 3
        assert [name for name in names if name.endswith("pump.md")] == []
        assert encoder.encoded == []


def test_a_changed_file_replaces_its_chunks_in_one_commit(index, folder):
    index.add_files(folder)
    before = index.status().seq
    (folder / "pump.md").write_text("# Pump\n\nThe new pump needs no reset at all.\n")
    report = index.add_files(folder)
    assert (report.replaced, report.unchanged, report.commits) == (1, 2, 1)
    assert index.status().seq == before + 1
    assert all("Reset the pump" not in hit.text for hit in index.search("reset the pump", k=50))


def test_a_change_of_equal_size_and_equal_mtime_right_after_the_walk_is_not_missed(index, folder):
    index.add_files(folder)  # imports what reading files needs, which takes longer than a tick
    path = folder / "fresh.txt"
    path.write_text("version one")
    index.add_files(folder)
    stat = path.stat()
    path.write_text("version two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    index.add_files(folder)
    assert index.get("manuals/fresh.txt").text == "version two"


def test_vanished_files_are_counted_and_only_removed_by_prune_beneath_the_paths(index, folder):
    other = folder.parent / "other"
    other.mkdir()
    (other / "note.txt").write_text("elsewhere")
    index.add_files([folder, other])
    (folder / "ferry.txt").unlink()
    (other / "note.txt").unlink()
    assert index.add_files(folder).missing == 1
    assert index.count() == 4
    report = index.add_files(folder, prune=True)
    assert (report.removed, report.missing) == (1, 0)
    assert ids(index) == ["manuals/pump.md", "manuals/sub/code.py", "other/note.txt"]
    assert index.status().files.indexed == 3


def test_a_glob_that_leaves_a_file_out_never_prunes_it(index, folder):
    index.add_files(folder)
    report = index.add_files(folder, glob="**/*.md", prune=True)
    assert (report.unchanged, report.removed) == (1, 0)
    assert index.count() == 3


def test_prune_of_one_vanished_file_by_name(index, folder):
    index.add_files(folder)
    (folder / "ferry.txt").unlink()
    with pytest.raises(retriever.UnreadableFile):
        index.add_files(folder / "ferry.txt")
    assert index.add_files(folder / "ferry.txt", prune=True).removed == 1
    assert index.count() == 2


def test_one_bad_file_never_ends_a_run_and_status_keeps_listing_it(index, folder):
    (folder / "image.txt").write_bytes(b"\x89PNG\x00\x01\x02" * 100)
    (folder / "book.pdf").write_bytes(b"%PDF-1.7 ...")
    (folder / "huge.txt").write_text("x" * 5000)
    os.mkfifo(folder / "pipe")
    for name in ("image.txt", "book.pdf", "huge.txt"):
        age(folder / name)
    (folder / "link.md").symlink_to(folder / "pump.md")
    wait_until_times_are_old()
    report = index.add_files(folder, max_file_size=4000)
    assert report.added == 3
    reasons = {outcome.path: outcome.reason for outcome in report.skipped + report.failed}
    assert reasons.keys() == {
        f"manuals/{name}" for name in ("image.txt", "book.pdf", "huge.txt", "pipe", "link.md")
    }
    assert "binary" in reasons["manuals/image.txt"]
    assert "PDF" in reasons["manuals/book.pdf"]
    status = index.status()
    assert {problem.path for problem in status.problem_files} == reasons.keys()
    assert status.files.indexed == 3
    again = index.add_files(folder, max_file_size=4000)
    assert {o.path for o in again.skipped + again.failed} == reasons.keys()
    assert again.commits == 0


def test_skipped_files_are_not_read_again_until_they_change(index, folder):
    bad = folder / "image.txt"
    bad.write_bytes(b"\x00\x01\x02" * 100)
    age(bad)
    wait_until_times_are_old()
    index.add_files(folder)
    with Opened() as names:
        report = index.add_files(folder)
    assert [name for name in names if name.endswith("image.txt")] == []
    assert isinstance(report.skipped[0], FileOutcome)
    bad.write_text("Now it is text about a pump.")
    assert index.add_files(folder).added == 1
    assert index.status().problem_files == ()


def test_a_file_that_turns_bad_keeps_the_version_indexed_before(index, folder):
    index.add_files(folder)
    good = (folder / "pump.md").read_bytes()
    (folder / "pump.md").write_bytes(b"\x00\x01\x02\x03" * 50)
    report = index.add_files(folder)
    assert "indexed before is kept" in report.skipped[0].reason
    assert index.get("manuals/pump.md").text.startswith("# Pump")
    (folder / "pump.md").write_bytes(good)
    assert index.add_files(folder).encoded == 0
    assert index.status().problem_files == ()


def test_a_killed_run_goes_on_and_encodes_nothing_twice(tmp_path, folder):
    for i in range(20):
        (folder / f"{i:02}.txt").write_text(f"text number {i}")
        age(folder / f"{i:02}.txt")
    encoder = HashEncoder()
    limits = Limits(commit_documents=5)
    with Index.open(tmp_path / "x.index", model=encoder, limits=limits) as index:
        encoder.encoded.clear()

        def stop(progress):
            if progress.done >= 12:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt) as caught:
            index.add_files(folder, progress=stop)
        kept = caught.value.report.added
        assert kept == 15  # as progress said: a batch is done once it is committed
        assert index.count() == 15
        committed = {c.text for d in index.documents() for c in index.chunks(d.id or "")}
        encoder.encoded.clear()
        report = index.add_files(folder)
        assert (report.added, report.unchanged) == (8, 15)
        assert committed.isdisjoint(encoder.encoded)


def test_an_index_inside_the_folder_is_never_indexed(folder):
    with Index.open(folder / "inner.index", model=HashEncoder()) as index:
        report = index.add_files(folder)
        assert ids(index) == ["ferry.txt", "pump.md", "sub/code.py"]
        assert index.add_files(folder).added == 0
        assert report.excluded >= 1
        assert sqlite3.connect(folder / "inner.index" / "store.db").close() is None


def test_file_names_that_are_not_utf8_are_indexed(index, folder):
    name = os.fsdecode(b"caf\xe9.txt")
    (folder / name).write_text("coffee and bread")
    index.add_files(folder)
    hit = index.search("coffee and bread", k=1)[0]
    assert hit.document_id == "manuals/caf\\xe9.txt"
    assert index.add_files(folder).unchanged == 4
    (folder / name).unlink()
    assert index.add_files(folder, prune=True).removed == 1


def test_ten_thousand_unchanged_files_need_no_encoder(tmp_path):
    root = tmp_path / "many"
    for part in range(100):
        (root / f"{part:02}").mkdir(parents=True)
        for i in range(100):
            path = root / f"{part:02}" / f"{i:02}.txt"
            path.write_text("the same few words")
            age(path)
    with Index.open(tmp_path / "x.index", model=HashEncoder()) as index:
        assert index.add_files(root).added == 10_000
    with Index.open(tmp_path / "x.index") as index, Opened() as names:
        assert index.add_files(root).unchanged == 10_000
        assert [name for name in names if name.endswith(".txt")] == []


def test_a_document_that_is_added_by_hand_under_a_files_id_replaces_it(index, folder):
    index.add_files(folder)
    index.add({"text": "by hand", "id": "manuals/pump.md"})
    assert index.count() == 3
    assert index.get("manuals/pump.md").text == "by hand"
    report = index.add_files(folder)
    assert (report.replaced, report.unchanged) == (1, 2)
    assert index.get("manuals/pump.md").title == "Pump"
    assert index.add_files(folder).unchanged == 3
    index.add({"text": "by hand again", "id": "manuals/pump.md"})
    (folder / "pump.md").unlink()
    assert index.add_files(folder, prune=True).removed == 0
    assert index.get("manuals/pump.md").text == "by hand again", "it never came from the file"


def test_deleting_a_document_that_was_added_under_a_files_id_is_remembered(index, folder):
    index.add_files(folder)
    index.add({"text": "by hand", "id": "manuals/pump.md"})
    index.delete("manuals/pump.md")
    report = index.add_files(folder)
    assert (report.deleted, report.added, report.unchanged) == (1, 0, 2)
    (folder / "pump.md").write_text("A new pump.")
    assert index.add_files(folder).added == 1


def test_a_deleted_file_stays_out_until_it_changes(index, folder):
    index.add_files(folder)
    assert index.delete("manuals/pump.md") == 1
    for options in ({}, {"checksum": True}):
        report = index.add_files(folder, **options)
        assert (report.added, report.unchanged, report.deleted) == (0, 2, 1)
        assert index.get("manuals/pump.md") is None
    age(folder / "pump.md", 5)  # touched, or copied: its content is the same
    wait_until_times_are_old()
    assert [index.add_files(folder).deleted for _ in range(2)] == [1, 1]
    status = index.status()
    counts = status.files.to_dict()
    assert {state: number for state, number in counts.items() if number} == {
        "indexed": 2,
        "deleted": 1,
    }
    assert (status.deleted_files, status.problem_files) == (("manuals/pump.md",), ())
    (folder / "pump.md").write_text("The pump is another one now.")
    report = index.add_files(folder)
    assert (report.added, report.deleted) == (1, 0)
    assert index.status().files.deleted == 0
    assert index.verify().ok


def test_a_deleted_file_is_restored_when_asked_for(index, folder):
    index.add_files(folder)
    index.delete(["manuals/pump.md", "manuals/ferry.txt"])
    report = index.add_files(folder / "pump.md", restore=True)
    assert (report.added, report.deleted) == (1, 0)
    assert index.get("manuals/pump.md").title == "Pump"
    assert index.add_files(folder).deleted == 1


def test_a_deleted_file_stays_deleted_while_it_cannot_be_read_and_when_it_comes_back(index, folder):
    index.add_files(folder)
    index.delete("manuals/pump.md")
    assert index.add_files(folder, max_file_size=30).deleted == 1  # over the limit
    content = (folder / "pump.md").read_bytes()
    (folder / "pump.md").unlink()
    assert index.add_files(folder).missing == 0
    (folder / "pump.md").write_bytes(content)
    assert index.add_files(folder).deleted == 1
    (folder / "pump.md").unlink()
    index.add_files(folder, prune=True)
    (folder / "pump.md").write_bytes(content)
    assert index.add_files(folder).added == 1, "--prune forgets files that are gone"


def test_a_deleted_file_is_remembered_by_repair(tmp_path, folder):
    with Index.open(tmp_path / "x.index", model=HashEncoder()) as index:
        index.add_files(folder)
        index.delete("manuals/pump.md")
    with sqlite3.connect(tmp_path / "x.index" / "store.db") as database:
        database.execute("UPDATE documents SET crc = 0 WHERE id = 'manuals/ferry.txt'")
    database.close()
    Index.repair_path(tmp_path / "x.index", model=HashEncoder())
    with Index.open(tmp_path / "x.index", model=HashEncoder()) as index:
        report = index.add_files(folder)
        assert (report.added, report.deleted) == (1, 1)


@pytest.mark.parametrize("in_place", [True, False])
def test_a_change_that_keeps_size_and_time_is_read(index, folder, in_place):
    index.add_files(folder)
    path = folder / "ferry.txt"
    status = path.stat()
    wait_until_times_are_old()
    other = path if in_place else folder / "other"
    other.write_text("The ferry leaves at three.")
    with other.open("r+") as file:
        file.truncate(status.st_size)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    report = index.add_files(folder)
    assert (report.replaced, report.unchanged) == (1, 2)
    assert "three" in index.get("manuals/ferry.txt").text


def test_a_copied_folder_is_read_and_not_encoded(tmp_path, folder):
    encoder = HashEncoder()
    with Index.open(tmp_path / "x.index", model=encoder) as index:
        index.add_files(folder)
    (tmp_path / "copy").mkdir()
    for name in ("x.index", "manuals"):
        shutil.copytree(tmp_path / name, tmp_path / "copy" / name)
    encoder.encoded.clear()
    with Index.open(tmp_path / "copy" / "x.index", model=encoder) as index:
        wait_until_times_are_old()
        report = index.add_files(tmp_path / "copy" / "manuals")
        assert (report.unchanged, report.added, report.replaced) == (3, 0, 0)
        assert encoder.encoded == []
        with Opened() as names:
            index.add_files(tmp_path / "copy" / "manuals")
        assert [name for name in names if name.endswith("pump.md")] == []


def test_a_checksum_reads_every_file(index, folder):
    index.add_files(folder)
    with Opened() as names:
        report = index.add_files(folder, checksum=True)
    assert (report.unchanged, report.replaced) == (3, 0)
    assert {Path(name).name for name in names if "manuals/" in name} >= {
        "pump.md",
        "ferry.txt",
        "code.py",
    }


def test_a_file_that_a_rule_leaves_out_now_is_counted_and_pruned(index, folder):
    index.add_files(folder)
    (folder / ".retrieverignore").write_text("ferry.txt\n")
    assert index.add_files(folder).missing == 1
    assert index.count() == 3
    assert index.add_files(folder, prune=True).removed == 1
    assert ids(index) == ["manuals/pump.md", "manuals/sub/code.py"]


def test_a_problem_that_went_away_is_no_longer_listed(index, folder):
    (folder / "link.md").symlink_to(folder / "pump.md")
    index.add_files(folder)
    assert len(index.status().problem_files) == 1
    (folder / "link.md").unlink()
    index.add_files(folder)
    assert index.status().problem_files == ()


def test_an_index_stays_where_it_was_opened_when_the_process_changes_directory(
    tmp_path, folder, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with Index.open("here.index", model=HashEncoder()) as index:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        index.add("a text")
        assert index.count() == 1
        assert list((tmp_path / "elsewhere").iterdir()) == []


def test_files_behind_links_are_known_by_the_links_names(tmp_path: Path) -> None:
    docs, outside = tmp_path / "docs", tmp_path / "outside"
    docs.mkdir()
    outside.mkdir()
    (outside / "bees.txt").write_text("Bees swarm in May.")
    (docs / "far").symlink_to(outside)
    (docs / "one.txt").symlink_to(outside / "bees.txt")
    with Index.open(tmp_path / "x.index", model=HashEncoder()) as index:
        assert index.add_files(docs).added == 0
        report = index.add_files(docs, follow_links=True)
        assert (report.added, report.encoded) == (2, 1)
        assert {document.id for document in index.documents()} == {
            "docs/far/bees.txt",
            "docs/one.txt",
        }
        assert index.add_files(docs, follow_links=True).unchanged == 2
        hits = index.search("bees", fold=False)
        assert {hit.stale for hit in hits} == {False}
        (outside / "bees.txt").write_text("Bees swarm in June, too.")
        assert {hit.stale for hit in index.search("bees", fold=False)} == {True}
        assert index.add_files(docs, follow_links=True).replaced == 2
        (docs / "one.txt").unlink()
        assert index.add_files(docs, follow_links=True, prune=True).removed == 1


def test_a_file_that_changes_together_with_the_normal_form_of_its_name(tmp_path: Path):
    folder = tmp_path / "docs"
    folder.mkdir()
    decomposed, composed = folder / "a\u0308.md", folder / "\u00e4.md"
    decomposed.write_text("The pump is blue.")
    with Index.open(tmp_path / "i", model=HashEncoder()) as index:
        index.add_files(folder)
        decomposed.rename(composed)
        composed.write_text("The pump is red.")
        report = index.add_files(folder)
        assert (report.added, report.replaced, report.removed) == (0, 1, 0)
        (document,) = index.documents()
        assert (document.id, document.text) == ("docs/\u00e4.md", "The pump is red.")
        assert index.verify(deep=True).ok

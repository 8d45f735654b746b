"""Walking and reading real files: order, rules, special files, races."""

from __future__ import annotations

import hashlib
import os
import socket
import sqlite3
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from retriever.documents.globs import compile_glob
from retriever.documents.sources import FoundFile, read
from retriever.documents.stamps import FileStamp
from retriever.documents.walk import Walk
from retriever.errors import InvalidConfig, UnreadableFile
from retriever.types import FileOutcome


def write(root: Path, *names: str, text: str = "text") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(walk: Walk, root: Path) -> list[str]:
    return [str(found.path.relative_to(root)) for found in walk]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path.resolve() / "docs"
    root.mkdir()
    return root


# --- order and identity


def test_files_come_sorted_by_the_bytes_of_each_part(folder: Path) -> None:
    write(folder, "b.txt", "a/z", "a.txt", "a/b/c", "a-b", "Z", "é", "zz", "a/b.x")
    walk = Walk([folder])
    expected = ["Z", "a/b/c", "a/b.x", "a/z", "a-b", "a.txt", "b.txt", "zz", "é"]
    assert names(walk, folder) == expected
    assert names(walk, folder) == expected
    assert (walk.excluded, walk.skipped) == (0, [])


def test_a_found_file_tells_path_size_and_time(folder: Path) -> None:
    write(folder, "a.txt", text="hello")
    os.utime(folder / "a.txt", ns=(5, 1_234_567_890_123_456_789))
    (found,) = Walk([folder])
    assert found == FoundFile(folder / "a.txt", FileStamp.of((folder / "a.txt").stat()))
    assert found.stamp[:2] == (5, 1_234_567_890_123_456_789)


def test_names_that_are_not_utf8_work(folder: Path) -> None:
    path = os.fsencode(folder) + b"/caf\xe9.txt"
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(b"latin")
    write(folder, "cafz")
    found = list(Walk([folder], glob="*.txt"))
    assert [os.fsencode(one.path) for one in found] == [path]
    assert read(found[0]).data == b"latin"


def test_overlapping_paths_give_each_file_once(folder: Path) -> None:
    write(folder, "a/1", "a/2", "b/3", ".hidden/4")
    walk = Walk([folder / "a" / "2", folder, folder / "a", f"{folder}/b/../a", folder / ".hidden"])
    assert names(walk, folder) == [".hidden/4", "a/1", "a/2", "b/3"]


def test_relative_paths_become_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, "a/1")
    monkeypatch.chdir(folder)
    assert [found.path for found in Walk(["a"])] == [folder / "a" / "1"]
    assert Walk(["a"]).covers(folder / "a" / "gone")


def test_a_link_given_by_name_is_followed(folder: Path) -> None:
    write(folder, "real/1")
    (folder / "link").symlink_to("real")
    walk = Walk([folder / "link"])
    assert names(walk, folder) == ["real/1"]
    assert walk.covers(folder / "link" / "1")
    assert walk.covers(folder / "real" / "1")


def test_covers_is_about_whole_names(folder: Path) -> None:
    write(folder, "a/1", "ab")
    walk = Walk([folder / "a"])
    assert walk.covers(folder / "a")
    assert walk.covers(folder / "a" / "b" / "c")
    assert not walk.covers(folder / "ab")
    assert not walk.covers(folder)


def test_deep_folders_are_walked(folder: Path) -> None:
    path = folder
    for _ in range(300):
        path = path / "d"
    write(path, "leaf")
    assert len(names(Walk([folder]), folder)) == 1


# --- missing paths


def test_a_missing_path_is_refused(folder: Path) -> None:
    with pytest.raises(UnreadableFile, match="no-such") as caught:
        Walk([folder, folder / "no-such"])
    assert caught.value.path == str(folder / "no-such")
    assert caught.value.hint


def test_a_missing_path_may_be_passed_over_and_is_still_covered(folder: Path) -> None:
    write(folder, "a")
    walk = Walk([folder / "gone", folder / "a"], missing_ok=True)
    assert names(walk, folder) == ["a"]
    assert walk.covers(folder / "gone" / "x")


@pytest.mark.parametrize("path", ["", "a\x00b"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(UnreadableFile) as caught:
        Walk([path])
    assert caught.value.hint


def test_a_folder_that_vanishes_after_the_start_is_told(folder: Path) -> None:
    (folder / "a").mkdir()
    walk = Walk([folder / "a"])
    (folder / "a").rmdir()
    assert list(walk) == []
    assert walk.skipped == [
        FileOutcome(str(folder / "a"), "failed", "cannot be read: No such file or directory")
    ]


# --- what is passed over


def test_hidden_and_version_control_entries_are_counted(folder: Path) -> None:
    write(folder, "a", ".b", ".git/HEAD", ".venv/x/y", "CVS/Entries", "sub/.c", "sub/d")
    walk = Walk([folder])
    assert names(walk, folder) == ["a", "sub/d"]
    assert (walk.excluded, walk.skipped) == (5, [])


def test_hidden_paths_given_by_name_are_walked(folder: Path) -> None:
    write(folder, ".notes/a", ".notes/.b", ".profile")
    walk = Walk([folder / ".notes", folder / ".profile"])
    assert names(walk, folder) == [".notes/a", ".profile"]
    assert walk.excluded == 1


def test_ignore_files_have_gits_rules_at_every_level(folder: Path) -> None:
    (folder / ".gitignore").write_text(
        "# comment\n*.log\n!keep.log\nbuild/\n/top\ndocs/_*\n**/cache/**\n!\n\\\n"
    )
    write(folder, "a.log", "keep.log", "build/x", "sub/build/y", "sub/build.txt", "top", "sub/top")
    write(folder, "docs/_out", "docs/in", "x/docs/_kept", "x/cache/1", "sub/b.log", "sub/c.log")
    (folder / "sub" / ".gitignore").write_text("!b.log\ntop\n")
    walk = Walk([folder])
    assert names(walk, folder) == [
        "docs/in",
        "keep.log",
        "sub/b.log",
        "sub/build.txt",
        "x/docs/_kept",
    ]
    # two hidden files, a.log, build, sub/build, top, docs/_out, x/cache/1, sub/c.log, sub/top
    assert (walk.excluded, walk.skipped) == (10, [])


def test_retrieverignore_goes_before_gitignore(folder: Path) -> None:
    write(folder, "a.csv", "b.md", "c.txt", "sub/a.csv")
    (folder / ".gitignore").write_text("*.csv\n")
    (folder / ".retrieverignore").write_text("!a.csv\r\n*.md\r\n")
    (folder / "sub" / ".retrieverignore").write_text("a.csv\n")
    assert names(Walk([folder]), folder) == ["a.csv", "c.txt"]


def test_what_is_in_an_excluded_folder_cannot_be_taken_back(folder: Path) -> None:
    write(folder, "out/keep", "in/keep", "in/drop")
    (folder / ".gitignore").write_text("out/\n!out/keep\nin/**\n!in/keep\n")
    assert names(Walk([folder]), folder) == ["in/keep"]


def test_rules_of_the_repository_around_hold_below(folder: Path) -> None:
    write(folder, ".git/HEAD", "sub/a.tmp", "sub/b", "build/c.tmp", "build/d")
    (folder / ".gitignore").write_text("*.tmp\nbuild/\n")
    assert names(Walk([folder / "sub"]), folder) == ["sub/b"]
    assert names(Walk([folder / "build"]), folder) == ["build/c.tmp", "build/d"]
    assert names(Walk([folder / "sub" / "a.tmp"]), folder) == ["sub/a.tmp"]


def test_an_unreadable_ignore_file_is_told(folder: Path) -> None:
    write(folder, "a")
    (folder / ".gitignore").symlink_to("elsewhere")
    os.mkfifo(folder / ".retrieverignore")
    walk = Walk([folder])
    assert names(walk, folder) == ["a"]
    assert [(Path(o.path).name, o.state) for o in walk.skipped] == [
        (".gitignore", "failed"),
        (".retrieverignore", "failed"),
    ]


def make_index(path: Path) -> None:
    path.mkdir()
    sqlite3.connect(path / "store.db").executescript("CREATE TABLE t(x); INSERT INTO t VALUES (1)")
    write(path, "HEAD", "LOCK", "quarantine/old")


def test_an_index_is_never_entered(folder: Path) -> None:
    write(folder, "a", "z/store.db", "z/readme")
    make_index(folder / "manuals.index")
    walk = Walk([folder])
    assert names(walk, folder) == ["a", "z/readme", "z/store.db"]
    assert (walk.excluded, walk.skipped) == (1, [])


@pytest.mark.parametrize("inside", ["", "store.db", "quarantine", "quarantine/old"])
def test_an_index_is_not_entered_even_by_name(folder: Path, inside: str) -> None:
    make_index(folder / "i")
    (folder / "link").symlink_to("i")
    for way in ("i", "link"):
        walk = Walk([folder / way / inside])
        assert list(walk) == []
        assert walk.skipped == [
            FileOutcome(str(folder / "i" / inside), "skipped", "part of an index")
        ]


def test_an_index_without_its_head_is_still_one(folder: Path) -> None:
    make_index(folder / "i")
    (folder / "i" / "HEAD").unlink()
    assert list(Walk([folder])) == []


# --- special files


def test_special_files_are_skipped_with_their_reason(folder: Path) -> None:
    write(folder, "a", "real/b")
    (folder / "link").symlink_to("a")
    (folder / "broken").symlink_to("nowhere")
    (folder / "folder-link").symlink_to("real")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        before = Path.cwd()
        os.chdir(folder)  # a socket's path must be short
        try:
            server.bind("socket")
        finally:
            os.chdir(before)
    walk = Walk([folder])
    assert names(walk, folder) == ["a", "real/b"]
    assert {Path(o.path).name: (o.state, o.reason) for o in walk.skipped} == {
        "broken": ("skipped", "a symbolic link, which is not followed"),
        "folder-link": ("skipped", "a symbolic link, which is not followed"),
        "link": ("skipped", "a symbolic link, which is not followed"),
        "loop": ("skipped", "a symbolic link, which is not followed"),
        "pipe": ("skipped", "a named pipe"),
        "socket": ("skipped", "a socket"),
    }


def test_a_pipe_given_by_name_is_skipped(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    walk = Walk([folder / "pipe"])
    assert list(walk) == []
    assert walk.skipped == [FileOutcome(str(folder / "pipe"), "skipped", "a named pipe")]


def test_large_files_are_skipped(folder: Path) -> None:
    write(folder, "small", text="x" * 10)
    write(folder, "large", text="x" * 11)
    walk = Walk([folder], max_file_size=10)
    assert names(walk, folder) == ["small"]
    assert walk.skipped == [
        FileOutcome(str(folder / "large"), "skipped", "11 bytes, over the limit of 10 bytes")
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_without_permission_is_told_and_passed(folder: Path) -> None:
    write(folder, "a/1", "b/2")
    (folder / "a").chmod(0)
    try:
        walk = Walk([folder])
        assert names(walk, folder) == ["b/2"]
        assert walk.skipped == [
            FileOutcome(str(folder / "a"), "failed", "cannot be listed: Permission denied")
        ]
    finally:
        (folder / "a").chmod(0o700)


def test_a_folder_replaced_by_a_link_while_walking_is_not_followed(folder: Path) -> None:
    write(folder, "a", "sub/b")
    write(folder.parent, "outside/secret")
    walk = Walk([folder])
    steps = iter(walk)
    assert next(steps).path == folder / "a"
    (folder / "sub" / "b").unlink()
    (folder / "sub").rmdir()
    (folder / "sub").symlink_to("../outside")
    assert list(steps) == []
    assert [(o.path, o.state) for o in walk.skipped] == [(str(folder / "sub"), "failed")]


# --- globs


@pytest.mark.parametrize(
    ("glob", "matched", "missed"),
    [
        ("**/*.{md,rst}", ["a.md", "x/y/b.rst"], ["a.txt", "a.md/x", "a.mdx"]),
        ("*.md", ["a.md", "x/a.md"], ["a.mdx"]),
        ("./*.md", ["a.md", "x/a.md"], ["b.txt"]),
        ("docs/*.md", ["docs/a.md"], ["a.md", "x/docs/a.md", "docs/x/a.md"]),
        ("docs/**", ["docs/a", "docs/x/a"], ["docs", "other/a"]),
        ("docs/", ["docs/a", "docs/x/a"], ["a"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "b"]),
        ("**/**/b", ["b", "x/b"], ["ab"]),
        ("chapter-[0-9]?.txt", ["chapter-1a.txt"], ["chapter-a1.txt", "chapter-1.txt"]),
        ("[!ab]x", ["cx", "^x"], ["ax", "bx"]),
        ("[]-]x", ["]x", "-x"], ["x"]),
        ("{a,b{1,2}}.txt", ["a.txt", "b1.txt", "b2.txt"], ["b.txt", "a1.txt"]),
        ("{docs/**,src}/*.md", ["docs/x/a.md", "src/a.md"], ["src/x/a.md", "a.md"]),
        ("a,b.txt", ["a,b.txt"], ["a", "b.txt"]),
        (r"\{a\*.txt", ["{a*.txt"], ["{ab.txt"]),
        ("a**b", ["axxb"], ["x/axx/b"]),
        ("a+(b).txt", ["a+(b).txt"], ["aab.txt"]),
    ],
)
def test_globs(glob: str, matched: list[str], missed: list[str]) -> None:
    pattern = compile_glob(glob)
    assert [path for path in matched + missed if pattern.fullmatch(path)] == matched


@pytest.mark.parametrize("glob", ["", "/etc/*", "a{b", "a}b", "{a,{b}"])
def test_malformed_globs_are_refused(glob: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        Walk([], glob=glob)
    assert repr(glob) in caught.value.message
    assert caught.value.hint


@example("[?--]")
@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("ab*?[]!{},/\\-^.&|~"), max_size=14))
def test_any_glob_compiles_or_is_refused(glob: str) -> None:
    try:
        pattern = compile_glob(glob)
    except InvalidConfig:
        return
    pattern.fullmatch("a/b/ab.a/bb")


def test_a_glob_is_matched_below_each_path_given(folder: Path) -> None:
    write(folder, "a/x.md", "a/sub/y.md", "a/x.txt", "b/z.md", "c.txt")
    walk = Walk([folder / "a", folder / "b", folder / "c.txt"], glob="./*.md")
    assert names(walk, folder) == ["a/sub/y.md", "a/x.md", "b/z.md", "c.txt"]
    walk = Walk([folder / "a", folder / "b"], glob="sub/*")
    assert names(walk, folder) == ["a/sub/y.md"]


# --- reading


OLD_ENOUGH_S = 0.03


def found_at(path: Path) -> FoundFile:
    status = path.lstat()
    return FoundFile(path, FileStamp.of(status))


def test_read_returns_bytes_and_what_tells_of_changes(folder: Path) -> None:
    path = folder / "a"
    path.write_bytes(b"bytes\x00\xff")
    os.utime(path, ns=(0, 1_600_000_000_000_000_001))
    time.sleep(OLD_ENOUGH_S)
    content = read(found_at(path))
    assert content == (
        b"bytes\x00\xff",
        FileStamp.of(path.stat()),
        hashlib.sha256(b"bytes\x00\xff").digest(),
    )


def test_an_empty_file_is_read(folder: Path) -> None:
    write(folder, "a", text="")
    assert read(found_at(folder / "a")).data == b""


@pytest.mark.parametrize(
    ("age_ns", "whole_second", "is_trusted"),
    [
        (10_000_000_000, False, True),
        (500_000_000, False, True),
        (1_000_000_000, True, False),
        (5_000_000_000, True, True),
        (-3_600_000_000_000, False, False),
    ],
)
def test_a_fresh_time_is_not_trusted(
    folder: Path, age_ns: int, whole_second: bool, is_trusted: bool
) -> None:
    path = folder / "a"
    path.write_text("x")
    mtime_ns = time.time_ns() - age_ns
    mtime_ns = mtime_ns // 10**9 * 10**9 if whole_second else mtime_ns | 1
    os.utime(path, ns=(0, mtime_ns))
    assert read(found_at(path)).stamp is None, "ctime tells of a change just now"
    time.sleep(OLD_ENOUGH_S)
    assert (read(found_at(path)).stamp is not None) == is_trusted


def test_numbers_of_a_file_system_that_are_beyond_64_bits_are_kept_apart() -> None:
    numbers = (0, 1 << 63, (1 << 64) - 1)
    stamps = {
        FileStamp.of(os.stat_result((0, inode, *[0] * 8), {"st_mtime_ns": 0, "st_ctime_ns": 0}))
        for inode in numbers
    }
    assert len(stamps) == 3
    assert all(-(1 << 63) <= stamp.inode < 1 << 63 for stamp in stamps)


def test_a_file_changed_since_the_walk_is_read_as_it_is_now(folder: Path) -> None:
    write(folder, "a", text="old")
    found = found_at(folder / "a")
    write(folder, "a", text="longer than before")
    assert read(found).data == b"longer than before"
    with pytest.raises(UnreadableFile, match="18 bytes, over the limit of 10 bytes"):
        read(found, max_file_size=10)


def test_a_vanished_file_is_unreadable(folder: Path) -> None:
    write(folder, "a")
    found = found_at(folder / "a")
    (folder / "a").unlink()
    with pytest.raises(UnreadableFile, match="No such file") as caught:
        read(found)
    assert caught.value.path == str(folder / "a")


def test_what_took_a_files_place_is_not_read(folder: Path) -> None:
    write(folder, "a", "other")
    found = found_at(folder / "a")
    (folder / "a").unlink()
    os.mkfifo(folder / "a")
    with pytest.raises(UnreadableFile, match="is a named pipe"):
        read(found)
    (folder / "a").unlink()
    (folder / "a").symlink_to("other")
    with pytest.raises(UnreadableFile) as caught:
        read(found)
    assert "--follow-links" in caught.value.hint
    (folder / "a").unlink()
    (folder / "a").mkdir()
    with pytest.raises(UnreadableFile, match="folder"):
        read(found)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_file_that_never_has_its_size_is_unreadable() -> None:
    with pytest.raises(UnreadableFile, match="changed each time it was read"):
        read(FoundFile(Path("/proc/self/status"), FileStamp(0, 0, 0, 0)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_unreadable(folder: Path) -> None:
    write(folder, "a")
    (folder / "a").chmod(0)
    with pytest.raises(UnreadableFile, match="Permission denied") as caught:
        read(found_at(folder / "a"))
    assert "chmod" in caught.value.hint


def test_a_walk_of_many_files_is_fast(folder: Path) -> None:
    (folder / ".gitignore").write_text("*.log\nbuild/\n!keep.log\n*.tmp\n")
    for d in range(20):
        (folder / f"d{d}").mkdir()
        for n in range(100):
            (folder / f"d{d}" / f"f{n}.txt").touch()
    began = time.perf_counter()
    count = len(list(Walk([folder], glob="**/*.{txt,md}")))
    assert count == 2000
    assert time.perf_counter() - began < 2.0


def test_links_are_followed_where_asked_under_their_own_names(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "note.txt").write_text("far away")
    (folder / "to_folder").symlink_to(outside)
    (folder / "to_file.txt").symlink_to(outside / "deep" / "note.txt")
    (folder / "to_nothing").symlink_to(tmp_path / "nothing")
    (outside / "deep" / "back").symlink_to(outside)
    (folder / "round").symlink_to(folder)

    walk = Walk([folder], follow_links=True)
    found = {str(file.path.relative_to(folder)): file for file in walk}

    assert {"to_folder/deep/note.txt", "to_file.txt"} <= set(found)
    assert not any("back/" in name or "round/" in name for name in found)
    for name in ("to_folder/deep/note.txt", "to_file.txt"):
        assert read(found[name]).data == b"far away"
    reasons = {Path(path).name: reason for path, _, reason in walk.skipped}
    assert reasons == {
        "to_nothing": "a symbolic link to what does not exist",
        "back": "a symbolic link to a folder above it",
        "round": "a symbolic link to a folder above it",
    }


def test_a_link_into_an_index_is_never_followed(folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "some.index"
    index.mkdir()
    for name in ("store.db", "HEAD", "LOCK"):
        (index / name).write_text("private")
    (folder / "database.txt").symlink_to(index / "store.db")
    (folder / "index").symlink_to(index)
    walk = Walk([folder], follow_links=True)
    names = {file.path.name for file in walk}
    assert not names & {"database.txt", "index", "store.db"}

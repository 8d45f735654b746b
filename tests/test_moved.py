"""What becomes of citations when an index, its folder or its files are moved, changed or gone."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from pathlib import Path

import pytest
from command_line import run, run_json, small_models

from retriever import Document, Index, InvalidConfig
from retriever.cli import default_index
from retriever.testing import HashEncoder

__all__ = ["small_models"]
NAMES = ["docs/bees.md", "docs/pump.md", "docs/sub/levy.md"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in NAMES:
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {path.stem}\n\nA text about the {path.stem}.\n")
    time.sleep(0.03)  # or the times of the files would be too fresh to be trusted
    with Index.open(tmp_path / "project" / ".retriever", model=HashEncoder()) as index:
        index.add_files(tmp_path / "project" / "docs")
    return tmp_path / "project"


def held(path: Path, **options: object) -> tuple[Path, list[tuple[str | None, str | None]]]:
    """Return the base of an index, and the files of its hits with their states."""
    with Index.open(path, model=HashEncoder(), read_only=True, **options) as index:  # type: ignore[arg-type]
        hits = index.search("a text", k=50)
        return index.base, sorted((hit.source, hit.file_state) for hit in hits)


def indexed(path: Path, folder: Path, **options: object) -> list[str | None]:
    """Bring a folder up to date; return the documents. None may be new, or encoded again."""
    encoder = HashEncoder()
    with Index.open(path, model=encoder, **options) as index:  # type: ignore[arg-type]
        encoder.encoded.clear()
        report = index.add_files(folder)
        assert (report.unchanged, report.added, report.missing) == (3, 0, 0)
        assert encoder.encoded == []
        assert index.verify().ok
        assert index.add_files(folder).commits == 0
        return [document.id for document in index.documents()]


UNCHANGED = [(name, "unchanged") for name in NAMES]


def test_only_the_index_moves(project: Path, tmp_path: Path):
    (tmp_path / "shelf").mkdir()
    moved = (project / ".retriever").rename(tmp_path / "shelf" / "project.index")
    assert held(moved) == (project, UNCHANGED)
    assert indexed(moved, project / "docs") == NAMES
    assert held(moved) == (project, UNCHANGED)


def test_index_and_folder_move_together(project: Path, tmp_path: Path):
    there = project.rename(tmp_path / "elsewhere")
    assert held(there / ".retriever") == (there, UNCHANGED)
    assert indexed(there / ".retriever", there / "docs") == NAMES
    (there / ".retriever").rename(tmp_path / "i")
    assert held(tmp_path / "i") == (there, UNCHANGED)


def test_a_copy_of_index_and_folder_is_about_the_copied_files(project: Path, tmp_path: Path):
    copy = Path(shutil.copytree(project, tmp_path / "copy"))
    (project / "docs" / "pump.md").write_text("Another pump.")
    time.sleep(0.03)
    assert held(copy / ".retriever") == (copy, UNCHANGED)
    assert indexed(copy / ".retriever", copy / "docs") == NAMES
    assert ("docs/pump.md", "changed") in held(project / ".retriever")[1]


def test_a_backup_cites_the_same_files(project: Path, tmp_path: Path):
    with Index.open(project / ".retriever") as index:
        index.backup(tmp_path / "safe" / "copy.index")
    assert held(tmp_path / "safe" / "copy.index") == (project, UNCHANGED)


def test_other_files_where_an_index_is_moved_to_do_not_mislead(project: Path, tmp_path: Path):
    (tmp_path / "shelf" / "docs").mkdir(parents=True)
    (tmp_path / "shelf" / "docs" / "pump.md").write_text("Another project's pump.")
    moved = (project / ".retriever").rename(tmp_path / "shelf" / "project.index")
    assert held(moved) == (project, UNCHANGED)


def test_an_index_without_its_files_says_nothing_of_them(project: Path, tmp_path: Path, caplog):
    (tmp_path / "shelf").mkdir()
    moved = (project / ".retriever").rename(tmp_path / "shelf" / "project.index")
    there = project.rename(tmp_path / "elsewhere")
    assert held(moved)[1] == [(name, None) for name in NAMES]
    assert held(moved, base=there) == (there, UNCHANGED)
    (tmp_path / "shelf" / "new.md").write_text("New.")
    with Index.open(moved, model=HashEncoder()) as index:
        index.add_files(tmp_path / "shelf" / "new.md")
        assert "--base" in caplog.text
        assert index.get(str(tmp_path / "shelf" / "new.md")).text == "New."
    there.rename(project)
    assert held(moved) == (project, [(str(tmp_path / "shelf" / "new.md"), "unchanged"), *UNCHANGED])


def test_a_base_is_changed_where_the_folder_has_moved_alone(project: Path, tmp_path: Path):
    moved = (project / ".retriever").rename(tmp_path / "i")
    there = project.rename(tmp_path / "elsewhere")
    assert indexed(moved, there / "docs", base=there) == NAMES
    assert held(moved) == (there, UNCHANGED)


@pytest.mark.parametrize(
    ("base", "names"),
    [
        ("project/docs", ["bees.md", "pump.md", "sub/levy.md"]),
        (".", [f"project/{name}" for name in NAMES]),
        ("project/docs/sub", ["ABOVE/bees.md", "ABOVE/pump.md", "levy.md"]),
    ],
)
def test_files_that_stay_get_names_relative_to_a_new_base(
    base: str, names: list[str], project: Path, tmp_path: Path
):
    names = [name.replace("ABOVE", str(project / "docs")) for name in names]
    index = project / ".retriever"
    assert indexed(index, project / "docs", base=tmp_path / base) == names
    assert held(index) == ((tmp_path / base).resolve(), [(name, "unchanged") for name in names])
    assert indexed(index, project / "docs", base=project) == NAMES


def test_a_file_that_is_gone_by_the_time_the_base_changes_can_be_pruned(project: Path):
    index, docs = project / ".retriever", project / "docs"
    (docs / "bees.md").unlink()
    for base, left in ((docs, ["pump.md", "sub/levy.md"]), (project, NAMES[1:])):
        with Index.open(index, model=HashEncoder(), base=base) as opened:
            assert opened.add_files(docs).missing == (base == docs)
            assert (opened.get("bees.md") is not None) == (base == docs)
            assert opened.add_files(docs, prune=True).removed == (base == docs)
            assert [document.id for document in opened.documents()] == left


def test_names_that_take_the_place_of_others(tmp_path: Path):
    for name in ("p/p/x.md", "p/x.md", "x.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"This is {name}.")
    with Index.open(tmp_path / "i", model=HashEncoder()) as index:
        index.add_files([tmp_path / "p", tmp_path / "x.md"])
    for base in (tmp_path / "p", tmp_path, tmp_path / "p" / "p", tmp_path):
        with Index.open(tmp_path / "i", model=HashEncoder(), base=base) as index:
            report = index.add_files([tmp_path / "p", tmp_path / "x.md"])
            assert (report.unchanged, report.added, report.missing) == (3, 0, 0)
            assert index.verify().ok
            for name in ("p/p/x.md", "p/x.md", "x.md"):
                known = os.path.relpath(tmp_path / name, base)
                known = str(tmp_path / name) if known.startswith("..") else known
                assert index.get(known).text == f"This is {name}."


def test_a_base_that_is_no_folder_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    for base in ("", tmp_path / "file", tmp_path / "missing"):
        with pytest.raises(InvalidConfig, match=r"is not a folder|is empty"):
            Index.open(tmp_path / "i", model=HashEncoder(), base=base)
    assert not (tmp_path / "i").exists()


def test_a_base_that_is_not_text_and_one_given_at_creation(tmp_path: Path, monkeypatch):
    base = tmp_path / os.fsdecode(b"caf\xe9")
    base.mkdir()
    (base / "a.md").write_text("The pump.")
    monkeypatch.chdir(tmp_path)
    with Index.open("i", model=HashEncoder(), base=base.name) as index:
        index.add_files(base)
        assert [document.id for document in index.documents()] == ["a.md"]
        monkeypatch.chdir(base)
        with pickle.loads(pickle.dumps(index)) as again:
            assert again.base == index.base == base
    assert held(tmp_path / "i")[0] == base


# --- hits whose file has changed ------------------------------------------------------------


def states(index: Index) -> dict[str, str | None]:
    hits = index.search("a text", k=50)
    assert all(hit.stale == (hit.file_state in ("changed", "gone")) for hit in hits)
    assert all(hit.to_dict()["stale"] is hit.stale for hit in hits)
    return {hit.document_id: hit.file_state for hit in hits}


def test_a_hit_tells_whether_its_file_has_changed_or_gone(project: Path):
    with Index.open(project / ".retriever", model=HashEncoder()) as index:
        index.add([Document("a text by hand", id="hand", source="https://example.org/a")])
        assert states(index) == dict.fromkeys(NAMES, "unchanged") | {"hand": None}
        bees, pump, levy = (project / name for name in NAMES)
        status = bees.stat()
        bees.write_text(bees.read_text().replace("text", "TEXT"))
        os.utime(bees, ns=(status.st_atime_ns, status.st_mtime_ns))  # size and time as before
        pump.unlink()
        levy.write_text("longer " + levy.read_text())
        assert states(index) == dict(zip(NAMES, ("changed", "gone", "changed"), strict=True)) | {
            "hand": None
        }
        index.add_files(project / "docs", prune=True)
        assert states(index) == {NAMES[0]: "unchanged", NAMES[2]: "unchanged", "hand": None}
        shutil.rmtree(levy.parent)
        levy.parent.write_text("a file in the folder's place")
        bees.unlink()
        bees.symlink_to("/dev/null")
        assert states(index) == {NAMES[0]: "changed", NAMES[2]: "gone", "hand": None}


def test_a_file_that_was_only_touched_or_copied_has_not_changed(project: Path):
    bees = project / NAMES[0]
    content = bees.read_bytes()
    bees.unlink()
    bees.write_bytes(content)
    with Index.open(project / ".retriever", model=HashEncoder()) as index:
        assert states(index) == dict.fromkeys(NAMES, "unchanged")
        bees.write_bytes(content.upper())
        assert states(index)[NAMES[0]] == "changed"


def test_a_version_that_was_kept_is_stale(project: Path):
    with Index.open(project / ".retriever", model=HashEncoder()) as index:
        (project / NAMES[0]).write_bytes(b"\x00\x01\x02" * 50)
        time.sleep(0.03)
        assert "is kept" in index.add_files(project / "docs").skipped[0].reason
        assert states(index)[NAMES[0]] == "changed"


# --- the command line -----------------------------------------------------------------------


def citations(*arguments: str) -> list[str]:
    done = run("search", "a text", "-k", "50", *arguments)
    assert done.exit_code == 0, done.stderr
    return [
        line.split("  ", 2)[2] for line in done.stdout.split("\n") if line[:3].strip().isdigit()
    ]


@pytest.mark.usefixtures("small_models")
def test_a_citation_opens_from_where_one_stands(project: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(project)
    assert sorted(citations()) == [f"{name}:1" for name in NAMES]
    for where in ("docs", "docs/sub"):
        monkeypatch.chdir(project / where)
        found = sorted(line.removesuffix(":1") for line in citations())
        assert all(one.startswith(("./", "../")) for one in found)
        assert {Path(one).resolve() for one in found} == {project / name for name in NAMES}
    monkeypatch.chdir(tmp_path)
    assert sorted(citations("-i", "project/.retriever")) == [f"./project/{n}:1" for n in NAMES]
    (tmp_path / "aside").mkdir()
    (project / "docs" / "pump.md").rename(project / "docs" / "-pump\u202e.md")
    monkeypatch.chdir(project / "docs")
    assert run("index", ".", "--prune").exit_code == 0
    assert "./-pump\\u202e.md:1" in citations()
    assert run("delete", "./-pump\\u202e.md").exit_code == 0
    (project / "docs" / "-pump\u202e.md").rename(project / "docs" / "pump.md")
    assert run("index", ".").exit_code == 0
    monkeypatch.chdir(tmp_path / "aside")
    found = sorted(citations("-i", "../project/.retriever"))
    assert found == [f"{project / name}:1" for name in NAMES]
    (project / NAMES[0]).unlink()
    (project / NAMES[1]).write_text("other")
    monkeypatch.chdir(project / "docs")
    assert sorted(citations()) == [
        "./pump.md:1  changed since indexed",
        "./sub/levy.md:1",
        "docs/bees.md:1  file is gone",
    ]


@pytest.mark.usefixtures("small_models")
def test_where_else_a_passage_is_opens_too(project: Path, monkeypatch):
    monkeypatch.chdir(project)
    Path("docs/sub/same.md").write_bytes(Path(NAMES[0]).read_bytes())
    assert run("index", "docs").exit_code == 0
    assert run_json("index", "-", stdin='{"id": "a", "text": "a note"}')["added"] == 1
    assert run_json("index", "-", stdin='{"id": "b", "text": "a note"}')["added"] == 1
    assert "    also in docs/sub/same.md\n" in run("search", "a text").stdout
    monkeypatch.chdir(project / "docs")
    found = run("search", "a text").stdout
    assert "    also in ./sub/same.md\n" in found
    assert "    also in b\n" in found


@pytest.mark.usefixtures("small_models")
def test_the_index_of_a_folder_above_is_used_and_named(project: Path, monkeypatch):
    monkeypatch.chdir(project / "docs" / "sub")
    done = run("index", ".")
    assert (done.exit_code, done.stderr) == (0, "Using the index ../../.retriever.\n")
    assert "1 file unchanged" in done.stdout
    assert not Path(".retriever").exists()
    assert run("search", "levy", "-q").stderr == run("list", "--json").stderr == ""
    assert run("list", "--jsonl").stderr == ""
    assert run_json("status")["documents"] == 3
    assert f"Index      {project / '.retriever'}\n" in run("status").stdout
    assert run("delete", "./levy.md").stdout == "Deleted 1 document.\n"
    assert run("delete", "../pump.md").stdout == "Deleted 1 document.\n"
    assert run("delete", str(project / "docs" / "bees.md")).stdout == "Deleted 1 document.\n"
    assert run("index", ".", "-i", "own.index").stderr == ""
    assert Path("own.index").is_dir()


def test_what_is_above_home_or_not_ones_own_is_not_taken(project: Path, monkeypatch, capsys):
    monkeypatch.chdir(project / "docs" / "sub")
    monkeypatch.setenv("HOME", str(project / "docs"))
    assert default_index.locate(quiet=False) == Path(".retriever")
    monkeypatch.setenv("HOME", str(project / "docs" / "sub"))
    assert default_index.locate(quiet=False) == Path(".retriever")
    monkeypatch.setenv("HOME", str(project))
    assert default_index.locate(quiet=True) == Path("../../.retriever")
    assert capsys.readouterr() == ("", "")
    project.chmod(0o1777)
    assert default_index.locate(quiet=False) == Path(".retriever")
    project.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert default_index.locate(quiet=False) == Path(".retriever")
    assert "belongs to another user" in capsys.readouterr().err


@pytest.mark.usefixtures("small_models")
def test_base_is_an_option_of_index(project: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(project)
    (project / ".retriever").rename(tmp_path / "i")
    there = project.rename(tmp_path / "elsewhere")
    monkeypatch.chdir(there)
    report = run_json("index", "docs", "-i", "../i", "--base", ".")
    assert (report["unchanged"], report["added"]) == (3, 0)
    assert sorted(citations("-i", "../i")) == [f"{name}:1" for name in NAMES]
    done = run("index", "-", "--base", ".", stdin="text")
    assert (done.exit_code, "--base is for files" in done.stderr) == (2, True)
    done = run("index", "docs", "-i", "../i", "--base", "nowhere", "--json")
    assert (done.exit_code, json.loads(done.stderr)["error"]["code"]) == (2, "invalid_config")

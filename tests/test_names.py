"""Names: no two files share one, nothing is hidden, and what is printed is taken back."""

from __future__ import annotations

import os
import time
import unicodedata
from pathlib import Path

import pytest
from command_line import run, small_models  # noqa: F401
from hypothesis import example, given
from hypothesis import strategies as st

from retriever import Index, InvalidDocument, names
from retriever.cli import naming, output
from retriever.documents import parsers
from retriever.documents.parsers.text import parse_text
from retriever.testing import HashEncoder
from retriever.types import Document

NFC, NFD = (unicodedata.normalize(form, "notes/Über/café.md") for form in ("NFC", "NFD"))
PIECES = (b"a", b"#", b"1", b"\\", b"x", b"f", b"\xff", b"\xc3", b"\xa9", b"/", b"5c", b"23", b".")
paths = st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map(b"".join)
ODD = [
    "two  spaces.md",
    "no\u00a0break.md",
    "at 9.41.12\u202fAM.md",
    "👩\u200d🌾 bees.md",
    "नमस्\u200dते.md",
    "line\nfeed.md",
    "tab\tstop.md",
    "esc\x1b[2J.md",
    "right\u202eleft.md",
    "zero\u200bwidth.md",
    " around ",
    "-rf.md",
    "back\\slash.md",
    "\\u001b.md",
    "\\x1b.md",
    "tag\U000e0041.md",
    'quote\'s "$HOME" `id`.md',
    os.fsdecode(b"caf\xe9.md"),
    "caf\\xe9.md",
    "x",
    "x#1",
    "x#1#2",
]


@given(paths)
def test_a_name_says_which_path_it_is(path: bytes):
    assert names.path_of(names.of_path(path)) == path
    assert names.file_of(names.id_of(path)) == names.file_of(names.id_of(path, 7)) == path


@given(paths, paths, st.integers(0, 3), st.integers(0, 3))
@example(b"caf\xe9", b"caf\\xe9", 0, 0)
@example(b"x", b"x#2", 2, 0)
@example(b"x#2", b"x\\x232", 0, 0)
def test_no_two_documents_of_files_share_an_id(one: bytes, other: bytes, row: int, other_row: int):
    is_same = (one, row) == (other, other_row)
    assert (names.id_of(one, row) == names.id_of(other, other_row)) == is_same


@pytest.mark.parametrize("name", ["a.md", "a  b.md", "C#/x", "n#2.md", "back\\slash", "日本/é.md"])
def test_what_is_text_stays_as_it_is(name: str):
    assert names.id_of(name.encode()) == name


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("\\u0041bU-./\n"), min_size=1))
@example("-x")
@example("./-x")
@example("\\u001b")
@example("\x1b")
@example("\\U0001f41d")
def test_what_is_printed_of_a_name_is_read_back(name: str):
    printed = naming.shown(name)
    assert naming.read(printed) == name
    assert naming.shown(naming.read(printed)) == printed
    assert len(printed.splitlines()) == 1
    assert "\t" not in printed
    joined = printed.replace("\u200c", "").replace("\u200d", "")
    assert output.visible(joined) == joined
    assert not printed.startswith("-")


def test_names_that_the_terminal_cannot_show_are_escaped(monkeypatch: pytest.MonkeyPatch):
    class Ascii:
        encoding = "ascii"

    monkeypatch.setattr("sys.stdout", Ascii())
    assert naming.shown("café 🐝.md") == "caf\\u00e9 \\U0001f41d.md"


@pytest.fixture
def folder(tmp_path: Path, small_models: None) -> Path:  # noqa: F811
    for name in ODD:
        (tmp_path / name).write_text(f"Text of {os.fsencode(name)!r}.")
    (tmp_path / "sub").mkdir()
    with Index.open(".retriever", model=HashEncoder()) as index:
        assert index.add_files([tmp_path / name for name in ODD]).added == len(ODD)
    return tmp_path


def test_every_line_of_list_is_a_name_that_delete_takes(folder: Path):
    listed = [line.split("\t")[0] for line in run("list").stdout.split("\n")[:-1]]
    assert len(set(listed)) == len(ODD)
    for left, name in enumerate(reversed(listed)):
        assert run("delete", name).stdout == "Deleted 1 document.\n"
        assert run("list").stdout.count("\n") == len(ODD) - left - 1
        assert name not in [line.split("\t")[0] for line in run("list").stdout.split("\n")]


def test_a_file_is_deleted_by_its_name_as_typed(folder: Path):
    with Index.open(".retriever") as index:
        deleted: list[str] = []
        # One of them is what another is listed as, which goes before.
        for name in sorted(ODD, key=lambda name: name == "caf\\xe9.md"):
            done = run("delete", "--", name)
            assert done.stdout == "Deleted 1 document.\n", done.stderr
            (fresh,) = set(index.status().deleted_files) - set(deleted)
            deleted.append(fresh)
            assert names.path_of(fresh) == os.fsencode(name)


def test_a_hit_cites_a_file_that_is_there(folder: Path):
    with Index.open(".retriever") as index:
        for name in ODD:
            document = index.get(index.id_of(name) or "")
            assert document is not None
            source = document.source or ""
            assert os.path.lexists(names.path_of(source))
            if "\\" not in source:
                assert source == name
            if not set(name) & set("\n\t\x1b\u202e\u200b\U000e0041\\"):
                assert naming.shown(source).removeprefix("./") == source


def test_rows_of_a_file_and_a_file_named_like_a_row_are_both_kept(tmp_path: Path, monkeypatch):
    def rows(data: bytes, path: str) -> list[Document]:
        return [d for line in data.splitlines() for d in parse_text(line, path)]

    monkeypatch.setitem(parsers.PARSERS, ".rows", rows)
    (tmp_path / "x.rows").write_text("row zero\nrow one\nrow two")
    (tmp_path / "x.rows#2").write_text("the file with the number")
    with Index.open(tmp_path / "i", model=HashEncoder()) as index:
        assert index.add_files([tmp_path / "x.rows", tmp_path / "x.rows#2"]).added == 4
        assert index.get("x.rows#2").text == "row two"
        assert index.get("x.rows\\x232").text == "the file with the number"
        index.add(Document("by hand", id="x.rows#1"))
        assert index.search("row two", k=1)[0].file_state == "unchanged"
        report = index.add_files(tmp_path / "x.rows")
        assert (report.replaced, report.unchanged) == (3, 0)
        assert index.get("x.rows#1").text == "row one"
        index.delete("x.rows#1")
        assert index.add_files(tmp_path / "x.rows").unchanged == 1
        assert index.get("x.rows#1") is None


@pytest.mark.parametrize(("held", "typed"), [(NFC, NFD), (NFD, NFC), (NFC, NFC)])
def test_accents_are_compared_as_a_person_reads_them(tmp_path: Path, held: str, typed: str):
    with Index.open(tmp_path / "i", model=HashEncoder()) as index:
        index.add(Document("a text", id=held))
        assert index.get(typed).id == held
        assert index.chunks(typed)[0].document_id == held
        assert index.id_of("no such name", typed) == held
        assert index.delete(typed) == 1
        assert index.get(typed) is None


def test_each_part_of_a_path_may_be_in_a_form_of_its_own(tmp_path: Path):
    held = "/".join([*NFC.split("/")[:2], NFD.split("/")[2]])
    with Index.open(tmp_path / "i", model=HashEncoder()) as index:
        index.add(Document("a text", id=held))
        assert index.get(NFC).id == index.get(NFD).id == held


def test_names_that_differ_only_in_their_form_are_two_documents(tmp_path: Path):
    for name in (NFC, NFD):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Text in {len(name)} characters.")
    if (tmp_path / NFC).samefile(tmp_path / NFD):
        pytest.skip("this file system does not tell them apart")
    with Index.open(tmp_path / "i", model=HashEncoder()) as index:
        assert index.add_files(tmp_path / "notes").added == 2
        assert index.add_files(tmp_path / "notes").unchanged == 2
        assert [index.get(name).id for name in (NFC, NFD)] == [NFC, NFD]
        assert index.delete(NFD) == 1
        assert [document.id for document in index.documents()] == [NFC]


def test_a_file_whose_name_took_another_form_is_the_same_file(tmp_path: Path):
    (tmp_path / "notes").mkdir()
    one, other = (unicodedata.normalize(form, "notes/café.md") for form in ("NFC", "NFD"))
    (tmp_path / one).write_text("The coffee is hot.")
    encoder = HashEncoder()
    with Index.open(tmp_path / "i", model=encoder) as index:
        index.add_files(tmp_path / "notes")
        encoder.encoded.clear()
        (tmp_path / one).rename(tmp_path / other)
        time.sleep(0.03)  # or the time of the change would be too fresh to be trusted
        report = index.add_files(tmp_path / "notes")
        assert (report.unchanged, report.added, report.missing) == (1, 0, 0)
        assert [(d.id, d.source) for d in index.documents()] == [(other, other)]
        assert encoder.encoded == []
        assert index.search("coffee", k=1)[0].file_state == "unchanged"
        assert index.verify().ok
        assert index.add_files(tmp_path / "notes").commits == 0


def test_a_name_that_is_no_text_is_refused_by_name(tmp_path: Path):
    with Index.open(tmp_path / "i", model=HashEncoder()) as index:
        for call in (index.get, index.chunks, index.delete):
            with pytest.raises(InvalidDocument, match="surrogate"):
                call("a\ud800b")

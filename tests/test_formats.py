"""Indexes of other formats: what opens, what is refused, and with which words."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import index_formats
import pytest
from command_line import run, small_models  # noqa: F401
from index_formats import TEXTS

from retriever import Chunking, FormatMismatch, Index, IndexCorrupt
from retriever.storage import layout
from retriever.storage.tables import CHUNKINGS
from retriever.storage.writer import Writer
from retriever.testing import HashEncoder

pytestmark = pytest.mark.damages
KEPT = sorted(
    int(path.name.removesuffix(".tar.gz").rpartition("-")[2])
    for path in index_formats.KEPT.glob("format-*.tar.gz")
)
CALLS: dict[str, Callable[[Path], Any]] = {
    "open": lambda path: Index.open(path, model=HashEncoder()),
    "adopt": lambda path: Index.adopt(path, path.with_name("own.index"), model=HashEncoder()),
    "verify": Index.verify_path,
    "repair": lambda path: Index.repair_path(path, model=HashEncoder(), accept_loss=True),
}
COMMANDS = (
    ["search", "pump"],
    ["status"],
    ["list"],
    ["verify"],
    ["repair", "--accept-loss"],
    ["backup", "copy"],
    ["compact"],
    ["delete", "pump"],
)


def give_format(path: Path, number: int) -> None:
    """Have an index say that it is of a format, in the database and in a sound HEAD."""
    connection = sqlite3.connect(path / "store.db")
    connection.execute(f"PRAGMA user_version={number + 1}")
    connection.close()
    write_head(path, number)


def write_head(path: Path, number: object) -> None:
    head = json.loads((path / "HEAD").read_text())
    crc = zlib.crc32(f"{number} {head['seq']} {head['chain']}".encode())
    (path / "HEAD").write_text(json.dumps({**head, "format": number, "crc": crc}) + "\n")


def contents(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and not file.name.endswith(("-shm", "-wal"))
    }


@pytest.fixture
def current(tmp_path: Path) -> Path:
    return index_formats.make(tmp_path)


def test_an_index_of_each_earlier_format_is_kept() -> None:
    assert set(range(layout.FORMAT)) <= set(KEPT)


def test_the_present_format_opens_as_it_would_when_it_was_kept(
    current: Path, tmp_path: Path
) -> None:
    index_formats.pack(current, tmp_path / "kept.tar.gz")
    for index in (current, *([kept_now(tmp_path)] if layout.FORMAT in KEPT else [])):
        with Index.open(index, model=HashEncoder()) as opened:
            assert opened.verify(deep=True).ok
            assert {document.id: document.text for document in opened.documents()} == TEXTS
            assert opened.search("reset the pump", k=1)[0].document_id == "pump"
            assert opened.search("tombstone", k=1)[0].document_id != "old"
            assert opened.get("straße").metadata == {"of": "straße"}
            assert opened.status().format == layout.FORMAT


def test_a_document_added_to_an_older_index_is_cut_as_it_was_then(tmp_path: Path) -> None:
    # An index of this format with the chunking that one of format 2 recorded.
    with closing(sqlite3.connect(index_formats.unpack(2, tmp_path) / "store.db")) as old:
        options, cutter = old.execute("SELECT options, cutter FROM chunkings").fetchone()
    path = tmp_path / "now.index"
    Index.open(path, model=HashEncoder()).close()
    with closing(Writer.open(path, timeout_s=1)) as writer, writer.transaction() as change:
        select = f"SELECT {CHUNKINGS.listed()} FROM chunkings"
        row = CHUNKINGS.checked(change.connection.execute(select).fetchone())
        change.update(CHUNKINGS, row, (*row[:2], options, cutter))
    text = (index_formats.KEPT / "cut.md").read_text("utf-8")
    wanted = json.loads((index_formats.KEPT / "format-2-spans.json").read_text())
    (tmp_path / "cut.md").write_text(text, encoding="utf-8")
    with Index.open(path, model=HashEncoder()) as opened:
        opened.add_files(tmp_path / "cut.md")
        (name,) = (one.id for one in opened.documents() if one.text == text)
        assert [list(chunk.span) for chunk in opened.chunks(name)] == wanted
        assert opened.status().chunking == Chunking(tokens=None, overlap=16)
        opened.rebuild(chunking=Chunking())
        assert opened.status().chunking == Chunking()
        assert [list(chunk.span) for chunk in opened.chunks(name)] != wanted
        assert opened.verify(deep=True).ok


def kept_now(folder: Path) -> Path:
    return index_formats.unpack(layout.FORMAT, folder / "kept")


@pytest.mark.parametrize("number", [*(n for n in KEPT if n != layout.FORMAT), layout.FORMAT + 1])
@pytest.mark.parametrize("call", CALLS)
def test_another_format_is_refused_by_every_call(
    number: int, call: str, tmp_path: Path, current: Path
) -> None:
    path = of_format(number, tmp_path, current)
    before = contents(path)
    with pytest.raises(FormatMismatch, match=f"format {number};") as caught:
        CALLS[call](path)
    assert (caught.value.found, caught.value.supported) == (number, layout.FORMAT)
    assert "damage" not in str(caught.value)
    hint = caught.value.hint
    if number > layout.FORMAT:
        assert "upgrade" in hint
    else:  # how to go on without losing anything
        assert "retriever index FOLDER -i NEW" in hint
        assert "retriever export -i OLD" in hint
    assert contents(path) == before


def of_format(number: int, folder: Path, current: Path) -> Path:
    if number in KEPT and number != layout.FORMAT:
        return index_formats.unpack(number, folder / "other")
    give_format(current, number)
    return current


@pytest.mark.usefixtures("small_models")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("number", [*(n for n in KEPT if n < layout.FORMAT), layout.FORMAT + 1])
def test_the_command_line_says_the_format(
    number: int, command: list[str], tmp_path: Path, current: Path
) -> None:
    path = of_format(number, tmp_path, current)
    result = run(*command, "-i", str(path))
    assert result.exit_code == FormatMismatch.exit_code, result.stderr
    assert f"format {number}" in result.stderr
    assert "damage" not in result.stderr


def set_chunking(path: Path, options: str) -> None:
    """Change the options of the chunking of an index, and give the row its checksum."""
    connection = sqlite3.connect(path / "store.db")
    [row] = connection.execute(f"SELECT {CHUNKINGS.listed()} FROM chunkings").fetchall()
    sealed = CHUNKINGS.seal((*row[:2], options, row[3]))
    connection.execute(CHUNKINGS.update_sql, (*sealed, row[0]))
    connection.commit()
    connection.close()


@pytest.mark.parametrize("call", CALLS)
def test_an_option_of_a_later_version_is_no_damage(call: str, current: Path) -> None:
    set_chunking(current, json.dumps({**Chunking().to_dict(), "by_page": True}))
    before = contents(current)
    with pytest.raises(FormatMismatch, match="option 'by_page'") as caught:
        CALLS[call](current)
    assert "newer version" in caught.value.hint
    assert "damage" not in str(caught.value)
    assert contents(current) == before


@pytest.mark.parametrize("options", ["{", "[]", '{"tokens": 1}', '{"unit": "page"}'])
def test_options_that_no_version_writes_are_damage(options: str, current: Path) -> None:
    set_chunking(current, options)
    with pytest.raises(IndexCorrupt, match="table chunkings is damaged"):
        Index.open(current, model=HashEncoder())
    assert not Index.verify_path(current).ok


def test_an_open_index_that_turns_into_another_format_is_refused(current: Path) -> None:
    with Index.open(current, model=HashEncoder()) as index:
        give_format(current, layout.FORMAT + 1)
        with pytest.raises(FormatMismatch):
            index.add("more")
        with pytest.raises(FormatMismatch):
            index.backup(current.parent / "copy")
        with pytest.raises(FormatMismatch):
            index.verify()
        assert not (current.parent / "copy").exists()
        give_format(current, layout.FORMAT)


def test_a_damaged_database_of_another_format_is_told_by_its_head(current: Path) -> None:
    write_head(current, layout.FORMAT + 1)
    (current / "store.db").write_bytes(bytes(8192))
    for call in ("verify", "repair"):
        with pytest.raises(FormatMismatch):
            CALLS[call](current)


@pytest.mark.parametrize("number", [0, layout.FORMAT + 1])
def test_a_head_of_another_format_than_its_database_is_mended(current: Path, number: int) -> None:
    write_head(current, number)
    with pytest.raises(IndexCorrupt, match=f"HEAD is of format {number}"):
        Index.open(current, model=HashEncoder())
    assert not Index.verify_path(current).ok
    assert Index.repair_path(current, model=HashEncoder()).ok
    with Index.open(current, model=HashEncoder()) as index:
        assert index.count() == len(TEXTS)


@pytest.mark.parametrize("number", [-1, True, 1.5, "1", None, 1 << 40, [1]])
def test_a_format_that_none_can_be_is_damage(current: Path, number: object) -> None:
    write_head(current, number)
    with pytest.raises(IndexCorrupt, match="HEAD is damaged"):
        Index.open(current, model=HashEncoder())
    assert Index.repair_path(current, model=HashEncoder()).ok


@pytest.mark.parametrize("version", [0, -7])
def test_a_database_of_no_format_is_damage(current: Path, version: int) -> None:
    connection = sqlite3.connect(current / "store.db")
    connection.execute(f"PRAGMA user_version={version}")
    connection.close()
    with pytest.raises(IndexCorrupt, match="schema"):
        Index.open(current, model=HashEncoder())
    assert Index.repair_path(current, model=HashEncoder()).ok

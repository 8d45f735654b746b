"""An index that is replaced under an open `Index`: nothing known of the one holds for the other."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import retriever
from retriever import Document, Index, Limits
from retriever.testing import HashEncoder

WORDS = ["pump", "valve", "rotor", "seal", "tank", "gasket", "impeller", "motor", "shaft", "flange"]


def build(
    path: Path, encoder: HashEncoder, words: list[str] = WORDS, limits: Limits | None = None
) -> Path:
    with Index.open(path, model=encoder, limits=limits) as index:
        index.add([Document(f"{word} manual", id=word) for word in words])
    return path


def swap(live: Path, new: Path) -> None:
    aside = live.with_name("aside")
    live.rename(aside)
    new.rename(live)
    aside.rename(new)


@pytest.fixture
def live(tmp_path: Path) -> Path:
    return build(tmp_path / "live", HashEncoder())


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return build(tmp_path / "new", HashEncoder(salt="other", name="other"))


def test_the_old_encoder_neither_searches_nor_writes_an_index_of_another_model(
    live: Path, new: Path
):
    with Index.open(live, model=HashEncoder()) as index:
        assert index.search("rotor", k=1)[0].document_id == "rotor"
        swap(live, new)
        for call in (
            lambda: index.search("rotor"),
            lambda: index.search_many(["rotor"]),
            lambda: index.add(Document("rotor spare parts", id="spare")),
            index.rebuild,
        ):
            with pytest.raises(retriever.ModelMismatch, match="differs in weights"):
                call()
        assert index.count() == len(WORDS)
        assert len(index.search(vector=np.ones(32), k=3)) == 3


def test_a_writer_notices_without_a_search_before_it(live: Path, new: Path):
    with Index.open(live, model=HashEncoder()) as index:
        index.add("first of all")
        swap(live, new)
        with pytest.raises(retriever.ModelMismatch):
            index.add("second of all")
    with Index.open(live, model=HashEncoder(salt="other")) as index:
        assert index.count() == len(WORDS)


def test_a_replacement_of_the_same_model_goes_on_with_its_own_rows(live: Path, tmp_path: Path):
    limits = Limits(tail_rows=4)
    with Index.open(live, model=HashEncoder(), limits=limits) as index:
        index.add(Document("one more manual", id="more"))
        index.search("rotor")
        other = [f"{word}s" for word in WORDS]
        new = build(tmp_path / "new", HashEncoder(), other, limits)
        with Index.open(new, model=HashEncoder(), limits=limits) as replacement:
            replacement.add(Document("one more manual", id="more"))
        swap(live, new)
        assert index.search("rotors manual", k=1)[0].document_id == "rotors"
        assert {hit.document_id for hit in index.search("manual", k=20)} == {*other, "more"}


def test_what_was_removed_and_made_again_is_another_index(live: Path):
    """The file system may give the new database the inode of the old one."""
    with Index.open(live, model=HashEncoder()) as index:
        index.search("rotor")
        index._pool.close_idle(-1)
        shutil.rmtree(live)
        build(live, HashEncoder(), [f"{word}s" for word in WORDS])
        found = index.search("manual", k=20)
        assert {hit.document_id for hit in found} == {f"{word}s" for word in WORDS}


def test_an_index_in_another_format_is_refused_where_it_takes_the_place(live: Path, new: Path):
    with Index.open(live) as index:
        index.count()
        with closing(sqlite3.connect(new / "store.db")) as connection:
            connection.execute("PRAGMA application_id = 7")
        swap(live, new)
        for _ in range(2):
            with pytest.raises((retriever.FormatMismatch, retriever.IndexCorrupt)):
                index.count()
        swap(live, new)
        assert index.count() == len(WORDS)


def test_a_writer_whose_directory_is_moved_stops_and_leaves_the_other_index_alone(
    live: Path, new: Path
):
    with Index.open(live, model=HashEncoder()) as index:
        with index.writing():
            index.add("first of all")
            swap(live, new)
            with pytest.raises(retriever.WriteFailed, match="moved or replaced"):
                index.add("second of all")
        assert Index.verify_path(live).ok
        assert Index.verify_path(new).ok


def test_an_index_that_is_gone_is_not_found(live: Path) -> None:
    with Index.open(live, model=HashEncoder()) as index:
        index.search("rotor")
        shutil.rmtree(live)
        for call in (
            lambda: index.search("rotor"),
            lambda: index.get("rotor"),
            lambda: index.add("x"),
            index.status,
        ):
            with pytest.raises(retriever.IndexNotFound, match="no longer exists"):
                call()
        build(live, HashEncoder(), ["crane"])
        assert index.search("crane", k=1)[0].document_id == "crane"

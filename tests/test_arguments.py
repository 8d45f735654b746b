"""What callers pass: what is of the wrong kind is refused in words before anything is done."""

from __future__ import annotations

import json
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run

from retriever import (
    Chunking,
    Document,
    Heading,
    Index,
    IndexLocked,
    InvalidConfig,
    InvalidDocument,
    InvalidFilter,
    InvalidQuery,
    RetrieverError,
    UsageError,
)
from retriever.testing import HashEncoder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.index"


@pytest.fixture
def index(path: Path) -> Iterator[Index]:
    with Index.open(path, model=HashEncoder()) as opened:
        opened.add([Document("the pump", id="p"), Document("the sea", id="s")])
        yield opened


class Rude:
    def __repr__(self) -> str:
        raise ValueError("no repr")


NO_FLAGS = ("no", None, 1, 0, [], Rude())
NO_WHOLE = (0, -1, 1.5, "2", True, None, [1], math.inf, Rude(), np.float64(2), np.array([1, 2]))
NO_PATHS = (5, None, b"/x", "", "a\0b", "\ud800", ["a"], Rude(), "~nobody-of-this-name/x")
OPENING: list[tuple[str, Any]] = [
    *(("lock_timeout_s", value) for value in (-1, -0.5, math.nan, "a", "1", [], True, Rude())),
    *(("threads", value) for value in (*(v for v in NO_WHOLE if v is not None), 10**9, 10**12)),
    *((name, value) for name in ("read_only", "allow_download") for value in NO_FLAGS),
    *(("check", value) for value in ("ful", "FULL", "", None, True, 5, ["full"])),
    *(("precision", value) for value in ("x", None, 5, ["auto"])),
    *(("device", value) for value in (5, True, ["cpu"])),
    *(("chunking", value) for value in (5, ["window"], {"unit": 5}, {"tokens": 1.5}, {1: 2})),
    *(("model", value) for value in (5, True, [], b"x", object)),
]


@pytest.mark.parametrize("number", range(len(OPENING)))
def test_an_option_of_open_that_is_none_is_refused_by_name(index: Index, path: Path, number: int):
    name, value = OPENING[number]
    with pytest.raises(InvalidConfig) as caught:
        Index.open(path, **{"model": HashEncoder(), name: value}).close()
    assert name in caught.value.message
    assert caught.value.hint
    with pytest.raises(InvalidConfig):
        Index.open(path.with_name("new.index"), **{"model": HashEncoder(), name: value})
    assert not path.with_name("new.index").exists()


def test_a_mistyped_word_is_guessed(path: Path):
    with pytest.raises(InvalidConfig, match=r"check is 'ful'. Did you mean 'full'\?"):
        Index.open(path, check="ful")


Call = Callable[[Index, Any], object]
CALLS: dict[str, tuple[Call, tuple[Any, ...]]] = {
    "add, progress": (lambda i, v: i.add("x", progress=v), (5, "x", [], Rude())),
    "add": (lambda i, v: i.add(v), (5, None, b"x", [5], [None], [b"x"], [["x"]])),
    "add_files": (
        lambda i, v: i.add_files(v),
        (*(v for v in NO_PATHS if v != ["a"]), [5], [""], {"": 1}),
    ),
    "add_files, glob": (lambda i, v: i.add_files(".", glob=v), (5, b"*", ["*"], True)),
    "add_files, size": (
        lambda i, v: i.add_files(".", max_file_size=v),
        (-1, "1", None, 1.5, math.inf, True),
    ),
    "add_files, prune": (lambda i, v: i.add_files(".", prune=v), NO_FLAGS),
    "add_files, progress": (lambda i, v: i.add_files(".", progress=v), (5,)),
    "delete": (lambda i, v: i.delete(v), (123, None, b"p", [5], [None], {"p": 1}, 1.5)),
    "delete, purge": (lambda i, v: i.delete("p", purge=v), NO_FLAGS),
    "delete, missing_ok": (lambda i, v: i.delete("p", missing_ok=v), NO_FLAGS),
    "compact, progress": (lambda i, v: i.compact(progress=v), (5,)),
    "rebuild, progress": (lambda i, v: i.rebuild(progress=v), (5,)),
    "rebuild, model": (lambda i, v: i.rebuild(model=v), (5, b"x", object)),
    "rebuild, chunking": (lambda i, v: i.rebuild(chunking=v), (5, "foo", {"tokens": -1}, ["x"])),
    "verify, progress": (lambda i, v: i.verify(progress=v), (5,)),
    "verify, deep": (lambda i, v: i.verify(deep=v), NO_FLAGS),
    "verify_path": (lambda i, v: Index.verify_path(v), NO_PATHS),
    "repair, accept_loss": (lambda i, v: i.repair(accept_loss=v), NO_FLAGS),
    "repair_path": (lambda i, v: Index.repair_path(v), NO_PATHS),
    "adopt": (lambda i, v: Index.adopt(v, i.path), NO_PATHS),
    "adopt, target": (lambda i, v: Index.adopt(i.path, v), NO_PATHS),
    "adopt, discard_embeddings": (
        lambda i, v: Index.adopt(i.path, f"{i.path}.own", discard_embeddings=v),
        NO_FLAGS,
    ),
    "adopt, progress": (lambda i, v: Index.adopt(i.path, f"{i.path}.own", progress=v), (5,)),
    "open": (lambda i, v: Index.open(v, model=HashEncoder()), NO_PATHS),
    "backup": (lambda i, v: i.backup(v), NO_PATHS),
    "get": (lambda i, v: i.get(v), (5, None, b"p", "\ud800")),
    "chunks": (lambda i, v: i.chunks(v), (5, None)),
    "search": (lambda i, v: i.search(v), (5, b"x", ["a"], "", " ", "\ud800")),
    "search, k": (lambda i, v: i.search("x", k=v), NO_WHOLE),
    "search, candidates": (lambda i, v: i.search("x", candidates=v), NO_WHOLE),
    "search, group": (lambda i, v: i.search("x", group=v), ("chunk", 5, True, [])),
    "search, fold": (lambda i, v: i.search("x", fold=v), NO_FLAGS),
    "search, rerank": (lambda i, v: i.search("x", rerank=v), (5, True, "", object, Rude())),
    "search, vector": (
        lambda i, v: i.search(vector=v),
        (1.0, "abc", object(), ["1"] * 32, [None] * 32, [10**400] * 32, [[1], [2, 3]], Rude()),
    ),
    "search_many": (lambda i, v: i.search_many(v), (5, b"x", [5], [None], 1.5)),
    "search_many, vectors": (
        lambda i, v: i.search_many(vectors=v),
        (5, "abc", np.float64(1), np.ones(32), [5]),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_argument_is_a_usage_error_and_does_nothing(index: Index, name: str):
    call, values = CALLS[name]
    for value in values:
        with pytest.raises(UsageError) as caught:
            call(index, value)
        assert caught.value.hint, name
    assert index.count() == 2
    assert index.search("the pump", k=1)[0].document_id == "p"


def test_what_a_callers_own_code_raises_passes_through(index: Index):
    def documents() -> Iterator[str]:
        raise KeyError("mine")
        yield ""

    def progress(_: object) -> None:
        raise KeyError("mine")

    for call in (
        lambda: index.add(documents()),
        lambda: index.add(["x y z"], progress=progress),
        lambda: index.search_many(documents()),
        lambda: index.delete(documents()),
    ):
        with pytest.raises(KeyError, match="mine"):
            call()


# --- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint16])
def test_numpys_integers_are_integers(index: Index, path: Path, kind: type):
    assert len(index.search("pump", k=kind(1), candidates=kind(2))) == 1
    index.add(
        Document("ab\ncd", id="h", headings=[Heading(kind(3), kind(1), "cd")], pages=[kind(0)])
    )
    assert index.get("h").headings == (Heading(3, 1, "cd"),)
    assert index.get("h").pages == (0,)
    assert Chunking(tokens=kind(16), overlap=kind(2)).to_dict()["tokens"] == 16
    Index.open(path, threads=kind(1), lock_timeout_s=kind(1)).close()
    assert index.add_files(str(path.parent), max_file_size=kind(100)).added == 0


NUMBERS = {
    "int64": (np.int64(-3), -3),
    "uint64": (np.uint64(3), 3),
    "float32": (np.float32(0.5), 0.5),
    "float16": (np.float16(0.5), 0.5),
    "long double": (np.longdouble(0.5), 0.5),
    "true": (np.bool_(True), True),
    "text": (np.str_("a"), "a"),
    "an array": (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    "a day": (np.datetime64("2024-02-29"), "2024-02-29"),
    "no moment": (np.datetime64("NaT"), None),
    "a moment": (np.datetime64("2024-02-29T12:30:00.5", "ns"), "2024-02-29T12:30:00.500000"),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numpys_values_are_taken_in_metadata(index: Index, name: str):
    given, stored = NUMBERS[name]
    index.add(Document("x", id="x", metadata={"v": given, "in": [given]}))
    found = index.get("x").metadata
    assert found == {"v": stored, "in": [stored]}
    assert type(found["v"]) is type(stored)


@pytest.mark.parametrize(
    "value",
    [
        np.float32("nan"),
        np.uint64(2**63),
        np.complex64(1),
        np.bytes_(b"x"),
        np.array([object()]),
        np.timedelta64(3, "s"),
        np.void(b"x"),
        np.array([1, np.inf]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_numpys_values_that_json_cannot_hold_are_refused(index: Index, value: Any):
    with pytest.raises(InvalidDocument, match="'v' in the metadata"):
        index.add(Document("x", metadata={"v": value}))


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"v": float("nan")}, "'v' in the metadata of Document 0 ('x') is nan, a float, which"),
        ({"v": np.array([1, np.nan])}, "An item of 'v' in the metadata of Document 0 ('x') is nan"),
        ({"v": {1: 2}}, "A key in 'v' in the metadata of Document 0 ('x') is an int."),
        ({"v": uuid.UUID(int=1)}, ", a UUID, which cannot be stored."),
        ({"v": np.array([object()])}, ", an ndarray, which cannot be stored."),
    ],
)
def test_what_metadata_cannot_hold_is_named_and_what_to_do(index: Index, metadata, says: str):
    with pytest.raises(InvalidDocument) as caught:
        index.add(Document("x", id="x", metadata=metadata))
    assert says in caught.value.message
    assert "pass None" in caught.value.hint or "str()" in caught.value.hint


def test_one_vector_for_search_many_is_answered_with_the_shape_it_wants(index: Index):
    with pytest.raises(InvalidQuery) as caught:
        index.search_many(vectors=np.ones(32))
    assert "(n, 32)" in caught.value.hint


def test_none_is_not_an_id(index: Index):
    with pytest.raises(InvalidDocument) as caught:
        index.delete([None])  # type: ignore[list-item]
    assert caught.value.message == "A document id is None."
    with pytest.raises(InvalidFilter, match="ids or filter="):
        index.delete(None)


@pytest.mark.parametrize(
    "value",
    [
        ["1"] * 32,
        np.array(["1"] * 32),
        [10**400] * 32,
        np.ones(32, complex),
        {},
        Rude(),
        (i for i in range(32)),
        np.ones(32, "datetime64[s]"),
        np.ma.masked_all(32),
        [None] * 32,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_vector_is_refused(index: Index, value: Any):
    with pytest.raises(InvalidDocument, match="embedding"):
        index.add(Document("x", embedding=value))
    with pytest.raises(InvalidQuery, match="query vector"):
        index.search(vector=value)


@pytest.mark.parametrize(
    "structure",
    [{"headings": [(offset, 1, "x")]} for offset in (-1, 6, 1.5, True, "0", 10**40)]
    + [{"pages": (offset,)} for offset in (-1, 6, 1.5, True, 10**40)]
    + [{"headings": value} for value in ("abc", 5, [1], [(0, "1", "x")], [(0, 1, b"x")], {1: 2})]
    + [{"pages": value} for value in ("abc", 5, {0: 1}, [3, 1])],
    ids=str,
)
def test_headings_and_pages_lie_in_the_text(index: Index, structure: dict[str, Any]):
    with pytest.raises(InvalidDocument, match=r"The (headings|pages) of"):
        index.add(Document("hello", **structure))


# --- times ---------------------------------------------------------------------------------------


def test_a_moment_of_unknown_zone_stays_one(index: Index):
    local = datetime(2024, 3, 1, 23, 30, 0, 5)
    zoned = datetime(2024, 3, 1, 23, 30, tzinfo=timezone(timedelta(hours=-5)))
    given = {"local": local, "zoned": zoned, "utc": zoned.astimezone(UTC), "day": date(1, 1, 1)}
    index.add(Document("x", id="x", metadata=given))
    found = index.get("x").metadata
    assert datetime.fromisoformat(found["local"]) == local
    assert found["zoned"] == found["utc"] == "2024-03-02T04:30:00Z"
    assert found["day"] == "0001-01-01"


def test_waiting_for_ever_is_none_or_infinity(index: Index, path: Path):
    for timeout in (None, math.inf, 1e300, 10**400, np.float32(3)):
        with Index.open(path, model=HashEncoder(), lock_timeout_s=timeout) as other:
            assert other.add("z").added + other.delete([d.id for d in other.documents()][-1:]) >= 1
    started = threading.Event()

    def hold() -> None:
        with index.writing():
            started.set()
            time.sleep(0.5)

    thread = threading.Thread(target=hold)
    thread.start()
    started.wait()
    with (
        Index.open(path, model=HashEncoder(), lock_timeout_s=0) as other,
        pytest.raises(IndexLocked),
    ):
        other.add("later")
    with Index.open(path, model=HashEncoder(), lock_timeout_s=None) as other:
        assert other.add("later").added == 1
    thread.join()


# --- paths ---------------------------------------------------------------------------------------


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    home, here = tmp_path / "home", tmp_path / "here"
    (home / "docs").mkdir(parents=True)
    here.mkdir()
    (home / "docs" / "a.txt").write_text("the pump", encoding="utf-8")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    with Index.open("~/a.index", model=HashEncoder()) as index:
        assert index.path == home / "a.index"
        assert index.add_files("~/docs").added == 1
        assert index.add_files([Path("~/docs")]).unchanged == 1
        index.backup("~/b.index")
    with Index.open("~/b.index") as copy:
        assert copy.count() == 1
    assert Index.verify_path("~/b.index").ok
    assert Index.repair_path(Path("~/b.index"), model=HashEncoder()).ok
    for command in (["status", "-i", "~/a.index"], ["backup", "~/c.index", "-i", "~/a.index"]):
        assert run(*command).exit_code == 0
    monkeypatch.setenv("RETRIEVER_INDEX", "~/c.index")
    assert run("list").exit_code == 0
    assert (home / "c.index").is_dir()
    assert list(here.iterdir()) == []


def test_an_empty_path_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(path.parent)
    for command in (
        ["index", ""],
        ["index", "", "-i", str(path)],
        ["status", "-i", ""],
        ["index", ".", "--index="],
        ["backup", ""],
    ):
        done = run(*command)
        assert (done.exit_code, "empty" in done.stderr) == (2, True), command
    assert list(path.parent.iterdir()) == []


def test_a_huge_integer_in_jsonl_is_an_error_of_that_line(path: Path):
    Index.open(path, model=HashEncoder()).close()
    with Index.open(path, model=HashEncoder()) as index:
        line = json.loads('{"text": "x", "embedding": [1%s]}' % ("0" * 400))
        with pytest.raises(RetrieverError, match="embedding"):
            index.add([line])

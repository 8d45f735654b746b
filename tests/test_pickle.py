"""Errors, values and an index survive pickle and copy: the way to another process and back."""

from __future__ import annotations

import copy
import dataclasses
import multiprocessing
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import retriever
from retriever import Document, Index, IndexLocked, InvalidConfig, Limits, RetrieverError
from retriever.reports import IngestReport
from retriever.testing import HashEncoder

ERRORS = [
    value
    for name in retriever.__all__
    if isinstance(value := getattr(retriever, name), type) and issubclass(value, RetrieverError)
]
VALUES = [
    value
    for name in retriever.__all__
    if isinstance(value := getattr(retriever, name), type)
    and (dataclasses.is_dataclass(value) or hasattr(value, "_fields"))
]
WAYS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": lambda value, protocol=protocol: pickle.loads(
            pickle.dumps(value, protocol)
        )
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
}
SPECIAL: dict[str, dict[str, Any]] = {
    "LimitExceeded": {"limit": 1, "value": 2, "option": "k"},
    "IndexLocked": {"pid": 7, "host": "here", "since": "today"},
    "WriteFailed": {"durable": True},
    "FormatMismatch": {"found": 3, "supported": 1},
    "IndexCorrupt": {"path": "/x", "check": "head", "repair": False},
    "IngestError": {"path": "/x", "reader": "pdf"},
    "UnsupportedFormat": {"path": "/x", "reader": "pdf"},
    "UnreadableFile": {"path": "/x"},
    "ModelMismatch": {"field": "weights", "expected": "a", "actual": "b"},
    "MissingDependency": {"extra": "torch"},
    "SearchTimeout": {"timeout_s": 0.5, "step": "ranking"},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_survives_with_all_its_attributes(kind: type[RetrieverError], way: str):
    error = kind("It is wrong.", hint="Mend it.", **SPECIAL.get(kind.__name__, {}))
    error.report = IngestReport(added=3)
    error.add_note("seen on a Monday")
    again = WAYS[way](error)
    assert type(again) is kind
    assert (str(again), again.code) == ("It is wrong. Mend it.", error.code)
    assert again.args == error.args
    assert vars(again) == vars(error)
    assert again.report.added == 3


def a_value(kind: type) -> Any:
    """Return a value of an exported class, every field of which is set."""
    texts: dict[str, Any] = {
        "text": "hello",
        "hits": (),
        "metadata": {"year": 2024, "tags": ["a"]},
        "embedding": np.ones(3, np.float32),
        "skipped": (retriever.FileOutcome("a", "skipped", "b"),),
    }
    if kind is retriever.Chunking:
        return retriever.Chunking(tokens=64, overlap=3, prefix_headings=True)
    if kind is retriever.SearchOptions:
        return retriever.SearchOptions(k=3, group="document", fold=False)
    names = getattr(kind, "_fields", None) or [one.name for one in dataclasses.fields(kind)]
    if kind is Limits:
        return Limits(**dict.fromkeys(names, 7))
    return kind(**{name: texts.get(name, name) for name in names})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_every_value_survives(kind: type, way: str):
    value = a_value(kind)
    again = WAYS[way](value)
    assert type(again) is kind
    assert repr(again) == repr(value)


def test_the_classes_above_are_all_there_are():
    assert len(ERRORS) > 20
    assert {"Document", "Hit", "Results", "IngestReport", "Tokens", "Span", "Chunking"} <= {
        kind.__name__ for kind in VALUES
    }


def add_to(path: str) -> int:
    with Index.open(path, model=HashEncoder(), lock_timeout_s=0) as index:
        return index.add("from a worker").added


def found_in(index: Index) -> list[str]:
    with index:
        return [hit.document_id for hit in index.search("pump", k=1)]


def test_a_pool_answers_with_the_error_and_goes_on(tmp_path: Path):
    """`multiprocessing.Pool` hangs for ever where an error cannot be unpickled."""
    path = str(tmp_path / "a.index")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        with Index.open(path, model=HashEncoder()) as index, index.writing():
            with pytest.raises(IndexLocked) as caught:
                pool.apply_async(add_to, (path,)).get(timeout=120)
            assert caught.value.pid is not None
            assert caught.value.hint
        assert pool.apply_async(add_to, (path,)).get(timeout=120) == 1


def test_an_index_pickles_as_its_arguments(tmp_path: Path):
    with Index.open(tmp_path / "a.index", model=HashEncoder(), read_only=False) as index:
        index.add([Document("the pump", id="p"), Document("the sea", id="s")])
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as workers:
            assert workers.submit(found_in, index).result(timeout=120) == ["p"]
        assert found_in(copy.deepcopy(index)) == ["p"]
        assert index.count() == 2


def test_a_pickled_index_keeps_its_options(tmp_path: Path):
    path = tmp_path / "a.index"
    (tmp_path / "docs").mkdir()
    Index.open(path, model=HashEncoder()).close()
    limits = Limits(tail_rows=7)
    with (
        Index.open(
            path, read_only=True, lock_timeout_s=3, base=tmp_path / "docs", limits=limits
        ) as index,
        pickle.loads(pickle.dumps(index)) as again,
    ):
        assert again.path == path
        with pytest.raises(retriever.IndexReadOnly):
            again.add("x")
        assert again.base == tmp_path / "docs"
        assert again._limits == limits


class Unpicklable(HashEncoder):
    """An encoder that holds a lock, as those with a connection or a model do."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def test_an_index_that_cannot_be_pickled_says_why(tmp_path: Path):
    with (
        Index.open(tmp_path / "a.index", model=Unpicklable()) as index,
        pytest.raises(InvalidConfig, match=r"Unpicklable.*lock"),
    ):
        pickle.dumps(index)
    with Index.open(tmp_path / "a.index", model=HashEncoder()) as index:
        with index.writing(), pytest.raises(InvalidConfig, match="writing"):
            pickle.dumps(index)
        pickle.dumps(index)


def test_an_index_rebuilt_with_another_model_pickles_with_that_one(tmp_path: Path):
    with Index.open(tmp_path / "a.index", model=HashEncoder()) as index:
        index.add([Document("the pump", id="p")])
        index.rebuild(model=HashEncoder(salt="other"))
        assert found_in(pickle.loads(pickle.dumps(index))) == ["p"]

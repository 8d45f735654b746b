"""`SearchOptions`: checked once, handed on whole, and the same as the keyword arguments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retriever import (
    Index,
    InvalidConfig,
    InvalidQuery,
    LimitExceeded,
    Results,
    SearchOptions,
)
from retriever.testing import HashEncoder


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index.open(tmp_path / "x.index", model=HashEncoder()) as opened:
        opened.add([{"id": f"{n}", "text": f"Pump {n % 5} of the tide mill."} for n in range(20)])
        yield opened


class Backwards:
    """A reranker that prefers what the first stage does not."""

    name = "backwards"

    def score(self, query: str, texts: list[str]) -> np.ndarray:
        return np.arange(len(texts), dtype=np.float32)


def plain(results: Results) -> list[dict[str, Any]]:
    return [hit.to_dict() for hit in results]


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"k": 3},
        {"k": np.int64(4), "fold": np.False_},
        {"group": "document", "k": 7},
        {"rerank": Backwards(), "candidates": 4, "k": 2},
    ],
)
def test_options_and_keywords_give_the_same_hits(index: Index, chosen: dict[str, Any]):
    options = SearchOptions(**chosen)
    expected = plain(index.search("pump 3", **chosen))
    assert expected
    assert plain(index.search("pump 3", options=options)) == expected
    (found,) = index.search_many(["pump 3"], options=options)
    assert plain(found) == expected


@pytest.mark.parametrize(
    ("chosen", "error", "message"),
    [
        ({"k": 0}, InvalidQuery, "k is 0"),
        ({"k": True}, InvalidQuery, "k is True"),
        ({"k": 100_001}, LimitExceeded, "k is 100,001; the limit is 100,000."),
        ({"k": 1_001, "rerank": "m"}, LimitExceeded, "the limit is 1,000 with rerank"),
        ({"candidates": 1_001}, LimitExceeded, "candidates is 1,001; the limit is 1,000"),
        ({"candidates": 0}, InvalidQuery, "candidates is 0"),
        ({"rerank": True}, InvalidQuery, "names no reranker"),
        ({"rerank": Path(" ")}, InvalidQuery, "rerank is ' '"),
        ({"rerank": np.True_}, InvalidQuery, "names no reranker"),
        ({"group": "file"}, InvalidQuery, "group is 'file'"),
        ({"group": np.array(["document", "file"])}, InvalidQuery, "group is "),
        ({"fold": "no"}, InvalidConfig, "fold is 'no'"),
    ],
)
def test_an_unusable_option_is_refused_when_the_options_are_made(
    chosen: dict[str, Any], error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        SearchOptions(**chosen)


def test_options_are_frozen_and_a_changed_copy_is_checked_again():
    options = SearchOptions(k=5, rerank=False)
    assert options.rerank is None
    assert SearchOptions(rerank=np.False_).rerank is None
    with pytest.raises(FrozenInstanceError):
        options.k = 6  # type: ignore[misc]
    assert replace(options, k=6) == SearchOptions(k=6)
    with pytest.raises(InvalidQuery, match="k is -1"):
        replace(options, k=-1)
    assert (options.depth, replace(options, rerank="m").depth) == (5, 50)
    assert replace(options, rerank="m", k=60).depth == 60


def test_a_keyword_beside_options_is_refused(index: Index):
    options = SearchOptions(k=5)
    for keyword in ({"k": 6}, {"group": "document"}, {"fold": 0}, {"rerank": "m"}):
        (name,) = keyword
        with pytest.raises(InvalidQuery, match=f"^{name} is .* but options is given too"):
            index.search("pump", options=options, **keyword)
    with pytest.raises(InvalidQuery, match=r"options is \{.k.: 5\}, a dict"):
        index.search_many(["pump"], options={"k": 5})  # type: ignore[arg-type]

"""Segments that are found wrong while an index is open: filtered searches by words go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from retriever import Document, Index, Limits
from retriever.testing import HashEncoder

FILTER = {"even": True}


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """An index whose segments of both kinds hold rows that were deleted since."""
    limits = Limits(tail_rows=20, tail_texts=20)
    with Index.open(tmp_path / "x.index", model=HashEncoder(), limits=limits) as index:
        index.add(
            [
                Document(f"pump {n} of hall {n % 5}", id=f"d{n:02}", metadata={"even": n % 2 == 0})
                for n in range(40)
            ]
        )
        index.delete([f"d{n:02}" for n in range(0, 12)])
        yield index


def found(index: Index) -> list[tuple[str, float]]:
    results = index.search("pump of hall 3", k=40, mode="lexical", filter=FILTER)
    return [(hit.document_id, hit.score) for hit in results]


@pytest.mark.parametrize("kind", ["flat", "lexical"])
def test_a_filter_holds_where_a_segment_was_condemned(index: Index, kind: str):
    before = found(index)
    assert sorted(name for name, _ in before) == [f"d{n:02}" for n in range(12, 40, 2)]
    with index._pool.transaction() as connection:
        view = index._views.at(connection)
        if kind == "flat":
            block = next(iter(view.blocks.values()))
            assert index._views.condemn(view, int(block.ids[0]))
        else:
            opened = view.lexical(connection)
            view.condemn_lexical(opened, opened.parts[0])
    assert found(index) == before

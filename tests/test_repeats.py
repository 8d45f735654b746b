"""Documents that are added again, and ids that the index gives."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import retriever
import retriever.storage.catalog
from retriever import Document, Index, Limits
from retriever.testing import HashEncoder

WHOLE = Document(
    "Reset the pump by holding the red button.",
    id="pump",
    metadata={"tenant": "A", "tags": ["x", {"y": 1.5}], "day": date(2024, 2, 29)},
    source="pumps.md",
    title="Pumps",
    headings=((0, 1, "Pump"),),
    pages=(0,),
)


@pytest.fixture
def encoder() -> HashEncoder:
    return HashEncoder()


@pytest.fixture
def index(tmp_path: Path, encoder: HashEncoder):
    limits = Limits(tail_rows=1)  # there are segments from the second document on
    with Index.open(tmp_path / "x.index", model=encoder, limits=limits) as opened:
        yield opened


def state(index: Index) -> Any:
    with index._pool.transaction() as connection:
        tables = ("chunks", "tombstones", "commits", "documents", "texts")
        return [connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables]


# --- identical documents -------------------------------------------------------------------------


@pytest.mark.parametrize("given", [list, iter])
def test_equal_documents_of_one_call_are_one(index: Index, given: Callable[[Any], Iterable[Any]]):
    report = index.add(
        given(["See chapter 2.", "The pump is red.", "See chapter 2.", WHOLE, WHOLE])
    )
    assert (report.added, report.unchanged, report.chunks, index.count()) == (3, 2, 3, 3)


@pytest.mark.parametrize("given", [list, iter])
def test_a_document_that_is_there_as_it_is_is_not_written(
    index: Index, encoder: HashEncoder, given
):
    own = Document("own", id="own", embedding=[3.0, *[1.0] * 31])
    documents = [WHOLE, own, Document("", id="empty"), Document("a text")]
    index.add(documents)
    before, encoded = state(index), list(encoder.encoded)
    report = index.add(given(documents))
    assert (report.unchanged, report.added, report.replaced, report.commits) == (4, 0, 0, 0)
    assert report.encoded == 0
    assert state(index) == before
    assert encoder.encoded == encoded


@pytest.mark.parametrize(
    "change",
    [
        {"text": "Reset the pump by holding the blue button."},
        {"metadata": {**WHOLE.metadata, "tenant": "B"}},
        {"metadata": {**WHOLE.metadata, "tags": ["x", {"y": 1}]}},
        {"title": "pumps"},
        {"source": None},
        {"headings": ()},
        {"pages": ()},
        {"embedding": [1.0] * 32},
    ],
    ids=lambda change: next(iter(change)),
)
def test_any_difference_replaces_the_document(index: Index, encoder: HashEncoder, change):
    index.add(WHOLE)
    encoded = len(encoder.encoded)
    report = index.add(replace(WHOLE, **change))
    assert (report.replaced, report.unchanged, report.commits) == (1, 0, 1)
    assert len(encoder.encoded) - encoded == ("text" in change)
    changed = replace(
        WHOLE,
        metadata={**WHOLE.metadata, "day": "2024-02-29"},
        **{name: value for name, value in change.items() if name not in ("embedding", "metadata")},
    )
    found = index.get("pump")
    if "metadata" in change:
        changed = replace(changed, metadata={**change["metadata"], "day": "2024-02-29"})
    assert found == changed
    index.add(WHOLE)
    assert index.add(WHOLE).unchanged == 1


def test_one_id_and_other_content_in_one_call_is_refused(index: Index):
    with pytest.raises(retriever.InvalidDocument, match=r"Documents 1 and 3 .* 'pump'") as caught:
        index.add(["x", WHOLE, WHOLE, replace(WHOLE, title="Other")])
    assert caught.value.hint
    assert index.count() == 0


def test_a_generator_may_not_contradict_what_it_left_unchanged(index: Index):
    index.add([WHOLE, "x"])
    with pytest.raises(retriever.InvalidDocument, match=r"Document 2 and an earlier one .* 'pump'"):
        index.add(iter([WHOLE, "x", replace(WHOLE, title="Other")]))
    assert index.get("pump").title == "Pumps"


def test_a_document_that_a_repair_could_not_encode_is_taken_in(index: Index, encoder: HashEncoder):
    index.add(WHOLE)
    with index.writing(), index._session() as writer, writer.transaction() as change:
        space = retriever.storage.catalog.active_space(writer.connection)
        change.delete_chunks(space, 1, 0)
    assert index.status().unchunked_documents
    assert index.add(WHOLE).replaced == 1
    assert index.search("pump")[0].document_id == "pump"


def test_what_an_index_gives_back_is_unchanged(index: Index):
    random = np.random.default_rng(3)
    index.add([Document(f"{n}", embedding=v) for n, v in enumerate(random.normal(size=(200, 32)))])
    index.add([WHOLE, "a text"])
    report = index.add(index.documents())
    assert (report.unchanged, report.commits) == (202, 0)


# --- ids that the index gives --------------------------------------------------------------------


def test_a_text_alone_has_its_hash_for_an_id(index: Index):
    index.add(["See chapter 2.", {"text": "See chapter 2.", "metadata": {}, "title": None}])
    (document,) = index.documents()
    assert document.id == hashlib.sha256(b"See chapter 2.").hexdigest()


def test_no_tenant_replaces_the_document_of_another(index: Index):
    for tenant in ("A", "B", "A"):
        index.add({"text": "See chapter 2.", "metadata": {"tenant": tenant, "n": 1}})
    index.add({"text": "See chapter 2.", "metadata": {"n": 1, "tenant": "B"}})
    assert sorted(d.metadata["tenant"] for d in index.documents()) == ["A", "B"]
    (hit,) = index.search("chapter")
    assert (hit.duplicates, len(hit.also_in)) == (1, 1)


def test_any_difference_makes_another_document(index: Index):
    plain = replace(WHOLE, id=None)
    others = [
        replace(plain, source="b.md"),
        replace(plain, title="B"),
        replace(plain, metadata={}),
        replace(plain, pages=()),
        replace(plain, headings=()),
        replace(plain, embedding=[1.0] * 32),
        replace(plain, embedding=[2.0, *[1.0] * 31]),
    ]
    report = index.add([plain, *others, plain, *others])
    assert (report.added, report.unchanged, index.count()) == (8, 8, 8)


def test_vectors_without_texts_need_no_ids(index: Index):
    vectors = [[1.0] * (n + 1) + [0.5] * (31 - n) for n in range(20)]
    assert index.add([Document("", embedding=vector) for vector in vectors]).added == 20
    assert len(index.search(vector=vectors[0], k=30)) == 20

"""Filters on an index: the table of the documentation, chunks, facets, deletion, plans."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import fuzz_filters
from retriever import Document, Index, InvalidFilter, LimitExceeded, SearchOptions
from retriever.cli.program import main
from retriever.filters import parse, parse_expression, to_dict
from retriever.storage import catalog
from retriever.storage.catalog import filtering
from retriever.testing import HashEncoder

MANUAL = Path(__file__).parents[1] / "docs" / "search.md"


def truth_table() -> Iterator[Any]:
    """Yield (condition, stored value, whether it passes) of each cell of the manual's table."""
    lines = MANUAL.read_text(encoding="utf-8").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("| condition |"))
    heads = [cell.strip().strip("`") for cell in lines[start].strip("|").split("|")][1:]
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return
        condition, *cells = [cell.strip() for cell in line[1:].split("|")][: len(heads) + 1]
        for head, cell in zip(heads, cells, strict=True):
            yield condition.strip("`"), head, cell == "✓"


@pytest.fixture(scope="module")
def of_each_kind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """An index with one document for each column of the table, its id the column's head."""
    heads = {head for _, head, _ in truth_table()}
    with Index.open(tmp_path_factory.mktemp("t") / "i.index", model=HashEncoder()) as index:
        index.add(
            Document(
                f"text {n}", id=head, metadata={} if head == "missing" else {"x": json.loads(head)}
            )
            for n, head in enumerate(sorted(heads))
        )
        yield index


def test_the_table_of_the_manual_is_what_happens(of_each_kind: Index):
    cells = list(truth_table())
    assert len(cells) == 18 * 9
    expected: dict[str, set[str]] = {condition: set() for condition, _, _ in cells}
    for condition, head, passes in cells:
        if passes:
            expected[condition].add(head)
    for condition, heads in expected.items():
        mapping = to_dict(parse_expression(condition))
        for form in (condition, mapping):
            found = {document.id for document in of_each_kind.documents(filter=form)}
            assert found == heads, condition
            hits = of_each_kind.search("text", k=50, filter=form)
            assert {hit.document_id for hit in hits} == heads, condition
            assert of_each_kind.count(filter=form) == len(heads)
        negated = {document.id for document in of_each_kind.documents(filter=f"not ({condition})")}
        assert negated == {head for _, head, _ in cells} - heads


def test_every_example_of_the_manual_means_the_same_in_both_forms():
    rows = re.findall(r"^\| `([^`]+)`[^|]*\| (`\{.*)\|$", MANUAL.read_text(encoding="utf-8"), re.M)
    assert len(rows) >= 14
    for expression, mappings in rows:
        for mapping in re.findall(r"`(\{[^`]*\})`", mappings):
            written = json.loads(mapping.replace("True", "true").replace("False", "false"))
            assert parse_expression(expression) == parse(written)


def test_random_filters_on_random_metadata_agree_with_the_manual(tmp_path: Path):
    """`python -m benchmarks.fuzz_filters --count 100000` is the long run."""
    outcome = fuzz_filters.run(300, 14, tmp_path)
    assert outcome.differences == []
    assert outcome.foreign == []
    assert outcome.refused > 200


# --- an index with folders, pages, headings ----------------------------------------------------


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    text = "# Pump\nFirst page.\n\n# Tide gate\nSecond page."
    second = text.index("# Tide")
    with Index.open(tmp_path / "a.index", model=HashEncoder(), chunking={"tokens": 8}) as index:
        index.add(
            [
                Document(
                    text,
                    id="manual",
                    source="water/manuals/pump.pdf",
                    title="The pump",
                    metadata={"year": 2020, "tags": ["a", "b"], "when": date(2024, 1, 31)},
                    headings=[(0, 1, "Pump"), (second, 1, "Tide gate")],
                    pages=(0, second),
                ),
                Document(
                    text,
                    id="own page",
                    source="water/notes.txt",
                    metadata={"year": 2020.0, "page": "two", "heading": None, "id": 7},
                    pages=(0, second),
                ),
                Document("Other text.", id="o'); drop", metadata={"year": "2020", "a.b": {"c": 1}}),
                Document(
                    "Further text.", id="d", metadata={"at": datetime(2024, 1, 31, tzinfo=UTC)}
                ),
            ]
        )
        yield index


def ids(index: Index, asked: Any) -> list[str | None]:
    return [document.id for document in index.documents(filter=asked)]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("year = 2020", ["manual", "own page"]),
        ({"year": np.int32(2020)}, ["manual", "own page"]),
        ("year = '2020'", ["o'); drop"]),
        ("folder = water", ["manual", "own page"]),
        ("folder = water/manuals", ["manual"]),
        ("folder = water/man", []),
        ("source startswith water/m", ["manual"]),
        ("source startswith ''", ["manual", "own page"]),
        ("title contains pump and tags = b", ["manual"]),
        ('id = "o\'); drop"', ["o'); drop"]),
        ("id = 7", ["own page"]),
        ("id = 'own page'", []),
        ("id in (d, manual)", ["d", "manual"]),
        ("id > e and id startswith m", ["manual"]),
        ("id startswith c", []),  # "d" follows "c" at once
        ("exists id", ["d", "manual", "o'); drop", "own page"]),
        ("missing source", ["d", "o'); drop"]),
        ('"a.b".c = 1', ["o'); drop"]),
        ({"a\\.b.c": 1}, ["o'); drop"]),
        ({"a.b.c": 1}, []),
        ({"when": date(2024, 1, 31)}, ["manual"]),
        ({"at": {"$lte": datetime(2024, 1, 31, tzinfo=UTC)}}, ["d"]),
        ("at >= 2024-01-31", ["d"]),
        ({}, ["d", "manual", "o'); drop", "own page"]),
        (
            {"'); DROP TABLE documents; --\0": {"$ne": "\0'"}},
            ["d", "manual", "o'); drop", "own page"],
        ),
        ({"year": {"$in": list(range(1_500, 3_000))}}, ["manual", "own page"]),
    ],
)
def test_documents_that_pass(index: Index, asked: Any, expected: list[str]):
    assert ids(index, asked) == expected
    assert index.count(filter=asked) == len(expected)
    hits = index.search("text", k=100, filter=asked, fold=False)
    assert {hit.document_id for hit in hits} == set(expected)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("page = 2", {("manual", 2)}),
        ("page = 2.0", {("manual", 2)}),
        ("page <= 1", {("manual", 1)}),
        ("page in (1, 2, true)", {("manual", 1), ("manual", 2)}),
        ("page = two", {("own page", 1), ("own page", 2)}),
        ("page = true", set()),
        ("page startswith t", {("own page", 1), ("own page", 2)}),
        ("heading = 'Tide gate'", {("manual", 2)}),
        ("heading contains gate or page = 1", {("manual", 1), ("manual", 2)}),
        ("heading = null", {("own page", 1), ("own page", 2)}),
        ("missing page", {("o'); drop", None), ("d", None)}),
        ("exists page and folder = water/manuals and not page = 1", {("manual", 2)}),
        ("exists heading", {("manual", 1), ("manual", 2), ("own page", 1), ("own page", 2)}),
    ],
)
def test_passages_that_pass(index: Index, asked: str, expected: set[tuple[str, int | None]]):
    hits = index.search("page", k=100, filter=asked, fold=False)
    assert {(hit.document_id, hit.page) for hit in hits} == expected
    for call in (index.count, index.delete, lambda filter: index.facets("year", filter=filter)):
        with pytest.raises(InvalidFilter, match="which passages have"):
            call(filter=asked)


def test_a_search_finds_all_that_pass_however_few(tmp_path: Path):
    with Index.open(tmp_path / "a.index", model=HashEncoder()) as index:
        index.add(Document(f"text {n}", id=str(n), metadata={"n": n}) for n in range(500))
        for number in (0, 1, 3, 10):
            found = index.search("text 499", k=5, filter={"n": {"$lt": number}})
            assert len(found) == min(5, number)
            assert f"filter: {number:,} of 500 passages" in found.plan
        grouped = index.search_many(["a", "b"], k=3, group="document", filter="n >= 498")
        assert [len(found) for found in grouped] == [2, 2]
        options = SearchOptions(filter="n = 7")
        assert [hit.document_id for hit in index.search("text", options=options)] == ["7"]
        # Rows come, go and are replaced: the same filter sees each commit.
        index.add([Document("more", id="x", metadata={"n": 7}), Document("new", id="7")])
        assert [hit.document_id for hit in index.search("text", options=options)] == ["x"]
        index.compact()
        assert index.delete(filter="n < 400") == 400 - 1 + 1
        assert index.search("text", filter="n < 400").hits == ()
        assert index.count() == 101


def test_a_field_that_no_document_has_is_told(index: Index, tmp_path: Path):
    plan = index.search("text", filter="yeer = 2020 or tagss = a or titel = x").plan
    assert "filter: 0 of" in plan
    assert "no document has the field 'yeer'; did you mean 'year'?" in plan
    assert "no document has the field 'tagss'; did you mean 'tags'?" in plan
    assert "'titel'; did you mean 'title'?" in plan
    assert "no document" not in index.search("text", filter="year = 2020 and missing title").plan
    with Index.open(tmp_path / "empty.index", model=HashEncoder()) as empty:
        assert "no document" not in empty.search("text", filter="year = 2020").plan
        assert empty.facets("year") == []
        assert empty.count(filter="year = 2020") == empty.delete(filter="missing year") == 0


def test_facets_count_documents(index: Index):
    assert index.facets("year") == [(2020, 2), ("2020", 1)]
    assert [type(value) for value, _ in index.facets("year")] == [int, str]
    assert index.facets("tags") == [("a", 1), ("b", 1)]
    assert index.facets("folder") == [("water", 2), ("water/manuals", 1)]
    assert index.facets("folder", filter="missing title", limit=1) == [("water", 1)]
    assert index.facets("heading.x") == index.facets("nothing") == []
    assert index.facets("a\\.b.c") == [(1, 1)]
    for wrong in ("id", "page", "heading", 3):
        with pytest.raises(InvalidFilter):
            index.facets(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidFilter, match="limit is 0"):
        index.facets("year", limit=0)
    assert {"year", "tags", "a\\.b.c", "folder"} <= set(index.fields())


def test_deletion_by_a_filter(index: Index):
    for wrong in ({"ids": ["d"], "filter": "year = 1"}, {}, {"filter": {}}):
        with pytest.raises(InvalidFilter, match=r"exactly one|would delete every"):
            index.delete(**wrong)  # type: ignore[arg-type]
    assert index.delete(filter={"year": {"$lt": 2000}}) == 0
    assert index.delete(filter="folder = water", purge=True) == 2
    assert ids(index, None) == ["d", "o'); drop"]
    assert "folder" not in index.fields()
    assert index.verify().ok


@pytest.mark.parametrize("asked", [{"a": float("nan")}, "a >> 1", [1], {"a": {"$foo": 1}}])
def test_every_call_refuses_a_wrong_filter(index: Index, asked: Any):
    for call in (
        lambda: index.search("x", filter=asked),
        lambda: index.search_many(["x"], filter=asked),
        lambda: index.count(filter=asked),
        lambda: index.documents(filter=asked),
        lambda: index.delete(filter=asked),
        lambda: index.facets("year", filter=asked),
        lambda: SearchOptions(filter=asked),
    ):
        with pytest.raises(InvalidFilter):
            call()


def test_nothing_that_a_filter_says_is_in_the_sql(index: Index):
    said: list[str] = []

    class Recording(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            said.append(sql)
            return super().execute(sql, *values)

    marker = "xyzzy"
    conditions: list[dict[str, Any]] = [
        {marker: {"$in": [marker, 987654321]}},
        {f"tags.{marker}": {"$contains": marker}},
        {"tags": {"$startswith": marker, "$gt": 987654321}},
        {"id": marker},
        {"heading": {"$startswith": marker}},
        {"page": 987654321},
    ]
    asked = parse({"$or": conditions})
    connection = sqlite3.connect(index.path / "store.db", factory=Recording)
    chunking_id = catalog.active_space(connection).chunking.id
    chunks = catalog.chunk_documents(connection, chunking_id)
    assert len(filtering.chunks_matching(connection, chunking_id, asked, chunks)) == 0
    connection.close()
    assert len([sql for sql in said if "field_values" in sql]) >= 4
    assert len([sql for sql in said if "page IN" in sql]) == 1
    assert not [sql for sql in said if marker in sql or "987654321" in sql]


def test_too_many_values_are_refused(index: Index):
    with pytest.raises(LimitExceeded):
        index.search("x", filter={"year": {"$in": list(range(10_001))}})


# --- the command line --------------------------------------------------------------------------


def run(index: Index, *arguments: str) -> Any:
    return CliRunner().invoke(main, [*arguments, "-i", str(index.path)])


def test_commands_take_filters(index: Index):
    listed = run(index, "list", "--filter", "folder = water and missing title")
    assert listed.stdout == "own page\n"
    assert json.loads(run(index, "list", "--json", "--filter", "yeer = 1").stdout)["count"] == 0
    counted = run(index, "facets", "year")
    assert counted.stdout.splitlines() == ["2\t2020", '1\t"2020"']
    assert "folder" in run(index, "facets").stdout.splitlines()
    as_json = json.loads(run(index, "facets", "tags", "--json", "--filter", "year = 2020").stdout)
    assert as_json["facets"] == [{"value": "a", "documents": 1}, {"value": "b", "documents": 1}]
    missing = run(index, "facets", "yeer")
    assert missing.stdout == ""
    assert "No document has the field 'yeer'; did you mean 'year'?" in missing.stderr


def test_delete_by_a_filter_on_the_command_line(index: Index):
    planned = run(index, "delete", "--filter", "folder = water", "--dry-run")
    assert planned.stdout == "Would delete 2 documents.\n"
    assert index.count() == 4
    assert run(index, "delete", "--filter", "folder = water").stdout == "Deleted 2 documents.\n"
    assert index.count() == 2
    for wrong in (["--filter", ""], [], ["d", "--filter", "a = 1"], ["d", "--dry-run"]):
        assert run(index, "delete", *wrong).exit_code == 2
    assert index.count() == 2

"""The grammar of filters: two front ends, one tree, limits, errors."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever import filters
from retriever.documents.validation import read_documents
from retriever.errors import InvalidFilter, LimitExceeded, UsageError
from retriever.filters import MAX_DEPTH, MAX_NODES, MAX_VALUES, Filter, parse, parse_expression
from retriever.filters.printing import keys_of, to_dict, to_expression
from retriever.filters.tree import path_of, path_of_keys

# --- both front ends -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "mapping"),
    [
        ("year = 2020", {"year": 2020}),
        ("year == 2020", {"year": {"$eq": 2020}}),
        ("year=2020", {"year": {"$in": [2020, 2020.0]}}),
        ("year >= 2020 and year < 2024", {"year": {"$gte": 2020, "$lt": 2024}}),
        ("year > 1 and lang = de", {"year": {"$gt": 1}, "lang": "de"}),
        ("lang in (en, de)", {"lang": {"$in": ["de", "en"]}}),
        ("lang in [en, de, en]", {"lang": {"$in": {"de", "en"}}}),
        ("lang not in (en, de)", {"lang": {"$nin": ["en", "de"]}}),
        ("not lang in (en, de)", {"$not": {"lang": {"$in": ["en", "de"]}}}),
        ("lang in ()", {"lang": {"$in": []}}),
        ("lang != en", {"lang": {"$ne": "en"}}),
        ("lang != en", {"lang": {"$not": {"$eq": "en"}}}),
        ("exists a", {"a": {"$exists": True}}),
        ("missing a", {"a": {"$exists": False}}),
        ("not exists a", {"a": {"$exists": np.False_}}),
        ("not not a = 1", {"a": 1}),
        ("a = TRUE and b = false and c = null", {"a": True, "b": False, "c": None}),
        ("a = 'true'", {"a": "true"}),
        ("a = -1.5e3", {"a": -1500}),
        ("a = 2024-01-31", {"a": date(2024, 1, 31)}),
        ("a <= '2024-01-31T12:00:00Z'", {"a": {"$lte": datetime(2024, 1, 31, 12, tzinfo=UTC)}}),
        ("title contains 'a b'", {"title": {"$contains": "a b"}}),
        ("title not contains x", {"title": {"$not": {"$contains": "x"}}}),
        ("source startswith docs/api/", {"source": {"$startswith": "docs/api/"}}),
        ("author.name = Ann", {"author.name": "Ann"}),
        ('author."v1.2".x = 1', {"author.v1\\.2.x": 1}),
        ("v1\\.2 = 1", {"v1\\.2": 1}),
        ('"and" = 1', {"and": 1}),
        ("and.or = 1", {"and.or": 1}),
        ('"a\\"b" = 1', {'a"b': 1}),
        (r"'it\'s' = '\u00e9\n'", {"it's": "é\n"}),
        (r'a = "\ud83d\ude00"', {"a": "😀"}),
        ("$price = 1", {"\\$price": 1}),
        ("größe > 1", {"größe": {"$gt": 1}}),
        ("a = 1 or b = 2 and c = 3", {"$or": [{"a": 1}, {"b": 2, "c": 3}]}),
        ("(a = 1 or b = 2) and c = 3", {"$and": [{"$or": [{"a": 1}, {"b": 2}]}, {"c": 3}]}),
        ("not (a = 1 or b = 2)", {"$not": {"$or": [{"a": 1}, {"b": 2}]}}),
        ("a = 1 and (b = 2 and a = 1)", {"a": 1, "b": 2}),
        ("(((a = 1)))", {"$and": [{"$or": [{"a": 1}]}]}),
        ("a = 1 AND NOT b = 2", {"a": 1, "b": {"$ne": 2}}),
    ],
)
def test_an_expression_and_a_mapping_of_the_same_meaning_are_one_filter(
    expression: str, mapping: dict[str, Any]
):
    read = parse_expression(expression)
    assert read == parse(mapping)
    assert hash(read) == hash(parse(mapping))
    assert parse_expression(to_expression(read)) == read
    assert parse(to_dict(read)) == read


def test_filters_of_different_meaning_differ():
    """In Python 1 == True, and equal filters share what was found by them."""
    values = [1, True, "1", "True", 0, False, None, "null", "", 2**53 + 1, 2.0**53]
    assert len({parse({"a": value}) for value in values}) == len(values)
    assert parse({"a": 1}) == parse({"a": 1.0}) == parse({"a": np.int8(1)})
    assert parse({"a.b": 1}) != parse({"a\\.b": 1})


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
)
COMPARED = SCALARS.filter(lambda value: value is not None and not isinstance(value, bool))
KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6).map(
    lambda key: f"\\{key}" if key.startswith("$") else key
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
OPERATORS = st.one_of(
    st.fixed_dictionaries({"$eq": SCALARS}),
    st.fixed_dictionaries({"$ne": SCALARS}),
    st.fixed_dictionaries({"$in": st.lists(SCALARS, max_size=4)}),
    st.fixed_dictionaries({"$nin": st.lists(SCALARS, max_size=4)}),
    st.fixed_dictionaries({"$gt": COMPARED}),
    st.fixed_dictionaries({"$gte": COMPARED, "$lt": COMPARED}),
    st.fixed_dictionaries({"$not": st.fixed_dictionaries({"$lte": COMPARED})}),
    st.fixed_dictionaries({"$exists": st.booleans()}),
    st.fixed_dictionaries({"$contains": TEXTS}),
    st.fixed_dictionaries({"$startswith": TEXTS}),
)
MAPPINGS = st.recursive(
    st.dictionaries(KEYS, SCALARS | OPERATORS, min_size=1, max_size=3),
    lambda inner: (
        st.fixed_dictionaries({"$and": st.lists(inner, min_size=1, max_size=3)})
        | st.fixed_dictionaries({"$or": st.lists(inner, min_size=1, max_size=3)})
        | st.fixed_dictionaries({"$not": inner})
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(MAPPINGS)
def test_a_mapping_comes_back_from_its_expression(mapping: dict[str, Any]):
    read = parse(mapping)
    assert parse_expression(to_expression(read)) == read
    assert parse(to_dict(read)) == read
    assert hash(parse_expression(to_expression(read))) == hash(read)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from(list("ab1.()[]=<>!\"'\\, $")) | st.characters(), max_size=30))
def test_any_text_is_a_filter_or_a_typed_error(text: str):
    try:
        read = parse_expression(text)
    except UsageError:
        return
    assert parse_expression(to_expression(read)) == read


@given(st.lists(st.text(max_size=5), min_size=1, max_size=4))
def test_a_path_says_its_keys(keys: list[str]):
    assert keys_of(path_of_keys(keys)) == keys
    assert path_of(path_of_keys(keys)) == path_of_keys(keys)


def test_a_filter_says_its_fields_and_whether_it_is_empty():
    read = parse({"a": 1, "$or": [{"b.c": {"$exists": True}}, {"$not": {"d": {"$ne": 2}}}]})
    assert read.fields == {"a", "b.c", "d"}
    assert not read.is_empty
    assert parse({}).is_empty
    assert to_expression(parse({})) == ""
    assert to_dict(parse({})) == {}


def test_a_search_takes_any_form_of_a_filter():
    expected = parse({"a": 1})
    for form in ({"a": 1}, "a = 1", expected):
        assert filters.given(form) == expected
    assert filters.given(None) is None
    with pytest.raises(InvalidFilter, match=r"filter is \[1\], a list\. Pass a dict"):
        filters.given([1])
    with pytest.raises(InvalidFilter, match="filter is 3, an int"):
        parse(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [
        date(2024, 2, 29),
        datetime(2024, 2, 29, 12, 30),
        datetime(2024, 2, 29, 12, 30, tzinfo=timezone(timedelta(hours=-5))),
        np.datetime64("2024-02-29"),
        np.datetime64("2024-02-29T12:30:00.000000001"),
        np.float32(0.1),
        np.str_("x"),
        np.bool_(True),
        np.int64(-(2**63)),
    ],
)
def test_values_are_converted_as_metadata_stores_them(value: Any):
    (document,) = read_documents({"text": "x", "metadata": {"a": value}}, 4)
    assert parse({"a": value}) == parse({"a": document.metadata["a"]})


# --- errors ----------------------------------------------------------------------------------


def nested(depth: int, key: str) -> dict[str, Any]:
    mapping: dict[str, Any] = {"a": 1}
    for _ in range(depth):
        mapping = {key: mapping if key == "$not" else [mapping]}
    return mapping


@pytest.mark.parametrize(
    "mapping",
    [
        nested(10_000, "$not"),
        nested(10_000, "$and"),
        nested(MAX_DEPTH, "$or"),
        {"$or": [{"a": number} for number in range(MAX_NODES)]},
        {"a": {"$in": list(range(MAX_VALUES + 1))}},
        {"a": {"$in": list(range(MAX_VALUES))}, "b": 1},
    ],
)
def test_a_filter_over_a_limit_is_refused(mapping: dict[str, Any]):
    with pytest.raises(LimitExceeded) as caught:
        parse(mapping)
    assert caught.value.option == "filter"
    assert caught.value.value > caught.value.limit
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "expression",
    [
        "(" * 10_000 + "a = 1" + ")" * 10_000,
        "not " * 10_000 + "a = 1",
        " or ".join(f"a = {number}" for number in range(MAX_NODES + 1)),
        f"a in ({', '.join(map(str, range(MAX_VALUES + 1)))})",
        f"a = '{'x' * 1_000_000}'",
    ],
)
def test_an_expression_over_a_limit_is_refused(expression: str):
    with pytest.raises(LimitExceeded) as caught:
        parse_expression(expression)
    assert len(str(caught.value)) < 300


def test_what_is_just_within_the_limits_is_read():
    assert isinstance(parse(nested(MAX_DEPTH - 1, "$not")), Filter)
    assert isinstance(parse({"a": {"$in": list(range(MAX_VALUES))}}), Filter)
    assert isinstance(parse_expression("(" * 31 + "a = 1" + ")" * 31), Filter)


def test_a_mapping_inside_of_itself_is_refused():
    mapping: dict[str, Any] = {}
    mapping["$and"] = [mapping]
    with pytest.raises(LimitExceeded):
        parse(mapping)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"a": {"$gtee": 1}}, "Did you mean '\\$gte'"),
        ({"a": {"$GT": 1}}, "Did you mean '\\$gt'"),
        ({"a": {"$regex": "x"}}, r"'\$regex' of field 'a' is unknown.*Operators here are \$eq"),
        ({"a": {"gte": 1}}, "Did you mean '\\$gte'"),
        ({"$nor": [{"a": 1}]}, "Did you mean '\\$or'"),
        ({"$eq": 1}, "around fields is unknown"),
        ({"a": {"b": 1}}, "join the names by a dot: 'a.b'"),
        ({"a": {3: 1}}, "has the key 3"),
        ({"a": {}}, "is empty"),
        ({"a": [1, 2]}, "use {'\\$in'"),
        ({"a": {"$in": "en"}}, "Pass a list of values"),
        ({"a": {"$in": [[1]]}}, "Pass one value"),
        ({"a": {"$gt": None}}, "takes numbers or strings"),
        ({"a": {"$gte": True}}, "takes numbers or strings"),
        ({"a": {"$contains": 3}}, "it takes a string"),
        ({"a": {"$startswith": ["x"]}}, "Pass one value"),
        ({"a": {"$exists": 1}}, "Pass True or False"),
        ({"a": {"$not": 1}}, "use \\$ne"),
        ({"$and": []}, "an empty list"),
        ({"$or": {"a": 1}}, "Pass a list of filters"),
        ({"$and": [{}]}, "an empty filter"),
        ({"$not": {}}, "an empty filter"),
        ({"$not": [1]}, "a list"),
        ({3: 1}, "Names of fields are strings"),
        ({b"a": 1}, "Names of fields are strings"),
        ({"a\udc80": 1}, "lone surrogate"),
        ({"a": "x\udc80"}, "lone surrogate"),
        ({"a": 2**63}, "an integer of 64 bits|64 bits"),
        ({"a": -(10**10_000)}, "64 bits"),
        ({"a": float("nan")}, "finite numbers only"),
        ({"a": float("-inf")}, "finite numbers only"),
        ({"a": b"x"}, "Decode it"),
        ({"a": {1}}, "Pass one value"),
        ({"a": object()}, "Pass a string, a number"),
        ({"a": np.array([1, 2])}, "Pass one value"),
        ({"a": np.timedelta64(1, "s")}, "Pass a string"),
        ({"a": np.datetime64("NaT")}, "NaT|None"),
        ({"a": datetime.min.replace(tzinfo=timezone(timedelta(hours=5)))}, "year 1 to 9999"),
    ],
)
def test_a_mapping_that_cannot_be_read_says_why(mapping: dict[Any, Any], message: str):
    if "NaT" in message:  # NumPy's missing time is None, as in metadata
        assert parse(mapping) == parse({"a": None})
        return
    with pytest.raises(InvalidFilter, match=message) as caught:
        parse(mapping)
    assert caught.value.exit_code == 2
    assert caught.value.hint


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("year", "the end at character 5, where an operator"),
        ("year >> 3", "'>>' at character 6.*Did you mean '>'"),
        ("year => 3", "Did you mean '>='"),
        ("title like x", "Did you mean 'contains'"),
        ("title contians x", "Did you mean 'contains'"),
        ("a = 1 && b = 2", "Did you mean 'and'"),
        ("a = 1 b = 2", "where 'and' or 'or' is expected"),
        ("(a = 1", "where '\\)' is expected"),
        ("a = 1)", "where 'and' or 'or' is expected"),
        ("a in en", "values in brackets"),
        ("a in (en", "',' or '\\)'"),
        ("a in (en,)", "where a value is expected"),
        ("a =", "where a value is expected"),
        ("= 1", "where a field is expected"),
        ("a. = 1", "where a field is expected"),
        ("in = 1", "Put quotes around a field of that name"),
        ("a = and", "Put quotes around a value of that name"),
        ("a = 007", "If it is a string, put quotes around it: '007'"),
        ("a = .5", "a number as in JSON"),
        ("a = 'x", "where a closing quote is expected"),
        ("a = '\\q'", "is unknown"),
        (r"a = '\ud800'", "lone surrogate"),
        ("a = '\udc80'", "lone surrogate"),
        ("a > true", "takes numbers or strings"),
        ("a contains 3", "it takes a string"),
        ("a = 99999999999999999999", "64 bits"),
        (f"a = {'9' * 5000}", "a number as in JSON"),
        ("a = 1e999", "finite numbers"),
        ("a not = 1", "where an operator"),
    ],
)
def test_an_expression_that_cannot_be_read_says_where_and_why(expression: str, message: str):
    with pytest.raises(InvalidFilter, match=message) as caught:
        parse_expression(expression)
    assert caught.value.hint
    assert len(str(caught.value)) < 400

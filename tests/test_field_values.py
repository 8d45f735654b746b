"""The bytes that values of fields are compared by, and the fields that a document has."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever.field_values import (
    ValueType,
    decode_value,
    encode_value,
    fields_of,
    folders_of,
)

NEAR = [2**53, 2**54, 2**62, 2**63, 2**64, 10**30, 2**1023, 2**1024, 2**1024 - 2**970, 2**1100]
EDGES: list[int | float] = [
    *(sign * (number + offset) for number in NEAR for offset in (-1, 0, 1) for sign in (1, -1)),
    *(0, 1, -1, 0.0, -0.0, 1.0, -1.0, 0.5, 5e-324, -5e-324, 2.2250738585072014e-308),
    *(2.0**53, 2.0**63, -(2.0**63), 1e22, 1.7976931348623157e308, -1.7976931348623157e308),
]
numbers = st.one_of(
    st.sampled_from(EDGES),
    st.integers(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    # An integer close to a float, and a float close to an integer.
    st.builds(
        lambda value, offset: int(value) + offset,
        st.floats(-1e19, 1e19),
        st.integers(-2000, 2000),
    ),
)
storable = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False)
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ["", "\0", "a\0", "a\0b", "a", "ab", "\uffff", "\U00010000", "é", "e\u0301"]
)


def encoded(value: Any) -> bytes:
    return encode_value(value)[1]


@given(numbers, numbers)
def test_numbers_compare_by_their_exact_values(one: float, other: float) -> None:
    if Fraction(one) > 2**1800 and Fraction(other) > 2**1800:
        return  # neither can be stored
    below = -Fraction(1.7976931348623157e308)
    if Fraction(one) < below and Fraction(other) < below:
        return
    exactly = (Fraction(one) < Fraction(other), Fraction(one) == Fraction(other))
    assert (encoded(one) < encoded(other), encoded(one) == encoded(other)) == exactly


def test_edges_of_numbers_compare_by_their_exact_values() -> None:
    for one in EDGES:
        for other in EDGES:
            test_numbers_compare_by_their_exact_values.hypothesis.inner_test(one, other)  # type: ignore[attr-defined]
    assert encoded(2**53 + 1) != encoded(2.0**53)
    assert encoded(2**63 - 1) < encoded(2.0**63)
    assert encoded(-0.0) == encoded(0) == encoded(0.0)
    assert encoded(1) == encoded(1.0)


@given(storable)
def test_a_number_that_can_be_stored_takes_few_bytes_and_comes_back(value: float) -> None:
    data = encoded(value)
    assert len(data) <= 11
    assert decode_value(ValueType.NUMBER, data) == value


@given(texts, texts)
def test_strings_compare_by_code_points(one: str, other: str) -> None:
    assert (encoded(one) < encoded(other), encoded(one) == encoded(other)) == (
        one < other,
        one == other,
    )
    assert decode_value(ValueType.STRING, encoded(one)) == one


def test_types_are_never_equal() -> None:
    values: list[Any] = [None, False, 0, "", "0", [], {}]
    assert len({encode_value(value) for value in values}) == len(values)
    assert encode_value(True) == (ValueType.BOOLEAN, b"\1")
    for value in (*values, True):
        assert decode_value(*encode_value(value)) == value


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, "\ud800"])
def test_what_no_metadata_holds_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"finite|surrogates"):
        encode_value(value)


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(TypeError, match="bytes is no type of JSON"):
        encode_value(b"")


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (ValueType.NULL, b"\0"),
        (ValueType.BOOLEAN, b"\2"),
        (ValueType.NUMBER, b""),
        (ValueType.NUMBER, bytes(8)),
        (ValueType.NUMBER, b"\xff" * 8),
        (ValueType.NUMBER, encoded(1) + b"\0"),
        (ValueType.STRING, b"\xff"),
        (ValueType.LIST, b"x"),
    ],
)
def test_bytes_that_encode_no_value_are_refused(kind: ValueType, data: bytes) -> None:
    with pytest.raises(ValueError, match=r"encodes no|is no|decode"):
        decode_value(kind, data)


def rows(metadata: dict[str, Any], **own: str | None) -> list[tuple[str, Any]]:
    """Return the fields of a document with their values decoded."""
    named = {"source": None, "title": None, "language": None, **own}
    found = list(fields_of(metadata, **named))
    assert len(set(found)) == len(found)
    return [(path, decode_value(kind, data)) for path, kind, data in found]


def test_values_are_found_by_their_path() -> None:
    assert rows({"a": 1, "b": {"c": "x", "d": {"e": None}}}) == [
        ("a", 1),
        ("b", {}),
        ("b.c", "x"),
        ("b.d", {}),
        ("b.d.e", None),
    ]


def test_a_point_or_a_backslash_in_a_key_is_escaped() -> None:
    found = rows({"a.b": 1, "a": {"b": 2}, "a\\": {"b": 3}, "a\\.b": 4, "": {"": 5}})
    assert dict(found) == {
        "a\\.b": 1,
        "a": {},
        "a.b": 2,
        "a\\\\": {},
        "a\\\\.b": 3,
        "a\\\\\\.b": 4,
        "": {},
        ".": 5,
    }


def test_a_list_contributes_each_element_once_and_says_that_it_is_one() -> None:
    assert rows({"a": [1, 1.0, True, [2, [None]], 2]}) == [
        ("a", []),
        ("a", 1),
        ("a", True),
        ("a", 2),
        ("a", None),
    ]


def test_objects_in_a_list_contribute_their_paths() -> None:
    assert rows({"a": [{"b": 1}, {"b": 2, "c": [3]}, {}]}) == [
        ("a", []),
        ("a", {}),
        ("a.b", 1),
        ("a.b", 2),
        ("a.c", []),
        ("a.c", 3),
    ]


def test_empty_lists_and_objects_exist() -> None:
    assert rows({"a": [], "b": {}}) == [("a", []), ("b", {})]


def test_a_document_has_fields_of_its_own_unless_its_metadata_has_them() -> None:
    own = {"source": "manuals/pump/reset.md", "title": "Reset", "language": "en"}
    assert rows({}, **own) == [
        ("source", "manuals/pump/reset.md"),
        ("title", "Reset"),
        ("language", "en"),
        ("folder", "manuals"),
        ("folder", "manuals/pump"),
    ]
    given_by_caller = {"source": None, "language": "de-AT", "folder": ["inbox"], "title": 7}
    assert rows(given_by_caller, **own) == [
        ("source", None),
        ("language", "de-AT"),
        ("folder", []),
        ("folder", "inbox"),
        ("title", 7),
    ]
    assert rows({}) == []


@pytest.mark.parametrize(
    ("source", "folders"),
    [
        ("", []),
        ("a.md", []),
        ("a/b/c.md", ["a", "a/b"]),
        ("/a/b.md", ["/", "/a"]),
        ("/b.md", ["/"]),
        ("a//b.md", ["a"]),
        ("../a/b.md", ["..", "../a"]),
        ("https://example.org/x/y", ["https:", "https://example.org", "https://example.org/x"]),
        ("a/" * 2048, ["a" + "/a" * n for n in range(2048)]),
        ("a/" * 2049, []),
    ],
)
def test_folders_are_all_that_a_source_is_in(source: str, folders: list[str]) -> None:
    assert folders_of(source) == folders or list(folders_of(source)) == folders


def test_metadata_of_the_greatest_depth_has_a_path_for_each_level() -> None:
    metadata: dict[str, Any] = {"k": 1}
    for _ in range(7):
        metadata = {"k": metadata}
    found = rows(metadata)
    assert [path for path, _ in found] == [".".join("k" * depth) for depth in range(1, 9)]
    assert found[-1][1] == 1

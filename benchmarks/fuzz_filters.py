"""Random filters on random metadata, compared with a plain reading of the documentation.

    python -m benchmarks.fuzz_filters --count 100000

`passes` decides for one document by walking through its metadata, and shares no code with the
package. Each filter is asked as a mapping and as an expression, for documents and in searches, and
damaged filters may only raise errors of the package. Exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from retriever import Document, Index, UsageError
from retriever.filters import parse, to_dict, to_expression
from retriever.testing import HashEncoder

DOCUMENTS = 120
FILTERS_FOR_EACH_INDEX = 2_000
_HOSTILE = ["'); DROP TABLE documents; --", 'a"b', "it's", "\0", "a\0b", "%", "_", "\\", "é", "😀"]
_KEYS = [
    "a",
    "b",
    "c",
    "a.b",
    "a\\",
    "$x",
    "",
    "id",
    "source",
    "title",
    "language",
    "folder",
    "page",
]
_KEYS += _HOSTILE[:4]
_STRINGS = ["", "a", "ab", "abc", "b", "1", "true", "null", "2024-01-31", "en", *_HOSTILE]
_NUMBERS = [0, 1, -1, 2, 1.0, 0.5, -0.0, 1e300, -1e-300, 2**53, 2**53 + 1, 2.0**53]
_NUMBERS += [2**63 - 1, -(2**63), 9.3e18]


# Drawn half of the time, so that filters and documents often meet.
_USUAL_KEYS = ["a", "b", "page"]
_USUAL = [0, 1, 2, "a", "ab", True, None]


# --- what the documentation says -------------------------------------------------------------


def passes(asked: Mapping[str, Any], document: Mapping[str, Any]) -> bool:
    """Return whether a document, as an object of its fields, passes a filter."""
    return all(_part(key, value, document) for key, value in asked.items())


def _part(key: str, value: Any, document: Mapping[str, Any]) -> bool:
    if key == "$and":
        return all(passes(part, document) for part in value)
    if key == "$or":
        return any(passes(part, document) for part in value)
    if key == "$not":
        return not passes(value, document)
    path = _keys(key[1:] if key.startswith("\\$") else key)
    return _field(list(_values(document, path)), value)


def _field(found: Sequence[Any], asked: Any) -> bool:
    """Return whether the values of a field pass: each element of a list is one of them."""
    if not isinstance(asked, Mapping):
        return any(_same(one, asked) for one in found)
    return all(_operator(found, operator, operand) for operator, operand in asked.items())


def _operator(found: Sequence[Any], operator: str, operand: Any) -> bool:
    match operator:
        case "$not":
            return not _field(found, operand)
        case "$exists":
            return bool(found) is operand
        case "$eq":
            return any(_same(one, operand) for one in found)
        case "$ne":
            return not any(_same(one, operand) for one in found)
        case "$in":
            return any(_same(one, each) for one in found for each in operand)
        case "$nin":
            return not any(_same(one, each) for one in found for each in operand)
        case "$contains":
            return any(isinstance(one, str) and operand in one for one in found)
        case "$startswith":
            return any(isinstance(one, str) and one.startswith(operand) for one in found)
    return any(_type(one) == _type(operand) and _ORDER[operator](one, operand) for one in found)


_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": lambda one, other: one > other,
    "$gte": lambda one, other: one >= other,
    "$lt": lambda one, other: one < other,
    "$lte": lambda one, other: one <= other,
}


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else type(value).__name__


def _same(one: Any, other: Any) -> bool:
    return _type(one) == _type(other) and not isinstance(one, list | dict) and one == other


def _keys(name: str) -> list[str]:
    keys, rest = [""], iter(name)
    for character in rest:
        if character == "\\":
            following = next(rest, "")
            keys[-1] += following if following in (".", "\\") and following else "\\" + following
        elif character == ".":
            keys.append("")
        else:
            keys[-1] += character
    return keys


def _values(value: Any, keys: Sequence[str]) -> Iterator[Any]:
    """Yield all values that keys lead to; elements of a list are looked into one by one."""
    if isinstance(value, list):
        if not keys:
            yield value
        for one in value:
            yield from _values(one, keys)
    elif not keys:
        yield value
    elif isinstance(value, dict) and keys[0] in value:
        yield from _values(value[keys[0]], keys[1:])


def described(document: Document, language: str | None, page: int | None = None) -> dict[str, Any]:
    """Return the fields of a document, or of one of its passages: metadata comes first."""
    source = document.source or ""
    folders = [source[:at] for at in range(len(source)) if source[at] == "/"]
    own = {
        "id": document.id,
        "source": document.source,
        "title": document.title,
        "folder": folders or None,
        "language": language,
        "page": page,
    }
    return {key: value for key, value in own.items() if value is not None} | dict(document.metadata)


# --- random documents and filters ------------------------------------------------------------


def key_of(chance: random.Random) -> str:
    """Return a random key of metadata."""
    return chance.choice(_USUAL_KEYS if chance.random() < 0.5 else _KEYS)


def value(chance: random.Random, depth: int = 0) -> Any:
    """Return a random value of metadata."""
    kind = chance.randrange(10 if depth < 3 else 8)
    if kind == 8:
        return [value(chance, depth + 1) for _ in range(chance.randrange(4))]
    if kind == 9:
        return {key_of(chance): value(chance, depth + 1) for _ in range(chance.randrange(3))}
    return scalar(chance)


def scalar(chance: random.Random) -> Any:
    """Return a random value to compare with."""
    if chance.random() < 0.5:
        return chance.choice(_USUAL)
    kind = chance.randrange(8)
    if kind < 4:
        return chance.choice(_STRINGS)
    return chance.choice(_NUMBERS) if kind < 6 else chance.choice([None, True, False])


def document(chance: random.Random, number: int) -> Document:
    """Return a random document; every second one has pages."""
    metadata = {key_of(chance): value(chance) for _ in range(chance.randrange(5))}
    text = f"Text number {number}.\n\nOn its second page {number} more words stand."
    return Document(
        text,
        id=chance.choice(["", "x/", "'; --"]) + str(number),
        metadata=metadata,
        source=chance.choice([None, "a", "a/b", "a/b/c", "ab/c", "1/2"]),
        title=chance.choice([None, "a", "abc", "true"]),
        pages=(0, text.index("On")) if number % 2 else (),
    )


def path(chance: random.Random) -> str:
    """Return the name of a random field."""
    keys = [key_of(chance) for _ in range(chance.choice([1, 1, 1, 1, 2, 2, 3]))]
    name = ".".join(key.replace("\\", "\\\\").replace(".", "\\.") for key in keys)
    return f"\\{name}" if name.startswith("$") else name


def asked(chance: random.Random, depth: int = 0) -> dict[str, Any]:
    """Return a random filter."""
    kind = chance.randrange(8 if depth < 3 else 4)
    if kind < 4:
        return {path(chance): condition(chance) for _ in range(chance.choice([1, 1, 1, 2]))}
    if kind == 7:
        return {"$not": asked(chance, depth + 1)}
    parts = [asked(chance, depth + 1) for _ in range(chance.randrange(1, 4))]
    return {chance.choice(["$and", "$or"]): parts}


def condition(chance: random.Random) -> Any:
    """Return a random condition on a field."""
    ordered = chance.choice([0, 1, 2, "a", "ab", *_STRINGS, *_NUMBERS])
    match chance.randrange(9):
        case 0 | 1:
            return scalar(chance)
        case 2:
            return {chance.choice(["$eq", "$ne"]): scalar(chance)}
        case 3:
            values = [scalar(chance) for _ in range(chance.randrange(5))]
            return {chance.choice(["$in", "$nin"]): values}
        case 4:
            return {"$exists": chance.random() < 0.5}
        case 5:
            return {chance.choice(["$contains", "$startswith"]): chance.choice(_STRINGS)}
        case 6:
            return {"$not": condition_of_operators(chance)}
        case 7:
            return {"$gte": ordered, "$lt": chance.choice([*_STRINGS, *_NUMBERS])}
    return {chance.choice(list(_ORDER)): ordered}


def condition_of_operators(chance: random.Random) -> dict[str, Any]:
    """Return a random condition that is a mapping of operators."""
    found = condition(chance)
    return found if isinstance(found, dict) else {"$eq": found}


def damaged(chance: random.Random, given: Any) -> Any:
    """Return a filter with something in it that does not belong there."""
    strange: list[Any] = [float("nan"), float("inf"), 10**400, b"x", {1}, object(), "\ud800", [[]]]
    strange += [{}, [], {"$foo": 1}, {"a": {"$gt": None}}, 3.5, None, {"b": {"c": 1}}, {2: 3}]
    if isinstance(given, dict) and given and chance.random() < 0.7:
        key = chance.choice(list(given))
        changed = dict(given)
        changed[key] = damaged(chance, changed[key])
        return changed
    if isinstance(given, list) and given and chance.random() < 0.7:
        return [damaged(chance, given[0]), *given[1:]]
    return chance.choice(strange)


# --- the comparison --------------------------------------------------------------------------


class Stored(NamedTuple):
    """A document of an index, its language as detected, and the pages of its passages."""

    document: Document
    language: str | None
    pages: list[int | None]


class Outcome(NamedTuple):
    """What a run found.

    Attributes:
        filters: How many filters were asked.
        differences: What differed, in words.
        foreign: Exceptions that are not the package's, in words.
        refused: How many damaged filters were refused.
    """

    filters: int
    differences: list[str]
    foreign: list[str]
    refused: int


def run(count: int, seed: int, directory: Path) -> Outcome:
    """Ask `count` random filters, on a new index for every 2,000."""
    outcome = Outcome(count, [], [], 0)
    refused = 0
    for start in range(0, count, FILTERS_FOR_EACH_INDEX):
        chance = random.Random(seed + start)
        with Index.open(directory / f"{start}.index", model=HashEncoder()) as index:
            index.add([document(chance, number) for number in range(DOCUMENTS)])
            languages = _languages(index)
            stored = [
                Stored(
                    one,
                    languages[one.id or ""],
                    [chunk.page for chunk in index.chunks(one.id or "")],
                )
                for one in index.documents()
            ]
            for number in range(start, min(count, start + FILTERS_FOR_EACH_INDEX)):
                one = asked(chance)
                try:
                    outcome.differences.extend(_differences(index, stored, one, number))
                except Exception as exc:
                    outcome.foreign.append(f"{type(exc).__name__}: {exc} for {one}")
                refused += _is_refused(index, damaged(chance, one), outcome.foreign)
        found = len(outcome.differences) + len(outcome.foreign)
        print(
            f"{min(count, start + FILTERS_FOR_EACH_INDEX):,} asked, {found} wrong", file=sys.stderr
        )
    return outcome._replace(refused=refused)


def _languages(index: Index) -> dict[str, str | None]:
    """Return the language of each document; whether it is right is not the question here."""
    with closing(sqlite3.connect(index.path / "store.db")) as connection:
        return dict(connection.execute("SELECT id, language FROM documents").fetchall())


def _differences(
    index: Index, stored: Sequence[Stored], one: dict[str, Any], number: int
) -> Iterator[str]:
    has_page = "page" in parse(one).fields
    expression = to_expression(parse(one))
    if not has_page:
        wanted = [
            each.document.id
            for each in stored
            if passes(one, described(each.document, each.language))
        ]
        number_found = index.count(filter=expression)
        if number_found != len(wanted):
            yield f"count: {number_found}, not {len(wanted)}, for {expression}"
        found = [each.id for each in index.documents(filter=one, embeddings=False)]
        if found != wanted:
            yield f"documents: {sorted(map(str, {*found} ^ {*wanted}))} for {one}"
    if not (has_page or number % 10 == 0):
        return
    passages = [
        (document.id or "", page or 0)
        for document, language, pages in stored
        for page in pages
        if passes(one, described(document, language, page))
    ]
    hits = index.search("text", k=1_000, fold=False, filter=to_dict(parse(one)))
    if sorted((hit.document_id, hit.page or 0) for hit in hits) != sorted(passages):
        yield f"search: {len(hits)} hits, not {len(passages)}, for {one}"


def _is_refused(index: Index, given: Any, foreign: list[str]) -> bool:
    try:
        index.count(filter=given)
    except UsageError:
        return True
    except Exception as exc:
        foreign.append(f"{type(exc).__name__}: {exc} for {given!r}")
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        found = run(given.count, given.seed, Path(directory))
    for line in [*found.differences, *found.foreign][:20]:
        print(line)
    summary = {
        "filters": found.filters,
        "differences": len(found.differences),
        "foreign_exceptions": len(found.foreign),
        "damaged_filters_refused": found.refused,
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(summary))
    return bool(found.differences or found.foreign)


if __name__ == "__main__":
    raise SystemExit(main())

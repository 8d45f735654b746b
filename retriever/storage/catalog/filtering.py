"""Documents and chunks that pass a filter, by set algebra on the rows of fields.

Everything that a filter says, names of fields included, is bound as a parameter. Each condition is
answered by ranges of `field_values`; a tree is evaluated with one flag for each document, and for
conditions on chunks with one for each chunk.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from retriever.field_values import ValueType, encode_value
from retriever.filters import And, Condition, Filter, Node, Not, Operator
from retriever.filters.tree import conditions
from retriever.storage.catalog.integers import ChunkDocuments, Ids, integers
from retriever.storage.json_columns import from_json
from retriever.storage.tables import FIELDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Flags: TypeAlias = NDArray[np.bool_]


OF_CHUNKS = frozenset({"page", "heading"})
"""Fields that each chunk has of its own, where the metadata of its document has none."""
_BOUND_AT_ONCE = 500
_SYMBOLS = {Operator.GT: ">", Operator.GTE: ">=", Operator.LT: "<", Operator.LTE: "<="}


def documents_matching(connection: sqlite3.Connection, asked: Filter) -> Ids:
    """Return the primary keys of the documents that pass a filter, ascending, int64."""
    documents = _Documents(connection)
    return documents.pks[documents.flags(asked.root)]


def chunks_matching(
    connection: sqlite3.Connection, chunking_id: int, asked: Filter, chunks: ChunkDocuments
) -> Ids:
    """Return the chunks that pass a filter, ascending, int64.

    Args:
        connection: Inside a read transaction.
        chunking_id: The chunking of the chunks.
        asked: The filter.
        chunks: The chunks to choose from, with their documents.
    """
    documents = _Documents(connection)
    return chunks.ids[_Chunks(connection, chunking_id, documents, chunks).flags(asked.root)]


def ids_of_documents(connection: sqlite3.Connection, pks: Ids) -> list[tuple[str, int]]:
    """Return (id, primary key) of some documents, in order of id."""
    wanted = set(pks.tolist())
    found = connection.execute("SELECT id, pk FROM documents ORDER BY id")
    return [(document_id, pk) for document_id, pk in found if pk in wanted]


def fields(connection: sqlite3.Connection) -> list[str]:
    """Return the paths of the fields that any document has, in order."""
    found = connection.execute(
        f"SELECT {FIELDS.listed()} FROM fields f"
        " WHERE EXISTS (SELECT 1 FROM field_values v WHERE v.field_id = f.id) ORDER BY path"
    )
    return [FIELDS.checked(row)[1] for row in found]


def value_counts(
    connection: sqlite3.Connection, path: str, asked: Filter
) -> Iterator[tuple[ValueType, bytes, int]]:
    """Yield (type, encoded value, number of documents) of a field, of documents that pass."""
    field_id = _field_id(connection, path)
    scalar = f"field_id = ? AND type <= {int(ValueType.STRING)}"
    if asked.is_empty:
        yield from connection.execute(
            f"SELECT type, value, count(*) FROM field_values WHERE {scalar} GROUP BY type, value",
            (field_id,),
        )
        return
    wanted = set(documents_matching(connection, asked).tolist())
    found = connection.execute(
        f"SELECT type, value, document_pk FROM field_values WHERE {scalar} ORDER BY type, value",
        (field_id,),
    )
    for (kind, value), rows in groupby(found, key=lambda row: (row[0], row[1])):
        if number := sum(row[2] in wanted for row in rows):
            yield kind, value, number


# --- documents -------------------------------------------------------------------------------


class _Documents:
    """All documents of a snapshot, and which of them a tree is true of."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        (pks,) = integers(
            connection, "SELECT group_concat(pk), count(*) FROM documents", (), "documents"
        )
        self.pks = np.sort(pks)

    def flags(self, node: Node) -> Flags:
        return _evaluated(node, self.of_condition, len(self.pks))

    def of_condition(self, condition: Condition) -> Flags:
        found = self.of_rows(condition)
        if condition.path != "id":
            return found
        # An id in the metadata takes the place of the document's own.
        has_none = ~self.of_rows(Condition("id", Operator.EXISTS))
        return found | (has_none & self._flagged(list(self._by_id(condition))))

    def of_rows(self, condition: Condition) -> Flags:
        """Return which documents have a row of fields that meets a condition."""
        field_id = _field_id(self._connection, condition.path)
        if field_id is None:
            return np.zeros(len(self.pks), dtype=bool)
        return self._flagged(
            [
                integers(
                    self._connection,
                    "SELECT group_concat(document_pk), count(*) FROM field_values"
                    f" WHERE field_id = ?{where}",
                    (field_id, *values),
                    "field_values",
                )[0]
                for where, values in _ranges(condition)
            ]
        )

    def _by_id(self, condition: Condition) -> Iterator[Ids]:
        """Yield the documents whose own id meets a condition."""
        for where, values in _comparisons(condition, "CAST(id AS BLOB)"):
            yield integers(
                self._connection,
                f"SELECT group_concat(pk), count(*) FROM documents WHERE {where}",
                values,
                "documents",
            )[0]

    def _flagged(self, found: Sequence[Ids]) -> Flags:
        flags = np.zeros(len(self.pks), dtype=bool)
        for pks in found:
            positions, known = _places(self.pks, pks)
            flags[positions[known]] = True
        return flags


def _ranges(condition: Condition) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield SQL conditions on rows of a field, and the values bound to them."""
    if condition.operator is Operator.EXISTS:
        yield "", ()
        return
    encoded = sorted(encode_value(value.value) for value in condition.values)
    for kind, of_kind in groupby(encoded, key=lambda one: one[0]):
        values = [data for _, data in of_kind]
        for where, bound in _of_values(condition.operator, values, "value"):
            yield f" AND type = ? AND {where}", (int(kind), *bound)


def _comparisons(condition: Condition, column: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield SQL conditions on a column that holds strings as bytes, never NULL."""
    if condition.operator is Operator.EXISTS:
        yield "1", ()
        return
    encoded = map(encode_value, (value.value for value in condition.values))
    values = [data for kind, data in encoded if kind is ValueType.STRING]
    if values:
        yield from _of_values(condition.operator, values, column)


def _of_values(
    operator: Operator, values: Sequence[bytes], column: str
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    if operator is Operator.IN:
        for start in range(0, len(values), _BOUND_AT_ONCE):
            some = values[start : start + _BOUND_AT_ONCE]
            yield f"{column} IN ({', '.join('?' * len(some))})", tuple(some)
        return
    (value,) = values
    if operator in _SYMBOLS:
        yield f"{column} {_SYMBOLS[operator]} ?", (value,)
    elif not value:  # every string begins with it, and contains it
        yield "1", ()
    elif operator is Operator.CONTAINS:
        # In UTF-8 no character begins inside of another, so comparing bytes is enough.
        yield f"instr({column}, ?) > 0", (value,)
    else:
        # The last byte of UTF-8 is below 0xFF.
        yield f"{column} >= ? AND {column} < ?", (value, value[:-1] + bytes([value[-1] + 1]))


def _field_id(connection: sqlite3.Connection, path: str) -> int | None:
    row = connection.execute(
        f"SELECT {FIELDS.listed()} FROM fields WHERE path = ?", (path,)
    ).fetchone()
    return None if row is None else int(FIELDS.checked(row)[0])


# --- chunks ----------------------------------------------------------------------------------


class _Chunks:
    """Chunks with their documents, and which of them a tree is true of."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        chunking_id: int,
        documents: _Documents,
        chunks: ChunkDocuments,
    ) -> None:
        self._connection = connection
        self._chunking_id = chunking_id
        self._documents = documents
        self._chunks = chunks
        # Chunks of documents that this snapshot does not have point past the last document.
        self._places, known = _places(documents.pks, chunks.pks)
        self._places[~known] = len(documents.pks)

    def flags(self, node: Node) -> Flags:
        if not any(condition.path in OF_CHUNKS for condition in conditions(node)):
            return self._of_documents(self._documents.flags(node))
        return _evaluated(node, self._of_condition, len(self._chunks.ids), self.flags)

    def _of_documents(self, flags: Flags) -> Flags:
        found: Flags = np.append(flags, False)[self._places]
        return found

    def _of_condition(self, condition: Condition) -> Flags:
        given = self._documents.of_rows(condition)
        has_none = ~self._documents.of_rows(Condition(condition.path, Operator.EXISTS))
        found = self._by_page if condition.path == "page" else self._by_heading
        flags = np.zeros(len(self._chunks.ids), dtype=bool)
        for ids in found(condition):
            positions, known = _places(self._chunks.ids, ids)
            flags[positions[known]] = True
        return self._of_documents(given) | (self._of_documents(has_none) & flags)

    def _by_page(self, condition: Condition) -> Iterator[Ids]:
        operator = condition.operator
        numbers = [value.value for value in condition.values if type(value.value) in (int, float)]
        tests: list[tuple[str, tuple[Any, ...]]]
        if operator is Operator.EXISTS:
            tests = [("page IS NOT NULL", ())]
        elif operator is Operator.IN:
            starts = range(0, len(numbers), _BOUND_AT_ONCE)
            parts = [tuple(numbers[start : start + _BOUND_AT_ONCE]) for start in starts]
            tests = [(f"page IN ({', '.join('?' * len(part))})", part) for part in parts]
        else:
            tests = [(f"page {_SYMBOLS[operator]} ?", (number,)) for number in numbers]
        for where, values in tests:
            yield integers(
                self._connection,
                f"SELECT group_concat(id), count(*) FROM chunks WHERE chunking_id = ? AND {where}",
                (self._chunking_id, *values),
                "chunks",
            )[0]

    def _by_heading(self, condition: Condition) -> Iterator[Ids]:
        passing: dict[str, bool] = {}
        found: list[int] = []
        for chunk_id, heading in self._connection.execute(
            "SELECT id, heading FROM chunks WHERE chunking_id = ?", (self._chunking_id,)
        ):
            passes = passing.get(heading)
            if passes is None:
                titles = from_json(heading, list, "chunks", chunk_id)
                passes = passing[heading] = any(_passes(title, condition) for title in titles)
            if passes:
                found.append(chunk_id)
        yield np.array(found, dtype=np.int64)


def _passes(title: str, condition: Condition) -> bool:
    """Return whether a string meets a condition."""
    values = [one.value for one in condition.values if isinstance(one.value, str)]
    match condition.operator:
        case Operator.EXISTS:
            return True
        case Operator.IN:
            return title in values
        case Operator.CONTAINS:
            return values[0] in title
        case Operator.STARTSWITH:
            return title.startswith(values[0])
        case Operator.GT:
            return any(title > value for value in values)
        case Operator.GTE:
            return any(title >= value for value in values)
        case Operator.LT:
            return any(title < value for value in values)
        case Operator.LTE:
            return any(title <= value for value in values)


# --- sets ------------------------------------------------------------------------------------


def _evaluated(
    node: Node,
    of_condition: Callable[[Condition], Flags],
    length: int,
    flags: Callable[[Node], Flags] | None = None,
) -> Flags:
    """Return the flags of a tree, given those of a condition, and how parts are evaluated."""
    if isinstance(node, Condition):
        return of_condition(node)

    def inner(part: Node) -> Flags:
        return _evaluated(part, of_condition, length) if flags is None else flags(part)

    if isinstance(node, Not):
        return ~inner(node.inner)
    if isinstance(node, And):
        return reduce(np.logical_and, map(inner, node.parts), np.ones(length, dtype=bool))
    return reduce(np.logical_or, map(inner, node.parts), np.zeros(length, dtype=bool))


def _places(ascending: Ids, wanted: Ids) -> tuple[Ids, Flags]:
    """Return the positions of integers in an ascending array, and which of them are there."""
    positions = np.searchsorted(ascending, wanted)
    if not len(ascending):
        return positions, np.zeros(len(wanted), dtype=bool)
    return positions, ascending[np.minimum(positions, len(ascending) - 1)] == wanted

"""Reading what can still be read of a damaged database."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from retriever.storage import schema
from retriever.storage.table import Table
from retriever.storage.tables import TEXTS

_PAGE = 256
_STRIDE = 512
# A damaged counter may name a key of 2**62; the search for further rows ends after this many
# strides without any.
_EMPTY_STRIDES = 1_000


class DamagedDatabase:
    """Reads what is left of a damaged database; `unreadable` names what could not be read whole."""

    def __init__(self, connection: sqlite3.Connection, described: tuple[Table, ...]) -> None:
        schema.restrict(connection, described)
        self._connection = connection
        self.unreadable: set[str] = set()

    def one(self, sql: str, values: Sequence[Any]) -> tuple[Any, ...] | None:
        """Return the row of a query, None where there is none or it cannot be read."""
        with suppress(sqlite3.Error):
            row: tuple[Any, ...] | None = self._connection.execute(sql, values).fetchone()
            return row
        return None

    def text(self, pk: int) -> tuple[Any, ...]:
        """Return the row of a document's text, or Nones."""
        found = self.one(f"SELECT {TEXTS.listed()} FROM texts WHERE document_pk = ?", (pk,))
        return found or (None, None, None)

    def rows(self, table: Table) -> Iterator[tuple[Any, ...]]:
        """Yield the readable rows of a table."""
        if table.integer_key:
            return self.scan(table.name, table.listed(), table.integer_key)
        return self.whole(table.name, table.listed())

    def _read(self, sql: str, label: str) -> Iterator[tuple[Any, ...]]:
        """Yield rows up to the first that cannot be read."""
        try:
            yield from self._connection.execute(sql)
        except sqlite3.Error:
            self.unreadable.add(label)

    def whole(self, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
        """Yield the readable rows of a table that has no integer key."""
        return self._read(f"SELECT {columns} FROM {table}", table)

    def both_ways(self, sql: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of an ordered query; if one cannot be read, also those from its end."""
        yield from self._read(sql, sql)
        if sql in self.unreadable:
            yield from self._read(f"{sql} DESC", sql)

    def scan(self, table: str, columns: str, key: str) -> Iterator[tuple[Any, ...]]:
        """Yield the readable rows of a table in order of an integer key, its first column."""
        select = f"SELECT {columns} FROM {table}"
        top = self._top(table, key)
        last = empty = 0
        while last < top and empty < _EMPTY_STRIDES:
            try:
                page = self._page(f"{select} WHERE {key} > ? ORDER BY {key}", last, top)
            except sqlite3.Error:
                self.unreadable.add(table)
                # A range ends at the damaged page. Looking up each key from the root also finds
                # those on the pages after it.
                found = list(self._one_by_one(select, key, last))
                yield from found
                empty = 0 if found else empty + 1
                last += _STRIDE
                continue
            if not page:
                return
            yield from page
            last = page[-1][0]

    def _page(self, sql: str, last: int, top: int) -> list[tuple[Any, ...]]:
        """Return the rows after a key; a damaged page may hold keys in any order."""
        page = self._connection.execute(f"{sql} LIMIT ?", (last, _PAGE)).fetchall()
        keys = [last, *(row[0] for row in page), top + 1]
        if any(one >= other for one, other in itertools.pairwise(keys)):
            raise sqlite3.DatabaseError("the keys do not ascend")
        return page

    def _one_by_one(self, select: str, key: str, last: int) -> Iterator[tuple[Any, ...]]:
        for number in range(last + 1, last + 1 + _STRIDE):
            row = self.one(f"{select} WHERE {key} = ?", (number,))
            if row is not None:
                yield row

    def _top(self, table: str, key: str) -> int:
        """Return an upper bound of a table's keys, from whichever source can still be read."""
        # `texts` has the keys of `documents` and no counter of its own.
        counter = "documents" if table == "texts" else table
        found = 0
        for sql in (
            f"SELECT max({key}) FROM {table}",
            f"SELECT max(seq) FROM sqlite_sequence WHERE name = '{counter}'",
        ):
            row = self.one(sql, ())
            if row is None:
                self.unreadable.add(table)
            elif isinstance(row[0], int):
                found = max(found, row[0])
        return found

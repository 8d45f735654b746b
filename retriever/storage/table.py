"""The description of a table: its columns, its SQL, and how its rows are sealed and checked.

`tables.py` describes each table once with these classes. Creating the database, checking its
schema, verification, salvage and `live_sum` all follow these descriptions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from retriever.canonical import MAX_JSON
from retriever.errors import IndexCorrupt, RetrieverError
from retriever.storage import checksums

_SQL_TYPES = {int: "INTEGER", str: "TEXT", bytes: "BLOB"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        name: Its name.
        type: `int`, `str` or `bytes`; SQLite itself keeps any type in any column.
        null: Whether NULL is allowed.
        json: Whether the text is JSON, and therefore at most `MAX_JSON` long.
        unique: Whether no two rows share a value.
        references: The table whose key the column holds, or an empty string.
    """

    name: str
    type: type
    null: bool = False
    json: bool = False
    unique: bool = False
    references: str = ""


@dataclass(frozen=True, eq=False)  # hashed by identity, which costs nothing: see `_has_types`
class Table:
    """The description of a table.

    Attributes:
        name: Its name; also the beginning of the canonical bytes of its rows.
        columns: All columns except `crc`, which most tables have at the end.
        key: The columns of the primary key. A single integer key must be the first column; other
            tables refer to it, and salvage reads damaged tables by it.
        never_reused: Whether a key is never assigned a second time (`AUTOINCREMENT`).
        has_payload: Whether the last column is a payload (see `checksums`).
        is_content: Whether its rows count in `live_sum`. Caches and the history itself do not.
        has_crc: Whether rows carry a checksum of their own. Those of a cache need none if they are
            compared with what they are made from.
        indexes: The columns of further indexes, by name.
        decode: Converts the checked columns to a value, or raises IndexCorrupt.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    never_reused: bool = False
    has_payload: bool = False
    is_content: bool = True
    has_crc: bool = True
    indexes: dict[str, str] = field(default_factory=dict)
    decode: Callable[[Sequence[Any]], object] | None = None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the names of all columns, `crc` included."""
        names = tuple(column.name for column in self.columns)
        return (*names, "crc") if self.has_crc else names

    @cached_property
    def integer_key(self) -> str:
        """Return the key column if the key is a single integer, else an empty string."""
        (first, *others) = self.key
        is_integer = any(c.name == first and c.type is int for c in self.columns)
        return first if is_integer and not others else ""

    def listed(self, alias: str = "") -> str:
        """Return all columns for a SELECT, `crc` last, qualified by an alias if one is given."""
        return _listed(self, alias)

    def references(self, other: Table) -> list[str]:
        """Return the columns that refer to another table."""
        return [column.name for column in self.columns if column.references == other.name]

    # --- SQL ---------------------------------------------------------------------------------

    @property
    def sql(self) -> str:
        """Return the statement that creates the table, exactly as `sqlite_schema` stores it."""
        lines = [f"  {self._column_sql(column)}" for column in self.columns]
        if self.has_crc:
            lines.append("  crc INTEGER NOT NULL")
        if len(self.key) > 1:
            lines.append(f"  PRIMARY KEY({', '.join(self.key)})")
        end = ")" if self.integer_key else ") WITHOUT ROWID"
        return f"CREATE TABLE {self.name}(\n" + ",\n".join(lines) + "\n" + end

    def _column_sql(self, column: Column) -> str:
        words = [column.name, _SQL_TYPES[column.type]]
        if self.key == (column.name,):
            words.append("PRIMARY KEY AUTOINCREMENT" if self.never_reused else "PRIMARY KEY")
        if not column.null:
            words.append("NOT NULL")
        if column.unique:
            words.append("UNIQUE")
        if column.references:
            words.append(f"REFERENCES {column.references}")
        return " ".join(words)

    @property
    def index_sql(self) -> dict[str, str]:
        """Return the statements that create its indexes, by name."""
        return {
            name: f"CREATE INDEX {name} ON {self.name}({columns})"
            for name, columns in self.indexes.items()
        }

    @cached_property
    def insert_sql(self) -> str:
        """Return the statement that inserts a sealed row."""
        return f"INSERT INTO {self.name} VALUES ({', '.join('?' * len(self.names))})"

    @cached_property
    def update_sql(self) -> str:
        """Return the statement that replaces the row with a given key by a sealed row.

        The key is bound after the row. It is an UPDATE, so that rows which refer to the key stay.
        """
        where = " AND ".join(f"{name} = ?" for name in self.key)
        marks = ", ".join("?" * len(self.names))
        return f"UPDATE {self.name} SET ({', '.join(self.names)}) = ({marks}) WHERE {where}"

    # --- rows --------------------------------------------------------------------------------

    def _parts(self, values: Sequence[Any]) -> tuple[bytes, bytes]:
        """Return the canonical bytes of a row's values, and its payload."""
        if self.has_payload and len(values) == 2:  # equals `pack` for one integer, but faster
            return f"{self.name}[{values[0]:d}]".encode(), values[1]
        if self.has_payload:
            return checksums.pack(self.name, *values[:-1]), values[-1]
        return checksums.pack(self.name, *values), b""

    def seal(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """Return a row's values with their checksum at the end."""
        return (*values, checksums.crc(*self._parts(values)))

    def digest(self, values: Sequence[Any]) -> int:
        """Return what a row's values add to `live_sum`."""
        return checksums.digest(*self._parts(values)) if self.is_content else 0

    def seal_and_digest(self, values: Sequence[Any]) -> tuple[tuple[Any, ...], int]:
        """Return the results of `seal` and `digest`, packing the row only once."""
        packed, payload = self._parts(values)
        digest = checksums.digest(packed, payload) if self.is_content else 0
        return (*values, checksums.crc(packed, payload)), digest

    def key_of(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """Return the values of the primary key."""
        names = self.names
        return tuple(values[names.index(name)] for name in self.key)

    def has_types(self, values: Sequence[Any]) -> bool:
        """Return whether each value has its column's type."""
        return _has_types(self, tuple(map(type, values)))

    def checked(self, row: Sequence[Any]) -> Sequence[Any]:
        """Return the values of a row, given with its checksum at the end, after checking it.

        Types are checked before the checksum, which assumes them: SQLite stores a value of any type
        in any column.

        Raises:
            IndexCorrupt: A value has another type than its column, or the checksum differs.
        """
        values = row[:-1]
        is_plausible = self.has_types(values) and all(
            len(values[position]) <= MAX_JSON for position in _json_columns(self)
        )
        if not is_plausible or checksums.crc(*self._parts(values)) != row[-1]:
            raise damaged(self.name, row[0])
        return values

    def is_sound(self, row: Sequence[Any]) -> bool:
        """Return whether a row, given with its checksum at the end, is valid."""
        try:
            values = self.checked(row)
            if self.decode is not None:
                self.decode(values)
        except RetrieverError:
            return False
        return True


@lru_cache(maxsize=256)
def _listed(table: Table, alias: str) -> str:
    return ", ".join(f"{alias}.{name}" if alias else name for name in table.names)


# The types of a row differ only in which values are NULL, so there are few combinations, and
# nearly every row is answered from the cache.
@lru_cache(maxsize=256)
def _has_types(table: Table, found: tuple[type, ...]) -> bool:
    return len(found) == len(table.columns) and all(
        one is column.type or (column.null and one is type(None))
        for one, column in zip(found, table.columns, strict=True)
    )


@lru_cache(maxsize=64)
def _json_columns(table: Table) -> tuple[int, ...]:
    return tuple(position for position, column in enumerate(table.columns) if column.json)


def damaged(table: str, key: object, path: str = "") -> IndexCorrupt:
    """Return the error for a row whose checksum does not match."""
    return IndexCorrupt(
        f"Row {key} of table {table} is damaged: its checksum does not match.",
        path=path or "the index",
        check=f"crc:{table}",
        hint="Run `retriever verify` to see all damage and `retriever repair` to repair it.",
    )

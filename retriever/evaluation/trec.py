"""What `Qrels` and `Run`, and the readers of their files, share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Self, TypeAlias, TypeVar

from retriever import arguments
from retriever.errors import InvalidEvaluation
from retriever.evaluation.text_lines import lines_of, shown

LONGEST = 2**20
"""The most bytes of a line of a run or of qrels."""
_SUFFIXES = (".gz", ".trec", ".tsv", ".txt", ".run", ".qrels", ".res")

APART = "Pass the run and the qrels each in its own place."

N = TypeVar("N", int, float)
Ids: TypeAlias = tuple[bytes, bytes]
"""A query and a document, as a file has them."""


class ByQuery(Mapping[str, Mapping[str, N]], Generic[N]):
    """Numbers by document id by query id; immutable, equal if the numbers are."""

    __slots__ = ("_by_query", "name")
    _NUMBERS: ClassVar[str] = "document"
    _by_query: dict[str, dict[str, N]]
    name: str
    __hash__ = None  # type: ignore[assignment]  # as of any mapping

    def __init__(self, by_query: dict[str, dict[str, N]], name: str) -> None:
        if not isinstance(name, str):
            raise InvalidEvaluation(
                f"The name is {arguments.described(name)}.", hint="Pass a string."
            )
        self._by_query = by_query
        self.name = name

    @classmethod
    def _of_checked(cls, by_query: dict[str, dict[str, N]], name: str) -> Self:
        """Return one without the checks of `__init__`, which the readers of files have made."""
        made = cls.__new__(cls)
        ByQuery.__init__(made, by_query, name)
        return made

    def __getitem__(self, query_id: str) -> Mapping[str, N]:
        return MappingProxyType(self._by_query[query_id])

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_query)

    def __len__(self) -> int:
        return len(self._by_query)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ByQuery):
            return type(self) is type(other) and self._by_query == other._by_query
        return bool(self._by_query == other)

    def __repr__(self) -> str:
        queries = f"{len(self):,} quer{'y' if len(self) == 1 else 'ies'}"
        size = sum(map(len, self._by_query.values()))
        numbers = f"{size:,} {self._NUMBERS}{'' if size == 1 else 's'}"
        return f"<{type(self).__name__} {self.name!r}: {queries}, {numbers}>"


def name_of(path: str | os.PathLike[str]) -> str:
    """Return the name of a file without its folder and usual suffixes."""
    name = Path(path).name
    while Path(name).suffix.lower() in _SUFFIXES and Path(name).stem:
        name = Path(name).stem
    return name


def malformed(
    path: str | os.PathLike[str], number: int, line: bytes, exc: ValueError, fault: tuple[str, str]
) -> InvalidEvaluation:
    """Return the error for a line: an id is not UTF-8, or else it has the fault, with its hint."""
    what, hint = fault
    if isinstance(exc, UnicodeDecodeError):
        what = f"has an id that is not UTF-8: {shown(line)}."
        hint = "Convert the file, for instance with `iconv -f LATIN1 -t UTF-8`."
    return InvalidEvaluation(what, path=os.fspath(path), line=number, hint=hint)


def repeated(
    path: str | os.PathLike[str],
    number: int,
    ids: Ids,
    ids_of: Callable[[bytes], Ids | None],
    *,
    verb: str,
    hint: str,
) -> InvalidEvaluation:
    """Return the error for a document that occurs twice for a query; it names the first line.

    Args:
        path: The file. It is read again, unless it is a pipe: readers need not keep line numbers.
        number: The second line.
        ids: The query and the document.
        ids_of: Returns them for a line, or None for one without them.
        verb: What a line does with a document.
        hint: What to do.
    """
    first = ""
    if Path(path).is_file():
        with lines_of(path) as lines:
            found = (n for n, line in enumerate(lines, 1) if ids_of(line) == ids)
            first = next((f", after line {n}" for n in found), "")
    query, document = map(shown, ids)
    return InvalidEvaluation(
        f"{verb} document {document} for query {query} again{first}.",
        path=os.fspath(path),
        line=number,
        hint=hint,
    )


def is_number(field: bytes) -> bool:
    """Return whether a column is a number."""
    try:
        float(field)
    except ValueError:
        return False
    return True


def columns(fields: list[bytes]) -> str:
    """Return `1 column`, `5 columns`."""
    return f"{len(fields)} column{'' if len(fields) == 1 else 's'}"


def checked(
    given: Any,
    what: str,
    fields: tuple[str, str, str],
    number: Callable[[object, str], N],
) -> dict[str, dict[str, N]]:
    """Return numbers by document by query, from a mapping or from named tuples.

    Args:
        given: A mapping of mappings, or objects with the attributes `fields`.
        what: What a number is, for errors.
        fields: The names of the attributes: query, document, number.
        number: Checks a number; its second argument says whose it is.

    Raises:
        InvalidEvaluation: It is neither, an id is not a string or empty, a number is refused, or a
            document occurs twice for a query.
    """
    by_query: dict[str, dict[str, N]] = {}
    if not isinstance(given, Mapping):
        for query, document, value in _triples(given, what, fields):
            documents = by_query.setdefault(_id(query, "query"), {})
            if _id(document, "document") in documents:
                raise InvalidEvaluation(
                    f"Document {document!r} occurs twice for query {query!r}.",
                    hint=f"Keep one {what} for each document of a query.",
                )
            documents[document] = number(value, f"document {document!r} of query {query!r}")
        return by_query
    for query, documents in given.items():
        if not isinstance(documents, Mapping):
            raise InvalidEvaluation(
                f"The {what}s of query {query!r} are {arguments.described(documents)}.",
                hint=f"Pass {{query id: {{document id: {what}}}}}.",
            )
        by_query[_id(query, "query")] = {
            _id(document, "document"): number(value, f"document {document!r} of query {query!r}")
            for document, value in documents.items()
        }
    return by_query


def _triples(
    given: object, what: str, fields: tuple[str, str, str]
) -> Iterator[tuple[str, str, object]]:
    hint = f"Pass {{query id: {{document id: {what}}}}}, or tuples with the fields " + (
        ", ".join(fields) + ", as of ir-measures."
    )
    if not isinstance(given, Iterable) or isinstance(given, str | bytes):
        raise InvalidEvaluation(f"The {what}s are {arguments.described(given)}.", hint=hint)
    for one in given:
        try:
            query, document, value = (getattr(one, name) for name in fields)
        except AttributeError as exc:
            raise InvalidEvaluation(
                f"One of the {what}s is {arguments.described(one)}.", hint=hint
            ) from exc
        yield query, document, value


def _id(value: object, kind: str) -> str:
    if isinstance(value, str) and value:
        return value
    raise InvalidEvaluation(
        f"The id of a {kind} is {arguments.described(value)}.",
        hint="Ids are strings that are not empty; write '7' for 7.",
    )

"""Judgements of relevance (qrels), from TREC files, BEIR files and mappings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from retriever import arguments
from retriever.errors import InvalidEvaluation
from retriever.evaluation import trec
from retriever.evaluation.text_lines import lines_of, shown
from retriever.evaluation.trec import APART, ByQuery, Ids

_QUERY_HEADINGS = {b"query-id", b"query_id", b"queryid", b"query", b"qid", b"topic"}
_GRADE_HEADINGS = {b"score", b"grade", b"relevance", b"rel", b"label", b"judgement", b"judgment"}
MOST_GRADE = 1_000_000
"""The highest grade; trec_eval counts the documents of every grade up to the highest one."""

_COLUMNS = (
    "A line of TREC qrels is `query iteration document grade`; one of BEIR's is `query document "
    "grade`, with tabs."
)
_TWICE = "Keep one of the two lines. Judgements by subtopic cannot be used."


class Qrels(ByQuery[int]):
    """The grades of documents by query: a mapping `{query id: {document id: grade}}`.

    A grade of 0 is "judged, and not relevant". Grades below 0, which some TREC collections have,
    are not relevant either, and count as unjudged wherever trec_eval makes that difference. Qrels
    are immutable, and equal if their grades are. Safe from any thread.

    >>> Qrels({"1": {"a": 2, "b": 0}})["1"]["a"]
    2

    Args:
        judgements: Grades by document id by query id; or named tuples with the fields `query_id`,
            `doc_id` and `relevance`, such as those of `ir_measures.read_trec_qrels`.
        name: What reports call them.

    Raises:
        InvalidEvaluation: An id is not a string or is empty; a grade is not an integer, or above
            1,000,000; a query has no document; a document occurs twice.
    """

    __slots__ = ()
    _NUMBERS = "judgement"

    def __init__(
        self, judgements: Mapping[str, Mapping[str, int]] | Iterable[Any], *, name: str = "qrels"
    ) -> None:
        fields = ("query_id", "doc_id", "relevance")
        found = trec.checked(judgements, "grade", fields, _grade)
        empty = next((query for query, documents in found.items() if not documents), None)
        if empty is not None:
            raise InvalidEvaluation(
                f"Query {empty!r} has no judgements.",
                hint="Leave it out: means are taken over the queries of the qrels.",
            )
        super().__init__(found, name)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Qrels:
        """Read a file of TREC qrels, or of BEIR's (tabs, with or without a header).

        It may be gzipped. White space of any kind separates the columns of a TREC file. Ids are
        UTF-8. The name is the file's, without its suffix.

        Raises:
            InvalidEvaluation: A line is malformed, a document is judged twice for a query, or
                there is no judgement; the message has the file and the line.
            UnreadableFile: The file cannot be read.
        """
        grades: dict[str, dict[str, int]] = {}
        number = 0
        line = b""
        is_beir: bool | None = None
        path = arguments.path(path, "The path of the qrels")
        with lines_of(path, longest=trec.LONGEST) as lines:
            try:
                for number, line in enumerate(lines, 1):
                    if line.isspace():
                        continue
                    if is_beir is None:
                        is_beir = _is_beir(line)
                        if is_beir and _is_header(line):
                            continue
                    if is_beir:
                        query, document, grade = map(bytes.strip, line.split(b"\t"))
                        if not query or not document:
                            raise ValueError
                    else:
                        query, _, document, grade = line.split()
                    documents = grades.setdefault(query.decode(), {})
                    # Files have millions of lines; comparing sizes saves a look-up in each.
                    before = len(documents)
                    documents[document.decode()] = _read_grade(grade)
                    if len(documents) == before:
                        raise trec.repeated(
                            path, number, (query, document), _ids, verb="judges", hint=_TWICE
                        )
            except ValueError as exc:
                if isinstance(exc, InvalidEvaluation):
                    raise
                raise trec.malformed(path, number, line, exc, _fault(line, number)) from exc
        if not grades:
            raise InvalidEvaluation("holds no judgement.", path=os.fspath(path), hint=_COLUMNS)
        return cls._of_checked(grades, trec.name_of(path))


def _is_beir(first: bytes) -> bool:
    """Return whether a file begins as one of BEIR's; its ids may hold spaces."""
    if first.count(b"\t") != 2:
        return False
    fields = first.split()
    return len(fields) == 3 or not trec.is_number(fields[-1])


def _is_header(first: bytes) -> bool:
    """Return whether the first line of a BEIR file names the columns."""
    query, _, grade = (column.strip().lower() for column in first.split(b"\t"))
    return query in _QUERY_HEADINGS or grade in _GRADE_HEADINGS


def _read_grade(column: bytes) -> int:
    if b"_" in column:
        raise ValueError("not a number, but Python reads 1_0 as 10")
    try:
        grade = int(column)
    except ValueError:
        grade = _whole(float(column))  # 1.0, as data frames write it
    if abs(grade) > MOST_GRADE:
        raise ValueError("too high")
    return grade


def _whole(number: float) -> int:
    if not number.is_integer():
        raise ValueError("not an integer")
    return int(number)


def _grade(value: object, whose: str) -> int:
    grade = arguments.as_whole(value)
    if grade is not None and abs(grade) <= MOST_GRADE:
        return grade
    raise InvalidEvaluation(
        f"The grade of {whose} is {arguments.described(value)}.",
        hint="Grades are integers, 0 for a document that is not relevant, and 1,000,000 at most.",
    )


def _ids(line: bytes) -> Ids | None:
    fields = line.split(b"\t") if line.count(b"\t") == 2 else line.split()
    found = [field.strip() for field in fields]
    return (found[0], found[-2]) if len(found) > 2 else None


def _fault(line: bytes, number: int) -> tuple[str, str]:
    """Return what is wrong with a line that could not be read, and a hint."""
    fields = line.split()
    if len(fields) == 6 and trec.is_number(fields[4]):
        return f"looks like a line of a run, not of qrels: {shown(line)}.", f"{APART} {_COLUMNS}"
    if line.count(b"\t") == 2 and len(fields) == 2:
        return f"lacks an id or the grade: {shown(line)}.", _COLUMNS
    if len(fields) == 4 or line.count(b"\t") == 2:
        hint = f"Grades are integers of {MOST_GRADE:,} at most. {_COLUMNS}"
        if number == 1 and line.count(b"\t") == 2:
            hint += " Its header is `query-id corpus-id score`."
        return f"has the grade {shown(fields[-1])}.", hint
    return f"has {trec.columns(fields)}: {shown(line)}.", _COLUMNS

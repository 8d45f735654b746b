"""Runs: what a retriever found for each query, with scores, from and to TREC files."""

from __future__ import annotations

import contextlib
import gzip
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from retriever import arguments
from retriever.errors import InvalidEvaluation
from retriever.evaluation import trec
from retriever.evaluation.output_files import write_whole
from retriever.evaluation.text_lines import lines_of, shown
from retriever.evaluation.trec import APART, ByQuery, Ids

_COLUMNS = "A line of a TREC run is `query Q0 document rank score name`."
_TWICE = "Keep the better of the two lines: a run ranks each document once for a query."


class Run(ByQuery[float]):
    """The scores of documents by query: a mapping `{query id: {document id: score}}`.

    The order of a query's documents follows from their scores alone, as in trec_eval; see
    `ranking`. A query may have no documents. Runs are immutable, and equal if their scores are.
    Safe from any thread.

    >>> run = Run({"1": {"a": 0.5, "b": 0.7, "c": 0.5}}, name="mine")
    >>> run.ranking("1")
    ('b', 'c', 'a')

    Args:
        scores: Scores by document id by query id, higher is better; or named tuples with the
            fields `query_id`, `doc_id` and `score`, such as those of `ir_measures.read_trec_run`.
        name: What reports call it, and the last column of its file.

    Raises:
        InvalidEvaluation: An id is not a string or is empty; a score is not a finite number; a
            document occurs twice for a query.
    """

    __slots__ = ()

    def __init__(
        self, scores: Mapping[str, Mapping[str, float]] | Iterable[Any], *, name: str = "run"
    ) -> None:
        fields = ("query_id", "doc_id", "score")
        super().__init__(trec.checked(scores, "score", fields, _score), name)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Run:
        """Read a TREC run, which may be gzipped.

        White space of any kind separates the columns. Ids are UTF-8. The columns of the rank and
        of the name are not used, as in trec_eval. The name is the file's, without its suffix.

        Raises:
            InvalidEvaluation: A line is malformed, a score is not a finite number, a document
                occurs twice for a query, or there is no line; the message has the file and line.
            UnreadableFile: The file cannot be read.
        """
        scores: dict[str, dict[str, float]] = {}
        number = 0
        line = query = b""
        documents: dict[str, float] = {}
        path = arguments.path(path, "The path of the run")
        with lines_of(path, longest=trec.LONGEST) as lines:
            try:
                for number, line in enumerate(lines, 1):
                    fields = line.split()
                    if not fields:
                        continue
                    of, _, document, _, score, _ = fields
                    if of != query:  # once for most queries: their lines follow each other
                        query, documents = of, scores.setdefault(of.decode(), {})
                    # Files have millions of lines; comparing sizes saves a look-up in each.
                    before = len(documents)
                    documents[document.decode()] = value = float(score)
                    if not math.isfinite(value) or b"_" in score:  # Python reads 1_0 as 10
                        raise ValueError
                    if len(documents) == before:
                        raise trec.repeated(
                            path, number, (query, document), _ids, verb="has", hint=_TWICE
                        )
            except ValueError as exc:
                if isinstance(exc, InvalidEvaluation):
                    raise
                raise trec.malformed(path, number, line, exc, _fault(line)) from exc
        if not scores:
            raise InvalidEvaluation("holds no result.", path=os.fspath(path), hint=_COLUMNS)
        return cls._of_checked(scores, trec.name_of(path))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a TREC run, gzipped if the path ends in `.gz`, best documents first.

        Scores are written in full, so that `read` gives an equal run, but for queries without
        documents, which the format cannot hold. The file appears whole or not at all; one that was
        there is replaced.

        Raises:
            InvalidEvaluation: An id holds white space, which separates the columns, or is not text.
            OSError: The file cannot be written.
        """
        target = arguments.path(path, "The path of the run")
        try:
            text = "".join(self._lines()).encode()
        except UnicodeEncodeError as exc:
            line = exc.object[exc.object.rfind("\n", 0, exc.start) + 1 :].split("\n", 1)[0]
            raise InvalidEvaluation(
                f"UTF-8 cannot hold the ids of the line {arguments.shown(line)}.",
                hint="Replace the lone surrogates in the ids.",
            ) from exc
        if target.suffix == ".gz":
            text = gzip.compress(text, mtime=0)
        write_whole(target, text)

    def _lines(self) -> Iterator[str]:
        name = "_".join(self.name.encode("utf-8", "replace").decode().split()) or "run"
        for query in self:
            _require_one_word(query, "query")
            scores = self[query]
            for rank, document in enumerate(self.ranking(query), 1):
                _require_one_word(document, "document")
                yield f"{query} Q0 {document} {rank} {scores[document]!r} {name}\n"

    def ranking(self, query_id: str) -> tuple[str, ...]:
        """Return the ids of a query's documents, best first, in trec_eval's order.

        trec_eval holds scores in float32, so scores that differ by less than about 6e-8 of their
        size are ties; ties are in descending order of the document ids' bytes.

        Raises:
            KeyError: The run does not have the query.
        """
        scores = self._by_query[query_id]
        with np.errstate(over="ignore"):  # beyond float32 they are infinite there too
            rounded = np.fromiter(scores.values(), dtype=np.float64).astype(np.float32).tolist()
        # Code points sort as the bytes of UTF-8 do.
        return tuple(
            document for _, document in sorted(zip(rounded, scores, strict=True), reverse=True)
        )


def _require_one_word(value: str, kind: str) -> None:
    if len(value.split()) != 1 or value.split()[0] != value:
        raise InvalidEvaluation(
            f"The id of the {kind} {value!r} holds white space, which separates the columns of a "
            "TREC run.",
            hint="Replace the white space in the ids.",
        )


def _score(value: object, whose: str) -> float:
    number = math.nan
    if arguments.is_number(value):
        with contextlib.suppress(OverflowError):  # of an int
            number = float(value)  # type: ignore[arg-type]
    if math.isfinite(number):
        return number
    raise InvalidEvaluation(
        f"The score of {whose} is {arguments.described(value)}.",
        hint="Scores are finite numbers, and higher is better.",
    )


def _ids(line: bytes) -> Ids | None:
    fields = line.split()
    return (fields[0], fields[2]) if len(fields) == 6 else None


def _fault(line: bytes) -> tuple[str, str]:
    """Return what is wrong with a line that could not be read, and a hint."""
    fields = line.split()
    if len(fields) == 6:
        hint = f"Scores are finite numbers, and higher is better. {_COLUMNS}"
        return f"has the score {shown(fields[4])}.", hint
    if len(fields) in (3, 4) and (trec.is_number(fields[-1]) or line.count(b"\t") == 2):
        return f"looks like a line of qrels, not of a run: {shown(line)}.", f"{APART} {_COLUMNS}"
    hint = f"Ids and names hold no white space. {_COLUMNS}" if len(fields) > 6 else _COLUMNS
    return f"has {trec.columns(fields)}: {shown(line)}.", hint

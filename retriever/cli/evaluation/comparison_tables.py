"""A comparison of runs as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, takewhile
from typing import TYPE_CHECKING

import click

from retriever.cli import output
from retriever.cli.passages import cells

if TYPE_CHECKING:
    from retriever.evaluation import Comparison, Difference, QueryScores

_GAP = "  "
_LONGEST_ID = 24
# A text for which less room is left on the line is put on a line of its own.
_LEAST_TEXT = 24


class Tables:
    """The tables of one comparison; runs are named by letters, so that rows stay short.

    Args:
        comparison: What `compare` returned.
        texts: The texts of queries by id.
    """

    def __init__(self, comparison: Comparison, texts: Mapping[str, str]) -> None:
        from retriever.evaluation import labels

        self._comparison = comparison
        self._texts = texts
        self._names = labels.labels(comparison.runs)
        self._letters = labels.letters(comparison.runs)

    def lines(self, *, hardest: int, per_query: bool) -> Iterator[str]:
        """Yield the lines of every table.

        Args:
            hardest: How many of the hardest, and of the most different queries.
            per_query: Whether to list every query.
        """
        from retriever.evaluation import comparison_report

        for measure in self._comparison.measures:
            yield from self._means(measure)
            yield ""
            yield from self._differences(measure)
            yield ""
        yield from _wrapped(comparison_report.notes(self._comparison))
        first = self._comparison.measures[0]
        if hard := self._comparison.hardest(hardest):
            yield from self._queries(f"Hardest queries by {first}", hard)
        if moved := self._comparison.most_different(hardest):
            yield from self._queries(f"Greatest differences by {first}", moved)
        if per_query:
            for measure in self._comparison.measures:
                yield from self._queries(
                    f"Every query by {measure}", self._comparison.per_query(measure)
                )

    def _means(self, measure: str) -> Iterator[str]:
        found = self._comparison
        mark = max(map(len, self._letters.values()))
        room = output.width() - mark - 31
        names = {run: _shortened(self._names[run], room) for run in found.runs}
        longest = max(len("run"), *map(cells, names.values()))
        count = len(found.queries)
        yield _heading(f"{measure} over {count:,} {'query' if count == 1 else 'queries'}")
        yield click.style(
            f"{'':{mark}}{_GAP}{'run':{longest}}{_GAP}  mean{_GAP}95 % interval", dim=True
        )
        for run, evaluation in found.evaluations.items():
            low, high = evaluation.intervals[measure]
            yield (
                f"{self._letters[run]:{mark}}{_GAP}{_padded(names[run], longest)}{_GAP}"
                f"{evaluation.measures[measure]:.4f}{_GAP}{low:.4f} to {high:.4f}"
            )

    def _differences(self, measure: str) -> Iterator[str]:
        from retriever.evaluation.comparison_report import verdict_of

        found = self._comparison.of(measure)
        rows = [self._cells(one) for one in found]
        p = "p" if len(self._comparison.differences) == 1 else "p (Holm)"
        head = ("pair", "Δ mean", "95 % interval", p, "+/=/−")
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        verdicts = [verdict_of(one, self._letters) for one in found]
        longest = len(_row(head, widths)) + len(_GAP) + max(map(len, verdicts))
        is_wide = longest <= output.width()
        if is_wide:
            yield click.style(_row(head, widths) + f"{_GAP}verdict", dim=True)
        for one, row, verdict in zip(found, rows, verdicts, strict=True):
            if one.is_significant:
                verdict = click.style(verdict, fg="green" if one.difference > 0 else "red")
            if is_wide:
                yield f"{_row(row, widths)}{_GAP}{verdict}"
                continue
            yield f"{row[0]}{_GAP}{verdict}"
            for name, cell in zip(head[1:], row[1:], strict=True):
                yield f"{_GAP}{click.style(f'{name:13}', dim=True)} {cell}"

    def _cells(self, one: Difference) -> Sequence[str]:
        from retriever.evaluation.labels import signed

        low, high = one.interval
        p = "<0.0001" if one.p_corrected < 0.0001 else f"{one.p_corrected:.4f}"
        return (
            f"{self._letters[one.run]} − {self._letters[one.baseline]}",
            signed(one.difference),
            f"{signed(low, 3)} to {signed(high, 3)}",
            p,
            f"{one.wins}/{one.ties}/{one.losses}",
        )

    def _queries(self, title: str, queries: Sequence[QueryScores]) -> Iterator[str]:
        ids = {
            one.query_id: _shortened(output.in_one_line(one.query_id), _LONGEST_ID)
            for one in queries
        }
        longest = max(len("query"), *map(cells, ids.values()))
        runs = _GAP.join(f"{letter:>6}" for letter in self._letters.values())
        yield ""
        yield _heading(title)
        yield click.style(f"{'query':{longest}}{_GAP}{runs}", dim=True)
        for one in queries:
            scores = _GAP.join(f"{score:.4f}" for score in one.scores.values())
            line = f"{_padded(ids[one.query_id], longest)}{_GAP}{scores}"
            text = output.in_one_line(self._texts.get(one.query_id, ""))
            room = output.width() - cells(line) - len(_GAP)
            if text and room >= _LEAST_TEXT:
                yield f"{line}{_GAP}{_cut(text, room)}"
                continue
            yield line
            if text:
                yield f"{_GAP}{_cut(text, output.width() - len(_GAP))}"


def _heading(text: str) -> str:
    return click.style(text, bold=True)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    return _GAP.join([first, *others])


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cells(text))


def _shortened(text: str, columns: int) -> str:
    """Return text with its middle replaced by `…` if it is too long: names often begin alike."""
    visible = output.in_one_line(text)
    if cells(visible) <= columns:
        return visible
    end = _first(visible[::-1], (columns - 1) // 2)[::-1]
    return f"{_first(visible, columns - 1 - cells(end))}…{end}"


def _cut(text: str, columns: int) -> str:
    return text if cells(text) <= columns else f"{_first(text, columns - 1)}…"


def _first(text: str, columns: int) -> str:
    """Return as much of the beginning of a text as fits some columns of a terminal."""
    taken = takewhile(lambda used: used <= columns, accumulate(map(cells, text)))
    return text[: sum(1 for _ in taken)]


def _wrapped(text: str) -> list[str]:
    return click.wrap_text(output.in_one_line(text), output.width()).splitlines()

"""Means of measures as a table for a terminal: a row for each run, a column for each measure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from retriever.cli import inspect, output
from retriever.cli.passages import cells

_GAP = "  "
_LONGEST_LABEL = 32  # with it, three measures and their intervals fit in 80 columns
_LEAST_WIDTH = 6

Interval = tuple[float, float]


def of_one(measures: Mapping[str, float], intervals: Mapping[str, Interval]) -> Iterator[str]:
    """Yield the lines of a table of one run: a row for each measure."""
    means = {name: _figure(name, mean) for name, mean in measures.items()}
    first = max(len("measure"), *map(len, measures))
    widest = max(_LEAST_WIDTH, *map(len, means.values()))
    yield click.style(f"{'measure':{first}}{_GAP}{'mean':>{widest}}   95 % interval", bold=True)
    for name, (low, high) in intervals.items():
        ends = f"{_figure(name, low)} to {_figure(name, high)}"
        yield f"{name:{first}}{_GAP}{means[name]:>{widest}}   {ends}"


def lines(
    heading: str,
    rows: Mapping[str, Mapping[str, float]],
    intervals: Mapping[str, Mapping[str, Interval]] | None = None,
) -> Iterator[str]:
    """Yield the lines of a table; measures that do not fit beside each other are put below.

    Args:
        heading: The heading of the column of labels.
        rows: Figures by measure, by label; every row has the same measures.
        intervals: Their intervals, shown below each row in the same way.
    """
    measures = list(next(iter(rows.values())))
    texts = {
        name: {label: _figure(name, row[name]) for label, row in rows.items()} for name in measures
    }
    bounds: dict[str, dict[str, str]] = {}
    if intervals:
        for name in measures:
            ends = {label: row[name] for label, row in intervals.items()}
            bounds[name] = {
                label: f"{_figure(name, low, 3)} to {_figure(name, high, 3)}"
                for label, (low, high) in ends.items()
            }
    widths = {
        name: max(
            _LEAST_WIDTH,
            len(name),
            *map(len, texts[name].values()),
            *map(len, bounds.get(name, {}).values()),
        )
        for name in measures
    }
    room = output.width() - len(_GAP) - max(widths.values())
    shown = _labels(rows, max(_LEAST_WIDTH, min(room, _LONGEST_LABEL)))
    first = max(map(cells, [heading, *shown.values()]))
    for number, panel in enumerate(_panels(widths, output.width() - first)):
        if number:
            yield ""
        head = _row({name: name for name in panel}, widths)
        yield click.style(_padded(heading, first) + head, bold=True)
        for label in rows:
            yield _padded(shown[label], first) + _row(
                {name: texts[name][label] for name in panel}, widths
            )
            if bounds:
                below = _row({name: bounds[name][label] for name in panel}, widths)
                yield click.style(" " * first + below, dim=True)


def made_with(settings: Mapping[str, Any]) -> Iterator[str]:
    """Return lines that say what the figures of an index are of."""
    from retriever.config import Chunking

    model = output.in_one_line(str(settings["model"].get("name") or "of the caller"))
    chunking = ", ".join(inspect.chunking_facts(Chunking(**settings["chunking"])))
    asked = settings["options"]
    how = f" ({asked['fusion']}, weight {asked['weight']:g})" if asked["mode"] == "hybrid" else ""
    yield f"Mode {asked['mode']}{how}; model {model}."
    yield f"Chunking: {chunking}."


def _figure(name: str, value: float, digits: int = 4) -> str:
    from retriever.evaluation.measures import is_total

    return f"{value:,.0f}" if is_total(name) else f"{value:.{digits}f}"


def _panels(widths: Mapping[str, int], room: int) -> Iterator[list[str]]:
    panel: list[str] = []
    used = 0
    for name, width in widths.items():
        used += len(_GAP) + width
        if panel and used > room:
            yield panel
            panel, used = [], len(_GAP) + width
        panel.append(name)
    yield panel


def _row(texts: Mapping[str, str], widths: Mapping[str, int]) -> str:
    return "".join(f"{_GAP}{text:>{widths[name]}}" for name, text in texts.items())


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cells(text))


def _labels(labels: Iterable[str], longest: int) -> dict[str, str]:
    """Return labels that fit: without the folders if they can be told apart, or their ends."""
    shown = {label: output.in_one_line(label) for label in labels}
    if max(map(cells, shown.values())) > longest:
        last = {label: text.rstrip("/").rpartition("/")[2] for label, text in shown.items()}
        if len(set(last.values())) == len(last):
            shown = last
    return {label: _end(text, longest) for label, text in shown.items()}


def _end(text: str, longest: int) -> str:
    if cells(text) <= longest:
        return text
    while cells(text) >= longest:
        text = text[1:]
    return f"…{text}"

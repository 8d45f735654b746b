"""Draws a comparison of runs; the only module that imports matplotlib.

The same comparison gives the same bytes, with one version of matplotlib: nothing in the file comes
from the clock, the environment or the user's own settings, and no display is needed.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever import arguments
from retriever.errors import InvalidEvaluation, MissingDependency
from retriever.evaluation.labels import labels, p_value, signed
from retriever.evaluation.output_files import write_whole

if TYPE_CHECKING:
    from retriever.evaluation.comparison import Comparison, Difference

SUFFIXES = (".png", ".svg")

# Blue and vermilion of M. Okabe and K. Ito's palette, which people of any colour vision tell apart.
_BETTER, _WORSE, _INK, _FAINT = "#0072B2", "#D55E00", "#222222", "#BBBBBB"
_WIDTH_IN = 9.0
_SMALL = 7.5
_LINES = 3
_PANELS_IN_A_ROW = 3
# More steps than this are finer than the pixels of a panel.
_STEPS = 1_000
_FONT = "DejaVu Sans"  # comes with matplotlib
# For the characters that it lacks, if one of these is installed.
_OTHER_FONTS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Hiragino Sans", "Arial Unicode MS")
_SETTINGS: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _INK,
    "text.color": _INK,
    "text.parse_math": False,  # `$` in the name of a run is a dollar sign
    "svg.hashsalt": "retriever",
    "savefig.dpi": 150,
}


def check(path: str | os.PathLike[str]) -> None:
    """Check that a plot can be drawn to a file of that name.

    Raises:
        InvalidEvaluation: The name does not end in .png or .svg.
        MissingDependency: The extra `eval` is not installed.
    """
    if arguments.path(path, "The path of the plot").suffix.lower() not in SUFFIXES:
        raise InvalidEvaluation(
            f"The plot cannot be written to {os.fspath(path)!r}: the name does not end in .png or "
            ".svg.",
            hint="Choose a name that ends in .png or .svg.",
        )
    _matplotlib()


def plot(
    comparison: Comparison, path: str | os.PathLike[str], *, measure: str | None = None
) -> None:
    """Draw the means with their intervals, and under them the difference for every query.

    The differences are those from the baseline; without one, from the first run.

    Args:
        comparison: What `compare` returned.
        path: The file, which ends in .png or .svg; one that is there is replaced.
        measure: The name of one of the measures; the first if left out.

    Raises:
        InvalidEvaluation: The name of the file or of the measure is wrong.
        MissingDependency: The extra `eval` is not installed.
        OSError: The file cannot be written.
    """
    check(path)
    chosen = comparison.measures[0] if measure is None else measure
    if chosen not in comparison.measures:
        raise InvalidEvaluation(
            f"The runs were not compared by {chosen!r}.",
            hint=f"Pass one of these: {', '.join(comparison.measures)}.",
        )
    matplotlib = _matplotlib()
    suffix = Path(path).suffix.lower()
    drawn = io.BytesIO()
    # A glyph that the font lacks is drawn as a box, which the reader sees without a warning.
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore")
        matplotlib.rcdefaults()
        installed = set(matplotlib.font_manager.get_font_names())
        fonts = [_FONT, *(name for name in _OTHER_FONTS if name in installed)]
        matplotlib.rcParams.update({**_SETTINGS, "font.family": fonts})
        figure = _figure(comparison, chosen)
        date = {"Date": None} if suffix == ".svg" else {}
        figure.savefig(drawn, format=suffix[1:], metadata=date)
    write_whole(path, drawn.getvalue())


def _matplotlib() -> Any:
    try:
        import matplotlib.figure
        import matplotlib.font_manager
    except ImportError as exc:
        raise MissingDependency(
            f"A plot needs matplotlib: {exc}.",
            extra="eval",
            hint="`pip install 'retriever-engine[eval]'`.",
        ) from exc
    return matplotlib


def _figure(comparison: Comparison, measure: str) -> Any:
    runs, names = comparison.runs, labels(comparison.runs)
    baseline = comparison.baseline or runs[0]
    pairs = [one for one in comparison.of(measure) if one.baseline == baseline]
    columns = min(_PANELS_IN_A_ROW, len(pairs))
    rows = -(-len(pairs) // columns)
    longest = max(len(_wrapped(names[run], 40).splitlines()) for run in runs)
    heights = [0.7 + len(runs) * (0.18 + 0.14 * longest), 0.5 + 2.6 * rows]
    figure = _matplotlib().figure.Figure(figsize=(_WIDTH_IN, sum(heights)), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=heights)
    _draw_means(top.subplots(), comparison, measure, names)
    bottom.suptitle(
        f"Difference from {_wrapped(names[baseline], 70)}, query by query, sorted",
        fontsize=10,
        fontweight="bold",
    )
    panels = bottom.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    scores = dict(zip(runs, comparison.scores(measure).T, strict=True))
    for axes, one in zip(panels, pairs, strict=False):
        _draw_differences(axes, scores[one.run] - scores[baseline], one, names)
    for number, axes in enumerate(panels):
        axes.set_visible(number < len(pairs))
        axes.tick_params(labelbottom=number + columns >= len(pairs))
    bottom.supylabel(f"difference in {measure}", fontsize=9)
    bottom.supxlabel(
        "queries, from the best for the run to the worst\n"
        "dashed: the mean difference; grey: its 95 % interval",
        fontsize=9,
    )
    return figure


def _draw_means(axes: Any, comparison: Comparison, measure: str, names: dict[str, str]) -> None:
    """Draw each run's mean as a point and its interval as a line."""
    places = np.arange(len(comparison.runs))[::-1]
    for place, run in zip(places, comparison.runs, strict=True):
        evaluation = comparison.evaluations[run]
        low, high = evaluation.intervals[measure]
        mean = evaluation.measures[measure]
        axes.plot([low, high], [place, place], color=_BETTER, linewidth=2, solid_capstyle="butt")
        axes.plot([mean], [place], marker="o", markersize=6, color=_BETTER)
        axes.annotate(
            f"{mean:.4f}",
            (mean, place),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=_SMALL,
        )
    axes.set_yticks(places, [_wrapped(names[run], 40) for run in comparison.runs])
    axes.set_ylim(-0.6, len(places) - 0.3)
    axes.set_xlabel(f"mean {measure} and 95 % interval")
    axes.grid(axis="x", color=_FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    name = next(iter(comparison.evaluations.values())).qrels.name
    axes.set_title(
        _wrapped(f"{measure} over the {len(comparison.queries):,} queries of the qrels {name}", 90),
        fontsize=10,
        fontweight="bold",
    )


def _draw_differences(axes: Any, values: Any, one: Difference, names: dict[str, str]) -> None:
    """Draw the differences of all queries, sorted, over the interval of their mean."""
    ranked = np.sort(values)[::-1]
    count = len(ranked)
    if count > _STEPS:
        ranked = ranked[np.linspace(0, count - 1, _STEPS).round().astype(int)]
    edges = np.linspace(0, count, len(ranked) + 1)
    axes.axhspan(*one.interval, color=_FAINT, alpha=0.5, linewidth=0)
    axes.axhline(one.difference, color=_INK, linewidth=0.8, linestyle="--")
    axes.stairs(np.maximum(ranked, 0), edges, fill=True, color=_BETTER)
    axes.stairs(np.minimum(ranked, 0), edges, fill=True, color=_WORSE)
    axes.axhline(0, color=_INK, linewidth=0.8)
    axes.set_xlim(0, count)
    axes.xaxis.get_major_locator().set_params(integer=True)
    low, high = one.interval
    # Between the title and the axes, where no bar is.
    axes.annotate(
        f"{signed(one.difference)} ({signed(low, 3)} to {signed(high, 3)})\n"
        f"{one.verdict} (p {p_value(one.p_corrected)})\n"
        f"better {one.wins:,} · equal {one.ties:,} · worse {one.losses:,}",
        (0.5, 1),
        xycoords="axes fraction",
        xytext=(0, 4),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=_SMALL,
    )
    axes.set_title(_wrapped(names[one.run], 32), fontweight="bold", pad=6 + 3 * 1.3 * _SMALL)


def _wrapped(text: str, width: int) -> str:
    """Return text on at most three lines of some characters.

    Names of runs have few spaces, so lines end after any punctuation, or at the width. Of a longer
    name the middle is left out: names of one experiment often differ at their ends.
    """
    lines = [""]
    # matplotlib fails on lone surrogates, which stand for bytes in names of files that are no text.
    drawn = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    for piece in re.findall(rf"[^-_/.,\s]{{1,{width}}}[-_/.,]*\s?|[-_/.,\s]", drawn):
        if len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    kept = lines if len(lines) <= _LINES else [*lines[:1], f"…{lines[-2]}", lines[-1]]
    return "\n".join(line.strip() for line in kept)

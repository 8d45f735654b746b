"""Means with intervals, paired differences, and the tables of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retriever.evaluation.statistics import intervals

from ..tables import interval, show
from .scoring import BUDGETS, NDCG, RECALL

if TYPE_CHECKING:
    from .scoring import Scores
    from .sources import Source

ANSWER = "answer@4000"


def show_source(source: Source, found: Sequence[Scores], base: str) -> dict[str, Any]:
    """Print what the systems find of a collection, and their differences from one of them.

    Returns:
        The same figures, unrounded, for a report.
    """
    measures = [name for name in (*RECALL, ANSWER, NDCG) if name in found[0].values]
    clusters = source.clusters
    report: dict[str, Any] = {"questions": len(source.questions), "systems": {}}
    means = {one.system: _means(one, measures, clusters) for one in found}
    what = (
        f"{source.name}: {len(source.documents):,} documents, {len(source.questions):,} questions"
    )
    titles = [_title(name) for name in measures]
    rows = [
        [one.system, f"{one.chunks:,}", f"{one.tokens:,}"]
        + [interval(mean, (low, high)) for mean, low, high in means[one.system]]
        for one in found
    ]
    show(what, ["cut by", "chunks", "tokens encoded", *titles], rows, *_notes(source, found))
    reference = next((one for one in found if one.system == base), None)
    if reference is not None and len(found) > 1:
        show(
            f"{source.name}: differences from {base}; `*`: the 95 % interval leaves out 0",
            ["cut by", "chunks", *titles],
            [
                _differences(one, reference, measures, clusters)
                for one in found
                if one.system != base
            ],
        )
    for one in found:
        everything = {name: float(column.mean()) for name, column in one.values.items()}
        report["systems"][one.system] = {
            "chunks": one.chunks,
            "tokens": one.tokens,
            "beyond": one.beyond,
            "lost": one.lost,
            "cut_seconds": one.cut_seconds,
            "means": everything,
            "intervals": {
                name: [low, high]
                for name, (_, low, high) in zip(measures, means[one.system], strict=True)
            },
        }
    return report


def show_equal(source: Source, ours: Sequence[Scores], peers: Sequence[Scores]) -> None:
    """Print, for each peer, the fewest chunks with which this package's chunker finds as much."""
    rows = []
    for peer in peers:
        row: list[object] = [peer.system, f"{peer.chunks:,}"]
        for measure in RECALL:
            level = peer.values[measure].mean()
            enough = [one for one in ours if one.values[measure].mean() >= level]
            least = min(enough, key=lambda one: one.chunks, default=None)
            row.append(f"{least.chunks:,} ({least.system})" if least else "none")
        rows.append(row)
    show(
        f"{source.name}: the fewest chunks with which one of the rows of `retriever` above reaches "
        "a peer's recall",
        ["peer", "its chunks", *(_title(name) for name in RECALL)],
        rows,
    )


def show_kinds(source: Source, found: Sequence[Scores]) -> None:
    """Print the recall of questions of each kind, by what their answers are made of."""
    kinds = np.array([question.kind for question in source.questions])
    names = sorted(set(kinds))
    within = (RECALL[0], RECALL[2])
    show(
        f"{source.name}: by what the answer is made of",
        ["cut by", *(f"{kind}, {_title(measure)}" for kind in names for measure in within)],
        [
            [
                one.system,
                *(
                    interval(float(one.values[measure][kinds == kind].mean()), None, 3)
                    for kind in names
                    for measure in within
                ),
            ]
            for one in found
        ],
        "Questions: " + ", ".join(f"{np.sum(kinds == kind)} {kind}" for kind in names) + ".",
    )


def _title(measure: str) -> str:
    name, _, at = measure.partition("@")
    if name == "recall":
        return f"recall in {int(at):,}"
    return f"answer whole in {int(at):,}" if name == "answer" else measure


def _means(
    scores: Scores, measures: Sequence[str], clusters: Sequence[str]
) -> list[tuple[float, float, float]]:
    columns = np.stack([scores.values[name] for name in measures], axis=1)
    ends = intervals(columns, clusters=clusters)
    return [
        (float(m), float(a), float(b)) for m, (a, b) in zip(columns.mean(axis=0), ends, strict=True)
    ]


def _differences(
    scores: Scores, base: Scores, measures: Sequence[str], clusters: Sequence[str]
) -> list[str]:
    columns = np.stack([scores.values[name] - base.values[name] for name in measures], axis=1)
    ends: NDArray[np.float64] = intervals(columns, clusters=clusters)
    cells = [scores.system, f"{scores.chunks - base.chunks:+,}"]
    for mean, (low, high) in zip(columns.mean(axis=0), ends, strict=True):
        mark = "*" if low > 0 or high < 0 else ""
        cells.append(f"{_signed(mean)} ({_signed(low)} to {_signed(high)}){mark}")
    return cells


def _signed(value: float) -> str:
    shown = f"{value:+.3f}".replace("0.", ".")
    return ".000" if shown in ("+.000", "-.000") else shown.replace("-", "−")


def _notes(source: Source, found: Sequence[Scores]) -> list[str]:
    notes = []
    if source.has_spans:
        budgets = ", ".join(f"{budget:,}" for budget in BUDGETS)
        notes.append(
            f"Recall is the share of the marked answers' characters within the first {budgets} "
            "characters of the ranked chunks. Intervals: 95 %, bootstrap over documents "
            f"({len(set(source.clusters))})."
        )
    else:
        notes.append("Intervals: 95 %, bootstrap over questions.")
    if long := [f"{one.system} {one.beyond:,}" for one in found if one.beyond]:
        notes.append(
            f"Tokens beyond the encoder's window, which no vector has seen: {', '.join(long)}."
        )
    if lost := [f"{one.system} {one.lost:,}" for one in found if one.lost]:
        notes.append(
            f"Chunks left out, because their text is not in the document: {', '.join(lost)}."
        )
    return notes

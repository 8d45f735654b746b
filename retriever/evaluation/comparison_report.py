"""Writes a comparison of runs as Markdown, for a report."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from retriever.evaluation.comparison import LEVEL, Comparison, Difference, QueryScores
from retriever.evaluation.labels import labels, letters, p_value, signed

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~$])")


def to_markdown(
    comparison: Comparison,
    *,
    texts: Mapping[str, str] | None = None,
    hardest: int = 5,
    per_query: bool = False,
) -> str:
    """Return a comparison as Markdown: means, differences, and the queries that explain them.

    Args:
        comparison: What `compare` returned.
        texts: The texts of queries by id, printed beside the ids.
        hardest: How many of the hardest and how many of the most different queries to list, by
            the first measure.
        per_query: Whether to list the scores of every query, by every measure.
    """
    known = texts or {}
    blocks = [
        f"## Comparison of {len(comparison.runs)} runs over {len(comparison.queries):,} queries "
        f"of the qrels {_escaped(next(iter(comparison.evaluations.values())).qrels.name)}",
        _means(comparison),
        *(_differences(comparison, measure) for measure in comparison.measures),
        notes(comparison),
    ]
    first = comparison.measures[0]
    hard, moved = comparison.hardest(hardest), comparison.most_different(hardest)
    if hard:
        blocks += [f"### Hardest queries by {first}", _queries(comparison, hard, known)]
    if hardest and moved:
        blocks += [f"### Greatest differences by {first}", _queries(comparison, moved, known)]
    if per_query:
        for measure in comparison.measures:
            scores = comparison.per_query(measure)
            blocks += [f"### Every query by {measure}", _queries(comparison, scores, known)]
    return "\n\n".join(blocks) + "\n"


def notes(comparison: Comparison) -> str:
    """Return how the figures were computed, and what they could have shown, as sentences."""
    tests = len(comparison.differences)
    holm = "" if tests == 1 else f", corrected by Holm's procedure for {tests} comparisons"
    sentences = [
        f"p-values: two-sided paired randomisation tests{holm}; significant is p ≤ {LEVEL}.",
        "Intervals: 95 % bootstrap (BCa) over queries, not corrected.",
        *(detectable(comparison, measure) for measure in comparison.measures),
        *missing(comparison),
    ]
    return " ".join(sentence for sentence in dict.fromkeys(sentences) if sentence)


def detectable(comparison: Comparison, measure: str) -> str:
    """Return a sentence on the smallest difference that the queries were likely to show."""
    found = [one for one in comparison.of(measure) if not one.is_significant]
    if not found:
        return ""
    low, high = (pick(one.detectable for one in found) for pick in (min, max))
    if high == 0:
        return ""
    if high == float("inf"):
        count = len(comparison.queries)
        if count == 1:
            return "One query cannot show a difference."
        tests = len(comparison.differences)
        among = "" if tests == 1 else f" in {tests} comparisons"
        return f"{count} queries cannot show a difference{among}, however large it is."
    size = f"{high:.3f}" if f"{low:.3f}" == f"{high:.3f}" else f"{low:.3f} to {high:.3f}"
    return (
        f"No significant difference does not mean equal: these {len(comparison.queries):,} queries "
        f"would show a true difference of {size} in {measure} in four of five cases, and smaller "
        "ones less often."
    )


def missing(comparison: Comparison) -> list[str]:
    """Return a sentence for each run that has no results for some queries."""
    names = labels(comparison.runs)
    total = len(comparison.queries)
    return [
        f"{names[run]} has no results for {len(one.missing):,} of {total:,} queries; they count "
        "as 0."
        for run, one in comparison.evaluations.items()
        if one.missing
    ]


# --- tables ----------------------------------------------------------------------------------


def _means(comparison: Comparison) -> str:
    names, marks = labels(comparison.runs), letters(comparison.runs)
    rows = []
    for run, evaluation in comparison.evaluations.items():
        cells = [marks[run], _escaped(names[run])]
        for measure in comparison.measures:
            low, high = evaluation.intervals[measure]
            cells.append(f"{evaluation.measures[measure]:.4f} ({low:.4f} to {high:.4f})")
        rows.append(cells)
    head = ["", "run", *(f"{_escaped(one)} (95 % interval)" for one in comparison.measures)]
    return _table(head, rows, "ll")


def _differences(comparison: Comparison, measure: str) -> str:
    marks = letters(comparison.runs)
    head = [
        _escaped(measure),
        "difference (95 % interval)",
        "p",
        "p corrected",
        "wins / ties / losses",
        "detectable difference",
        "verdict",
    ]
    rows = [_row(one, marks) for one in comparison.of(measure)]
    return _table(head, rows, "lrrrrrl")


def _row(one: Difference, marks: Mapping[str, str]) -> list[str]:
    low, high = one.interval
    verdict = verdict_of(one, marks)
    return [
        f"{marks[one.run]} − {marks[one.baseline]}",
        f"{signed(one.difference)} ({signed(low)} to {signed(high)})",
        p_value(one.p).removeprefix("= "),
        p_value(one.p_corrected).removeprefix("= "),
        f"{one.wins:,} / {one.ties:,} / {one.losses:,}",
        "–" if one.detectable == float("inf") else f"{one.detectable:.4f}",
        f"**{verdict}**" if one.is_significant else verdict,
    ]


def verdict_of(one: Difference, marks: Mapping[str, str]) -> str:
    """Return `B is better`, or that there is no significant difference."""
    if not one.is_significant:
        return one.verdict
    return f"{marks[one.run if one.difference > 0 else one.baseline]} is better"


def _queries(
    comparison: Comparison, queries: Iterable[QueryScores], texts: Mapping[str, str]
) -> str:
    marks = letters(comparison.runs)
    listed = list(queries)
    has_text = any(one.query_id in texts for one in listed)
    rows = []
    for one in listed:
        cells = [_escaped(one.query_id)]
        if has_text:
            cells.append(_escaped(texts.get(one.query_id, "")))
        rows.append([*cells, *(f"{score:.4f}" for score in one.scores.values())])
    head = ["query", *(["text"] if has_text else []), *marks.values()]
    return _table(head, rows, "ll" if has_text else "l")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], sides: str) -> str:
    """Return a table; `sides` says of the first columns whether they are `l`eft or `r`ight."""
    rule = ["---" if side == "l" else "---:" for side in sides.ljust(len(head), "r")]
    return "\n".join(_lines([head, rule, *rows]))


def _lines(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for cells in rows:
        yield f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))

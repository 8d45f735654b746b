"""Print the reports of `index` and `rebuild`, for people or as JSON."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from retriever.cli import naming, output

if TYPE_CHECKING:
    from retriever.cli.options import Settings
    from retriever.reports import IngestReport
    from retriever.types import FileOutcome

_SHOWN_FILES = 20
_SHOWN_DOUBTFUL = 5
_FEW_FILES = 3


def print_index_report(
    settings: Settings, paths: tuple[str, ...], report: IngestReport, *, created: bool
) -> None:
    """Print what `retriever index` did."""
    if settings.as_json:
        answer = {
            "schema": 1,
            "index": os.fspath(settings.path),
            "paths": list(paths),
            "created": created,
        }
        output.say_json({**answer, **report.to_dict()})
    elif not settings.quiet:
        output.say_lines(
            _index_lines(settings, report, created=created, from_input=paths == ("-",))
        )


def _index_lines(
    settings: Settings, report: IngestReport, *, created: bool, from_input: bool
) -> Iterator[str]:
    changes = report.added + report.replaced + report.removed
    where = naming.shown(os.fspath(settings.path))
    if created:
        yield f"Created {click.style(where, fg='cyan')}."
    took = output.duration(report.seconds)
    unchanged = _unchanged(report, "document" if from_input else "file")
    if not changes:
        yield f"Nothing to index: {unchanged or _nothing(report)}. ({took})"
    else:
        yield click.style(f"{_changes(report)} in {took}.", bold=True)
        if report.added or report.replaced:
            yield f"  {_encoding(report)}"
        if unchanged:
            yield f"  {unchanged}"
    yield from _asides(report)
    yield from _doubtful(report.doubtful)
    yield from left_out(report.skipped, report.failed, from_input=from_input)


def _nothing(report: IngestReport) -> str:
    return "no other file was found" if report.deleted else "no document was found"


def _changes(report: IngestReport) -> str:
    counts = ((report.added, "added"), (report.replaced, "replaced"), (report.removed, "removed"))
    parts = [(number, verb) for number, verb in counts if number]
    first, *rest = parts
    return ", ".join(
        [f"{output.count(first[0], 'document')} {first[1]}", *(f"{n:,} {verb}" for n, verb in rest)]
    )


def _unchanged(report: IngestReport, what: str) -> str:
    return f"{output.count(report.unchanged, what)} unchanged" if report.unchanged else ""


def _encoding(report: IngestReport) -> str:
    line = f"{output.count(report.tokens, 'token')} in {output.count(report.chunks, 'chunk')}"
    if report.encoded < report.chunks:
        line += f", {report.encoded:,} of them encoded anew"
    return line


def _asides(report: IngestReport) -> Iterator[str]:
    """Yield the counts that are only worth a line when they are not zero."""
    if report.truncated:
        yield (
            f"  {output.count(report.truncated, 'token')} truncated: past the encoder's window, "
            "so no search finds them"
        )
    if report.noise:
        yield (
            f"  {output.count(report.noise, 'chunk')} of no language: hex, base64, minified code"
        )
    if report.empty:
        yield f"  {output.count(report.empty, 'document')} without text"
    if report.missing:
        yield (
            f"  {output.count(report.missing, 'file')} missing from disk but kept in the index; "
            f"--prune removes {'it' if report.missing == 1 else 'them'}"
        )
    if report.deleted:
        yield (
            f"  {output.count(report.deleted, 'file')} left out, deleted from the index before; "
            f"--restore brings {'it' if report.deleted == 1 else 'them'} back"
        )
    yield from _unfamiliar(report)
    if report.excluded:
        yield f"  {output.count(report.excluded, 'hidden or ignored path')} passed over"


def _unfamiliar(report: IngestReport) -> Iterator[str]:
    """Name the first documents in a script that the encoder does not know."""
    if not report.unfamiliar:
        return
    yield (
        f"  {output.count(len(report.unfamiliar), 'document')} in a script or language that the "
        "model hardly knows:"
    )
    for name, _ in report.unfamiliar[:_SHOWN_DOUBTFUL]:
        yield f"    {naming.shown(name)}"
    if (more := len(report.unfamiliar) - _SHOWN_DOUBTFUL) > 0:
        yield f"    and {more:,} more: `retriever status` names them"


def _doubtful(outcomes: Sequence[FileOutcome]) -> Iterator[str]:
    """Name the first documents that may have been read in the wrong encoding."""
    if not outcomes:
        return
    heading = f"{output.count(len(outcomes), 'document')} perhaps not read as written"
    yield click.style(f"  {heading}; --encoding decides it:", fg="yellow")
    yield from map(_reason, outcomes[:_SHOWN_DOUBTFUL])
    if len(outcomes) > _SHOWN_DOUBTFUL:
        yield f"    and {len(outcomes) - _SHOWN_DOUBTFUL:,} more: see --json"


def left_out(
    skipped: Sequence[FileOutcome],
    failed: Sequence[FileOutcome],
    *,
    from_input: bool = False,
    what: str = "file",
    every: bool = False,
    at_most: int = _SHOWN_FILES,
) -> Iterator[str]:
    """Yield what was left out: skipped files by kind, and which where they are few; failures each.

    Args:
        skipped: Files that nothing reads.
        failed: Files, or lines of input, that are broken.
        from_input: Whether it was lines, which no index remembers, and not files.
        what: What one of them is called, where it is not a line.
        every: Whether all are named.
        at_most: How many failures are named, unless all are.
    """
    if skipped:
        from retriever.documents import kinds

        named = every or len(skipped) <= _FEW_FILES
        counts = kinds.counted(outcome.reason for outcome in skipped)
        how = ":" if named else " (`retriever status -v` lists them)"
        yield click.style(f"  not read: {counts}{how}", fg="yellow")
        yield from map(_reason, skipped if named else ())
    if failed:
        if from_input:
            what = "object" if failed[0].path.startswith("object ") else "line"
        yield click.style(f"  {output.count(len(failed), what)} failed:", fg="red")
        yield from map(_reason, failed if every else failed[:at_most])
        if not every and len(failed) > at_most:
            how = "--json lists them all" if what != "file" else "`retriever status -v` lists them"
            yield f"    and {len(failed) - at_most:,} more: {how}"


def _reason(outcome: FileOutcome) -> str:
    reason = click.style(output.in_one_line(outcome.reason), dim=True)
    return f"    {naming.shown(outcome.path)}: {reason}"


def print_rebuild_report(settings: Settings, report: IngestReport) -> None:
    """Print what `retriever rebuild` did."""
    if settings.as_json:
        output.say_json({"schema": 1, "index": os.fspath(settings.path), **report.to_dict()})
    elif not settings.quiet:
        done = f"{output.count(report.replaced, 'document')} rebuilt"
        output.say(click.style(f"{done} in {output.duration(report.seconds)}.", bold=True))
        output.say(f"  {_encoding(report)}")
        output.say_lines(_asides(report))


def print_adopt_report(settings: Settings, stranger: str, report: IngestReport) -> None:
    """Print what `retriever adopt` did."""
    if settings.as_json:
        answer = {"schema": 1, "index": os.fspath(settings.path), "stranger": stranger}
        output.say_json({**answer, **report.to_dict()})
    elif not settings.quiet:
        where = click.style(naming.shown(os.fspath(settings.path)), fg="cyan")
        output.say(f"Created {where}.")
        done = f"{output.count(report.added, 'document')} adopted"
        output.say(click.style(f"{done} in {output.duration(report.seconds)}.", bold=True))
        output.say(f"  {_encoding(report)}")
        output.say_lines(_asides(report))
        output.say_lines(left_out((), report.failed, what="document"))

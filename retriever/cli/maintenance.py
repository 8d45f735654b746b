"""The commands `verify`, `repair`, `compact` and `backup`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retriever.cli import options, output
from retriever.cli.options import Command, Settings, common
from retriever.cli.progress import ProgressDisplay
from retriever.errors import DataLoss, IndexCorrupt

if TYPE_CHECKING:
    from retriever.reports import RepairReport, VerifyReport

DAMAGED = 4
_NAME = 11


@click.command(
    cls=Command,
    examples=[
        "retriever verify",
        "retriever verify --deep --json | jq '.problems'",
    ],
)
@click.option(
    "--deep", is_flag=True, help="Also compare every vector in the segments with the database."
)
@common
def verify(settings: Settings, *, deep: bool) -> int | None:
    """Check every stored byte of the index.

    The exit code is 4 if the index is damaged. Nothing is changed; searches and writes can go on
    at the same time.
    """
    with settings.progress("verify") as progress:
        report = _verified(settings.path, deep=deep, progress=progress)
    if settings.as_json:
        output.say_json({"schema": 1, **report.to_dict()})
    elif not (settings.quiet and report.ok):
        output.say_lines(_verify_lines(report))
    return None if report.ok else DAMAGED


def _verified(path: Path, *, deep: bool, progress: ProgressDisplay) -> VerifyReport:
    """Return the report also of an index that is too damaged to open."""
    from retriever.index import Index

    try:
        with Index.open(path, read_only=True) as opened:
            return opened.verify(deep=deep, progress=progress)
    except (IndexCorrupt, DataLoss):
        return Index.verify_path(path, deep=deep, progress=progress)


def _verify_lines(report: VerifyReport) -> Iterator[str]:
    for check in report.checks:
        mark = click.style("✓", fg="green") if check.ok else click.style("✗", fg="red")
        detail = click.style(output.in_one_line(check.detail), dim=True)
        yield f"{mark} {check.name.ljust(_NAME)}{detail}".rstrip()
        for problem in report.problems:
            if problem.check == check.name:
                yield f"    {output.in_one_line(problem.detail)}"
    for warning in report.warnings:
        yield f"{click.style('!', fg='yellow')} {output.in_one_line(warning)}"
    took = output.duration(report.seconds)
    if report.ok:
        yield click.style(f"The index is sound. ({took})", bold=True)
    else:
        found = output.count(len(report.problems), "problem")
        yield click.style(f"The index is damaged: {found}. ({took})", fg="red", bold=True)
        yield f"Repair it with `retriever repair -i {output.visible(os.fspath(report.path))}`."


@click.command(
    cls=Command,
    examples=[
        "retriever repair",
        "retriever repair --accept-loss -i old.index",
    ],
)
@click.option(
    "--accept-loss",
    is_flag=True,
    help="Continue although acknowledged commits are missing; `status` records the loss.",
)
@options.model(help_text="The model, if it cannot be found by the name in the index.")
@options.download
@options.lock_timeout
@common
def repair(
    settings: Settings,
    *,
    accept_loss: bool,
    model: str | None,
    download: bool,
    lock_timeout_s: float,
) -> int | None:
    """Repair a damaged index; nothing is deleted.

    Damaged files are moved to quarantine/. Segments are rebuilt from the database, embeddings
    from the text. What cannot be saved is listed, here and from then on in `retriever status`. If
    an error stops the repair, such as a missing model, the steps done so far are shown. The exit
    code is 4 if the index is still damaged afterwards.
    """
    from retriever.index import Index

    try:
        with settings.progress("repair") as progress:
            report = Index.repair_path(
                settings.path,
                model=model,
                accept_loss=accept_loss,
                allow_download=download,
                lock_timeout_s=lock_timeout_s,
                progress=progress,
            )
    except BaseException as exc:
        if unfinished := getattr(exc, "repair_report", None):
            _show_repair(settings, unfinished, _unfinished_lines(unfinished))
        raise
    _show_repair(settings, report, _repair_lines(report))
    return None if report.ok else DAMAGED


def _show_repair(settings: Settings, report: RepairReport, lines: Iterator[str]) -> None:
    if settings.as_json:
        output.say_json({"schema": 1, **report.to_dict()})
    elif not settings.quiet or not report.ok:
        output.say_lines(lines)


def _repair_lines(report: RepairReport) -> Iterator[str]:
    yield from _done_lines(report)
    if report.verify is not None and not report.ok:
        yield from _verify_lines(report.verify)
    elif report.actions or report.lost:
        yield click.style("The index is sound again.", bold=True)
    else:
        yield click.style("Nothing to repair: the index is sound.", bold=True)


def _done_lines(report: RepairReport) -> Iterator[str]:
    for action in report.actions:
        yield f"{click.style('✓', fg='green')} {output.in_one_line(action)}"
    for name in report.quarantined:
        yield f"  set aside {output.in_one_line(name)}"
    for lost in report.lost:
        what = f"{lost.document_id}: {lost.reason}"
        yield f"{click.style('✗', fg='red')} lost {output.in_one_line(what)}"


def _unfinished_lines(report: RepairReport) -> Iterator[str]:
    yield from _done_lines(report)
    for problem in report.verify.problems if report.verify else ():
        yield f"{click.style('!', fg='yellow')} {output.in_one_line(problem.detail)}"
    yield click.style("The repair is not finished.", bold=True)


@click.command(
    cls=Command,
    examples=[
        "retriever compact",
    ],
)
@options.lock_timeout
@common
def compact(settings: Settings, *, lock_timeout_s: float) -> None:
    """Merge segments and reclaim the space of deleted documents.

    Afterwards the index's files hold no byte of deleted text or vectors.
    """
    from retriever.index import Index

    with (
        settings.progress("compact") as progress,
        Index.open(settings.path, lock_timeout_s=lock_timeout_s) as opened,
    ):
        report = opened.compact(progress=progress)
    if settings.as_json:
        output.say_json({"schema": 1, "index": os.fspath(settings.path), **report.to_dict()})
    elif not settings.quiet:
        before, after = output.size(report.bytes_before), output.size(report.bytes_after)
        written = output.count(report.segments_written, "segment")
        took = output.duration(report.seconds)
        output.say(f"Compacted {before} to {after}; {written} written. ({took})")


@click.command(
    cls=Command,
    examples=[
        "retriever backup /backups/manuals-2026-08-01.index",
        'retriever search "reset the pump" -i /backups/manuals-2026-08-01.index',
    ],
)
@click.argument("target", type=options.AnyPath())
@common
def backup(settings: Settings, target: Path) -> None:
    """Copy the index to TARGET; the copy is an index.

    The copy is of one commit; searches and writes can go on at the same time. TARGET must not
    exist, or must be an empty directory.
    """
    from retriever.index import Index

    with settings.progress("backup"), Index.open(settings.path, read_only=True) as opened:
        report = opened.backup(target)
    if settings.as_json:
        output.say_json({"schema": 1, "index": os.fspath(settings.path), **report.to_dict()})
    elif not settings.quiet:
        documents = output.count(report.documents, "document")
        where = output.visible(os.fspath(report.path))
        output.say(f"Copied {documents} to {where}: {output.size(report.bytes)}.")

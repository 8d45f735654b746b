"""Errors for people and for programs: `error:` and `hint:` lines, or one JSON object, on stderr.

Exit code 70 (EX_SOFTWARE of sysexits.h) is a bug of ours; the others are in `retriever --help`.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from retriever.cli import output
from retriever.errors import IndexLocked, InvalidDocument, RetrieverError

if TYPE_CHECKING:
    from retriever.types import IngestReport

BUG = 70
INTERRUPTED = 130
_WRITING = ("index", "rebuild", "delete", "compact", "repair")


class Interrupted(RetrieverError):
    """Ctrl-C was pressed; what was committed stays."""

    exit_code = INTERRUPTED

    def __init__(self, command: str | None, report: IngestReport | None) -> None:
        hint = "Run the same command again to go on." if command in _WRITING else ""
        super().__init__("Interrupted.", hint=hint)
        self.report = report


def show(exc: Exception, arguments: Sequence[str]) -> int:
    """Print an error to stderr and return the exit code that stands for it."""
    if isinstance(exc, click.UsageError):
        code, kind, message, hint = exc.exit_code, "usage_error", exc.format_message(), _help(exc)
    elif isinstance(exc, RetrieverError):
        code, kind, message, hint = exc.exit_code, exc.code, exc.message, _hint(exc)
    else:
        code, kind = BUG, "bug"
        message = f"Unexpected {type(exc).__name__}: {exc}"
        hint = "This is a bug in retriever: please report it with what --verbose prints."
        if any(flag in arguments for flag in ("-v", "--verbose")):
            output.note(output.visible("".join(traceback.format_exception(exc))))
    report = getattr(exc, "report", None)
    if any(flag in arguments for flag in ("--json", "--jsonl")):
        _show_json(kind, message, hint, report)
    else:
        _show_text(f"{message}{_kept(exc, report)}", hint)
    return code


def _hint(exc: RetrieverError) -> str:
    if isinstance(exc, IndexLocked):
        return (
            "Wait for it to finish, or wait longer with --lock-timeout. Searches are not affected."
        )
    if exc.report is not None and not isinstance(exc, Interrupted):
        return f"{exc.hint} Then run the same command again to go on.".lstrip()
    return exc.hint


def _help(exc: click.UsageError) -> str:
    return f"See `{exc.ctx.command_path} --help`." if exc.ctx else ""


def _kept(exc: Exception, report: IngestReport | None) -> str:
    """Return what of a cut-short call is durable."""
    if report is None:
        return ""
    kept = report.added + report.replaced
    if not kept:
        is_between_commits = isinstance(exc, InvalidDocument)
        return " Nothing was committed." if is_between_commits else " What was committed stays."
    verb = "was committed and stays" if kept == 1 else "were committed and stay"
    return f" {output.count(kept, 'document')} {verb}."


def _show_text(message: str, hint: str) -> None:
    output.note(f"{click.style('error:', fg='red', bold=True)} {output.visible(message)}")
    if hint:
        output.note(f"{click.style('hint:', fg='cyan')} {output.visible(hint)}")


def _show_json(kind: str, message: str, hint: str, report: IngestReport | None) -> None:
    answer: dict[str, Any] = {
        "schema": 1,
        "error": {"code": kind, "message": message, "hint": hint},
    }
    if report is not None:
        answer["report"] = report.to_dict()
    output.note(output.to_json(answer))

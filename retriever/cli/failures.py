"""Print errors to stderr, as `error:` and `hint:` lines or as one JSON object.

Exit code 70 (EX_SOFTWARE of sysexits.h) is a bug of retriever; the others are in
`retriever --help`.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import click

from retriever.cli import output, signals
from retriever.errors import IndexLocked, InvalidDocument, RetrieverError, UnreadableFile

if TYPE_CHECKING:
    from retriever.reports import IngestReport

BUG = 70
_WRONG_USAGE = 2
INTERRUPTED = 130
_PRINTING_LINES = ("search", "list")
_WRITING = ("index", "rebuild", "delete", "compact", "repair")


class Interrupted(RetrieverError):
    """The command was interrupted by Ctrl-C or SIGTERM; what was committed stays."""

    exit_code = INTERRUPTED

    def __init__(self, command: str | None, report: IngestReport | None) -> None:
        # `eval beir` writes too, while it adds documents, and leaves their report then.
        can_continue = command in _WRITING or report is not None
        hint = "Run the same command again to continue." if can_continue else ""
        super().__init__("Interrupted.", hint=hint)
        self.report = report
        self.exit_code = signals.CODES.get(signals.asked(), INTERRUPTED)


def last_words(arguments: Sequence[str]) -> str:
    """Return the message for a command that is interrupted twice and ends at once."""
    stopped = Interrupted(next(iter(arguments), None), None)
    if _wants_json(arguments):
        return _as_json(stopped.code, stopped.message, stopped.hint, None) + "\n"
    return f"error: {stopped.message}\n" + (f"hint: {stopped.hint}\n" if stopped.hint else "")


class SystemFailed(RetrieverError):
    """An error of the operating system that no other class describes better."""

    def __init__(self, exc: OSError) -> None:
        what = f"'{exc.filename}'" if exc.filename is not None else "A file or stream"
        super().__init__(
            f"{what} cannot be used: {exc.strerror or exc}.",
            hint="Check that it exists, its permissions, and the free disk space.",
        )
        self.report = getattr(exc, "report", None)


def show(exc: Exception, arguments: Sequence[str]) -> int:
    """Print an error to stderr and return its exit code, which is never 0 or 1."""
    if isinstance(exc, click.Abort):
        exc = Interrupted(None, None)
    elif isinstance(exc, OSError) and not isinstance(exc, RetrieverError):
        exc = SystemFailed(exc)
    if isinstance(exc, click.ClickException):
        code, kind, message, hint = _WRONG_USAGE, "usage_error", exc.format_message(), _help(exc)
    elif isinstance(exc, RetrieverError):
        code, kind, message, hint = exc.exit_code, exc.code, exc.message, _hint(exc)
    else:
        code, kind = BUG, "bug"
        message = f"Unexpected {type(exc).__name__}: {exc}"
        hint = "This is a bug in retriever: please report it with what --verbose prints."
        if any(flag in arguments for flag in ("-v", "--verbose")):
            output.note(output.visible("".join(traceback.format_exception(exc))))
    report = getattr(exc, "report", None)
    if _wants_json(arguments):
        output.note(_as_json(kind, message, hint, report))
    else:
        _show_text(f"{message}{_kept(exc, report)}", hint)
    return code


def _wants_json(arguments: Sequence[str]) -> bool:
    """Return whether the output is JSON; `--jsonl` of `index` describes the input instead."""
    # Read from the arguments, because the error may be that click cannot parse them.
    options = list(takewhile(lambda argument: argument != "--", arguments))
    command = next((word for word in options if not word.startswith("-")), None)
    return "--json" in options or ("--jsonl" in options and command in _PRINTING_LINES)


def _hint(exc: RetrieverError) -> str:
    if isinstance(exc, IndexLocked):
        return (
            "Wait for it to finish, or wait longer with --lock-timeout. Searches are not affected."
        )
    # If the input was refused before any commit, it must be corrected, not repeated.
    is_refused = isinstance(exc, InvalidDocument | UnreadableFile)
    is_refused = is_refused and not (exc.report and exc.report.commits)
    if exc.report is not None and not is_refused and not isinstance(exc, Interrupted):
        return f"{exc.hint} Then run the same command again to continue.".lstrip()
    return exc.hint


def _help(exc: click.ClickException) -> str:
    context = exc.ctx if isinstance(exc, click.UsageError) else None
    if context is None:
        return ""
    hint = f"See `{context.command_path} --help`."
    if isinstance(exc, click.NoSuchOption) and _takes_words(context.command):
        hint = f"Put -- before it if it is not meant as an option. {hint}"
    return hint


def _takes_words(command: click.Command) -> bool:
    return any(isinstance(parameter, click.Argument) for parameter in command.params)


def _kept(exc: Exception, report: IngestReport | None) -> str:
    """Return a sentence on what an interrupted call committed."""
    if report is None:
        return ""
    kept = report.added + report.replaced
    if not kept:
        return " What was committed stays." if report.commits else " Nothing was committed."
    verb = "was committed and stays" if kept == 1 else "were committed and stay"
    return f" {output.count(kept, 'document')} {verb}."


def _show_text(message: str, hint: str) -> None:
    output.note(f"{click.style('error:', fg='red', bold=True)} {output.visible(message)}")
    if hint:
        output.note(f"{click.style('hint:', fg='cyan')} {output.visible(hint)}")


def _as_json(kind: str, message: str, hint: str, report: IngestReport | None) -> str:
    answer: dict[str, Any] = {
        "schema": 1,
        "error": {"code": kind, "message": message, "hint": hint},
    }
    if report is not None:
        answer["report"] = report.to_dict()
    return output.to_json(answer)

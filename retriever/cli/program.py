"""The program `retriever`: its commands, and the mapping of errors to exit codes."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Any

import click

from retriever import __version__
from retriever.cli import failures, options, output, signals, streams
from retriever.cli.groups import LazyGroup

_HELP = """Search a folder of documents by meaning; every answer cites its source.

\b
A first session:
  retriever index manuals/                      # reads the folder, creates ./.retriever
  retriever search "how do I reset the pump?"   # ranked passages with path:line
  retriever index manuals/                      # later: reads only what changed
  retriever status                              # what is in it, what was left out and why

The index is a directory: -i/--index DIR, else $RETRIEVER_INDEX, else .retriever here or in the
nearest folder above.

\b
Exit codes:
  0  done or found               5  locked, busy or timed out
  1  nothing found               6  files left out, under --strict
  2  wrong usage                 7  model or package missing
  3  not found                   8  cannot be read or written
  4  damage                    130  interrupted (143: SIGTERM)
"""


_COMMANDS = {
    "index": "retriever.cli.indexing:index",
    "search": "retriever.cli.searching:search",
    "list": "retriever.cli.inspect:list_documents",
    "facets": "retriever.cli.filtering:facets",
    "status": "retriever.cli.inspect:status",
    "delete": "retriever.cli.indexing:delete",
    "verify": "retriever.cli.maintenance:verify",
    "repair": "retriever.cli.maintenance:repair",
    "compact": "retriever.cli.maintenance:compact",
    "backup": "retriever.cli.maintenance:backup",
    "export": "retriever.cli.inspect:export",
    "adopt": "retriever.cli.adopting:adopt",
    "rebuild": "retriever.cli.indexing:rebuild",
    "eval": "retriever.cli.evaluation:evaluate",
}


class Program(LazyGroup):
    """The group of all commands; turns every exception into a message and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; exit with its code, or return the code if not `standalone_mode`."""
        streams.replace_closed()
        arguments = list(sys.argv[1:] if args is None else args)
        if standalone_mode and args is None:  # the process runs only this command
            signals.install()
            signals.say_at_the_end(failures.last_words(arguments))
        _never_fail_to_encode()
        try:
            try:
                code = self._run(arguments, prog_name=prog_name, complete_var=complete_var, **extra)
            except Exception as exc:
                code = failures.show(exc, arguments)
        except KeyboardInterrupt:  # while an error is being printed
            code = failures.show(failures.Interrupted(None, None), arguments)
        if standalone_mode:
            signals.leave(code)
        return code

    def _run(self, arguments: list[str], **extra: Any) -> int:
        try:
            done = super().main(arguments, standalone_mode=False, **extra)
        except OSError as exc:  # from printing shell completions; `invoke` maps all others
            output.stop_printing(exc)
            return 0
        except SystemExit as exc:  # click exits after completion; 1 means an unknown shell
            if exc.code == 1:
                raise click.UsageError("Completion is not supported for this shell.") from exc
            return 0
        return done if isinstance(done, int) else 0

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; Ctrl-C becomes an error that says how to continue."""
        try:
            return super().invoke(ctx)
        except OSError as exc:  # click would exit silently on any broken pipe, not only stdout's
            raise failures.SystemFailed(exc) from exc
        except KeyboardInterrupt as exc:
            report = getattr(exc, "report", None)
            raise failures.Interrupted(ctx.invoked_subcommand, report) from exc


def _never_fail_to_encode() -> None:
    """Print characters that the terminal's encoding lacks as escapes instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        output.say(f"retriever {__version__}")
        ctx.exit()


@click.group(
    cls=Program,
    homes=_COMMANDS,
    help=_HELP,
    invoke_without_command=True,
    context_settings=options.HELP,
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
@click.pass_context
def main(ctx: click.Context) -> None:
    """Show the help if no command is given."""
    if ctx.invoked_subcommand is None:
        output.note(ctx.get_help())
        ctx.exit(2)

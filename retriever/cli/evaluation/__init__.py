"""The group `eval`: commands that measure retrieval, a module for each."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module

import click

from retriever.cli import options, output

# A command's module is imported only when the command runs.
_COMMANDS = ("runs", "beir", "spans", "compare")


class Group(options.PrintsHelp, click.Group):
    """The commands of `eval`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which a user needs them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None if there is no such command."""
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"retriever.cli.evaluation.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; the error for an unknown one names the closest."""
        name = args[0]
        if name not in _COMMANDS and not name.startswith("-"):
            close = get_close_matches(name, _COMMANDS, 1)
            meant = f"Did you mean '{close[0]}'?" if close else f"Commands: {', '.join(_COMMANDS)}."
            raise click.UsageError(f"There is no command 'eval {name}'. {meant}", ctx)
        return super().resolve_command(ctx, args)


@click.group("eval", cls=Group, invoke_without_command=True, context_settings=options.HELP)
@click.pass_context
def evaluate(ctx: click.Context) -> None:
    """Measure retrieval: score runs, compare them, evaluate an index.

    \b
    `runs`, `beir` and `compare` need the extra `eval`:
      pip install "retriever-engine[eval]"
    """  # noqa: D301 - click reads the character
    if ctx.invoked_subcommand is None:
        output.note(ctx.get_help())
        ctx.exit(2)

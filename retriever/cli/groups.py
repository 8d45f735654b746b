"""Groups of commands whose modules are imported only when a command runs."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from retriever.cli.options import PrintsHelp


class LazyGroup(PrintsHelp, click.Group):
    """A group that imports a command's module when the command runs, so that it starts faster.

    Args:
        homes: The module and the function of each command, as `module:function`, by its name, in
            the order in which a user needs them.
    """

    def __init__(self, *args: Any, homes: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._homes = homes

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which a user needs them."""
        return list(self._homes)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None if there is no such command."""
        if cmd_name not in self._homes:
            return None
        module, _, function = self._homes[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), function)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; the error for an unknown one names the closest."""
        name = args[0]
        if name not in self._homes and not name.startswith("-"):
            close = get_close_matches(name, self._homes, 1)
            meant = (
                f"Did you mean '{close[0]}'?" if close else f"Commands: {', '.join(self._homes)}."
            )
            group = "" if ctx.parent is None else f"{ctx.info_name} "
            raise click.UsageError(f"There is no command '{group}{name}'. {meant}", ctx)
        return super().resolve_command(ctx, args)

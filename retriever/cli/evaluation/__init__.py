"""The group `eval`: commands that measure retrieval, a module for each."""

from __future__ import annotations

import click

from retriever.cli import options, output
from retriever.cli.groups import LazyGroup

_COMMANDS = {
    name: f"retriever.cli.evaluation.{name}:{name}" for name in ("runs", "beir", "spans", "compare")
}


@click.group(
    "eval",
    cls=LazyGroup,
    homes=_COMMANDS,
    invoke_without_command=True,
    context_settings=options.HELP,
)
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

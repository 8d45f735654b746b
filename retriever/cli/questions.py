"""Distinguish a question that begins with a dash from an option."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import click

from retriever.cli.options import Command

# Put before a question so that click does not read it as an option. No argument can contain NUL.
_WORD = "\0"


class TakesQuestion(Command):
    """A command whose argument `query` may begin with a dash: `"-20 degrees"`.

    An argument that contains a space, or is a negative number, is not an option, unless it is an
    option with its value. Any other argument with a dash must be an option or come after `--`.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments without reading questions as options."""
        rest = super().parse_args(ctx, list(_marked(args, _options(self, ctx))))
        words = ctx.params.get("query") or ()
        ctx.params["query"] = tuple(word.removeprefix(_WORD) for word in words)
        return rest


def _options(command: click.Command, ctx: click.Context) -> dict[str, bool]:
    """Return, for each name of an option, whether it takes a value."""
    return {
        name: not option.is_flag and not option.count
        for option in command.get_params(ctx)
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }


def _marked(arguments: Sequence[str], options: Mapping[str, bool]) -> Iterator[str]:
    waiting = iter(arguments)
    for argument in waiting:
        yield f"{_WORD}{argument}" if _is_question(argument, options) else argument
        if argument == "--":
            yield from waiting
        elif _wants_value(argument, options):
            yield from islice(waiting, 1)


def _is_question(argument: str, options: Mapping[str, bool]) -> bool:
    if re.match(r"-\d", argument):
        return True
    if not argument.startswith("-") or not re.search(r"\s", argument):
        return False
    name, equals, _ = argument.partition("=")
    is_long_with_value = bool(equals) and name in options
    is_short_with_value = options.get(argument[:2], False) and not argument[2].isspace()
    return not (is_long_with_value or is_short_with_value)


def _wants_value(argument: str, options: Mapping[str, bool]) -> bool:
    """Return whether the next argument is this option's value; flags may precede it: `-qk`."""
    if argument.startswith("--"):
        return options.get(argument, False)
    letters = re.match(r"-(.*)", argument, re.DOTALL)
    for position, letter in enumerate(letters[1] if letters else "", 2):
        takes_value = options.get(f"-{letter}")
        if takes_value is not False:
            return takes_value is True and position == len(argument)
    return False

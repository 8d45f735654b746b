"""What commands have in common that take `--filter`, and the command `facets`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from retriever.cli import naming, output
from retriever.cli.options import Command, Settings, common

if TYPE_CHECKING:
    from retriever.filters import FilterLike
    from retriever.index import Index

F = TypeVar("F", bound=Callable[..., Any])


def option(what: str) -> Callable[[F], F]:
    """Return the decorator that adds `--filter`; `what` says of which things it lets some pass."""
    return click.option(
        "--filter",
        "asked",
        metavar="EXPR",
        help=f"Only {what} whose metadata passes, such as 'year >= 2020 and language in (en, de)'.",
    )


def shown(asked: FilterLike | None) -> str | None:
    """Return a filter as an expression, or None."""
    from retriever import filters

    found = filters.given(asked)
    return None if found is None else filters.to_expression(found)


def note_unknown(opened: Index, asked: str | None, *fields: str) -> None:
    """Say on stderr which fields of a filter no document has, and what may have been meant."""
    from retriever import filters
    from retriever.filters.fields import BUILT_IN, unknown_fields

    named = {*fields, *(filters.parse_expression(asked).fields if asked is not None else ())}
    if not named <= {*BUILT_IN} and opened.count():
        for sentence in unknown_fields(named, opened.fields()):
            output.note(f"{sentence[:1].upper()}{sentence[1:]}{'' if sentence[-1] == '?' else '.'}")


@click.command(
    cls=Command,
    examples=[
        "retriever facets",
        "retriever facets language",
        "retriever facets author.name --filter 'year >= 2020' --limit 20",
        "retriever facets year --json | jq '.facets[] | select(.documents > 1)'",
    ],
)
@click.argument("field", required=False)
@option("documents")
@click.option(
    "--limit", type=int, default=100, show_default=True, help="Show the most frequent values only."
)
@common
def facets(settings: Settings, *, field: str | None, asked: str | None, limit: int) -> None:
    """Count the documents with each value of a field.

    Prints the number of documents and the value, the most frequent first. Values are printed as a
    filter takes them: text that reads as a number is in quotes. With no FIELD the fields are listed
    that any document has.
    """
    from retriever.index import Index

    if field is None and asked is not None:
        raise click.UsageError("--filter needs a FIELD, whose values are counted.")
    with Index.open(settings.path, read_only=True) as opened:
        if field is None:
            names = opened.fields()
            counted = []
        else:
            counted = opened.facets(field, filter=asked, limit=limit)
            note_unknown(opened, asked, field)
    index = os.fspath(settings.path)
    if settings.as_json:
        listed = [{"value": value, "documents": number} for value, number in counted]
        found = {"fields": names} if field is None else {"field": field, "facets": listed}
        output.say_json({"schema": 1, "index": index, **found})
    elif field is None:
        output.say_lines(map(naming.shown, names))
    else:
        output.say_lines(f"{number:,}\t{_shown(value)}" for value, number in counted)


def _shown(value: Any) -> str:
    from retriever.filters.expression import is_plain_text

    if isinstance(value, str):
        text = value if is_plain_text(value) else json.dumps(value, ensure_ascii=False)
        return output.in_one_line(text)
    return json.dumps(value)

"""The options that say what ranks: `--mode`, `--fusion`, `--weight`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def option(function: Command) -> Command:
    """Add the options to a command, which gets them as `mode`, `fusion` and `weight`."""
    added = click.option(
        "--weight",
        type=float,
        metavar="SHARE",
        help="Share of the embeddings in a hybrid score, from 0 to 1.  [default: 0.7, or with "
        "--fusion rrf 0.5]",
    )(function)
    added = click.option(
        "--fusion",
        type=click.Choice(["convex", "rrf"]),
        default="convex",
        show_default=True,
        help="How a hybrid search makes one score of both: their weighted mean, or reciprocal rank "
        "fusion.",
    )(added)
    return click.option(
        "--mode",
        type=click.Choice(["hybrid", "dense", "lexical"]),
        default="hybrid",
        show_default=True,
        help="Rank by meaning and words, by meaning alone, or by words alone, which needs no "
        "model.",
    )(added)


def name_of(mode: str, fusion: str, weight: float | None) -> str | None:
    """Return what tells a way of ranking from the default in the name of a file; None for it."""
    if mode != "hybrid":
        return mode
    shown = None if weight is None else f"{weight:g}"
    parts = [fusion if fusion != "convex" else None, shown]
    return "-".join(part for part in parts if part) or None

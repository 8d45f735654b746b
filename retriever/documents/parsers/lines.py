"""Unify the line ends of a text without moving a character."""

from __future__ import annotations


def with_plain_line_ends(text: str) -> str:
    r"""Return a text of the same length in which every line ends in `\n` alone.

    A `\r\n` becomes a space and a `\n`, so that every other character keeps its offset.
    """
    if "\r" not in text:
        return text
    return text.replace("\r\n", " \n").replace("\r", "\n")

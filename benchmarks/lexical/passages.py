"""Passages and questions for lexical search at scale: Wikipedia, repeated with variations."""

from __future__ import annotations

import json
import lzma
import random
from collections.abc import Iterator
from pathlib import Path

from .. import beir

ARCHIVE = "wikipedia-130k.jsonl.xz"


def passages(data: Path, count: int) -> list[str]:
    """Return so many passages; those after the archive's are its own with words exchanged.

    A fifth of the words of a repeated passage are those of others, drawn by frequency, so that it
    has other scores than the first and no term becomes rarer than it is.
    """
    found: list[str] = []
    with lzma.open(data / ARCHIVE, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            found.append(f"{row['title']}\n{row['text']}")
            if len(found) == count:
                return found
    return [*found, *_variations(found, count - len(found))]


def _variations(found: list[str], count: int) -> Iterator[str]:
    drawn = random.Random(1)
    pool = " ".join(found[:: len(found) // 2000]).split()
    for number in range(count):
        words = found[number % len(found)].split(" ")
        for place in range(number % 5, len(words), 5):
            words[place] = pool[int(drawn.random() * len(pool))]
        yield " ".join(words)


def questions(data: Path, count: int) -> list[str]:
    """Return so many of the questions of SQuAD's development set, which are about Wikipedia."""
    rows = list(beir.read_lines(data / "retrieval" / "squad-dev" / "queries.jsonl"))
    return [row["text"] for row in rows[:: max(1, len(rows) // count)]][:count]

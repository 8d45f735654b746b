"""What an index costs in each setting: chunks, tokens, bytes, and seconds to cut and to add.

The documents are fixed: the first articles of `squad-train-2`. Every round gives each setting its
turn, a new index each time; seconds are medians. Nothing is taken from the kept vectors. Peers only
cut here: what their chunks cost the encoder follows from their tokens.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retriever import Index

from .. import tables
from . import sources
from .peers import PEERS, peers
from .systems import BEFORE, DEFAULT, Ours, sized

if TYPE_CHECKING:
    from retriever import Document

    from .runner import Options

NEEDS = (sources.TRAINING,)
ARTICLES = 8
ROUNDS = 3
ROWS = (DEFAULT, BEFORE, *(sized(size, 0) for size in (64, 96, 192, 254)))
ROWS += (sized(128, 16), sized(128, 32))
_EMPTY = "–"


def run(options: Options) -> dict[str, Any]:
    """Print the table."""
    documents = options.source("squad-train-2").documents[:ARTICLES]
    vectors = options.vectors
    rows = list(options.settings or ROWS)
    vectors.encoder.encode_documents(["The model is loaded before anything is timed."])
    seconds: dict[str, list[float]] = {row.name: [] for row in rows}
    sizes: dict[str, int] = {}
    for turn in range(ROUNDS):
        for row in rows[turn % len(rows) :] + rows[: turn % len(rows)]:
            spent, sizes[row.name] = _add(row, documents, options)
            seconds[row.name].append(spent)
    report: dict[str, Any] = {}
    for system in (*rows, *([] if options.settings else peers(options.peers, PEERS))):
        cuts = [system.cut(documents, vectors) for _ in range(ROUNDS)]
        window = vectors.encoder.max_tokens
        report[system.name] = {
            "chunks": len(cuts[0]),
            "characters": sum(cuts[0].ends) - sum(cuts[0].starts),
            "tokens": sum(min(len(ids), window) for ids in cuts[0].ids),
            "cut_seconds": statistics.median(cut.seconds for cut in cuts),
            "bytes": sizes.get(system.name),
            "add_seconds": statistics.median(seconds.get(system.name) or [0]) or None,
        }
    characters = sum(len(document.text) for document in documents)
    tables.show(
        f"{len(documents)} articles of {characters:,} characters",
        ["cut by", "chunks", "characters", "tokens encoded", "index", "s to cut", "s to add"],
        [[name, *_cells(figures)] for name, figures in report.items()],
        f"Medians of {ROUNDS} rounds. To add is to cut, to encode and to store. Peers' seconds to "
        "cut are without starting their process; they include counting tokens where their lengths "
        "are in tokens.",
    )
    return report


def _cells(figures: dict[str, Any]) -> list[str]:
    size, add = figures["bytes"], figures["add_seconds"]
    return [
        f"{figures['chunks']:,}",
        f"{figures['characters']:,}",
        f"{figures['tokens']:,}",
        f"{size / 1_000_000:.2f} MB" if size else _EMPTY,
        f"{figures['cut_seconds']:.2f}",
        f"{add:.1f}" if add else _EMPTY,
    ]


def _add(row: Ours, documents: Sequence[Document], options: Options) -> tuple[float, int]:
    """Return the seconds in which a new index takes the documents, and its size in bytes."""
    folder = options.work / "cost.index"
    shutil.rmtree(folder, ignore_errors=True)
    with Index.open(folder, model=options.vectors.encoder, chunking=row.options or None) as index:
        began = time.monotonic()
        index.add(documents)
        spent = time.monotonic() - began
    size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    shutil.rmtree(folder)
    return spent, size

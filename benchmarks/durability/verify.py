"""How long `verify` takes per 100,000 chunks. `--count` is thousands of chunks."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from retriever import Document, Index
from retriever.testing import HashEncoder, unit_vectors

from .runner import Options, Outcome, Seen, require, run_trials

DIMENSION = 384
RUNS = 5


def run(options: Options) -> Outcome:
    """Build an index of `options.count` thousand chunks and verify it five times each way."""
    figures = options.folder / "figures"

    def trial(seed: str, folder: Path) -> Seen:
        return _measure(folder / "i.index", 1_000 * options.count, figures)

    outcome = run_trials("verify", replace(options, count=1), trial, timeout_s=3600)
    if figures.exists():
        outcome.notes["seconds per 100,000 chunks, medians"] = figures.read_text()
    return outcome


def _measure(path: Path, chunks: int, report: Path) -> Seen:
    with Index.open(path, model=HashEncoder(DIMENSION)) as index:
        for first in range(0, chunks, 1_000):
            block = unit_vectors(min(1_000, chunks - first), DIMENSION, first)
            index.add(
                [
                    Document("chunk of text " * 70 + str(first + n), str(first + n), embedding=one)
                    for n, one in enumerate(block)
                ]
            )
        index.compact()
        told = []
        for deep in (False, True):
            seconds = []
            for _ in range(RUNS):
                began = time.monotonic()
                found = index.verify(deep=deep)
                seconds.append((time.monotonic() - began) * 100_000 / chunks)
                require(found.ok, f"verify: {found.problems[:3]}")
            told.append(f"{'deep' if deep else 'plain'} {statistics.median(seconds):.1f}")
    report.write_text(", ".join(told))
    return Counter({"chunks": chunks, "verified": 2 * RUNS})

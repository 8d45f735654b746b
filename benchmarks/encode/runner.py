"""What parts are asked, what they answer, and how both are printed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import beir


@dataclass(frozen=True)
class Options:
    """What a part is asked to do.

    Attributes:
        data: The folder with `retrieval/`, or None for `$RETRIEVER_BENCH_DATA`.
        work: Where converted models, indexes and child processes' errors are kept.
        peers: The interpreter of the environment with the peers.
        limit: How much; what is counted is said by the part.
        runs: Rounds; in each, every system has its turn.
        threads: Threads that each system may use.
        only: Parts of names of systems that run; none means all.
    """

    data: str | None
    work: Path
    peers: str
    limit: int
    runs: int
    threads: int
    only: tuple[str, ...] = ()

    def wanted(self, names: Iterable[str]) -> list[str]:
        """Return the systems that are to run."""
        return [name for name in names if not self.only or any(part in name for part in self.only)]

    def data_folder(self, *needs: str) -> Path:
        """Return the data folder; end the program, saying what it lacks, where it is not whole."""
        return beir.data_folder(self.data, *needs)

    def folder(self, name: str) -> Path:
        """Return a folder beneath `work`, which is made."""
        path = self.work.absolute() / name
        path.mkdir(parents=True, exist_ok=True)
        return path


@dataclass
class Outcome:
    """What a part has shown.

    Attributes:
        part: Its name.
        figures: For the report.
        failures: What does not hold though it has to; a slow processor is no failure.
        skipped: Why a system has no row, by its name.
    """

    part: str
    figures: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def times(value: float | None, base: float | None) -> str:
    """Return a ratio for a table; a dash where one of the two was not measured."""
    return f"{value / base:.2f}" if value and base else "–"

"""Table 7a: the memory of a bulk ingest while it goes on.

`--limit` is the number of passages of `wikipedia-130k`. They come from a generator, as they are
read, and memory is looked at whenever the call reports progress: what is resident, what of it is
private to the process (mapped files are not), and the most that was ever resident. Until SQLite's
page cache of 32 MB is full and every shape of batch has been seen once, both rise: the exit code is
1 if private memory at the end is over 10 % more than halfway, or if the peak is.
"""

from __future__ import annotations

import json
import lzma
import re
import shutil
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ..tables import show
from . import texts
from .process import Child, Unavailable
from .runner import Options, Outcome

LIMIT = 30_000
NEED = "wikipedia-130k.jsonl.xz"
STEPS = 10
WARM = 5  # steps
GROWTH = 1.10
NAME = "retriever"


class _Ingest:
    needs = ("retriever",)

    def fill(self, source: str, path: str, count: int, model: str, threads: int) -> dict[str, Any]:
        """Index passages; return documents done, tokens, seconds and memory at each report."""
        from retriever import Index

        samples: list[dict[str, Any]] = []
        began = time.perf_counter()

        def look(progress: Any) -> None:
            sample = {"done": progress.done, "tokens": progress.tokens}
            samples.append(sample | {"seconds": time.perf_counter() - began} | resident())

        with Index.open(path, model=model, threads=threads) as index:
            report = index.add(_passages(Path(source), count), progress=look)
        samples.append(
            {"done": report.added, "tokens": report.tokens, "seconds": time.perf_counter() - began}
            | resident()
        )
        return {"samples": samples}


def _passages(path: Path, count: int) -> Iterator[Any]:
    from retriever import Document

    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, islice(lines, count)):
            yield Document(row["text"], id=row["_id"], title=row["title"])


def resident() -> dict[str, float]:
    """Return megabytes that are resident, private and at most resident until now; Linux only."""
    status = Path("/proc/self/status").read_text()
    fields = {"resident": "VmRSS", "private": "RssAnon", "peak": "VmHWM"}
    return {
        name: int(re.search(rf"^{field}:\s+(\d+) kB", status, re.M)[1]) / 1024  # type: ignore
        for name, field in fields.items()
    }


def run(options: Options) -> Outcome:
    """Ingest in a fresh process and print its memory at every tenth."""
    source = options.data_folder(NEED) / NEED
    folder = options.folder("memory")
    shutil.rmtree(folder / "memory.index", ignore_errors=True)
    outcome = Outcome("memory")
    if not Path("/proc/self/status").exists():
        outcome.skipped[NAME] = "skipped: /proc is read, which this system does not have"
        print(f"  {outcome.skipped[NAME]}")
        return outcome
    child = Child("memory", NAME, options)
    try:
        samples = child.ask(
            "fill",
            source=source,
            path=folder / "memory.index",
            count=options.limit,
            model=texts.MODEL,
            threads=options.threads,
        )["samples"]
    except Unavailable as error:
        outcome.failures.append(str(error))
        return outcome
    finally:
        child.end()
    marks = steps(samples)
    outcome.figures = {"marks": marks, "reports": len(samples)}
    growth = {kind: marks[-1][kind] / marks[WARM - 1][kind] for kind in ("private", "peak")}
    outcome.figures["growth"] = growth
    outcome.failures += [
        f"{kind} memory grows by {grown - 1:.0%}"
        for kind, grown in growth.items()
        if grown > GROWTH
    ]
    show_table(marks, growth)
    return outcome


def steps(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first sample at or after each tenth of the documents."""
    total = samples[-1]["done"]
    wanted = [total * step / STEPS for step in range(1, STEPS + 1)]
    marks = [next(sample for sample in samples if sample["done"] >= done) for done in wanted]
    marks[-1] = samples[-1]
    return marks


def show_table(marks: list[dict[str, Any]], growth: dict[str, float]) -> None:
    total = marks[-1]["done"]
    show(
        f"{total:,} passages in {marks[-1]['seconds']:.0f} s; memory in MB",
        ["done", "documents", "resident", "private", "peak", "s"],
        [
            [
                f"{mark['done'] / total:.0%}",
                f"{mark['done']:,}",
                *(f"{mark[kind]:.0f}" for kind in ("resident", "private", "peak")),
                f"{mark['seconds']:.0f}",
            ]
            for mark in marks
        ],
        f"From {WARM / STEPS:.0%} to the end: "
        + ", ".join(f"{kind} ×{grown:.2f}" for kind, grown in growth.items()),
    )


SYSTEMS = {NAME: _Ingest}

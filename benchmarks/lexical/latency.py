"""How long a question takes among many passages, and what a change costs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..tables import show
from .engines import ENGINES, Engine
from .passages import passages, questions

_QUESTIONS, _WARM, _K = 400, 40, 10
_PATIENCE_S = 300  # for 100,000 passages; a slower engine is left out of larger numbers
_BATCH = 50_000
_CHANGES = (1, 100)
_REPEATS = 3


@dataclass
class Figures:
    """What was measured of one engine: seconds, bytes, milliseconds."""

    add_s: float
    size: int
    p50: float
    p99: float
    changes: dict[int, float]


def measure(engine: Engine, texts: list[str], asked: list[str], folder: Path) -> Figures:
    """Add texts, ask questions, then add a few texts more and ask again."""
    began = time.perf_counter()
    step = len(texts) if engine.name.startswith("bm25s") else _BATCH  # it would start anew
    for start in range(0, len(texts), step):
        engine.add(texts[start : start + step])
    add_s = time.perf_counter() - began
    for question in asked[:_WARM]:
        engine.search(question, _K)
    taken = [_timed(engine, question) for question in asked]
    p50, p99 = (float(np.percentile(taken, share)) * 1e3 for share in (50, 99))
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    changes = {}
    for count in _CHANGES:
        # A word of its own shows that what was added is found.
        spent = []
        for repeat in range(1 if step == len(texts) else _REPEATS):
            mark = f"zq{count}x{repeat}"
            new = [f"{mark} {text}" for text in texts[repeat * count : (repeat + 1) * count]]
            began = time.perf_counter()
            engine.add(new)
            found = engine.search(mark, _K)
            spent.append(time.perf_counter() - began)
            if len(found) != min(_K, count):
                raise AssertionError(f"{engine.name} found {len(found)} of {count} added texts")
        changes[count] = float(np.median(spent)) * 1e3
    return Figures(add_s, size, p50, p99, changes)


def _timed(engine: Engine, question: str) -> float:
    began = time.perf_counter()
    engine.search(question, _K)
    return time.perf_counter() - began


def latency(
    data: Path, work: Path, counts: Sequence[int], wanted: Sequence[str]
) -> dict[str, dict[str, object]]:
    """Print a table for each number of passages."""
    report: dict[str, dict[str, object]] = {}
    asked = questions(data, _QUESTIONS)
    slow: dict[str, float] = {}
    for count in counts:
        texts = passages(data, count)
        found: dict[str, Figures] = {}
        left_out = []
        for engine in ENGINES:
            name = engine.__name__
            if wanted and name.lower() not in wanted:
                continue
            if slow.get(name, 0) > _PATIENCE_S:
                left_out.append(f"{name} is left out: {counts[0]:,} took {slow[name]:.0f} s to add")
                continue
            with tempfile.TemporaryDirectory(dir=work) as folder:
                one = engine(Path(folder))
                found[one.name] = measure(one, texts, asked, Path(folder))
                slow[name] = found[one.name].add_s * 100_000 / count
                one.close()
        _table(count, found, left_out)
        report[str(count)] = {name: asdict(one) for name, one in found.items()}
    return report


def _table(count: int, found: dict[str, Figures], left_out: list[str]) -> None:
    fastest = next(iter(found.values()))
    show(
        f"{count:,} passages of Wikipedia, {_QUESTIONS} questions of SQuAD, ten best",
        [
            "engine",
            "p50 ms",
            "p99 ms",
            "p50 : first",
            "added in s",
            "MB",
            *(f"add {n} ms" for n in _CHANGES),
        ],
        [
            [
                name,
                f"{one.p50:.2f}",
                f"{one.p99:.2f}",
                f"{one.p50 / fastest.p50:.2f}",
                f"{one.add_s:.0f}",
                f"{one.size / 1e6:.0f}" if one.size else "memory",
                *(f"{one.changes[n]:.0f}" for n in _CHANGES),
            ]
            for name, one in found.items()
        ],
        "Hits of this project are whole, with text and metadata; those of others are numbers and "
        "scores. Added: until the texts are found, this project's with vectors, rows and fsync.",
        *(f"{one}." for one in left_out),
    )

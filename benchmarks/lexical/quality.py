"""What the constants of BM25 and the engines find."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..hybrid.bm25 import Postings
from ..hybrid.collections import CHOSEN_ON, Collection, beir_collection
from ..hybrid.scoring import Array, K, gains, gains_of
from ..tables import show
from .engines import ENGINES, Engine

K1S, BS = (0.9, 1.2, 1.5), (0.4, 0.6, 0.75)
TESTS = ("scifact", "cranfield", "squad-dev")


def grid(data: Path, work: Path) -> dict[str, dict[str, float]]:
    """Print nDCG@10 for each k1 and b, on training collections and on tests."""
    report: dict[str, dict[str, float]] = {}
    loads: dict[str, Callable[[], Collection]] = {
        name: lambda load=load: load(data, work) for name, load in CHOSEN_ON.items()
    }
    for name in TESTS:
        loads[f"{name} test"] = lambda name=name: beir_collection(data / "retrieval" / name, "test")
    cells = [(k1, b) for k1 in K1S for b in BS]
    for name, load in loads.items():
        collection = load()
        postings = Postings(collection)
        asked = [postings.of(one) for one in collection.questions]
        report[name] = {
            f"{k1:g}/{b:g}": float(
                np.mean(gains(postings.score(asked, k1, b).scores, collection.relevant))
            )
            for k1, b in cells
        }
    show(
        "BM25 by k1 and b, nDCG@10",
        ["collection", *(f"{k1:g}/{b:g}" for k1, b in cells)],
        [[name, *(f"{value:.4f}"[1:] for value in row.values())] for name, row in report.items()],
        "Chosen on the rows above the tests, which take part in no choice.",
    )
    return report


def _found(engine: Engine, collection: Collection) -> Array:
    return gains_of(
        [
            [grades.get(row, 0) for row, _ in engine.search(question, K)]
            for question, grades in zip(collection.questions, collection.relevant, strict=True)
        ],
        collection.relevant,
    )


def engines(data: Path, work: Path, wanted: Sequence[str]) -> dict[str, dict[str, float]]:
    """Print nDCG@10 of each engine on the test collections."""
    report: dict[str, dict[str, float]] = {}
    for name in TESTS:
        collection = beir_collection(data / "retrieval" / name, "test")
        for engine in ENGINES:
            if wanted and engine.__name__.lower() not in wanted:
                continue
            with tempfile.TemporaryDirectory(dir=work) as folder:
                one = engine(Path(folder))
                one.add(collection.encoded)
                report.setdefault(one.name, {})[name] = float(np.mean(_found(one, collection)))
                one.close()
    show(
        "Lexical search beside others, nDCG@10",
        ["engine", *TESTS],
        [[name, *(f"{v:.4f}"[1:] for v in row.values())] for name, row in report.items()],
    )
    return report

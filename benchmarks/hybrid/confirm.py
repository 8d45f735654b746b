"""Searches real indexes for the questions of the tests: dense, lexical, hybrid and by ranks.

`chunking="document"` where published figures are of whole texts, the default chunking for
CovidQA's long papers. Documents are ranked by their best chunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retriever import Chunking, Index, SearchOptions
from retriever.evaluation.beir import Collection
from retriever.evaluation.evaluating import evaluate
from retriever.evaluation.scoring import Evaluation
from retriever.evaluation.statistics import interval as bootstrap
from retriever.evaluation.statistics import randomisation_test

from ..tables import interval, show

NDCG = "nDCG@10"
TESTS: Mapping[str, Chunking] = {
    "scifact": Chunking("document"),
    "cranfield": Chunking("document"),
    "squad-dev": Chunking("document"),
    "covidqa": Chunking(),
}
SYSTEMS: Mapping[str, Mapping[str, Any]] = {
    "dense": {"mode": "dense"},
    "lexical": {"mode": "lexical"},
    "hybrid": {"mode": "hybrid"},
    "hybrid by ranks": {"mode": "hybrid", "fusion": "rrf"},
}
# What is aimed at: nDCG@10 of hybrid search on SciFact, by model.
AIMS = {"all-MiniLM-L6-v2": 0.73, "all-mpnet-base-v2": 0.74}
_LEAST = -0.01  # of hybrid less dense on any collection


def run(
    data: Path, work: Path, model: str, only: Sequence[str], every: int
) -> tuple[dict[str, object], list[str]]:
    """Print all tables; return the figures, and where hybrid search loses.

    Args:
        data: The data folder.
        work: Where indexes are kept.
        model: A name or a folder.
        only: Names of collections; none means all.
        every: Of so many questions, one.
    """
    found: dict[str, dict[str, Evaluation]] = {}
    for name, chunking in TESTS.items():
        if not only or name in only:
            found[name] = _searched(data / "retrieval" / name, work, model, chunking, every)
    name = Path(model).name
    part = "" if every == 1 else f", PARTIAL: one question in {every}"
    show(
        f"{name}: {NDCG} (95 %){part}",
        ["collection", "questions", *SYSTEMS],
        [
            [
                collection,
                f"{len(systems['dense'].qrels):,}",
                *(interval(one.measures[NDCG], one.intervals[NDCG]) for one in systems.values()),
            ]
            for collection, systems in found.items()
        ],
        "" if every > 1 else _aim(name, found),
    )
    gained = {collection: _differences(systems) for collection, systems in found.items()}
    show(
        f"{name}: what is gained over dense, paired by question (95 %, p of a randomisation test)",
        ["collection", *list(SYSTEMS)[1:]],
        [[one, *(text for _, text in row.values())] for one, row in gained.items()],
        f"Mean gain of hybrid: {np.mean([row['hybrid'][0] for row in gained.values()]):+.4f}.",
    )
    figures: dict[str, object] = {
        collection: {system: one.to_dict() for system, one in systems.items()}
        for collection, systems in found.items()
    }
    return figures, [] if every > 1 else _wrong(gained)


def _searched(
    folder: Path, work: Path, model: str, chunking: Chunking, every: int
) -> dict[str, Evaluation]:
    collection = Collection.open(folder)
    label = f"{collection.name}-{Path(model).name}-{chunking.unit}.index"
    with Index.open(work / label, model=model, chunking=chunking) as index:
        index.add(collection.documents())
        qrels = collection.qrels("test")
        names = list(qrels)[::every]
        texts = collection.queries("test")
        queries = {name: texts[name] for name in names}
        judged = {name: dict(qrels[name]) for name in names}
        return {
            system: evaluate(index, queries, judged, SearchOptions(**options), measures=(NDCG,))
            for system, options in SYSTEMS.items()
        }


def _differences(systems: Mapping[str, Evaluation]) -> dict[str, tuple[float, str]]:
    """Return what each system gains over dense: the mean, and with its interval and p."""
    dense = systems["dense"].per_query[NDCG]
    found = {}
    for name, one in list(systems.items())[1:]:
        differences = np.array([one.per_query[NDCG][query] - dense[query] for query in dense])
        low, high = bootstrap(differences)
        mean = float(differences.mean())
        p = randomisation_test(differences)
        found[name] = (mean, f"{mean:+.4f} ({low:+.3f} to {high:+.3f}), p {p:.4f}")
    return found


def _aim(model: str, found: Mapping[str, Mapping[str, Evaluation]]) -> str:
    """Return what was aimed at beside what is reached."""
    if "scifact" not in found or model not in AIMS:
        return ""
    reached = found["scifact"]["hybrid"].measures[NDCG]
    verb = "reached" if reached >= AIMS[model] else "missed"
    return f"Aimed at for hybrid on SciFact: {AIMS[model]:g}, {verb} with {reached:.4f}."


def _wrong(gained: Mapping[str, Mapping[str, tuple[float, str]]]) -> list[str]:
    return [
        f"{name}: hybrid is {row['hybrid'][0]:+.4f} beside dense, below {_LEAST:+g}"
        for name, row in gained.items()
        if row["hybrid"][0] < _LEAST
    ]

"""Runs to compare, which find the right document of each of sixty queries at ranks as drawn."""

from __future__ import annotations

import numpy as np

from retriever.evaluation import Evaluation, Qrels, Run, score

QUERIES = [f"q{number}" for number in range(60)]
QRELS = Qrels({query: {"right": 1} for query in QUERIES}, name="sixty")


def run(name: str, ranks: dict[str, int]) -> Run:
    """Return a run that finds the right document of each query at a rank; 0 is not at all."""
    scores = {}
    for query, rank in ranks.items():
        found = {f"wrong{number:02}": -float(number) for number in range(1, 12)}
        scores[query] = {**found, "right": 0.5 - rank} if rank else found
    return Run(scores, name=name)


def ranks(seed: int, gain: int = 0) -> dict[str, int]:
    """Return a rank for each query, drawn from 3 to 9; `gain` ranks better."""
    random = np.random.default_rng(seed)
    drawn = random.integers(3, 10, len(QUERIES)) - gain
    return dict(zip(QUERIES, drawn.tolist(), strict=True))


def evaluated(**runs: dict[str, int]) -> list[Evaluation]:
    measures = ("RR@10", "Success@5")
    return [score(run(name, found), QRELS, measures) for name, found in runs.items()]


def three_runs() -> list[Evaluation]:
    """Return two runs that are equally good, and a better one."""
    return evaluated(old=ranks(1), same=ranks(2), new=ranks(3, gain=2))

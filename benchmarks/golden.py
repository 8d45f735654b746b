"""nDCG@10 of published runs of TREC Deep Learning 2019, beside the published figures.

    python -m benchmarks.golden --data DIR

Exits with 1 if a figure differs in its four digits. DIR holds `golden/`: the qrels of the passage
task, and the runs, which Pyserini published together with their nDCG@10.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from retriever.evaluation import Qrels, Run, score

from . import beir, tables

PUBLISHED = {
    "BM25": 0.5058,
    "BM25_RM3": 0.5216,
    "D_BERT_KD_TASB": 0.7210,
    "OPEN_AI_ADA2": 0.7035,
    "SPLADE_P_P_ENSEMBLE_DISTIL": 0.7308,
}
MEASURES = ("nDCG@10", "AP(rel=2)", "RR(rel=2)@10", "R(rel=2)@100", "Judged@10")


def main(arguments: list[str] | None = None) -> int:
    """Print the table; see the module."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.golden",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", metavar="DIR", help=f"data folder (default: ${beir.DATA_VARIABLE})"
    )
    folder = beir.data_folder(parser.parse_args(arguments).data, "golden") / "golden"
    qrels = Qrels.read(folder / "qrels_full.trec")
    rows = []
    is_equal = True
    for name, published in PUBLISHED.items():
        found = score(Run.read(run_file(folder, name)), qrels, MEASURES)
        ours, *others = found.measures.values()
        is_equal &= round(ours, 4) == published
        shown = tables.interval(ours, found.intervals["nDCG@10"])
        rows.append(
            [
                name,
                tables.interval(published, None),
                shown,
                *(tables.interval(x, None) for x in others),
            ]
        )
    tables.show(
        f"TREC Deep Learning 2019, passages: {len(qrels)} queries, runs of 100 passages",
        ["run", "published nDCG@10", *MEASURES],
        rows,
        "In brackets: the 95 % bootstrap interval over the queries.",
    )
    return 0 if is_equal else 1


def run_file(folder: Path, name: str) -> Path:
    """Return the path of a run."""
    return folder / "runs" / f"{name}.top100.trec"


if __name__ == "__main__":
    sys.exit(main())

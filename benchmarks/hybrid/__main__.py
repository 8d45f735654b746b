"""Dense, lexical and hybrid search: what training collections choose, and what tests confirm.

    python -m benchmarks.hybrid choose --data DIR
    python -m benchmarks.hybrid confirm --data DIR
    python -m benchmarks.hybrid confirm --data DIR --models DIR --model all-mpnet-base-v2

`choose` prints the tables from which the constants follow and reads no test split. `confirm`
searches real indexes for the questions of the tests, and its exit code is 1 where hybrid search
finds clearly less than dense search. Vectors and indexes are kept in `--work`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .. import beir
from ..machine import machine, write_json
from . import choose, confirm

MINILM = "all-MiniLM-L6-v2"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("part", choices=("choose", "confirm"))
    beir.add_common_arguments(parser)
    parser.add_argument("--model", default=MINILM)
    parser.add_argument("--models", metavar="DIR", type=Path, help="folder of the larger model's")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=(), help="these collections")
    parser.add_argument(
        "--every", metavar="N", type=int, default=1, help="one question in N, to see that it runs"
    )
    options = parser.parse_args()
    model = str(options.models / options.model) if options.models else options.model
    work = options.work / "hybrid"
    work.mkdir(parents=True, exist_ok=True)
    print(machine())
    wrong: list[str] = []
    if options.part == "choose":
        data = beir.data_folder(options.data, "retrieval/scifact", "training.tar.xz")
        figures = choose.run(data, work, model, options.only)
    else:
        names = [name for name in confirm.TESTS if not options.only or name in options.only]
        data = beir.data_folder(options.data, *(f"retrieval/{name}" for name in names))
        figures, wrong = confirm.run(data, work, model, names, options.every)
    figures = {"part": options.part, "model": options.model, "wrong": wrong, "figures": figures}
    write_json(options.json, figures)
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

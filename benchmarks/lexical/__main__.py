"""Lexical search: constants, quality, latency, changes and unspaced scripts.

python -m benchmarks.lexical grid --data DIR
python -m benchmarks.lexical quality --data DIR
python -m benchmarks.lexical latency --data DIR --passages 100000 1000000
python -m benchmarks.lexical unspaced
"""

from __future__ import annotations

import argparse
import importlib.util
import sys

from .. import beir
from ..machine import machine, write_json
from . import passages, quality
from .engines import ENGINES
from .latency import latency
from .unspaced import unspaced

PARTS = ("grid", "quality", "latency", "unspaced")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("part", choices=PARTS)
    beir.add_common_arguments(parser)
    names = [engine.__name__.lower() for engine in ENGINES]
    parser.add_argument("--engines", nargs="+", choices=names, default=(), help="only these")
    parser.add_argument(
        "--passages", metavar="N", nargs="+", type=int, default=[100_000], help="for latency"
    )
    options = parser.parse_args()
    missing = [
        engine.package
        for engine in ENGINES
        if engine.package
        and (not options.engines or engine.__name__.lower() in options.engines)
        and importlib.util.find_spec(engine.package) is None
    ]
    if missing and options.part != "grid":
        sys.exit(f"Not installed: pip install {' '.join(missing)}, or leave out with --engines.")
    options.work.mkdir(parents=True, exist_ok=True)
    print(machine())
    needs = [f"retrieval/{name}" for name in quality.TESTS]
    report: object
    if options.part == "unspaced":
        report = unspaced(options.work, options.engines)
    elif options.part == "latency":
        data = beir.data_folder(options.data, passages.ARCHIVE, "retrieval/squad-dev")
        report = latency(data, options.work, options.passages, options.engines)
    elif options.part == "grid":
        data = beir.data_folder(options.data, *needs, "training.tar.xz")
        report = quality.grid(data, options.work)
    else:
        data = beir.data_folder(options.data, *needs)
        report = quality.engines(data, options.work, options.engines)
    write_json(options.json, {"part": options.part, "figures": report})
    return 0


if __name__ == "__main__":
    sys.exit(main())

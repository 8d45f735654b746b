"""The command: one part, several, or all; tables; exit code 1 if something does not hold."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retriever.encoders.bi_encoder import load_encoder

from ..machine import processor
from .process import versions
from .runner import Options
from .texts import MODEL

if TYPE_CHECKING:
    from .runner import Outcome

# Each part is the module of that name; it says what its --limit counts.
PARTS = ("bulk", "ingest", "cold", "warm", "rerank", "memory", "install")


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(["all", *PARTS]), required=True)
@click.option("--data", metavar="DIR", help="The data folder [$RETRIEVER_BENCH_DATA].")
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("work"),
    show_default=True,
    help="Where models and indexes are made.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write a report here.")
@click.option(
    "--peers",
    metavar="PYTHON",
    default=sys.executable,
    help="The interpreter of the environment with the peers [this one].",
)
@click.option("--limit", type=click.IntRange(2), help="How much, instead of each part's own.")
@click.option("--only", metavar="NAME", multiple=True, help="Only systems with this in their name.")
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
def main(
    parts: tuple[str, ...],
    data: str | None,
    work: Path,
    json_file: Path | None,
    peers: str,
    limit: int | None,
    only: tuple[str, ...],
    runs: int,
    threads: int,
) -> None:
    """Measure what encoding costs, beside others who do the same, in turn.

    The peers of a table are those that the environment of --peers has (peers.txt); the others are
    named. What --limit counts is said by each part: `python -m benchmarks.encode bulk` is
    benchmarks/encode/bulk.py.
    """
    settings = {"data": data, "work": work, "peers": peers, "runs": runs, "threads": threads}
    settings["only"] = only
    report: dict[str, Any] = {"schema": 1, "processor": processor(), "threads": threads}
    report |= {"versions": versions(peers), "parts": {}}
    report["load"] = os.getloadavg()[0]
    report["auto"] = load_encoder(MODEL).precision  # loads nothing
    print(
        f"{report['processor']}; {threads} threads; {runs} runs; precision auto is {report['auto']}"
    )
    if report["load"] > 0.5:
        print(f"Other programs are at work (load average {report['load']:.1f}): expect noise.")
    print("; ".join(f"{name} {version}" for name, version in report["versions"].items()))
    failures: list[str] = []
    for name in PARTS:
        if name not in parts and "all" not in parts:
            continue
        module = importlib.import_module(f".{name}", __package__)
        print(f"\n{name}: {(module.__doc__ or '').partition(chr(10))[0]}", flush=True)
        began = time.monotonic()
        outcome: Outcome = module.run(Options(limit=limit or module.LIMIT, **settings))
        seconds = round(time.monotonic() - began)
        for failure in outcome.failures:
            print(f"  FAILED {failure}")
        print(f"  {name}: {seconds} s", flush=True)
        failures += outcome.failures
        report["parts"][name] = {
            "limit": limit or module.LIMIT,
            "runs": runs,
            "seconds": seconds,
            **outcome.figures,
            "skipped": outcome.skipped,
            "failures": outcome.failures,
        }
        if json_file is not None:
            json_file.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()

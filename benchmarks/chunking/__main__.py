"""The command: which way of cutting is best, whether that holds, and what it costs."""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from typing import Any

import click

from .. import beir
from . import MODEL
from .runner import Options
from .systems import Ours, sized

# Each part is the module of that name.
PARTS = ("choose", "confirm", "cost")


@click.command()
@click.argument("part", type=click.Choice(PARTS))
@click.option("--data", metavar="DIR", help="The data folder [$RETRIEVER_BENCH_DATA].")
@click.option("--peers", metavar="PYTHON", help="The interpreter that has peers.txt installed.")
@click.option(
    "--work",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path("work/chunking"),
    show_default=True,
    help="Where archives are unpacked and vectors kept.",
)
@click.option("--model", metavar="MODEL", default=MODEL, show_default=True, help="The encoder.")
@click.option("--only", metavar="NAME", multiple=True, help="Only this collection.")
@click.option("--sizes", metavar="N,…", help="Only rows of this package, with these tokens.")
@click.option("--overlaps", metavar="N,…", default="0", help="Overlaps, with --sizes [0].")
@click.option("--setting", metavar="JSON", multiple=True, help="A row with these Chunking options.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write a report here.")
def main(
    part: str,
    data: str | None,
    peers: str | None,
    work: Path,
    model: str,
    only: tuple[str, ...],
    sizes: str | None,
    overlaps: str,
    setting: tuple[str, ...],
    json_file: Path | None,
) -> None:
    r"""Measure ways of cutting documents.

    choose: this package's options, on training material. confirm: the default beside peers'
    splitters, on collections it was not chosen on. cost: what an index costs in each setting.

    Vectors are kept in --work, so that a second run encodes only what is new. Without --peers the
    rows of other packages are left out.

    \b
    Single rows, in a minute or two:
      python -m benchmarks.chunking choose --only squad-train --sizes 96,128 --overlaps 0,16
      python -m benchmarks.chunking choose --only squad-train --setting '{"tokens": 96}'
    """
    module = importlib.import_module(f".{part}", __package__)
    folder = beir.data_folder(data, *module.NEEDS)
    work.mkdir(parents=True, exist_ok=True)
    rows = [Ours(f"retriever {text}", json.loads(text)) for text in setting]
    rows += [
        sized(int(size), int(overlap))
        for size in (sizes or "").split(",")
        for overlap in overlaps.split(",")
        if size
    ]
    options = Options(folder, work, peers, model, only, rows)
    about = options.about()
    print("; ".join(f"{name} {value}" for name, value in about.items()))
    began = time.monotonic()
    report: dict[str, Any] = {"schema": 1, **about, "part": part, "figures": module.run(options)}
    print(f"\n{part}: {time.monotonic() - began:.0f} s")
    if json_file is not None:
        text = json.dumps(report, indent=2, ensure_ascii=False, default=str)
        json_file.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()

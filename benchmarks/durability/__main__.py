"""The command: one part, several, or all; a table; exit code 1 if anything failed."""

from __future__ import annotations

import importlib
import json
import math
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from ..machine import processor
from ..tables import show
from . import shim
from .runner import Options, Outcome, be_quiet

# Each part is the module of that name, how many trials `all` makes of it, and what they are; of
# `points` there are fewer, and all are taken. For readers and soak the number is seconds and
# minutes, for verify thousands of chunks.
PARTS = {
    "kill": (1_000, "kills"),
    "points": (1_200, "deaths"),
    "power": (2_000, "states of the disk"),
    "faults": (1_000, "works with a fault"),
    "damage": (5_000, "damages"),
    "hostile": (1, "cases"),
    "locks": (500, "rounds"),
    "readers": (120, "snapshots read"),
    "mutants": (1, "mutants"),
    "soak": (30, "runs"),
    "verify": (100, "runs"),
    "peers": (60, "trials"),
}
NOT_IN_ALL = {"soak", "verify", "peers"}
SHIMMED = {"points", "power", "faults"}


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(["all", *PARTS]), required=True)
@click.option("--count", type=click.IntRange(1), help="Trials, instead of each part's own number.")
@click.option(
    "--share", type=click.FloatRange(0, 1), default=1, help="This share of each part's own number."
)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--only", type=click.IntRange(0), help="Repeat the one trial of this number.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True)
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where indexes are made [a temporary one]."
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write a report here.")
@click.option("--first", is_flag=True, help="Stop a part at its first failure.")
@click.option("-v", "--verbose", is_flag=True, help="A line for each trial.")
def main(
    parts: tuple[str, ...],
    count: int | None,
    share: float,
    seed: int,
    only: int | None,
    jobs: int,
    folder: Path | None,
    json_file: Path | None,
    first: bool,
    verbose: bool,
) -> None:
    """Try to break an index: kill, cut the power, fail the disk, damage, attack, race, wear out.

    `all` is every part but those that take long, need other packages or only measure: soak, peers
    and verify.
    Trial n of a part is seeded with SEED-n and can be repeated alone with --only n.
    """
    wanted = [
        name for name in PARTS if name in parts or ("all" in parts and name not in NOT_IN_ALL)
    ]
    if SHIMMED.intersection(wanted):
        shim.load()  # begins this program again, so it comes before any trial
    base = folder or Path(tempfile.mkdtemp(prefix="durability-"))
    base.mkdir(parents=True, exist_ok=True)
    be_quiet()
    print(f"{processor()}; seed {seed}", flush=True)
    outcomes = []
    for name in wanted:
        number = count or math.ceil(share * PARTS[name][0])
        options = Options(number, seed, only, jobs, base / name, verbose, first)
        options.folder.mkdir(parents=True, exist_ok=True)
        outcome: Outcome = importlib.import_module(f".{name}", __package__).run(options)
        outcomes.append(outcome)
        print(_line(outcome), flush=True)
        if outcome.ok:
            shutil.rmtree(options.folder, ignore_errors=True)
    show_table(outcomes, seed)
    if json_file is not None:
        json_file.write_text(json.dumps(_report(outcomes, seed), indent=2) + "\n")
    if folder is None and all(outcome.ok for outcome in outcomes):
        shutil.rmtree(base, ignore_errors=True)
    sys.exit(0 if all(outcome.ok for outcome in outcomes) else 1)


def _line(outcome: Outcome) -> str:
    seen = ", ".join(f"{name} {number:,}" for name, number in sorted(outcome.seen.items()))
    verdict = f"{len(outcome.failures)} failed" if outcome.trials else "NOTHING WAS TRIED"
    notes = "".join(f"\n  {name}: {value}" for name, value in outcome.notes.items())
    return (
        f"{outcome.part}: {outcome.trials:,} trials in {outcome.seconds:.0f} s, {verdict}\n"
        f"  {seen}{notes}"
    )


def show_table(outcomes: list[Outcome], seed: int) -> None:
    """Print what each part did, how often, and how often it failed."""
    rows = []
    for outcome in outcomes:
        module = importlib.import_module(f".{outcome.part}", __package__)
        what = (module.__doc__ or "").partition("\n")[0].rstrip(".")
        tried = f"{outcome.trials:,} {PARTS[outcome.part][1]}"
        rows.append([f"`{outcome.part}`", what, tried, len(outcome.failures)])
    show(f"Seed {seed}", ["part", "what is done", "tried", "failed"], rows)


def _report(outcomes: list[Outcome], seed: int) -> dict[str, Any]:
    return {
        "schema": 1,
        "processor": processor(),
        "seed": seed,
        "parts": {
            outcome.part: {
                "trials": outcome.trials,
                "failures": outcome.failures,
                "seconds": round(outcome.seconds, 1),
                "seen": dict(outcome.seen),
                **outcome.notes,
            }
            for outcome in outcomes
        },
    }


if __name__ == "__main__":
    main()

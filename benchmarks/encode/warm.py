"""Table 3b: milliseconds of a question in a process that is warm, beside other systems.

`--limit` is the number of SciFact abstracts that are searched, spread over the corpus. Each system
indexes them once; then processes with one thread, and with as many as `--threads` says, open that
index and answer claims, 200 a round, the same for all and never one twice. The floor is this
project's encoder alone.
"""

from __future__ import annotations

import shutil
from typing import Any

from .. import beir
from ..tables import show
from . import bulk, stores, texts
from .process import Children
from .runner import Options, Outcome, median, percentile, times

LIMIT = 1200
NEED = "retrieval/scifact"
SYSTEMS = tuple(name for name in stores.SYSTEMS if name != stores.OURS_CHUNKED)
CLAIMS, WARMING = 200, 20
DEPTH = 10


def run(options: Options) -> Outcome:
    """Index once, then ask each system in turn, at one thread and at several."""
    data = options.data_folder(NEED) / NEED
    folder = options.folder("warm")
    bulk.convert(options)
    documents = list(beir.load(data).documents.items())
    entries = texts.spread(documents, options.limit)
    claims = texts.read_questions(data)
    count = min(CLAIMS, (len(claims) - WARMING) // options.runs)
    paths = {
        "entries": texts.write(folder / "entries.json", entries),
        "claims": texts.write(folder / "claims.json", claims),
    }
    settings = {"model": texts.model_folder(), "forms": options.folder("models")}
    outcome = Outcome("warm", {"documents": len(entries), "questions": count * options.runs})
    names = fill(options, settings, paths, outcome)
    for threads in sorted({1, options.threads}):
        with Children("stores", names, options, threads) as children:
            for name in names:
                where = folder / name
                _load(children, name, {**settings, "folder": where, "threads": threads})
            children.each("reopen")
            children.each("ask", path=paths["claims"], first=0, count=WARMING, k=DEPTH)
            rounds = [
                children.each(
                    "ask",
                    turn,
                    path=paths["claims"],
                    first=WARMING + turn * count,
                    count=count,
                    k=DEPTH,
                )
                for turn in range(options.runs)
            ]
            outcome.skipped |= children.skipped
            outcome.failures += children.failures
            found = figures(rounds, list(children.running))
        outcome.figures[f"threads {threads}"] = found
        show_table(found, threads, count, options)
    return outcome


def fill(
    options: Options, settings: dict[str, Any], paths: dict[str, Any], outcome: Outcome
) -> list[str]:
    """Let each system index the documents; return the names of those that did."""
    folder = options.folder("warm")
    done = []
    for name in options.wanted(SYSTEMS):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir()
        with Children("stores", [name], options) as child:
            where = {"folder": folder / name, "threads": options.threads}
            if _load(child, name, {**settings, **where}) and child.each(
                "fill", path=paths["entries"]
            ):
                done.append(name)
            outcome.skipped |= child.skipped
            outcome.failures += child.failures
    return done


def _load(children: Children, name: str, settings: dict[str, Any]) -> bool:
    """Load one system; its folder is its own."""
    return children.one(name, "load", **settings) is not None


def figures(rounds: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """Return, for each system, the medians over the rounds of p50 and p99."""
    found: dict[str, Any] = {}
    for name in names:
        taken = [answers[name]["seconds"] for answers in rounds]
        found[name] = {}
        for share in (50, 99):
            each = [1000 * percentile(one, share / 100) for one in taken]
            found[name] |= {f"p{share}_ms": median(each), f"p{share}_ms_of_rounds": each}
    return found


def show_table(found: dict[str, Any], threads: int, count: int, options: Options) -> None:
    ours = found.get(stores.OURS, {}).get("p50_ms")
    rows = [
        [
            name,
            f"{of['p50_ms']:.2f}",
            f"{min(of['p50_ms_of_rounds']):.2f}–{max(of['p50_ms_of_rounds']):.2f}",
            f"{of['p99_ms']:.2f}",
            times(of["p50_ms"], ours),
        ]
        for name, of in sorted(found.items(), key=lambda item: item[1]["p50_ms"])
    ]
    show(
        f"{threads} thread{'s' * (threads > 1)}: medians of {options.runs} rounds of {count} "
        "claims; × is of this project's p50",
        ["system", "p50 ms", "range", "p99 ms", "×"],
        rows,
    )

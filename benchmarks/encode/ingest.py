"""Table 2: documents a second from texts to a saved index, beside other systems.

`--limit` is the number of SciFact abstracts, spread over the corpus. Each system indexes them with
one vector a document, cut at the model's window; `default chunking` is beside it, and so is the
floor, this project's encoder alone. Every run is a process of its own, and the order changes from
round to round. Documents a second count from the first text to the saved index, with the model
loaded; `process` is the seconds of the whole process, its start and imports included. `agree` is
the share of the ten best hits for some claims that sentence-transformers' own vectors give.
"""

from __future__ import annotations

import shutil
import time
from typing import Any

from .. import beir
from ..tables import show
from . import bulk, stores, texts
from .process import Child, Unavailable
from .runner import Options, Outcome, median, times

LIMIT = 300
NEED = "retrieval/scifact"
CLAIMS = 20
DEPTH = 10
REFERENCE = "LangChain + FAISS"


def run(options: Options) -> Outcome:
    """Index with each system, in turn, in fresh processes."""
    collection = beir.load(options.data_folder(NEED) / NEED)
    folder = options.folder("ingest")
    bulk.convert(options)
    entries = texts.spread(list(collection.documents.items()), options.limit)
    paths = (
        texts.write(folder / "entries.json", entries),
        texts.write(
            folder / "claims.json", texts.spread(list(collection.queries.values()), CLAIMS)
        ),
    )
    outcome = Outcome("ingest")
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in options.wanted(stores.SYSTEMS)}
    for turn in range(options.runs):
        names = list(rounds)
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            try:
                rounds[name].append(ingest(name, options, paths))
            except Unavailable as error:
                del rounds[name]
                outcome.skipped[name] = str(error)
                print(f"  {name}: {error}", flush=True)
                if name.startswith(stores.OURS) and str(error).startswith("failed"):
                    outcome.failures.append(f"{name}: {error}")
    outcome.figures = figures(rounds, len(entries))
    show_table(outcome.figures, options)
    return outcome


def ingest(name: str, options: Options, paths: tuple[Any, Any]) -> dict[str, Any]:
    """Index with one system in a process of its own."""
    folder = options.folder("ingest") / "store"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    began = time.perf_counter()
    child = Child("stores", name, options)
    try:
        loaded = child.ask(
            "load",
            model=texts.model_folder(),
            forms=options.folder("models"),
            folder=folder,
            threads=options.threads,
        )
        filled = child.ask("fill", path=paths[0])
        process_s = time.perf_counter() - began
        asked = child.ask("ask", path=paths[1], first=0, count=CLAIMS, k=DEPTH)
    finally:
        child.end()
    return {
        "index_s": filled["seconds"],
        "cpu_s": filled["cpu_s"],
        "load_s": loaded["seconds"],
        "process_s": process_s,
        "ids": asked["ids"],
    }


def figures(rounds: dict[str, list[dict[str, Any]]], documents: int) -> dict[str, Any]:
    """Return the medians of each system."""
    reference = rounds[REFERENCE][0]["ids"] if REFERENCE in rounds else None
    systems: dict[str, Any] = {}
    for name, runs in rounds.items():
        seconds = [run["index_s"] for run in runs]
        found = {
            "documents_per_s": documents / median(seconds),
            "slowest": documents / max(seconds),
            "fastest": documents / min(seconds),
            "documents_per_cpu_s": documents / median([run["cpu_s"] for run in runs]),
            "index_s": seconds,
            "load_s": median([run["load_s"] for run in runs]),
            "process_s": median([run["process_s"] for run in runs]),
        }
        if reference and name != stores.FLOOR:
            pairs = zip(runs[0]["ids"], reference, strict=True)
            shared = sum(len(set(mine) & set(theirs)) for mine, theirs in pairs)
            found["agree"] = shared / sum(len(ids) for ids in reference)
        systems[name] = found
    peers = {name: systems[name]["documents_per_s"] for name in stores.PEERS if name in systems}
    fastest = max(peers, key=lambda name: peers[name]) if peers else None
    return {"documents": documents, "fastest_peer": fastest, "systems": systems}


def show_table(found: dict[str, Any], options: Options) -> None:
    systems = found["systems"]
    base = systems.get(found["fastest_peer"], {}).get("documents_per_s")
    rows = [
        [
            name,
            f"{of['documents_per_s']:.1f}",
            f"{of['slowest']:.1f}–{of['fastest']:.1f}",
            times(of["documents_per_s"], base),
            f"{of['load_s']:.2f}",
            f"{of['process_s']:.1f}",
            f"{of['agree']:.3f}" if "agree" in of else "–",
        ]
        for name, of in sorted(systems.items(), key=lambda item: -item[1]["documents_per_s"])
    ]
    show(
        f"SciFact: {found['documents']:,} documents, {options.threads} threads, medians of "
        f"{options.runs} runs; × is of the fastest peer, {found['fastest_peer'] or 'none'}",
        ["system", "documents/s", "range", "×", "load s", "process s", "agree"],
        rows,
    )

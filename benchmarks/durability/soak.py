"""Random work for a long time: memory, descriptors, threads and files must stay as they are.

`--count` is minutes. One process writes and, in a second thread, searches; the number of documents
is held about constant. Figures are taken after a compaction, when the index is in its simplest
form, and the last third of them is compared with the first third after a warm-up.
"""

from __future__ import annotations

import ctypes
import gc
import os
import random
import statistics
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from retriever.testing import hash_encoder

from . import work
from .runner import Options, Outcome, Seen, require, run_trials

WARM_UP = 0.2
FEWEST, MOST = 200, 400
EVERY = 40
FLAT = 0.02


def run(options: Options) -> Outcome:
    """Work for `options.count` minutes."""
    figures = options.folder / "figures"

    def trial(seed: str, folder: Path) -> Seen:
        return _soak(seed, folder, 60.0 * options.count, figures)

    once = replace(options, count=1)
    outcome = run_trials("soak", once, trial, timeout_s=60.0 * options.count + 300)
    if figures.exists():
        outcome.notes["first and last third, medians"] = figures.read_text()
    return outcome


def _soak(seed: str, folder: Path, seconds: float, report: Path) -> Seen:
    session = work.Session(folder / "i.index")
    known: work.Known = {}
    seen: Seen = Counter()
    stop = threading.Event()
    searches = [0]
    problems: list[str] = []
    reader = threading.Thread(target=_search, args=(session, stop, searches, problems))
    reader.start()
    samples: list[dict[str, float]] = []
    try:
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            _round(session, f"{seed} {seen['rounds']}", known, seen)
            if now > WARM_UP * seconds:
                samples.append(_sample(session))
            require(not problems, f"a search failed: {problems}")
    finally:
        stop.set()
        reader.join()
    found = {document.id or "": document for document in session.index.documents()}
    work.check_documents(session.index, found, known)
    work.check_searches(session.index)
    session.index.close()
    seen["searches"] = searches[0]
    _compare(samples, report)
    return seen


def _search(
    session: work.Session, stop: threading.Event, searches: list[int], problems: list[str]
) -> None:
    """Search again and again beside the writer, in the index that it writes."""
    rng = np.random.default_rng(0)
    while not stop.wait(0.01):
        try:
            session.index.search(vector=rng.standard_normal(work.DIMENSION), k=10)
            searches[0] += 1
        except Exception as problem:
            problems.append(repr(problem))
            return


def _round(session: work.Session, seed: str, known: work.Known, seen: Seen) -> None:
    """Make some calls, bring the number of documents back in bounds, and compact."""
    rng = random.Random(seed)
    for number in range(EVERY):
        kind = None
        if len(known) > MOST:
            kind = "delete"
        elif len(known) < FEWEST:
            kind = "add"
        call = work.plan(rng, known, number, kind)
        if call["kind"] == "reopen":
            continue
        session.perform(call)
        work.apply(known, call)
        seen[call["kind"]] += 1
    while len(known) > FEWEST:
        names = sorted(known)[: len(known) - FEWEST]
        session.index.delete(names)
        for name in names:
            del known[name]
    session.index.rebuild(chunking=work.CHUNKINGS[0])
    session.index.compact()
    seen["rounds"] += 1


def _sample(session: work.Session) -> dict[str, float]:
    # The encoder of the trials caches words, which is no growth of the index.
    hash_encoder.bucket_of.cache_clear()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that malloc keeps is not in use
    session.index.search(vector=np.ones(work.DIMENSION), k=10)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    names = list(session.path.iterdir())
    return {
        "memory_mib": pages * os.sysconf("SC_PAGESIZE") / 2**20,
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
        "files": len(names),
        "disk_kib": sum(name.stat().st_size for name in names) / 1024,
    }


def _compare(samples: list[dict[str, float]], report: Path) -> None:
    """Require that no figure has grown; disk follows the random texts and is only told."""
    require(len(samples) >= 9, f"too few rounds: {len(samples)}")
    third = len(samples) // 3
    told = []
    growing = []
    for name in samples[0]:
        first = statistics.median(sample[name] for sample in samples[:third])
        last = statistics.median(sample[name] for sample in samples[-third:])
        told.append(f"{name} {first:.1f} -> {last:.1f}")
        if name != "disk_kib" and last > first * (1 + FLAT):
            growing.append(told[-1])
    report.write_text(", ".join(told))
    require(not growing, f"not flat over {len(samples)} rounds: {', '.join(growing)}")

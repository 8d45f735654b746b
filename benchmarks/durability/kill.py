"""Random `kill -9` during mixed work, with worker processes of the writer left alive.

One index is killed several times over. After each kill the lock must be free within a second, the
index must open and verify, hold every acknowledged document exactly and a prefix of whole batches
of the call that was cut short, and be searched as NumPy does.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from . import work
from .runner import Options, Outcome, Seen, add, require, run_trials

KILLS_PER_INDEX = 5
LONGEST_S = 1.2


def run(options: Options) -> Outcome:
    """Kill `options.count` writers."""
    indexes = -(-options.count // KILLS_PER_INDEX)
    outcome = run_trials("kill", replace(options, count=indexes), _trial)
    outcome.trials = outcome.seen["kills"]
    return outcome


def _trial(seed: str, folder: Path) -> Seen:
    rng = random.Random(f"kill {seed}")
    seen: Seen = Counter()
    known: work.Known = {}
    for number in range(KILLS_PER_INDEX):
        journal = folder / f"journal-{number}"
        wait = rng.choice([LONGEST_S / 20, LONGEST_S / 4, LONGEST_S]) * rng.random()
        workers = work.Workers()
        pid = os.fork()
        if pid == 0:
            _work(folder, journal, f"{seed} {number}", dict(known), workers)
        time.sleep(wait)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        problem = folder / "problem"
        why = problem.read_text() if problem.exists() else ""
        require(os.waitstatus_to_exitcode(status) == -signal.SIGKILL, f"the writer ended: {why}")
        made = work.FileJournal.read(journal)
        cut_short = work.split(known, made)
        seen["kills"] += 1
        seen["calls"] += len(made)
        if not made and not known:
            seen["killed while creating"] += 1
            if (folder / "i.index").exists():
                work.open_index(folder / "i.index", create=True).close()
        else:
            add(seen, work.check(folder / "i.index", known, cut_short))
        workers.end()
    return seen


def _work(folder: Path, journal: Path, seed: str, known: work.Known, workers: work.Workers) -> None:
    """Write until killed."""
    try:
        session = work.Session(folder / "i.index", workers)
        for _ in work.make_calls(
            session, work.FileJournal(journal), known, work.calls(seed, known)
        ):
            pass
    except BaseException as problem:
        (folder / "problem").write_text(repr(problem))
    os._exit(1)

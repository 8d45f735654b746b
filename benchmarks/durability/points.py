"""Death at every point of the protocol: before and after each kind of system call on each file.

A point is a call and its place, such as "before rename HEAD", the moment between COMMIT and its
witness, or "after fsync store.db-wal", the commit point. A script that takes every step of the
protocol is recorded once to learn its points; then it is run again for each point, and dies when
it gets there for the first, second, third and seventh time, with worker processes left alive.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from . import shim, work
from .runner import Options, Outcome, Seen, require, run_trials

HITS = (1, 2, 3, 7)
SCRIPTS = 3


class Point(NamedTuple):
    """Where a script dies.

    Attributes:
        workload: Which script: its seed.
        moment: `before` or `after` the call.
        event: The kind of call.
        place: Which file, as the shim names it.
        hit: The how-manieth time.
    """

    workload: str
    moment: str
    event: str
    place: str
    hit: int

    def __str__(self) -> str:
        return f"{self.moment} {self.event} {self.place}, hit {self.hit}"


def run(options: Options) -> Outcome:
    """Die at `options.count` points, drawn at random, or at all there are."""
    shim.load()
    points: list[Point] = []
    for number in range(SCRIPTS):
        points += _points(f"{options.seed}-{number}", options.folder / f"recording-{number}")
    if options.count < len(points):
        points = random.Random(options.seed).sample(points, options.count)

    def trial(seed: str, folder: Path) -> Seen:
        return _die_at(points[int(seed.rsplit("-", 1)[1])], folder)

    outcome = run_trials("points", replace(options, count=len(points)), trial)
    names = {f"{point.moment} {point.event} {point.place}" for point in points}
    outcome.notes["points"] = f"{len(names)} named, at hits {', '.join(map(str, HITS))}"
    return outcome


def _points(workload: str, folder: Path) -> list[Point]:
    """Record a script and return its points."""
    folder.mkdir(parents=True)
    pid = os.fork()
    if pid == 0:
        shim.watch(folder / "i.index")
        shim.record(folder / "log")
        _work(folder, workload)
    os.waitpid(pid, 0)
    problem = folder / "problem"
    if problem.exists():
        raise SystemExit(f"The script does not run to its end: {problem.read_text()}")
    counts = Counter(
        (event.kind, shim.place(event.target or event.path, folder / "i.index"))
        for event in shim.read(folder / "log")
        if event.kind in shim.EVENTS and (event.kind != "open" or event.writing)
    )
    return [
        Point(workload, moment, event, place, hit)
        for (event, place), count in sorted(counts.items())
        for moment in ("before", "after")
        for hit in HITS
        if hit <= count
    ]


def _work(folder: Path, workload: str, workers: work.Workers | None = None) -> None:
    try:
        journal = work.FileJournal(folder / "journal")
        session = work.Session(folder / "i.index", workers)
        known: work.Known = {}
        for _ in work.make_calls(session, journal, known, work.calls(workload, known, work.SCRIPT)):
            pass
        session.index.close()
    except BaseException as problem:
        (folder / "problem").write_text(repr(problem))
        os._exit(1)
    os._exit(0)


def _die_at(point: Point, folder: Path) -> Seen:
    workers = work.Workers()
    pid = os.fork()
    if pid == 0:
        shim.watch(folder / "i.index")
        shim.arm(f"kill {point.moment}", [point.event], point.place, point.hit)
        _work(folder, point.workload, workers)
    _, status = os.waitpid(pid, 0)
    problem = folder / "problem"
    require(not problem.exists(), f"{point}: {problem.exists() and problem.read_text()}")
    seen: Seen = Counter()
    if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        seen["not reached"] += 1
    made = work.FileJournal.read(folder / "journal")
    known: work.Known = {}
    cut_short = work.split(known, made)
    try:
        if made:
            seen.update(work.check(folder / "i.index", known, cut_short))
        else:
            seen["died while creating"] += 1
            work.open_index(folder / "i.index", create=True).close()
            seen.update(work.check(folder / "i.index", known, None))
    except Exception as problem:
        raise type(problem)(f"{point}: {problem}") from problem
    finally:
        workers.end()
    return seen

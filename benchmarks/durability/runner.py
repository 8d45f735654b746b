"""Running trials: each in a process of its own, seeded, timed, and told apart when it fails."""

from __future__ import annotations

import logging
import os
import pickle
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

Seen: TypeAlias = "Counter[str]"
Trial: TypeAlias = "Callable[[str, Path], Seen]"


class Failure(Exception):
    """What a trial must not show."""


def add(total: Seen, seen: Seen) -> None:
    """Add what was seen to a total; keys that begin with `max ` are maxima."""
    for name, number in seen.items():
        total[name] = max(total[name], number) if name.startswith("max ") else total[name] + number


def require(condition: object, what: str) -> None:
    """Raise `Failure` unless something holds."""
    if not condition:
        raise Failure(what)


@dataclass
class Outcome:
    """What a part has shown.

    Attributes:
        part: Its name.
        trials: How many were made.
        failures: One text each, naming the trial.
        seen: What was exercised, so that a part which does nothing is noticed; see `add`.
        notes: Further figures for the report.
    """

    part: str
    trials: int = 0
    failures: list[str] = field(default_factory=list)
    seen: Seen = field(default_factory=Counter)
    seconds: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Return whether there were trials and none failed."""
        return self.trials > 0 and not self.failures


@dataclass(frozen=True)
class Options:
    """What a part is asked to do.

    Attributes:
        count: Trials, or what the part's `COUNTS` says.
        seed: Trial n is seeded with `"<seed>-<n>"`.
        only: Repeat this one trial.
        jobs: Trials at a time.
        folder: Where indexes are made; those of failed trials stay there.
        verbose: A line for each trial.
        first: Begin no further trial once one has failed.
    """

    count: int
    seed: int = 0
    only: int | None = None
    jobs: int = 1
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="durability-")))
    verbose: bool = False
    first: bool = False

    @property
    def numbers(self) -> Iterable[int]:
        """Return the numbers of the trials wanted."""
        return range(self.count) if self.only is None else (self.only,)


@dataclass
class _Child:
    number: int
    pid: int
    pipe: int
    folder: Path
    deadline: float
    received: bytearray = field(default_factory=bytearray)


def run_trials(part: str, options: Options, trial: Trial, *, timeout_s: float = 120.0) -> Outcome:
    """Run each trial in a forked process, a few at a time.

    Args:
        part: Named in the report.
        options: Which trials.
        trial: Called with its seed and an empty folder; returns what it saw, raises on failure.
        timeout_s: A trial that takes longer is killed and has failed.
    """
    outcome = Outcome(part)
    began = time.monotonic()
    waiting = list(options.numbers)[::-1]
    running: list[_Child] = []
    while waiting or running:
        if options.first and outcome.failures:
            waiting.clear()
        while waiting and len(running) < options.jobs:
            running.append(_start(part, options, waiting.pop(), trial, timeout_s))
        for child in _ended(running) if running else []:
            running.remove(child)
            _take(outcome, options, child)
    outcome.seconds = time.monotonic() - began
    return outcome


def _start(part: str, options: Options, number: int, trial: Trial, timeout_s: float) -> _Child:
    folder = options.folder / f"{part}-{options.seed}-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ours, theirs = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os.close(ours)
        _be_the_trial(theirs, trial, f"{options.seed}-{number}", folder)
    os.close(theirs)
    return _Child(number, pid, ours, folder, time.monotonic() + timeout_s)


def _be_the_trial(pipe: int, trial: Trial, seed: str, folder: Path) -> None:
    result: Any
    be_quiet()
    try:
        result = trial(seed, folder)
    except Failure as failure:
        result = str(failure)
    except BaseException as error:
        result = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
    data = pickle.dumps(result)
    while data:
        data = data[os.write(pipe, data) :]
    os._exit(0)


def be_quiet() -> None:
    """Leave out the log: what is damaged on purpose need not be told."""
    logging.getLogger("retriever").setLevel(logging.CRITICAL)


def _ended(running: list[_Child]) -> list[_Child]:
    readable, _, _ = select.select([child.pipe for child in running], [], [], 0.2)
    ended = []
    for child in running:
        if child.pipe in readable:
            block = os.read(child.pipe, 1 << 16)
            child.received += block
            if not block:
                ended.append(child)
                continue
        if time.monotonic() > child.deadline:
            os.killpg(child.pid, signal.SIGKILL)
            ended.append(child)
    return ended


def _take(outcome: Outcome, options: Options, child: _Child) -> None:
    os.close(child.pipe)
    _, status = os.waitpid(child.pid, 0)
    outcome.trials += 1
    failure = ""
    if not child.received:
        code = os.waitstatus_to_exitcode(status)
        late = time.monotonic() > child.deadline
        failure = "did not end in time" if late else f"the process crashed ({code})"
    else:
        result = pickle.loads(bytes(child.received))
        if isinstance(result, str):
            failure = result
        else:
            add(outcome.seen, result)
    if failure:
        text = f"{outcome.part} trial {options.seed}-{child.number}: {failure}"
        outcome.failures.append(text)
        print(f"FAILED {text}\n  kept in {child.folder}", flush=True)
        return
    shutil.rmtree(child.folder, ignore_errors=True)
    if options.verbose:
        print(f"{outcome.part} trial {options.seed}-{child.number}: {dict(result)}", flush=True)
    elif outcome.trials % 100 == 0:
        print(
            f"{outcome.part}: {outcome.trials} trials, {len(outcome.failures)} failed", flush=True
        )

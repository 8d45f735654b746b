"""A store in a process of its own, from inside and from outside.

The process writes until it is killed, or looks at what is there. It takes commands from standard
input, one JSON object a line, and answers each with another. A store that crashes takes this
process with it and nothing else, and none inherits the threads or the open files of another.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias

import numpy as np

from . import ROOT, shim
from .stores import DIMENSION, Entry, Store, store_named

BATCH = 50
REPLACED = 10
DELETED = 20
# A length that damage has made huge must not take the machine's memory.
MEMORY = 16 << 30
LONGEST_S = 120.0
KINDS = ["add"] * 6 + ["mixed"] * 3 + ["delete"] * 2
# 50 documents a batch, 10 replaced, 40 deleted: 300 are left.
SCRIPT = ["add"] * 6 + ["mixed", "delete", "delete"]
WORDS = ["pump", "reset", "water", "harbour", "tide", "ledger", "clock", "seal", "valve", "storm"]

Versions: TypeAlias = "dict[str, int | None]"
Note: TypeAlias = "Callable[[str], None]"


def make_text(name: str, version: int) -> str:
    """Return the text that an id and a version stand for."""
    rng = random.Random(f"{name} {version}")
    words = " ".join(rng.choices(WORDS, k=rng.randint(30, 90)))
    return f"{words}; {name} in version {version}."


def make_vector(name: str, version: int) -> np.ndarray:
    """Return the unit vector that an id and a version stand for."""
    seed = random.Random(f"{name} {version} vector").randrange(1 << 32)
    vector = np.random.default_rng(seed).standard_normal(DIMENSION, dtype=np.float32)
    return vector / np.linalg.norm(vector)


def plan(rng: random.Random, known: dict[str, int], kind: str) -> Versions:
    """Choose what a call changes: ids with their new versions, None where deleted."""
    if kind == "delete":
        return dict.fromkeys(rng.sample(sorted(known), min(len(known), DELETED)))
    replaced = rng.sample(sorted(known), min(len(known), REPLACED)) if kind == "mixed" else []
    names = [f"d{rng.randrange(1 << 40)}" for _ in range(BATCH - len(replaced))] + replaced
    return {name: rng.randrange(1 << 40) for name in names}


def apply(known: dict[str, int], versions: Versions) -> None:
    """Change what is known as a finished call does."""
    for name, version in versions.items():
        if version is None:
            known.pop(name, None)
        else:
            known[name] = version


def write(store: Store, path: Path, seed: str, kinds: list[str] | None, note: Note) -> None:
    """Make the calls of `kinds`, or any until killed; say what is intended and what returned."""
    rng = random.Random(seed)
    known: dict[str, int] = {}
    store.open(path)
    note("ready")
    number = 0
    while kinds is None or number < len(kinds):
        kind = (rng.choice(KINDS) if known else "add") if kinds is None else kinds[number]
        versions = plan(rng, known, kind)
        batch = _entries(versions)
        note("intent " + json.dumps(versions))
        if batch:
            store.add(batch)
        else:
            store.delete(list(versions))
        note("done")
        apply(known, versions)
        number += 1
    store.close()


def _entries(versions: Versions) -> list[Entry]:
    there = ((name, version) for name, version in versions.items() if version is not None)
    return [(name, make_text(name, v), make_vector(name, v)) for name, v in there]


def look(store: Store, path: Path, vectors: list[list[float]], k: int) -> dict[str, Any]:
    """Read everything, search, close, and then ask the store's own check, if it has one."""
    answer: dict[str, Any] = {}
    try:
        store.open(path)
        answer["texts"] = store.read()
        answer["hits"] = [store.search(np.array(vector, "f4"), k) for vector in vectors]
        store.close()
    except BaseException as error:  # a panic in Rust is no Exception
        answer["error"] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    if store.check:
        try:
            answer["problems"] = store.verify(path)
        except Exception as error:
            answer["problems"] = [f"{type(error).__name__}: {error}"]
    return answer


def _journal(path: str | None) -> Note:
    """Return where notes go: a file, which outlives a killed process, or the shim's record."""
    if path is None:
        return shim.mark
    file = Path(path).open("a")  # noqa: SIM115

    def note(text: str) -> None:
        file.write(text + "\n")
        file.flush()

    return note


def _end_with(parent: int) -> None:
    """End when the parent has; a store that hangs must not outlive a run that was stopped."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main() -> None:
    name = sys.argv[1]
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a store prints is no answer
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    for module in store_named(name).needs:
        importlib.import_module(module)
    for line in sys.stdin:
        command = json.loads(line)
        path = Path(command["path"])
        if command["do"] == "write":
            note = _journal(command["journal"])
            write(store_named(name), path, command["seed"], command["kinds"], note)
            answer: dict[str, Any] = {"written": True}
        else:
            answer = look(store_named(name), path, command["vectors"], command["k"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


# --- from outside ----------------------------------------------------------------------------


class Verdict(NamedTuple):
    """What became of a store in a trial, and how it showed."""

    name: str
    detail: str = ""
    half_done: bool = False


class Ended(Exception):
    """The process with the store has ended."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(": ".join(verdict[:2]))
        self.verdict = verdict


class Unjudged(Exception):
    """The harness could not make a trial of it."""


class Process:
    """A process that has a store open, or will have."""

    def __init__(self, store: type[Store], errors: Path, **environment: str) -> None:
        self._errors = errors
        with errors.open("ab") as stderr:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.durability.process", store.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=errors.parent,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            )

    def tell(self, **command: Any) -> None:
        """Give a command."""
        pipe: IO[str] = self._child.stdin  # type: ignore[assignment]
        pipe.write(json.dumps(command, default=str) + "\n")
        pipe.flush()

    def ask(self, **command: Any) -> dict[str, Any]:
        """Give a command and wait for its answer."""
        self.tell(**command)
        late = threading.Timer(LONGEST_S, self._child.kill)
        late.start()
        pipe: IO[str] = self._child.stdout  # type: ignore[assignment]
        line = pipe.readline()
        is_late = not late.is_alive()
        late.cancel()
        if line:
            return dict(json.loads(line))
        code = self._child.wait()
        if is_late:
            raise Ended(Verdict("hang", f"no answer in {LONGEST_S:.0f} s"))
        if code < 0:
            raise Ended(Verdict("crash", signal.Signals(-code).name))
        raise Unjudged(f"ended with {code}: {self._said()}")

    def kill_after(self, journal: Path, seconds: float) -> None:
        """Wait for the first note, then some more, and kill it."""
        deadline = time.monotonic() + LONGEST_S
        while not (journal.exists() and journal.stat().st_size):
            if self._child.poll() is not None or time.monotonic() > deadline:
                raise Unjudged(f"did not begin: {self._said()}")
            time.sleep(0.005)
        time.sleep(seconds)
        if self._child.poll() is not None:
            raise Unjudged(f"ended by itself: {self._said()}")
        self.end()

    def end(self) -> None:
        """Kill it."""
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()

    def _said(self) -> str:
        return self._errors.read_text(errors="replace")[-600:].strip()


@dataclass
class Bench:
    """One store, and the processes that look at what is left of it.

    Importing some stores takes seconds, so a process looks at one copy after another; it never
    wrote any of them, and the first that raises an error is the last one it sees.
    """

    store: type[Store]
    folder: Path
    idle: list[Process] = field(default_factory=list)

    def process(self, **environment: str) -> Process:
        """Start a process."""
        return Process(self.store, self.folder / "stderr", **environment)

    def look(self, path: Path, vectors: list[list[float]]) -> dict[str, Any]:
        """Return what a process that did not write the store finds in it."""
        process = self.idle.pop() if self.idle else self.process()
        is_fine = False
        try:
            answer = process.ask(do="look", path=path, vectors=vectors, k=5)
            is_fine = "error" not in answer
            return answer
        finally:
            if is_fine:
                self.idle.append(process)
            else:
                process.end()

    def close(self) -> None:
        """End the processes."""
        while self.idle:
            self.idle.pop().end()


if __name__ == "__main__":
    main()

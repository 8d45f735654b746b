"""Many processes race to write to one index: never two writers, never a lock left behind.

A trial is a round of eight to twelve processes: forked from one that has never opened the index,
forked from one that has it open, and now and then started afresh. They add, delete and compact
with little or much patience, and prove without the lock that they are alone. Meanwhile holders
are killed and stopped, make children that outlive them, and LOCK is removed or replaced. After
it the lock is free at once, and everything acknowledged is there.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from retriever import Index, IndexLocked
from retriever.storage.layout import LOCK
from retriever.storage.locking import WriteLock

from . import ROOT
from .racers import Racer, Witness, encoder, make_document
from .runner import Options, Outcome, Seen, require, run_trials

LONGEST_S = 30.0
COUNTED = {"acquisitions", "refused after a fork", "busy"}
_SPAWN = "from benchmarks.durability import locks; locks.be_spawned()"


def run(options: Options) -> Outcome:
    """Run rounds."""
    return run_trials("locks", options, trial, timeout_s=2 * LONGEST_S)


def trial(seed: str, folder: Path) -> Seen:
    """Run one round."""
    return Round(seed, folder).play()


class Round:
    """The process that starts the racers, troubles them, and looks at what they leave."""

    def __init__(self, seed: str, folder: Path) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.folder = folder
        self.path = folder / "raced.index"
        self.witness = Witness(folder)
        self.seen: Seen = Counter()
        self.running: set[int] = set()
        self.pids = {os.getpid()}
        self.killed: set[int] = set()
        self.leash, self.hand = os.pipe()
        self.lock_moved_at = 0.0
        self.moves = 3 if self.rng.random() < 0.4 else 0
        self.kills = self.rng.randrange(2, 6)
        self.stops = self.rng.randrange(3)

    def play(self) -> Seen:
        """Race, and check."""
        self._start_racer("creator", None, steps=1)
        self._wait_for_all(LONGEST_S)
        total = self.rng.randrange(8, 13)
        for number in range(total // 2):
            self._start_racer(f"clean{number}", None)
        index = self._open()
        for number in range(total // 2, total):
            self._start_racer(f"forked{number}", index)
        if self.rng.random() < 0.5:
            self._spawn_racer("spawned")
        deadline = time.monotonic() + LONGEST_S
        while self.running:
            require(time.monotonic() < deadline, f"hang: {self.running} did not end")
            if self.rng.random() < 0.03:
                index.close()
                index = self._open()
            self._trouble(index)
            self._reap()
        index.close()
        self._check()
        return self.seen

    def _open(self) -> Index:
        index = Index.open(self.path, model=encoder(), lock_timeout_s=0.05)
        index.count()
        return index

    # --- processes --------------------------------------------------------------------------

    def _start_racer(self, name: str, inherited: Index | None, *, steps: int = 0) -> None:
        pid = os.fork()
        if pid == 0:
            os.close(self.hand)
            self._be_racer(name, inherited, steps)
        self.running.add(pid)
        self.pids.add(pid)
        self.seen["processes"] += 1

    def _be_racer(self, name: str, inherited: Index | None, steps: int) -> NoReturn:
        Racer(self.folder, name, f"{self.seed} {name}", self.leash).run(inherited, steps)

    def _spawn_racer(self, name: str) -> None:
        arguments = [str(self.folder), name, f"{self.seed} {name}", str(self.leash)]
        child = subprocess.Popen(
            [sys.executable, "-c", _SPAWN, *arguments], pass_fds=[self.leash], cwd=ROOT
        )
        child.returncode = 0  # it is reaped with the others
        self.running.add(child.pid)
        self.pids.add(child.pid)
        self.seen["processes"] += 1
        self.seen["started afresh"] += 1

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self.running.discard(pid)
            code = os.waitstatus_to_exitcode(status)
            killed = code == -signal.SIGKILL and (pid in self.killed or self._died(pid))
            require(not code or killed, f"process {pid} ended with {code}: {self._problems()}")

    def _died(self, pid: int) -> bool:
        """Return whether a holder made a child and killed itself."""
        died = any(entry.get("died") == pid for log in self._entries().values() for entry in log)
        self.seen["holders dead with a child"] += died
        return died

    def _wait_for_all(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while self.running:
            require(time.monotonic() < deadline, f"hang: {self.running} did not end")
            self._reap()
            time.sleep(0.002)

    # --- trouble ----------------------------------------------------------------------------

    def _trouble(self, index: Index) -> None:
        """Do something to the race, or nothing."""
        time.sleep(self.rng.uniform(0.001, 0.006))
        choice = self.rng.random()
        if choice < 0.06 and self.kills:
            self.kills -= 1
            self._kill(self.rng.choice(sorted(self.running)))
        elif choice < 0.16 and self.kills:
            self._kill_holder()
        elif choice < 0.20 and self.stops:
            self._stop_holder(index)
        elif choice < 0.30 and self.moves:
            self._move_lock()
        elif choice < 0.35:
            index.status()  # looks at LOCK, which must not be in anybody's way

    def _kill(self, pid: int) -> None:
        self.killed.add(pid)
        os.kill(pid, signal.SIGKILL)
        self.seen["kills"] += 1

    def _freeze_holder(self) -> int | None:
        """Stop the process whose witness is there; return it if it is there still."""
        pid = self.witness.holder()
        if pid is None or pid not in self.running or pid in self.killed:
            return None
        os.kill(pid, signal.SIGSTOP)
        if _is_stopped(pid) and self.witness.holder() == pid:
            return pid
        os.kill(pid, signal.SIGCONT)
        return None

    def _kill_holder(self) -> None:
        pid = self._freeze_holder()
        if pid is not None:
            self.kills -= 1
            self._kill(pid)
            self.seen["kills while holding"] += 1

    def _stop_holder(self, index: Index) -> None:
        """Stop a holder for a while, and require that it is named to others."""
        pid = self._freeze_holder()
        if pid is None:
            return
        try:
            self.seen["stops"] += 1
            self.stops -= 1
            if self.moves:
                self._move_lock()
            index.add(make_document("intruder", 1))
        except IndexLocked as exc:
            self.seen["locked errors"] += 1
            # An outsider who takes LOCK away takes the holder's name with it.
            names = {pid} | ({None} if self.lock_moved_at else set())
            require(exc.pid in names, f"{exc.message} But {pid} holds it.")
            time.sleep(0.04)
        else:
            require(False, f"two writers: {os.getpid()} wrote while {pid} held the lock")
        finally:
            os.kill(pid, signal.SIGCONT)

    def _move_lock(self) -> None:
        """Do to LOCK what an outsider might: remove it, empty it by replacement, or rename it."""
        lock = self.path / LOCK
        self.moves -= 1
        self.lock_moved_at = time.monotonic()
        how = self.rng.choice(["removed", "replaced", "renamed"])
        try:
            if how == "removed":
                lock.unlink()
            elif how == "renamed":
                lock.rename(self.folder / f"LOCK.{self.moves}")
            else:
                fresh = self.folder / "LOCK.fresh"
                fresh.touch(mode=0o600)
                fresh.replace(lock)
        except FileNotFoundError:
            return
        self.seen[f"lock files {how}"] += 1

    # --- afterwards -------------------------------------------------------------------------

    def _check(self) -> None:
        problems = self._problems()
        require(not problems, problems)
        began = time.monotonic()
        lock = WriteLock(self.path)
        try:
            lock.acquire(1.0)
        except IndexLocked as exc:
            require(False, f"stale lock: {exc.message}")
        lock.release()
        self.seen["max ms until free"] = round(1000 * (time.monotonic() - began))
        with Index.open(self.path, model=encoder()) as index:
            self._check_documents(index)
            report = index.verify(deep=True)
            require(report.ok, f"verify: {report.problems[:3]}")
            index.add(make_document("after", 1))
            require(index.get("after"), "the round left an index that cannot be written")
        os.close(self.hand)

    def _entries(self) -> dict[str, list[dict[str, Any]]]:
        return {
            log.stem: [json.loads(line) for line in log.read_text().splitlines()]
            for log in sorted(self.folder.glob("*.log"))
        }

    def _problems(self) -> str:
        entries = [entry for log in self._entries().values() for entry in log]
        return "; ".join(entry["problem"] for entry in entries if "problem" in entry)

    def _check_documents(self, index: Index) -> None:
        """Require every acknowledged document, whole, and nothing that nobody wrote."""
        allowed: dict[str, set[int | None]] = {}
        for name, entries in self._entries().items():
            for entry in entries:
                self._count(entry)
            allowed |= _outcomes(name, entries)
        found = {document.id: document for document in index.documents()}
        for name, versions in allowed.items():
            document = found.pop(name, None)
            version = document.metadata["version"] if document else None
            require(version in versions, f"lost: {name} is in version {version}, not in {versions}")
            if document is not None:
                wanted = make_document(name, document.metadata["version"]).text
                require(document.text == wanted, f"half of {name} is there: {document.text!r}")
        require(not found, f"documents that nobody wrote: {sorted(found, key=str)}")

    def _count(self, entry: dict[str, Any]) -> None:
        for name, number in entry.items():
            if name in COUNTED or name.startswith("forks that "):
                self.seen[name] += number
        if "waited" in entry:
            self.seen["max ms waited"] = max(self.seen["max ms waited"], entry["waited"])
        if "locked" in entry:
            self.seen["locked errors"] += 1
            named = entry["locked"]
            self.seen["locked errors without a name"] += named is None
            require(named in {None, *self.pids}, f"IndexLocked named {named}, a stranger")


def _outcomes(name: str, entries: list[dict[str, Any]]) -> dict[str, set[int | None]]:
    """Return the versions that each document of a racer may be in; None is deleted."""
    allowed: dict[str, set[int | None]] = {}
    open_call: dict[str, int | None] = {}
    for entry in entries:
        if "intent" in entry:
            open_call = entry["intent"]
        elif "done" in entry or "refused" in entry:
            if "done" in entry:
                allowed |= {document: {version} for document, version in open_call.items()}
            open_call = {}
    for document, version in open_call.items():
        allowed.setdefault(document, {None}).add(version)
    return allowed


def _is_stopped(pid: int) -> bool:
    """Wait until a process that was told to stop does; one that is dead holds no lock."""
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state in "TtZX":
            return state in "Tt"
        time.sleep(0.0005)
    return False


def be_spawned() -> NoReturn:
    """Be a racer in a process that was started afresh."""
    folder, name, seed, leash = sys.argv[1:]
    Racer(Path(folder), name, seed, int(leash)).run(None)

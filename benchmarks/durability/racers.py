"""The processes that race to write in `locks`, and how they prove that they are alone."""

from __future__ import annotations

import json
import os
import random
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from retriever import Document, Index, IndexBusy, IndexClosed, IndexLocked
from retriever.testing import HashEncoder

from .runner import Failure, require

TIMEOUTS = (0.0, 0.05, 10.0)
WORDS = ["pump", "reset", "water", "harbour", "tide", "ledger", "clock", "seal", "valve"]


def encoder() -> HashEncoder:
    """Return the model of the raced index."""
    return HashEncoder(8, max_tokens=16)


def make_document(name: str, version: int) -> Document:
    """Return the one document that an id and a version stand for."""
    rng = random.Random(f"{name} {version}")
    text = f"{name} in version {version}: " + " ".join(rng.choices(WORDS, k=rng.randrange(40)))
    return Document(text, name, {"version": version})


def is_alive(pid: int) -> bool:
    """Return whether a process is there; one that nobody has waited for is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Witness:
    """A file that only the one writer may make, whatever the lock says.

    It appears with its maker's pid in it. That of a writer which was killed is removed by the
    next one; that of a living writer is what must never be found.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "witness"
        self._own = folder / f"witness.{os.getpid()}"

    def holder(self) -> int | None:
        """Return the process that holds the lock, as far as it has said so."""
        try:
            return int(self._path.read_text())
        except FileNotFoundError:
            return None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show that this process holds the lock; a forked child leaves that to its parent."""
        owner = os.getpid()
        self._own.write_text(str(owner))
        while not self._show():
            self._bury(self.holder())
        yield
        if os.getpid() == owner:
            require(self.holder() == owner, f"two writers: {owner} and {self.holder()}")
            self._path.unlink()

    def _show(self) -> bool:
        try:
            self._path.hardlink_to(self._own)
        except FileExistsError:
            return False
        return True

    def _bury(self, other: int | None) -> None:
        """Wait until the other writer is known to be dead, and remove what it left."""
        deadline = time.monotonic() + 3
        what = f"two writers: {os.getpid()} and {other}, which "
        while other is not None and is_alive(other):
            require(self.holder() == other, f"{what}went on")
            require(time.monotonic() < deadline, f"{what}lives")
            time.sleep(0.002)
        require(other is not None and self.holder() == other, f"{what}went on")
        self._path.unlink()


class _LeavingError(BaseException):
    """Leaves the blocks that a forked child found itself in."""


class Racer:
    """One process of a round: a few short writing calls, each journalled before and after."""

    def __init__(self, folder: Path, name: str, seed: str, leash: int) -> None:
        self.path = folder / "raced.index"
        self.name = name
        self.rng = random.Random(seed)
        self.leash = leash
        self.witness = Witness(folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self.journal = os.open(folder / f"{name}.log", flags, 0o600)
        self.version = 0
        self.owner = os.getpid()
        self.timeout_s = 0.0

    def log(self, **entry: object) -> None:
        """Add an entry to the journal, which survives a kill."""
        os.write(self.journal, (json.dumps(entry) + "\n").encode())

    def run(self, inherited: Index | None, steps: int = 0) -> NoReturn:
        """Race, and end the process."""
        code = 0
        try:
            if inherited is not None:
                self.check_inherited(inherited)
            for _ in range(steps or self.rng.randrange(2, 5)):
                # Whoever makes the index must not give up.
                self.timeout_s = 10.0 if steps else self.rng.choice(TIMEOUTS)
                with Index.open(self.path, model=encoder(), lock_timeout_s=self.timeout_s) as index:
                    if self.rng.random() < 0.15:
                        self.fork(index)
                    for _ in range(self.rng.randrange(1, 3)):
                        self.act(index)
        except _LeavingError:
            self.linger()
        except IndexClosed:
            code = self.owner == os.getpid()
            if not code:
                self.linger()
            self.log(problem=traceback.format_exc())
        except Failure as failure:
            code = 1
            self.log(problem=str(failure))
        except BaseException:
            code = 1
            self.log(problem=traceback.format_exc())
        os._exit(code)

    # --- what it does -----------------------------------------------------------------------

    def act(self, index: Index) -> None:
        """Make one writing call, or several in one block."""
        calls: list[Callable[[Index], None]] = [self.add, self.add, self.block, self.block]
        calls += [self.delete, self.compact]
        call = self.rng.choice(calls)
        began = time.monotonic()
        try:
            call(index)
        except IndexLocked as exc:
            self.note(exc, time.monotonic() - began)

    def add(self, index: Index) -> None:
        """Add a document or replace one; the lock is held while documents are asked for."""
        began = time.monotonic()
        document = self.next_document()

        def documents() -> Iterator[Document]:
            with self.witness.shown():
                self.hold(index, began, in_call=True)
            yield document  # from here on the call may give way to others

        index.add(documents())
        require(self.owner == os.getpid(), "a forked child went on to write")
        self.log(done=True)

    def block(self, index: Index) -> None:
        """Make two calls in one block."""
        began = time.monotonic()
        with index.writing(), self.witness.shown():
            index.add(self.next_document())
            self.log(done=True)
            self.hold(index, began)
            index.add(self.next_document())
            self.log(done=True)

    def delete(self, index: Index) -> None:
        """Delete a document that may be there."""
        name = self.document_name()
        self.log(intent={name: None})
        index.delete(name, missing_ok=True)
        self.log(done=True)

    def compact(self, index: Index) -> None:
        """Compact, alone."""
        began = time.monotonic()
        with index.writing(), self.witness.shown():
            self.hold(index, began)
            try:
                index.compact()
            except IndexBusy as exc:
                require("kept an old snapshot open" in exc.message, f"in a block: {exc.message}")
                self.log(busy=1)

    def hold(self, index: Index, began: float, *, in_call: bool = False) -> None:
        """Hold the lock for a moment; perhaps make a child, and perhaps die of it."""
        waited = round(1000 * (time.monotonic() - began))
        self.log(acquisitions=1, waited=waited)
        choice = self.rng.random()
        if choice < 0.2:
            self.fork(index, in_call=in_call)
        if choice < 0.04 and self.owner == os.getpid():
            self.log(died=self.owner)
            os.kill(self.owner, signal.SIGKILL)
        time.sleep(self.rng.uniform(0, 0.02))

    def document_name(self) -> str:
        """Return the name of one of the documents that this racer writes."""
        return f"{self.name}-{self.rng.randrange(4)}"

    def next_document(self) -> Document:
        """Journal what is about to be written."""
        self.version += 1
        name = self.document_name()
        self.log(intent={name: self.version})
        return make_document(name, self.version)

    # --- what it meets ----------------------------------------------------------------------

    def note(self, exc: IndexLocked, waited_s: float) -> None:
        """Journal a refusal, which is a problem if nobody living was the reason."""
        self.log(refused=True, locked=exc.pid, message=exc.message)
        require("is being written by" in exc.message, f"not the lock: {exc.message}")
        require(waited_s >= self.timeout_s, f"gave up after {waited_s} s: {exc.message}")
        if self.timeout_s == max(TIMEOUTS):
            alive = exc.pid is not None and is_alive(exc.pid)
            require(alive, f"stale lock: {exc.message}")

    def check_inherited(self, index: Index) -> None:
        """Require that an index that was opened before a fork does nothing after it."""
        calls: list[Callable[[], object]] = [
            index.count,
            index.status,
            index.verify,
            index.compact,
            index.rebuild,
            lambda: index.get("creator-0"),
            lambda: index.search("pump"),
            lambda: index.add(make_document("stray", 1)),
            lambda: index.delete("creator-0"),
            lambda: index.writing().__enter__(),
        ]
        for call in calls:
            try:
                call()
            except IndexClosed:
                self.log(**{"refused after a fork": 1})
            else:
                require(False, "an index that was opened before a fork worked after it")
        index.close()

    def fork(self, index: Index, *, in_call: bool = False) -> None:
        """Make a child that outlives this process.

        It stays where it is, leaves the blocks it is in, or goes on with the call it is in.
        """
        how = self.rng.choice(["stay", "leave", "go on" if in_call else "leave"])
        pid = os.fork()
        if pid:
            self.log(**{f"forks that {how}": 1})
            return
        try:
            self.check_inherited(index)
        except BaseException:
            self.log(problem=traceback.format_exc())
        if how == "stay":
            self.linger()
        if how == "leave":
            raise _LeavingError

    def linger(self) -> NoReturn:
        """Live until the round is over."""
        os.read(self.leash, 1)
        os._exit(0)

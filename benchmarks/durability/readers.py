"""Readers in other processes while a writer is killed every second: nothing torn, nothing stale.

A writer replaces every document again and again, and compacts now and then, until it is killed
and another goes on. Meanwhile processes and threads search in every way. A read that begins after
a generation was acknowledged must see it or a later one, never go back, and never see documents
of two generations or a part of one. The count is in seconds; a trial is a read.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import random
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NoReturn

import faiss  # noqa: F401  here, once, and not in every writer

from retriever import Document, Index, Limits
from retriever.storage.locking import WriteLock
from retriever.testing import HashEncoder
from retriever.types import Results

from .runner import Failure, Options, Outcome, Seen, require, run_trials

READERS = 7
THREADS = 4
DOCUMENTS = 12
WORDS = ["pump", "reset", "water", "harbour", "tide", "ledger", "clock", "seal", "valve"]
KINDS = ["search", "search", "all", "group", "get", "chunks"]
# Text would be cut with an overlap; without one, the chunks of a document are its text.
CHUNKING = {"unit": "window", "overlap": 0}


def run(options: Options, *, readers: int = READERS) -> Outcome:
    """Read and write for `count` seconds; the last of the readers has threads."""
    watch = partial(_watch, seconds=options.count, readers=readers)
    one = Options(1, options.seed, options.only and 0, 1, options.folder, options.verbose)
    outcome = run_trials("readers", one, watch, timeout_s=options.count + 120)
    outcome.trials = outcome.seen.pop("snapshots", 0) or outcome.trials
    return outcome


class Board:
    """What the processes tell each other, in shared memory that no killed process can lock."""

    _PLACES = ("acknowledged", "stopped", "commits", "compactions", "compacting")

    def __init__(self) -> None:
        self._places = memoryview(mmap.mmap(-1, 8 * len(self._PLACES))).cast("q")

    def __getitem__(self, name: str) -> int:
        return int(self._places[self._PLACES.index(name)])

    def __setitem__(self, name: str, value: int) -> None:
        self._places[self._PLACES.index(name)] = value


def encoder() -> HashEncoder:
    """Return the model of the index."""
    return HashEncoder(32, max_tokens=16)


@lru_cache(maxsize=16)
def make_generation(number: int) -> tuple[Document, ...]:
    """Return every document as it is in one generation; each knows the hash of its text."""
    documents = []
    for position in range(DOCUMENTS):
        rng = random.Random(f"{number} {position}")
        lines = (" ".join(rng.choices(WORDS, k=12)) for _ in range(rng.randrange(2, 7)))
        text = "\n\n".join([f"Document {position}, generation {number}.", *lines])
        digest = hashlib.sha256(text.encode()).hexdigest()
        metadata = {"generation": number, "sha256": digest}
        documents.append(Document(text, f"d{position}", metadata))
    return tuple(documents)


# --- the process that starts, kills and counts ---------------------------------------------------


def _watch(seed: str, folder: Path, *, seconds: int, readers: int) -> Seen:
    """Keep readers and a writer going; never open the index itself until they have ended."""
    rng = random.Random(seed)
    path = folder / "written.index"
    board = Board()
    _wait(_start(folder, "creator", partial(_create, path, board)))
    children = {}
    for number in range(readers):
        reader = Reader(path, board, f"{seed} {number}", reopens=number % 2 == 1)
        act = reader.read if number < readers - 1 else partial(_read_in_threads, path, board, seed)
        children[_start(folder, f"reader-{number}", act)] = f"reader-{number}"
    seen: Seen = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end and len(children) == readers:
        _run_writer(folder, path, board, rng, seen)
        for pid in list(children):
            if os.waitpid(pid, os.WNOHANG)[0]:
                del children[pid]
    board["stopped"] = 1
    for pid in children:
        _wait(pid)
    for number in range(readers):
        seen.update(_told(folder, f"reader-{number}"))
    seen["snapshots"] = sum(seen[name] for name in {*KINDS})
    seen["commits"], seen["compactions"] = board["commits"], board["compactions"]
    _check_afterwards(path, board, seen)
    return seen


def _run_writer(folder: Path, path: Path, board: Board, rng: random.Random, seen: Seen) -> None:
    """Start a writer and kill it, in one case of three while it compacts."""
    pid = _start(folder, "writer", partial(_write, path, board, rng.random()))
    time.sleep(rng.uniform(0.7, 1.1))
    if rng.random() < 0.3:
        deadline = time.monotonic() + 0.4
        while not board["compacting"] and time.monotonic() < deadline:
            time.sleep(0.0005)
        time.sleep(rng.uniform(0, 0.03))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        _told(folder, "writer")
    seen["writer kills"] += 1
    seen["writer kills in compactions"] += board["compacting"]
    board["compacting"] = 0


def _start(folder: Path, name: str, act: Callable[[], Seen]) -> int:
    """Fork a process that tells, in a file, what it saw or what went wrong."""
    pid = os.fork()
    if pid == 0:
        _be_child(folder / f"{name}.json", act)
    return pid


def _be_child(told: Path, act: Callable[[], Seen]) -> NoReturn:
    problem = ""
    seen: Seen = Counter()
    try:
        seen = act()
    except Failure as failure:
        problem = str(failure)
    except BaseException:
        problem = traceback.format_exc()
    told.write_text(json.dumps({"seen": seen, "problem": problem}))
    os._exit(1 if problem else 0)


def _wait(pid: int) -> None:
    deadline = time.monotonic() + 60
    while not os.waitpid(pid, os.WNOHANG)[0]:
        require(time.monotonic() < deadline, f"hang: process {pid} did not end")
        time.sleep(0.01)


def _told(folder: Path, name: str) -> dict[str, int]:
    """Return what a process saw, or fail with what went wrong for it."""
    told = folder / f"{name}.json"
    require(told.exists(), f"{name} crashed")
    found: dict[str, Any] = json.loads(told.read_text())
    require(not found["problem"], f"{name}: {found['problem']}")
    return dict(found["seen"])


def _check_afterwards(path: Path, board: Board, seen: Seen) -> None:
    began = time.monotonic()
    lock = WriteLock(path)
    lock.acquire(1.0)
    lock.release()
    seen["max ms until free"] = round(1000 * (time.monotonic() - began))
    with Index.open(path, model=encoder()) as index:
        report = index.verify(deep=True)
        require(report.ok, f"verify: {report.problems[:3]}")
        require(index.count() == DOCUMENTS, f"{index.count()} documents are left")
        document = index.get("d0")
        generation = document.metadata["generation"] if document else 0
        last = board["acknowledged"]
        require(generation in (last, last + 1), f"{generation} is there, {last} was acknowledged")


# --- the writers ---------------------------------------------------------------------------------


def _create(path: Path, board: Board) -> Seen:
    with Index.open(path, model=encoder(), chunking=CHUNKING) as index:
        index.add(list(make_generation(1)))
    board["acknowledged"] = 1
    return Counter()


def _write(path: Path, board: Board, seed: float) -> Seen:
    """Replace all documents, tell that it is acknowledged, again and again, until killed."""
    limits = Limits(tail_rows=150)  # so that segments come and go as they do in large indexes
    rng = random.Random(seed)
    with Index.open(path, model=encoder(), limits=limits) as index:
        while True:
            number = board["acknowledged"] + 1
            index.add(list(make_generation(number)))
            board["acknowledged"] = number
            board["commits"] += 1
            if rng.random() < 0.06:
                board["compacting"] = 1
                index.compact()
                board["compacting"] = 0
                board["compactions"] += 1


# --- the readers ---------------------------------------------------------------------------------


class Reader:
    """Reads in every way and checks each answer.

    Attributes:
        reopens: Whether it opens the index again now and then, or holds it all the time.
        newest: The latest generation it has seen, in whichever way.
    """

    def __init__(self, path: Path, board: Board, seed: str, *, reopens: bool) -> None:
        self.path = path
        self.board = board
        self.rng = random.Random(seed)
        self.reopens = reopens
        self.newest = 0
        self.seen: Seen = Counter()

    def read(self) -> Seen:
        """Read until told to stop."""
        os.nice(5)  # there is one writer and many readers
        while not self.board["stopped"]:
            read_only = not self.reopens or self.rng.random() < 0.5
            with Index.open(self.path, model=encoder(), read_only=read_only) as index:
                self.seen["opened"] += 1
                self.read_from(index)
        return self.seen

    def read_from(self, index: Index) -> None:
        """Read from one open index."""
        while not self.board["stopped"]:
            before = self.board["acknowledged"]
            kind = self.rng.choice(KINDS)
            generation = getattr(self, f"_look_{kind}")(index)
            self.seen[kind] += 1
            what = f"{kind} saw generation {generation} after "
            require(generation >= before, f"{what}{before} was acknowledged")
            require(generation >= self.newest, f"{what}having seen {self.newest}")
            self.newest = generation
            if self.reopens and self.rng.random() < 0.03:
                return

    def _query(self) -> str:
        return " ".join(self.rng.choices(WORDS, k=3))

    def _name(self) -> str:
        return f"d{self.rng.randrange(DOCUMENTS)}"

    def _look_search(self, index: Index) -> int:
        return _one_generation(index.search(self._query(), k=5))

    def _look_group(self, index: Index) -> int:
        hits = index.search(self._query(), k=DOCUMENTS, group="document", fold=False)
        _require_all({hit.document_id for hit in hits})
        return _one_generation(hits)

    def _look_all(self, index: Index) -> int:
        hits = index.search(self._query(), k=1000, fold=False)
        generation = _one_generation(hits)
        texts: dict[str, list[Any]] = {}
        for hit in hits:
            texts.setdefault(hit.document_id, []).append((hit.span, hit.text))
        _require_all(set(texts))
        for name, found in texts.items():
            _require_whole(name, generation, [text for _, text in sorted(found)])
        return generation

    def _look_get(self, index: Index) -> int:
        name = self._name()
        document = index.get(name)
        if document is None:
            raise Failure(f"{name} is missing")
        generation = int(document.metadata["generation"])
        digest = hashlib.sha256(document.text.encode()).hexdigest()
        right = digest == document.metadata["sha256"]
        require(right, f"the text of {name} is not that of generation {generation}")
        return generation

    def _look_chunks(self, index: Index) -> int:
        name = self._name()
        texts = [chunk.text for chunk in index.chunks(name)]
        require(texts, f"{name} has no chunks")
        generation = int(texts[0].split("generation ")[1].split(".")[0])
        _require_whole(name, generation, texts)
        return generation


def _one_generation(hits: Results) -> int:
    found = {hit.metadata["generation"] for hit in hits}
    require(len(found) == 1, f"torn: one search saw generations {sorted(found)}")
    return int(found.pop())


def _require_all(names: set[str]) -> None:
    require(len(names) == DOCUMENTS, f"a search for everything found only {sorted(names)}")


def _require_whole(name: str, generation: int, texts: list[str]) -> None:
    wanted = make_generation(generation)[int(name[1:])].text
    found = " ".join(texts)
    require(found.split() == wanted.split(), f"half of {name} in {generation}: {found!r}")


def _read_in_threads(path: Path, board: Board, seed: str) -> Seen:
    """Read from one index in several threads."""
    os.nice(5)
    readers = [Reader(path, board, f"{seed} {n}", reopens=False) for n in range(THREADS)]
    problems: list[str] = []

    def read(reader: Reader, index: Index) -> None:
        try:
            reader.read_from(index)
        except Failure as failure:
            problems.append(str(failure))
        except BaseException:
            problems.append(traceback.format_exc())

    with Index.open(path, model=encoder(), read_only=True) as index:
        threads = [threading.Thread(target=read, args=(reader, index)) for reader in readers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    require(not problems, "; ".join(problems))
    seen: Seen = Counter({"opened": 1})
    for reader in readers:
        seen.update(reader.seen)
    seen["in threads"] = seen.total() - 1
    return seen

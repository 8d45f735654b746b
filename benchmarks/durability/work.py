"""Seeded mixed work on an index, and what must hold after it was cut short.

The work is a sequence of calls. Each is announced before it is made and acknowledged when it has
returned, in a journal outside the index, so that whoever finds the index later knows what it must
hold: every acknowledged call in full, and of the one that was cut short a prefix of whole batches.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import faiss  # noqa: F401  here, once, and not in every forked trial
import numpy as np

from retriever import Document, Index, Limits
from retriever.storage.locking import WriteLock
from retriever.testing import HashEncoder, exact_search

from .runner import Seen, require

DIMENSION = 32
BATCH = 20
ROW = DIMENSION * 4
# Segments and merges are small, so that a second of work has many of each.
LIMITS = Limits(
    commit_documents=BATCH,
    commit_seconds=60.0,
    tail_rows=200,
    tail_texts=20,  # segments of words are written, merged and killed in every trial
    merge_bytes=1500 * ROW,
    compact_bytes=1000 * ROW,
)
LOCK_FREE_S = 1.0
WORDS = ["pump", "reset", "water", "harbour", "tide", "ledger", "clock", "seal", "valve", "storm"]
CHUNKINGS: list[dict[str, Any]] = [
    {"unit": "window", "tokens": None, "overlap": 4},
    {"unit": "window", "tokens": 12, "overlap": 0},
    {"unit": "document"},
]
MIX = ["add"] * 5 + ["replace"] * 4 + ["delete"] * 2 + ["purge", "compact", "rebuild", "reopen"]
# Every step of the protocol at least once, in an order that gives each something to do.
_FIRST = ["add", "add", "replace", "add", "delete", "add", "reopen", "replace", "add", "add"]
_THEN = ["purge", "rot", "repair", "add", "compact", "replace", "rebuild", "add", "break", "repair"]
SCRIPT = [*_FIRST, *_THEN, "add", "purge", "reopen", "add", "delete", "compact"]

Call = dict[str, Any]
Known = dict[str, int]


class _Encoder(HashEncoder):
    """One that does not remember what it has encoded, for work that goes on for long."""

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        return self.encode_queries(texts)


def encoder() -> HashEncoder:
    """Return the encoder of every index here."""
    return _Encoder(DIMENSION, max_tokens=24)


def make_document(document_id: str, version: int) -> Document:
    """Return the one document that an id and a version stand for."""
    rng = random.Random(f"{document_id} {version}")
    count = rng.choice([0, 3, 20, 60, 200])
    text = " ".join(rng.choice(WORDS) for _ in range(count))
    if count:
        text += f"\n\n{document_id} in version {version}."
    embedding = None
    if rng.random() < 0.25:
        vector = np.random.default_rng(rng.randrange(1 << 32)).standard_normal(DIMENSION)
        embedding = vector.astype(np.float32)
    metadata = {"version": version}
    return Document(text, document_id, metadata, title=f"v{version}", embedding=embedding)


# --- the calls -------------------------------------------------------------------------------


class Journal(Protocol):
    """Where calls are announced and acknowledged."""

    def intend(self, call: Call) -> None:
        """Note that a call is about to be made."""

    def acknowledge(self, call: Call) -> None:
        """Note that a call has returned."""


class FileJournal:
    """A journal in a file; what is written outlives the process."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")

    def _write(self, **entry: Any) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def intend(self, call: Call) -> None:
        """See `Journal`."""
        self._write(intent=call)

    def acknowledge(self, call: Call) -> None:
        """See `Journal`."""
        self._write(done=call["number"])

    @staticmethod
    def read(path: Path) -> list[Call]:
        """Return the calls, in order, each with `done`."""
        calls: list[Call] = []
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        for line in lines:
            entry = json.loads(line)
            if "intent" in entry:
                calls.append({**entry["intent"], "done": False})
            elif "done" in entry:
                calls[-1]["done"] = True
        return calls


def plan(rng: random.Random, known: Known, number: int, kind: str | None = None) -> Call:
    """Choose the next call; `versions` are the documents it leaves behind, None where deleted."""
    kind = kind or (rng.choice(MIX) if known else "add")
    version = rng.randrange(1 << 40)
    versions: dict[str, int | None] = {}
    if kind == "add":
        versions = {f"d{rng.randrange(1 << 30)}": version for _ in range(rng.choice([1, 7, 50]))}
    elif kind == "replace":
        some = rng.sample(sorted(known), min(len(known), rng.choice([1, 5, 50])))
        versions = dict.fromkeys(some, version)
    elif kind in ("delete", "purge"):
        some = rng.sample(sorted(known), min(len(known), rng.choice([1, 5, 20])))
        versions = dict.fromkeys(some)
    return {
        "number": number,
        "kind": kind,
        "versions": versions,
        "chunking": rng.choice(CHUNKINGS),
        "luck": rng.randrange(1 << 30),
    }


def apply(known: Known, call: Call) -> None:
    """Change what is known as a finished call does."""
    for name, version in call["versions"].items():
        if version is None:
            known.pop(name, None)
        else:
            known[name] = version


def calls(seed: str, known: Known, script: list[str] | None = None) -> Iterator[Call]:
    """Yield calls for ever, or those of a script; `known` is what the finished ones left."""
    rng = random.Random(seed)
    number = 0
    while script is None or number < len(script):
        yield plan(rng, known, number, script[number] if script else None)
        number += 1


def open_index(path: Path, *, create: bool = False) -> Index:
    """Open the index of a trial."""
    chunking = CHUNKINGS[0] if create else None
    return Index.open(path, model=encoder(), chunking=chunking, limits=LIMITS)


class Session:
    """An open index on which calls are made; with `workers`, an add forks one under the lock."""

    def __init__(self, path: Path, workers: Workers | None = None) -> None:
        self.path = path
        self.workers = workers
        self.index = open_index(path, create=not (path / "HEAD").exists())
        if workers is not None:
            workers.spawn()

    def perform(self, call: Call) -> None:
        """Make a call."""
        kind, versions = call["kind"], call["versions"]
        if kind in ("add", "replace"):
            with self.index.writing():
                if self.workers is not None and kind == "add":
                    self.workers.fork()
                self.index.add([make_document(name, version) for name, version in versions.items()])
        elif kind in ("delete", "purge"):
            self.index.delete(list(versions), purge=kind == "purge")
        elif kind == "compact":
            self.index.compact()
        elif kind == "rebuild":
            self.index.rebuild(chunking=call["chunking"])
        elif kind == "reopen":
            self.reopen()
        elif kind in ("rot", "break"):
            self.index.close()
            (spoil_segment if kind == "rot" else spoil_database)(self.path, call["luck"])
        elif kind == "repair":
            self.index.close()
            Index.repair_path(self.path, model=encoder(), limits=LIMITS)
            self.reopen()
        else:
            raise ValueError(kind)

    def reopen(self) -> None:
        """Close the index, which empties the log, and open it again."""
        self.index.close()
        self.index = open_index(self.path)


def spoil_segment(path: Path, luck: int) -> None:
    """Damage a byte of one segment file, if there is one; repair builds it again."""
    # Their names are random: by size, a script that is run again damages the same one.
    names = sorted(path.glob("segment-*"), key=lambda file: (file.suffix, file.stat().st_size))
    if names:
        name = names[luck % len(names)]
        data = bytearray(name.read_bytes())
        data[luck % len(data)] ^= 0xFF
        name.write_bytes(data)


def spoil_database(path: Path, _: int) -> None:
    """Damage a row that holds no content, so that repair copies all else to a new database."""
    connection = sqlite3.connect(path / "store.db", isolation_level=None)
    connection.execute("UPDATE settings SET value = 'spoilt' WHERE key = 'created_by'")
    connection.close()


def make_calls(
    session: Session, journal: Journal, known: Known, planned: Iterator[Call]
) -> Iterator[Call]:
    """Make the calls planned, yielding each once it is acknowledged."""
    for call in planned:
        journal.intend(call)
        session.perform(call)
        journal.acknowledge(call)
        apply(known, call)
        yield call


# --- what must hold --------------------------------------------------------------------------


def split(known: Known, made: list[Call]) -> Call | None:
    """Apply every acknowledged call; return the one that was cut short."""
    for call in made:
        if call["done"]:
            apply(known, call)
    return made[-1] if made and not made[-1]["done"] else None


def check(path: Path, known: Known, cut_short: Call | None, *, write: bool = True) -> Seen:
    """Require all that was promised of an index whose writer is gone.

    Args:
        path: The index.
        known: What the acknowledged calls left; becomes what the index holds.
        cut_short: The call that did not return, if there was one.
        write: Also make a further change.
    """
    seen: Seen = Counter()
    seen["max lock ms"] = require_free_lock(path)
    if cut_short is not None:
        seen[f"cut short: {cut_short['kind']}"] += 1
        if cut_short["kind"] in ("rot", "break", "repair"):
            _finish_repair(path)
    with open_index(path) as index:
        report = index.verify(deep=True)
        require(report.ok, f"verify: {report.problems[:3]}")
        found = {document.id or "": document for document in index.documents()}
        if cut_short is not None:
            _check_prefix(found, known, cut_short)
            done = {n: v for n, v in cut_short["versions"].items() if _is_new(found.get(n), v)}
            apply(known, {"versions": done})
        check_documents(index, found, known)
        check_searches(index)
        lost = [loss for loss in index.status().losses if "no document" not in str(loss)]
        require(not lost, f"the index says that it has lost {lost}")
        if write:
            index.add([make_document("one more", 1)])
            known["one more"] = 1
            require(index.get("one more") is not None, "the next writer's document is not there")
    return seen


def require_free_lock(path: Path) -> int:
    """Require that the lock can be had at once; return the milliseconds it took."""
    began = time.monotonic()
    lock = WriteLock(path)
    lock.acquire(LOCK_FREE_S)
    lock.release()
    return round(1000 * (time.monotonic() - began))


def _finish_repair(path: Path) -> None:
    """Repair what was damaged on purpose, or go on with a repair that was cut short."""
    report = Index.repair_path(path, model=encoder(), limits=LIMITS)
    require(report.ok, f"repair: {report.verify.problems[:3]}")
    lost = [item for item in report.lost if item.document_id]
    require(not lost, f"repair lost {lost[:3]}")


def _check_prefix(found: dict[str, Document], known: Known, call: Call) -> None:
    """Require that what a call has changed is a prefix of whole batches."""
    changed = [_is_new(found.get(name), version) for name, version in call["versions"].items()]
    count = sum(changed)
    require(all(changed[:count]), f"call {call['number']} left a gap: {changed}")
    is_batch = count == len(changed) or count % BATCH == 0
    is_batch = is_batch or call["kind"] not in ("add", "replace")
    require(is_batch, f"call {call['number']} left a part of a batch: {count}")
    whole = call["kind"] not in ("delete", "purge") or count in (0, len(changed))
    require(whole, f"a delete in one commit was half done: {changed}")
    for name, version in call["versions"].items():
        if not _is_new(found.get(name), version):
            is_there, was_there = name in found, name in known
            require(is_there == was_there, f"{name} is neither old nor new")


def _is_new(document: Document | None, version: int | None) -> bool:
    if version is None or document is None:
        return document is None and version is None
    return bool(document.metadata["version"] == version)


def check_documents(index: Index, found: dict[str, Document], known: Known) -> None:
    """Require that an index holds exactly what is known, and chunks that are slices of it."""
    lost = sorted(known.keys() - found.keys())
    extra = sorted(found.keys() - known.keys())
    require(not lost, f"{len(lost)} acknowledged documents are lost: {lost[:3]}")
    require(not extra, f"{len(extra)} deleted documents are back: {extra[:3]}")
    require(index.count() == len(known), f"count() is {index.count()}, not {len(known)}")
    for name, version in known.items():
        wanted = make_document(name, version)
        require(found[name] == wanted, f"{name} is not version {version} as it was written")
    for name in random.Random(0).sample(sorted(known), min(20, len(known))):
        chunks = index.chunks(name)
        text = found[name].text
        right = all(chunk.text == text[slice(*chunk.span)] for chunk in chunks)
        require(right and (chunks or not text.strip()), f"the chunks of {name} are not its text")


def unit(vector: np.ndarray) -> np.ndarray:
    """Return a vector as the index keeps it."""
    scaled = vector.astype(np.float64) / float(np.abs(vector).max())
    return (scaled / np.linalg.norm(scaled)).astype(np.float32)


def check_searches(index: Index) -> None:
    """Compare searches with NumPy over the encoder's own vectors of what `chunks` says is there."""
    rows: list[tuple[int, str]] = []
    vectors: list[np.ndarray] = []
    maker = encoder()
    for document in index.documents():
        made = make_document(document.id or "", document.metadata["version"])
        chunks = index.chunks(document.id or "")
        rows += [(chunk.id or 0, chunk.text) for chunk in chunks]
        if made.embedding is None:
            encoded = maker.encode_queries([chunk.text for chunk in chunks]).astype(np.float64)
            vectors += list((encoded / np.linalg.norm(encoded, axis=1)[:, None]).astype("f4"))
        else:
            vectors.append(unit(made.embedding))
    order = sorted(range(len(rows)), key=rows.__getitem__)
    matrix = [vectors[i] for i in order]
    for seed in range(3):
        query = np.random.default_rng(seed).standard_normal(DIMENSION)
        hits = [
            (hit.chunk_id, hit.text, hit.score)
            for hit in index.search(vector=query, k=20, fold=False)
        ]
        expected = [
            (*rows[order[position]], score)
            for position, score in exact_search(matrix, unit(query), 20)
        ]
        require(hits == expected, "a search is not what NumPy finds")


class Workers:
    """Processes started by a writer that outlive it, and must not keep its lock.

    Made before the writer is forked; the writer starts workers, and whoever looks at what it
    left ends them.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def fork(self) -> None:
        """Fork one, as a careless program does."""
        if os.fork() == 0:
            os.close(self._write)
            os.read(self._read, 1)
            os._exit(0)

    def spawn(self) -> None:
        """Start another program."""
        subprocess.Popen(["sh", "-c", "read x"], stdin=self._read, start_new_session=False)

    def end(self) -> None:
        """Let all of them end."""
        os.close(self._write)
        os.close(self._read)

"""Kill a writer at random moments and look at what is left.

    python benchmarks/kill.py --trials 200 --seed 1

A child does seeded mixed work (add, replace, delete, purge, compact, rebuild) with worker
processes of its own alive, and journals what it is about to do and what has returned. The parent
kills it with SIGKILL after a random time, and then requires, of every trial: the lock is free at
once, the index opens, `verify` finds nothing, every acknowledged document is there with its exact
text, every document of the call that was cut short is completely old or completely new, in a
prefix of batches, and searches agree with NumPy.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support import HashEncoder, exact_search

from retriever import Document, Index, ingest
from retriever.storage import segments
from retriever.storage.locking import WriteLock

DIMENSION = 32
TRIALS_PER_INDEX = 10
WORDS = ["pump", "reset", "water", "harbour", "tide", "ledger", "clock", "seal", "valve", "storm"]
CHUNKINGS: list[dict[str, Any]] = [
    {"unit": "window", "tokens": None, "overlap": 4},
    {"unit": "window", "tokens": 12, "overlap": 0},
    {"unit": "document"},
]
CALLS = ["add"] * 5 + ["replace"] * 4 + ["delete"] * 2 + ["purge", "compact", "rebuild"]


def encoder() -> HashEncoder:
    return HashEncoder(DIMENSION, max_tokens=24)


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


# --- the child -------------------------------------------------------------------------------


class Journal:
    """What is intended and what is acknowledged, in a file beside the index."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")

    def write(self, **entry: Any) -> None:
        """Add an entry, durably."""
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def shrink() -> None:
    """Make segments, merges and batches small, so that a second of work has many of each."""
    segments.TAIL_ROWS = 200
    segments.MERGE_BYTES = 1500 * DIMENSION * 4
    segments.COMPACT_BYTES = 1000 * DIMENSION * 4
    ingest.BATCH_DOCUMENTS = 20


def wait_until_orphaned(parent: int) -> None:
    """Be a worker that lives as long as its parent, which may be dead before this begins."""
    while os.getppid() == parent:
        time.sleep(0.05)


def work(index_path: Path, journal_path: Path, seed: int) -> None:
    """Write until killed."""
    shrink()
    rng = random.Random(seed)
    context = multiprocessing.get_context("spawn")
    known = json.loads(journal_path.with_suffix(".known").read_text())
    journal = Journal(journal_path)
    with Index.open(
        index_path, model=encoder(), chunking=CHUNKINGS[0] if not known else None
    ) as index:
        for _ in range(2):
            context.Process(target=wait_until_orphaned, args=(os.getpid(),), daemon=True).start()
        journal.write(ready=True)
        for number in itertools.count():
            call = plan(rng, known, number)
            journal.write(intent=call)
            perform(index, call)
            journal.write(done=number)
            apply(known, call)


def plan(rng: random.Random, known: dict[str, int], number: int) -> dict[str, Any]:
    """Choose the next call; `versions` are the documents it leaves behind, None where deleted."""
    kind = rng.choice(CALLS) if known else "add"
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
    chunking = rng.choice(CHUNKINGS)
    return {"number": number, "kind": kind, "versions": versions, "chunking": chunking}


def perform(index: Index, call: dict[str, Any]) -> None:
    kind, versions = call["kind"], call["versions"]
    if kind in ("add", "replace"):
        index.add([make_document(name, version) for name, version in versions.items()])
    elif kind in ("delete", "purge"):
        index.delete(list(versions), purge=kind == "purge")
    elif kind == "compact":
        index.compact()
    else:
        index.rebuild(chunking=call["chunking"])


def apply(known: dict[str, int], call: dict[str, Any]) -> None:
    for name, version in call["versions"].items():
        if version is None:
            known.pop(name, None)
        else:
            known[name] = version


# --- the parent ------------------------------------------------------------------------------


class Failure(Exception):
    """What a trial must not show."""


def require(condition: object, what: str) -> None:
    if not condition:
        raise Failure(what)


def trial(folder: Path, known: dict[str, int], seed: int, longest: float) -> Counter[str]:
    """Run one child, kill it, check; `known` becomes what the index holds now."""
    rng = random.Random(seed)
    journal = folder / "journal"
    journal.unlink(missing_ok=True)
    journal.with_suffix(".known").write_text(json.dumps(known))
    arguments = [sys.executable, __file__, "--work", str(folder), "--seed", str(seed)]
    errors = folder / "stderr"
    with errors.open("wb") as stderr:
        child = subprocess.Popen(arguments, stderr=stderr)
        # One child in five is killed while it starts, and creates the index.
        if rng.random() < 0.8:
            _wait_until_ready(child, journal, errors)
        time.sleep(rng.uniform(0.02, longest))
        require(child.poll() is None, f"the writer ended by itself: {errors.read_text()[-2000:]}")
        child.send_signal(signal.SIGKILL)
        child.wait()
    return _check_after_kill(folder, known, journal)


def _wait_until_ready(child: subprocess.Popen[bytes], journal: Path, errors: Path) -> None:
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.stat().st_size):
        require(child.poll() is None, f"the writer ended by itself: {errors.read_text()[-2000:]}")
        require(time.monotonic() < deadline, "the writer did not start within a minute")
        time.sleep(0.005)


def _check_after_kill(folder: Path, known: dict[str, int], journal: Path) -> Counter[str]:
    path = folder / "i.index"
    calls = _read_journal(journal)
    for call in calls[:-1]:
        apply(known, call)
    cut_short = calls[-1] if calls else None
    seen: Counter[str] = Counter(call["kind"] for call in calls)
    if cut_short is not None and cut_short["done"]:
        apply(known, cut_short)
        cut_short = None
    if not path.exists() or not (known or cut_short or calls or (path / "HEAD").exists()):
        seen["killed before the index existed"] += 1
        if path.exists():
            Index.open(path, model=encoder(), chunking=CHUNKINGS[0]).close()
        return seen
    began = time.monotonic()
    lock = WriteLock(path)
    lock.acquire(1.0)
    seen["lock_ms"] = round(1000 * (time.monotonic() - began))
    lock.release()
    with Index.open(path, model=encoder()) as index:
        report = index.verify(deep=True)
        require(report["ok"], f"verify: {report['problems'][:3]}")
        found = {document.id or "": document for document in index.documents()}
        if cut_short is not None:
            seen["calls cut short"] += 1
            seen[f"cut short: {cut_short['kind']}"] += 1
            _check_prefix(found, known, cut_short)
            _take_what_is_there(found, known, cut_short)
        _check_documents(index, found, known)
        _check_searches(index)
        _check_next_writer(index, known)
    return seen


def _read_journal(journal: Path) -> list[dict[str, Any]]:
    """Return the calls, in order; all but the last returned."""
    calls: list[dict[str, Any]] = []
    lines = journal.read_text().split("\n")[:-1] if journal.exists() else []
    for line in lines:
        entry = json.loads(line)
        if "intent" in entry:
            calls.append({**entry["intent"], "done": False})
        elif "done" in entry:
            calls[-1]["done"] = True
    return calls


def _check_prefix(found: dict[str, Document], known: dict[str, int], call: dict[str, Any]) -> None:
    """Require that what a call has changed is a prefix of whole batches."""
    changed = [_is_new(found.get(name), version) for name, version in call["versions"].items()]
    count = sum(changed)
    require(all(changed[:count]), f"call {call['number']} left a gap: {changed}")
    is_batch = count == len(changed) or count % 20 == 0 or call["kind"] not in ("add", "replace")
    require(is_batch, f"call {call['number']} left a part of a batch: {count}")
    whole = call["kind"] not in ("delete", "purge") or count in (0, len(changed))
    require(whole, f"a delete in one commit was half done: {changed}")
    for name, version in call["versions"].items():
        if not _is_new(found.get(name), version):
            document, old = found.get(name), known.get(name)
            require((document is None) == (old is None), f"{name} is neither old nor new")


def _is_new(document: Document | None, version: int | None) -> bool:
    if version is None or document is None:
        return document is None and version is None
    return document.metadata["version"] == version


def _take_what_is_there(
    found: dict[str, Document], known: dict[str, int], call: dict[str, Any]
) -> None:
    done = {n: v for n, v in call["versions"].items() if _is_new(found.get(n), v)}
    apply(known, {"versions": done})


def _check_documents(index: Index, found: dict[str, Document], known: dict[str, int]) -> None:
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


def _check_searches(index: Index) -> None:
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
    for seed in range(3):
        query = np.random.default_rng(seed).standard_normal(DIMENSION)
        hits = [(hit.chunk_id, hit.text, hit.score) for hit in index.search(vector=query, k=20)]
        expected = [
            (*rows[order[position]], score)
            for position, score in exact_search([vectors[i] for i in order], unit(query), 20)
        ]
        require(hits == expected, "a search is not what NumPy finds")


def _check_next_writer(index: Index, known: dict[str, int]) -> None:
    index.add([make_document("after the kill", 1)])
    known["after the kill"] = 1
    require(index.get("after the kill") is not None, "what the next writer added is not there")


def run(trials: int, seed: int, folder: Path, longest: float) -> tuple[Counter[str], int]:
    """Run every trial; return what was seen, and how many failed."""
    total: Counter[str] = Counter()
    failures = 0
    known: dict[str, int] = {}
    slowest = 0
    for number in range(trials):
        own = seed * 1_000_003 + number
        if number % TRIALS_PER_INDEX == 0:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            known = {}
        try:
            seen = trial(folder, known, own, longest)
        except Exception as error:
            failures += 1
            aside = folder.with_name(f"{folder.name}.failed-{own}")
            shutil.copytree(folder, aside, dirs_exist_ok=True)
            print(f"trial {number} (seed {own}) FAILED: {error!r}; kept in {aside}", flush=True)
            shutil.rmtree(folder)
            folder.mkdir()
            known = {}
            continue
        slowest = max(slowest, seen.pop("lock_ms", 0))
        total += seen
        if trials <= 20 or number % 20 == 19:
            print(f"trial {number} (seed {own}): {len(known)} documents, {dict(seen)}", flush=True)
    total["slowest_lock_ms"] = slowest
    return total, failures


def processor() -> str:
    """Return the name of the processor."""
    with Path("/proc/cpuinfo").open() as lines:
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--longest", type=float, default=2.0, help="seconds before a kill, at most")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        work(options.work / "i.index", options.work / "journal", options.seed)
        return 0
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kill-"))
    began = time.monotonic()
    total, failures = run(options.trials, options.seed, folder / "trial", options.longest)
    print(f"processor: {processor()}; seed {options.seed}")
    print(f"calls made: {dict(total)}")
    print(
        f"{options.trials} kills in {time.monotonic() - began:.0f} s: {failures} failed "
        "(lost, half, unopenable, wrong search, lock not free within a second)"
    )
    if not failures:
        shutil.rmtree(folder)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

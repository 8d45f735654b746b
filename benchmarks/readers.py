"""Readers in other processes while one writes: nothing stale, nothing torn, and memory shared.

    python benchmarks/readers.py --readers 8 --seconds 60 --vectors 200000

First one process replaces every document again and again, and compacts now and then, while the
readers search. A reader that starts a search after a generation was acknowledged must see it or a
later one, never go back, and never see documents of two generations or a part of one. Then the
readers search one large index, and /proc says whose memory that takes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support import HashEncoder, unit_vectors

from retriever import Document, Index

DOCUMENTS = 12
WORDS = ["pump", "reset", "water", "harbour", "tide", "ledger", "clock", "seal", "valve"]
DIMENSION = 32
LARGE_DIMENSION = 384
CONTEXT = multiprocessing.get_context("spawn")


def encoder() -> HashEncoder:
    return HashEncoder(DIMENSION, max_tokens=16)


def make_generation(number: int) -> list[Document]:
    """Return every document as it is in one generation; each knows the hash of its text."""
    documents = []
    for position in range(DOCUMENTS):
        rng = random.Random(f"{number} {position}")
        lines = (" ".join(rng.choices(WORDS, k=12)) for _ in range(rng.randrange(2, 7)))
        text = "\n\n".join([f"Document {position}, generation {number}.", *lines])
        digest = hashlib.sha256(text.encode()).hexdigest()
        metadata = {"generation": number, "sha256": digest}
        documents.append(Document(text, f"d{position}", metadata))
    return documents


# --- processes -------------------------------------------------------------------------------


def write(path: str, acknowledged: Any, stop: Any, results: Any) -> None:
    """Replace all documents, tell that it is acknowledged, again and again."""
    seen: Counter[str] = Counter()
    try:
        with Index.open(path, model=encoder(), lock_timeout_s=30) as index:
            for number in range(2, 1 << 40):
                if stop.is_set():
                    break
                index.add(make_generation(number))
                acknowledged.value = number
                seen["commits"] += 1
                if number % 97 == 0:
                    index.compact()
                    seen["compactions"] += 1
    except BaseException:
        seen["errors"] += 1
        results.put(("writer", dict(seen), traceback.format_exc()))
        return
    results.put(("writer", dict(seen), ""))


def read(path: str, seed: int, acknowledged: Any, stop: Any, results: Any) -> None:
    """Search in every way and check each answer."""
    seen: Counter[str] = Counter()
    problem = ""
    try:
        rng = random.Random(seed)
        newest = 0
        with Index.open(path, model=encoder(), read_only=True) as index:
            while not stop.is_set():
                before = acknowledged.value
                generation, problem = look(index, rng, seen)
                if generation < before:
                    seen["stale"] += 1
                    problem = f"saw {generation} after {before} was acknowledged"
                if generation < newest:
                    seen["backwards"] += 1
                    problem = f"saw {generation} after having seen {newest}"
                if problem:
                    break
                newest = max(newest, generation)
    except BaseException:
        seen["errors"] += 1
        problem = traceback.format_exc()
    results.put(("reader", dict(seen), problem))


def look(index: Index, rng: random.Random, seen: Counter[str]) -> tuple[int, str]:
    """Read in one way; return the generation seen, and what was wrong with it."""
    kind = rng.choice(["search", "search", "all", "group", "get", "chunks"])
    seen[kind] += 1
    query = " ".join(rng.choices(WORDS, k=3))
    if kind == "get":
        document = index.get(f"d{rng.randrange(DOCUMENTS)}")
        if document is None:
            return 0, "a document is missing"
        return _generation([document.metadata]), _half(document.text, document.metadata)
    if kind == "chunks":
        name = f"d{rng.randrange(DOCUMENTS)}"
        text = " ".join(chunk.text for chunk in index.chunks(name))
        number = int(text.split("generation ")[1].split(".")[0])
        wanted = make_generation(number)[int(name[1:])].text
        return number, "" if text.split() == wanted.split() else f"half of {name}: {text!r}"
    if kind == "group":
        hits = index.search(query, k=DOCUMENTS, group="document")
        torn = "" if len({hit.document_id for hit in hits}) == DOCUMENTS else "documents missing"
        return _generation([hit.metadata for hit in hits]), torn or _torn(hits)
    hits = index.search(query, k=5 if kind == "search" else 1000)
    problem = _torn(hits)
    if kind == "all" and not problem:
        by_document: dict[str, list[Any]] = {}
        for hit in hits:
            by_document.setdefault(hit.document_id, []).append(hit)
        for found in by_document.values():
            found.sort(key=lambda hit: hit.span)
            text = " ".join(hit.text for hit in found)
            wanted = make_generation(found[0].metadata["generation"])
            whole = wanted[int(found[0].document_id[1:])].text
            if text.split() != whole.split():
                problem = f"a search found half of {found[0].document_id}"
        if len(by_document) != DOCUMENTS:
            problem = f"a search for everything found {len(by_document)} documents"
    return _generation([hit.metadata for hit in hits]), problem


def _generation(metadata: list[Any]) -> int:
    return min(one["generation"] for one in metadata)


def _torn(hits: Any) -> str:
    found = {hit.metadata["generation"] for hit in hits}
    return "" if len(found) == 1 else f"one search saw generations {sorted(found)}"


def _half(text: str, metadata: Any) -> str:
    right = hashlib.sha256(text.encode()).hexdigest() == metadata["sha256"]
    return "" if right else f"the text is not that of generation {metadata['generation']}"


def hold(path: str, ready: Any, stop: Any, seed: int) -> None:
    """Search the large index, then stay, so that memory can be looked at."""
    with Index.open(path, read_only=True, threads=1) as index:
        for query in unit_vectors(5, LARGE_DIMENSION, seed):
            index.search(vector=query)
        ready.release()
        stop.wait()


# --- the two measurements --------------------------------------------------------------------


def run_under_writes(folder: Path, readers: int, seconds: float) -> dict[str, Any]:
    """Let one process write and the others read; return counts and problems."""
    path = folder / "written.index"
    # Text would be cut with an overlap; without one, the chunks of a document are its text.
    chunking = {"unit": "window", "overlap": 0}
    with Index.open(path, model=encoder(), chunking=chunking) as index:
        index.add(make_generation(1))
    acknowledged, stop, results = CONTEXT.Value("q", 1), CONTEXT.Event(), CONTEXT.Queue()
    processes = [CONTEXT.Process(target=write, args=(str(path), acknowledged, stop, results))]
    processes += [
        CONTEXT.Process(target=read, args=(str(path), seed, acknowledged, stop, results))
        for seed in range(readers)
    ]
    for process in processes:
        process.start()
    time.sleep(seconds)
    stop.set()
    told = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    reads: Counter[str] = Counter()
    for who, seen, _ in told:
        reads.update(seen if who == "reader" else {})
    writer = next(seen for who, seen, _ in told if who == "writer")
    with Index.open(path, model=encoder()) as index:
        verified = index.verify(deep=True)["ok"]
    bad = {name: reads.pop(name, 0) for name in ("errors", "stale", "backwards")}
    return {
        "readers": readers,
        "seconds": seconds,
        "reads": reads.total(),
        "reads_by_kind": dict(reads),
        "writer": writer,
        **bad,
        "problems": [problem for _, _, problem in told if problem],
        "verify_ok": verified,
    }


def build_large(path: Path, vectors: int) -> None:
    """Make a compacted index; in a process of its own, which leaves nothing mapped."""
    with Index.open(path, model=HashEncoder(LARGE_DIMENSION)) as index:
        for first in range(0, vectors, 10_000):
            block = unit_vectors(min(10_000, vectors - first), LARGE_DIMENSION, first)
            index.add(
                [
                    Document(f"text {first + row}", f"d{first + row}", embedding=vector)
                    for row, vector in enumerate(block)
                ]
            )
        index.compact()


def measure_memory(folder: Path, readers: int, vectors: int) -> dict[str, Any]:
    """Return what the readers of one large index map, and what each has for itself, in bytes."""
    path = folder / "large.index"
    builder = CONTEXT.Process(target=build_large, args=(path, vectors))
    builder.start()
    builder.join()
    if builder.exitcode:
        raise SystemExit("the large index could not be built")
    ready, stop = CONTEXT.Semaphore(0), CONTEXT.Event()
    processes = [
        CONTEXT.Process(target=hold, args=(str(path), ready, stop, seed)) for seed in range(readers)
    ]
    try:
        for process in processes:
            process.start()
        for _ in processes:
            if not ready.acquire(timeout=300):
                raise SystemExit("a reader did not get ready")
        mapped = [mapped_segments(process.pid or 0) for process in processes]
        private = [private_memory(process.pid or 0) for process in processes]
    finally:
        stop.set()
        for process in processes:
            process.join()
    one = max(rss for rss, _ in mapped)
    total = sum(pss for _, pss in mapped)
    return {
        "vectors": vectors,
        "segment_bytes": sum(entry.stat().st_size for entry in path.glob("segment-*")),
        "one_reader_mapped_rss": one,
        "all_readers_mapped_pss": total,
        "ratio": round(total / one, 3) if one else None,
        "private_per_reader": sorted(private)[len(private) // 2],
    }


def mapped_segments(pid: int) -> tuple[int, int]:
    """Return resident and proportional bytes of a process's mappings of segment files."""
    rss = pss = 0
    is_segment = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        first = line.split(maxsplit=1)[0]
        if not first.endswith(":"):
            is_segment = "/segment-" in line
        elif is_segment and first == "Rss:":
            rss += 1024 * int(line.split()[1])
        elif is_segment and first == "Pss:":
            pss += 1024 * int(line.split()[1])
    return rss, pss


def private_memory(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private_"))


def processor() -> str:
    """Return the name of the processor."""
    with Path("/proc/cpuinfo").open() as lines:
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def is_good(report: dict[str, Any]) -> bool:
    """Return whether the reports show what they must."""
    written, memory = report["under_writes"], report.get("memory")
    bad = written["errors"] + written["stale"] + written["backwards"] + len(written["problems"])
    reads = written["reads"] > 0 and written["writer"].get("commits", 0) > 0
    shared = memory is None or (memory["ratio"] is not None and memory["ratio"] < 1.1)
    return bool(not bad and reads and written["verify_ok"] and shared)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--vectors", type=int, default=200_000, help="0 leaves memory out")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="readers-"))
    folder.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"schema": 1, "processor": processor()}
    try:
        report["under_writes"] = run_under_writes(folder, options.readers, options.seconds)
        if options.vectors:
            report["memory"] = measure_memory(folder, options.readers, options.vectors)
    finally:
        shutil.rmtree(folder)
    report["ok"] = is_good(report)
    print(json.dumps(report, indent=2))
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())

"""Readers of one large index in several processes: its vectors are in memory once.

    python -m benchmarks.shared_memory --readers 8 --vectors 200000

Each reader searches the index, and /proc says whose memory that takes. What readers see while a
writer is at work is the durability harness's to show.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from retriever import Document, Index
from retriever.testing import HashEncoder, unit_vectors

from .machine import machine, write_json
from .tables import show

DIMENSION = 384
MOST_RATIO = 1.1
CONTEXT = multiprocessing.get_context("spawn")


def hold(path: str, ready: Any, stop: Any, seed: int) -> None:
    """Search the large index, then stay, so that memory can be looked at."""
    with Index.open(path, read_only=True, threads=1) as index:
        for query in unit_vectors(5, DIMENSION, seed):
            index.search(vector=query)
        ready.release()
        stop.wait()


def build_large(path: Path, vectors: int) -> None:
    """Make a compacted index; in a process of its own, which leaves nothing mapped."""
    with Index.open(path, model=HashEncoder(DIMENSION)) as index:
        for first in range(0, vectors, 10_000):
            block = unit_vectors(min(10_000, vectors - first), DIMENSION, first)
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--vectors", type=int, default=200_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures here")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="shared-memory-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(machine())
    try:
        found = measure_memory(folder, options.readers, options.vectors)
    finally:
        shutil.rmtree(folder)
    show(
        f"{options.readers} readers of {options.vectors:,} mapped vectors, which are "
        f"{found['segment_bytes'] / 1e6:.0f} MB",
        ["what is in memory", ""],
        [
            [
                "shares of the mapped segments, of all readers, as a multiple of one reader's",
                f"{found['ratio']:.3f}" if found["ratio"] else "–",
            ],
            ["private memory of each, MB", f"{found['private_per_reader'] / 1e6:.0f}"],
        ],
    )
    write_json(options.json, found)
    return 0 if found["ratio"] is not None and found["ratio"] < MOST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())

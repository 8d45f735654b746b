"""What storage costs, encoding excluded: adds, bytes on disk, open, search, compact, verify.

    OMP_NUM_THREADS=2 python -m benchmarks.storage_cost --max 1000000

Random unit vectors of 384 dimensions stand for embeddings, and texts have about 1,000 characters.
Each figure stands beside a floor: a bare SQLite insert of the same bytes (one transaction, WAL,
synchronous=FULL), and a bare flat search of the same vectors with faiss and with NumPy.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from retriever import Document, Index, VerifyReport
from retriever.testing import HashEncoder, unit_vectors

from .machine import machine, write_json
from .tables import show

DIMENSION = 384
SIZES = (10_000, 100_000)
CALLS = (1, 100, 10_000)
RUNS = 3
BLOCK = 10_000
ENCODER = HashEncoder(DIMENSION)
WORDS = np.array(["the", "harbour", "master", "keeps", "a", "ledger", "of", "every", "ship"])
FRESH = """
import sys, time
began = time.perf_counter()
from retriever import Index
import numpy as np
imported = time.perf_counter()
vector = np.random.default_rng(0).standard_normal({dimension})
ready = time.perf_counter()
index = Index.open(sys.argv[1])
opened = time.perf_counter()
index.search(vector=vector)
searched = time.perf_counter()
print(imported - began, opened - ready, searched - opened)
"""


def make_documents(first: int, count: int) -> list[Document]:
    """Return documents of about 1,000 characters with unit vectors."""
    rng = np.random.default_rng(first)
    vectors = unit_vectors(count, DIMENSION, first)
    picks = rng.integers(0, len(WORDS), (count, 190))
    return [
        Document(
            f"{first + row} " + " ".join(WORDS[picks[row]].tolist()),
            f"document-{first + row}",
            {"year": 2024, "language": "en"},
            source=f"folder/file-{first + row}.txt",
            embedding=vectors[row],
        )
        for row in range(count)
    ]


def blocks(total: int) -> Iterator[list[Document]]:
    for first in range(0, total, BLOCK):
        yield make_documents(first, min(BLOCK, total - first))


def timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def size_of(path: Path) -> int:
    return sum(entry.stat().st_size for entry in path.iterdir() if entry.is_file())


# --- adding ----------------------------------------------------------------------------------


def measure_adds(folder: Path, per_call: int) -> dict[str, Any]:
    """Return documents per second and bytes per chunk for calls of a size."""
    total = {1: 200, 100: 5_000, 10_000: 20_000}[per_call]
    documents = [document for block in blocks(total) for document in block]
    rates, cpu_rates, sizes = [], [], []
    for run in range(RUNS):
        path = folder / f"adds-{per_call}-{run}.index"
        with Index.open(path, model=ENCODER) as index:
            empty = size_of(path)

            def add_all(index: Index = index) -> None:
                for first in range(0, total, per_call):
                    index.add(documents[first : first + per_call])

            began = time.process_time()
            rates.append(total / timed(add_all))
            cpu_rates.append(total / (time.process_time() - began))
        sizes.append((size_of(path) - empty) / total)
        shutil.rmtree(path)
    floors = [floor_insert(folder, documents, per_call) for _ in range(RUNS)]
    floor, cpu_floor = (statistics.median(column) for column in zip(*floors, strict=True))
    text = statistics.mean(len(document.text.encode()) for document in documents)
    return {
        "per_call": per_call,
        "documents": total,
        "documents_per_s": round(statistics.median(rates), 1),
        "sqlite_floor_per_s": round(floor, 1),
        # What a busy machine and its disk do not change.
        "documents_per_cpu_s": round(statistics.median(cpu_rates), 1),
        "sqlite_floor_per_cpu_s": round(cpu_floor, 1),
        "bytes_per_chunk": round(statistics.median(sizes)),
        "of_these_text_and_vector": round(text + DIMENSION * 4),
    }


def floor_insert(folder: Path, documents: list[Document], per_call: int) -> tuple[float, float]:
    """Return rows per second, and per second of processor time, of bare inserts of the bytes."""
    path = folder / "floor.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA page_size=8192")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, text BLOB, vector BLOB)")
    rows = [(None, d.text.encode(), np.asarray(d.embedding).tobytes()) for d in documents]
    began, cpu = time.perf_counter(), time.process_time()
    for first in range(0, len(rows), per_call):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO t VALUES (?, ?, ?)", rows[first : first + per_call])
        connection.execute("COMMIT")
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    connection.close()
    for name in ("floor.db", "floor.db-wal", "floor.db-shm"):
        (folder / name).unlink(missing_ok=True)
    return len(rows) / seconds, len(rows) / cpu


# --- a large index ---------------------------------------------------------------------------


def measure_size(path: Path, total: int, had: int) -> dict[str, Any]:
    """Grow an index to a size and measure what one does with it."""
    added = 0.0
    with Index.open(path, model=ENCODER) as index:
        for first in range(had, total, BLOCK):
            documents = make_documents(first, min(BLOCK, total - first))
            added += timed(lambda documents=documents, index=index: index.add(documents))
        before = {"tail": measure_search(index)}
        compacted = timed(index.compact)
        verified = timed(lambda: require_ok(index.verify()))
        status = index.status()
    measured = {
        "vectors": total,
        "bulk_add_per_s": round((total - had) / added),
        "compact_s_per_100k": round(compacted / total * 1e5, 2),
        "verify_s_per_100k": round(verified / total * 1e5, 2),
        "bytes_per_chunk": round(status.bytes_on_disk / total),
        "segments": len(status.segments),
        **measure_fresh(path),
    }
    with Index.open(path) as index:
        measured["warm"] = measure_search(index)
    measured["warm_before_compact"] = before["tail"]
    measured["floor"] = measure_floor(total)
    return measured


def require_ok(report: VerifyReport) -> None:
    if not report.ok:
        raise SystemExit(f"verify: {report.problems}")


def measure_fresh(path: Path) -> dict[str, float]:
    """Return the times of a new process: import, open, and first search."""
    code = FRESH.format(dimension=DIMENSION)
    command = [sys.executable, "-c", code, str(path)]
    runs = []
    for _ in range(RUNS):
        began = time.perf_counter()
        ran = subprocess.run(command, check=True, capture_output=True, text=True)
        whole = time.perf_counter() - began
        runs.append([*map(float, ran.stdout.split()), whole])
    medians = [round(1000 * statistics.median(column), 2) for column in zip(*runs, strict=True)]
    return dict(
        zip(("import_ms", "open_ms", "first_search_ms", "process_ms"), medians, strict=True)
    )


def percentiles(seconds: list[float]) -> dict[str, float]:
    low, middle, high = (round(1000 * float(p), 3) for p in np.percentile(seconds, [5, 50, 99]))
    return {"p5_ms": low, "p50_ms": middle, "p99_ms": high}


def measure_search(index: Index) -> dict[str, float]:
    queries = unit_vectors(200, DIMENSION, 10**6 + 1)
    index.search(vector=queries[0])
    seconds: list[float] = []
    began = time.perf_counter()
    for query in queries:
        seconds.append(timed(lambda query=query: index.search(vector=query)))
        if time.perf_counter() - began > 30:
            break
    return percentiles(seconds)


def measure_floor(total: int) -> dict[str, Any]:
    """Return the times of a bare flat search over as many vectors."""
    vectors = np.concatenate(
        [unit_vectors(min(BLOCK, total - i), DIMENSION, i) for i in range(0, total, BLOCK)]
    )
    flat = faiss.IndexFlatIP(DIMENSION)
    flat.add(vectors)
    queries = unit_vectors(50, DIMENSION, 10**6 + 1)
    flat.search(queries[:1], 10)
    with_faiss = [timed(lambda q=q: flat.search(q[None], 10)) for q in queries]

    def with_numpy(query: np.ndarray) -> np.ndarray:
        scores = vectors @ query
        best = np.argpartition(-scores, 10)[:10]
        return best[np.argsort(-scores[best])]

    with_blas = [timed(lambda q=q: with_numpy(q)) for q in queries]
    return {"faiss": percentiles(with_faiss), "numpy": percentiles(with_blas)}


# --- tables ----------------------------------------------------------------------------------


def show_adds(adds: list[dict[str, Any]]) -> None:
    show(
        f"Adding documents of about 1,000 characters with vectors of {DIMENSION} dimensions: "
        f"medians of {RUNS} runs",
        ["documents a call", "documents/s", "bare SQLite/s", "of it", "bytes a chunk"],
        [
            [
                f"{one['per_call']:,}",
                f"{one['documents_per_s']:,.0f}",
                f"{one['sqlite_floor_per_s']:,.0f}",
                f"{one['documents_per_s'] / one['sqlite_floor_per_s']:.0%}",
                f"{one['bytes_per_chunk']:,}",
            ]
            for one in adds
        ],
        f"Of the bytes {adds[0]['of_these_text_and_vector']:,} are text and vector.",
    )


def show_sizes(sizes: list[dict[str, Any]]) -> None:
    show(
        "A compacted index: a fresh process opens it and searches; then 200 searches, beside "
        "faiss and NumPy over the bare vectors; milliseconds",
        ["vectors", "open", "first search", "p50", "p99", "faiss p50", "NumPy p50"],
        [
            [
                f"{one['vectors']:,}",
                f"{one['open_ms']:.1f}",
                f"{one['first_search_ms']:.0f}",
                *(f"{one['warm'][name]:.2f}" for name in ("p50_ms", "p99_ms")),
                *(f"{one['floor'][name]['p50_ms']:.2f}" for name in ("faiss", "numpy")),
            ]
            for one in sizes
        ],
    )
    show(
        "What that index costs; seconds are of 100,000 vectors",
        ["vectors", "bulk add/s", "compact s", "verify s", "bytes a chunk", "segments"],
        [
            [
                f"{one['vectors']:,}",
                f"{one['bulk_add_per_s']:,}",
                f"{one['compact_s_per_100k']:.1f}",
                f"{one['verify_s_per_100k']:.1f}",
                f"{one['bytes_per_chunk']:,}",
                one["segments"],
            ]
            for one in sizes
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--max", type=int, default=100_000, help="vectors in the largest index")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures here")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="storage-cost-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(machine())
    adds = [measure_adds(folder, per_call) for per_call in CALLS]
    show_adds(adds)
    path, had, sizes = folder / "sizes.index", 0, []
    for total in [size for size in SIZES if size < options.max] + [options.max]:
        sizes.append(measure_size(path, total, had))
        had = total
    show_sizes(sizes)
    shutil.rmtree(folder)
    write_json(options.json, {"adds": adds, "sizes": sizes})


if __name__ == "__main__":
    main()

"""Shows what filtered search finds and costs, cell by cell, beside other systems.

    python -m benchmarks.filtered --data DIR --peers PYTHON

20,000 passages of Wikipedia and 100 questions of SQuAD's development set, encoded once. Cells are
filters of 50, 10, 1 and .1 % of the passages at random, the cluster of passages that is nearest to
the question (`near`), and the one that is farthest (`far`), of 64. Each question has a filter of
its own, which is asked twice, the second time with the next question: `first` and `again`. Recall
is against all allowed rows, in float64; `hits` is how many of min(k, matches) came. Encoding is
left out: every system is asked with vectors.
"""

from __future__ import annotations

import argparse
import json
import lzma
import sys
from pathlib import Path
from typing import Any

import numpy as np

from .. import beir
from ..chunking.vectors import Vectors
from ..encode.process import Children
from ..encode.runner import Options, median
from ..encode.texts import spread
from ..machine import machine, write_json
from ..tables import show
from .systems import SYSTEMS

MODEL, K, CLUSTERS = "all-MiniLM-L6-v2", 10, 64
PASSAGES, QUESTIONS = 20_000, 100
WIDTHS = {"50 %": 500, "10 %": 100, "1 %": 10, ".1 %": 1}
CELLS = (*WIDTHS, "near", "far")


def read(data: Path, work: Path) -> tuple[list[dict[str, Any]], Any, Any, Any]:
    """Return rows with their metadata, vectors, the questions' vectors, and the clusters."""
    import faiss

    with lzma.open(data / "wikipedia-130k.jsonl.xz", "rt", encoding="utf-8") as file:
        rows = spread([json.loads(line) for line in file], PASSAGES)
    texts = [f"{row['title']} {row['text']}" for row in rows]
    asked = [row["text"] for row in beir.read_lines(data / "retrieval/squad-dev/queries.jsonl")]
    vectors = Vectors(work / "vectors", MODEL)
    passages, questions = vectors.of_texts(texts), vectors.of_texts(spread(asked, QUESTIONS))
    clusters = faiss.Kmeans(passages.shape[1], CLUSTERS, niter=10, seed=0, spherical=True)
    clusters.train(passages)
    topics = clusters.index.search(passages, 1)[1][:, 0]
    buckets = np.random.default_rng(0).integers(1000, size=len(rows))
    found = [
        {"text": text, "bucket": int(bucket), "topic": int(topic)}
        for text, bucket, topic in zip(texts, buckets, topics, strict=True)
    ]
    return found, passages, questions, clusters.centroids


def filters(cell: str, questions: Any, centroids: Any) -> list[tuple[str, int, int]]:
    """Return a filter for each question: a field, and a range of it."""
    if cell in WIDTHS:
        width = WIDTHS[cell]
        lows = np.random.default_rng(width).integers(0, 1000 - width + 1, size=len(questions))
        return [("bucket", int(low), int(low) + width) for low in lows]
    scores = questions @ centroids.T
    topics = scores.argmax(axis=1) if cell == "near" else scores.argmin(axis=1)
    return [("topic", int(topic), int(topic) + 1) for topic in topics]


def best(
    rows: Any, vectors: Any, question: Any, asked: tuple[str, int, int]
) -> tuple[set[int], int]:
    """Return the best rows of a filter, those that tie with the last included, and how many fit."""
    field, low, high = asked
    values = rows[field]
    allowed = np.flatnonzero((values >= low) & (values < high))
    scores = vectors[allowed].astype(float) @ question.astype(float)
    count = min(K, len(allowed))
    if not count:
        return set(), 0
    least = np.sort(scores)[-count] - 1e-6
    return set(allowed[scores >= least].tolist()), count


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    beir.add_common_arguments(parser)
    parser.add_argument("--peers", default=sys.executable, help="interpreter with the peers")
    parser.add_argument("--only", nargs="*", default=[], help="parts of names of systems")
    given = parser.parse_args()
    data = beir.data_folder(given.data, "wikipedia-130k.jsonl.xz", "retrieval/squad-dev")
    options = Options(str(data), given.work, given.peers, PASSAGES, 1, 1, tuple(given.only))
    folder = options.folder("filtered")
    rows, vectors, questions, centroids = read(data, given.work)
    corpus = folder / "corpus.json"
    corpus.write_text(json.dumps(rows), "utf-8")
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "questions.npy", questions)
    columns = {field: np.array([row[field] for row in rows]) for field in ("bucket", "topic")}
    cells = {cell: filters(cell, questions, centroids) for cell in CELLS}
    print(machine(), flush=True)
    found: dict[str, dict[str, Any]] = {}
    module = "benchmarks.filtered.systems"
    with Children(module, options.wanted(SYSTEMS), options) as systems:
        for name in list(systems.running):
            files = {"vectors": folder / "vectors.npy", "questions": folder / "questions.npy"}
            own = folder / "".join(one if one.isalnum() else "-" for one in name)
            if systems.one(name, "fill", corpus=corpus, **files, folder=own) is None:
                continue
            measured = {}
            for cell, own_filters in cells.items():
                answer = systems.one(name, "ask", asked=_pairs(own_filters), k=K)
                if answer is None:
                    break
                measured[cell] = _figures(answer, own_filters, columns, vectors, questions)
            else:
                found[name] = measured
                systems.running.pop(name).end()
                print(f"  {name}: done", flush=True)
        skipped = dict(systems.skipped)
    _show(found, skipped)
    write_json(given.json, found)
    return 0


def _pairs(filters: list[tuple[str, int, int]]) -> list[list[Any]]:
    """Return what is asked, in order: each filter with its question, then with the next one."""
    count = len(filters)
    return [[number % count, *one] for n, one in enumerate(filters) for number in (n, n + 1)]


def _figures(answer: Any, filters: Any, columns: Any, vectors: Any, questions: Any) -> Any:
    recalls, came, wanted = [], 0, 0
    for ids, (number, *one) in zip(answer["ids"], _pairs(filters), strict=True):
        right, count = best(columns, vectors, questions[number], tuple(one))
        if count:
            recalls.append(len(right.intersection(ids)) / count)
            came, wanted = came + len(ids), wanted + count
    return {
        "recall": float(np.mean(recalls)),
        "hits": came / wanted,
        "first_ms": median(answer["seconds"][0::2]) * 1e3,
        "again_ms": median(answer["seconds"][1::2]) * 1e3,
    }


def _show(found: dict[str, dict[str, Any]], skipped: dict[str, str]) -> None:
    notes = [f"{name}: {reason}" for name, reason in skipped.items()]
    worst = {name: min(one["recall"] for one in cells.values()) for name, cells in found.items()}
    for title, keys in (
        ("recall@10 / hits returned of min(10, matches)", ("recall", "hits")),
        ("milliseconds of the first search with a filter / again", ("first_ms", "again_ms")),
    ):
        digits = 3 if keys[0] == "recall" else 2
        show(
            f"Filtered search of {PASSAGES:,} vectors: {title}",
            ["system", "lowest recall", *CELLS],
            [
                [
                    name,
                    f"{worst[name]:.3f}",
                    *(" / ".join(f"{cells[c][key]:.{digits}f}" for key in keys) for c in CELLS),
                ]
                for name, cells in found.items()
            ],
            *notes,
        )


if __name__ == "__main__":
    sys.exit(main())

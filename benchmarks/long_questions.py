"""Shows how a question beyond the encoder's window is best read: cut, or in windows, and how these.

    OMP_NUM_THREADS=2 python -m benchmarks.long_questions --data DIR

Two kinds of long questions, each of several windows:

- `cranfield`: three abstracts that are relevant to one question; to be found are the others.
- `squad-dev`: a question after, before, or amid four paragraphs near the one that answers it; these
  four are left out of the ranking.

`cut` is the first window alone, `mean` what the package does: the mean of the windows' vectors.
`weighted` is their mean by number of tokens, `max` scores a passage by the window nearest to it.
The exit code is 1 if `mean`, over all of them, does not find more than `cut`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from retriever.encoders.bi_encoder import BiEncoder, load_encoder
from retriever.evaluation.qrels import Qrels
from retriever.evaluation.runs import Run
from retriever.evaluation.scoring import score
from retriever.search import query_encoding

from . import beir
from .machine import machine, write_json
from .tables import show

MODEL, MEASURE = "all-MiniLM-L6-v2", "nDCG@10"
GIVEN = 3
PLACES = ("after", "before", "amid")


@dataclass
class Task:
    """A long question, the passages that answer it, and those left out of the ranking."""

    text: str
    relevant: set[str]
    given: set[str]


def cranfield(data: Path) -> tuple[dict[str, str], list[Task]]:
    collection = beir.load(data / "retrieval" / "cranfield")
    texts = {name: text for name, text in collection.documents.items() if text}
    rng = np.random.default_rng(0)
    tasks = []
    for grades in collection.relevant.values():
        relevant = [name for name in grades if name in texts]
        if len(relevant) >= 2 * GIVEN:
            given = [str(name) for name in rng.permutation(relevant)[:GIVEN]]
            text = "\n\n".join(texts[name] for name in given)
            tasks.append(Task(text, set(relevant) - set(given), set(given)))
    return texts, tasks


def squad(data: Path, place: str, every: int) -> tuple[dict[str, str], list[Task]]:
    folder = data / "retrieval" / "squad-dev"
    texts = {row["_id"]: row["text"] for row in beir.read_lines(folder / "corpus.jsonl")}
    collection = beir.load(folder)
    tasks = []
    for query in list(collection.queries)[::every]:
        relevant = set(collection.relevant[query])
        article, _, number = next(iter(relevant)).rpartition("-")
        near = [f"{article}-{int(number) + step}" for step in (-3, -2, -1, 1, 2, 3)]
        given = [name for name in near if name in texts][:4]
        context = [texts[name] for name in given]
        at = {"after": len(context), "before": 0, "amid": len(context) // 2}[place]
        context.insert(at, collection.queries[query])
        tasks.append(Task("\n\n".join(context), relevant, set(given)))
    return texts, tasks


def ways(vectors: np.ndarray, tokens: Sequence[int]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each way's name and the vectors that a passage is scored by, the nearest counting."""
    weights = np.array(tokens, float)[:, None]
    yield "cut", vectors[:1]
    yield "mean", vectors.mean(axis=0, keepdims=True)
    yield "weighted", (vectors * weights).sum(axis=0, keepdims=True)
    yield "max", vectors


def measure(
    encoder: BiEncoder, passages: np.ndarray, names: list[str], tasks: list[Task]
) -> tuple[dict[str, float], float]:
    """Return the nDCG@10 of each way, and how many windows a question has."""
    read = [query_encoding.windows(encoder, task.text) for task in tasks]
    encoded = encoder.encode_queries([text for one in read for text in one])
    runs: dict[str, dict[str, dict[str, float]]] = {}
    start = 0
    for number, (task, texts) in enumerate(zip(tasks, read, strict=True)):
        vectors = encoded[start : start + len(texts)]
        start += len(texts)
        for way, asked in ways(vectors, encoder.tokenizer.count_tokens(texts)):
            scores = (passages @ asked.T).max(axis=1)
            order = (names[row] for row in np.argsort(-scores, kind="stable"))
            best = islice((one for one in order if one not in task.given), 10)
            ranks = {name: float(-rank) for rank, name in enumerate(best)}
            runs.setdefault(way, {})[str(number)] = ranks
    qrels = Qrels({str(n): dict.fromkeys(task.relevant, 1) for n, task in enumerate(tasks)})
    found = {
        way: score(Run(run, name=way), qrels, [MEASURE]).measures[MEASURE]
        for way, run in runs.items()
    }
    return found, len(encoded) / len(tasks)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    beir.add_common_arguments(parser)
    parser.add_argument("--every", type=int, default=25, help="ask every Nth question of SQuAD")
    options = parser.parse_args()
    data = beir.data_folder(options.data, "retrieval/cranfield", "retrieval/squad-dev")
    encoder = load_encoder(MODEL)
    print(machine())
    figures: dict[str, dict[str, float]] = {}
    rows: list[list[object]] = []
    known: dict[str, np.ndarray] = {}
    for name in ("cranfield", *(f"squad-dev, {place}" for place in PLACES)):
        place = name.partition(", ")[2]
        texts, tasks = squad(data, place, options.every) if place else cranfield(data)
        corpus = name.partition(",")[0]
        if corpus not in known:
            known[corpus] = encoder.encode_documents(list(texts.values()))
        found, windows = measure(encoder, known[corpus], list(texts), tasks)
        figures[name] = found
        shown = (f"{value:.4f}" for value in found.values())
        rows.append([name, len(tasks), f"{windows:.1f}", *shown])
    means = {way: sum(one[way] for one in figures.values()) / len(figures) for way in found}
    rows.append(["mean of all", "", "", *(f"{value:.4f}" for value in means.values())])
    show(f"{MEASURE}, {MODEL}", ["collection", "questions", "windows each", *means], rows)
    write_json(options.json, {"collections": figures, "mean": means})
    return 0 if means["mean"] > means["cut"] else 1


if __name__ == "__main__":
    sys.exit(main())

"""Collections in BEIR layout, and trec_eval's measures over them. Shared; runs nothing itself.

A collection is a folder with `corpus.jsonl` (`_id`, `title`, `text`), `queries.jsonl` and
`qrels/<split>.tsv`, beneath `retrieval/` of the data folder that `--data` or
`$RETRIEVER_BENCH_DATA` names.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

DATA_VARIABLE = "RETRIEVER_BENCH_DATA"
# The benchmarks measure this machine's files, never the hub's.
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@dataclass(frozen=True)
class Collection:
    """A corpus, its questions and their judgements.

    Attributes:
        documents: Text ("title text", as published figures use it) by document id.
        queries: Text by query id; only those with a relevant document.
        relevant: Grade by document id, by query id; positive grades only.
    """

    name: str
    documents: Mapping[str, str]
    queries: Mapping[str, str]
    relevant: Mapping[str, Mapping[str, int]]


def data_folder(argument: str | None, *needs: str) -> Path:
    """Return the data folder; end the program, saying what is missing, where it is not whole."""
    named = argument or os.environ.get(DATA_VARIABLE)
    if not named:
        wanted = ", ".join(needs)
        sys.exit(f"No data folder: pass --data DIR or set ${DATA_VARIABLE}. It must hold {wanted}.")
    folder = Path(named)
    missing = [need for need in needs if not (folder / need).exists()]
    if missing:
        sys.exit(f"{folder} lacks {', '.join(missing)}. Point --data or ${DATA_VARIABLE} at it.")
    return folder


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that every benchmark over the data folder takes."""
    parser.add_argument("--data", metavar="DIR", help=f"data folder (default: ${DATA_VARIABLE})")
    parser.add_argument(
        "--work", metavar="DIR", type=Path, default=Path("work"), help="indexes kept between runs"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures here")


def load(folder: Path, split: str = "test") -> Collection:
    """Read a collection; end the program, naming the file, where one is missing."""
    qrels = folder / "qrels" / f"{split}.tsv"
    for path in (folder / "corpus.jsonl", folder / "queries.jsonl", qrels):
        if not path.is_file():
            sys.exit(f"{path} is missing; {folder.name} is not a collection in BEIR layout.")
    relevant: dict[str, dict[str, int]] = {}
    for line in qrels.read_text("utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        if int(grade) > 0:
            relevant.setdefault(query, {})[document] = int(grade)
    documents = {
        row["_id"]: f"{row.get('title', '')} {row['text']}".strip()
        for row in read_lines(folder / "corpus.jsonl")
    }
    queries = {
        row["_id"]: row["text"]
        for row in read_lines(folder / "queries.jsonl")
        if row["_id"] in relevant
    }
    return Collection(folder.name, documents, queries, relevant)


def read_lines(path: Path) -> Iterator[dict]:
    """Yield the objects of a JSON Lines file."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


Run = Mapping[str, Sequence[str]]
"""Document ids, best first, by query id."""


def ndcg(run: Run, collection: Collection, k: int = 10) -> float:
    """Return trec_eval's `ndcg_cut_k`: the gain is the grade itself, the ideal the best order."""
    total = 0.0
    for query, grades in collection.relevant.items():
        gains = [grades.get(document, 0) for document in run[query][:k]]
        ideal = sorted(grades.values(), reverse=True)[:k]
        total += _discounted(gains) / _discounted(ideal)
    return total / len(collection.relevant)


def recall(run: Run, collection: Collection, k: int = 100) -> float:
    """Return trec_eval's `recall_k`, the mean share of relevant documents among the first k."""
    total = 0.0
    for query, grades in collection.relevant.items():
        total += len(set(run[query][:k]) & set(grades)) / len(grades)
    return total / len(collection.relevant)


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains))

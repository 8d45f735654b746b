"""The data folder of the benchmarks, and its collections in BEIR layout.

A collection is a folder with `corpus.jsonl`, `queries.jsonl` and `qrels/<split>.tsv`, beneath
`retrieval/` of the data folder that `--data` or `$RETRIEVER_BENCH_DATA` names.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
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
    """Read a collection; end the program, naming the file, where one is missing or malformed."""
    from retriever.errors import InvalidEvaluation
    from retriever.evaluation import beir

    try:
        source = beir.Collection.open(folder)
        judged = {
            query: {document: grade for document, grade in grades.items() if grade > 0}
            for query, grades in source.qrels(split).items()
        }
        relevant = {query: grades for query, grades in judged.items() if grades}
        queries = {
            query: text for query, text in source.queries(split).items() if query in relevant
        }
        documents = {str(document.id): document.text for document in source.documents()}
    except InvalidEvaluation as error:
        sys.exit(str(error))
    return Collection(folder.name, documents, queries, relevant)


def read_lines(path: Path) -> Iterator[dict]:
    """Yield the objects of a JSON Lines file."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)

"""What `compare` times, in a process with one of the two trees in its path.

    python -P compare_child.py TREE TASK ARGUMENT...

It runs with versions of the package from before and after a change, so it uses only what all of
them have, and ends by printing one number.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import retriever
from retriever import Document, Index, SearchOptions

MODEL = "all-MiniLM-L6-v2"
WARM_UP = 30
# Trees before hybrid search have no modes: theirs is the dense one.
DENSE = {"mode": "dense"} if "mode" in SearchOptions.__dataclass_fields__ else {}


def hash_encoder(tree: Path) -> Any:
    """Return the encoder that needs no model; older trees have it among their tests."""
    try:
        from retriever.testing import HashEncoder
    except ModuleNotFoundError:
        sys.path.append(str(tree / "tests"))
        from support import HashEncoder
    return HashEncoder()


def read(path: str) -> dict[str, list[str]]:
    """Return the texts that `compare` has written."""
    found: dict[str, list[str]] = json.loads(Path(path).read_text())
    return found


def prepare(path: str, texts: str, count: str) -> float:
    """Make an index of the model whose vectors are random, which takes no time to encode."""
    documents = read(texts)["documents"]
    vectors = np.random.default_rng(0).standard_normal((int(count), 384), dtype=np.float32)
    with Index.open(path, model=MODEL, chunking="document") as index:
        index.add(
            Document(f"{number}: {documents[number % len(documents)]}", f"{number}", embedding=one)
            for number, one in enumerate(vectors)
        )
    return 0.0


def warm(path: str, texts: str, count: str) -> float:
    """Return the median seconds of a dense search."""
    seconds = []
    with Index.open(path) as index:
        for question in read(texts)["queries"][: WARM_UP + int(count)]:
            began = time.perf_counter()
            index.search(question, options=SearchOptions(k=10, **DENSE))
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[WARM_UP:])


def add(encoder: Any, count: str) -> float:
    """Return the seconds of adding small documents."""
    documents = [
        Document(f"Small document {number} about pump {number % 97}.", f"{number}")
        for number in range(int(count))
    ]
    with tempfile.TemporaryDirectory() as folder, Index.open(folder, model=encoder) as index:
        index.add("The encoder's thread has been started once.")
        began = time.perf_counter()
        index.add(documents)
        return time.perf_counter() - began


def ingest(texts: str, count: str) -> float:
    """Return the seconds of adding abstracts with the model, which is loaded before."""
    documents = read(texts)["documents"]
    step = max(1, len(documents) // int(count))  # spread over the corpus
    chosen = documents[::step][: int(count)]
    with tempfile.TemporaryDirectory() as folder, Index.open(folder, model=MODEL) as index:
        index.add("warm up " * 300)
        began = time.perf_counter()
        index.add(Document(text, f"{number}") for number, text in enumerate(chosen))
        return time.perf_counter() - began


def main() -> None:
    tree, task, *arguments = sys.argv[1:]
    if not Path(retriever.__file__).resolve().is_relative_to(Path(tree).resolve()):
        raise SystemExit(f"retriever is imported from {retriever.__file__}, not from {tree}.")
    tasks: dict[str, Any] = {"prepare": prepare, "warm": warm, "ingest": ingest}
    if task == "add":
        print(add(hash_encoder(Path(tree)), *arguments))
    else:
        print(tasks[task](*arguments))


if __name__ == "__main__":
    main()

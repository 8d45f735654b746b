"""Two versions of the package, timed in turn: is the later one slower?

    python -m benchmarks.compare BEFORE [AFTER] PART... --data DIR --rounds 7

BEFORE and AFTER are source trees, such as `git worktree add`ed ones; AFTER is this one by default.
Each figure comes from a fresh process with that tree first in its path. The trees take turns within
a round, and which goes first changes from round to round, so that a busy machine slows both; the
ratio is taken within each round. One round before is not counted: it fills caches.

- `cold`: seconds of a `retriever search` process, over 10,000 chunks
- `warm`: median seconds of a search of an open index, over the same chunks
- `add`: seconds to add 10,000 small documents in one call, with the encoder that needs no model
- `ingest`: seconds to add 300 abstracts of SciFact with all-MiniLM-L6-v2

With `--within 0.03`, a median ratio over 1.03 makes the exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import beir
from .machine import processor

ROOT = Path(__file__).parent.parent
CHILD = Path(__file__).with_name("compare_child.py")
NEED = "retrieval/scifact"
PARTS = ("cold", "warm", "add", "ingest")
CHUNKS = 10_000
ABSTRACTS = 300
QUESTIONS = 130


class Tree:
    """A version of the package, with an index and a cache of its own: formats may differ."""

    def __init__(self, path: Path, folder: Path, threads: int) -> None:
        if not (path / "retriever" / "__init__.py").is_file():
            raise SystemExit(f"{path} is no source tree: it has no retriever/__init__.py.")
        self.path = path.resolve()
        self.index = folder / "index"
        counts = ("OMP", "MKL", "OPENBLAS", "RAYON")
        self._environment = {
            **os.environ,
            **{f"{library}_NUM_THREADS": str(threads) for library in counts},
            "PYTHONPATH": str(self.path),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "HF_HUB_OFFLINE": "1",
        }

    def run(self, *arguments: object) -> str:
        """Return what a Python process says with this tree in its path; `-P` keeps others out."""
        command = [sys.executable, "-P", *map(str, arguments)]
        ran = subprocess.run(command, env=self._environment, capture_output=True, text=True)
        if ran.returncode:
            raise SystemExit(f"{self.path}: {arguments} failed:\n{ran.stdout}{ran.stderr}")
        return ran.stdout

    def ask(self, task: str, *arguments: object) -> float:
        """Return the number with which a task of `compare_child.py` ends."""
        return float(self.run(CHILD, self.path, task, *arguments).splitlines()[-1])


def measure(
    part: str, trees: tuple[Tree, Tree], texts: Path | None, rounds: int, chunks: int = CHUNKS
) -> dict[str, list[float]]:
    """Return seconds by version; an index that the part needs is made first."""
    tasks: dict[str, Callable[[Tree, int], float]] = {
        "cold": lambda tree, turn: _search_process(tree, f"how do immune cells react {turn}"),
        "warm": lambda tree, _: tree.ask("warm", tree.index, texts, QUESTIONS),
        "add": lambda tree, _: tree.ask("add", chunks),
        "ingest": lambda tree, _: tree.ask("ingest", texts, ABSTRACTS),
    }
    if part in ("cold", "warm"):
        for tree in trees:
            if not tree.index.exists():
                tree.ask("prepare", tree.index, texts, chunks)
    seconds: dict[str, list[float]] = {"before": [], "after": []}
    for turn in range(rounds + 1):
        pairs = list(zip(seconds, trees, strict=True))
        for version, tree in pairs[:: 1 if turn % 2 else -1]:
            taken = tasks[part](tree, turn)
            if turn:
                seconds[version].append(taken)
    return seconds


def _search_process(tree: Tree, question: str) -> float:
    began = time.perf_counter()
    tree.run("-m", "retriever", "search", question, "-i", tree.index)
    return time.perf_counter() - began


def summary(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Return medians, and the ratio of later to earlier: median, least and greatest of rounds."""
    before, after = seconds["before"], seconds["after"]
    ratios = [later / earlier for earlier, later in zip(before, after, strict=True)]
    return {
        "before_s": statistics.median(before),
        "after_s": statistics.median(after),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "rounds": len(ratios),
    }


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line: one or two trees, then parts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", nargs="+", metavar="TREE|PART", help="BEFORE [AFTER] PART…, or all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chunks", type=int, default=CHUNKS, help="of cold, warm and add")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--within", type=float, help="fail where after is slower by this share")
    parser.add_argument("--data", metavar="DIR", help=f"data folder (${beir.DATA_VARIABLE})")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures here")
    options = parser.parse_args(arguments)
    named = [one for one in options.what if one in (*PARTS, "all")]
    options.parts = [one for one in PARTS if one in named or "all" in named]
    options.trees = [Path(one) for one in options.what if one not in (*PARTS, "all")]
    if not options.parts or len(options.trees) not in (1, 2) or options.rounds < 1:
        parser.error(f"name one or two source trees and some of {', '.join(PARTS)} or all")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Measure the parts named and print a line for each."""
    options = parse(arguments)
    before, after = [*options.trees, ROOT][:2]
    report: dict[str, Any] = {"processor": processor(), "threads": options.threads, "parts": {}}
    print(f"{processor()}; {options.threads} threads; {before} → {after}", flush=True)
    with tempfile.TemporaryDirectory(prefix="compare-") as name:
        folder = Path(name)
        for side in ("before", "after"):
            (folder / side).mkdir()
        trees = (
            Tree(before, folder / "before", options.threads),
            Tree(after, folder / "after", options.threads),
        )
        texts = None
        if set(options.parts) - {"add"}:
            collection = beir.load(beir.data_folder(options.data, NEED) / NEED)
            texts = folder / "texts.json"
            documents, queries = list(collection.documents.values()), [*collection.queries.values()]
            texts.write_text(json.dumps({"documents": documents, "queries": queries}))
        for part in options.parts:
            found = summary(measure(part, trees, texts, options.rounds, options.chunks))
            report["parts"][part] = found
            print(
                f"{part}: {found['before_s']:.4f} s → {found['after_s']:.4f} s, ratio "
                f"{found['ratio']:.3f} ({found['ratio_min']:.3f} to {found['ratio_max']:.3f} in "
                f"{found['rounds']} rounds)",
                flush=True,
            )
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    slower = [
        part
        for part, found in report["parts"].items()
        if options.within is not None and found["ratio"] > 1 + options.within
    ]
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())

"""Table 3a: seconds of `retriever search` from the command line, each in a fresh process.

`--limit` is the number of chunks of the index: sentences of SciFact, each a document with a vector
that was computed once. A script with sentence-transformers and FAISS, `cold_peer.py`, answers the
same questions over the same vectors, in turn, a claim of SciFact each round; one round is for
warming the disk's cache. Where the time goes is said by `python -X importtime`, under which all is
slower, and by the timings that the command reports.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .. import beir
from ..tables import show
from . import ROOT, texts
from .process import environment, installed
from .runner import Options, Outcome, median, times

LIMIT = 10_000
NEED = "retrieval/scifact"
DEPTH = 10
OURS, PEER, BARE = "retriever search", "sentence-transformers + FAISS", "the interpreter alone"
HEAVY = {"torch", "transformers", "sentence_transformers", "scipy", "sklearn"}
LEAST_MS = 2  # shorter imports are in the sum only


def run(options: Options) -> Outcome:
    """Make the index, then ask it from fresh processes."""
    collection = beir.load(options.data_folder(NEED) / NEED)
    folder = options.folder("cold")
    sentences = list(_sentences(collection.documents.values()))[: options.limit]
    prepare(folder, sentences, options.threads)
    questions = list(collection.queries.values())
    commands = {BARE: bare, OURS: ours, PEER: peer}
    outcome = Outcome("cold", {"chunks": len(sentences)})
    if not all(installed(options, module) for module in ("sentence_transformers", "faiss")):
        outcome.skipped[PEER] = "skipped: not installed"
        print(f"  {PEER}: skipped: not installed", flush=True)
        del commands[PEER]
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    found: dict[str, list[list[str]]] = {name: [] for name in commands}
    for turn in range(options.runs + 1):
        names = list(commands)
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            began = time.perf_counter()
            said = _run(commands[name](folder, questions[turn], options), options.threads)
            taken = time.perf_counter() - began
            if turn:
                seconds[name].append(taken)
                found[name].append(re.findall(r"\bs\d+\b", said.stdout))
    outcome.figures |= {name: {"seconds": taken} for name, taken in seconds.items()}
    outcome.figures["where"] = where(folder, questions[0], options)
    outcome.failures += _heavy(outcome.figures["where"])
    if PEER in found:
        pairs = [
            len(set(mine[:DEPTH]) & set(theirs[:DEPTH])) / DEPTH
            for mine, theirs in zip(found[OURS], found[PEER], strict=True)
        ]
        outcome.figures["agree"] = float(np.mean(pairs))
    show_tables(outcome.figures, seconds, options)
    return outcome


def _sentences(documents: Any) -> Iterator[str]:
    """Yield sentences, none twice."""
    seen = set()
    for text in documents:
        for sentence in re.split(r"(?<=[.!?])\s+", text):
            if len(sentence) > 20 and sentence not in seen:
                seen.add(sentence)
                yield sentence


def prepare(folder: Path, sentences: list[str], threads: int) -> None:
    """Make the index, and the vectors and texts that the script reads."""
    import faiss

    from retriever import Document, Index
    from retriever.encoders.bi_encoder import load_encoder
    from retriever.encoders.computing import Computing

    cache = folder / f"vectors-{len(sentences)}.npy"
    if not cache.exists():
        encoder = load_encoder(texts.MODEL, Computing(threads=threads))
        np.save(cache, encoder.encode_documents(sentences))
    vectors = np.load(cache)
    shutil.rmtree(folder / "cold.index", ignore_errors=True)
    with Index.open(folder / "cold.index", model=texts.MODEL, threads=threads) as index:
        index.add(
            [
                Document(sentence, id=f"s{row}", embedding=vectors[row])
                for row, sentence in enumerate(sentences)
            ]
        )
        index.compact()
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    faiss.write_index(flat, str(folder / "vectors.faiss"))
    texts.write(folder / "sentences.json", sentences)


# --- the commands ----------------------------------------------------------------------------


def ours(folder: Path, question: str, options: Options) -> list[str]:
    """Return the command as a user types it: the script beside the interpreter, if it is there."""
    script = Path(sys.executable).parent / "retriever"
    program = [str(script)] if script.exists() else [sys.executable, "-m", "retriever"]
    arguments = ["-k", str(DEPTH), "--threads", str(options.threads)]
    return [*program, "search", question, "--index", str(folder / "cold.index"), *arguments]


def peer(folder: Path, question: str, options: Options) -> list[str]:
    script = Path(__file__).parent / "cold_peer.py"
    return [options.peers, str(script), str(folder), str(texts.model_folder()), question]


def bare(folder: Path, question: str, options: Options) -> list[str]:
    return [sys.executable, "-c", "pass"]


def _run(command: list[str], threads: int) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(
        command, capture_output=True, text=True, env=environment(threads), cwd=ROOT, check=False
    )
    if ran.returncode:
        sys.exit(f"{' '.join(command[:4])} … ended with {ran.returncode}:\n{ran.stderr[-2000:]}")
    return ran


# --- where the time goes ---------------------------------------------------------------------


def where(folder: Path, question: str, options: Options) -> dict[str, Any]:
    """Return the milliseconds of imports by package, and those that the command reports."""
    arguments = ours(folder, question, options)
    arguments = arguments[arguments.index("search") :]
    ran = _run(
        [sys.executable, "-X", "importtime", "-m", "retriever", *arguments, "--json"],
        options.threads,
    )
    imports: Counter[str] = Counter()
    for own, name in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", ran.stderr, re.M):
        package = name.partition(".")[0]
        is_standard = package in sys.stdlib_module_names
        imports["the standard library" if is_standard else package] += int(own)
    timings = json.loads(ran.stdout)["timings"]
    return {
        "imports_ms": {name: own / 1000 for name, own in imports.most_common()},
        "steps_ms": {name.removesuffix("_s"): 1000 * s for name, s in timings.items()},
    }


def _heavy(found: dict[str, Any]) -> list[str]:
    heavy = sorted(HEAVY & found["imports_ms"].keys())
    return [f"a search imports {', '.join(heavy)}"] if heavy else []


def show_tables(figures: dict[str, Any], seconds: dict[str, list[float]], options: Options) -> None:
    base = median(seconds[OURS])
    show(
        f"A question to {figures['chunks']:,} chunks in a fresh process, {options.threads} "
        f"threads, medians of {options.runs} runs; × is of this project's",
        ["command", "s", "range", "×"],
        [
            [
                name,
                f"{median(taken):.3f}",
                f"{min(taken):.3f}–{max(taken):.3f}",
                times(median(taken), base),
            ]
            for name, taken in seconds.items()
        ],
        f"Of the ten best hits, both have {figures['agree']:.1%}." if "agree" in figures else "",
    )
    imports = figures["where"]["imports_ms"]
    rows = [item for item in imports.items() if item[1] >= LEAST_MS]
    rows += [("all imports", sum(imports.values()))]
    rows += [(f"search: {name}", ms) for name, ms in figures["where"]["steps_ms"].items()]
    show(
        "Where it goes, under -X importtime", ["", "ms"], [[name, f"{ms:.0f}"] for name, ms in rows]
    )

"""Table 4: nDCG@10 of each precision beside sentence-transformers in fp32, with a paired test.

`--limit` is the number of documents of each collection, all by default; questions are then those
with a relevant document among them. Ranking is exact, in NumPy, equal scores in the order of the
corpus, so that nothing but vectors differs. The test is of the null hypothesis that the sign of a
question's difference is chance: p is the share of 10,000 random sign flips, from a fixed seed, with
a mean at least as far from zero.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .. import beir
from . import runtimes, texts
from .process import Children
from .runner import Options, Outcome, show

LIMIT = 1_000_000
COLLECTIONS = ("scifact", "cranfield")
DEPTH = 10
FLIPS, SEED = 10_000, 5
EXACT = "retriever, float32"
SYSTEMS = (runtimes.DEFAULT, *(name for name in runtimes.SYSTEMS if name.startswith("retriever")))


def run(options: Options) -> Outcome:
    """Encode both collections with each system, one after another."""
    data = options.data_folder(*(f"retrieval/{name}" for name in COLLECTIONS))
    collections = [
        _cut(beir.load(data / "retrieval" / name), options.limit) for name in COLLECTIONS
    ]
    outcome = Outcome("quality")
    scores: dict[str, dict[str, np.ndarray]] = {one.name: {} for one in collections}
    for name in options.wanted(SYSTEMS):
        with Children("runtimes", [name], options) as child:
            for collection in collections:
                measured = measure(child, name, collection, options)
                if measured is not None:
                    scores[collection.name][name] = measured
            outcome.skipped |= child.skipped
            outcome.failures += child.failures
    for collection in collections:
        found = compare(scores[collection.name])
        outcome.figures[collection.name] = found
        show_table(collection, found)
        if runtimes.DEFAULT in found and EXACT in found:
            theirs, mine = (f"{found[name]['ndcg10']:.4f}" for name in (runtimes.DEFAULT, EXACT))
            if theirs != mine:
                outcome.failures.append(f"{collection.name}: nDCG@10 is {mine}, not {theirs}")
    return outcome


def _cut(collection: beir.Collection, limit: int) -> beir.Collection:
    """Return the collection of the first documents, and of the questions that they answer."""
    documents = dict(list(collection.documents.items())[:limit])
    relevant = {
        query: kept
        for query, grades in collection.relevant.items()
        if (kept := {name: grade for name, grade in grades.items() if name in documents})
    }
    queries = {query: text for query, text in collection.queries.items() if query in relevant}
    return replace(collection, documents=documents, queries=queries, relevant=relevant)


def measure(
    child: Children, name: str, collection: beir.Collection, options: Options
) -> np.ndarray | None:
    """Return the nDCG@10 of each question, None where the system is left out."""
    folder = options.folder("quality")
    model = texts.model_folder()
    settings = {"model": model, "forms": options.folder("models"), "window": texts.window(model)}
    vectors = []
    steps = {"documents": collection.documents, "queries": collection.queries}
    if name in child.running:
        child.one(name, "start", threads=options.threads, **settings)
    for kind, mapping in steps.items():
        path = texts.write(folder / f"{kind}.json", list(mapping.values()))
        saved = folder / f"{kind}.npy"
        if name not in child.running or not child.one(
            name, "time", path=path, save=saved, queries=kind == "queries"
        ):
            return None
        vectors.append(np.load(saved))
    return per_question(collection, *vectors)


def per_question(
    collection: beir.Collection, documents: np.ndarray, queries: np.ndarray
) -> np.ndarray:
    """Return the nDCG@10 of each question, in the order of the collection."""
    ids = list(collection.documents)
    gains = []
    for query, row in zip(collection.queries, queries @ documents.T, strict=True):
        best = np.lexsort((np.arange(len(row)), -row))[:DEPTH]
        alone = replace(collection, relevant={query: collection.relevant[query]})
        gains.append(beir.ndcg({query: [ids[position] for position in best]}, alone, DEPTH))
    return np.array(gains)


def compare(scores: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return each system's mean, and its difference from the reference with the paired test."""
    reference = scores.get(runtimes.DEFAULT)
    found = {}
    for name, gains in scores.items():
        found[name] = {"ndcg10": float(gains.mean()), "questions": len(gains)}
        if reference is not None and name != runtimes.DEFAULT:
            differences = gains - reference
            found[name] |= {
                "difference": float(differences.mean()),
                "share": float(gains.mean() / reference.mean()),
                "changed": int(np.count_nonzero(np.abs(differences) > 1e-9)),
                "p": sign_flip_p(differences),
            }
    return found


def sign_flip_p(differences: np.ndarray) -> float:
    """Return the two-sided p of a paired randomisation test."""
    rng = np.random.default_rng(SEED)
    observed = abs(differences.mean())
    as_far = 0
    for _ in range(FLIPS):
        signs = rng.integers(0, 2, len(differences)) * 2 - 1
        as_far += abs((signs * differences).mean()) >= observed - 1e-12
    return (as_far + 1) / (FLIPS + 1)


def show_table(collection: beir.Collection, found: dict[str, Any]) -> None:
    rows = []
    for name, of in found.items():
        row = [name, f"{of['ndcg10']:.4f}"]
        if "p" in of:
            row += [
                f"{of['difference']:+.4f}",
                f"{of['share']:.2%}",
                of["changed"],
                f"{of['p']:.3f}",
            ]
        rows.append(row + ["–"] * (6 - len(row)))
    show(
        f"{collection.name}: {len(collection.documents):,} documents, "
        f"{len(collection.queries):,} questions",
        ["system", "nDCG@10", "difference", "of fp32", "questions changed", "p"],
        rows,
    )

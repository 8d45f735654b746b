"""Table 6: seconds to score candidates with a cross-encoder, beside `CrossEncoder.predict`.

`--limit` is the number of texts, SciFact abstracts; every round has another claim, so that nothing
can be remembered. No cross-encoder's weights are on the package index: the model is
all-MiniLM-L6-v2 under a head from a fixed seed, which is as fast as a real one and ranks like none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import beir
from ..tables import show
from . import scorers, texts
from .process import Child, Children, Unavailable
from .runner import Options, Outcome, median, times

LIMIT = 50
NEED = "retrieval/scifact"
EXACT, MOST_OFF = "retriever, float32", 1e-5


def run(options: Options) -> Outcome:
    """Build the model, then let each system score the same pairs, in turn."""
    collection = beir.load(options.data_folder(NEED) / NEED)
    folder = options.folder("rerank")
    passages = texts.spread(list(collection.documents.values()), options.limit)
    questions = list(collection.queries.values())[: options.runs + 1]
    path = texts.write(folder / "pairs.json", {"texts": passages, "questions": questions})
    outcome = Outcome("rerank", {"pairs": len(passages)})
    builder = Child("scorers", scorers.BUILDER, options)
    try:
        builder.ask("build", model=texts.model_folder(), folder=folder / "model")
    except Unavailable as error:
        outcome.skipped[scorers.BUILDER] = str(error)
        print(f"  {scorers.BUILDER}: {error}", flush=True)
        return outcome
    finally:
        builder.end()
    names = [name for name in options.wanted(scorers.SYSTEMS) if name != scorers.BUILDER]
    with Children("scorers", names, options) as children:
        children.each("start", folder=folder / "model", threads=options.threads)
        children.each("time", path=path, question=options.runs)
        rounds = [
            children.each("time", turn, path=path, question=turn) for turn in range(options.runs)
        ]
        found = figures(rounds, list(children.running))
        outcome.skipped, outcome.failures = children.skipped, children.failures
    outcome.figures["systems"] = found
    exact = found.get(EXACT, {})
    if "most_off" in exact and not (exact["same_order"] and exact["most_off"] <= MOST_OFF):
        outcome.failures.append(
            f"in float32 a score is off by {exact['most_off']:.1e}, or the order is another"
        )
    show_table(found, len(passages), options)
    return outcome


def figures(rounds: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """Return seconds, and how far scores are from the reference's."""
    found: dict[str, Any] = {}
    for name in names:
        seconds = [answers[name]["seconds"] for answers in rounds]
        found[name] = {"seconds": median(seconds), "all": seconds}
        if name == scorers.PEER or scorers.PEER not in names:
            continue
        pairs = [
            tuple(np.array(answers[system]["scores"]) for system in (name, scorers.PEER))
            for answers in rounds
        ]
        found[name]["most_off"] = float(max(np.abs(mine - theirs).max() for mine, theirs in pairs))
        found[name]["same_order"] = all(
            np.array_equal(*(np.argsort(-scores, kind="stable") for scores in pair))
            for pair in pairs
        )
    if scorers.PEER in names:
        scores = np.array(rounds[0][scorers.PEER]["scores"])
        found[scorers.PEER]["scores"] = [float(scores.min()), float(scores.max())]
    return found


def show_table(found: dict[str, Any], pairs: int, options: Options) -> None:
    base = found.get(scorers.PEER, {}).get("seconds")
    show(
        f"{pairs} pairs, {options.threads} threads, medians of {options.runs} rounds",
        ["system", "s", "range", "× faster", "score off by", "same order"],
        [
            [
                name,
                f"{of['seconds']:.3f}",
                f"{min(of['all']):.3f}–{max(of['all']):.3f}",
                times(base, of["seconds"]),
                f"{of['most_off']:.1e}" if "most_off" in of else "–",
                {True: "yes", False: "no"}.get(of.get("same_order"), "–"),
            ]
            for name, of in found.items()
        ],
    )

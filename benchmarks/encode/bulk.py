"""Table 1: tokens a second of bulk encoding, beside other runtimes and the machine's own rate.

`--limit` is the number of SciFact abstracts, spread over the corpus; four times as many SQuAD
questions go with them. Every system has its turn in every round; figures are medians over the
rounds, and ratios are of medians. Tokens are those of the texts, [CLS] and [SEP] included, without
padding.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from .. import beir
from ..tables import show
from . import runtimes, texts
from .process import Child, Children, Unavailable
from .runner import Options, Outcome, median, times

LIMIT = 160
NEEDS = ("retrieval/scifact", "retrieval/squad-dev")
QUESTIONS = 4
TUNED = {"SciFact abstracts": 48, "SQuAD questions": 400}
EXACT = 0.99999


def run(options: Options) -> Outcome:
    """Measure every system on both corpora."""
    data = options.data_folder(*NEEDS)
    model = texts.model_folder()
    folder, forms = options.folder("bulk"), options.folder("models")
    outcome = Outcome("bulk")
    outcome.figures["not converted"] = convert(options)
    scifact = list(beir.load(data / NEEDS[0]).documents.values())
    questions = texts.read_questions(data / NEEDS[1])
    corpora = {
        "SciFact abstracts": texts.spread(scifact, options.limit),
        "SQuAD questions": texts.spread(questions, QUESTIONS * options.limit),
    }
    settings = {"model": model, "forms": forms, "window": texts.window(model)}
    with Children("runtimes", options.wanted(runtimes.SYSTEMS), options) as children:
        children.each("start", threads=options.threads, **settings)
        for title, passages in corpora.items():
            path = texts.write(folder / f"{title.split()[0]}.json", passages)
            tuned = children.each("tune", path=path, count=TUNED[title])
            vectors = {name: folder / f"{name}.npy" for name in children.running}
            for name, file in vectors.items():
                children.one(name, "time", path=path, save=file)
            rounds = [children.each("time", turn, path=path) for turn in range(options.runs)]
            lengths = texts.token_counts(passages, model)
            found = figures(lengths, json.loads((model / "config.json").read_text()), rounds)
            add_cosines(found["systems"], vectors)
            for name, answer in tuned.items():
                if name in found["systems"] and answer.get("batch"):
                    found["systems"][name]["batch"] = answer["batch"]
                for line in answer.get("logged", ()):
                    print(f"  {name}: {line}")
            outcome.figures[title] = found
            show_table(title, found, options)
        outcome.skipped = children.skipped
        outcome.failures = children.failures
    for title in corpora:
        outcome.failures += _inexact(title, outcome.figures[title]["systems"])
    return outcome


def convert(options: Options) -> dict[str, str]:
    """Make the forms of the model that other runtimes read; return what could not be made."""
    model = texts.model_folder()
    child = Child("conversions", "conversions", options)
    try:
        answer = child.ask(
            "convert", model=model, folder=options.folder("models"), window=texts.window(model)
        )
    except Unavailable as error:
        return {"all": str(error)}
    finally:
        child.end()
    for form, reason in answer["missing"].items():
        print(f"  {form}: not converted: {reason}", flush=True)
    return dict(answer["missing"])


def figures(lengths: np.ndarray, config: dict[str, Any], rounds: list[Any]) -> dict[str, Any]:
    """Return the figures of a corpus, from the answers of each round by system."""
    tokens, work = int(lengths.sum()), texts.operations(lengths, config)
    floor = [answers[runtimes.FLOOR] for answers in rounds if runtimes.FLOOR in answers]
    rate = median([answer["rate"] for answer in floor]) if floor else None
    systems = {}
    for name in rounds[-1] if rounds else ():
        if name == runtimes.FLOOR:
            continue
        seconds = [answers[name]["seconds"] for answers in rounds]
        systems[name] = {
            "tokens_per_s": round(tokens / median(seconds)),
            "slowest": round(tokens / max(seconds)),
            "fastest": round(tokens / min(seconds)),
            "tokens_per_cpu_s": round(
                tokens / median([answers[name]["cpu_s"] for answers in rounds])
            ),
            "seconds": seconds,
            "share_of_product": work / median(seconds) / rate if rate else None,
        }
    return {
        "texts": len(lengths),
        "tokens": tokens,
        "operations_per_token": round(work / tokens),
        "product_gflop_per_s": round(rate / 1e9, 1) if rate else None,
        "product_by": floor[0]["library"] if floor else None,
        "systems": systems,
    }


def add_cosines(systems: dict[str, Any], vectors: dict[str, Any]) -> None:
    """Add each system's lowest cosine to what sentence-transformers gives in fp32."""
    if runtimes.DEFAULT not in systems:
        return
    reference = np.load(vectors[runtimes.DEFAULT])
    for name, found in systems.items():
        found["lowest_cosine"] = texts.lowest_cosine(np.load(vectors[name]), reference)


def show_table(title: str, found: dict[str, Any], options: Options) -> None:
    systems = found["systems"]
    default, best = (
        systems.get(name, {}).get("tokens_per_s") for name in (runtimes.DEFAULT, runtimes.BEST)
    )
    rows = []
    for name, of in sorted(systems.items(), key=lambda item: -item[1]["tokens_per_s"]):
        share, cosine = of["share_of_product"], of.get("lowest_cosine")
        label = f"{name} ({of['batch']})" if "batch" in of else name
        rows.append(
            [
                label,
                f"{of['tokens_per_s']:,}",
                f"{of['slowest']:,}–{of['fastest']:,}",
                times(of["tokens_per_s"], default),
                times(of["tokens_per_s"], best),
                "–" if share is None else f"{share:.0%}",
                "–" if cosine is None else f"{cosine:.6f}",
            ]
        )
    note = ""
    if found["product_gflop_per_s"]:
        note = (
            f"The product (1024×384)·(384×1536): {found['product_gflop_per_s']} GFLOP/s in fp32 "
            f"({found['product_by']}); a token takes {found['operations_per_token'] / 1e6:.1f} "
            "MFLOP."
        )
    show(
        f"{title}: {found['texts']:,} texts, {found['tokens']:,} tokens, "
        f"{options.threads} threads, medians of {options.runs} rounds",
        ["system (batch)", "tokens/s", "range", "×default", "×best", "of product", "min cosine"],
        rows,
        note,
    )


def _inexact(title: str, systems: dict[str, Any]) -> list[str]:
    cosine = systems.get("retriever, float32", {}).get("lowest_cosine", 1.0)
    if cosine > EXACT:
        return []
    return [f"{title}: in float32 a cosine to the reference is {cosine:.6f}, not above {EXACT}"]

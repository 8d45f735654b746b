"""Shows what `results.confidence` is worth, and learns the constants of its formulas.

    OMP_NUM_THREADS=1 python -m benchmarks.confidence measure --data DIR
    OMP_NUM_THREADS=1 python -m benchmarks.confidence learn --data DIR

A question is answered if a passage that answers it is in the index. Each collection is asked its
own questions; the same questions with the answering passages left out (`left out`); and those of
the other collections (`foreign`). AUROC is the chance that an answered question has a higher score
than an unanswered one: the raw score of the first hit, the gap to the second, and the confidence.

`learn` reads nothing but training splits: three groups of articles of SQuAD's training set of 500,
2,000 and 4,000 paragraphs, and MedQuAD. A collection weighs as much as another, answered questions
as much as both kinds of unanswered ones. The figures that it prints are of a collection that the
constants were not learned on.
"""

from __future__ import annotations

import argparse
import random
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retriever.documents.words import question_terms, terms_of
from retriever.search import confidence
from retriever.search.background import MOST

from . import beir
from .chunking.vectors import Vectors
from .machine import machine, write_json
from .tables import show

MODEL = "all-MiniLM-L6-v2"
K1, B = 1.2, 0.75
QUESTIONS, FOREIGN = 800, 400  # of a collection
ASIDE = ("scifact", "cranfield", "squad-dev", "covidqa")
MODES = ("dense", "lexical", "hybrid")
WEIGHT = 0.7  # of the cosine, in the fused score

Array = NDArray[np.float64]


@dataclass
class Collection:
    """Passages and questions; `relevant` has the rows that answer each of the questions."""

    name: str
    passages: list[str]
    questions: list[str]
    relevant: list[list[int]]


@dataclass
class Scored:
    """The ten best hits of each question, in the order of one mode.

    Attributes:
        ranked: What they are ranked by `(n, 10)`.
        cosines: `(n, 10)`.
        shares: BM25 over the highest that the question allows `(n, 10)`.
        background: The mean cosine of a sample of passages `(n,)`.
    """

    ranked: Array
    cosines: Array
    shares: Array
    background: Array


# --- collections --------------------------------------------------------------------------------


def training(data: Path, work: Path) -> Iterator[Collection]:
    """Yield what may be learned from."""
    folder = work / "training"
    if not folder.exists():
        with tarfile.open(data / "training.tar.xz") as archive:
            archive.extractall(work, filter="data")
    chance = random.Random(0)
    squad = beir.load(folder / "squad", "train")
    articles: dict[str, list[str]] = {}
    for row in beir.read_lines(folder / "squad" / "corpus.jsonl"):
        articles.setdefault(row["title"], []).append(row["_id"])
    left = sorted(articles)
    chance.shuffle(left)
    for size in (500, 2000, 4000):
        names: list[str] = []
        while len(names) < size:
            names += articles[left.pop()]
        yield _some(f"squad-train-{size}", names, squad, chance)
    rows = list(beir.read_lines(folder / "medquad" / "pairs.jsonl"))
    random.Random(1).shuffle(rows)
    first = rows[:QUESTIONS]
    yield Collection(
        "medquad",
        [row["positive"][:1200] for row in rows[:2500]],
        [row["query"] for row in first],
        [[n] for n in range(len(first))],
    )


def held_out(data: Path) -> Iterator[Collection]:
    """Yield what nothing was learned on; of long papers each paragraph of about 100 words."""
    for name in ASIDE:
        if name == "covidqa":
            yield _papers(data / "retrieval" / name)
        else:
            found = beir.load(data / "retrieval" / name)
            yield _some(name, list(found.documents), found, random.Random(0))


def _some(
    name: str, names: Sequence[str], source: beir.Collection, chance: random.Random
) -> Collection:
    rows = {one: row for row, one in enumerate(names)}
    asked = sorted(q for q, found in source.relevant.items() if found.keys() <= rows.keys())
    chance.shuffle(asked)
    del asked[QUESTIONS:]
    return Collection(
        name,
        [source.documents[one] for one in names],
        [source.queries[one] for one in asked],
        [[rows[one] for one in source.relevant[q]] for q in asked],
    )


def _papers(folder: Path, words: int = 100) -> Collection:
    passages: list[str] = []
    spans: dict[str, list[tuple[int, int, int]]] = {}
    for row in beir.read_lines(folder / "corpus.jsonl"):
        text, start = row["text"], 0
        pieces = text.split(" ")
        for first in range(0, len(pieces), words):
            passage = " ".join(pieces[first : first + words])
            spans.setdefault(row["_id"], []).append((start, start + len(passage), len(passages)))
            passages.append(passage)
            start += len(passage) + 1
    texts = {row["_id"]: row["text"] for row in beir.read_lines(folder / "queries.jsonl")}
    questions, relevant = [], []
    for row in list(beir.read_lines(folder / "answers.jsonl"))[:QUESTIONS]:
        begin = row["answers"][0]["start"]
        end = begin + len(row["answers"][0]["text"])
        rows = [n for a, b, n in spans[row["corpus_id"]] if a < end and b > begin]
        if rows:
            questions.append(texts[row["query_id"]])
            relevant.append(rows)
    return Collection("covidqa", passages, questions, relevant)


# --- scores -------------------------------------------------------------------------------------


class Words:
    """BM25 over the package's own terms."""

    def __init__(self, passages: Sequence[str]) -> None:
        counts: dict[str, dict[int, int]] = {}
        lengths = np.zeros(len(passages))
        for row, passage in enumerate(passages):
            terms = terms_of(passage, "en")
            lengths[row] = len(terms)
            for term in terms:
                found = counts.setdefault(term, {})
                found[row] = found.get(row, 0) + 1
        self._n = len(passages)
        norms = K1 * (1 - B + B * lengths / lengths.mean())
        self._postings = {}
        for term, by_row in counts.items():
            rows = np.fromiter(by_row, np.int64)
            times = np.fromiter(by_row.values(), float)
            self._postings[term] = rows, times * (K1 + 1) / (times + norms[rows])

    def shares(self, question: str) -> Array:
        """Return the BM25 score of each passage over the highest that is possible."""
        scores, most = np.zeros(self._n), 0.0
        for term in question_terms(question, ["en"]):
            known = [self._postings[one] for one in term.alternatives if one in self._postings]
            rows, gains = known[0] if known else (np.empty(0, np.int64), np.empty(0))
            frequency = len(rows)
            idf = np.log1p((self._n - frequency + 0.5) / (frequency + 0.5)) * term.weight
            scores[rows] += idf * gains
            most += idf * (K1 + 1)
        return scores / most if most else scores


def scored(
    cosines: Array, shares: Array, background: Array, left_out: Sequence[Sequence[int]]
) -> dict[str, Scored]:
    """Return the best hits in every mode, without some rows for each question."""
    cosines, shares = cosines.copy(), shares.copy()
    for number, rows in enumerate(left_out):
        cosines[number, list(rows)] = -1.0
        shares[number, list(rows)] = 0.0
    fused = WEIGHT * (cosines + 1) / 2 + (1 - WEIGHT) * shares
    found = {}
    for mode, ranked in zip(MODES, (cosines, shares, fused), strict=True):
        best = np.argsort(-ranked, axis=1, kind="stable")[:, : confidence.HITS]
        parts = (np.take_along_axis(one, best, axis=1) for one in (ranked, cosines, shares))
        found[mode] = Scored(*parts, background)
    return found


def judged(mode: str, found: Scored) -> Array:
    """Return the confidence of each question, by the package's formulas."""
    values = []
    for cosines, shares, background in zip(
        found.cosines.tolist(), found.shares.tolist(), found.background.tolist(), strict=True
    ):
        if mode == "dense":
            values.append(confidence.of_cosines(cosines, background))
        elif mode == "lexical":
            values.append(confidence.of_shares(shares))
        else:
            values.append(confidence.of_both(cosines, shares, background))
    return np.array(values, float)


def measures(mode: str, found: Scored) -> Array:
    """Return what the formula of a mode weighs, a row for each question, 1 first."""
    room = 1 - found.background
    ahead = (found.cosines[:, 0] - found.background) / room
    apart = (found.cosines[:, 0] - found.cosines[:, 1:].mean(axis=1)) / room
    share = found.shares[:, 0]
    lead = share - found.shares[:, 1:].mean(axis=1)
    columns = {
        "dense": (ahead, apart),
        "lexical": (share, lead),
        "hybrid": (ahead, np.sqrt(share), apart, lead),
    }[mode]
    return np.column_stack([np.ones(len(share)), *columns])


def auroc(answered: Array, unanswered: Array) -> float:
    """Return the chance that one of the first is above one of the second; ties count half."""
    ordered = np.sort(unanswered)
    below = np.searchsorted(ordered, answered, "left") + np.searchsorted(ordered, answered, "right")
    return float(below.mean() / 2 / len(ordered))


Groups = Mapping[str, Mapping[str, Scored]]


def read(collections: Sequence[Collection], vectors: Vectors) -> dict[str, Groups]:
    """Return by collection and kind of question the hits in every mode."""
    asked = {one.name: vectors.of_texts(one.questions) for one in collections}
    read: dict[str, Groups] = {}
    for one in collections:
        rows, words = vectors.of_texts(one.passages), Words(one.passages)
        sample = rows[np.random.default_rng(0).permutation(len(rows))[:MOST]].mean(axis=0)
        groups: dict[str, list[dict[str, Scored]]] = {}

        def add(
            kind: str,
            questions: Sequence[str],
            encoded: NDArray[np.float32],
            left_out: Sequence[Sequence[int]] = (),
            *,
            rows: NDArray[np.float32] = rows,
            words: Words = words,
            sample: NDArray[np.float32] = sample,
            groups: dict[str, list[dict[str, Scored]]] = groups,
        ) -> None:
            shares = np.stack([words.shares(question) for question in questions])
            cosines = (encoded @ rows.T).astype(float)
            background = (encoded @ sample).astype(float)
            groups.setdefault(kind, []).append(scored(cosines, shares, background, left_out))

        add("answered", one.questions, asked[one.name])
        add("left out", one.questions, asked[one.name], one.relevant)
        for other in collections:
            if other is not one:
                add("foreign", other.questions[:FOREIGN], asked[other.name][:FOREIGN])
        read[one.name] = {
            kind: {mode: _joined([part[mode] for part in parts]) for mode in MODES}
            for kind, parts in groups.items()
        }
        print(f"  {one.name}: {len(one.passages):,} passages", file=sys.stderr, flush=True)
    return read


def _joined(parts: Sequence[Scored]) -> Scored:
    fields = ("ranked", "cosines", "shares", "background")
    return Scored(*(np.concatenate([getattr(one, name) for one in parts]) for name in fields))


# --- the two commands ---------------------------------------------------------------------------


def fitted(weighted: Sequence[tuple[Array, float]]) -> Array:
    """Return the constants of a logistic formula (Newton's method, a ridge of .001).

    Args:
        weighted: Rows of measures and whether they are of answered questions; each pair weighs
            as much as its size says: +2 answered, -1 one kind of unanswered.
    """
    rows = np.concatenate([one for one, _ in weighted])
    is_answered = np.concatenate([np.full(len(one), sign > 0) for one, sign in weighted])
    weights = np.concatenate(
        [np.full(len(one), abs(sign) * 200 / len(one)) for one, sign in weighted]
    )
    constants, ridge = np.zeros(rows.shape[1]), 1e-3
    for _ in range(40):
        chances = 1 / (1 + np.exp(-rows @ constants))
        slope = rows.T @ (weights * (chances - is_answered)) + ridge * constants
        bend = (rows * (weights * chances * (1 - chances))[:, None]).T @ rows
        constants -= np.linalg.solve(bend + ridge * np.eye(len(constants)), slope)
    return constants


def learn(groups: Mapping[str, Groups]) -> None:
    signs = {"answered": 2.0, "left out": -1.0, "foreign": -1.0}

    def constants_of(mode: str, names: Sequence[str]) -> Array:
        return fitted(
            [
                (measures(mode, groups[name][kind][mode]), sign)
                for name in names
                for kind, sign in signs.items()
            ]
        )

    rows = []
    for mode in MODES:
        shown = ", ".join(f"{one:.2f}" for one in constants_of(mode, list(groups)))
        for name, found in groups.items():
            others = constants_of(mode, [one for one in groups if one != name])
            answered, *rest = (measures(mode, found[kind][mode]) @ others for kind in signs)
            rows.append([mode, name, *(_share(auroc(answered, one)) for one in rest), shown])
    columns = ["mode", "learned on all but", "AUROC left out", "foreign", "constants of all"]
    show("The constants, and what they are worth on what they were not learned on", columns, rows)


def measure(groups: Mapping[str, Groups]) -> dict[str, object]:
    figures: dict[str, object] = {}
    rows, calibration = [], []
    for name, found in groups.items():
        for mode in MODES:
            kinds = [found[kind][mode] for kind in ("answered", "left out", "foreign")]
            sure = [judged(mode, one) for one in kinds]
            ways = {
                "raw score": [one.ranked[:, 0] for one in kinds],
                "gap to the second": [one.ranked[:, 0] - one.ranked[:, 1] for one in kinds],
                "confidence": sure,
            }
            worth = [auroc(one[0], one[n]) for one in ways.values() for n in (1, 2)]
            least = np.quantile(ways["raw score"][0], 0.1)
            cuts = [float((one < least).mean()) for one in ways["raw score"][1:]]
            rows.append([name, mode, *map(_share, worth), f"{least:.2f}", *map(_share, cuts)])
            balanced = [_near_half(sure)]
            calibration.append(
                [name, mode, *(f"{one.mean():.2f}" for one in sure), *map(_share, balanced)]
            )
            figures[f"{name} {mode}"] = {"auroc": worth, "cut": cuts}
    show(
        "AUROC of answered questions against the same with their passage left out | those of "
        "other collections",
        ["collection", "mode", "raw", "", "gap", "", "confidence", "", "min_score", "cuts", ""],
        rows,
        f"`min_score` is the raw score that 90 % of the answered questions' first hits have; "
        f"`cuts` is which share of the unanswered ones it leaves without a hit. {MODEL}; the "
        f"fused score has {WEIGHT:g} of (1 + cosine) / 2 and {1 - WEIGHT:.1f} of BM25 over the "
        "highest that the question allows.",
    )
    show(
        "Mean confidence, and how many of those between .4 and .6 are answered",
        ["collection", "mode", "answered", "left out", "foreign", "answered of .4 to .6"],
        calibration,
        "In a mixture of half answered questions, a quarter left out and a quarter foreign.",
    )
    return figures


def _near_half(sure: Sequence[Array]) -> float:
    """Return the share of answered questions among those of middling confidence."""
    shares = [float(((one > 0.4) & (one < 0.6)).mean()) for one in sure]
    answered, left_out, foreign = shares[0] / 2, shares[1] / 4, shares[2] / 4
    return answered / (answered + left_out + foreign)


def _share(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("do", choices=["measure", "learn"])
    beir.add_common_arguments(parser)
    options = parser.parse_args()
    needs = ["training.tar.xz"] if options.do == "learn" else [f"retrieval/{n}" for n in ASIDE]
    data = beir.data_folder(options.data, *needs)
    options.work.mkdir(parents=True, exist_ok=True)
    vectors = Vectors(options.work / "vectors", MODEL)
    print(machine())
    if options.do == "learn":
        learn(read(list(training(data, options.work)), vectors))
    else:
        write_json(options.json, measure(read(list(held_out(data)), vectors)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

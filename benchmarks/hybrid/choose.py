"""Chooses constants on training collections: analysis, normalisation, weight, phrasings.

Nothing here reads a test split. The weights that follow the question are learned on all
collections but one and tried on that one, each in turn.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..chunking.vectors import Vectors
from ..tables import show
from .bm25 import K1, B, Lexical, Postings
from .collections import CHOSEN_ON, Collection
from .scoring import Array, K, best, gains
from .weights import followed

WEIGHTS = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9)
WEIGHT = 0.7


@dataclass(frozen=True)
class Scored:
    """A collection with the scores of every question and row.

    Attributes:
        dense: Cosines, `(questions, rows)`.
        lexical: BM25 and what it could reach.
    """

    collection: Collection
    dense: Array
    lexical: Lexical

    @classmethod
    def of(cls, collection: Collection, vectors: Vectors) -> Scored:
        """Encode and analyse a collection."""
        asked = vectors.of_texts(collection.questions)
        dense = asked @ vectors.of_texts(collection.encoded).T
        postings = Postings(collection)
        lexical = postings.score([postings.of(one) for one in collection.questions])
        return cls(collection, dense.astype(np.float64), lexical)

    def gain(self, scores: Array) -> float:
        """Return the mean nDCG@10 of scores."""
        return float(gains(scores, self.collection.relevant).mean())


def _share(scored: Scored) -> Array:
    """Return BM25 as a share of what the question could reach."""
    return scored.lexical.scores / np.maximum(scored.lexical.maxima, 1e-9)[:, None]


def _observed(scored: Scored) -> Array:
    top = scored.lexical.scores.max(axis=1, keepdims=True)
    return scored.lexical.scores / np.maximum(top, 1e-9)


def _cosine(scored: Scored) -> Array:
    return (scored.dense + 1) / 2


def _cosine_observed(scored: Scored) -> Array:
    cosine = _cosine(scored)
    return cosine / cosine.max(axis=1, keepdims=True)


def _saturating(scored: Scored) -> Array:
    return scored.lexical.scores / (scored.lexical.scores + 20)


NORMALISATIONS: Mapping[str, tuple[Callable[[Scored], Array], Callable[[Scored], Array]]] = {
    "cosine −1 to 1, BM25 to its theoretical maximum": (_cosine, _share),
    "cosine −1 to 1, BM25 to the observed maximum": (_cosine, _observed),
    "both to their observed maxima": (_cosine_observed, _observed),
    "cosine −1 to 1, s / (s + 20)": (_cosine, _saturating),
}


def rrf(scored: Scored, constant: int = 60) -> Array:
    """Return the scores of reciprocal rank fusion over the whole lists."""
    dense, lexical = (
        np.argsort(np.argsort(-one, axis=1, kind="stable"), axis=1, kind="stable") + 1
        for one in (scored.dense, scored.lexical.scores)
    )
    found = np.where(scored.lexical.scores > 0, 1 / (constant + lexical), 0)
    return 1 / (constant + dense) + found


def analysis(collections: Sequence[Collection]) -> dict[str, list[float]]:
    """Print what titles and stop words are worth to BM25."""
    rows: dict[str, list[float]] = {}
    for collection in collections:
        once = Postings(collection)
        asked = [once.of(one) for one in collection.questions]
        whole = [once.of(one, keep_stop_words=True) for one in collection.questions]
        for name, postings, terms in (
            ("as it is: titles once", once, asked),
            ("titles twice", Postings(collection, titles=2), asked),
            ("without titles", Postings(collection, titles=0), asked),
            ("stop words asked for, parts at full weight", once, whole),
            ("lengths without stop words", Postings(collection, stopped=True), asked),
        ):
            found = gains(postings.score(terms).scores, collection.relevant)
            rows.setdefault(name, []).append(float(found.mean()))
    _show(f"BM25, k1 {K1:g} and b {B:g}: nDCG@10", [one.name for one in collections], rows)
    return rows


def normalisation(every: Sequence[Scored]) -> dict[str, list[float]]:
    """Print each normalisation at each weight, and what the parts find."""
    rows = {
        "dense": [one.gain(one.dense) for one in every],
        "lexical": [one.gain(one.lexical.scores) for one in every],
        "reciprocal rank fusion, 60": [one.gain(rrf(one)) for one in every],
    }
    for name, (dense, lexical) in NORMALISATIONS.items():
        pairs = [(dense(one), lexical(one)) for one in every]
        for weight in WEIGHTS:
            rows[f"{name}, {weight:g}"] = [
                one.gain(weight * left + (1 - weight) * right)
                for one, (left, right) in zip(every, pairs, strict=True)
            ]
    names = [one.collection.name for one in every]
    _show("Fusion: nDCG@10, the number is the share of the dense score", names, rows)
    return rows


def _show(title: str, names: Sequence[str], rows: Mapping[str, Sequence[float]]) -> None:
    cells = [
        [name, *(f"{v:.4f}"[1:] for v in (*row, float(np.mean(row))))] for name, row in rows.items()
    ]
    show(title, ["", *names, "mean"], cells)


def features(scored: Scored) -> NDArray[np.float64]:
    """Return what a question's weight may follow, `(questions, 5)`, the last column 1.

    The highest idf beside that of a word in one row, the share of what BM25 could reach that the
    first hit has, the agreement of both lists' first ten, and the share of words like symbols.
    """
    count = scored.dense.shape[1]
    rarest = scored.lexical.idf / np.log1p((count - 0.5) / 1.5)
    covered = _share(scored).max(axis=1)
    lists = zip(best(scored.dense), best(scored.lexical.scores), strict=True)
    agreed = np.array([len(set(a.tolist()) & set(b.tolist())) / K for a, b in lists])
    symbols = np.array([_symbol_share(one) for one in scored.collection.questions])
    return np.column_stack([rarest, covered, agreed, symbols, np.ones(len(symbols))])


def _symbol_share(question: str) -> float:
    words = question.split()
    return sum(_is_symbol(word.strip(".,;:?!")) for word in words) / max(1, len(words))


def _is_symbol(word: str) -> bool:
    return (
        any(mark in word for mark in "_.()/")
        or (any(c.isdigit() for c in word) and any(c.isalpha() for c in word))
        or any(a.islower() and b.isupper() for a, b in itertools.pairwise(word))
    )


def following(every: Sequence[Scored]) -> dict[str, dict[str, float]]:
    """Print weights that follow the question beside the fixed one, by collections left out."""
    steps = np.round(np.arange(-0.2, 0.21, 0.05), 2)
    table = []
    for one in every:
        dense, lexical = _cosine(one), _share(one)
        table.append(
            np.column_stack(
                [
                    gains(
                        (WEIGHT + s) * dense + (1 - WEIGHT - s) * lexical, one.collection.relevant
                    )
                    for s in steps
                ]
            )
        )
    found = followed([features(one) for one in every], table, steps)
    report = {one.collection.name: row._asdict() for one, row in zip(every, found, strict=True)}
    show(
        f"Weights that follow the question, within .2 of {WEIGHT:g}, learned on the others",
        ["left out", "fixed", "following", "gain (95 %)", "best of each question"],
        [
            [
                name,
                f"{row['fixed']:.4f}"[1:],
                f"{row['following']:.4f}"[1:],
                f"{row['gain']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f})",
                f"{row['oracle']:.4f}"[1:],
            ]
            for name, row in report.items()
        ],
    )
    return report


def phrasings(every: Sequence[Scored], vectors: Vectors) -> dict[str, list[float]]:
    """Print how rankings of two phrasings of a question are best made one.

    The second phrasing is the question without every third word.
    """
    rows: dict[str, list[float]] = {}
    for one in every:
        collection = one.collection
        shorter = [
            " ".join(w for n, w in enumerate(text.split()) if n % 3 != 1) or text
            for text in collection.questions
        ]
        other = Scored.of(
            Collection(
                collection.name,
                collection.titles,
                collection.texts,
                shorter,
                collection.relevant,
                collection.language,
            ),
            vectors,
        )
        first, second = (WEIGHT * _cosine(two) + (1 - WEIGHT) * _share(two) for two in (one, other))
        ranks = [
            np.argsort(np.argsort(-two, axis=1, kind="stable"), axis=1, kind="stable") + 1
            for two in (first, second)
        ]
        for name, scores in (
            ("the first alone", first),
            ("the second alone", second),
            ("mean of the scores", first + second),
            ("reciprocal rank fusion, 60", 1 / (60 + ranks[0]) + 1 / (60 + ranks[1])),
        ):
            rows.setdefault(name, []).append(one.gain(scores))
    _show(
        "Two phrasings of a question, the second without every third word: nDCG@10",
        [one.collection.name for one in every],
        rows,
    )
    return rows


def run(data: Path, work: Path, model: str, only: Sequence[str]) -> dict[str, object]:
    """Print all tables."""
    vectors = Vectors(work / "vectors", model)
    wanted = [name for name in CHOSEN_ON if not only or name in only]
    collections = [CHOSEN_ON[name](data, work) for name in wanted]
    every = [Scored.of(one, vectors) for one in collections]
    return {
        "analysis": analysis(collections),
        "normalisation": normalisation(every),
        "following": following(every),
        "phrasings": phrasings(every, vectors),
    }

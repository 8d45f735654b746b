"""Collections with titles apart from texts, from training material.

Constants are chosen on training material alone: SciFact's training questions, a sample of SQuAD's
training articles, MedQuAD, and functions of the installed Python with the first lines of their
docstrings as questions, or their names.
"""

from __future__ import annotations

import ast
import hashlib
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .. import beir
from ..chunking.sources import training

_PACKAGES = ("sentence_transformers", "numpy", "click", "transformers")


@dataclass(frozen=True)
class Collection:
    """Passages, each a row, and questions with the rows that answer them.

    Attributes:
        name: Of the collection and the split of its questions.
        titles: A title a row, which may be empty.
        texts: A text a row.
        questions: Texts.
        relevant: For each question the grades by row.
        language: Of the texts; None for code.
    """

    name: str
    titles: Sequence[str]
    texts: Sequence[str]
    questions: Sequence[str]
    relevant: Sequence[Mapping[int, int]]
    language: str | None = "en"

    @property
    def encoded(self) -> list[str]:
        """Return what the encoder sees of each row: title and text, as published figures."""
        return [f"{a} {b}".strip() for a, b in zip(self.titles, self.texts, strict=True)]


def scifact(data: Path, _work: Path, split: str = "train") -> Collection:
    """Return SciFact's abstracts with the questions of a split."""
    return beir_collection(data / "retrieval" / "scifact", split)


def beir_collection(folder: Path, split: str) -> Collection:
    """Return a collection in BEIR layout with the questions of a split."""
    rows = list(beir.read_lines(folder / "corpus.jsonl"))
    number = {row["_id"]: place for place, row in enumerate(rows)}
    source = beir.load(folder, split)
    questions = list(source.queries)
    return Collection(
        f"{folder.name} {split}",
        [row.get("title") or "" for row in rows],
        [row["text"] for row in rows],
        [source.queries[key] for key in questions],
        [{number[one]: g for one, g in source.relevant[key].items()} for key in questions],
    )


def squad(data: Path, work: Path, *, every: int = 10, questions: int = 8) -> Collection:
    """Return the paragraphs of every so many articles, with one in so many of their questions."""
    folder = training(data, work) / "squad"
    rows = [
        row
        for row in beir.read_lines(folder / "corpus.jsonl")
        if int(row["_id"].split("-")[1]) % every == 0
    ]
    number = {row["_id"]: place for place, row in enumerate(rows)}
    asked = {row["_id"]: row["text"] for row in beir.read_lines(folder / "queries.jsonl")}
    answers = [r for r in beir.read_lines(folder / "answers.jsonl") if r["corpus_id"] in number]
    answers = answers[::questions]
    return Collection(
        "squad train",
        [row["title"] for row in rows],
        [row["text"] for row in rows],
        [asked[row["query_id"]] for row in answers],
        [{number[row["corpus_id"]]: 1} for row in answers],
    )


def medquad(data: Path, work: Path, *, every: int = 10) -> Collection:
    """Return one in so many of MedQuAD's questions with their answers."""
    pairs = list(beir.read_lines(training(data, work) / "medquad" / "pairs.jsonl"))[::every]
    number = {text: place for place, text in enumerate(dict.fromkeys(p["positive"] for p in pairs))}
    relevant: dict[str, dict[int, int]] = {}
    for pair in pairs:
        relevant.setdefault(pair["query"], {})[number[pair["positive"]]] = 1
    texts = list(number)
    return Collection("medquad", [""] * len(texts), texts, list(relevant), list(relevant.values()))


class _Function(NamedTuple):
    name: str
    summary: str
    body: str


def _functions(limit: int) -> list[_Function]:
    """Return functions of the standard library and some packages, in an order by hash."""
    library = Path(sysconfig.get_paths()["stdlib"])
    packages = Path(sysconfig.get_paths()["purelib"])
    files = [*library.glob("*.py"), *library.glob("[a-z]*/*.py")]
    for name in _PACKAGES:
        files += [file for file in (packages / name).rglob("*.py") if "test" not in str(file)]
    files.sort(key=lambda file: hashlib.sha256(file.name.encode()).digest())
    found: dict[str, _Function] = {}
    for file in files:
        for one in _functions_in(file):
            found.setdefault(one.summary, one)
        if len(found) >= limit:
            break
    return list(found.values())[:limit]


def _functions_in(file: Path) -> Iterator[_Function]:
    try:
        source = file.read_text("utf-8")
        tree = ast.parse(source)
    except (UnicodeDecodeError, SyntaxError, ValueError):
        return
    lines = source.splitlines()
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or len(node.body) < 2:
            continue
        summary = (ast.get_docstring(node) or "").partition("\n")[0].strip()
        first = node.body[0]
        if len(summary.split()) < 4 or first.end_lineno is None or node.end_lineno is None:
            continue
        body = [
            *lines[node.lineno - 1 : first.lineno - 1],
            *lines[first.end_lineno : node.end_lineno],
        ]
        if 4 <= len(body) <= 80:
            yield _Function(node.name, summary, "\n".join(body))


def docstrings(_data: Path, _work: Path) -> Collection:
    """Return functions without their docstrings, whose first lines are the questions."""
    found = _functions(2500)
    asked = range(0, len(found), 3)
    return Collection(
        "docstrings",
        [""] * len(found),
        [one.body for one in found],
        [found[place].summary for place in asked],
        [{place: 1} for place in asked],
        None,
    )


def symbols(_data: Path, _work: Path) -> Collection:
    """Return the same functions, whose names, where only one has it, are the questions."""
    found = _functions(2500)
    times = Counter(one.name for one in found)
    asked = [
        place
        for place, one in enumerate(found)
        if times[one.name] == 1 and len(one.name) > 7 and "_" in one.name.strip("_")
    ]
    return Collection(
        "symbols",
        [""] * len(found),
        [one.body for one in found],
        [found[place].name for place in asked],
        [{place: 1} for place in asked],
        None,
    )


CHOSEN_ON: Mapping[str, Callable[[Path, Path], Collection]] = {
    "scifact train": scifact,
    "squad train": squad,
    "medquad": medquad,
    "docstrings": docstrings,
    "symbols": symbols,
}

"""The collections: documents, and questions of which it is known where the answer stands.

A default is chosen on training splits: `squad-train` and `squad-train-2` (articles),
`squad-paragraphs`, `medquad` and `scifact-train` (short documents), and `markdown`. Everything else
only confirms it. PubMedQA, in the same archive, is too easy to choose by: nDCG@10 is .99.
"""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from retriever import Document
from retriever.evaluation.spans import Reference, SpanQuestion

from .. import beir

TRAINING = "training.tar.xz"


@dataclass(frozen=True)
class Question:
    """A question about one collection.

    Attributes:
        id: Unique among the questions.
        text: What is asked.
        relevant: Grade by document id.
        marked: Where its answers stand; None where only documents are judged.
        kind: What the answer is made of, where a collection has several kinds.
    """

    id: str
    text: str
    relevant: Mapping[str, int]
    marked: SpanQuestion | None = None
    kind: str = ""

    @classmethod
    def about(
        cls, key: str, text: str, references: Iterable[Reference], kind: str = ""
    ) -> Question:
        """Return a question about one document, of which each reference is an answer."""
        marked = SpanQuestion(key, text, tuple((one,) for one in references))
        return cls(key, text, {marked.document: 1}, marked, kind)


@dataclass(frozen=True)
class Source:
    """Documents with unique ids, and questions about them."""

    name: str
    documents: list[Document]
    questions: list[Question]

    @property
    def has_spans(self) -> bool:
        """Return whether answers are marked, so that spans can be scored."""
        return self.questions[0].marked is not None

    @property
    def clusters(self) -> list[str]:
        """Return for each question what it shares with others: its document, if that is marked."""
        return [one.marked.document if one.marked else one.id for one in self.questions]


def load(name: str, data: Path, work: Path) -> Source:
    """Return a collection by its name; end the program, naming the file, where one is missing."""
    return SOURCES[name](data, work)


def squad(
    name: str,
    folder: Callable[[Path, Path], Path],
    data: Path,
    work: Path,
    *,
    articles: tuple[int, int] = (1, 0),
    questions: int = 1,
) -> Source:
    """Join the paragraphs of each title by blank lines, and shift the answers.

    Args:
        name: Of the source.
        folder: Given the data and the work folder, returns the one with the collection.
        data: The data folder.
        work: Where archives are unpacked.
        articles: Of so many articles the one that is left over, by its number.
        questions: Of so many of their questions, one.
    """
    place = folder(data, work)
    every, rest = articles
    texts: dict[str, str] = {}
    titles: dict[str, str] = {}
    offsets: dict[str, int] = {}
    for row in beir.read_lines(place / "corpus.jsonl"):
        article = row["_id"].split("-")[1]
        if int(article) % every == rest:
            before = f"{texts[article]}\n\n" if article in texts else ""
            offsets[row["_id"]] = len(before)
            texts[article] = before + row["text"]
            titles[article] = row["title"]
    asked = {row["_id"]: row["text"] for row in beir.read_lines(place / "queries.jsonl")}
    rows = [r for r in beir.read_lines(place / "answers.jsonl") if r["corpus_id"] in offsets]
    found = []
    for row in rows[::questions]:
        article = row["corpus_id"].split("-")[1]
        references = _references(row["answers"], article, offsets[row["corpus_id"]], texts[article])
        found.append(Question.about(row["query_id"], asked[row["query_id"]], references))
    documents = [Document(text, id=key, title=titles[key]) for key, text in texts.items()]
    return Source(name, documents, found)


def covidqa(data: Path, _work: Path) -> Source:
    """Return long papers with marked answers; each question is about one paper."""
    folder = data / "retrieval" / "covidqa"
    rows = list(beir.read_lines(folder / "corpus.jsonl"))
    texts = {row["_id"]: row["text"] for row in rows}
    asked = {row["_id"]: row["text"] for row in beir.read_lines(folder / "queries.jsonl")}
    questions = []
    for row in beir.read_lines(folder / "answers.jsonl"):
        document = row["corpus_id"]
        references = _references(row["answers"], document, 0, texts[document])
        questions.append(Question.about(row["query_id"], asked[row["query_id"]], references))
    documents = [Document(row["text"], id=row["_id"], title=row["title"] or None) for row in rows]
    return Source("covidqa", documents, questions)


def judged(name: str, data: Path, _work: Path, *, split: str = "test", every: int = 1) -> Source:
    """Return a collection that is judged by document: its title is the beginning of its text.

    That is how published figures take the text ("title text"); so the title is not given again.

    Args:
        name: Of the folder.
        data: The data folder.
        split: Of its judgements.
        every: Of so many documents that are relevant to no question, one.
    """
    collection = beir.load(data / "retrieval" / name, split)
    relevant = {key for grades in collection.relevant.values() for key in grades}
    documents = [
        Document(text, id=key)
        for position, (key, text) in enumerate(collection.documents.items())
        if key in relevant or position % every == 0
    ]
    questions = [
        Question(key, text, collection.relevant[key]) for key, text in collection.queries.items()
    ]
    return Source(name if split == "test" else f"{name}-{split}", documents, questions)


def pairs(name: str, data: Path, work: Path, *, every: int = 1) -> Source:
    """Return pairs of a question and the text that answers it, each text a document.

    MedQuAD's answers have from 1 to 250 sentences, so that some fit a window and others do not. A
    text that several questions have is one document.

    Args:
        name: Of the source, and of its folder.
        data: The data folder.
        work: Where archives are unpacked.
        every: Of so many pairs, one.
    """
    rows = list(beir.read_lines(training(data, work) / name / "pairs.jsonl"))[::every]
    ids: dict[str, str] = {}
    relevant: dict[str, dict[str, int]] = {}
    for row in rows:
        key = ids.setdefault(row["positive"], str(len(ids)))
        relevant.setdefault(row["query"], {})[key] = 1
    documents = [Document(text, id=key) for text, key in ids.items()]
    return Source(name, documents, [Question(q, q, keys) for q, keys in relevant.items()])


def paragraphs(data: Path, work: Path) -> Source:
    """Return the paragraphs of `squad-train` as documents; most of them fit a window."""
    folder = _squad_train(data, work)
    rows = [
        row
        for row in beir.read_lines(folder / "corpus.jsonl")
        if int(row["_id"].split("-")[1]) % 10 == 0
    ]
    asked = {row["_id"]: row["text"] for row in beir.read_lines(folder / "queries.jsonl")}
    kept = {row["_id"] for row in rows}
    answered = [r for r in beir.read_lines(folder / "answers.jsonl") if r["corpus_id"] in kept]
    questions = [
        Question(row["query_id"], asked[row["query_id"]], {row["corpus_id"]: 1})
        for row in answered[::4]
    ]
    documents = [Document(row["text"], id=row["_id"], title=row["title"]) for row in rows]
    return Source("squad-paragraphs", documents, questions)


def training(data: Path, work: Path) -> Path:
    folder = work / "training"
    if not folder.is_dir():
        with tarfile.open(data / TRAINING) as archive:
            archive.extractall(work, filter="data")
    return folder


def _squad_train(data: Path, work: Path) -> Path:
    return training(data, work) / "squad"


def _squad_dev(data: Path, _work: Path) -> Path:
    return data / "retrieval" / "squad-dev"


def _references(
    answers: Iterable[Any], document: str, offset: int, text: str
) -> Iterator[Reference]:
    for answer in answers:
        start = offset + answer["start"]
        if not text.startswith(answer["text"], start):
            sys.exit(f"The answer {answer['text']!r} is not at character {start} of its document.")
        yield Reference(document, start, answer["text"])


def _markdown(data: Path, work: Path) -> Source:
    from .markdown import markdown

    return markdown(data, work)


_TRAIN = partial(squad, folder=_squad_train, questions=4)
SOURCES: dict[str, Callable[[Path, Path], Source]] = {
    "squad-train": lambda data, work: _TRAIN("squad-train", data=data, work=work, articles=(10, 0)),
    "squad-train-2": lambda data, work: _TRAIN(
        "squad-train-2", data=data, work=work, articles=(10, 5)
    ),
    "squad-paragraphs": paragraphs,
    "medquad": partial(pairs, "medquad", every=16),
    "markdown": _markdown,
    "scifact-train": partial(judged, "scifact", split="train", every=5),
    "squad-dev": lambda data, work: squad("squad-dev", _squad_dev, data, work),
    "covidqa": covidqa,
    "cranfield": partial(judged, "cranfield"),
    "scifact": partial(judged, "scifact"),
}

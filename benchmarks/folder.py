"""Shows what becomes of a real folder: what is indexed, what is not and why, what is found.

    OMP_NUM_THREADS=2 python -m benchmarks.folder --data DIR

Unpacks `documents.tar.xz` (782 real files of many formats and encodings) into `--work`, indexes it,
accounts for every file, indexes it again unchanged (in this process, and in a fresh one, which
must not import torch), asks ten questions a person might ask and checks that each citation leads
to its text. The expected files were written down before the first search; whether an answer is
good is for the reader to judge. A run that is cut short goes on where it stopped; `--fresh` starts
again.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from retriever import FileOutcome, Hit, Index, IngestReport

from . import beir
from .machine import machine, write_json

ARCHIVE = "documents.tar.xz"
MODEL = "all-MiniLM-L6-v2"
HEAVY = ("torch", "transformers", "sentence_transformers", "sklearn")
_SNIPPET = 220


@dataclass(frozen=True)
class Question:
    """A question, and the files of the folder that answer it (the ends of their paths)."""

    text: str
    expected: tuple[str, ...]


QUESTIONS = (
    Question(
        "Why does Meilisearch take up the same disk space after I delete documents?",
        ("resources/internals/storage.mdx",),
    ),
    Question(
        "How many collections can one Weaviate instance have before it becomes a problem?",
        ("managing-collections/collections-scaling-limits.mdx",),
    ),
    Question(
        "How long is the incubation period of the new coronavirus?",
        ("data__faqs__faq_200327.tsv", "data__question-answering__docs.tsv"),
    ),
    Question(
        "For which football clubs did Iwan Roberts play?",
        ("example-docs__norwich-city.txt",),
    ),
    Question(
        "Which teams did Steve Nash play for in the NBA?",
        ("notebooks__segments__1.txt", "notebooks__segments__4.txt"),
    ),
    Question(
        "What does Prince Andrew think of the sky as he lies wounded at Austerlitz?",
        ("example-docs__book-war-and-peace-1225p.txt",),
    ),
    Question(
        "How do I restrict a faiss search to a subset of the vectors?",
        ("faiss/impl/IDSelector.h",),
    ),
    Question(
        "How do I set a different timeout for connecting and for reading in httpx?",
        ("httpx/httpx/_config.py",),
    ),
    Question(
        "How can a click command ask for a password twice to confirm it?",
        ("click/src/click/core.py", "click/tests/test_termui.py"),
    ),
    Question(
        "Quelle configuration minimale faut-il pour installer RAGFlow ?",
        ("non-english/ragflow/README_fr.md",),
    ),
)

# Run in a process of its own: indexes an unchanged folder and tells what that took.
_AGAIN = """
import json, sys, time
began = time.perf_counter()
from retriever import Index
with Index.open(sys.argv[1]) as index:
    report = index.add_files(sys.argv[2])
seconds = time.perf_counter() - began
heavy = [name for name in sys.argv[3:] if name in sys.modules]
print(json.dumps({"seconds": seconds, "unchanged": report.unchanged, "heavy": heavy}))
"""


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the archive, whole or not at all."""
    if folder.is_dir():
        return
    partial = folder.with_name("unpacking")
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(partial, filter="data")
    partial.rename(folder)


# --- accounts -------------------------------------------------------------------------------------


def account(index: Index, folder: Path, report: IngestReport) -> dict:
    """Print what became of every file, and the token ledger; return the figures."""
    status = index.status()
    indexed = Counter(PurePath(document.source or "").suffix for document in index.documents())
    left_out = Counter(PurePath(outcome.path).suffix for outcome in _left_out(report))
    present = sum(1 for path in folder.rglob("*") if path.is_file())
    states, tokens = status.files.to_dict(), status.tokens.to_dict()
    print(f"files present {present}, by state {states}, hidden or ignored {report.excluded}")
    for name in ("documents", "chunks", "empty_documents", "bytes_on_disk"):
        print(f"{name.replace('_', ' ')} {getattr(status, name):,}")
    print("tokens " + ", ".join(f"{name} {count:,}" for name, count in tokens.items()))
    print("indexed: " + _counts(indexed))
    print("left out: " + _counts(left_out))
    reasons = Counter(_reason(index.path.parent, outcome) for outcome in _left_out(report))
    for (state, reason), count in reasons.most_common():
        print(f"{count:5} {state}: {reason}")
    print(f"documents in a script that the encoder does not know: {len(status.unfamiliar)}")
    return {
        "present": present,
        "excluded": report.excluded,
        "files": states,
        "documents": status.documents,
        "chunks": status.chunks,
        "tokens": tokens,
        "bytes_on_disk": status.bytes_on_disk,
        "indexed": indexed,
        "left_out": left_out,
        "reasons": {f"{state}: {reason}": count for (state, reason), count in reasons.items()},
        "unfamiliar": [one._asdict() for one in status.unfamiliar],
    }


def _left_out(report: IngestReport) -> list[FileOutcome]:
    return [*report.skipped, *report.failed]


def _counts(by_suffix: Counter[str]) -> str:
    return ", ".join(f"{suffix or 'none'} {n}" for suffix, n in by_suffix.most_common())


def _reason(base: Path, outcome: FileOutcome) -> tuple[str, str]:
    """Return a file's state and reason without its name and the remedy, so that equal ones meet."""
    reason = outcome.reason.replace(str(base.resolve() / outcome.path), "").strip()
    return outcome.state, re.split(r"(?<=[.:]) ", reason.replace("is binary: ", "is binary, "))[0]


def again(index: Path, folder: Path) -> dict:
    """Index the unchanged folder in a fresh process; return its seconds and heavy imports."""
    command = [sys.executable, "-c", _AGAIN, str(index), str(folder), *HEAVY]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {**json.loads(done.stdout), "with_interpreter": time.perf_counter() - began}


# --- questions ------------------------------------------------------------------------------------


def ask_all(index: Index, questions: Sequence[Question]) -> list[dict]:
    """Print and return the first three hits for each question."""
    asked = []
    for number, question in enumerate(questions, 1):
        hits = index.search(question.text, k=3).hits
        ranks = [hit.rank for hit in hits if (hit.source or "").endswith(question.expected)]
        print(f"\n{number}. {question.text}\n   expected file at {ranks or 'none of 1 to 3'}")
        for hit in hits:
            print(f"   {hit.score:.3f} {hit.citation}  {' > '.join(hit.heading)}")
            print(f"         {_snippet(hit)}")
        asked.append(
            {
                "question": question.text,
                "expected": question.expected,
                "expected_at": ranks,
                "citations_hold": sum(leads_to_text(index, hit) for hit in hits),
                "hits": [hit.to_dict() for hit in hits],
            }
        )
    return asked


def _snippet(hit: Hit) -> str:
    text = " ".join(hit.text.split())
    return text if len(text) <= _SNIPPET else text[: _SNIPPET - 1] + "…"


def leads_to_text(index: Index, hit: Hit) -> bool:
    """Whether the lines cited, read from the file itself, hold the text of the hit."""
    file = index.path.parent / str(hit.source)
    text = file.read_bytes().decode(hit.metadata.get("encoding", "utf-8-sig"))
    first, last = hit.lines
    cited = re.split(r"\r\n|\r|\n", text)[first - 1 : last]
    return "".join(hit.text.split()) in "".join("".join(cited).split())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    beir.add_common_arguments(parser)
    parser.add_argument("--fresh", action="store_true", help="index everything anew")
    options = parser.parse_args()
    data = beir.data_folder(options.data, ARCHIVE)
    work = options.work / "folder"
    folder, path = work / "documents", work / "folder.index"
    work.mkdir(parents=True, exist_ok=True)
    if options.fresh:
        shutil.rmtree(path, ignore_errors=True)
    unpack(data / ARCHIVE, folder)
    print(machine())
    with Index.open(path, model=MODEL) as index:
        first = index.add_files(folder)
        print(
            f"first run: {first.added} added, {first.unchanged} unchanged, {first.encoded:,} of "
            f"{first.chunks:,} chunks encoded, {first.tokens:,} tokens, {first.seconds:.1f} s"
        )
        figures = account(index, folder, first)
        second = index.add_files(folder)
        print(f"second run: {second.unchanged} unchanged, {second.seconds:.3f} s")
    third = again(path, folder)
    print(
        f"in a fresh process: {third['unchanged']} unchanged, {third['seconds']:.3f} s "
        f"({third['with_interpreter']:.3f} s with the interpreter), "
        f"of {', '.join(HEAVY)} imported: {', '.join(third['heavy']) or 'none'}"
    )
    with Index.open(path) as index:
        asked = ask_all(index, QUESTIONS)
    held = sum(question["citations_hold"] for question in asked)
    shown = sum(len(question["hits"]) for question in asked)
    print(f"\ncitations that lead to their text: {held} of {shown}")
    figures |= {"seconds": first.seconds, "second_run_s": second.seconds, "fresh_process": third}
    write_json(options.json, {**figures, "questions": asked})
    return 1 if third["heavy"] or held != shown else 0


if __name__ == "__main__":
    sys.exit(main())

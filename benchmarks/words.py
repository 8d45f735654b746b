"""How fast texts are cut into terms, how many terms that gives, and how well languages are told.

python -m benchmarks.words --data DIR [--documents DIR] [--model MODEL]

DIR of `--data` (or $RETRIEVER_BENCH_DATA) has `retrieval/scifact/corpus.jsonl`; that of
`--documents` is an unpacked `documents.tar.xz`, whose folders say the language of many files.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import click

import retriever
from retriever import Document, Index
from retriever.documents import words
from retriever.documents.languages import _model, detect
from retriever.documents.parsers import parse
from retriever.documents.words import forms
from retriever.errors import IngestError
from retriever.testing import HashEncoder

from . import beir
from .tables import show

_OUTCOMES = ("right", "none", "wrong")
PASSAGES = 100  # characters of a short text
_BY_NAME = {
    **dict.fromkeys(("Big5", "GB2312", "zhwiki"), "zh"),
    **dict.fromkeys(("CP932", "EUC-JP", "SHIFT_JIS"), "ja"),
    **dict.fromkeys(("IBM855", "IBM866", "KOI8-R", "MacCyrillic", "russian"), "ru"),
    **{"EUC-KR": "ko", "TIS-620": "th", "polish": "pl", "hungarian": "hu", "croatian": "hr"},
    **{"czech": "cs", "bulgarian": "bg", "greek": "el", "turkish": "tr", "romanian": "ro"},
    **{"slovak": "sk", "hebrew": "he", "arabic": "ar", "documentation": "en"},
}


@click.command(help=__doc__)
@click.option("--data", required=True, envvar="RETRIEVER_BENCH_DATA", type=Path)
@click.option("--documents", type=click.Path(exists=True, path_type=Path))
@click.option("--model", help="Name or path; without it, texts are encoded by hashing words.")
@click.option("--count", default=1_000, show_default=True, help="Documents that are added.")
def main(data: Path, documents: Path | None, model: str | None, count: int) -> None:
    """Print the tables."""
    texts = list(beir.load(data / "retrieval" / "scifact").documents.values())
    code = [path.read_text(encoding="utf-8") for path in _package().rglob("*.py")]
    rows = [_speed("SciFact, English", texts, "en"), _speed("this package's source", code, None)]
    if documents is not None:
        named = list(_named(documents))
        rows.append(_speed("Chinese", [text for code, text in named if code == "zh"], "zh"))
    show(
        "Cutting texts into terms, one thread.",
        ["texts", "words", "terms a word", "million words/s, first time", "again", "MB/s again"],
        rows,
        "Words are sequences of letters and digits; again is when most words are remembered.",
    )
    _share_of_ingest(texts[:count], model)
    if documents is not None:
        _accuracy(named)


def _package() -> Path:
    return Path(retriever.__file__).parent


def _speed(name: str, texts: list[str], language: str | None) -> list[object]:
    words._terms.clear()
    forms._forms.clear()
    total = sum(len(re.findall(r"\w+", text)) for text in texts)
    first, terms = _timed(lambda: sum(len(words.terms_of(text, language)) for text in texts))
    again, _ = _timed(lambda: sum(len(words.terms_of(text, language)) for text in texts))
    size = sum(len(text.encode()) for text in texts)
    figures = [total / first / 1e6, total / again / 1e6, size / again / 1e6]
    return [name, f"{total:,}", f"{terms / total:.2f}", *(f"{one:.2f}" for one in figures)]


def _timed(work: Callable[[], int]) -> tuple[float, int]:
    """Return processor seconds: the machine may have other things to do."""
    begin = time.process_time()
    result = work()
    return time.process_time() - begin, result


def _share_of_ingest(texts: list[str], model: str | None) -> None:
    words._terms.clear()
    loading, _ = _timed(lambda: len(_model().labels))
    telling, _ = _timed(lambda: sum(detect(text) is not None for text in texts))
    cutting, _ = _timed(lambda: sum(len(words.terms_of(text, "en")) for text in texts))
    with (
        tempfile.TemporaryDirectory() as folder,
        Index.open(Path(folder) / "i", model=model or HashEncoder()) as index,
    ):
        index.add([Document(texts[0], id="warm-up")])
        documents = [Document(text, id=str(n)) for n, text in enumerate(texts)]
        adding, _ = _timed(lambda: index.add(documents).added)
    show(
        f"Beside adding {len(texts):,} SciFact documents with {model or 'HashEncoder'}.",
        ["step", "processor ms", "share of adding"],
        [
            [name, f"{1e3 * seconds:,.0f}", f"{seconds / adding:.2%}"]
            for name, seconds in (
                ("adding", adding),
                ("language of each document", telling),
                ("the model of languages, loaded once where one is asked for", loading),
                ("terms of all texts, first time", cutting),
            )
        ],
    )


def _named(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield language and text of the files of which a folder's name says the language."""
    for path in sorted(folder.rglob("*")):
        names = path.relative_to(folder).parts
        parts = [piece for name in names for piece in (name, name.rpartition("-")[2])]
        language = next((_BY_NAME[part] for part in parts if part in _BY_NAME), None)
        if language is None or not path.is_file():
            continue
        try:
            found = list(parse(path.read_bytes(), f"{path.name}.txt"))
        except IngestError:
            continue
        yield from ((language, document.text) for document in found[:1])


def _accuracy(named: list[tuple[str, str]]) -> None:
    whole = [(language, detect(text)) for language, text in named]
    short = [(language, detect(passage)) for language, text in named for passage in _passages(text)]
    rows = []
    for language in (*sorted({language for language, _ in named}), "all"):
        row: list[object] = [language]
        for pairs in (whole, short):
            own = [found for code, found in pairs if language in (code, "all")]
            right = sum(found == code for code, found in pairs if language in (code, "all"))
            counts = Counter("none" if found is None else "some" for found in own)
            row += [len(own), right, counts["none"], counts["some"] - right]
        rows.append(row)
    show(
        f"Languages told, of whole documents and of passages of {PASSAGES} characters.",
        ["language", "documents", *_OUTCOMES, "passages", *_OUTCOMES],
        rows,
        "Labels are those of folders: some files and many passages have text in English.",
    )


def _passages(text: str) -> Iterator[str]:
    """Yield three passages of a text that are mostly letters, without markup and addresses."""
    plain = " ".join(re.sub(r"<[^<>]*>|https?://\S+", " ", text).split())
    for place in (1, 2, 3):
        passage = plain[len(plain) * place // 5 :][:PASSAGES]
        if len(passage) == PASSAGES and sum(map(str.isalpha, passage)) > 0.6 * PASSAGES:
            yield passage


if __name__ == "__main__":
    main()

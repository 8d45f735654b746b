"""How many sentence ends are found, and how many that are found are ones, by language.

python -m benchmarks.boundaries GOLD… [--library]

No gold data are part of this repository. GOLD is

- `english_golden_rules.py` of pysbd, a list of texts with their sentences, which is in the source
  distribution: `pip download --no-deps --no-binary :all: pysbd==0.3.3`. It is read, never executed;
- a CoNLL-U file of Universal Dependencies;
- or JSON Lines with `{"language": "de", "sentences": ["…", "…"]}`.

The language of the first two is the start of the file's name: `de_gsd-ud-test.conllu`.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from retriever.documents.boundaries import find_boundaries
from retriever.documents.ranks import SENTENCE
from retriever.documents.rules import FIRST, RULES, Rules
from retriever.testing.hash_encoder import WordTokenizer

from .tables import show


@click.command()
@click.argument("gold", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--library", is_flag=True, help="Measure pysbd and sentencex, where installed.")
def main(gold: tuple[Path, ...], library: bool) -> None:
    r"""Measure where sentences are said to end, by the languages of GOLD.

    GOLD is a file of CoNLL-U, JSON Lines, or the golden rules of pysbd, which are in its source
    distribution as benchmarks/english_golden_rules.py:

    \b
    pip download --no-deps --no-binary :all: pysbd==0.3.3 && tar xzf pysbd-0.3.3.tar.gz
    python -m benchmarks.boundaries pysbd-0.3.3/benchmarks/english_golden_rules.py --library
    """
    sentences: dict[str, list[str]] = {}
    for path in gold:
        for language, found in read(path):
            sentences.setdefault(language, []).extend(found)
    systems = {"version 1": ours(FIRST), "now": ours(RULES)}
    if library:
        systems |= {"pysbd": _pysbd, "sentencex": _sentencex}
    rows = []
    for language, texts in sentences.items():
        shown = [_row(system, language, texts) for system in systems.values()]
        rows.append([language, f"{len(texts) - 1:,}", *shown])
    show(
        "Ends of sentences: precision / recall.",
        ["language", "sentences", *systems],
        rows,
        "Sentences of a language are joined by single spaces to one text. "
        f"Gold: {', '.join(path.name for path in gold)}.",
    )


def read(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield languages with sentences of a file of gold data."""
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        [rules] = [one.value for one in ast.parse(text).body if isinstance(one, ast.Assign)]
        for _, sentences in ast.literal_eval(rules):
            yield path.name[:2], sentences
        return
    lines = text.splitlines()
    if path.suffix == ".conllu":
        mark = "# text = "
        yield path.name[:2], [line.removeprefix(mark) for line in lines if line.startswith(mark)]
        return
    for line in lines:
        case = json.loads(line)
        yield case["language"], case["sentences"]


def ours(rules: Rules) -> Callable[[str, str], set[int]]:
    """Return what finds the starts of sentences by rules of this package."""

    def starts(language: str, text: str) -> set[int]:
        [tokens] = WordTokenizer().tokenize([text])
        found = find_boundaries(text, tokens, rules)
        return set(found.positions[found.ranks >= SENTENCE].tolist())

    return starts


def _pysbd(language: str, text: str) -> set[int]:
    import pysbd

    parts = pysbd.Segmenter(language=language, clean=False).segment(text)
    return _places(text, parts)


def _sentencex(language: str, text: str) -> set[int]:
    import sentencex

    return _places(text, list(sentencex.segment(language, text)))


def _places(text: str, parts: list[str]) -> set[int]:
    """Return where parts of a text begin."""
    found, position = set(), 0
    for part in parts:
        start = text.find(part.strip(), position)
        if part.strip() and start >= 0:
            found.add(start)
            position = start + len(part.strip())
    return found


def _row(system: Callable[[str, str], set[int]], language: str, sentences: list[str]) -> str:
    text, wanted = "", set()
    for sentence in sentences:
        wanted.add(len(text))
        text += sentence + " "
    try:
        found = system(language, text) - {0, len(text)}
    except (ImportError, ValueError):  # not installed; a language that it does not know
        return "–"
    wanted.discard(0)
    right = len(found & wanted)
    return f"{right / max(len(found), 1):.3f} / {right / max(len(wanted), 1):.3f}"


if __name__ == "__main__":
    main()

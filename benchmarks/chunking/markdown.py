"""Questions about Markdown, for which there are no labelled ones: the inverse cloze task.

A sentence is taken out of a block and becomes the question; the answer is what is left (Lee, Chang
and Toutanova, Latent Retrieval for Weakly Supervised Open Domain Question Answering, ACL 2019). Of
prose it is a sentence from the middle of a paragraph, and the answer is the rest of the paragraph.
Of a code block or a table it is the last sentence before it, and the answer is the whole block.

This shows whether a way of cutting keeps what belongs together in chunks that are found by what
they are about. It cannot show how well real questions are answered, and since the sentence was
next to its answer, it shares more words with it than a question would: compare rows with each
other, and with nothing else. Headings stay where they are, since no question is made of them.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retriever.documents.parsers.markdown import parse_markdown
from retriever.evaluation.spans import Reference

if TYPE_CHECKING:
    from .sources import Source

ARCHIVE = "documents.tar.xz"
_LEAST_FILE = 1_500  # characters: a shorter file is one chunk whatever the setting
_LEAST_WORDS = 6  # in a question
_LEAST_ANSWER = 80  # characters
_SENTENCE = re.compile(r"[^.!?:]+(?:[.!?:](?=\s|$)|[.:](?=\S)[^.!?:]*)+", re.DOTALL)
_FENCE = re.compile(r"^(```+|~~~+)[^\n]*\n.*?^\1[ \t]*$", re.DOTALL | re.MULTILINE)
_TABLE = re.compile(r"^\|[^\n]*\|[ \t]*\n\|[-:| \t]+\|[ \t]*\n(?:\|[^\n]*\|[ \t]*(?:\n|\Z))+", re.M)
_ITEM = r"(?:[-*+]|\d+[.)])[ \t]"
_LIST = re.compile(
    rf"^{_ITEM}\S[^\n]*\n(?:{_ITEM}\S[^\n]*(?:\n|\Z)|[ \t]+\S[^\n]*(?:\n|\Z)|\n(?={_ITEM}|[ \t]))+",
    re.MULTILINE,
)
_PARAGRAPH = re.compile(r"(?:^[^\n]*\S[^\n]*(?:\n|\Z))+", re.MULTILINE)
_MARKS = re.compile(r"[*_`#>]|\]\([^)]*\)|[\[\]]|<[^>]*>")


class _Item(NamedTuple):
    """A sentence to take out, `[start, end)`, and its answer in what is left of the block."""

    kind: str
    start: int
    end: int
    answer: tuple[int, int]


def markdown(data: Path, work: Path) -> Source:
    """Return the Markdown files of the archive, without the sentences that are questions."""
    from .sources import Question, Source

    documents, questions = [], []
    for path in sorted(_folder(data, work).rglob("*.md")):
        text = path.read_text("utf-8", errors="replace").replace("\r\n", "\n")
        if len(text) < _LEAST_FILE:
            continue
        name = path.name if path.name not in ("index.md", "README.md") else str(path.parent.name)
        key = f"{len(documents)}-{name}"
        left, found = _take_out(text, list(_items(text)))
        (parsed,) = parse_markdown(left.encode(), path.name)
        documents.append(type(parsed)(left, id=key, title=parsed.title, headings=parsed.headings))
        for kind, question, (start, end) in found:
            about = Reference(key, start, left[start:end])
            questions.append(Question.about(str(len(questions)), question, [about], kind))
    return Source("markdown", documents, questions)


def _items(text: str) -> Iterator[_Item]:
    """Yield at most one item of each block, in order."""
    opaque = sorted(
        [("code", *m.span()) for m in _FENCE.finditer(text)]
        + [("table", *m.span()) for m in _TABLE.finditer(text)],
        key=lambda block: block[1],
    )
    fenced = _blanked(text, opaque)
    opaque += [("list", *m.span()) for m in _LIST.finditer(fenced)]
    paragraphs = [m.span() for m in _PARAGRAPH.finditer(_blanked(text, opaque))]
    used: set[int] = set()
    for kind, start, end in opaque:
        before = [span for span in paragraphs if span[1] <= start]
        if not before or text[before[-1][1] : start].strip() or end - start < _LEAST_ANSWER:
            continue
        sentences = _sentences(text, *before[-1])
        if sentences and before[-1][0] not in used:
            used.add(before[-1][0])
            yield _Item(kind, *sentences[-1], (start, end))
    for start, end in paragraphs:
        sentences = _sentences(text, start, end)
        if start in used or len(sentences) < 2:
            continue
        middle = sentences[len(sentences) // 2]
        if end - start - (middle[1] - middle[0]) >= _LEAST_ANSWER:
            yield _Item("prose", *middle, (start, end))


def _blanked(text: str, blocks: list[tuple[str, int, int]]) -> str:
    """Return the text with empty lines instead of some blocks, at the same offsets."""
    characters = list(text)
    for _, start, end in blocks:
        characters[start:end] = "\n" * (end - start)
    return "".join(characters)


def _sentences(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Return the sentences of a paragraph of prose; none of a heading, a list, markup or a row."""
    if re.match(r"[ \t]*([-#|<>{:]|\*[ \t]|import |\d+[.)]|---)", text[start:end]):
        return []
    found = [m.span() for m in _SENTENCE.finditer(text, start, end)]
    return [(a, b) for a, b in found if len(_plain(text[a:b]).split()) >= _LEAST_WORDS]


def _plain(sentence: str) -> str:
    return " ".join(_MARKS.sub(" ", sentence).split()).rstrip(":")


def _take_out(text: str, items: list[_Item]) -> tuple[str, list[tuple[str, str, tuple[int, int]]]]:
    """Return the text without the sentences, and for each the question and where its answer is."""
    cuts = sorted((item.start, item.end) for item in items)

    def moved(place: int) -> int:
        return place - sum(min(place, end) - start for start, end in cuts if start < place)

    parts, done = [], 0
    for start, end in cuts:
        parts.append(text[done:start])
        done = end
    left = "".join([*parts, text[done:]])
    found = []
    for item in items:
        start, end = (moved(place) for place in item.answer)
        if left[start:end].strip():
            found.append((item.kind, _plain(text[item.start : item.end]), (start, end)))
    return left, found


def _folder(data: Path, work: Path) -> Path:
    folder = work / "documents"
    if not folder.is_dir():
        with tarfile.open(data / ARCHIVE) as archive:
            archive.extractall(folder, filter="data")
    return folder

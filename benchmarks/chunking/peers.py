"""Peers' splitters, driven in the environment that has them, and their chunks found in the text."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .systems import Cut

if TYPE_CHECKING:
    from retriever import Document

    from .vectors import Vectors


@dataclass(frozen=True)
class Peer:
    """A splitter of another package.

    Attributes:
        name: Of the row.
        splitter: A key of `splitters.SPLITTERS`.
        options: The splitter's own; and `length: "tokens"` for lengths in the encoder's tokens.
        python: The interpreter that has it.
    """

    name: str
    splitter: str
    options: dict[str, Any] = field(default_factory=dict)
    python: str = sys.executable

    def cut(self, documents: Sequence[Document], vectors: Vectors) -> Cut:
        """Let the splitter cut, and find where its chunks stand."""
        request = {
            "splitter": self.splitter,
            "options": self.options,
            "tokenizer": str(Path(vectors.encoder.description.path) / "tokenizer.json"),
            "texts": [document.text for document in documents],
        }
        script = Path(__file__).parent / "splitters.py"
        ran = subprocess.run(
            [self.python, str(script)],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            said = ran.stderr.strip().splitlines()[-1:]
            sys.exit(f"{self.name} failed in {self.python}: {' '.join(said)}")
        answer = json.loads(ran.stdout)
        cut = Cut(seconds=answer["seconds"])
        texts = []
        for position, (document, chunks) in enumerate(
            zip(documents, answer["chunks"], strict=True)
        ):
            for text, span in zip(
                (text for text, _ in chunks), places(document.text, chunks), strict=True
            ):
                if span is None:
                    cut.lost += bool(text.strip())
                    continue
                cut.documents.append(position)
                cut.starts.append(span[0])
                cut.ends.append(span[1])
                texts.append(text)
        cut.ids = list(vectors.encoder.tokenizer.bare_ids(texts))
        return cut


def places(text: str, chunks: Sequence[tuple[str, int | None]]) -> Iterator[tuple[int, int] | None]:
    """Yield where each chunk stands in a text, None where it does not; white space is left out.

    A chunk's own offset is taken if the text there is the chunk. Otherwise the chunk is searched
    from the beginning of the one before, and then without case, accents and white space, which a
    splitter that decodes tokens does not keep.
    """
    after = 0
    folded: tuple[str, list[int]] | None = None
    for chunk, offset in chunks:
        solid = chunk.strip()
        if not solid:
            yield None
            continue
        start = -1
        if offset is not None and text.startswith(chunk, offset):
            start = offset + len(chunk) - len(chunk.lstrip())
        if start < 0:
            start = text.find(solid, after)
        if start >= 0:
            after = start
            yield start, start + len(solid)
            continue
        folded = folded or _folded(text)
        letters, _ = _folded(solid)
        begin = next((n for n, place in enumerate(folded[1]) if place >= after), len(folded[0]))
        found = folded[0].find(letters, begin) if letters else -1
        if found < 0:
            yield None
            continue
        after = folded[1][found]
        yield after, folded[1][found + len(letters) - 1] + 1


def _folded(text: str) -> tuple[str, list[int]]:
    """Return a text without case, accents and white space, and where each character was."""
    letters: list[str] = []
    origins: list[int] = []
    for place, character in enumerate(text):
        for part in unicodedata.normalize("NFD", character.lower()):
            if not part.isspace() and unicodedata.category(part) != "Mn":
                letters.append(part)
                origins.append(place)
    return "".join(letters), origins


# The first row of a splitter is its default, the others are sizes that suit this encoder.
PEERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("LangChain recursive", "langchain", {}),
    ("LangChain recursive, 1000 characters", "langchain", {"chunk_size": 1000, "chunk_overlap": 0}),
    ("LangChain recursive, 500 characters", "langchain", {"chunk_size": 500, "chunk_overlap": 0}),
    (
        "LangChain recursive, 128 tokens",
        "langchain",
        {"chunk_size": 128, "chunk_overlap": 0, "length": "tokens"},
    ),
    ("Haystack, 200 words", "haystack", {}),
    ("Haystack, passages", "haystack", {"split_by": "passage", "split_length": 1}),
    ("Haystack, 4 sentences", "haystack", {"split_by": "sentence", "split_length": 4}),
    ("Haystack recursive, 200 words", "haystack recursive", {}),
    ("Haystack recursive, 100 words", "haystack recursive", {"split_length": 100}),
    ("LlamaIndex sentences, 1024 tokens", "llama-index", {}),
    (
        "LlamaIndex sentences, 128 tokens",
        "llama-index",
        {"chunk_size": 128, "chunk_overlap": 0, "length": "tokens"},
    ),
    ("chonkie tokens, 128", "chonkie token", {"chunk_size": 128, "length": "tokens"}),
    ("chonkie sentences, 128 tokens", "chonkie sentence", {"chunk_size": 128, "length": "tokens"}),
    ("chonkie recursive, 2048 characters", "chonkie recursive", {}),
    ("chonkie recursive, 128 tokens", "chonkie recursive", {"chunk_size": 128, "length": "tokens"}),
    (
        "semantic-text-splitter, 128 tokens",
        "semantic-text-splitter",
        {"capacity": 128, "length": "tokens"},
    ),
)
_BEST = (
    "LangChain recursive, 500 characters",
    "Haystack recursive, 100 words",
    "LlamaIndex sentences, 128 tokens",
    "chonkie recursive, 128 tokens",
    "semantic-text-splitter, 128 tokens",
)
_DEFAULTS = (
    "LangChain recursive",
    "Haystack, 200 words",
    "LlamaIndex sentences, 1024 tokens",
    "chonkie recursive, 2048 characters",
)
CONFIRMED = tuple(row for row in PEERS if row[0] in (*_BEST, *_DEFAULTS))
"""Of each package the default and the row that `choose` found best."""
BEST = tuple(row for row in PEERS if row[0] in _BEST)
MARKDOWN = (
    *BEST,
    (
        "semantic-text-splitter Markdown, 128 tokens",
        "semantic-text-splitter markdown",
        {"capacity": 128, "length": "tokens"},
    ),
)


def peers(python: str | None, rows: Sequence[tuple[str, str, dict[str, Any]]]) -> list[Peer]:
    """Return the rows of peers; none without their interpreter."""
    return [Peer(*row, python) for row in rows] if python else []

"""The systems that cut: this package's chunker with any options, and peers' splitters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from retriever import Chunking
from retriever.documents.chunking import Chunker
from retriever.documents.rules import FIRST, RULES, Rules

if TYPE_CHECKING:
    from retriever import Document

    from .vectors import Vectors


@dataclass
class Cut:
    """All chunks of a collection, those of one document together, in order.

    Attributes:
        documents: For each chunk the position of its document.
        starts: Its first character in the document's text.
        ends: The character after its last.
        ids: The tokens that the encoder sees for it, before truncation.
        seconds: How long cutting and tokenising took.
        lost: Chunks that were left out, because their text is not in the document.
    """

    documents: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    ids: list[NDArray[np.int32]] = field(default_factory=list)
    seconds: float = 0.0
    lost: int = 0

    def add(self, document: int, start: int, end: int, ids: NDArray[np.int32]) -> None:
        """Add the next chunk."""
        self.documents.append(document)
        self.starts.append(start)
        self.ends.append(end)
        self.ids.append(ids)

    def __len__(self) -> int:
        return len(self.starts)


class System(Protocol):
    """A way of cutting, with the name of its row."""

    @property
    def name(self) -> str: ...  # noqa: D102

    def cut(self, documents: Sequence[Document], vectors: Vectors) -> Cut:
        """Return the chunks of all documents, with the tokens that the encoder reads of each."""
        ...


@dataclass(frozen=True)
class Ours:
    """This package's chunker.

    Attributes:
        name: Of the row.
        options: Of `Chunking`; none is the default.
        rules: How places to cut are ranked and chosen, where it is not by the present rules.
        whole: Documents of at most so many tokens are not cut.
    """

    name: str
    options: dict[str, Any]
    rules: Rules = RULES
    whole: int = 0

    def cut(self, documents: Sequence[Document], vectors: Vectors) -> Cut:
        """Cut as `Index.add` does."""
        encoder = vectors.encoder
        began = time.monotonic()
        chunking = Chunking(**self.options)
        chunker = Chunker(encoder.tokenizer, encoder.max_tokens, chunking, rules=self.rules)
        chunked = chunker.chunk_with_ids(documents)
        if self.whole:
            uncut = Chunker(encoder.tokenizer, encoder.max_tokens, Chunking("document"))
            chunked = [
                whole if whole.ledger.tokens <= self.whole else parts
                for whole, parts in zip(uncut.chunk_with_ids(documents), chunked, strict=True)
            ]
        cut = Cut(seconds=time.monotonic() - began)
        for position, one in enumerate(chunked):
            for chunk, ids in zip(one.chunks, one.ids, strict=True):
                if ids is None:  # no tokenizer of this package leaves them out
                    raise TypeError(f"The tokens of chunk {chunk.ordinal} are not known.")
                cut.add(position, *chunk.span, ids)
        return cut


def sized(tokens: int | None, overlap: int, **options: Any) -> Ours:
    """Return the row of one size and overlap; no size is the encoder's whole window."""
    name = f"retriever {tokens or 'window'}"
    name += f", overlap {overlap}" if overlap else ""
    for option, value in options.items():
        name += f", {option}" if value is True else f", {option} {value}"
    return Ours(name, {"tokens": tokens, "overlap": overlap, **options})


DEFAULT = Ours("retriever, default", {})
BEFORE = Ours("retriever, former default", {"tokens": None, "overlap": 16}, FIRST)
"""The default and the rules before they were measured: whole windows, overlap 16."""


def kept_whole(limit: int) -> Ours:
    """Return the row of the default but for documents of at most so many tokens: one chunk."""
    return Ours(f"retriever, whole up to {limit} tokens", {}, whole=limit)

"""Cut documents into chunks that fit the encoder's window, and account for every token.

Lengths are counted with the encoder's own tokenizer. A text is tokenised once to choose where to
cut, and every chunk once more on its own, because a tokenizer may see a piece differently out of
its context; a chunk that turns out too long is cut again. The token ids of what each chunk ended
up as are handed on, so that the encoder need not tokenise it a third time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from retriever.config import DEFAULT_TOKENS, Chunking
from retriever.documents.boundaries import find_boundaries
from retriever.documents.division import Division
from retriever.documents.drafts import Chunked, Draft, Fitted, Piece, Window, batches
from retriever.documents.rules import RULES, Rules
from retriever.documents.windows import Windows
from retriever.encoders.protocol import CountsTokens, HasTokenIds
from retriever.errors import InvalidConfig
from retriever.types import Chunk, Document, Ledger

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from retriever.encoders.protocol import Tokenizer, Tokens

MAX_HEADER_SHARE = 3
"""A table's header row is repeated before each part of the table only if it takes at most a third
of the window: the rest is for the rows."""
MAX_CHARACTERS_PER_TOKEN = 16
"""Limit on the characters of a chunk for each token of the window. Tokens alone are no limit: a
WordPiece tokenizer makes one unknown token of a word of any length."""


class Chunker:
    """Cuts documents into chunks of at most `window` tokens.

    Args:
        tokenizer: The encoder's own.
        window: Tokens of text that one embedding covers.
        chunking: How to cut.
        rules: How places to cut are ranked and chosen.

    Raises:
        InvalidConfig: If the chunking asks for more tokens than the window holds.
    """

    def __init__(
        self, tokenizer: Tokenizer, window: int, chunking: Chunking, rules: Rules = RULES
    ) -> None:
        if chunking.tokens is not None and chunking.tokens > max(window, DEFAULT_TOKENS):
            raise InvalidConfig(
                f"chunking tokens is {chunking.tokens}, but the encoder reads only {window}.",
                hint=f"Use at most {window}, or leave it out.",
            )
        self._tokenizer = tokenizer
        self._window = min(chunking.tokens or window, window)
        # Less than half a window, so that each window goes on beyond the one before.
        self._overlap = min(chunking.overlap or 0, (self._window - 1) // 2)
        self._chunking = chunking
        self._rules = rules
        # A document has few headings, and each is above several chunks.
        self._prefix_length = lru_cache(maxsize=256)(self._count_one)

    def chunk(self, documents: Sequence[Document]) -> list[tuple[tuple[Chunk, ...], Ledger]]:
        """Return the chunks of each document, in order, and what became of its tokens.

        A document of white space has none. In windows, every other character lies in a chunk,
        and `text[span]` is the chunk's text, which has at most 16 characters for each token of
        the window.
        """
        return [(one.chunks, one.ledger) for one in self.chunk_with_ids(documents)]

    def chunk_with_ids(self, documents: Sequence[Document]) -> list[Chunked]:
        """Return what `chunk` does, with the token ids of each chunk where they are known."""
        drafts = [Draft(document) for document in documents]
        for draft in drafts:
            self._drop_long_headers(draft)
        is_whole = self._chunking.unit == "document"
        for batch in batches(drafts, apart=not is_whole):
            tokenized = self._tokenizer.tokenize([piece.text for piece in batch])
            if is_whole:
                _count_whole(batch, tokenized)
            else:
                self._cut(batch, tokenized)
        if is_whole:
            for draft in drafts:
                self._take_whole(draft)
        return [draft.chunked() for draft in drafts]

    def _drop_long_headers(self, draft: Draft) -> None:
        """Drop header rows of tables that would take too much of a window."""
        if tables := draft.outline.tables:
            sizes = self._count(table.header for table in tables)
            kept = (
                table
                for table, size in zip(tables, sizes, strict=True)
                if size <= self._window // MAX_HEADER_SHARE
            )
            draft.outline.tables = list(kept)

    def _take_whole(self, draft: Draft) -> None:
        draft.encoded = min(draft.tokens, self._window)
        if draft.text and not draft.text.isspace():
            fits = draft.tokens <= self._window
            draft.windows = [Fitted(0, len(draft.text), draft.tokens, fits, draft.ids)]

    def _cut(self, batch: Sequence[Piece], tokenized: Sequence[Tokens]) -> None:
        pending: list[tuple[Piece, Window]] = []
        for piece, tokens in zip(batch, tokenized, strict=True):
            piece.boundaries = find_boundaries(piece.text, tokens, self._rules)
            windows = self._choose(piece)
            if (
                len(windows) == 1
                and self._fits(len(tokens), piece.end - piece.start)
                and not self._prefix(piece, piece.start, piece.end)
            ):
                # The piece is the whole chunk and has just been tokenised on its own, so its count
                # and its ids are already those of the chunk.
                piece.fitted.append(
                    Fitted(piece.start, piece.end, len(tokens), fits=True, ids=tokens.ids)
                )
            else:
                pending.extend((piece, window) for window in windows)
        while pending:
            pending = self._fit(pending)
        for piece, tokens in zip(batch, tokenized, strict=True):
            piece.close(tokens)

    def _fits(self, count: int, length: int) -> bool:
        """Return whether a chunk may have so many tokens and characters."""
        return count <= self._window and length <= MAX_CHARACTERS_PER_TOKEN * self._window

    def _is_short(self, piece: Piece) -> bool:
        """Return whether a piece is a document that fits a chunk, with the titles before it."""
        tokens, characters = len(piece.boundaries), piece.end - piece.start
        if self._rules.division == 1 or not self._fits(tokens, characters) or not piece.is_whole:
            return False
        prefix = self._prefix(piece, piece.start, piece.end)
        return not prefix or self._fits(tokens + self._prefix_length(prefix), characters)

    def _choose(self, piece: Piece) -> list[Window]:
        """Return windows of a piece that fit by the tokens that it has as a whole."""
        if not len(piece.boundaries) or self._is_short(piece):
            return [Window(piece.start, piece.end, 0, len(piece.boundaries))]
        outline = piece.draft.outline
        inside = slice(*(bisect_left(outline.starts, end) for end in (piece.start, piece.end)))
        sections = slice(*(bisect_left(outline.sections, e) for e in (piece.start, piece.end)))
        starts = piece.token_range(outline.starts[inside])
        ends = piece.token_range(outline.ends[inside])
        divide = Windows if self._rules.division == 1 else partial(Division, rules=self._rules)
        parts = divide(
            piece.boundaries,
            headings=list(zip(starts, ends, strict=True)),
            sections=piece.token_range(outline.sections[sections]),
            capacity=lambda first: self._capacity(piece, first),
            overlap=self._overlap,
        )
        found = (piece.window(first, last) for first, last in parts)
        return [window for window in found if window.start < window.end]

    def _fit(self, pending: list[tuple[Piece, Window]]) -> list[tuple[Piece, Window]]:
        """Keep the windows that fit when tokenised on their own; return halves of the others."""
        counts = self._count_and_ids(
            [
                self._prefix(piece, start, end) + piece.draft.text[start:end]
                for piece, (start, end, _, _) in pending
            ]
        )
        parts: list[tuple[Piece, Window]] = []
        for (piece, window), (count, ids) in zip(pending, counts, strict=True):
            length = window.end - window.start
            fits = self._fits(count, length)
            # One character cannot be halved: it is kept even if it is too long for the encoder.
            if fits or length == 1:
                piece.fitted.append(Fitted(window.start, window.end, count, fits, ids))
            else:
                parts.extend((piece, part) for part in piece.halves(window))
        return parts

    def _count_and_ids(self, texts: list[str]) -> list[tuple[int, NDArray[np.int32] | None]]:
        """Return the tokens of each text, as a number and, where they have any, by their ids."""
        if isinstance(self._tokenizer, HasTokenIds):
            return [(len(ids), ids) for ids in self._tokenizer.bare_ids(texts)]
        return [(count, None) for count in self._count(texts)]

    def _count(self, texts: Iterable[str]) -> list[int]:
        if isinstance(self._tokenizer, CountsTokens):
            return self._tokenizer.count_tokens(list(texts))
        return [len(tokens) for tokens in self._tokenizer.tokenize(list(texts))]

    def _count_one(self, text: str) -> int:
        (count,) = self._count([text])
        return count

    def _prefix(self, piece: Piece, start: int, end: int) -> str:
        draft = piece.draft
        path, title = draft.outline.path(start), draft.document.title
        if not path and not (title and self._chunking.prefix_title):
            return ""
        return self._chunking.prefix(path, draft.text[start:end], title)

    def _capacity(self, piece: Piece, first: int) -> int:
        """Return how many tokens a window beginning at a token may hold besides its prefix."""
        start = piece.start + int(piece.boundaries.positions[first])
        # The end of the window is not known yet; `Chunking.prefix` reads 1,000 characters at most.
        prefix = self._prefix(piece, start, min(start + 1000, piece.end))
        if not prefix:
            return self._window
        # A long prefix must not make chunks tiny; one that is then too long is cut again.
        return max(self._window - self._prefix_length(prefix), self._window // 4)


def as_one_chunk(document: Document) -> Chunked:
    """Return the single chunk of a document with an embedding of its own; no chunk for others."""
    if document.embedding is None:
        return Chunked((), Ledger())
    draft = Draft(document)
    draft.windows = [Fitted(0, len(draft.text), 0, fits=True)]
    return draft.chunked()._replace(ledger=Ledger())


def _count_whole(batch: Sequence[Piece], tokenized: Sequence[Tokens]) -> None:
    for piece, tokens in zip(batch, tokenized, strict=True):
        piece.draft.tokens += len(tokens)
        piece.draft.unknown += int(tokens.unknown.sum())
        if piece.end - piece.start == len(piece.draft.text):
            piece.draft.ids = tokens.ids

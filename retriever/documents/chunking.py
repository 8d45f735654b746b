"""Documents to chunks that fit the encoder's window, and an account of every token.

Lengths are counted with the encoder's own tokenizer. A text is tokenised once to choose where to
cut, and every chunk once more on its own, because a tokenizer may see a piece differently out of
its context; a chunk that turns out too long is cut again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from retriever.arguments import as_whole, flag, shown
from retriever.documents.boundaries import find_boundaries
from retriever.documents.drafts import Draft, Fitted, Piece, Window, batches
from retriever.documents.outline import is_header
from retriever.documents.windows import Windows
from retriever.encoders.protocol import CountsTokens
from retriever.errors import InvalidConfig
from retriever.types import Chunk, Document, Ledger

if TYPE_CHECKING:
    from retriever.encoders.protocol import Tokenizer, Tokens

DEFAULT_OVERLAP = 16
"""Tokens that a chunk may repeat from the one before it."""

MIN_TOKENS = 8
MAX_HEADER_SHARE = 3
"""A table's header row goes with its parts if it takes no more than this part of a window."""
MAX_CHARACTERS_PER_TOKEN = 16
"""Characters that a chunk may have for each token of the window: an endless word is one token."""
PREFIX_CHARACTERS = 80
"""Length of the headings put before a chunk's text; the innermost ones count first."""


@dataclass(frozen=True)
class Chunking:
    """How documents are cut; fixed when an index is created.

    Attributes:
        unit: `window` cuts the whole document into windows; `document` makes one chunk of it,
            of which the encoder sees the first window only.
        tokens: The longest chunk, in tokens; None means the encoder's window.
        overlap: Tokens that a chunk may repeat from the one before it, within a section; None
            becomes 16, or a quarter of a chunk where that is less.
        prefix_headings: Whether the encoder sees the headings above a chunk before its text. The
            header row of a table is always put before what is cut from its rows.

    Raises:
        InvalidConfig: If the options contradict each other.
    """

    unit: Literal["window", "document"] = "window"
    tokens: int | None = None
    overlap: int | None = None
    prefix_headings: bool = False

    def __post_init__(self) -> None:
        self._check_types()
        if self.overlap is None:
            longest = (self.tokens or 4 * DEFAULT_OVERLAP) // 4
            object.__setattr__(self, "overlap", min(DEFAULT_OVERLAP, longest))
        if self.unit == "document":
            if self.tokens is not None or self.prefix_headings:
                raise InvalidConfig(
                    "chunking 'document' makes one chunk of a document and takes no other option.",
                    hint="Leave out tokens and prefix_headings, or use chunking 'window'.",
                )
            object.__setattr__(self, "overlap", 0)
        elif self.tokens is not None and self.tokens < MIN_TOKENS:
            raise InvalidConfig(
                f"chunking tokens is {self.tokens}; a chunk needs at least {MIN_TOKENS}.",
                hint="Leave it out to use the encoder's whole window.",
            )
        elif (overlap := self.overlap or 0) < 0 or 0 < (self.tokens or 0) <= overlap * 2:
            raise InvalidConfig(
                f"chunking overlap is {self.overlap} tokens; it must be at least 0 and less than "
                f"half of a chunk ({self.tokens or 'the encoder’s window'}).",
                hint="Choose a smaller overlap; 0 turns it off.",
            )

    def _check_types(self) -> None:
        if self.unit not in ("window", "document"):
            raise InvalidConfig(
                f"chunking unit {shown(self.unit)} is unknown.", hint="Use 'window' or 'document'."
            )
        for name, value in (("tokens", self.tokens), ("overlap", self.overlap)):
            number = as_whole(value)
            if number is None and value is not None:
                raise InvalidConfig(
                    f"chunking {name} is {shown(value)}, not a whole number.",
                    hint="Give it as a number of tokens.",
                )
            object.__setattr__(self, name, number)
        is_on = flag(self.prefix_headings, "chunking prefix_headings")
        object.__setattr__(self, "prefix_headings", is_on)

    @classmethod
    def parse(cls, value: Chunking | str | Mapping[str, Any] | None) -> Chunking:
        """Return the chunking that a user's word, mapping or None stands for.

        Raises:
            InvalidConfig: If it is none, or its options contradict each other.
        """
        if value is None or isinstance(value, Chunking):
            return value or cls()
        options = {"unit": value} if isinstance(value, str) else value
        known = [option.name for option in fields(cls)]
        if not isinstance(options, Mapping) or (unknown := [o for o in options if o not in known]):
            what = f"option {unknown[0]!r}" if isinstance(options, Mapping) else shown(value)
            raise InvalidConfig(
                f"chunking {what} is unknown.",
                hint=f"Use 'window', 'document' or a mapping with {', '.join(known)}.",
            )
        return cls(**options)

    def with_options(self, value: Chunking | str | Mapping[str, Any] | None) -> Chunking:
        """Return this chunking with some options changed; those not named stay as they are.

        Raises:
            InvalidConfig: As `parse`.
        """
        if value is None or isinstance(value, Chunking):
            return value or self
        given: Any = value
        if not isinstance(given, str | Mapping):
            return self.parse(given)  # which refuses it
        options = {"unit": given} if isinstance(given, str) else dict(given)
        if options.get("unit", self.unit) != self.unit:
            return self.parse(options)
        kept = self.to_dict()
        if options.get("tokens", self.tokens) != self.tokens:
            del kept["overlap"]
        return self.parse({**kept, **options})

    def to_dict(self) -> dict[str, Any]:
        """Return the options as a JSON object, which `parse` takes back."""
        return {option.name: getattr(self, option.name) for option in fields(self)}

    def encoded_text(self, chunk: Chunk) -> str:
        """Return the text the encoder sees for a chunk."""
        return self.prefix(chunk.heading, chunk.text) + chunk.text

    def prefix(self, heading: Sequence[str], text: str) -> str:
        """Return what is put before a chunk's text: headings that it does not begin with.

        The header row of the table in which it begins is always put there.
        """
        columns = ""
        if heading and is_header(heading[-1]):
            *heading, columns = heading
            columns += "\n"
        return self._titles(heading, text) + columns

    def _titles(self, heading: Sequence[str], text: str) -> str:
        if not self.prefix_headings:
            return ""
        opening = text[:1000].splitlines()[:3]
        titles: list[str] = []
        room = PREFIX_CHARACTERS
        for title in reversed(heading):
            if any(title in line for line in opening):
                continue
            if titles and len(title) > room:
                break
            titles.append(title[:room])
            room -= len(title)
        return " > ".join(reversed(titles)) + "\n\n" if titles else ""


ChunkingLike: TypeAlias = Chunking | str | Mapping[str, Any] | None


class Chunker:
    """Cuts documents into chunks of at most `window` tokens.

    Args:
        tokenizer: The encoder's own.
        window: Tokens of text that one embedding covers.
        chunking: How to cut.

    Raises:
        InvalidConfig: If the chunking asks for more tokens than the window holds.
    """

    def __init__(self, tokenizer: Tokenizer, window: int, chunking: Chunking) -> None:
        if chunking.tokens is not None and chunking.tokens > window:
            raise InvalidConfig(
                f"chunking tokens is {chunking.tokens}, but the encoder reads only {window}.",
                hint=f"Use at most {window}, or leave it out.",
            )
        self._tokenizer = tokenizer
        self._window = chunking.tokens or window
        self._overlap = min(chunking.overlap or 0, (self._window - 1) // 2)
        self._characters = MAX_CHARACTERS_PER_TOKEN * self._window
        self._chunking = chunking

    def chunk(self, documents: Sequence[Document]) -> list[tuple[tuple[Chunk, ...], Ledger]]:
        """Return the chunks of each document, in order, and what became of its tokens.

        A document of white space has none. In windows, every other character lies in a chunk,
        and `text[span]` is the chunk's text, which has at most 16 characters for each token of
        the window.
        """
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
        return [(draft.chunks(), draft.ledger()) for draft in drafts]

    def _drop_long_headers(self, draft: Draft) -> None:
        """Leave out header rows of tables that would take too much of a window."""
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
            draft.windows = [Fitted(0, len(draft.text), draft.tokens, fits)]

    def _cut(self, batch: Sequence[Piece], tokenized: Sequence[Tokens]) -> None:
        pending: list[tuple[Piece, Window]] = []
        for piece, tokens in zip(batch, tokenized, strict=True):
            piece.boundaries = find_boundaries(piece.text, tokens)
            windows = self._choose(piece)
            if (
                len(windows) == 1
                and len(tokens) <= self._window
                and piece.end - piece.start <= self._characters
                and not self._prefix(piece, piece.start, piece.end)
            ):
                # The piece is the chunk, and was tokenised on its own just now.
                piece.fitted.append(Fitted(piece.start, piece.end, len(tokens), fits=True))
            else:
                pending.extend((piece, window) for window in windows)
        while pending:
            pending = self._fit(pending)
        for piece, tokens in zip(batch, tokenized, strict=True):
            piece.close(tokens)

    def _choose(self, piece: Piece) -> list[Window]:
        """Return the windows of a piece by the tokens it has in context."""
        if not len(piece.boundaries):
            return [Window(piece.start, piece.end, 0, 0)]
        outline = piece.draft.outline
        inside = slice(*(bisect_left(outline.starts, end) for end in (piece.start, piece.end)))
        sections = slice(*(bisect_left(outline.sections, e) for e in (piece.start, piece.end)))
        windows = Windows(
            piece.boundaries,
            headings=list(
                zip(
                    piece.token_range(outline.starts[inside]),
                    piece.token_range(outline.ends[inside]),
                    strict=True,
                )
            ),
            sections=piece.token_range(outline.sections[sections]),
            room=lambda first: self._room(piece, first),
            overlap=self._overlap,
        )
        found = (piece.window(first, last) for first, last in windows)
        return [window for window in found if window.start < window.end]

    def _fit(self, pending: list[tuple[Piece, Window]]) -> list[tuple[Piece, Window]]:
        """Keep the windows that fit, and return the parts of those that do not."""
        counts = self._count(
            self._prefix(piece, start, end) + piece.draft.text[start:end]
            for piece, (start, end, _, _) in pending
        )
        parts: list[tuple[Piece, Window]] = []
        for (piece, window), count in zip(pending, counts, strict=True):
            length = window.end - window.start
            fits = count <= self._window
            if (fits and length <= self._characters) or length == 1:
                piece.fitted.append(Fitted(window.start, window.end, count, fits))
            else:
                parts.extend((piece, part) for part in piece.halves(window))
        return parts

    def _count(self, texts: Iterable[str]) -> list[int]:
        if isinstance(self._tokenizer, CountsTokens):
            return self._tokenizer.count_tokens(list(texts))
        return [len(tokens) for tokens in self._tokenizer.tokenize(list(texts))]

    def _prefix(self, piece: Piece, start: int, end: int) -> str:
        draft = piece.draft
        path = draft.outline.path(start)
        return self._chunking.prefix(path, draft.text[start:end]) if path else ""

    def _room(self, piece: Piece, first: int) -> int:
        """Return how many tokens a window that begins at a token may hold besides its prefix."""
        start = piece.start + int(piece.boundaries.positions[first])
        prefix = self._prefix(piece, start, min(start + 1000, piece.end))
        if not prefix:
            return self._window
        (count,) = self._count([prefix])
        return max(self._window - count, self._window // 4)


def as_one_chunk(document: Document) -> tuple[tuple[Chunk, ...], Ledger]:
    """Return the one chunk of a document that brings its embedding; none for one without."""
    if document.embedding is None:
        return (), Ledger()
    draft = Draft(document)
    draft.windows = [Fitted(0, len(draft.text), 0, fits=True)]
    return draft.chunks(), Ledger()


def _count_whole(batch: Sequence[Piece], tokenized: Sequence[Tokens]) -> None:
    for piece, tokens in zip(batch, tokenized, strict=True):
        piece.draft.tokens += len(tokens)
        piece.draft.unknown += int(tokens.unknown.sum())

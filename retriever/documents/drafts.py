"""Hold documents while they are cut: the pieces that are tokenised at a time, and their windows.

A long document is cut piece by piece, so that memory stays bounded whatever its length.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.documents.outline import Outline
from retriever.documents.windows import middle
from retriever.types import Chunk, Document, Ledger, Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from retriever.documents.boundaries import Boundaries
    from retriever.encoders.protocol import Tokens

_PIECE_CHARACTERS = 1 << 18
_BATCH_CHARACTERS = 1 << 21


class Window(NamedTuple):
    """Characters `[start, end)` of a document, which are tokens `[first, last)` of its piece.

    `first == last` for a window that was cut between two characters of one token.
    """

    start: int
    end: int
    first: int
    last: int


class Fitted(NamedTuple):
    """A window that is to be a chunk, with the tokens that it makes on its own.

    Attributes:
        start: First character in the document.
        end: Character after the last one.
        tokens: Tokens of the text that the encoder sees for it, headings before it included.
        fits: Whether these fit the encoder's window.
        ids: The ids of these tokens, int32 `(tokens,)`, where the tokenizer gives them.
    """

    start: int
    end: int
    tokens: int
    fits: bool
    ids: NDArray[np.int32] | None = None


class Chunked(NamedTuple):
    """A document's chunks and what became of its tokens.

    Attributes:
        chunks: In order.
        ledger: The account of its tokens.
        ids: For each chunk the ids of the tokens that the encoder sees, int32 `(tokens,)`, or None
            where they are not known. They are needed until the chunk is encoded, and are not kept.
    """

    chunks: tuple[Chunk, ...]
    ledger: Ledger
    ids: Sequence[NDArray[np.int32] | None] = ()


class Draft:
    """A document that is being cut.

    Attributes:
        outline: Its headings and tables.
        windows: Those found so far, in order.
        tokens: Tokens of the pieces so far.
        encoded: How many of these lie in a window that fits the encoder.
        unknown: How many of these the vocabulary lacks.
        ids: Token ids of the whole text, if it is taken as one piece and the tokenizer gives them.
        noise: Spans that hold no language.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.text = document.text
        self.outline = Outline(document)
        self.windows: list[Fitted] = []
        self.tokens = 0
        self.encoded = 0
        self.unknown = 0
        self.ids: NDArray[np.int32] | None = None
        self.noise: list[Span] = []

    def whole_pieces(self) -> Iterator[Piece]:
        """Yield the document in pieces of bounded size."""
        return self._pieces(0, len(self.text))

    def pieces(self) -> Iterator[Piece]:
        """Yield the pieces that are cut on their own, without the white space around them.

        A span that holds no language is a piece of its own, so that no chunk mixes the two.
        """
        from retriever.documents.noise import find_noise

        self.noise = find_noise(self.text)
        bounds = [0, *(place for span in self.noise for place in span), len(self.text)]
        for start, end in pairwise(bounds):
            for piece in self._pieces(start, end):
                span = strip(self.text, piece.start, piece.end)
                if span.start < span.end:
                    yield Piece(self, span.start, span.end)

    def _pieces(self, start: int, stop: int) -> Iterator[Piece]:
        while start < stop:
            end = self._seam(start, stop)
            yield Piece(self, start, end)
            start = end

    def _seam(self, start: int, stop: int) -> int:
        """Return where the piece from `start` ends: the best boundary in its second half."""
        end = start + _PIECE_CHARACTERS
        if end >= stop:
            return stop
        low = start + _PIECE_CHARACTERS // 2
        sections = self.outline.sections
        position = bisect_left(sections, end) - 1
        if position >= 0 and sections[position] > low:
            return sections[position]
        for separator in ("\n\n", "\n", "\r", " "):
            if (found := self.text.rfind(separator, low, end)) >= 0:
                return found
        return end

    def ledger(self) -> Ledger:
        """Return what became of the tokens, and how many windows hold no language."""
        if not self.noise:  # The usual case; building the arrays below costs more than all else.
            return Ledger(self.tokens, self.encoded, self.unknown)
        starts = np.array([window.start for window in self.windows], np.int64)
        noise = np.array(self.noise, np.int64).reshape(-1, 2)
        inside = np.searchsorted(starts, noise[:, 1]) - np.searchsorted(starts, noise[:, 0])
        return Ledger(self.tokens, self.encoded, self.unknown, int(inside.sum()))

    def chunked(self) -> Chunked:
        """Return the chunks, the ledger and the token ids."""
        return Chunked(self.chunks(), self.ledger(), [window.ids for window in self.windows])

    def chunks(self) -> tuple[Chunk, ...]:
        """Return a chunk for each window."""
        places = sorted({place for window in self.windows for place in window[:2]})
        landmarks = _landmarks(self.text, places)
        pages = self.document.pages
        chunks = []
        for ordinal, (start, end, tokens, *_) in enumerate(self.windows):
            (first_byte, first_line), (last_byte, last_line) = landmarks[start], landmarks[end]
            page = bisect_right(pages, start) if pages else None
            chunks.append(
                Chunk(
                    ordinal=ordinal,
                    span=Span(start, end),
                    byte_span=Span(first_byte, last_byte),
                    lines=(first_line, last_line - self.text[start:end].endswith(("\r", "\n"))),
                    heading=self.outline.path(start),
                    page=page if page is None else max(page, 1),
                    tokens=tokens,
                    text=self.text[start:end],
                )
            )
        return tuple(chunks)


@dataclass(slots=True, eq=False)
class Piece:
    """A part of a document that is tokenised as one text.

    Attributes:
        draft: The document.
        start: First character.
        end: Character after the last one.
        boundaries: Where it may be cut; set once it has been tokenised.
        fitted: The windows found so far.
    """

    draft: Draft
    start: int
    end: int
    boundaries: Boundaries = field(init=False)
    fitted: list[Fitted] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Return the characters of the piece."""
        return self.draft.text[self.start : self.end]

    @property
    def is_whole(self) -> bool:
        """Return whether it is the whole document but for white space around it."""
        return (self.start, self.end) == strip(self.draft.text, 0, len(self.draft.text))

    def window(self, first: int, last: int) -> Window:
        """Return the window of a range of tokens, without the white space around it."""
        start, end = self.boundaries.positions[[first, last]].tolist()
        span = strip(self.draft.text, self.start + start, self.start + end)
        return Window(*span, first, last)

    def halves(self, window: Window) -> list[Window]:
        """Cut a window that is too long in two: at its best boundary, or between two characters."""
        place = middle(self.boundaries.ranks[window.first : window.last + 1])
        if place is not None:
            cut = window.first + place
            parts = [self.window(window.first, cut), self.window(cut, window.last)]
        else:
            centre = (window.start + window.end) // 2
            spans = [(window.start, centre), (centre, window.end)]
            parts = [Window(*strip(self.draft.text, *span), 0, 0) for span in spans]
        return [part for part in parts if part.start < part.end]

    def token_range(self, places: Sequence[int]) -> list[int]:
        """Return the first token of the piece at or after each of some characters."""
        if not places:
            return []
        offsets = np.array(places, np.int64) - self.start
        found: list[int] = np.searchsorted(self.boundaries.positions[:-1], offsets).tolist()
        return found

    def close(self, tokens: Tokens) -> None:
        """Add the windows to the document and count the tokens that they cover.

        A token is covered if it lies in a stretch of windows that follow without a gap: a token
        across the border of two windows is seen by both, in part. White space counts as covered.
        """
        windows = _without_contained(self.fitted)
        fitting = np.array(_joined(w for w in windows if w.fits), np.int64).reshape(-1, 2)
        fitting -= self.start
        starts, ends = self.boundaries.starts, self.boundaries.ends
        is_encoded = starts == ends
        if len(fitting):
            nearest = np.searchsorted(fitting[:, 0], starts, "right") - 1
            is_encoded |= (nearest >= 0) & (ends <= fitting[nearest, 1])
        self.draft.windows += windows
        self.draft.tokens += len(tokens)
        self.draft.encoded += int(is_encoded.sum())
        self.draft.unknown += int(tokens.unknown.sum())


def batches(drafts: Sequence[Draft], *, apart: bool) -> Iterator[list[Piece]]:
    """Yield the pieces of all documents, so many at a time that memory stays bounded.

    Args:
        drafts: The documents.
        apart: Whether the pieces are to be cut on their own, see `Draft.pieces`.
    """
    batch: list[Piece] = []
    length = 0
    for draft in drafts:
        for piece in draft.pieces() if apart else draft.whole_pieces():
            batch.append(piece)
            length += piece.end - piece.start
            if length >= _BATCH_CHARACTERS:
                yield batch
                batch, length = [], 0
    if batch:
        yield batch


def strip(text: str, start: int, end: int) -> Span:
    """Return the span without the white space at its ends."""
    inside = text[start:end]
    stop = start + len(inside.rstrip())
    return Span(min(stop, end - len(inside.lstrip())), stop)


def _without_contained(windows: list[Fitted]) -> list[Fitted]:
    """Return the windows in order, without those that lie inside another one that fits.

    When a window is cut again, its second half may lie entirely in the overlap of the next one.
    """
    kept: list[Fitted] = []
    covered = -1
    # The longer of two that begin together comes first, so that it is seen to hold the other.
    for window in sorted(windows, key=lambda window: (window.start, -window.end)):
        if window.end > covered:
            kept.append(window)
            covered = window.end if window.fits else covered
    return kept


def _joined(windows: Iterable[Fitted]) -> list[Span]:
    """Return the spans that windows, in ascending order, cover without a gap."""
    spans: list[Span] = []
    for start, end, *_ in windows:
        if spans and start <= spans[-1].end:
            spans[-1] = Span(spans[-1].start, max(spans[-1].end, end))
        else:
            spans.append(Span(start, end))
    return spans


def _landmarks(text: str, places: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Return the byte offset in UTF-8 and the line of each place, given in ascending order."""
    landmarks: dict[int, tuple[int, int]] = {}
    is_ascii = text.isascii()
    before, byte, line = 0, 0, 1
    for place in places:
        stretch = text[before:place]
        byte += len(stretch) if is_ascii else len(stretch.encode("utf-8", "surrogatepass"))
        line += stretch.count("\n")
        # No `\r\n` is divided between two stretches: places are next to text, or at an end.
        if "\r" in stretch:
            line += stretch.count("\r") - stretch.count("\r\n")
        landmarks[place] = byte, line
        before = place
    return landmarks

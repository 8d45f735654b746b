"""From texts to postings, and from several postings to one.

Texts are cut into terms a block at a time, each block becomes postings of its own, and these are
merged: memory holds the result and the blocks, never the terms of all texts as Python objects.
Blocks may as well be the postings of older segments, whose texts need not be cut again. Both ways
lead to the same bytes.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.search.postings import Analysis, Postings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retriever.search.postings import Ids, Unsigned
    from retriever.storage.catalog import ChunkText

# How often the terms of a document's title, and those of the headings, count in each of its chunks.
TITLE_WEIGHT = 1
HEADING_WEIGHT = 1
_BLOCK = 8_192  # rows that become postings at a time


class _Numbers(dict[str, int]):
    """Terms in the order in which they are met."""

    def __missing__(self, term: str) -> int:
        number = self[term] = len(self)
        return number


def inverted(texts: Iterable[ChunkText]) -> Postings:
    """Return the postings of texts, given in ascending order of chunk id."""
    rows = iter(texts)
    blocks = []
    while block := list(itertools.islice(rows, _BLOCK)):
        blocks.append(_inverted(block))
    return blocks[0] if len(blocks) == 1 else merged([(block, None) for block in blocks])


def _inverted(texts: Sequence[ChunkText]) -> Postings:
    from retriever.documents.words.forms import analysed_as

    numbers = _Numbers()
    numbered = array("i")
    lengths = []
    languages = []
    for text in texts:
        before = len(numbered)
        language = analysed_as(text.language)
        for some in _terms(text, language):
            numbered.extend(map(numbers.__getitem__, some))
        lengths.append(len(numbered) - before)
        languages.append(language or "")
    names = tuple(sorted(set(languages)))
    codes = np.frombuffer(numbered, np.int32) if numbered else np.empty(0, np.int32)
    terms, ranks = _in_order(list(numbers))
    n_rows = np.int64(len(texts))
    # One number for term and row: sorted, equal ones are the occurrences of a term in a row.
    keys = ranks[codes] * n_rows + np.repeat(np.arange(n_rows), lengths)
    keys.sort()
    firsts = np.flatnonzero(np.diff(keys, prepend=-1))
    frequencies = np.diff(firsts, append=len(keys))
    of_terms, positions = np.divmod(keys[firsts], n_rows)
    return Postings(
        Analysis.current(),
        np.array([text.id for text in texts], np.int64),
        np.array(lengths, np.uint32),
        names,
        np.array([names.index(one) for one in languages], np.uint8),
        *_dictionary(terms, np.bincount(of_terms, minlength=len(terms))),
        positions.astype(np.uint32),
        _narrow(frequencies),
        b"".join(terms),
    )


def _terms(text: ChunkText, language: str | None) -> Iterator[list[str]]:
    from retriever.documents.words import terms_of

    yield terms_of(text.text, language)
    if text.title:
        yield terms_of(text.title, language) * TITLE_WEIGHT
    for heading in text.heading:
        yield terms_of(heading, language) * HEADING_WEIGHT


def _in_order(terms: list[str]) -> tuple[list[bytes], Ids]:
    """Return terms in the order of their bytes, and the place there of each in the given order."""
    encoded = [term.encode("utf-8", "surrogatepass") for term in terms]
    order = sorted(range(len(encoded)), key=encoded.__getitem__)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return [encoded[number] for number in order], ranks


def _dictionary(terms: Sequence[bytes], counts: Ids) -> tuple[Unsigned, Unsigned]:
    """Return where the bytes and the postings of each term begin."""
    return _running([len(term) for term in terms]), _running(counts)


def _running(counts: Sequence[int] | Ids) -> NDArray[np.uint64]:
    return np.concatenate([[0], np.cumsum(np.asarray(counts, np.uint64))]).astype(np.uint64)


def _narrow(frequencies: NDArray[np.integer[Any]]) -> Unsigned:
    """Return frequencies in as few bytes as the largest one needs."""
    return frequencies.astype(np.min_scalar_type(int(frequencies.max(initial=0))))


class _Source:
    """Postings to be merged: those of their rows that are kept.

    Args:
        postings: The postings.
        kept: Which rows are kept, bool; None keeps all.
        first: The number of rows that come before.
    """

    def __init__(self, postings: Postings, kept: NDArray[np.bool_] | None, first: int) -> None:
        self.postings = postings
        self.ids, self.lengths = postings.ids, postings.lengths
        self.row_languages = postings.row_languages
        self.rows = np.arange(first, first + len(postings), dtype=np.uint32)
        self.counts = postings.counts()
        self._has: NDArray[np.bool_] | None = None
        if kept is not None and not kept.all():
            self.ids, self.lengths = self.ids[kept], self.lengths[kept]
            self.row_languages = self.row_languages[kept]
            self.rows = (first + np.cumsum(kept) - 1).astype(np.uint32)
            self._has = kept[postings.positions]
            running = np.concatenate([[0], np.cumsum(self._has, dtype=np.int64)])
            self.counts = np.diff(running[postings.offsets.astype(np.int64)])
        every = postings.terms()
        self.numbers = np.flatnonzero(self.counts)
        self.terms = [every[number] for number in self.numbers.tolist()]
        self.counts = self.counts[self.numbers]

    def contents(self) -> tuple[Unsigned, Unsigned]:
        """Return rows, as they are numbered in the result, and frequencies of all postings."""
        positions, frequencies = self.postings.positions, self.postings.frequencies
        if self._has is not None:
            positions, frequencies = positions[self._has], frequencies[self._has]
        return self.rows[positions], frequencies


def merged(sources: Sequence[tuple[Postings, NDArray[np.bool_] | None]]) -> Postings:
    """Return the postings of several ranges, given in ascending order, as those of one.

    Args:
        sources: Postings of one analysis, each with which of its rows are kept, bool; None keeps
            all.
    """
    parts: list[_Source] = []
    n_rows = 0
    for postings, kept in sources:
        parts.append(_Source(postings, kept, n_rows))
        n_rows += len(parts[-1].ids)
    terms = sorted(set().union(*(part.terms for part in parts)))
    numbers = {term: number for number, term in enumerate(terms)}
    of_parts = [
        np.fromiter(map(numbers.__getitem__, part.terms), np.int64, len(part.terms))
        for part in parts
    ]
    totals = np.zeros(len(terms), np.int64)
    for number, part in zip(of_parts, parts, strict=True):
        totals[number] += part.counts
    ends, offsets = _dictionary(terms, totals)
    positions = np.empty(int(offsets[-1]), np.uint32)
    frequencies = np.empty(len(positions), _widest(parts))
    # Where the next posting of each term goes; a later range has later rows.
    places = offsets[:-1].astype(np.int64)
    for number, part in zip(of_parts, parts, strict=True):
        begins = np.cumsum(part.counts) - part.counts
        target = np.repeat(places[number] - begins, part.counts)
        target += np.arange(len(target))
        positions[target], frequencies[target] = part.contents()
        places[number] += part.counts
    languages, row_languages = _languages(parts)
    return Postings(
        parts[0].postings.analysis if parts else Analysis.current(),
        np.concatenate([np.empty(0, np.int64), *(part.ids for part in parts)]),
        np.concatenate([np.empty(0, np.uint32), *(part.lengths for part in parts)]),
        languages,
        row_languages,
        ends,
        offsets,
        positions,
        _narrow(frequencies),
        b"".join(terms),
    )


def _widest(parts: Sequence[_Source]) -> np.dtype[np.unsignedinteger[Any]]:
    return np.result_type(np.uint8, *(part.postings.frequencies.dtype for part in parts))


def _languages(parts: Sequence[_Source]) -> tuple[tuple[str, ...], NDArray[np.uint8]]:
    """Return the languages of all rows that are kept, and the place in them of each row's."""
    used = [
        [part.postings.languages[code] for code in np.flatnonzero(np.bincount(part.row_languages))]
        for part in parts
    ]
    names = tuple(sorted(set().union(*used)))
    rows = [np.empty(0, np.uint8)]
    for part in parts:
        places = [names.index(one) if one in names else 0 for one in part.postings.languages]
        rows.append(np.array(places, np.uint8)[part.row_languages])
    return names, np.concatenate(rows)

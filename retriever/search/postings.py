"""Postings: for each term, in which rows it occurs and how often. Memory-mapped, or in memory.

The file is described in `storage/FORMAT.md`. It is a head and arrays, little-endian, each at a
multiple of eight bytes, so that opening it means mapping it: nothing is parsed or copied.
"""

from __future__ import annotations

import itertools
import mmap
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from retriever.errors import IndexCorrupt
from retriever.regular_files import open_regular

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ids: TypeAlias = NDArray[np.int64]
    Unsigned: TypeAlias = NDArray[np.unsignedinteger[Any]]

VERSION = 1  # of the file's form, as ANALYSIS is of the terms in it
MAGIC = b"RtrvTerm"
_HEAD = struct.Struct("<8sII16sQQQQII")
_SECTIONS = 9
_ALIGNMENT = 8
LANGUAGE = "ascii"


class Found(NamedTuple):
    """The rows that have a term: positions, ascending, and how often it occurs in each."""

    positions: Unsigned
    frequencies: Unsigned


NOTHING = Found(np.empty(0, np.uint32), np.empty(0, np.uint8))


class Analysis(NamedTuple):
    """What cut the texts into terms; postings of another analysis cannot be searched together."""

    version: int
    stemmer: str

    @classmethod
    def current(cls) -> Analysis:
        """Return the analysis of this version and of the stemmer that is installed."""
        from retriever.documents.words import ANALYSIS
        from retriever.documents.words.stemming import snowball_version

        return cls(ANALYSIS, snowball_version()[:16])


@dataclass(frozen=True, eq=False)
class Postings:
    """The rows of a range of chunks by their terms. Immutable, and safe to read in any thread.

    Attributes:
        analysis: What the terms were made by.
        ids: The chunk id of each row, ascending, int64 `(n_rows,)`.
        lengths: The terms of each row, with repeats, uint32 `(n_rows,)`.
        languages: The languages of rows, as analysed; the empty string stands for none.
        row_languages: For each row the position of its language in `languages`, uint8 `(n_rows,)`.
        ends: Where each term begins in `dictionary`, and the end, uint64 `(n_terms + 1,)`.
        offsets: Where the postings of each term begin, and the end, uint64 `(n_terms + 1,)`.
        positions: Rows, ascending within a term, uint32 `(n_postings,)`.
        frequencies: How often the term occurs in each, at least 1, unsigned `(n_postings,)`.
        dictionary: The terms in UTF-8, one after another, ordered by their bytes.
        path: The file, for messages; None in memory.
    """

    analysis: Analysis
    ids: Ids
    lengths: Unsigned
    languages: tuple[str, ...]
    row_languages: Unsigned
    ends: Unsigned
    offsets: Unsigned
    positions: Unsigned
    frequencies: Unsigned
    dictionary: bytes | mmap.mmap | memoryview
    path: Path | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_terms(self) -> int:
        """Return the number of different terms."""
        return len(self.offsets) - 1

    def term(self, number: int) -> bytes:
        """Return a term by its place in the dictionary."""
        start, end = self.ends[number : number + 2].tolist()
        return bytes(self.dictionary[start:end])

    def terms(self) -> list[bytes]:
        """Return all terms in order."""
        every = bytes(self.dictionary)
        ends = self.ends.tolist()
        return [every[start:end] for start, end in itertools.pairwise(ends)]

    def find(self, term: bytes) -> Found:
        """Return the postings of a term; none if no row has it.

        Raises:
            IndexCorrupt: They point outside the rows.
        """
        number = self._place(term)
        if number == self.n_terms or self.term(number) != term:
            return NOTHING
        start, end = self.offsets[number : number + 2].tolist()
        positions = self.positions[start:end]
        # The bytes were found to be those that were published. A crafted index may have published
        # anything, and NumPy would refuse the index with an error that is not ours.
        if not 0 <= start < end <= len(self.positions) or positions.max() >= len(self.ids):
            raise self.corrupt(f"the postings of {term.decode(errors='replace')!r}")
        return Found(positions, self.frequencies[start:end])

    def beginning_with(self, prefix: bytes) -> Iterator[bytes]:
        """Yield the terms that begin with a prefix, in order of their bytes."""
        for number in range(self._place(prefix), self.n_terms):
            term = self.term(number)
            if not term.startswith(prefix):
                return
            yield term

    def _place(self, term: bytes) -> int:
        """Return the number of the first term that is not less than `term`."""
        low, high = 0, self.n_terms
        while low < high:
            middle = (low + high) // 2
            if self.term(middle) < term:
                low = middle + 1
            else:
                high = middle
        return low

    def counts(self) -> Ids:
        """Return how many postings each term has, int64 `(n_terms,)`."""
        offsets = self.offsets.astype(np.int64)
        return offsets[1:] - offsets[:-1]

    def corrupt(self, what: str) -> IndexCorrupt:
        """Return the error for a part of the file that cannot be what was written."""
        return _corrupt(self.path or Path("the index"), f"{what} cannot be right")

    def problems(self) -> list[str]:
        """Return what is wrong with the arrays, each of which is read whole."""
        ends, offsets = self.ends.astype(np.int64), self.offsets.astype(np.int64)
        if not _ascend_to(ends, len(self.dictionary)) or not _ascend_to(
            offsets, len(self.positions)
        ):
            return ["its terms do not have the places that it says"]
        terms = self.terms()
        if any(one >= following for one, following in itertools.pairwise(terms)):
            return ["its terms are not in order"]
        if (np.diff(self.ids) <= 0).any():
            return ["its chunks are not in order"]
        if len(self.positions):
            begins = np.zeros(len(self.positions), dtype=bool)
            begins[offsets[:-1]] = True
            steps = np.diff(self.positions.astype(np.int64), prepend=-1)
            if (steps[~begins] <= 0).any() or self.positions.max() >= len(self.ids):
                return ["its postings are not in order"]
        if (self.frequencies == 0).any() or not self._lengths_agree():
            return ["the lengths of its rows are not those of their terms"]
        if len(self.ids) and self.row_languages.max() >= len(self.languages):
            return ["its rows have languages that it does not name"]
        return []

    def _lengths_agree(self) -> bool:
        weights = self.frequencies.astype(np.float64)  # exact up to 2**53
        summed = np.bincount(self.positions, weights, minlength=len(self.ids))
        return bool((summed == self.lengths).all())


def _ascend_to(places: Ids, end: int) -> bool:
    """Return whether places begin at 0, end at `end`, and each is after the one before."""
    return bool(places[0] == 0 and places[-1] == end and (np.diff(places) > 0).all())


def write(postings: Postings, sink: Callable[[bytes | memoryview], int]) -> None:
    """Write postings as a file; equal postings give equal bytes."""
    languages = ",".join(postings.languages).encode(LANGUAGE)
    sections: list[NDArray[Any]] = [
        postings.ids.astype("<i8", copy=False),
        postings.lengths.astype("<u4", copy=False),
        np.frombuffer(languages, np.uint8),
        postings.row_languages.astype("u1", copy=False),
        postings.ends.astype("<u8", copy=False),
        postings.offsets.astype("<u8", copy=False),
        postings.positions.astype("<u4", copy=False),
        postings.frequencies,
        np.frombuffer(postings.dictionary, np.uint8),
    ]
    width = postings.frequencies.dtype.itemsize
    head = _HEAD.pack(
        MAGIC,
        VERSION,
        postings.analysis.version,
        postings.analysis.stemmer.encode(LANGUAGE, "replace"),
        len(postings.ids),
        postings.n_terms,
        len(postings.positions),
        len(postings.dictionary),
        len(languages),
        width,
    )
    sink(head + bytes(-len(head) % _ALIGNMENT))
    for section in sections:
        if section.size:
            sink(np.ascontiguousarray(section).view(np.uint8).data)
            sink(bytes(-section.nbytes % _ALIGNMENT))


def read(path: Path) -> Postings:
    """Map a file of postings.

    Only its head is read, and compared with the size of the file.

    Raises:
        IndexCorrupt: The file is not one, or not whole; or another version of this package has
            written it in another form.
    """
    try:
        descriptor = open_regular(path)
        try:
            size = os.fstat(descriptor).st_size
            if size < _HEAD.size:
                raise _corrupt(path, f"{size} bytes are too few")
            mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as exc:
        raise _corrupt(path, str(exc)) from exc
    head = _head(path, mapped)
    sections = _sections(path, head, size)
    arrays = [
        np.frombuffer(mapped, dtype, count, start)
        for dtype, (start, count) in zip(_types(head.width), sections, strict=True)
    ]
    ids, lengths, languages, row_languages, ends, offsets, positions, frequencies, _ = arrays
    start, count = sections[-1]
    return Postings(
        head.analysis,
        ids,
        lengths,
        tuple(languages.tobytes().decode(LANGUAGE, "replace").split(",")),
        row_languages,
        ends,
        offsets,
        positions,
        frequencies,
        memoryview(mapped)[start : start + count],
        path,
    )


def read_analysis(path: Path) -> Analysis:
    """Return by what analysis a file was made, from its head alone.

    Raises:
        IndexCorrupt: As `read`.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            return _head(path, file.read(_HEAD.size)).analysis
    except OSError as exc:
        raise _corrupt(path, str(exc)) from exc


class _Head(NamedTuple):
    """What the head of a file says of its sections."""

    analysis: Analysis
    rows: int
    terms: int
    postings: int
    dictionary: int
    languages: int
    width: int


def _head(path: Path, data: bytes | mmap.mmap) -> _Head:
    if len(data) < _HEAD.size:
        raise _corrupt(path, f"{len(data)} bytes are too few")
    magic, version, analysis, stemmer, *counts = _HEAD.unpack(data[: _HEAD.size])
    if magic != MAGIC:
        raise _corrupt(path, "it is not a file of postings")
    if version != VERSION:
        raise _corrupt(path, f"its form is number {version}, and this version knows {VERSION}")
    name = stemmer.rstrip(b"\0").decode(LANGUAGE, "replace")
    head = _Head(Analysis(analysis, name), *counts)
    if head.width not in (1, 2, 4):
        raise _corrupt(path, f"its frequencies have {head.width} bytes")
    return head


def _types(width: int) -> Sequence[str]:
    return ("<i8", "<u4", "u1", "u1", "<u8", "<u8", "<u4", f"<u{width}", "u1")


def _sections(path: Path, head: _Head, size: int) -> list[tuple[int, int]]:
    """Return the offset of each section and the number of its elements.

    Python's integers do not overflow, so a crafted count cannot pass for a small one.
    """
    counts = (
        head.rows,
        head.rows,
        head.languages,
        head.rows,
        head.terms + 1,
        head.terms + 1,
        head.postings,
        head.postings,
        head.dictionary,
    )
    sections = []
    place = _HEAD.size + -_HEAD.size % _ALIGNMENT
    for dtype, count in zip(_types(head.width), counts, strict=True):
        sections.append((place, count))
        place += count * np.dtype(dtype).itemsize
        place += -place % _ALIGNMENT
    if place != size:
        raise _corrupt(path, f"it has {size:,} bytes, and its head speaks of {place:,}")
    return sections


def _corrupt(path: Path, what: str) -> IndexCorrupt:
    return IndexCorrupt(
        f"{path.name} cannot be searched: {what}.", path=str(path.parent), check="segment"
    )

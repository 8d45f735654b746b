"""BM25 over the allowed rows of a view.

A row's score for a question is the sum over the question's terms of

    weight * idf * (k1 + 1) * tf / (tf + k1 * (1 - b + b * length / mean length)),
    idf = ln(1 + (N - df + 0.5) / (df + 0.5))

as Lucene has it (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond",
2009). N, the mean length and df count exactly the live rows, in whichever segments they are, and
sums are of whole numbers or in the order of the question. So equal documents give equal scores to
the bit, however they came into the index.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.errors import IndexCorrupt
from retriever.search.postings import NOTHING, Found, Postings
from retriever.search.stale import StaleView

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retriever.documents.words import Term
    from retriever.search.allowed import AllowedRows, Mask
    from retriever.search.lexical_view import LexicalView
    from retriever.search.postings import Unsigned
    from retriever.search.view import View

    Ids = NDArray[np.int64]
    Scores = NDArray[np.float64]

K1 = 1.2
B = 0.75
# Where fewer than one row in so many has a term, they are sorted instead of looked for in an array
# of all rows.
_SPARSE = 64


class Matches(NamedTuple):
    """The allowed rows with at least one of a question's terms.

    Attributes:
        ids: Chunk ids, ascending, int64 `(n,)`.
        scores: BM25, greater than 0, float64 `(n,)`.
        idf: For each term of the question how rare it is, float64 `(n_terms,)`; that of a term
            that no row has is the largest. No score is above the sum of
            `weight * idf * (k1 + 1)`.
    """

    ids: Ids
    scores: Scores
    idf: Scores


def matches(
    view: View,
    connection: sqlite3.Connection,
    terms: Sequence[Term],
    allowed: AllowedRows,
    *,
    k1: float = K1,
    b: float = B,
) -> Matches:
    """Return every allowed row with at least one term, with its score.

    Args:
        view: What to search; of the connection's read transaction.
        connection: Where texts are read that no segment covers.
        terms: The terms of the question; see `question_terms`.
        allowed: The rows that may be found, of this view.
        k1: How soon further occurrences of a term cease to count; at least 0.
        b: How much the length of a row counts, from 0 to 1.

    Raises:
        StaleView: A segment was replaced meanwhile, or found wrong: begin a new view.
        IndexCorrupt: A text that no segment covers is damaged.
    """
    lexical = view.lexical(connection)
    found = [[_joined(view, lexical, part, term) for part in lexical.parts] for term in terms]
    idf = np.array([_idf(lexical.live.count, _count(of_parts, lexical)) for of_parts in found])
    # The factors of a term that are the same for all rows.
    gains = [term.weight * one * (k1 + 1) for term, one in zip(terms, idf.tolist(), strict=True)]
    norms = lexical.norms(k1, b)
    ids: list[Ids] = [np.empty(0, np.int64)]
    scores: list[Scores] = [np.empty(0, np.float64)]
    for number, mask in enumerate(lexical.masks(view, allowed)):
        of_terms = [
            (gain, _only(of_parts[number], mask))
            for gain, of_parts in zip(gains, found, strict=True)
            if gain > 0
        ]
        rows, sums = _sums([one for one in of_terms if len(one[1].positions)], norms[number])
        ids.append(lexical.parts[number].ids[rows])
        scores.append(sums)
    return Matches(np.concatenate(ids), np.concatenate(scores), idf)


def rows_with(view: View, connection: sqlite3.Connection, term: Term, allowed: AllowedRows) -> Ids:
    """Return the chunk ids of the allowed rows that have a term, ascending, int64.

    Raises:
        StaleView, IndexCorrupt: As `matches`.
    """
    lexical = view.lexical(connection)
    ids: list[Ids] = [np.empty(0, np.int64)]
    for part, mask in zip(lexical.parts, lexical.masks(view, allowed), strict=True):
        found = _only(_joined(view, lexical, part, term), mask)
        ids.append(part.ids[found.positions])
    return np.concatenate(ids)


def frequencies(view: View, connection: sqlite3.Connection, terms: Sequence[str]) -> Ids:
    """Return how many live rows have exactly each of some terms, int64 `(n_terms,)`.

    Raises:
        StaleView, IndexCorrupt: As `matches`.
    """
    lexical = view.lexical(connection)
    counts = [
        _count([_find(view, lexical, part, term) for part in lexical.parts], lexical)
        for term in terms
    ]
    return np.array(counts, np.int64)


def terms_with_prefix(
    view: View, connection: sqlite3.Connection, prefix: str, limit: int
) -> list[str]:
    """Return the terms of live rows that begin with a prefix, at most `limit + 1` of them.

    They are in the order of their UTF-8 bytes. One more than `limit` tells that there are more.

    Raises:
        StaleView, IndexCorrupt: As `matches`.
    """
    lexical = view.lexical(connection)
    encoded = prefix.encode("utf-8", "surrogatepass")
    found: set[str] = set()
    for part, mask in zip(lexical.parts, lexical.live.masks, strict=True):
        n_found = 0
        for term in part.beginning_with(encoded):
            text = term.decode("utf-8", "replace")
            if mask is None or len(_only(_find(view, lexical, part, text), mask).positions):
                found.add(text)
                n_found += 1
            if n_found > limit:
                break
    return sorted(found, key=str.encode)[: limit + 1]


def _find(view: View, lexical: LexicalView, part: Postings, term: str) -> Found:
    try:
        return part.find(term.encode("utf-8", "surrogatepass"))
    except IndexCorrupt as exc:
        view.condemn_lexical(lexical, part)
        raise StaleView from exc


def _joined(view: View, lexical: LexicalView, part: Postings, term: Term) -> Found:
    """Return the postings of a term with several forms as those of one."""
    every = [_find(view, lexical, part, form) for form in term.alternatives]
    every = [found for found in every if len(found.positions)]
    if len(every) <= 1:
        return every[0] if every else NOTHING
    positions = np.concatenate([found.positions for found in every])
    tf = np.concatenate([found.frequencies for found in every]).astype(np.uint32)
    order = np.argsort(positions, kind="stable")
    positions, tf = positions[order], tf[order]
    firsts = np.flatnonzero(np.diff(positions.astype(np.int64), prepend=-1))
    return Found(positions[firsts], np.add.reduceat(tf, firsts))


def _only(found: Found, mask: Mask | None) -> Found:
    if mask is None or not len(found.positions):
        return found
    kept = mask.flags[found.positions]
    return Found(found.positions[kept], found.frequencies[kept])


def _count(of_parts: Sequence[Found], lexical: LexicalView) -> int:
    """Return how many live rows have a term."""
    return sum(
        len(found.positions) if mask is None else int(mask.flags[found.positions].sum())
        for found, mask in zip(of_parts, lexical.live.masks, strict=True)
    )


def _idf(n_rows: int, n_with: int) -> float:
    return math.log1p((n_rows - n_with + 0.5) / (n_with + 0.5))


def _sums(of_terms: Sequence[tuple[float, Found]], norms: Scores) -> tuple[Ids, Scores]:
    """Return the rows of a part that have any of some terms, ascending, and their scores.

    Both ways below add the terms of a row in the same order, so their sums are the same numbers.
    """
    n_postings = sum(len(found.positions) for _, found in of_terms)
    if not n_postings:
        return np.empty(0, np.int64), np.empty(0)
    if n_postings * _SPARSE >= len(norms):
        sums = np.zeros(len(norms))
        for gain, found in of_terms:
            rows = found.positions.astype(np.intp)  # NumPy would convert them at every use
            np.add.at(sums, rows, _gained(gain, found.frequencies, norms.take(rows)))
        rows = np.flatnonzero(sums > 0)
        return rows, sums.take(rows)
    rows = np.concatenate([found.positions for _, found in of_terms]).astype(np.intp)
    rows.sort()
    rows = rows[np.flatnonzero(np.diff(rows, prepend=-1))]
    sums = np.zeros(len(rows))
    norms = norms.take(rows)
    for gain, found in of_terms:
        places = np.searchsorted(rows, found.positions)
        np.add.at(sums, places, _gained(gain, found.frequencies, norms.take(places)))
    return rows, sums


def _gained(gain: float, frequencies: Unsigned, norms: Scores) -> Scores:
    """Return what a term adds to the scores of the rows that have it."""
    tf = frequencies.astype(np.float64)
    gained: Scores = gain * tf / (tf + norms)
    return gained

"""The terms that a lexical search is for: those of a question, of its prefixes or of a document."""

from __future__ import annotations

from collections import Counter
from functools import partial, reduce
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.documents.words import Term, fold, question_terms, terms_of
from retriever.search import lexical
from retriever.search.asking import mean_terms
from retriever.search.document_ids import find_pk
from retriever.storage import catalog

if TYPE_CHECKING:
    import sqlite3

    from retriever.search.allowed import AllowedRows, Ids
    from retriever.search.asking import Asked
    from retriever.search.questions import Pattern, Question
    from retriever.search.view import View

MAX_PREFIX_TERMS = 4_096
"""The most terms that the beginning of a word stands for."""

CHARACTERISTIC_TERMS = 25
"""Terms of a document by which others like it are searched for, as in Lucene's MoreLikeThis."""


class AskedTerms(NamedTuple):
    """The terms of what is asked.

    Attributes:
        terms: As `lexical.matches` takes them.
        note: What the plan says of them; empty or beginning with "; ".
    """

    terms: list[Term]
    note: str


def of_asked(view: View, connection: sqlite3.Connection, asked: Asked) -> AskedTerms:
    """Return the terms of a question, of several phrasings or of a document; none of a vector.

    Raises:
        StaleView, IndexCorrupt: As `lexical.matches`.
    """
    if asked.document is not None:
        pk = find_pk(connection, asked.document)
        return AskedTerms(_characteristic(view, connection, pk), "")
    notes: list[str] = []
    phrasings = [_of_phrasing(view, connection, one, notes) for one in asked.phrasings]
    return AskedTerms(mean_terms(phrasings) if phrasings else [], "".join(notes))


def candidates(
    view: View, connection: sqlite3.Connection, pattern: Pattern, allowed: AllowedRows
) -> Ids:
    """Return, of the allowed rows, all in which a pattern may stand, int64 ascending.

    They are those with the stems of all its words. A stem need not begin as its word does, so that
    the beginning of a word may stand in any row.

    Raises:
        StaleView, IndexCorrupt: As `lexical.matches`.
    """
    terms = question_terms(pattern.text, view.lexical(connection).languages)
    if pattern.is_prefix or not terms:
        return allowed.ids
    rows = [lexical.rows_with(view, connection, term, allowed) for term in terms]
    return reduce(partial(np.intersect1d, assume_unique=True), rows)


def _of_phrasing(
    view: View, connection: sqlite3.Connection, question: Question, notes: list[str]
) -> list[Term]:
    languages = view.lexical(connection).languages
    terms = question_terms(question.words, languages) if question.words else []
    for prefix in question.prefixes:
        found = lexical.terms_with_prefix(view, connection, fold(prefix), MAX_PREFIX_TERMS)
        if len(found) > MAX_PREFIX_TERMS:
            found = found[:MAX_PREFIX_TERMS]
            notes.append(f"; {prefix}* stands for {MAX_PREFIX_TERMS:,} of its words")
        # A stem may be shorter than what was typed. The whole of an identifier comes first; its
        # parts, such as "err" of "ERR_4*", do not begin as it does.
        whole = question_terms(prefix, languages)[:1]
        stems = [form for term in whole for form in term.alternatives]
        terms.append(Term(tuple(dict.fromkeys([*stems, *found]))))
    return terms


def _characteristic(view: View, connection: sqlite3.Connection, pk: int) -> list[Term]:
    """Return the terms of a document with the highest tf-idf, of those that others have too."""
    counts: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    own_ids = catalog.chunks_of_documents(connection, [pk]).tolist()
    if not own_ids:
        return []
    first, last = min(own_ids) - 1, max(own_ids)
    for text in catalog.chunk_texts(connection, view.space.chunking.id, first, last):
        if text.id not in own_ids:
            continue
        of_chunk = [
            term
            for part in (text.text, text.title or "", *text.heading)
            for term in terms_of(part, text.language)
        ]
        counts.update(of_chunk)
        rows.update(set(of_chunk))
    known = list(counts)
    found = lexical.frequencies(view, connection, known)
    own = np.array([rows[term] for term in known], np.int64)
    tf = np.array([counts[term] for term in known], np.float64)
    # How often a term occurs counts as in BM25: ever less.
    weights = np.where(found > own, tf / (tf + lexical.K1), 0)
    values = weights * np.log1p((view.live.count - found + 0.5) / (found + 0.5))
    best = np.lexsort((np.arange(len(known)), -values))[:CHARACTERISTIC_TERMS]
    return [Term((known[n],)) for n in best.tolist() if values[n] > 0]

"""The passages in which the phrases of a question stand, and none of its excluded words.

Candidates come from the words of the index, which are stemmed. Each is then compared with the
passage as it is written: a phrase stands in a passage where its words do, one after the other,
whatever white space or punctuation is between them. Case does not count. Accents count as far as
the stem of a word depends on them, since candidates are found by stems.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from retriever import deadlines
from retriever.documents.words import fold, terms_of
from retriever.storage import catalog

if TYPE_CHECKING:
    import sqlite3
    from typing import TypeAlias

    from retriever.search.allowed import AllowedRows, Ids
    from retriever.search.questions import Pattern, Question

    Candidates: TypeAlias = Callable[[Pattern, AllowedRows], Ids]
    """Returns, of the allowed rows, all in which a pattern may stand, int64."""

_BATCH = 256
# Between terms, none of which has white space, and between texts, over which no phrase goes.
_TERM, _TEXT = "\n", "\n \n"


def restrict(
    connection: sqlite3.Connection,
    question: Question,
    allowed: AllowedRows,
    candidates: Candidates,
) -> tuple[AllowedRows, str]:
    """Return the allowed rows in which a question's phrases stand and its exclusions do not.

    Args:
        connection: A read transaction of the view that `allowed` is of.
        question: What is asked.
        allowed: The rows that may be found.
        candidates: Where a pattern may stand.

    Returns:
        The rows, and a note on what was left out for `Results.plan`; it is empty or begins "; ".

    Raises:
        IndexCorrupt: The text of a candidate is damaged.
        SearchTimeout: The time of the search is up.
    """
    notes = []
    for pattern in filter(_has_terms, question.phrases):
        # One after the other, so that each is looked for only where the others stand.
        allowed = allowed.only(standing(connection, pattern, candidates(pattern, allowed)))
        notes.append(f"; with {pattern}: {_passages(allowed.count)}")
        if not allowed.count:
            return allowed, "".join(notes)
    for pattern in filter(_has_terms, question.exclusions):
        before = allowed.count
        allowed = allowed.without(standing(connection, pattern, candidates(pattern, allowed)))
        notes.append(f"; without {pattern}: {_passages(before - allowed.count)} left out")
    return allowed, "".join(notes)


def standing(connection: sqlite3.Connection, pattern: Pattern, candidates: Ids) -> Ids:
    """Return those of some chunks in which a pattern stands, int64 in their order."""
    wanted = _TERM.join(("", *terms_of(pattern.text, None), ""))
    if pattern.is_prefix:
        wanted = f"{_TERM}{fold(pattern.text)}"
    found = [chunk_id for chunk_id, text in _read(connection, candidates) if wanted in text]
    return np.array(found, np.int64)


def _read(connection: sqlite3.Connection, ids: Ids) -> Iterator[tuple[int, str]]:
    """Yield chunks with the terms of their texts, headings and titles, in order."""
    for start in range(0, len(ids), _BATCH):
        deadlines.check()
        batch = ids[start : start + _BATCH].tolist()
        stored = catalog.fetch_chunks(connection, batch)
        for chunk_id in batch:
            if (one := stored.get(chunk_id)) is not None:
                texts = (one.chunk.text, one.title or "", *one.chunk.heading)
                yield chunk_id, _TEXT.join(_terms_of(text) for text in texts)


def _has_terms(pattern: Pattern) -> bool:
    """Return whether a pattern is more than invisible characters."""
    return bool(terms_of(pattern.text, None))


def _terms_of(text: str) -> str:
    return _TERM.join(("", *terms_of(text, None), ""))


def _passages(count: int) -> str:
    return f"{count:,} passage{'' if count == 1 else 's'}"

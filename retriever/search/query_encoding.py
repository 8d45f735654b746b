"""Encode questions of any length.

A question longer than the encoder's window is split into windows like a document, and is
represented by the mean of their vectors.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever.arguments import described
from retriever.canonical import unit_vector
from retriever.config import Chunking
from retriever.documents.chunking import Chunker
from retriever.encoders.checked import CheckedEncoder
from retriever.errors import InvalidQuery, LimitExceeded
from retriever.types import Document, Ledger

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_CHARACTERS = 100_000
_UNKNOWN_SHARE = 0.5
# Without overlap, so that no token of a question is in two of the windows that are averaged.
_WHOLE = Chunking(tokens=None, overlap=0)
_log = logging.getLogger("retriever")


class Embedded(NamedTuple):
    """A question's vector, and how it was encoded.

    Attributes:
        vector: float32 `(dimension,)`, of unit length.
        windows: The number of windows that the question was split into.
        note: A note for users in `Results.plan`; usually empty.
    """

    vector: NDArray[np.float32]
    windows: int
    note: str


class _Reading(NamedTuple):
    windows: list[str]
    note: str


def check(question: Any) -> None:
    """Raise an error for a question that cannot be encoded.

    Raises:
        InvalidQuery: It is not a string, is empty, or cannot be encoded as UTF-8.
        LimitExceeded: It has more than 100,000 characters.
    """
    if not isinstance(question, str):
        several = isinstance(question, list | tuple)
        raise InvalidQuery(
            f"The query is {described(question)}.",
            hint="To search for each question by itself, use search_many; for several phrasings of "
            "one question, pass fuse=True."
            if several
            else "Pass a string, or vector=.",
        )
    if len(question) > MAX_CHARACTERS:
        raise LimitExceeded(
            f"The query has {len(question):,} characters; the limit is {MAX_CHARACTERS:,}.",
            limit=MAX_CHARACTERS,
            value=len(question),
            option="query",
            hint="Use a part of it as the query.",
        )
    if not question.strip():
        raise InvalidQuery(f"The query {question!r} is empty.", hint="Ask something.")
    try:
        question.encode()
    except UnicodeEncodeError as exc:
        raise InvalidQuery(
            f"The query holds a lone surrogate, {question[exc.start]!r}.",
            hint="Decode it with errors='replace'.",
        ) from exc


def embed(encoder: CheckedEncoder, questions: Sequence[str]) -> list[Embedded]:
    """Encode questions that passed `check`, all in one call of the encoder.

    The encoder prepends its query prompt, if it has one, to each window.

    Raises:
        InvalidQuery, ModelError, MissingDependency: As `Encoder.encode_queries`.
    """
    readings = [_read(encoder, question) for question in questions]
    encoded = encoder.encode_queries([window for one in readings for window in one.windows])
    units = [unit_vector(vector, encoder.dimension) for vector in encoded]
    embedded = []
    start = 0
    for windows, note in readings:
        some = units[start : start + len(windows)]
        start += len(windows)
        embedded.append(Embedded(mean(some), len(some), note))
    return embedded


def windows(encoder: CheckedEncoder, question: str) -> list[str]:
    """Return the texts that are encoded for a question: the question itself, if it fits."""
    return _read(encoder, question).windows


def _read(encoder: CheckedEncoder, question: str) -> _Reading:
    """Return the windows of a question, and a note on it."""
    # Most questions are short, and whether one fits is cheaper to determine than its tokens.
    if encoder.reads_whole(question):
        return _Reading([question], "")
    max_tokens = encoder.max_query_tokens
    (tokens,) = encoder.tokenizer.tokenize([question])
    ledger = Ledger(len(tokens), len(tokens), int(np.count_nonzero(tokens.unknown)))
    windows = [question]
    notes = []
    if len(tokens) > max_tokens:
        ((chunks, ledger),) = Chunker(encoder.tokenizer, max_tokens, _WHOLE).chunk(
            [Document(question)]
        )
        windows = [chunk.text for chunk in chunks] or windows
        notes.append(
            f"the question's {ledger.tokens:,} tokens read in {len(windows)} windows of at most "
            f"{max_tokens}, their vectors averaged"
        )
        if ledger.truncated:
            notes.append(
                f"question truncated: the encoder does not see {ledger.truncated} of its tokens"
            )
            _log.warning("%s", notes[-1])
    if ledger.unknown > _UNKNOWN_SHARE * ledger.tokens:
        notes.append(
            f"question mostly unknown: the encoder's vocabulary lacks {ledger.unknown:,} of its "
            f"{ledger.tokens:,} {'token' if ledger.tokens == 1 else 'tokens'}"
        )
        _log.warning("%s; the hits may be unrelated to it", notes[-1])
    return _Reading(windows, "".join(f"; {note}" for note in notes))


def mean(vectors: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the mean scaled to unit length; the first vector if the mean is zero."""
    if len(vectors) == 1:
        return vectors[0]
    total: NDArray[np.float64] = np.sum(np.stack(vectors), axis=0, dtype=np.float64)
    try:
        return unit_vector(total, len(total))
    except ValueError:
        return vectors[0]

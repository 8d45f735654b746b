"""What a search is for: a question, several phrasings of one, a vector or a document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.arguments import described, is_number, shown
from retriever.canonical import unit_vector
from retriever.errors import InvalidQuery, LimitExceeded
from retriever.search import query_encoding
from retriever.search.questions import Question, as_text, parse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retriever.documents.words import Term

MAX_PHRASINGS = 64
"""The most phrasings that one search fuses."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What one list of hits is for; exactly one of the fields is given.

    Attributes:
        phrasings: The question, read; or several phrasings of it, which are answered as one.
        vector: An embedding as the caller passed it.
        document: The id of a document, for what is like it.
    """

    phrasings: tuple[Question, ...] = ()
    vector: Any = field(default=None, compare=False)
    document: str | None = None

    @property
    def text(self) -> str | None:
        """Return what a reranker reads: the first phrasing without operators, if there is one."""
        return self.phrasings[0].text if self.phrasings else None

    @property
    def restriction(self) -> Question:
        """Return the phrases and exclusions of all phrasings, each of which holds."""
        if len(self.phrasings) == 1:
            return self.phrasings[0]
        merged = as_text("")
        return Question(
            merged.text,
            merged.words,
            phrases=_each_once(one.phrases for one in self.phrasings),
            exclusions=_each_once(one.exclusions for one in self.phrasings),
        )

    @property
    def identity(self) -> tuple[Any, ...]:
        """Return what is equal for equal searches, for a fingerprint."""
        if self.document is not None:
            return "document", self.document
        if self.phrasings:
            return "question", *self.phrasings
        try:
            return "vector", np.asarray(self.vector, np.float64).tobytes()
        except (TypeError, ValueError, OverflowError, RuntimeError):
            return ("vector",)  # the search says what is wrong with it

    @property
    def note(self) -> str:
        """Return what the plan says of how the question was read."""
        several = f"; {len(self.phrasings)} phrasings fused" if len(self.phrasings) > 1 else ""
        return several + "".join(one.note for one in self.phrasings)


def question(given: Any, *, operators: bool) -> Asked:
    """Return a question as what is asked.

    Args:
        given: What a caller passed as the query.
        operators: Whether quotes, stars and dashes in it are operators, or text.

    Raises:
        InvalidQuery, LimitExceeded: As `query_encoding.check`.
    """
    return Asked(phrasings=(_read(given, operators=operators),))


def fused(given: Sequence[Any], *, operators: bool) -> Asked:
    """Return several phrasings of one question as what is asked.

    Raises:
        InvalidQuery: There is none, or one of them is unusable.
        LimitExceeded: There are more than 64, or one of them is too long.
    """
    if not given:
        raise InvalidQuery(
            "query is an empty list.", hint="Pass at least one phrasing of the question."
        )
    if len(given) > MAX_PHRASINGS:
        raise LimitExceeded(
            f"The query has {len(given):,} phrasings; the limit is {MAX_PHRASINGS}.",
            limit=MAX_PHRASINGS,
            value=len(given),
            option="query",
            hint="Fuse fewer; to search for each by itself, use search_many.",
        )
    return Asked(phrasings=tuple(_read(one, operators=operators) for one in given))


def document(given: Any) -> Asked:
    """Return a document as what is asked: what else is like it.

    Raises:
        InvalidQuery: It is no id.
    """
    if not isinstance(given, str):
        raise InvalidQuery(
            f"document is {described(given)}.", hint="Pass the id of a document of the index."
        )
    return Asked(document=given)


def vectors(asked: Sequence[Asked], dimension: int) -> NDArray[np.float32]:
    """Return the embeddings that callers passed, unit rows `(n, dimension)`.

    Raises:
        InvalidQuery: One has another dimension, or is not finite, or zero.
    """
    given = [one.vector for one in asked]
    try:
        units = [unit_vector(vector, dimension) for vector in given]
    except ValueError as exc:
        hint = f"Pass {dimension} finite numbers."
        if is_number(given[0]):
            hint = f"Pass an array (n, {dimension}) as vectors=, or one vector to search(vector=)."
        raise InvalidQuery(f"The query vector {exc}.", hint=hint) from exc
    return np.array(units, np.float32).reshape(-1, dimension)


def one_kind(**given: Any) -> InvalidQuery:
    """Return the error for a search that is given nothing to search for, or several things."""
    named = [name for name, value in given.items() if value is not None]
    said = f"is given {' and '.join(named)}" if named else "is given nothing to search for"
    *most, last = given
    return InvalidQuery(
        f"The search {said}; it takes exactly one of {', '.join(most)} and {last}.",
        hint="Pass a question as query, an embedding as vector=, or the id of a document as "
        "document=.",
    )


def as_list(values: Any, name: str) -> list[Any]:
    """Return several queries or vectors as a list.

    Raises:
        InvalidQuery: They are none; what iterating over them raises is the caller's.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InvalidQuery(
            f"{name} is {described(values)}.",
            hint="Pass a list, one for each search.",
        )
    if isinstance(values, np.ndarray) and not values.ndim:
        raise InvalidQuery(f"{name} is {shown(values)}.", hint="Pass an array of (n, dimension).")
    return list(values)


def mean_terms(phrasings: Iterable[Sequence[Term]]) -> list[Term]:
    """Return terms whose score is the mean of what the phrasings' terms would score.

    BM25 is a sum over terms, so that the mean of several is one sum with the mean of the weights.
    """
    given = list(phrasings)
    if len(given) == 1:
        return list(given[0])
    from retriever.documents.words import Term

    weights: dict[tuple[str, ...], float] = {}
    for term in (term for terms in given for term in terms):
        weights[term.alternatives] = weights.get(term.alternatives, 0.0) + term.weight
    return [Term(alternatives, total / len(given)) for alternatives, total in weights.items()]


def _read(given: Any, *, operators: bool) -> Question:
    query_encoding.check(given)
    return parse(given) if operators else as_text(given)


def _each_once(patterns: Iterable[Iterable[Any]]) -> tuple[Any, ...]:
    def flat() -> Iterator[Any]:
        for some in patterns:
            yield from some

    return tuple(dict.fromkeys(flat()))

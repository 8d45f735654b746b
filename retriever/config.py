"""Options that callers set: how documents are split into chunks, and what a search returns."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from retriever.arguments import as_whole, flag, is_flag, is_number, seconds, shown, whole
from retriever.errors import InvalidConfig, InvalidQuery, LimitExceeded

if TYPE_CHECKING:
    from retriever.filters import FilterLike
    from retriever.types import Chunk

VECTORS_ONLY = "vectors_only"
"""The field of the identity of a space without an encoder: embeddings come with documents."""

DEFAULT_TOKENS = 128
"""The longest chunk of a document that is cut. An encoder that reads less makes it less."""

MIN_TOKENS = 8
MAX_K = 100_000
"""The most hits that one search returns."""

MAX_CANDIDATES = 1_000
"""The most passages that one search reranks, and so the most hits of a reranked search."""

PREFIX_CHARACTERS = 80
"""Length of the headings put before a chunk's text; the innermost ones count first."""


class _Default(int):
    """The default of an option, which can be told from the same number given by a caller."""


_TOKENS_NOT_GIVEN = _Default(DEFAULT_TOKENS)


@dataclass(frozen=True)
class Chunking:
    """How documents are split into chunks; fixed when an index is created.

    Attributes:
        unit: `window` splits the whole document into windows; `document` makes it one chunk, of
            which only the first window is encoded.
        tokens: The longest chunk, in tokens; None means the encoder's window. The default is 128,
            or the encoder's window if that is less. A document of at most so many is one chunk.
        overlap: Tokens that a chunk may repeat from the previous one, within a section. The
            default, which None stands for too, is 0.
        prefix_headings: Whether to encode the headings above a chunk before its text. The header
            row of a table is always encoded before chunks of its rows.
        prefix_title: Whether to encode the document's title before each chunk's text.

    Raises:
        InvalidConfig: If the options contradict each other.
    """

    unit: Literal["window", "document"] = "window"
    tokens: int | None = _TOKENS_NOT_GIVEN
    overlap: int | None = None
    prefix_headings: bool = False
    prefix_title: bool = False

    def __post_init__(self) -> None:
        self._check_types()
        if self.overlap is None:
            object.__setattr__(self, "overlap", 0)
        if self.unit == "document":
            if self.tokens is not None or self.prefix_headings or self.prefix_title:
                raise InvalidConfig(
                    "chunking 'document' makes one chunk of a document and takes no other option.",
                    hint="Give the unit alone, or use chunking 'window'.",
                )
            object.__setattr__(self, "overlap", 0)
        else:
            self._check_sizes()

    def _check_sizes(self) -> None:
        if self.tokens is not None and self.tokens < MIN_TOKENS:
            raise InvalidConfig(
                f"chunking tokens is {self.tokens}; a chunk needs at least {MIN_TOKENS}.",
                hint="Leave it out to use the default.",
            )
        if (overlap := self.overlap or 0) < 0 or 0 < (self.tokens or 0) <= overlap * 2:
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
        if self.unit == "document" and self.tokens is _TOKENS_NOT_GIVEN:
            object.__setattr__(self, "tokens", None)
        for name in ("tokens", "overlap"):
            value = getattr(self, name)
            number = as_whole(value)
            if number is None and value is not None:
                raise InvalidConfig(
                    f"chunking {name} is {shown(value)}, not a whole number.",
                    hint="Give it as a number of tokens.",
                )
            # Not the default's own class, which only tells that nothing was given.
            object.__setattr__(self, name, None if number is None else int(number))
        for name in ("prefix_headings", "prefix_title"):
            object.__setattr__(self, name, flag(getattr(self, name), f"chunking {name}"))

    @classmethod
    def parse(cls, value: Chunking | str | Mapping[str, Any] | None) -> Chunking:
        """Return the chunking for a unit's name, a mapping of options, or None for the default.

        Raises:
            InvalidConfig: If it is something else, or its options contradict each other.
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
        """Return this chunking with the given options changed.

        A new `tokens` resets `overlap`, and a new `unit` all other options.

        Raises:
            InvalidConfig: As `parse`.
        """
        if value is None or isinstance(value, Chunking):
            return value or self
        given: Any = value
        if not isinstance(given, str | Mapping):
            return self.parse(given)  # raises the error
        options = {"unit": given} if isinstance(given, str) else dict(given)
        if options.get("unit", self.unit) != self.unit:
            return self.parse(options)
        kept = self.to_dict()
        if options.get("tokens", self.tokens) != self.tokens:
            del kept["overlap"]
        return self.parse({**kept, **options})

    def to_dict(self) -> dict[str, Any]:
        """Return the options as a JSON object, which `parse` accepts."""
        return {option.name: getattr(self, option.name) for option in fields(self)}

    def encoded_text(self, chunk: Chunk, title: str | None = None) -> str:
        """Return the text that is encoded for a chunk of a document with a title."""
        return self.prefix(chunk.heading, chunk.text, title) + chunk.text

    def prefix(self, heading: Sequence[str], text: str, title: str | None = None) -> str:
        """Return the prefix of a chunk's encoded text: titles that its text does not begin with.

        If the chunk begins in a table, its header row is always part of the prefix.
        """
        columns = ""
        if heading and _is_table_header(heading[-1]):
            *heading, columns = heading
            columns += "\n"
        above = [*heading] if self.prefix_headings else []
        if self.prefix_title and title and title not in above:
            above.insert(0, title)
        return (_titles(above, text) if above else "") + columns


def _titles(above: Sequence[str], text: str) -> str:
    """Return titles in one line, the innermost ones if all are too long, and an empty line."""
    opening = text[:1000].splitlines()[:3]
    titles: list[str] = []
    remaining = PREFIX_CHARACTERS
    for title in reversed(above):
        if any(title in line for line in opening):
            continue
        if titles and len(title) > remaining:
            break
        titles.append(title[:remaining])
        remaining -= len(title)
    return " > ".join(reversed(titles)) + "\n\n" if titles else ""


ChunkingLike: TypeAlias = Chunking | str | Mapping[str, Any] | None


def _is_table_header(heading: str) -> bool:
    """Return whether a heading is the header row of a table."""
    return heading.startswith("| ")


# `benchmarks.hybrid` measures the share of convex fusion on training splits.
_SHARES = {"convex": 0.7, "rrf": 0.5}


@dataclass(frozen=True)
class SearchOptions:
    """The options of a search: number of hits, grouping, reranking and folding.

    `Index.search` and `Index.search_many` build one from their keyword arguments, or take one as
    `options=`. It is checked when it is made; `dataclasses.replace` makes a changed copy, which is
    checked again.

    Examples:
        >>> from dataclasses import replace
        >>> best_documents = SearchOptions(k=20, group="document")
        >>> replace(best_documents, k=5).group
        'document'

    Attributes:
        k: The number of hits, from 1 to 100,000, or to 1,000 with `rerank`. There are fewer if
            there are fewer chunks, or with `group` fewer documents.
        group: `"document"` returns the best chunk of each of the k best documents; None returns
            chunks, of which several may be of one document.
        rerank: The reranker of the best candidates: the name or path of a cross-encoder, a
            `CrossEncoder` object of sentence-transformers, or an object with
            `score(query, texts)`. None, or False, keeps the order of cosine similarity. A model
            is loaded when the search runs.
        candidates: The number of chunks to rerank, from 1 to 1,000; k if that is larger.
        fold: Whether chunks with equal text and embedding are one hit, the one with the lowest
            chunk id, which counts the others. Folding precedes `group` and `rerank`.
        operators: Whether `"a phrase"`, `word*` and `-word` in a question are operators. With False
            all of it is text, as suits text that was not typed as a question.
        mode: What ranks: `"dense"` the cosine of the embeddings, `"lexical"` the words (BM25), for
            which no model is needed, or `"hybrid"` both. A search by `vector` is dense.
        fusion: How a hybrid search makes one score of both: `"convex"`, their weighted mean, each
            over its theoretical range, so that the score is from 0 to 1 and says the same in every
            search; or `"rrf"`, reciprocal rank fusion.
        weight: The share of the embeddings in it, from 0 to 1; None is the default of the fusion,
            .7 for convex and .5 for rrf.
        min_score: The lowest score of a hit, on the scale of the mode, or of the reranker if there
            is one. Chunks below it do not count among the k. None sets no limit.
        filter: Which passages may be found, by the metadata of their documents: a mapping such as
            `{"year": {"$gte": 2020}}`, an expression such as `"year >= 2020"`, or a `Filter`. It
            is kept as a `Filter`. There are as many hits as without it, if as many pass.
        timeout_s: Seconds that the search may take, waiting and loading a model included. It is
            looked at between steps, none of which is interrupted. None sets no limit.

    Raises:
        InvalidQuery: An option has the wrong type, or is too small.
        InvalidConfig: `fold` or `operators` is neither True nor False.
        InvalidFilter: The filter does not follow the grammar.
        LimitExceeded: `k` or `candidates` is too large, or the filter.
    """

    k: int = 10
    group: Literal["document"] | None = None
    rerank: Any = None
    candidates: int = 50
    fold: bool = True
    operators: bool = True
    mode: Literal["hybrid", "dense", "lexical"] = "hybrid"
    fusion: Literal["convex", "rrf"] = "convex"
    weight: float | None = None
    min_score: float | None = None
    timeout_s: float | None = None
    filter: FilterLike | None = None

    def __post_init__(self) -> None:
        self._set("candidates", self._checked_candidates())
        self._set("rerank", self._checked_rerank())
        self._set("fold", flag(self.fold, "fold"))
        self._set("operators", flag(self.operators, "operators"))
        self._set("timeout_s", self._checked_timeout())
        if self.filter is not None:
            from retriever import filters  # only where one is given

            self._set("filter", filters.given(self.filter))
        # After `rerank`, on which the limit of k depends, and of which False has become None.
        self._set("k", self._checked_k())
        self._check_choice("group", (None, "document"))
        self._check_choice("mode", ("hybrid", "dense", "lexical"))
        self._check_choice("fusion", ("convex", "rrf"))
        self._set("weight", self._checked_weight())
        self._set("min_score", self._checked_min_score())

    @property
    def depth(self) -> int:
        """Return the number of hits to find in the first stage: k, or the candidates to rerank."""
        return self.k if self.rerank is None else max(self.k, self.candidates)

    @property
    def share(self) -> float:
        """Return the share of the embeddings in a hybrid score: `weight`, or its default."""
        return _SHARES[self.fusion] if self.weight is None else self.weight

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_choice(self, name: str, choices: Sequence[str | None]) -> None:
        value = getattr(self, name)
        is_word = value is None or isinstance(value, str)  # an array has no truth value
        if not is_word or value not in choices:
            *most, last = [repr(one) for one in sorted(choices, key=lambda one: one is None)]
            hint = f"It is {', '.join(most)} or {last}."
            raise InvalidQuery(f"{name} is {shown(value)}.", hint=hint)

    def _checked_weight(self) -> float | None:
        if self.weight is None:
            return None
        # In this form NaN is refused too.
        if not is_number(self.weight) or not 0 <= self.weight <= 1:
            raise InvalidQuery(
                f"weight is {shown(self.weight)}.",
                hint="It is the share of the embeddings in a hybrid score, from 0 to 1.",
            )
        if self.mode != "hybrid":
            raise InvalidQuery(
                f"weight is {shown(self.weight)}, but mode is {self.mode!r}.",
                hint="It is for mode 'hybrid'; leave it out.",
            )
        return float(self.weight)

    def _checked_min_score(self) -> float | None:
        given = self.min_score
        if given is None:
            return None
        if not is_number(given) or not math.isfinite(given):
            raise InvalidQuery(
                f"min_score is {shown(given)}.",
                hint="It is the lowest score of a hit: a number, or None.",
            )
        return float(given)

    def _checked_k(self) -> int:
        hint = "Ask for at least one hit: an integer from 1."
        k = whole(self.k, "k", least=1, error=InvalidQuery, hint=hint)
        most = MAX_K if self.rerank is None else MAX_CANDIDATES
        if k > most:
            raise LimitExceeded(
                f"k is {k:,}; the limit is {most:,}{'' if most == MAX_K else ' with rerank'}.",
                limit=most,
                value=k,
                option="k",
                hint="Ask for fewer hits.",
            )
        return k

    def _checked_candidates(self) -> int:
        hint = "It is the number of passages to rerank, an integer from 1."
        candidates = whole(self.candidates, "candidates", least=1, error=InvalidQuery, hint=hint)
        if candidates > MAX_CANDIDATES:
            raise LimitExceeded(
                f"candidates is {candidates:,}; the limit is {MAX_CANDIDATES:,}.",
                limit=MAX_CANDIDATES,
                value=candidates,
                option="candidates",
                hint="Rerank fewer; the first stage rarely ranks an answer so low.",
            )
        return candidates

    def _checked_timeout(self) -> float | None:
        given = self.timeout_s
        if given is None:
            return None
        # In this form NaN is refused too.
        if not is_number(given) or not given > 0:
            hint = "Pass a number of seconds above 0, or None."
            raise InvalidQuery(f"timeout_s is {shown(given)}.", hint=hint)
        return seconds(given, "timeout_s")

    def _checked_rerank(self) -> Any:
        """Return the reranker, None for False; whether it can be used shows when it is loaded."""
        given = self.rerank
        hint = "Pass the name or path of a cross-encoder, or an object with score(query, texts)."
        if is_flag(given):
            if not given:
                return None
            raise InvalidQuery("rerank is True, which names no reranker.", hint=hint)
        if isinstance(given, str | os.PathLike) and not os.fspath(given).strip():
            raise InvalidQuery(f"rerank is {os.fspath(given)!r}.", hint=hint)
        return given

"""Checks that an encoder or a reranker keeps the protocol of `retriever.encoders.protocol`.

`Index` checks what it is handed as well, but only what one call can show: shapes, numbers, offsets.
These checks make many calls and compare their answers, so they also find what would otherwise show
as poor results: rows in another order, a window that is smaller than it says, shared state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.encoders.canaries import CANARIES
from retriever.encoders.checked import CheckedEncoder
from retriever.encoders.plugged import PluggedEncoder, PluggedReranker, plug
from retriever.encoders.protocol import CountsTokens, Encoder, HasPrecision, Reranker, Tokens
from retriever.errors import ModelError, RetrieverError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

# The cosine similarity that an index asks for when it compares an encoder with itself.
MIN_COSINE = 0.999
# Texts of one window are built up to this size. Encoders with more are taken at their word.
_LARGEST_WINDOW = 10_000
_SAME = 1e-6
_THREAD_ROUNDS = 3
_QUERY = "How do I restart the pump after a power failure?"
_WORDS = ("water", "tide", "ledger", "clock", "harbour", "stone", "valve", "storm")
_LAST_WORD = "volcano"


def check_encoder(encoder: Encoder) -> None:
    """Check that an encoder keeps the protocol that `Index` relies on.

    It is called a few dozen times with about ten texts, one of them as long as its window.

    Checked are: the attributes and their types; that `identity`, `dimension` and `max_tokens` stay
    the same; token offsets, in characters, of whole texts, equal each time; shapes, finite numbers
    and no zero vectors, also for an empty list; that vectors differ between texts, are the same
    each time, in the order of the texts, independent of the other texts of the call, and the same
    when documents are encoded in one thread while queries are encoded and texts are tokenized in
    another; that a vector covers `max_tokens` tokens; and of the optional parts (`count_tokens`,
    `precision`, `in_float32`, `encode_exactly`) those that there are.

    Example:
        >>> from retriever.testing import HashEncoder, check_encoder
        >>> check_encoder(HashEncoder())

    Args:
        encoder: What would be passed as `model=`.

    Raises:
        InvalidConfig: It lacks an attribute, or one is of a wrong type; names it.
        ModelError: It raised, or an answer breaks the protocol; names the method, what it returned,
            and in the hint what it must return.
    """
    checked = plug(encoder)
    _EncoderCheck(checked, _who(encoder)).run()
    _require_stable_attributes(encoder, checked)


def check_reranker(reranker: Reranker) -> None:
    """Check that a reranker keeps the protocol that `search(rerank=…)` relies on.

    Checked are: that there is a finite number for each text, also for an empty list; that scores
    differ between texts, are the same each time, in the order of the texts, independent of the
    other texts of the call, and the same when two threads score at a time.

    Args:
        reranker: What would be passed as `rerank=`.

    Raises:
        InvalidQuery: It has no `score`.
        ModelError: It raised, or an answer breaks the protocol; see `check_encoder`.
    """
    _RerankerCheck(PluggedReranker(reranker), f"score of {type(reranker).__name__}").run()


class _EncoderCheck:
    def __init__(self, encoder: CheckedEncoder, who: str) -> None:
        self._encoder = encoder
        self._who = who

    def run(self) -> None:
        self._check_tokenizer()
        for role, encode in (
            ("encode_documents", self._encoder.encode_documents),
            ("encode_queries", self._encoder.encode_queries),
        ):
            who = f"{role} of {self._who}"
            _require_consistent(who, encode)
            _require_empty(who, self._raw(role), (0, self._encoder.dimension))
        self._check_window()
        self._check_threads()
        self._check_precision()

    def _raw(self, role: str) -> Callable[[Sequence[str]], Any]:
        """Return a method of the object that was handed in, its answers unchecked."""
        given = self._encoder.given if isinstance(self._encoder, PluggedEncoder) else self._encoder
        method: Callable[[Sequence[str]], Any] = getattr(given, role)
        return method

    def _tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        return self._encoder.tokenizer.tokenize(texts)

    def _check_tokenizer(self) -> None:
        who = f"tokenize of the tokenizer of {self._who}"
        found = self._tokenize(CANARIES)
        _require_same_tokens(who, "is called again", found, self._tokenize(CANARIES))
        backwards = self._tokenize(CANARIES[::-1])[::-1]
        _require_same_tokens(who, "gets the texts in another order", found, backwards)
        alone = [self._tokenize([text])[0] for text in CANARIES]
        _require_same_tokens(who, "gets one text alone (never pad)", found, alone)
        if self._tokenize([]) != []:
            raise ModelError(f"{who} returned tokens for no texts.", hint="Return [] for [].")
        long = " ".join(_WORDS * (2 * self._window() // len(_WORDS) + 1))
        tokens = self._tokenize([long])[0]
        if not len(tokens) or int(tokens.ends.max()) <= len(long) - len(_WORDS[-1]):
            reach = int(tokens.ends.max()) if len(tokens) else 0
            raise ModelError(
                f"{who} returned tokens of the first {reach:,} of {len(long):,} characters.",
                hint="Tokenize the whole text: switch truncation off, for chunks are cut from it.",
            )
        self._check_counts(found)

    def _check_counts(self, found: Sequence[Tokens]) -> None:
        tokenizer = self._encoder.tokenizer
        if isinstance(tokenizer, CountsTokens):
            counts, lengths = tokenizer.count_tokens(CANARIES), [len(tokens) for tokens in found]
            if counts != lengths:
                raise ModelError(
                    f"count_tokens of the tokenizer of {self._who} returned {counts} where "
                    f"tokenize found {lengths}.",
                    hint="Count what tokenize returns: without special tokens or truncation.",
                )

    def _window(self) -> int:
        return min(self._encoder.max_tokens, _LARGEST_WINDOW)

    def _check_window(self) -> None:
        """Change the last word that the window holds; the vector must show it."""
        if self._encoder.max_tokens > _LARGEST_WINDOW:
            return
        words = " ".join(_WORDS * (self._window() // len(_WORDS) + 2))
        tokens = self._tokenize([words])[0]
        # The whole words within the window; the last one makes room for another.
        kept = words[: int(tokens.ends[: self._window()].max())]
        if len(kept) < len(words) and not words[len(kept)].isspace():
            kept = kept.rpartition(" ")[0]
        if not kept:  # the first word alone is longer than the window
            return
        start = kept.rpartition(" ")[0]
        changed = f"{start} {_LAST_WORD}".strip()
        one, other = _unit(self._encoder.encode_documents([kept, changed]))
        if float(np.abs(one - other).max()) < _SAME:
            raise ModelError(
                f"encode_documents of {self._who} returned the same vector for two texts of "
                f"{self._window():,} tokens that differ in the last word.",
                hint=f"max_tokens is {self._encoder.max_tokens:,}, but less is read: set it to the "
                "window of the model less its special tokens and the document prompt, and switch "
                "shorter truncation off.",
            )

    def _check_threads(self) -> None:
        """Encode documents in a thread, as adding to an index does, and all else meanwhile."""
        # Another order, so that what one call leaves behind for the other shows.
        texts = CANARIES[::-1]
        documents = self._encoder.encode_documents(CANARIES)
        queries, tokens = self._encoder.encode_queries(texts), self._tokenize(texts)
        with ThreadPoolExecutor(1) as thread:
            for _ in range(_THREAD_ROUNDS):
                future = thread.submit(self._encoder.encode_documents, CANARIES)
                queries_now = self._encoder.encode_queries(texts)
                tokens_now = self._tokenize(texts)
                when = "documents are encoded in another thread meanwhile"
                _require_same(f"encode_queries of {self._who}", when, queries, queries_now)
                who = f"tokenize of the tokenizer of {self._who}"
                _require_same_tokens(who, when, tokens, tokens_now)
                when = "queries are encoded in another thread meanwhile"
                who = f"encode_documents of {self._who}"
                _require_same(who, when, documents, future.result())

    def _check_precision(self) -> None:
        given = self._encoder.given if isinstance(self._encoder, PluggedEncoder) else self._encoder
        if not isinstance(given, HasPrecision):
            return
        exact = self._encoder.encode_exactly(CANARIES)
        other = self._encoder.in_float32()
        if other.dimension != self._encoder.dimension:
            raise ModelError(
                f"in_float32 of {self._who} has the dimension {other.dimension}.",
                hint=f"It is the same encoder in float32: {self._encoder.dimension}.",
            )
        who = f"encode_exactly of {self._who}"
        _require_same(
            who, "in_float32() encodes the texts", other.encode_documents(CANARIES), exact
        )


class _RerankerCheck:
    def __init__(self, reranker: PluggedReranker, who: str) -> None:
        self._reranker = reranker
        self._who = who

    def run(self) -> None:
        score = self._score
        found = score(CANARIES)
        if float(np.ptp(found)) == 0:
            raise ModelError(
                f"{self._who} returned {found[0]:g} for every text.",
                hint="Return how well each text answers the query.",
            )
        self._require_same("is called again", found, score(CANARIES))
        self._require_same("gets the texts in another order", found, score(CANARIES[::-1])[::-1])
        alone = np.concatenate([score([text]) for text in CANARIES])
        self._require_same("gets one text alone", found, alone)
        _require_empty(self._who, score, (0,))
        with ThreadPoolExecutor(1) as thread:
            for _ in range(_THREAD_ROUNDS):
                future = thread.submit(score, CANARIES[::-1])
                self._require_same("another thread scores meanwhile", found, score(CANARIES))
                future.result()

    def _score(self, texts: Sequence[str]) -> Floats:
        return self._reranker.score(_QUERY, texts)

    def _require_same(self, when: str, before: Floats, now: Floats) -> None:
        # Half precision has three digits; what is wrong here is wrong by far more.
        scale = max(1.0, float(np.abs(before).max()))
        apart = np.abs(before - now) / scale
        worst = int(np.argmax(apart))
        if apart[worst] > 1 - MIN_COSINE:
            raise ModelError(
                f"{self._who} returned {now[worst]:g} for {_shown(worst)} {_when(when)}; before it "
                f"was {before[worst]:g}.",
                hint=_mend(when),
            )


def _who(encoder: Any) -> str:
    return f"the encoder {type(encoder).__name__}"


def _require_stable_attributes(encoder: Any, before: CheckedEncoder) -> None:
    """Refuse an encoder whose attributes changed while it was used."""
    # Wrapped again, because a `PluggedEncoder` reads the attributes once and keeps them.
    after = plug(encoder)
    for name in ("identity", "dimension", "max_tokens"):
        was, now = getattr(before, name), getattr(after, name)
        if was != now:
            raise ModelError(
                f"{name} of {_who(encoder)} was {was!r} and is {now!r} after encoding.",
                hint="It must not change: an index is opened again only with an equal identity. "
                "Leave out times, counters and ids of objects.",
            )


def _require_empty(
    who: str, call: Callable[[Sequence[str]], Any], expected: tuple[int, ...]
) -> None:
    try:
        shape = np.asarray(call([])).shape
    except RetrieverError:
        raise
    except Exception as exc:
        raise ModelError(
            f"{who} failed for an empty list: {type(exc).__name__}: {exc}.",
            hint=f"Return an empty array of shape {expected} or an empty list.",
        ) from exc
    if shape not in ((0,), expected):
        raise ModelError(
            f"{who} returned an array of shape {shape} for an empty list.",
            hint=f"Return an empty array of shape {expected} or an empty list.",
        )


def _require_consistent(who: str, encode: Callable[[Sequence[str]], Floats]) -> None:
    """Require vectors that depend on nothing but their own text."""
    found = encode(CANARIES)
    unit = _unit(found)
    if float(np.abs(unit - unit[0]).max()) < _SAME:
        raise ModelError(
            f"{who} returned the same vector for every text.",
            hint="Return a vector that depends on the text.",
        )
    _require_same(who, "is called again", found, encode(CANARIES))
    backwards = encode(CANARIES[::-1])[::-1]
    _require_same(who, "gets the texts in another order", found, backwards)
    alone = np.concatenate([encode([text]) for text in CANARIES])
    _require_same(who, "gets one text alone", found, alone)


def _unit(vectors: Floats) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True))


def _require_same(who: str, when: str, before: Floats, now: Floats) -> None:
    cosines = np.einsum("ij,ij->i", _unit(before), _unit(now))
    worst = int(np.argmin(cosines))
    if cosines[worst] < MIN_COSINE:
        raise ModelError(
            f"{who} returned another vector for {_shown(worst)} {_when(when)}: their cosine "
            f"similarity is {cosines[worst]:.4f}, under {MIN_COSINE}.",
            hint=_mend(when),
        )


def _require_same_tokens(
    who: str, when: str, before: Sequence[Tokens], now: Sequence[Tokens]
) -> None:
    for position, (one, other) in enumerate(zip(before, now, strict=True)):
        parts = ("starts", "ends", "unknown")
        if not all(np.array_equal(getattr(one, part), getattr(other, part)) for part in parts):
            raise ModelError(
                f"{who} returned other tokens for {_shown(position)} {_when(when)}: "
                f"{len(other)} instead of {len(one)}.",
                hint=_mend(when),
            )


def _when(when: str) -> str:
    return f"when it {when}" if when.startswith(("is ", "gets ")) else f"when {when}"


def _mend(when: str) -> str:
    """Return what to look for where two answers differ."""
    if "thread" in when:
        return (
            "Keep no state between calls, or guard it with a lock: documents are encoded in one "
            "thread while queries are encoded and texts are tokenized in others."
        )
    if "order" in when:
        return "Return the answers in the order of the texts: undo any sorting by length."
    if "alone" in when:
        return (
            "Let no text depend on the others of its call: mask padding, and switch dropout and "
            "batch statistics off."
        )
    if "float32" in when:
        return "encode_exactly and in_float32().encode_documents must agree: both are in float32."
    return "Be deterministic: switch dropout off, and seed or remove what is random."


def _shown(position: int) -> str:
    text = CANARIES[position]
    return repr(text if len(text) <= 40 else text[:39] + "…")

"""Encoders and rerankers of callers: checked when they are passed in, and at every call.

What one of them raises, or returns against what `protocol.py` says, becomes a `ModelError` that
names the method and the class. No other module calls an object that a caller passed in.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from retriever.arguments import described, shown, whole
from retriever.encoders import answers
from retriever.encoders.checked import CheckedEncoder
from retriever.encoders.protocol import (
    CountsTokens,
    Encoder,
    HasCacheKey,
    HasName,
    HasPrecision,
    Reranker,
    Tokenizer,
    Tokens,
)
from retriever.errors import InvalidConfig, InvalidQuery, ModelError, RetrieverError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

ATTRIBUTES = (
    "identity",
    "dimension",
    "max_tokens",
    "tokenizer",
    "encode_documents",
    "encode_queries",
)
_METHODS = ("encode_documents", "encode_queries")
_INT64 = 1 << 63
_WHAT_A_MODEL_IS = (
    "Pass a model's name, its directory, a SentenceTransformer, or an object with "
    f"{', '.join(ATTRIBUTES[:-1])} and {ATTRIBUTES[-1]} (retriever.Encoder)."
)
_T = TypeVar("_T")


def plug(given: Any) -> CheckedEncoder:
    """Return an object that a caller passed as `model=`, checked and with its answers checked.

    Raises:
        InvalidConfig: It is not an encoder; says what it lacks.
        ModelError: An attribute of it cannot be read.
    """
    if isinstance(given, CheckedEncoder):
        return given
    if _is_loaded(given, "SentenceTransformer"):
        from retriever.encoders.loaded_models import LoadedSentenceTransformer

        given = _called("The SentenceTransformer", lambda: LoadedSentenceTransformer(given))
    return PluggedEncoder(given)


class PluggedEncoder(CheckedEncoder):
    """An encoder that a caller passed in.

    Args:
        given: The object.

    Raises:
        InvalidConfig, ModelError: As `plug`.
    """

    def __init__(self, given: Encoder) -> None:
        """Check what can be checked without encoding."""
        _require_attributes(given)
        self.given = given
        kind = type(given).__name__
        self._who = f"the encoder {kind}"
        self._identity = answers.identity(self._attribute("identity"), f"identity of {self._who}")
        self._dimension, self._max_tokens = (
            whole(
                self._attribute(name),
                f"{name} of {self._who}",
                least=1,
                most=_INT64 - 1,
                hint="It must be an integer from 1.",
            )
            for name in ("dimension", "max_tokens")
        )
        self._has_precision = _called(self._who, lambda: isinstance(given, HasPrecision))
        self._has_cache_key = _called(self._who, lambda: isinstance(given, HasCacheKey))
        self._tokenizer: PluggedTokenizer | None = None
        if not _is_computed(given, "tokenizer"):  # to compute one may load a model
            _ = self.tokenizer
        name = self._identity.get("name")
        if name:
            self._who = f"the encoder {name!r} ({kind})"

    @property
    def identity(self) -> dict[str, Any]:
        """Return the identity as it is stored: plain JSON."""
        return self._identity

    @property
    def dimension(self) -> int:
        """Return the length of a vector."""
        return self._dimension

    @property
    def max_tokens(self) -> int:
        """Return how many tokens of a document's text one vector covers."""
        return self._max_tokens

    @property
    def tokenizer(self) -> PluggedTokenizer:
        """Return the tokenizer, its answers checked."""
        if self._tokenizer is None:
            who = f"tokenizer of {self._who}"
            given = _called(who, lambda: self.given.tokenizer)
            if isinstance(given, type) or not isinstance(given, Tokenizer):
                raise InvalidConfig(
                    f"The {who} is {shown(given)}, which has no tokenize().",
                    hint="It must be an object whose tokenize(texts) returns a list of "
                    "retriever.Tokens, one for each text.",
                )
            self._tokenizer = PluggedTokenizer(given, who)
        return self._tokenizer

    @property
    def precision(self) -> str | None:
        """Return the precision that it computes in, if it says."""
        return str(self._attribute("precision")) if self._has_precision else None

    @property
    def is_automatic(self) -> bool:
        """Return whether float32 may take the place of its precision."""
        return self._has_precision and bool(self._attribute("is_automatic"))

    @property
    def cache_key(self) -> str | None:
        """Return its cache key, if it has one."""
        key = self._attribute("cache_key") if self._has_cache_key else None
        return key if isinstance(key, str) else None

    def in_float32(self) -> CheckedEncoder:
        """Return the same encoder in float32, if it offers that."""
        if not self._has_precision:
            return self
        return plug(_called(f"in_float32 of {self._who}", self._attribute("in_float32")))

    def _attribute(self, name: str) -> Any:
        """Return an attribute that `protocol.py` names."""
        return _called(f"{name} of {self._who}", lambda: getattr(self.given, name))

    def encode_documents(self, texts: Sequence[str]) -> Floats:
        """Return the embeddings of documents.

        Raises:
            ModelError: It fails, or returns anything but a finite row for each text, none zero.
        """
        return self._vectors("encode_documents", self.given.encode_documents, texts)

    def encode_queries(self, texts: Sequence[str]) -> Floats:
        """Return the embeddings of queries.

        Raises:
            ModelError: As `encode_documents`.
        """
        return self._vectors("encode_queries", self.given.encode_queries, texts)

    def encode_exactly(self, texts: Sequence[str]) -> Floats:
        """Return the embeddings of documents in float32, if it also computes in less.

        Raises:
            ModelError: As `encode_documents`.
        """
        if not self._has_precision:
            return self.encode_documents(texts)
        return self._vectors("encode_exactly", self._attribute("encode_exactly"), texts)

    def _vectors(
        self, method: str, encode: Callable[[Sequence[str]], Any], texts: Sequence[str]
    ) -> Floats:
        who = f"{method} of {self._who}"
        answer = _called(who, lambda: encode(list(texts)))
        return answers.vectors(answer, who, len(texts), self._dimension)


class PluggedTokenizer:
    """The tokenizer of a caller's encoder."""

    def __init__(self, given: Any, who: str) -> None:
        """Take a tokenizer; `who` names it in errors."""
        self._given = given
        self._who = who

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of each text.

        Raises:
            ModelError: It fails, or returns anything but tokens within each text.
        """
        who = f"tokenize of the {self._who}"
        return answers.tokens(_called(who, lambda: self._given.tokenize(list(texts))), who, texts)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text.

        Raises:
            ModelError: As `tokenize`.
        """
        given = self._given
        if not isinstance(given, CountsTokens):
            return [len(one) for one in self.tokenize(texts)]
        who = f"count_tokens of the {self._who}"
        return answers.counts(
            _called(who, lambda: given.count_tokens(list(texts))), who, len(texts)
        )


class PluggedReranker:
    """A reranker that a caller passed in.

    Args:
        given: The object.
        name: Its name, for people; None for its own, or its class.

    Raises:
        InvalidQuery: It has no `score`.
    """

    def __init__(self, given: Any, name: str | None = None) -> None:
        """Take a reranker."""
        if _is_loaded(given, "CrossEncoder"):
            from retriever.encoders.loaded_models import LoadedCrossEncoder

            given = _called("The CrossEncoder", lambda: LoadedCrossEncoder(given))
        kind = type(given).__name__
        # isinstance may run the object's own code: a property, a __getattr__.
        who = f"score of the reranker {kind}"
        if isinstance(given, type) or not _called(who, lambda: isinstance(given, Reranker)):
            raise InvalidQuery(
                f"rerank is {shown(given)}.",
                hint="Pass the name or path of a cross-encoder, or an object with "
                "score(query, texts).",
            )
        own = name
        if name is None:
            who = f"name of the reranker {kind}"
            own = _called(who, lambda: given.name if isinstance(given, HasName) else None)
        self.name = own if isinstance(own, str) and own else kind
        self._given = given
        self._who = f"score of the reranker {self.name!r}" + (
            "" if self.name == kind else f" ({kind})"
        )

    def score(self, query: str, texts: Sequence[str]) -> Floats:
        """Return the score of each text, float32 `(n,)`.

        Raises:
            ModelError: It fails, or returns anything but a finite number for each text.
        """
        answer = _called(self._who, lambda: self._given.score(query, list(texts)))
        return answers.scores(answer, self._who, len(texts))


def _is_loaded(given: object, kind: str) -> bool:
    """Return whether an object is of a class of sentence-transformers, without importing it."""
    library = sys.modules.get("sentence_transformers")
    found = getattr(library, kind, None)
    return isinstance(found, type) and isinstance(given, found)


def _called(who: str, call: Callable[[], _T]) -> _T:
    """Return what a call of a caller's code returns; what it raises becomes a ModelError."""
    try:
        return call()
    except RetrieverError:
        raise  # it is in our terms already
    except Exception as exc:
        said = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
        raise ModelError(
            f"{who} failed: {said.rstrip('.')}.",
            hint="Correct it; or try again if it calls a service that could not be reached.",
        ) from exc


def _require_attributes(given: Any) -> None:
    what = f"model is {described(given)}"
    if isinstance(given, type):
        raise InvalidConfig(
            f"model is the class {given.__name__}, not an encoder.",
            hint=f"Pass an object of it: {given.__name__}(…).",
        )
    missing = [name for name in ATTRIBUTES if not _has(given, name)]
    if len(missing) == len(ATTRIBUTES):
        raise InvalidConfig(f"{what}, which is no encoder.", hint=_WHAT_A_MODEL_IS)
    if missing:
        raise InvalidConfig(f"{what}, which has no {', '.join(missing)}.", hint=_WHAT_A_MODEL_IS)
    for name in _METHODS:
        if not callable(getattr(given, name)):
            raise InvalidConfig(
                f"{what}, whose {name} cannot be called.",
                hint="It is a method that takes texts and returns a vector for each.",
            )


def _has(given: Any, name: str) -> bool:
    """Return whether an object has an attribute, without computing it if it can be avoided."""
    missing = object()
    if inspect.getattr_static(given, name, missing) is not missing:
        return True
    return bool(
        _called(f"{name} of the encoder {type(given).__name__}", lambda: hasattr(given, name))
    )


def _is_computed(given: Any, name: str) -> bool:
    """Return whether an attribute is a property or the like, which may take long to compute."""
    return hasattr(type(inspect.getattr_static(given, name, None)), "__get__")

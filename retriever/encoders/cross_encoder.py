"""Pairs of a query and a text to scores: the second stage, which reads both at once.

Owns what a caller is promised of a score. The logits are computed by `forward/cross_encoder.py` if
they are those of the reference, else by `cross_reference.py`. Must not know where a model is found
or what the scores are for.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.encoders.acceptance import Policy, choose_engine
from retriever.encoders.checkpoint.cross_encoder import CrossDescription, resolve_cross_encoder
from retriever.encoders.computing import Computing
from retriever.encoders.forward.cross_encoder import PAIRS, FastCrossEncoder
from retriever.encoders.tokenization import check_text
from retriever.errors import InvalidDocument, InvalidQuery, ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retriever.encoders.cross_reference import CrossReference

    Array = NDArray[np.float32]

# No published cross-encoder can be compared in advance, so that one of a known family is accepted
# on the strength of this package's tests, which compare seeded weights of each family.
_POLICY = Policy(
    kind="rerankers",
    what="cross-encoder",
    results="scores",
    least=1 - 1e-5,
    without_reference=True,
    alternatives="one of the BERT, RoBERTa, DistilBERT or MPNet family",
)


class CrossEncoder:
    """A cross-encoder on this machine, in the layout of sentence-transformers' CrossEncoder.

    Constructing it loads nothing. The model is loaded at the first score, once, without touching
    the network. BERT-, RoBERTa-, DistilBERT- and MPNet-family models are computed by this package,
    all others by sentence-transformers. If sentence-transformers is installed, the first use of a
    model compares the two, and the outcome is remembered.

    Safe to use from several threads.

    `load_cross_encoder("ms-marco-MiniLM-L6-v2").score("reset the pump", ["Hold R.", "The tide."])`
    returns a float32 array of two scores.
    """

    def __init__(self, description: CrossDescription, computing: Computing | None = None) -> None:
        """Take a resolved model.

        Args:
            description: What `resolve_cross_encoder` returned.
            computing: Where and in which precision; None leaves all of it to this machine.
        """
        self.description = description
        self._computing = computing or Computing()
        self._lock = threading.Lock()
        self._chosen: FastCrossEncoder | CrossReference | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """Return what makes two models the same, a JSON object."""
        return self.description.identity

    @property
    def name(self) -> str:
        """Return what the model can be found by again."""
        return self.description.name

    def score(self, query: str, texts: Sequence[str]) -> Array:
        """Return how well each text answers a query; higher is better.

        Args:
            query: The question.
            texts: Any number, empty ones too. If a pair is longer than the window, the longer half
                is truncated first.

        Returns:
            float32 `(n,)`, in the order of `texts`; what `CrossEncoder.predict` of
            sentence-transformers gives, in `float32` to 1e-5.

        Raises:
            InvalidQuery: The query is not a string with a UTF-8 form.
            InvalidDocument: A text is not.
            MissingDependency: The model needs sentence-transformers, which is not installed.
            ModelError: The model cannot be loaded, or gives values that are not finite.
        """
        checked = _check(query, texts)
        if not checked:
            return np.empty(0, np.float32)
        logits = self._engine.logits(query, checked)
        if not np.isfinite(logits).all():
            raise ModelError(
                f"The model {self.name!r} gives values that are not finite.",
                hint="Its weights are damaged: copy or download the model again.",
            )
        return _sigmoid(logits) if self.description.activation == "sigmoid" else logits

    @property
    def _engine(self) -> FastCrossEncoder | CrossReference:
        with self._lock:
            if self._chosen is None:
                self._chosen = choose_engine(
                    _POLICY,
                    self.description,
                    self._computing,
                    lambda: FastCrossEncoder(self.description, self._computing),
                    self._reference,
                    _similarity,
                )
            return self._chosen

    def _reference(self, computing: Computing) -> CrossReference:
        from retriever.encoders.cross_reference import CrossReference

        return CrossReference(self.description, computing)


def load_cross_encoder(
    path_or_name: str | Path,
    computing: Computing | None = None,
    *,
    allow_download: bool = False,
) -> CrossEncoder:
    """Find a cross-encoder by name or path; the model itself is loaded at the first score.

    Args:
        path_or_name: A name such as `ms-marco-MiniLM-L6-v2`, which stands for
            `cross-encoder/ms-marco-MiniLM-L6-v2`, or the path of a model's directory.
        computing: As for `CrossEncoder`.
        allow_download: Whether to fetch a missing model from the Hugging Face hub.

    Raises:
        ModelError, MissingDependency: As `resolve_cross_encoder`.
    """
    description = resolve_cross_encoder(path_or_name, allow_download=allow_download)
    return CrossEncoder(description, computing)


def _similarity(fast: FastCrossEncoder, reference: CrossReference) -> float:
    """Return 1 less the largest difference between the logits of both sides on the probes."""
    return 1 - max(
        _furthest(fast.exact_logits(query, texts), reference.logits(query, texts))
        for query, texts in PAIRS
    )


def _furthest(found: Array, expected: Array) -> float:
    """Return the largest difference, relative for numbers over 1; infinity if one is not finite."""
    with np.errstate(invalid="ignore"):
        differences = np.abs(found - expected) / np.maximum(1, np.abs(expected))
    return float(np.max(np.where(np.isfinite(differences), differences, np.float32(np.inf))))


def _sigmoid(logits: Array) -> Array:
    # 1 / (1 + exp(-x)) would overflow for a very negative logit.
    scores: Array = np.exp(-np.logaddexp(np.float32(0), -logits))
    return scores


def _check(query: object, texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise InvalidDocument(
            "The texts to score are one string.", hint="Pass a sequence of strings."
        )
    try:
        check_text(query, "The query")
    except InvalidDocument as error:
        raise InvalidQuery(error.message, hint="Pass a string that has a UTF-8 form.") from error
    checked = list(texts)
    for position, text in enumerate(checked):
        check_text(text, f"Text {position}")
    return checked

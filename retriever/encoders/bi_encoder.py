"""Texts to embeddings: the package's own bi-encoder.

Owns what a caller is promised of an embedding: a float32 row of unit length for each text. The
vectors are computed by `forward/bi_encoder.py` if they are those of the reference, else by
`reference.py`. Must not know where a model is found or what the embeddings are for. torch is
imported only for a GPU or for the reference.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.encoders.acceptance import Policy, choose_engine, least_cosine
from retriever.encoders.checked import CheckedEncoder, Tokenized
from retriever.encoders.checkpoint.resolve import ModelDescription, resolve_model
from retriever.encoders.computing import AUTO, Computing
from retriever.encoders.environment import graphics, processor, version
from retriever.encoders.forward.bi_encoder import FastBiEncoder
from retriever.encoders.forward.transformer import fingerprint
from retriever.encoders.model_options import ModelOptions
from retriever.encoders.tokenization import HuggingFaceTokenizer, check_text
from retriever.errors import InvalidDocument, InvalidQuery, ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retriever.encoders.reference import Reference

_SHORT = 100  # characters: WordPiece makes one unknown token of a longer word
_PACKAGES = ("numpy", "tokenizers", "openvino", "torch", "transformers", "sentence-transformers")
_POLICY = Policy(
    kind="accepted",
    what="model",
    results="vectors",
    least=0.99999,
    without_reference=False,
    alternatives="all-MiniLM-L6-v2 or all-mpnet-base-v2",
)


class BiEncoder(CheckedEncoder):
    """A sentence-transformers model on this machine; an `Encoder`.

    Constructing it loads nothing. The model is loaded at the first encode, once, without touching
    the network. BERT-, RoBERTa-, DistilBERT- and MPNet-family models are computed by this package
    if that gives the vectors of sentence-transformers, which is compared once; all others are
    computed by sentence-transformers.
    Safe to use from several threads.

    >>> encoder = load_encoder("all-MiniLM-L6-v2")
    >>> encoder.encode_queries(["how do I reset the pump?"]).shape
    (1, 384)
    """

    def __init__(self, description: ModelDescription, computing: Computing | None = None) -> None:
        """Take a resolved model.

        Args:
            description: What `resolve_model` returned.
            computing: Where and in which precision; None leaves all of it to this machine.
        """
        self.description = description
        self._computing = computing or Computing()
        self._lock = threading.RLock()
        self._chosen: FastBiEncoder | Reference | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """Return what makes two models the same, a JSON object."""
        return self.description.identity

    @property
    def dimension(self) -> int:
        """Return the length of a vector."""
        return self.description.dimension

    @property
    def max_tokens(self) -> int:
        """Return how many tokens of a document's text one vector covers."""
        return self.description.max_tokens

    @cached_property
    def max_query_tokens(self) -> int:
        """Return how many tokens of a query's text one vector covers."""
        prompts = self.description.prompts
        if prompts["query"] == prompts["document"]:
            return self.max_tokens
        lengths = self.tokenizer.count_tokens([prompts["document"], prompts["query"]])
        return max(self.max_tokens + lengths[0] - lengths[1], 1)

    def reads_whole(self, question: str) -> bool:
        """Return whether a query is certain to fit the window and to have no unknown token.

        It saves a short query in ASCII from being tokenised twice.
        """
        return (
            # `knows_ascii` allows two tokens for each character; one is left to spare.
            len(question) <= min(_SHORT, (self.max_query_tokens - 1) // 2)
            and question.isascii()
            and self.tokenizer.knows_ascii
        )

    @cached_property
    def tokenizer(self) -> HuggingFaceTokenizer:
        """Return the tokenizer whose tokens `max_tokens` counts."""
        return self.description.load_tokenizer()

    @property
    def precision(self) -> str:
        """Return the precision that vectors are computed in; `auto` is resolved."""
        return (self._chosen or self._computing).precision

    @property
    def is_automatic(self) -> bool:
        """Return whether the precision was left to this machine."""
        return self._computing.wanted == AUTO

    def in_float32(self) -> BiEncoder:
        """Return this model's encoder in float32, exact to 1e-5."""
        return BiEncoder(self.description, self._computing.in_float32())

    @property
    def _device(self) -> str:
        """Return the device that vectors are, or are going to be, computed on."""
        if isinstance(self._chosen, FastBiEncoder) and self._chosen.is_on_cpu:
            return "cpu"
        return self._computing.gpu or "cpu"

    @property
    def cache_key(self) -> str:
        """Return a name for this model in this precision, these versions and on this processor.

        Where it is equal, so are the vectors up to rounding. Imports torch only for a GPU.
        """
        parts = [
            fingerprint(self.description.identity),
            *(f"{package} {version(package)}" for package in _PACKAGES),
            self._computing.wanted,
            self.precision,
            self._device,
            processor(),
            graphics(),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of documents.

        Args:
            texts: Any number; those beyond the window are truncated.

        Returns:
            float32 `(n, dimension)`, rows of unit length in the order of `texts`.

        Raises:
            InvalidDocument: A text is not a string with a UTF-8 form, or has no direction.
            MissingDependency: The model needs sentence-transformers, which is not installed.
            ModelError: The model cannot be loaded, or gives values that are not finite.
        """
        return self._encode(list(texts), "document")

    def encode_tokenized(self, texts: Sequence[Tokenized]) -> NDArray[np.float32]:
        """Return what `encode_documents` gives, without tokenising texts whose ids are known.

        The texts are tokenised nevertheless where a prompt goes before each, since a tokenizer may
        join the two, and where sentence-transformers computes the model.

        Raises:
            InvalidDocument, MissingDependency, ModelError: As `encode_documents`.
        """
        known = [one.ids for one in texts if one.ids is not None]
        has_prompt = bool(self.description.prompts["document"])
        if known and len(known) == len(texts) and not has_prompt:
            engine = self._engine
            if isinstance(engine, FastBiEncoder):
                return self._unit(engine.encode_token_ids(known))
        return self.encode_documents([one.text for one in texts])

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of queries.

        Args:
            texts: Any number; those beyond the window are truncated.

        Returns:
            float32 `(n, dimension)`, rows of unit length in the order of `texts`.

        Raises:
            InvalidQuery: A text is not a string with a UTF-8 form, or has no direction.
            MissingDependency: The model needs sentence-transformers, which is not installed.
            ModelError: The model cannot be loaded, or gives values that are not finite.
        """
        try:
            return self._encode(list(texts), "query")
        except InvalidDocument as error:
            raise InvalidQuery(error.message, hint=error.hint) from error

    def end_warm_up(self) -> None:
        """Compute all documents in the precision asked for; the first few may be in float32.

        Raises:
            MissingDependency, ModelError: As `encode_documents`.
        """
        if isinstance(engine := self._engine, FastBiEncoder):
            engine.end_warm_up()

    def encode_exactly(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of documents in float32, whatever the precision.

        They are what the reference gives (cosine over .99999), on any device; slower.

        Raises:
            InvalidDocument, MissingDependency, ModelError: As `encode_documents`.
        """
        return self._encode(list(texts), "document", exactly=True)

    def token_vectors(
        self, texts: Sequence[str], *, as_queries: bool = False
    ) -> list[NDArray[np.float32]]:
        """Return the transformer's vectors of each text's tokens, special tokens included.

        Args:
            texts: Any number; those beyond the window are truncated.
            as_queries: Whether to use the prompt of queries, not of documents.

        Returns:
            For each text a float32 array `(tokens, hidden)`, not of unit length.

        Raises:
            InvalidDocument, MissingDependency, ModelError: As `encode_documents`.
        """
        whole = list(texts)
        for position, text in enumerate(whole):
            check_text(text, f"Text {position}")
        if not whole:
            return []
        return self._engine.token_vectors(whole, "query" if as_queries else "document")

    def _encode(self, texts: list[str], role: str, *, exactly: bool = False) -> NDArray[np.float32]:
        for position, text in enumerate(texts):
            check_text(text, f"Text {position}")
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        engine = self._engine
        if exactly and isinstance(engine, FastBiEncoder):
            return self._unit(engine.encode_exactly(texts, role))
        return self._unit(engine.encode(texts, role))

    def _unit(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return rows of unit length, whether or not the model makes them so."""
        if not np.isfinite(vectors).all():
            raise ModelError(
                f"The model {self.description.name!r} gives values that are not finite.",
                hint="Its weights are damaged: copy or download the model again.",
            )
        lengths: NDArray[np.float32] = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not lengths.all():
            raise InvalidDocument(
                f"Text {int(np.argmin(lengths))} has no direction: its vector is zero.",
                hint="Leave it out: the model sees no token in it.",
            )
        return vectors / lengths

    @property
    def _engine(self) -> FastBiEncoder | Reference:
        with self._lock:
            if self._chosen is None:
                self._chosen = choose_engine(
                    _POLICY,
                    self.description,
                    self._computing,
                    lambda: FastBiEncoder(self.description, self.tokenizer, self._computing),
                    self._reference,
                    self._similarity,
                )
            return self._chosen

    def _reference(self, computing: Computing) -> Reference:
        from retriever.encoders.reference import Reference

        return Reference(self.description, self.tokenizer, computing)

    def _similarity(self, fast: FastBiEncoder, reference: Reference) -> float:
        """Return the lowest cosine similarity of the probes' vectors from both sides."""
        prompts, probes = self.description.prompts, fast.probes()
        # Without a difference in the prompt, queries get the vectors of documents.
        roles = ["document"]
        if prompts["query"] != prompts["document"]:
            roles.append("query")
        return min(
            least_cosine(fast.encode_exactly(probes, role), reference.encode(probes, role))
            for role in roles
        )


def load_encoder(
    model: str | Path,
    computing: Computing | None = None,
    *,
    allow_download: bool = False,
    options: ModelOptions | None = None,
) -> BiEncoder:
    """Find a model by name or path and return its encoder; the model itself is loaded later.

    Args:
        model: A name such as `all-MiniLM-L6-v2`, or the path of a model's directory.
        computing: As for `BiEncoder`.
        allow_download: Whether to fetch a missing model from the Hugging Face hub.
        options: As for `resolve_model`.

    Raises:
        InvalidConfig, ModelError, MissingDependency: As `resolve_model`.
    """
    description = resolve_model(model, allow_download=allow_download, options=options)
    return BiEncoder(description, computing)

"""Tell texts that an encoder cannot encode from an encoder that has stopped working.

A text that fails is left out and reported; an encoder that fails for every text ends the call. The
two are told apart by encoding a text that the encoder is known to have encoded when the index was
created. Nothing here takes time while no text fails.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from retriever.documents.chunking import Chunker
from retriever.documents.drafts import Chunked
from retriever.encoders.canaries import CANARIES
from retriever.encoders.checked import CheckedEncoder, Tokenized
from retriever.encoders.protocol import Tokenizer
from retriever.errors import (
    InvalidDocument,
    ModelError,
    ModelMismatch,
    ModelUnavailable,
    RetrieverError,
    UnsafeModelFile,
)
from retriever.types import Document, Ledger

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vectors: TypeAlias = NDArray[np.float32]

ENOUGH = 32
"""If this many texts have failed and none has succeeded, the encoder is at fault."""

_PROBE = CANARIES[0]
_OF_TEXTS = (ModelError, InvalidDocument)
_OF_THE_MODEL = (ModelMismatch, ModelUnavailable, UnsafeModelFile)
_log = logging.getLogger("retriever")


class Refusals:
    """Collects the texts and documents of one call that cannot be encoded, with the reasons."""

    def __init__(self) -> None:
        self._texts: dict[bytes, RetrieverError] = {}
        self._documents: dict[int, RetrieverError] = {}
        self._encoded = 0

    def encode(
        self, encoder: CheckedEncoder, names: Sequence[bytes], texts: Sequence[Tokenized]
    ) -> Vectors:
        """Return the embeddings of texts, with a row of zeros for each text that fails.

        Args:
            encoder: Called with all texts, and only if that fails with ever smaller halves.
            names: The hash of each text, which `reason` looks for.
            texts: The texts.

        Raises:
            ModelError: The encoder has stopped working, or `ENOUGH` texts have failed and none has
                succeeded.
        """
        try:
            return self._together(encoder, texts)
        # First, because these are subclasses of ModelError; they say nothing about a text.
        except _OF_THE_MODEL:
            raise
        except _OF_TEXTS as exc:
            _require_able(encoder, exc)
            return self._apart(encoder, names, texts, exc)

    def _together(self, encoder: CheckedEncoder, texts: Sequence[Tokenized]) -> Vectors:
        vectors = encoder.encode_tokenized(texts)
        self._encoded += len(texts)
        return vectors

    def _apart(
        self,
        encoder: CheckedEncoder,
        names: Sequence[bytes],
        texts: Sequence[Tokenized],
        error: RetrieverError,
    ) -> Vectors:
        """Encode texts by halves, so that a text that fails does not take the others with it."""
        if len(texts) == 1:
            self._texts[names[0]] = error
            if len(self._texts) >= ENOUGH and not self._encoded:
                raise error
            return np.zeros((1, encoder.dimension), np.float32)
        parts = []
        middle = len(texts) // 2
        for half in (slice(None, middle), slice(middle, None)):
            try:
                parts.append(self._together(encoder, texts[half]))
            except _OF_TEXTS as exc:
                if len(texts[half]) == 1:  # the encoder may have stopped working meanwhile
                    _require_able(encoder, exc)
                parts.append(self._apart(encoder, names[half], texts[half], exc))
        return np.concatenate(parts)

    def chunk(
        self, chunker: Chunker, tokenizer: Tokenizer, documents: Sequence[Document]
    ) -> list[Chunked]:
        """Return the chunks of documents, none for a document that cannot be tokenised.

        Raises:
            ModelError: The tokenizer has stopped working.
        """
        try:
            return chunker.chunk_with_ids(documents)
        except ModelError as exc:
            try:
                tokenizer.tokenize([_PROBE])
            except RetrieverError:
                raise exc from exc.__cause__
            if len(documents) > 1:
                middle = len(documents) // 2
                return [
                    *self.chunk(chunker, tokenizer, documents[:middle]),
                    *self.chunk(chunker, tokenizer, documents[middle:]),
                ]
            # By identity: the pipeline holds the document until `reason` is asked for it.
            self._documents[id(documents[0])] = exc
            return [Chunked((), Ledger())]

    def reason(self, document: Document, names: Iterable[bytes]) -> RetrieverError | None:
        """Return why a document is left out, or None if it is not; ask once for each document.

        Args:
            document: Which.
            names: The hashes of the texts that are encoded for it.
        """
        error = self._documents.pop(id(document), None) if self._documents else None
        if error is None and self._texts:
            error = next((self._texts[name] for name in names if name in self._texts), None)
        return error


def _require_able(encoder: CheckedEncoder, error: RetrieverError) -> None:
    """Raise an encoder's error if it now fails even for a text that it has encoded before."""
    try:
        encoder.encode_documents([_PROBE])
    except RetrieverError as exc:
        _log.debug("The encoder has stopped working: %s", exc)
        raise error from error.__cause__

"""New spaces, and what an index records of the encoder that their vectors are from."""

from __future__ import annotations

import json
from typing import Any

from retriever.config import VECTORS_ONLY, Chunking
from retriever.documents import rules
from retriever.encoders import canaries
from retriever.encoders.checked import CheckedEncoder
from retriever.encoders.checkpoint import resolve
from retriever.encoders.loading import EncoderSource, precision_of
from retriever.errors import InvalidConfig
from retriever.storage import catalog, records
from retriever.storage.records import Space, StoredChunking
from retriever.storage.vector_formats import DENSE
from retriever.storage.writer import Writer


def encoder_to_write(writer: Writer, space: Space, source: EncoderSource) -> CheckedEncoder:
    """Return the encoder of a space, after its precision was recorded.

    The precision, with the lowest cosine of the canaries, is recorded before any vector computed in
    it is stored: a failure in between leaves a record without vectors, never the reverse.

    Raises:
        ModelMismatch, ModelUnavailable: As `EncoderSource.encoder_for`.
    """
    encoder = source.encoder_for(space)
    name, cosine = precision_of(encoder), source.canary_cosine(space)
    recorded = catalog.precisions(writer.connection)
    mine = recorded.get(str(space.id), {})
    says = encoder.precision is not None
    # No cosine is 2: the first one of a precision is always recorded.
    if says and cosine is not None and cosine < mine.get(name, 2.0):
        known = {str(one.id) for one in catalog.spaces(writer.connection)}
        kept = {key: value for key, value in recorded.items() if key in known}
        kept[str(space.id)] = {**mine, name: cosine}
        with writer.transaction() as change:
            change.put_setting(records.PRECISIONS, json.dumps(kept))
    return encoder


def space_for_vectors(dimension: int, chunking: Chunking) -> Space:
    """Return a space for embeddings that come with documents; it has no id yet."""
    return Space(
        id=0,
        chunking=StoredChunking(0, "active", chunking, {VECTORS_ONLY: True}),
        format=DENSE,
        state="active",
        identity={"name": "no model", VECTORS_ONLY: True, "dimension": dimension},
        dimension=dimension,
        canaries=b"",
    )


def cutter_of(encoder: CheckedEncoder, chunking: Chunking) -> dict[str, Any]:
    """Return what chunks depend on besides the options: tokenizer, rules, window in tokens.

    The tokenizer of a caller's encoder is known only by the identity of that encoder.
    """
    identity = encoder.identity
    tokenizer = identity.get("tokenizer")
    window = min(chunking.tokens or encoder.max_tokens, encoder.max_tokens)
    if resolve.is_ours(identity) and isinstance(tokenizer, str):
        return {"tokenizer": tokenizer, "rules": rules.VERSION, "window": window}
    named = {field: value for field, value in identity.items() if field != "name"}
    return {"encoder": named, "rules": rules.VERSION, "window": window}


def new_space(encoder: CheckedEncoder, chunking: Chunking, state: str) -> Space:
    """Return a space for an encoder, its canaries encoded; it has no id yet.

    Raises:
        InvalidConfig: Its identity says that there is no encoder.
        ModelError: As the encoder.
    """
    if VECTORS_ONLY in encoder.identity:
        raise InvalidConfig(
            f"The identity of the encoder has {VECTORS_ONLY!r}, which marks an index that has "
            "none.",
            hint="Give the field another name.",
        )
    vectors = canaries.encode_canaries(encoder)
    return Space(
        id=0,
        chunking=StoredChunking(0, state, chunking, cutter_of(encoder, chunking)),
        format=DENSE,
        state=state,
        identity=dict(encoder.identity),
        dimension=encoder.dimension,
        canaries=vectors.astype("<f4").tobytes(),
    )

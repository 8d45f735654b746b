"""A few fixed texts whose embeddings show whether an encoder still computes what it did.

Owns the texts, and their comparison with the embeddings that were stored when an index was created.
`checkpoint/resolve.py` compares what the files of a model say; this compares what a model does. Any
`Encoder` can be checked.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from retriever.encoders.acceptance import compare_once, cosines
from retriever.encoders.checked import CheckedEncoder, name_of
from retriever.encoders.plugged import plug
from retriever.encoders.protocol import Encoder
from retriever.errors import ModelMismatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Every index stores the embeddings of exactly these: to change a text is to change the format.
CANARIES: tuple[str, ...] = (
    "pump",
    "How do I reset the pump after a power failure?",
    # Longer than the window of most models, so that its vector shows where it is truncated.
    "The harbour master keeps a ledger of every ship: its cargo, its captain, the hour of the tide "
    "and the weather. A clerk copies the pages each evening and sends them up the hill. " * 40,
    "Die Größe der Straße überraschte den Läufer; l'été à Zürich fut très doux, señor Muñoz.",
    "Москва зимой · 東京の夜景 · القاهرة · नमस्ते दुनिया · 서울의 봄 🚢🌊",
    "def area(radius: float) -> float:\n    return 3.14159 * radius**2  # m²\n",
    "2024-02-29 17:05:59 +49 30 901820 1,234,567.89 0x1F 42 % 7",
    "?!… -- ;; ((())) [] {} <> /\\ @#$%^&*",
)


def encode_canaries(encoder: Encoder) -> NDArray[np.float32]:
    """Return the embeddings of the canaries as documents in float32, `(n, dimension)`.

    Raises:
        ModelError: As the encoder.
    """
    return np.ascontiguousarray(plug(encoder).encode_exactly(CANARIES), np.float32)


def check_canaries(
    encoder: Encoder, stored: NDArray[np.float32], *, minimum: float = 0.999
) -> float:
    """Refuse an encoder whose embeddings of the canaries are not the stored ones.

    An encoder with a `cache_key` is checked once; that it passed is remembered in the user's
    cache. Others are checked at every call.

    Args:
        encoder: The encoder to check.
        stored: What `encode_canaries` returned when the index was created.
        minimum: The lowest cosine similarity that passes, for each text.

    Returns:
        The lowest cosine similarity of a text's two embeddings.

    Raises:
        ModelMismatch: With `field="canaries"`, naming the text that differs most; with
            `field="dimension"` where its vectors have another length.
        ModelError: As the encoder.
    """
    encoder = plug(encoder)
    check_dimension(encoder, stored.shape[1])

    def compare() -> float:
        encoder.end_warm_up()  # what is compared must be the precision that documents get
        similarities = _similarities(stored, encoder.encode_documents(CANARIES))
        worst = int(np.argmin(similarities))
        if similarities[worst] < minimum:
            raise _changed(encoder, CANARIES[worst], float(similarities[worst]), minimum)
        return float(similarities[worst])

    return compare_once(
        "canaries", lambda: _key(encoder, stored, minimum), minimum, compare
    ).similarity


def _changed(
    encoder: CheckedEncoder, text: str, similarity: float, minimum: float
) -> ModelMismatch:
    short = text if len(text) <= 60 else text[:59] + "…"
    return ModelMismatch(
        f"{name_of(encoder)!r} no longer gives the embeddings it gave when the index was created: "
        f"the cosine similarity for the text {short!r} is {similarity:.4f}, under {minimum}.",
        field="canaries",
        expected=minimum,
        actual=similarity,
        hint="Open it with the model and versions it was built with, or re-encode it: "
        "`retriever rebuild --model …`.",
    )


def check_dimension(encoder: CheckedEncoder, dimension: int) -> None:
    """Refuse an encoder whose vectors are not as long as an index's.

    Raises:
        ModelMismatch: With `field="dimension"`.
    """
    if encoder.dimension != dimension:
        raise ModelMismatch(
            f"This index holds vectors of {dimension} numbers; those of {name_of(encoder)!r} have "
            f"{encoder.dimension}.",
            field="dimension",
            expected=dimension,
            actual=encoder.dimension,
            hint="Open it with the model it was built with, or re-encode it: "
            "`retriever rebuild --model …`.",
        )


def _key(encoder: CheckedEncoder, stored: NDArray[np.float32], minimum: float) -> str | None:
    """Name what the outcome depends on; None for an encoder whose vectors may change unseen."""
    cache_key = encoder.cache_key
    if cache_key is None:
        return None
    digest = hashlib.sha256(np.ascontiguousarray(stored, np.float32).tobytes())
    digest.update(f"{cache_key} {stored.shape} {minimum}".encode())
    return digest.hexdigest()


def _similarities(stored: NDArray[np.float32], current: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine similarity of each pair of rows; -1 throughout if the shapes differ."""
    if stored.shape != current.shape:
        return np.full(len(CANARIES), -1.0)
    return cosines(stored, current)

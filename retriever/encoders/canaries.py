"""A few fixed texts whose embeddings tell whether an encoder still does what it did.

Owns the texts, and the check against embeddings stored when the index was created. What files say
of a model is compared in `models.py`; this compares what the model does. Must not know how an
encoder computes: any `Encoder` is checked.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from retriever.encoders.checked import CheckedEncoder, name_of
from retriever.encoders.plugged import plug
from retriever.encoders.protocol import Encoder
from retriever.encoders.user_cache import recall, remember
from retriever.errors import ModelMismatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Indexes store the embeddings of exactly these: a change to a text is a change of the format.
CANARIES: tuple[str, ...] = (
    "pump",
    "How do I reset the pump after a power failure?",
    # Longer than the window of most models: where it is cut off shows in the vector.
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
        encoder: The encoder at hand.
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
    key = _memory_key(encoder, stored, minimum)
    known = recall("canaries", key) if key is not None else None
    if isinstance(known, float):
        return known
    encoder.settle()  # what is vouched for is the precision that the bulk is computed in
    cosines = _cosines(stored, encoder.encode_documents(CANARIES))
    worst = int(np.argmin(cosines))
    if cosines[worst] < minimum:
        text = CANARIES[worst]
        shown = text if len(text) <= 60 else text[:59] + "…"
        raise ModelMismatch(
            f"{name_of(encoder)!r} no longer gives the embeddings it gave when the index was "
            f"created: the cosine similarity for the text {shown!r} is {cosines[worst]:.4f}, under "
            f"{minimum}.",
            field="canaries",
            expected=minimum,
            actual=float(cosines[worst]),
            hint="Open it with the model and versions it was built with, or re-encode it: "
            "`retriever rebuild --model …`.",
        )
    lowest = float(cosines[worst])
    # Another one, where the encoder turned out not to compute where or in what was planned.
    key = _memory_key(encoder, stored, minimum)
    if key is not None:
        remember("canaries", key, lowest)
    return lowest


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


def _memory_key(encoder: CheckedEncoder, stored: NDArray[np.float32], minimum: float) -> str | None:
    cache_key = encoder.cache_key
    if cache_key is None:
        return None
    digest = hashlib.sha256(np.ascontiguousarray(stored, np.float32).tobytes())
    digest.update(f"{cache_key} {stored.shape} {minimum}".encode())
    return digest.hexdigest()


def _cosines(stored: NDArray[np.float32], current: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the similarity of each pair of rows; -1 throughout where one side has fewer."""
    if stored.shape != current.shape:
        return np.full(len(CANARIES), -1.0)
    before, now = stored.astype(np.float64), current.astype(np.float64)
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(now, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines: NDArray[np.float64] = np.sum(before * now, axis=1) / lengths
    cosines[~np.isfinite(cosines)] = -1.0
    return cosines

"""Whether the fast path's vectors are the reference's: found out once for each model.

Owns the probe texts and the list of models that were compared when this version was made. Must not
know how either side computes.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from retriever.encoders.checkpoint.json_files import TOKENIZER
from retriever.encoders.checkpoint.resolve import ModelDescription
from retriever.encoders.forward.runtime import least_cosine
from retriever.encoders.forward.transformer import fingerprint
from retriever.encoders.user_cache import recall, remember
from retriever.encoders.versions import version

if TYPE_CHECKING:
    from numpy.typing import NDArray

_log = logging.getLogger("retriever")
_LEAST = 0.99999
# Compared with the reference by this package's own tests: weights to name.
_VERIFIED = {
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db": "all-MiniLM-L6-v2",
    "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658": "all-mpnet-base-v2",
}
# Short, long beyond any window, empty, in several scripts, and what tokenizers stumble over.
PROBES: tuple[str, ...] = (
    "pump",
    "How do I reset the pump after a power failure?",
    "The harbour master keeps a ledger of every ship: its cargo, its captain and the tide. " * 40,
    "",
    "Die Größe der Straße überraschte den Läufer; l'été à Zürich fut très doux.",
    "東京の夜景 · Москва зимой · القاهرة · नमस्ते दुनिया 🚢🌊",
    " x_1 = [0.5];\tif (a != b) { return -1; }  [MASK] <mask>\n",
)


class _Side(Protocol):
    def encode(self, texts: Sequence[str], role: str) -> NDArray[np.float32]: ...


class _Exact(Protocol):
    @property
    def description(self) -> ModelDescription: ...
    @property
    def precision(self) -> str: ...
    def probes(self) -> list[str]: ...
    def encode_exactly(self, texts: Sequence[str], role: str) -> NDArray[np.float32]: ...


def is_verified(description: ModelDescription) -> bool:
    """Return whether a model needs no comparison: one of our tests makes it."""
    return description.identity["weights"] in _VERIFIED and not description.identity["dense"]


def is_accepted(fast: _Exact, reference: Callable[[], _Side]) -> bool:
    """Return whether the fast path reproduces the reference on every probe, cosine over .99999.

    Args:
        fast: The fast path, compared in float32.
        reference: Loads the reference; called only where nothing is remembered.

    Raises:
        MissingDependency, ModelError: As the reference.
    """
    if is_verified(fast.description):
        return True
    key = _key(fast.description)
    cosine = recall("accepted", key)
    if not isinstance(cosine, float):
        _log.info(
            "First use of %s: its vectors are compared with sentence-transformers', once; this may "
            "take a minute or two.",
            fast.description.name,
        )
        side = reference()
        probes = fast.probes()
        cosine = min(
            least_cosine(fast.encode_exactly(probes, role), side.encode(probes, role))
            for role in _roles(fast.description)
        )
        remember("accepted", key, cosine)
        _log.info(
            "%s: the lowest cosine of %d texts is %.6f; %s.",
            fast.description.name,
            len(probes),
            cosine,
            f"the fast forward computes it, {fast.precision} for documents"
            if cosine > _LEAST
            else "sentence-transformers computes it",
        )
    if cosine <= _LEAST:
        _log.warning(
            "The fast forward of %s has a cosine of %.6f to sentence-transformers: that computes "
            "it instead, several times slower.",
            fast.description.name,
            cosine,
        )
    return cosine > _LEAST


def _roles(description: ModelDescription) -> list[str]:
    """Return whom to encode for: without a difference in the prompt, documents alone."""
    prompts = description.prompts
    return ["document"] if prompts["query"] == prompts["document"] else ["query", "document"]


def _key(description: ModelDescription) -> str:
    """Name the model and what the reference reads of it beside, which could contradict it."""
    digest = hashlib.sha256(fingerprint(description.identity).encode())
    for package in ("sentence-transformers", "transformers", "tokenizers", "torch", "numpy"):
        digest.update(version(package).encode())
    for file in sorted(description.transformer.glob("*.json")):
        if file.name != TOKENIZER:
            digest.update(file.read_bytes())
    return digest.hexdigest()

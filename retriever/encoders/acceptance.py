"""Whether computed numbers are those of their reference: compared once, remembered, accepted.

Every comparison of this package is made here: our fast path with sentence-transformers, a runtime
with NumPy, an encoder with the canaries of an index. It is made at the first use, its outcome is
kept in the user's cache, and it is accepted if the similarity reaches a threshold. Owns the probe
texts and the list of models that this package's own tests compare. Must not know how either side
computes, and so imports nothing of `forward/`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np

from retriever.encoders.checkpoint.architecture import UnsupportedModel
from retriever.encoders.checkpoint.json_files import TOKENIZER
from retriever.encoders.computing import Computing
from retriever.encoders.environment import has_reference, version
from retriever.encoders.user_cache import recall, remember
from retriever.errors import MissingDependency

if TYPE_CHECKING:
    from numpy.typing import NDArray

_log = logging.getLogger("retriever")
# Models whose fast path is compared with the reference by this package's tests, by their weights.
_VERIFIED = {
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db": "all-MiniLM-L6-v2",
    "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658": "all-mpnet-base-v2",
}
# A short text, a sentence, one longer than any window, an empty one, several scripts, and
# characters on which tokenizers disagree.
PROBES: tuple[str, ...] = (
    "pump",
    "How do I reset the pump after a power failure?",
    "The harbour master keeps a ledger of every ship: its cargo, its captain and the tide. " * 40,
    "",
    "Die Größe der Straße überraschte den Läufer; l'été à Zürich fut très doux.",
    "東京の夜景 · Москва зимой · القاهرة · नमस्ते दुनिया 🚢🌊",
    " x_1 = [0.5];\tif (a != b) { return -1; }  [MASK] <mask>\n",
)
# Any of these may change what the reference computes, and with it the outcome of a comparison.
_PACKAGES = ("sentence-transformers", "transformers", "tokenizers", "torch", "numpy")


# ---- one comparison


class Comparison(NamedTuple):
    """The outcome of comparing what is computed with its reference.

    Attributes:
        similarity: The lowest over all texts compared: a cosine similarity, or for scores 1 less
            their relative difference.
        least: The threshold that it is accepted by.
        is_new: Whether it was computed just now, rather than remembered.
    """

    similarity: float
    least: float
    is_new: bool

    @property
    def passes(self) -> bool:
        """Return whether the similarity reaches the threshold."""
        return self.similarity >= self.least


def compare_once(
    kind: str, key: Callable[[], str | None], least: float, compare: Callable[[], float]
) -> Comparison:
    """Return a comparison's outcome, from the user's cache if it was made before.

    Args:
        kind: What is compared; also names the file of the cache.
        key: Returns a name for all that the outcome depends on, or None if nothing may be
            remembered. It is called again after the comparison, because an encoder may find out
            only while it computes on which device and in which precision it does.
        least: The threshold.
        compare: Computes both sides and returns their lowest similarity. What it raises is not
            remembered.
    """
    known = None if (name := key()) is None else recall(kind, name)
    if isinstance(known, float):
        return Comparison(known, least, is_new=False)
    similarity = compare()
    if (name := key()) is not None:
        remember(kind, name, similarity)
    return Comparison(similarity, least, is_new=True)


def cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine similarity of each pair of rows, float64 `(n,)`; -1 if it is not finite."""
    left, right = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.float64] = np.sum(left * right, axis=1) / lengths
    return np.where(np.isfinite(found), found, -1.0)


def least_cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the lowest cosine similarity between rows of two arrays; -1 for one not finite."""
    return float(np.min(cosines(one, other), initial=1.0))


# ---- the fast path or the reference


class Described(Protocol):
    """The part of a model's description that its acceptance depends on."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def transformer(self) -> Path: ...  # noqa: D102
    @property
    def identity(self) -> Mapping[str, Any]: ...  # noqa: D102


class FastPath(Protocol):
    """What computes a model in this package."""

    @property
    def fingerprint(self) -> str:
        """Return a name for the weights and for this package's way of computing them."""
        ...

    @property
    def is_on_cpu(self) -> bool:
        """Return whether it computes on the CPU."""
        ...


FastT = TypeVar("FastT", bound=FastPath)
ReferenceT = TypeVar("ReferenceT")


@dataclass(frozen=True, slots=True)
class Policy:
    """When the fast path of a kind of model is accepted.

    Attributes:
        kind: The file of the cache that remembers the comparisons.
        what: What such a model is called in messages.
        results: And what it computes.
        least: The lowest similarity to the reference.
        without_reference: Whether a model of a known family is accepted without a comparison if
            sentence-transformers is not installed.
        alternatives: Which models need no sentence-transformers, for the hint.
    """

    kind: str
    what: str
    results: str
    least: float
    without_reference: bool
    alternatives: str


def is_verified(identity: Mapping[str, Any]) -> bool:
    """Return whether a model needs no comparison, because a test of this package makes it."""
    # The hash is of the transformer alone. A dense layer has weights of its own, and makes another
    # model of it.
    return identity["weights"] in _VERIFIED and not identity.get("dense")


def choose_engine(
    policy: Policy,
    description: Described,
    computing: Computing,
    fast: Callable[[], FastT],
    reference: Callable[[Computing], ReferenceT],
    compare: Callable[[FastT, ReferenceT], float],
) -> FastT | ReferenceT:
    """Return the fast path of a model if it reproduces the reference, else the reference.

    Args:
        policy: Of its kind.
        description: What its files say.
        computing: Where and in which precision it is computed.
        fast: Makes the fast path.
        reference: Makes the reference, which always computes in float32.
        compare: Returns the lowest similarity of the two on the probes, both in float32.

    Raises:
        MissingDependency: The reference is needed, and sentence-transformers is not installed.
        ModelError: As the fast path or the reference.
    """
    try:
        engine = fast()
    except UnsupportedModel as reason:
        _require_reference(policy, description, str(reason))
        _log.info(
            "%s is computed by sentence-transformers, several times slower: %s.",
            description.name,
            reason,
        )
        return _in_float32(description, computing, reference)
    if is_verified(description.identity):
        return engine
    if policy.without_reference and not has_reference():
        _log.warning(
            "%s was not compared with sentence-transformers: not installed.", description.name
        )
        return engine
    _require_reference(policy, description, "it is not on the list of models compared with it")
    # Both sides are computed on the CPU; what a GPU computes is compared with NumPy's.
    on_cpu = computing.on_cpu()
    if _reproduces(policy, description, engine, lambda: compare(engine, reference(on_cpu))):
        return engine
    return _in_float32(description, on_cpu if engine.is_on_cpu else computing, reference)


def _reproduces(
    policy: Policy, description: Described, fast: FastPath, compare: Callable[[], float]
) -> bool:
    """Return whether the fast path reproduces the reference on the probes."""
    name = description.name

    def announced() -> float:
        _log.info(
            "First use of %s: its %s are compared with sentence-transformers', once; this may take "
            "a minute or two.",
            name,
            policy.results,
        )
        return compare()

    found = compare_once(
        policy.kind, lambda: _key(description, fast.fingerprint), policy.least, announced
    )
    if found.is_new:
        _log.info(
            "%s: the lowest similarity of its probes to sentence-transformers' is %.6f; %s "
            "computes it.",
            name,
            found.similarity,
            "the fast forward" if found.passes else "sentence-transformers",
        )
    if not found.passes:
        _log.warning(
            "The fast forward of %s has a similarity of %.6f to sentence-transformers, under %s: "
            "that computes it instead, several times slower.",
            name,
            found.similarity,
            policy.least,
        )
    return found.passes


def _key(description: Described, fingerprint: str) -> str:
    """Name a model, and all that the reference reads of it and its fast path may not.

    transformers makes a tokenizer of more files than are read here, and they may contradict it.
    """
    digest = hashlib.sha256(fingerprint.encode())
    for package in _PACKAGES:
        digest.update(version(package).encode())
    for file in sorted(description.transformer.glob("*.json")):
        if file.name != TOKENIZER:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _require_reference(policy: Policy, description: Described, reason: str) -> None:
    if not has_reference():
        raise MissingDependency(
            f"The {policy.what} {description.name!r} needs sentence-transformers: {reason}.",
            extra="torch",
            hint=f'`pip install "retriever-engine[torch]"`, or choose {policy.alternatives}.',
        )


def _in_float32(
    description: Described, computing: Computing, reference: Callable[[Computing], ReferenceT]
) -> ReferenceT:
    """Return the reference, after a warning if another precision was named."""
    if computing.names_precision:
        _log.warning(
            "%s is computed by sentence-transformers in float32, not in %s.",
            description.name,
            computing.wanted,
        )
    return reference(computing)

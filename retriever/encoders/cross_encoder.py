"""Pairs of a query and a text to scores: the second stage, which reads both at once.

Owns the way from a pair to its score and the choice of who computes the transformer: a runtime of
ours where it reproduces the reference, else the reference, sentence-transformers itself. Must not
know where a model is found or what the scores are for.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.encoders.acceptance import PROBES
from retriever.encoders.checkpoint.architecture import UnsupportedModel, read_architecture
from retriever.encoders.checkpoint.cross_encoder import CrossDescription, resolve_cross_encoder
from retriever.encoders.checkpoint.json_files import read_config, read_tokenizer_config
from retriever.encoders.computing import Computing
from retriever.encoders.cross_reference import CrossReference
from retriever.encoders.forward.batching import Sequences
from retriever.encoders.forward.classification_head import read_head
from retriever.encoders.forward.numpy_runtime import NumpyRuntime
from retriever.encoders.forward.runtime import CpuRuntime, Runtime, choose_runtime
from retriever.encoders.forward.transformer import fingerprint, load_network
from retriever.encoders.pairs import PairTokenizer
from retriever.encoders.precision import AUTO
from retriever.encoders.reference import has_reference
from retriever.encoders.tokenization import check_text
from retriever.encoders.user_cache import recall, remember
from retriever.encoders.versions import version
from retriever.errors import InvalidDocument, InvalidQuery, MissingDependency, ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

_log = logging.getLogger("retriever")
# By how much a logit may differ from the reference's, of its own size where that is over 1.
_TOLERANCE = 1e-5
_PACKAGES = ("sentence-transformers", "transformers", "torch", "tokenizers", "numpy")
_MODES = ("cls",)  # for which the last layer computes next to nothing
# A question with every probe; and one longer than any window, with a short and a long text.
_PAIRS = ((PROBES[1], PROBES), (PROBES[2], (PROBES[0], PROBES[2])))


class CrossEncoder:
    """A cross-encoder on this machine, in the layout of sentence-transformers' CrossEncoder.

    Constructing it loads nothing. The model is loaded at the first score, once, without touching
    the network. BERT-, RoBERTa-, DistilBERT- and MPNet-family models are computed by this package;
    any other by sentence-transformers.

    Where sentence-transformers is installed, the first use of a model compares the two; the answer
    is remembered. Where it is not, a model of these families whose tensors are all there is
    computed without: no published cross-encoder can be compared in advance, so this rests on the
    package's tests, which compare seeded weights of each family.

    Safe to use from several threads.

    >>> encoder = load_cross_encoder("ms-marco-MiniLM-L6-v2")       # doctest: +SKIP
    >>> encoder.score("reset the pump", ["Hold R.", "The tide."])   # doctest: +SKIP
    array([ 4.1, -9.7], dtype=float32)
    """

    def __init__(
        self,
        description: CrossDescription,
        *,
        threads: int | None = None,
        precision: str = AUTO,
        device: str | None = None,
    ) -> None:
        """Take a resolved model.

        Args:
            description: What `resolve_cross_encoder` returned.
            threads: The most threads; None means `OMP_NUM_THREADS`, else all cores.
            precision: `auto` for the fastest that keeps the quality on this machine, or
                `float32`, `bfloat16`, `float16` (GPUs only) or `int8` (CPUs only).
            device: `cpu`, or a torch device; None means `cuda` where there is one, else `cpu`, and
                `cpu` for `int8`.

        Raises:
            InvalidConfig, MissingDependency: As `Computing`.
        """
        self.description = description
        self._computing = Computing(threads=threads, device=device, precision=precision)
        self._lock = threading.Lock()
        self._chosen: _FastPath | CrossReference | None = None

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
            texts: Any number, empty ones too. Of a pair beyond the window, the longer half is cut
                first.

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
    def _engine(self) -> _FastPath | CrossReference:
        with self._lock:
            if self._chosen is None:
                self._chosen = self._choose()
            return self._chosen

    def _choose(self) -> _FastPath | CrossReference:
        """Return the fast path unless it fails to reproduce the reference."""
        computing = self._computing
        try:
            fast = _FastPath(self.description, computing)
        except UnsupportedModel as reason:
            if not has_reference():
                raise MissingDependency(
                    f"The cross-encoder {self.name!r} needs sentence-transformers: {reason}.",
                    extra="torch",
                    hint='`pip install "retriever-engine[torch]"`, or choose one of the BERT, '
                    "RoBERTa, DistilBERT or MPNet family.",
                ) from reason
            _log.info("%s is computed by sentence-transformers, slower: %s.", self.name, reason)
            return self._reference(computing.gpu or "cpu")
        if has_reference():
            # Both sides of the comparison are computed on the CPU.
            if _agrees(fast, self._reference("cpu")):
                return fast
            return self._reference("cpu" if fast.is_on_cpu else computing.gpu or "cpu")
        _log.warning("%s was not compared with sentence-transformers: not installed.", self.name)
        return fast

    def _reference(self, device: str) -> CrossReference:
        return CrossReference(self.description, threads=self._computing.threads, device=device)


class _FastPath:
    """Computes a cross-encoder of a family that this package knows.

    Args:
        description: What `resolve_cross_encoder` returned.
        computing: Where and in which numbers.

    Raises:
        InvalidConfig, MissingDependency: As `devices.gpu`.
        UnsupportedModel: Only the reference can compute it; says why.
        ModelError: A tensor is missing, has another shape, or a file is damaged.
    """

    def __init__(self, description: CrossDescription, computing: Computing) -> None:
        """Map the weights; a GPU is given them, and tried on a few probes."""
        self.description = description
        folder = description.transformer
        if description.cuts != "right":
            raise UnsupportedModel(f"its tokenizer cuts a text from the {description.cuts}")
        architecture = read_architecture(read_config(folder))
        self._pairs = PairTokenizer(description.load_tokenizer(), description.window)
        self._with_types = architecture.types > 0 and description.marks
        if self._with_types and self._pairs.highest_type >= architecture.types:
            raise UnsupportedModel(
                f"its tokenizer marks more texts than its {architecture.types} token types"
            )
        network = load_network(architecture, folder, description.name)
        self._head = read_head(architecture, folder, description.name)
        self._numpy = NumpyRuntime(network, computing.threads)
        self._runtime = choose_runtime(
            network,
            self._numpy,
            computing=computing,
            key=fingerprint(description.identity),
            probes=lambda: self._sequences(*_PAIRS[0]),
            modes=_MODES,
        )

    @property
    def is_on_cpu(self) -> bool:
        """Return whether it computes on the CPU, as also where a GPU gave way to it."""
        return isinstance(self._runtime, CpuRuntime)

    def logits(self, query: str, texts: Sequence[str]) -> Array:
        """Return the network's output for each pair, float32 `(n,)`."""
        return self._through(self._runtime, query, texts)

    def exact_logits(self, query: str, texts: Sequence[str]) -> Array:
        """Return the network's output in float32, whatever the precision."""
        return self._through(self._numpy, query, texts)

    def _through(self, runtime: Runtime | NumpyRuntime, query: str, texts: Sequence[str]) -> Array:
        sequences = self._sequences(query, texts)
        return self._head.logits(runtime.pooled(sequences, _MODES))

    def _sequences(self, query: str, texts: Sequence[str]) -> Sequences:
        asked = self.description.prompt + query
        return self._pairs.sequences(asked, texts, with_types=self._with_types)


def load_cross_encoder(
    path_or_name: str | Path,
    *,
    allow_download: bool = False,
    threads: int | None = None,
    device: str | None = None,
    precision: str = AUTO,
) -> CrossEncoder:
    """Find a cross-encoder by name or path; the model itself is loaded at the first score.

    Args:
        path_or_name: A name such as `ms-marco-MiniLM-L6-v2`, which stands for
            `cross-encoder/ms-marco-MiniLM-L6-v2`, or the path of a model's directory.
        allow_download: Whether to fetch a missing model from the Hugging Face hub.
        threads: As `CrossEncoder`.
        device: As `CrossEncoder`.
        precision: As `CrossEncoder`.

    Raises:
        InvalidConfig, MissingDependency: As `Computing`.
        ModelError: As `resolve_cross_encoder`.
    """
    description = resolve_cross_encoder(path_or_name, allow_download=allow_download)
    return CrossEncoder(description, threads=threads, device=device, precision=precision)


def _agrees(fast: _FastPath, reference: CrossReference) -> bool:
    """Return whether the fast path gives the reference's logits on probes; remembered."""
    # transformers makes a tokenizer from more files than are understood here.
    settings = json.dumps(read_tokenizer_config(fast.description.transformer), sort_keys=True)
    packages = map(version, _PACKAGES)
    parts = [fingerprint(fast.description.identity), settings, *packages]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    furthest = recall("cross_encoders", key)
    if not isinstance(furthest, float):
        furthest = max(
            _furthest(fast.exact_logits(query, texts), reference.logits(query, texts))
            for query, texts in _PAIRS
        )
        remember("cross_encoders", key, furthest)
    if furthest > _TOLERANCE:
        _log.warning(
            "The fast forward of %s is off by %.6f from sentence-transformers: that computes it "
            "instead, slower.",
            fast.description.name,
            furthest,
        )
    return furthest <= _TOLERANCE


def _furthest(found: Array, expected: Array) -> float:
    with np.errstate(invalid="ignore"):
        differences = np.abs(found - expected) / np.maximum(1, np.abs(expected))
    return float(np.max(np.where(np.isfinite(differences), differences, np.float32(np.inf))))


def _sigmoid(logits: Array) -> Array:
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

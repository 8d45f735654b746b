"""Texts to embeddings with sentence-transformers: the reference every faster encoder is held to.

Owns torch, transformers and sentence-transformers, which are imported at the first encode and no
sooner: tokenizing and the window need none of them. Must not know where a model is found or what
the embeddings are for.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import platform
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.encoders.checkpoint import position_limit
from retriever.encoders.models import ModelDescription, resolve_model
from retriever.encoders.tokenization import HuggingFaceTokenizer, check_text
from retriever.encoders.user_cache import recall, remember
from retriever.errors import (
    InvalidConfig,
    InvalidDocument,
    InvalidQuery,
    MissingDependency,
    ModelError,
    ModelMismatch,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BATCH = 32  # texts; sentence-transformers' own default
_RUNTIME = ("torch", "transformers", "sentence-transformers")
# Not read when token embeddings are pooled, and often left out of checkpoints.
_UNUSED_TENSORS = ("pooler.",)
# Where the vocabulary file and the tokenizer that transformers rebuilds from it could disagree.
_PROBES = (
    "Reset the pump, then wait 30 seconds.",
    "Der Läufer größte ÉCLAIR  naïve",
    "東京タワー 🚀 x_1=[0.5];\tif(a!=b){return}",
)


class BiEncoder:
    """A sentence-transformers model on this machine; an `Encoder`.

    Constructing it loads nothing. The model is loaded at the first encode, once, without touching
    the network, and computes in float32. Safe to use from several threads; encoding takes turns.

    >>> encoder = load_encoder("all-MiniLM-L6-v2")                  # doctest: +SKIP
    >>> encoder.encode_queries(["how do I reset the pump?"]).shape  # doctest: +SKIP
    (1, 384)
    """

    def __init__(
        self,
        description: ModelDescription,
        *,
        threads: int | None = None,
        device: str | None = None,
    ) -> None:
        """Take a resolved model.

        Args:
            description: What `resolve_model` returned.
            threads: Threads torch may use, for the whole process; None leaves its own setting.
            device: A torch device; None means `cuda` where there is one, else `cpu`.
        """
        self.description = description
        self._threads = threads
        self._device = device
        self._lock = threading.RLock()
        self._model: Any = None

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
    def tokenizer(self) -> HuggingFaceTokenizer:
        """Return the tokenizer whose tokens `max_tokens` counts."""
        return self.description.load_tokenizer()

    @cached_property
    def cache_key(self) -> str:
        """Return a name for this model in this runtime on this processor, in float32.

        Where it is equal, so are the vectors; it is computed without importing torch.
        """
        parts = [
            json.dumps({**self.identity, "name": None}, sort_keys=True),
            *(f"{package} {_version(package)}" for package in _RUNTIME),
            "float32",
            self._device or "auto",
            _processor(),
            _graphics_driver(),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of documents.

        Args:
            texts: Any number; what lies beyond the window is cut off.

        Returns:
            float32 `(n, dimension)`, rows of unit length in the order of `texts`.

        Raises:
            InvalidDocument: A text is not a string with a UTF-8 form, or has no direction.
            MissingDependency: torch or sentence-transformers is not installed.
            ModelError: The model cannot be loaded, or gives values that are not finite.
        """
        return self._encode(list(texts), "encode_document")

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of queries.

        Args:
            texts: Any number; what lies beyond the window is cut off.

        Returns:
            float32 `(n, dimension)`, rows of unit length in the order of `texts`.

        Raises:
            InvalidQuery: A text is not a string with a UTF-8 form, or has no direction.
            MissingDependency: torch or sentence-transformers is not installed.
            ModelError: The model cannot be loaded, or gives values that are not finite.
        """
        try:
            return self._encode(list(texts), "encode_query")
        except InvalidDocument as error:
            raise InvalidQuery(error.message, hint=error.hint) from error

    def _encode(self, texts: list[str], method: str) -> NDArray[np.float32]:
        for position, text in enumerate(texts):
            check_text(text, f"Text {position}")
        vectors = np.empty((len(texts), self.dimension), np.float32)
        if not texts:
            return vectors
        # Texts of like length share a batch, so that little is spent on padding; longest first, so
        # that memory runs out at once if at all.
        order = np.argsort(-np.array(self.tokenizer.count_tokens(texts)), kind="stable")
        with self._lock:
            encode = getattr(self._loaded(), method)
            for start in range(0, len(texts), _BATCH):
                batch = order[start : start + _BATCH]
                vectors[batch] = encode(
                    [texts[position] for position in batch],
                    batch_size=_BATCH,
                    show_progress_bar=False,
                    convert_to_numpy=True,
                )
        return self._unit(vectors)

    def _unit(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scale rows to unit length in place, whether or not the model has done so."""
        if not np.isfinite(vectors).all():
            raise ModelError(
                f"The model {self.description.name!r} gives values that are not finite.",
                hint="Its weights are damaged: copy or download the model again.",
            )
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not lengths.all():
            raise InvalidDocument(
                f"Text {int(np.argmin(lengths))} has no direction: its vector is zero.",
                hint="Leave it out: the model sees no token in it.",
            )
        vectors /= lengths
        return vectors

    def _loaded(self) -> Any:
        if self._model is None:
            model = _load(self.description, self._device, self._threads)
            with _silenced():
                self._compare(model)
            # Read by preprocessing for the truncation; equal, or lower where positions run out.
            model.max_seq_length = self.description.window
            self._model = model
        return self._model

    def _compare(self, model: Any) -> None:
        """Refuse a loaded model that is not what its files were understood to say."""
        identity = self.identity
        found = _observed(model)
        for field, actual in found.items():
            if actual != identity[field]:
                raise _misread(self.description, field, identity[field], actual)
        for probe in _PROBES:
            expected = self.tokenizer.token_ids(probe)
            actual = model.tokenizer(probe, truncation=False)["input_ids"]
            if expected != list(actual):
                raise _misread(self.description, "tokenizer", expected, list(actual))


def load_encoder(
    model: str | Path,
    *,
    allow_download: bool = False,
    threads: int | None = None,
    device: str | None = None,
) -> BiEncoder:
    """Find a model by name or path and return its encoder; the model itself is loaded later.

    Args:
        model: A name such as `all-MiniLM-L6-v2`, or the path of a model's directory.
        allow_download: Whether to fetch a missing model from the Hugging Face hub.
        threads: Threads torch may use, for the whole process.
        device: A torch device; None means `cuda` where there is one, else `cpu`.

    Raises:
        ModelError: As `resolve_model`.
    """
    description = resolve_model(model, allow_download=allow_download)
    return BiEncoder(description, threads=threads, device=device)


def _load(description: ModelDescription, device: str | None, threads: int | None) -> Any:
    """Load a model into sentence-transformers, from its directory alone."""
    try:
        import torch
        from huggingface_hub.errors import StrictDataclassError
        from safetensors import SafetensorError
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingDependency(
            f"Encoding needs torch and sentence-transformers: {error}.",
            extra="torch",
            hint="`pip install sentence-transformers`.",
        ) from error
    if device is not None and device.startswith("cuda") and not torch.cuda.is_available():
        raise InvalidConfig(
            f"The device {device!r} was asked for, but torch {torch.__version__} sees no GPU.",
            hint="Leave the device out, or install a torch with CUDA and its driver.",
        )
    if threads is not None:
        torch.set_num_threads(threads)
    options = {"use_safetensors": True, "dtype": torch.float32}
    with _silenced():
        try:
            model = SentenceTransformer(
                str(description.path),
                device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs=dict(options),
            )
            _refuse_missing_tensors(description, model, options)
        except (
            SafetensorError,
            StrictDataclassError,
            OSError,
            ImportError,
            RuntimeError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
        ) as error:
            raise ModelError(
                f"sentence-transformers cannot load the model {description.name!r} from "
                f"{description.path}: {error}",
                hint="Copy or download the model again, or choose another.",
            ) from error
    return model.eval()


def _refuse_missing_tensors(description: ModelDescription, model: Any, options: Any) -> None:
    """Refuse weights that lack a tensor: transformers fills it with random numbers and goes on.

    Its report is only to be had by loading once more (.05 s for MiniLM), so that a complete model
    is remembered as such.
    """
    transformer = model[0].auto_model
    weights, version = description.identity["weights"], _version("transformers")
    key = f"{weights} {type(transformer).__name__} {version}"
    if recall("complete", key):
        return
    _, report = type(transformer).from_pretrained(
        str(description.transformer),
        config=transformer.config,
        local_files_only=True,
        output_loading_info=True,
        **options,
    )
    missing = sorted(
        name for name in report["missing_keys"] if not name.startswith(_UNUSED_TENSORS)
    )
    if missing:
        raise ModelError(
            f"The weights of {description.name!r} lack {len(missing)} tensors of its architecture, "
            f"{missing[0]!r} first.",
            hint="Copy or download the model again; its config.json and weights do not belong "
            "together.",
        )
    remember("complete", key, True)


def _observed(model: Any) -> dict[str, Any]:
    """Return the fields of the identity that a loaded model shows."""
    kinds = [type(module).__name__ for module in model]
    pooling = model[kinds.index("Pooling")]
    modes = pooling.pooling_mode
    modes = modes if isinstance(modes, str) else "+".join(modes)
    limits = (model.max_seq_length, position_limit(model[0].auto_model.config.to_dict()))
    return {
        "pooling": modes + ("" if pooling.include_prompt else ", without the prompt"),
        "normalize": "Normalize" in kinds,
        "prompts": {role: model.prompts[role] for role in ("query", "document")},
        "max_tokens": min(limit for limit in limits if limit is not None),
        "dimension": model.get_embedding_dimension(),
    }


def _misread(
    description: ModelDescription, field: str, expected: object, actual: object
) -> ModelMismatch:
    return ModelMismatch(
        f"The files of {description.name!r} say {expected!r} for its {field}, but "
        f"sentence-transformers makes it {actual!r}.",
        field=field,
        expected=expected,
        actual=actual,
        hint="Save the model again with `SentenceTransformer(path).save(new_path)`: its "
        "configuration files contradict each other.",
    )


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Keep transformers' progress bar and load report off the user's terminal, for a while."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    shows_progress = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if shows_progress:
            transformers_logging.enable_progress_bar()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _processor() -> str:
    """Return the processor's model: rounding differs between them."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _graphics_driver() -> str:
    """Return the NVIDIA driver's version line: with it comes and goes the device `auto` means."""
    with contextlib.suppress(OSError):
        return Path("/proc/driver/nvidia/version").read_text("utf-8", "replace").partition("\n")[0]
    return ""

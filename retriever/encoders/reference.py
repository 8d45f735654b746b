"""The reference: a model computed by sentence-transformers, which the fast path is compared with.

Owns the use of torch, transformers and sentence-transformers for it; they are imported at the first
encode. Any sentence-transformers model can be computed here. Must not know where a model is found
or what the embeddings are for.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from retriever import deadlines
from retriever.encoders.checkpoint.bi_encoder import position_limit
from retriever.encoders.checkpoint.resolve import ModelDescription
from retriever.encoders.computing import Computing
from retriever.encoders.environment import version
from retriever.encoders.model_options import ModelOptions
from retriever.encoders.tokenization import HuggingFaceTokenizer
from retriever.encoders.user_cache import recall, remember
from retriever.errors import MissingDependency, ModelError, ModelMismatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BATCH = 32  # texts; sentence-transformers' own default
# Not read when token embeddings are pooled, and often left out of checkpoints.
UNUSED_TENSORS = ("pooler.",)
# Texts on which our tokenizer and the one that transformers rebuilds may disagree.
_PROBES = (
    "Reset the pump, then wait 30 seconds.",
    "Der Läufer größte ÉCLAIR  naïve",
    "東京タワー 🚀 x_1=[0.5];\tif(a!=b){return}",
)


class Reference:
    """A model in sentence-transformers, float32; loaded at the first encode, once."""

    precision = "float32"

    def __init__(
        self,
        description: ModelDescription,
        tokenizer: HuggingFaceTokenizer,
        computing: Computing,
    ) -> None:
        """Take a resolved model.

        Args:
            description: What `resolve_model` returned.
            tokenizer: Its tokenizer.
            computing: The device, and the threads that torch may use; they are set for the whole
                process, and None leaves torch's own setting. Its precision is not used.
        """
        self.description = description
        self._tokenizer = tokenizer
        self._computing = computing
        self._lock = threading.RLock()
        self._model: Any = None

    def encode(self, texts: Sequence[str], role: str) -> NDArray[np.float32]:
        """Return the model's own vectors, float32 `(n, dimension)`, not scaled to unit length.

        Args:
            texts: Any number; those beyond the window are truncated.
            role: `query` or `document`, for the prompt.

        Raises:
            MissingDependency: torch or sentence-transformers is not installed.
            ModelError: The model cannot be loaded.
        """
        vectors = np.empty((len(texts), self.description.dimension), np.float32)
        # Texts of similar length share a batch, so that there is little padding. The longest come
        # first: if memory does not suffice, that shows at once.
        order = np.argsort(-np.array(self._tokenizer.count_tokens(texts)), kind="stable")
        with deadlines.holding(self._lock):
            encode = getattr(self._loaded(), f"encode_{role}")
            for start in range(0, len(texts), _BATCH):
                deadlines.check()
                batch = order[start : start + _BATCH]
                vectors[batch] = encode(
                    [texts[position] for position in batch],
                    batch_size=_BATCH,
                    show_progress_bar=False,
                    convert_to_numpy=True,
                )
        return vectors

    def token_vectors(self, texts: Sequence[str], role: str) -> list[NDArray[np.float32]]:
        """Return the vectors of each text's tokens, float32 `(tokens, hidden)`.

        Raises:
            MissingDependency, ModelError: As `encode`.
        """
        with self._lock:
            encode = getattr(self._loaded(), f"encode_{role}")
            found = encode(
                list(texts),
                batch_size=_BATCH,
                show_progress_bar=False,
                output_value="token_embeddings",
            )
        return [one.float().cpu().numpy() for one in found]

    def _loaded(self) -> Any:
        if self._model is None:
            model = load_model(self.description, self._computing)
            options = ModelOptions.recorded(self.description.identity)
            model.prompts.update(options.prompts)
            if options.dimensions is not None:
                model.truncate_dim = options.dimensions
            with _silenced():
                self._compare(model)
            # Texts are truncated to this. It is lower than the model's own where that exceeds the
            # positions it has.
            model.max_seq_length = self.description.window
            self._model = model
        return self._model

    def _compare(self, model: Any) -> None:
        """Refuse a loaded model that differs from what `checkpoint/` read of its files."""
        identity = self.description.identity
        found = observed(model)
        for field, actual in found.items():
            if actual != identity[field]:
                raise _misread(self.description, field, identity[field], actual)
        for probe in _PROBES:
            expected = self._tokenizer.token_ids(probe)
            actual = model.tokenizer(probe, truncation=False)["input_ids"]
            if expected != list(actual):
                raise _misread(self.description, "tokenizer", expected, list(actual))


class Described(Protocol):
    """The part of a model's description that it is loaded from."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def path(self) -> Path: ...  # noqa: D102
    @property
    def transformer(self) -> Path: ...  # noqa: D102
    @property
    def identity(self) -> Mapping[str, Any]: ...  # noqa: D102


def load_model(
    description: Described, computing: Computing, kind: str = "SentenceTransformer"
) -> Any:
    """Load a model into sentence-transformers, from its directory alone.

    Args:
        description: The model.
        computing: The device, and the threads that torch may use, for the whole process.
        kind: The class of sentence-transformers, `SentenceTransformer` or `CrossEncoder`.

    Raises:
        InvalidConfig: The device does not exist.
        MissingDependency: torch or sentence-transformers is not installed.
        ModelError: It cannot be loaded, or its weights lack a tensor.
    """
    try:
        import sentence_transformers
        import torch
    except ImportError as error:
        raise MissingDependency(
            f"Encoding needs torch and sentence-transformers: {error}.",
            extra="torch",
            hint='`pip install "retriever-engine[torch]"`.',
        ) from error
    device = computing.gpu or "cpu"
    if computing.threads is not None:
        torch.set_num_threads(computing.threads)
    options = {"use_safetensors": True, "dtype": torch.float32}
    with _silenced():
        try:
            model = getattr(sentence_transformers, kind)(
                str(description.path),
                device=device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs=dict(options),
            )
            _refuse_missing_tensors(description, model, options)
        except _load_errors() as error:
            raise ModelError(
                f"sentence-transformers cannot load the model {description.name!r} from "
                f"{description.path}: {error}",
                hint="Copy or download the model again, or choose another.",
            ) from error
    return model.eval()


def _load_errors() -> tuple[type[Exception], ...]:
    """Return what the libraries raise for a damaged model; they have no common class for it."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    return (
        *(SafetensorError, StrictDataclassError, OSError, ImportError, RuntimeError),
        *(ValueError, LookupError, TypeError, AttributeError),
    )


def _refuse_missing_tensors(description: Described, model: Any, options: Any) -> None:
    """Refuse weights that lack a tensor: transformers fills it with random numbers and goes on.

    It reports missing tensors only if the model is loaded once more (.05 s for MiniLM), so that it
    is remembered which models are complete.
    """
    transformer = model[0].auto_model
    weights = description.identity["weights"]
    key = f"{weights} {type(transformer).__name__} {version('transformers')}"
    if recall("complete", key):
        return
    _, report = type(transformer).from_pretrained(
        str(description.transformer),
        config=transformer.config,
        local_files_only=True,
        output_loading_info=True,
        **options,
    )
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(UNUSED_TENSORS))
    if missing:
        raise ModelError(
            f"The weights of {description.name!r} lack {len(missing)} tensors of its architecture, "
            f"{missing[0]!r} first.",
            hint="Copy or download the model again; its config.json and weights do not belong "
            "together.",
        )
    remember("complete", key, True)


def observed(model: Any) -> dict[str, Any]:
    """Return the fields of the identity that can be read from a loaded model."""
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
    """Keep transformers' progress bar and load report off the user's terminal inside the block."""
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

"""Models that a caller has loaded into sentence-transformers already, as an encoder or a reranker.

sentence-transformers and torch need not be imported here: the caller has. They compute the model,
on the device and in the precision that the caller chose.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.encoders.checkpoint.bi_encoder import position_limit
from retriever.encoders.checkpoint.resolve import ModelDescription, resolve_model
from retriever.encoders.checkpoint.tensors import Tensors
from retriever.encoders.forward.transformer import old_name
from retriever.encoders.reference import UNUSED_TENSORS, observed
from retriever.encoders.tokenization import HuggingFaceTokenizer
from retriever.errors import InvalidConfig, InvalidQuery, RetrieverError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BATCH = 32  # texts; sentence-transformers' own default
_WINDOW = 512  # of a model that names none


class LoadedSentenceTransformer:
    """A `SentenceTransformer` object; an `Encoder`.

    If it does what the files that it was loaded from say, its identity is theirs, and an index that
    was made with it also opens by the model's name or path. Otherwise the identity is made of
    hashes of what is in memory.

    Args:
        model: The object. It is not changed.

    Raises:
        InvalidConfig: Its tokenizer gives no offsets of tokens, or its prompt fills its window.
    """

    def __init__(self, model: Any) -> None:
        """Take a model."""
        self.model = model
        self._lock = threading.Lock()
        self._description = _description(model)
        self.tokenizer = _tokenizer(model, self._description)
        self.dimension = int(model.truncate_dim or model.get_embedding_dimension())
        self.max_tokens = self._max_tokens()

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Return what makes two models the same, a JSON object."""
        if self._description is not None:
            return self._description.identity
        model = self.model
        return {
            "name": _path(model) or type(model).__name__,
            "weights": _weights(model),
            "config": _hash([[type(part).__name__, _settings(part)] for part in model]),
            "tokenizer": self.tokenizer.digest,
            "prompts": {role: _prompt(model, role) for role in ("query", "document")},
            "max_tokens": model.max_seq_length,
            "dimension": self.dimension,
        }

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of documents, `(n, dimension)`."""
        return self._encode(self.model.encode_document, texts)

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of queries, `(n, dimension)`."""
        return self._encode(self.model.encode_query, texts)

    def _encode(self, encode: Any, texts: Sequence[str]) -> NDArray[np.float32]:
        with self._lock:
            vectors: NDArray[np.float32] = encode(
                list(texts), batch_size=_BATCH, show_progress_bar=False, convert_to_numpy=True
            )
        return vectors

    def _max_tokens(self) -> int:
        if self._description is not None:
            return self._description.max_tokens
        model = self.model
        window = model.max_seq_length or _position_limit(model) or _WINDOW
        prompt = self.tokenizer.count(_prompt(model, "document"))
        left = int(window) - self.tokenizer.count_special() - prompt
        if left < 1:
            raise InvalidConfig(
                f"The document prompt of {_path(model) or type(model).__name__!r} and its special "
                f"tokens fill its window of {window} tokens.",
                hint="Raise its max_seq_length, or shorten the prompt.",
            )
        return left


class LoadedCrossEncoder:
    """A `CrossEncoder` object; a `Reranker`.

    Raises:
        InvalidQuery: It gives several scores for a pair.
    """

    def __init__(self, model: Any) -> None:
        """Take a model."""
        if model.num_labels != 1:
            raise InvalidQuery(
                f"rerank is a CrossEncoder that gives {model.num_labels} scores for a pair; a "
                "reranker gives one.",
                hint="Choose a cross-encoder with one label (num_labels=1).",
            )
        self._model = model
        self._lock = threading.Lock()
        self.name = str(_path(model) or type(model).__name__)

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the score of each text, `(n,)`."""
        pairs = [(query, text) for text in texts]
        with self._lock:
            scores: NDArray[np.float32] = self._model.predict(
                pairs, batch_size=_BATCH, show_progress_bar=False, convert_to_numpy=True
            )
        return scores


def _path(model: Any) -> str:
    """Return the directory or name that a model's transformer was loaded from, if any."""
    config = getattr(_transformer(model), "config", None)
    return str(getattr(config, "_name_or_path", "") or "")


def _transformer(model: Any) -> Any:
    """Return the transformers model in a model's first module, or None."""
    return getattr(model[0], "auto_model", None)


def _description(model: Any) -> ModelDescription | None:
    """Return what the files of a model say, if they exist and the object does the same."""
    path = _path(model)
    if not path or model.truncate_dim is not None:
        return None
    try:
        description = resolve_model(path)
        does = observed(model)
    except (RetrieverError, AttributeError, LookupError, TypeError, ValueError):
        return None  # not a kind of model that this package reads
    says = description.identity
    same = all(says[field] == value for field, value in does.items())
    return description if same and _has_weights_of(model, description) else None


def _has_weights_of(model: Any, description: ModelDescription) -> bool:
    """Return whether the weights in memory are those of the files: it may have been trained since.

    Weights that were loaded in a lower precision count as the same; precision is not identity.
    """
    network = _transformer(model)
    stored = Tensors(description.transformer)
    torch = sys.modules["torch"]
    prefixes = ("", f"{network.base_model_prefix}.")
    known = set()
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point() or name.startswith(UNUSED_TENSORS):
            continue
        names = (f"{prefix}{one}" for one in (name, old_name(name)) for prefix in prefixes)
        if found := next((one for one in names if one in stored), None):
            if not torch.equal(torch.from_numpy(stored[found]).to(tensor.dtype), tensor.cpu()):
                return False
            # The file may hold a tied tensor under one name only; its other names have the same
            # address.
            known.add(tensor.data_ptr())
        elif tensor.data_ptr() not in known:  # such as an adapter's
            return False
    return bool(known)


def _tokenizer(model: Any, description: ModelDescription | None) -> HuggingFaceTokenizer:
    if description is not None:
        return description.load_tokenizer()
    fast = getattr(model.tokenizer, "backend_tokenizer", None) or model.tokenizer
    if not hasattr(fast, "to_str"):
        raise InvalidConfig(
            f"The tokenizer of the {type(model).__name__} is a {type(model.tokenizer).__name__}, "
            "which cannot tell where a token is in the text.",
            hint="Load the model with a fast tokenizer, or write a retriever.Encoder around it.",
        )
    return HuggingFaceTokenizer.from_json(fast.to_str())


def _prompt(model: Any, role: str) -> str:
    return str((model.prompts or {}).get(role) or "")


def _position_limit(model: Any) -> int | None:
    transformer = _transformer(model)
    return None if transformer is None else position_limit(transformer.config.to_dict())


def _settings(module: Any) -> Any:
    """Return the settings that a module of sentence-transformers saves."""
    return module.get_config_dict() if hasattr(module, "get_config_dict") else None


def _weights(model: Any) -> str:
    """Return the SHA-256 of all tensors of a model, of their names, kinds and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        whole = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {whole.dtype} {tuple(whole.shape)}\n".encode())
        # By bytes: NumPy has no bfloat16.
        flat = whole.reshape(-1)
        digest.update(flat.view(_byte_type()).numpy().data if flat.numel() else b"")
    return digest.hexdigest()


def _byte_type() -> Any:
    return sys.modules["torch"].uint8


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()

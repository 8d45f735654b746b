"""A model's name to its description: what its files say, and what makes two models the same.

Owns the identity of a model. Must not know where models are looked for (`locate.py`) or how one is
computed: it imports none of torch, transformers and sentence-transformers.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retriever.encoders.checkpoint.bi_encoder import read_checkpoint
from retriever.encoders.checkpoint.json_files import TOKENIZER
from retriever.encoders.checkpoint.locate import locate
from retriever.encoders.model_options import FIELD, ROLES, ModelOptions
from retriever.encoders.tokenization import HuggingFaceTokenizer
from retriever.errors import ModelError, ModelMismatch, ModelUnavailable, UnsafeModelFile

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A model on this machine, as its files describe it.

    Attributes:
        name: The name, or the absolute path of a directory, that it can be resolved by again.
        path: Its directory.
        identity: What makes two models the same, a JSON object; `name` in it is not compared.
        dimension: Length of a vector.
        window: The most tokens a text may have, special tokens and prompt included.
        max_tokens: Tokens left for a document's own text.
        prompts: The text put before a `query` and a `document`.
        transformer: The directory of the transformer's weights, config and tokenizer.
        lowercase: Whether text is lowercased before the tokenizer's own normalisation.
        doubt: As `Checkpoint.doubt`.
    """

    name: str
    path: Path
    identity: dict[str, Any]
    dimension: int
    window: int
    max_tokens: int
    prompts: dict[str, str]
    transformer: Path
    lowercase: bool
    doubt: str = ""

    def load_tokenizer(self) -> HuggingFaceTokenizer:
        """Load the model's tokenizer, without truncation and padding."""
        return HuggingFaceTokenizer.from_file(
            self.transformer / TOKENIZER, lowercase=self.lowercase
        )


def resolve_model(
    name: str | Path, *, allow_download: bool = False, options: ModelOptions | None = None
) -> ModelDescription:
    """Find a model and read its description; the network is used only with `allow_download`.

    A name is looked for as a directory that holds a model, as an installed model package, in the
    hub's cache on disk and, if allowed, on the hub. A name without an organisation stands for
    `sentence-transformers/<name>` first.

    Args:
        name: A path, or a name such as `all-MiniLM-L6-v2`.
        allow_download: Whether to fetch a missing model from the Hugging Face hub.
        options: Prompts and dimensions in place of its own.

    Raises:
        InvalidConfig: Its vectors are shorter than the dimensions to keep.
        ModelError: The model is damaged or not of a supported kind.
        ModelUnavailable: The model is not on this machine, or a file of it is missing.
        UnsafeModelFile: It could run code when loaded, or its weights are not the published ones.
        MissingDependency: A download needs huggingface_hub, which is not installed.
    """
    found_name, path, package = locate(name, allow_download=allow_download)
    try:
        description = _describe(found_name, path, options or ModelOptions())
    except OSError as error:
        raise ModelUnavailable(
            f"The model {found_name!r} at {path} cannot be read: {error}.",
            hint="Check the permissions of its files.",
        ) from error
    weights = description.identity["weights"]
    if package is not None and weights != package.weights:
        raise UnsafeModelFile(
            f"The weights of {found_name!r} in {path} are not the published ones: SHA-256 "
            f"{weights[:12]}…, not {package.weights[:12]}….",
            hint=f"Install the package again: `{package.install} --upgrade --force-reinstall`.",
        )
    logger.debug("Model %s is %s (weights %s).", name, path, weights[:12])
    return description


def check_identity(stored: Mapping[str, Any], actual: Mapping[str, Any]) -> None:
    """Refuse an encoder that is not the one an index was built with.

    Args:
        stored: The identity the index recorded.
        actual: The identity of the encoder to use.

    Raises:
        ModelMismatch: Naming the first field that differs; `name` is not compared.
    """
    for field in dict.fromkeys([*stored, *actual]):
        expected, found = stored.get(field), actual.get(field)
        # The name is for people: one model has different names on different machines.
        if field == "name" or expected == found:
            continue
        built_with = stored.get("name") or "another model"
        raise ModelMismatch(
            f"This index was built with {built_with!r}; {actual.get('name') or 'the encoder'!r} "
            f"differs in {field}: {_shortened(found)}, not {_shortened(expected)}.",
            field=field,
            expected=expected,
            actual=found,
            hint=f"Open it with {built_with!r} as it was, or re-encode the index with this model: "
            "`retriever rebuild --model …`.",
        )


def is_same_model(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two identities are of the same model; see `check_identity`."""
    try:
        check_identity(one, other)
    except ModelMismatch:
        return False
    return True


def is_ours(identity: Mapping[str, Any]) -> bool:
    """Return whether an identity is that of a model by name or path, not of a caller's encoder."""
    return all(isinstance(identity.get(field), str) for field in ("weights", "config", "pooling"))


def _shortened(value: object) -> str:
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{20,}", r"\1…", repr(value))


def _describe(name: str, path: Path, options: ModelOptions) -> ModelDescription:
    checkpoint = read_checkpoint(path)
    # Options that equal the settings of the model itself are dropped, so that the identity is the
    # same with and without them.
    options = options.beside(checkpoint.prompts, checkpoint.dimension)
    prompts = {**checkpoint.prompts, **options.prompts}
    dimension = options.dimensions or checkpoint.dimension
    identity = {
        "name": name,
        "weights": checkpoint.weights,
        "config": checkpoint.config,
        "tokenizer": checkpoint.tokenizer,
        "pooling": checkpoint.pooling,
        "normalize": checkpoint.normalize,
        "dense": list(checkpoint.further),
        "prompts": prompts,
        "max_tokens": checkpoint.window,
        "dimension": dimension,
        **({FIELD: options.to_dict()} if options else {}),
    }
    needed = dict.fromkeys(ROLES, checkpoint.special_tokens)
    # To load a tokenizer takes longer than all the rest, so it is done only to count a prompt.
    if any(prompts.values()):
        file = checkpoint.transformer / TOKENIZER
        tokenizer = HuggingFaceTokenizer.from_file(file, lowercase=checkpoint.lowercase)
        for role, prompt in prompts.items():
            needed[role] += tokenizer.count(prompt) if prompt else 0
            if needed[role] >= checkpoint.window:
                raise ModelError(
                    f"The {role} prompt of {name!r} and its special tokens are {needed[role]} "
                    f"tokens; its window is {checkpoint.window}.",
                    hint="Shorten the prompt, or raise max_seq_length in the model's "
                    "sentence_bert_config.json.",
                )
    return ModelDescription(
        name=name,
        path=path,
        identity=identity,
        dimension=dimension,
        window=checkpoint.window,
        max_tokens=checkpoint.window - needed["document"],
        prompts=prompts,
        transformer=checkpoint.transformer,
        lowercase=checkpoint.lowercase,
        doubt=checkpoint.doubt,
    )

"""A cross-encoder's directory, read without sentence-transformers.

Owns the meaning of the files that sentence-transformers' CrossEncoder saves, in both layouts: with
a module list, and the bare transformer that older versions wrote. Must not know how a model
computes, and imports neither torch nor transformers.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retriever.encoders.checkpoint import bi_encoder, json_files
from retriever.encoders.checkpoint.json_files import TOKENIZER
from retriever.encoders.checkpoint.locate import locate
from retriever.encoders.checkpoint.modules import read_module_list
from retriever.encoders.checkpoint.weights import weights_sha256
from retriever.encoders.tokenization import HuggingFaceTokenizer
from retriever.errors import ModelError, ModelUnavailable

logger = logging.getLogger(__name__)

_ORGANISATION = "cross-encoder"
_TASK = "sequence-classification"
_KIND = "CrossEncoder"
_ACTIVATIONS = {
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.Sigmoid": "sigmoid",
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.Identity": "identity",
}
# The tokenizers of transformers that give token types, unless tokenizer_config.json says otherwise.
_MARKING = frozenset({"BertTokenizer", "ElectraTokenizer"})


@dataclass(frozen=True, slots=True)
class CrossDescription:
    """A cross-encoder on this machine, as its files describe it.

    Attributes:
        name: The name, or the absolute path of a directory, that it can be resolved by again.
        path: Its directory.
        transformer: The directory of its weights, config and tokenizer.
        identity: What makes two models the same, a JSON object; `name` in it is not compared.
        window: The most tokens of a pair, special tokens included.
        lowercase: Whether text is lowercased before the tokenizer's own normalisation.
        marks: Whether the model gets token types, which tell the two texts of a pair apart.
        cuts: The side on which a text that is too long is truncated, `right` or `left`.
        prompt: The text put before a query.
        activation: `sigmoid` or `identity`: the function from the network's output to a score.
    """

    name: str
    path: Path
    transformer: Path
    identity: dict[str, Any]
    window: int
    lowercase: bool
    marks: bool
    cuts: str
    prompt: str
    activation: str

    def load_tokenizer(self) -> HuggingFaceTokenizer:
        """Load the model's tokenizer, without truncation and padding."""
        return HuggingFaceTokenizer.from_file(
            self.transformer / TOKENIZER, lowercase=self.lowercase
        )


def resolve_cross_encoder(name: str | Path, *, allow_download: bool = False) -> CrossDescription:
    """Find a cross-encoder and read its description.

    It is looked for in the same places as a bi-encoder (see `resolve.resolve_model`), but a name
    without an organisation stands for `cross-encoder/<name>` first.

    Args:
        name: A path, or a name such as `ms-marco-MiniLM-L6-v2`.
        allow_download: Whether to fetch a missing model from the Hugging Face hub.

    Raises:
        ModelError: The model is damaged, gives more than one score, or is not supported.
        ModelUnavailable: The model is not on this machine, or a file of it is missing.
        UnsafeModelFile: It could run code when loaded.
        MissingDependency: A download needs huggingface_hub, which is not installed.
    """
    found_name, path, _ = locate(name, allow_download=allow_download, organisation=_ORGANISATION)
    try:
        description = _describe(found_name, path)
    except OSError as error:
        raise ModelUnavailable(
            f"The model {found_name!r} at {path} cannot be read: {error}.",
            hint="Check the permissions of its files.",
        ) from error
    logger.debug(
        "Cross-encoder %s is %s (weights %s).", name, path, description.identity["weights"][:12]
    )
    return description


def _describe(name: str, path: Path) -> CrossDescription:
    modules = read_module_list(path)
    general = bi_encoder.read_any_general(path) if modules else {}
    _check_kind(path, [module.kind for module in modules], general)
    folder = modules[0].folder if modules else path
    config = json_files.read_whole_config(folder)
    _check_labels(name, config)
    settings = bi_encoder.read_settings(folder, _TASK) if modules else {}
    lowercase = bool(settings.get("do_lower_case", False))
    window = bi_encoder.window_of(folder, settings, config)
    prompt = _prompt(path, general)
    activation = _activation(name, general, config)
    marks = _marks(folder, config)
    cuts = str(json_files.read_tokenizer_config(folder).get("truncation_side") or "right")
    identity = {
        "name": name,
        "weights": weights_sha256(folder),
        "config": json_files.config_sha256(config),
        "tokenizer": json_files.tokenizer_facts(folder, lowercase)[0],
        "max_tokens": window,
        "marks": marks,
        "cuts": cuts,
        "prompt": prompt,
        "activation": activation,
    }
    return CrossDescription(
        name=name,
        path=path,
        transformer=folder,
        identity=identity,
        window=window,
        lowercase=lowercase,
        marks=marks,
        cuts=cuts,
        prompt=prompt,
        activation=activation,
    )


def _check_kind(path: Path, kinds: list[str], general: Mapping[str, Any]) -> None:
    if not kinds:
        return
    kind = general.get("model_type", "SentenceTransformer")
    if kind != _KIND:
        raise ModelError(
            f"{path} is a {kind}, not a cross-encoder: it has no score for a pair of texts.",
            hint="Choose a model that was saved by sentence-transformers' CrossEncoder.",
        )
    if kinds != ["Transformer"]:
        raise ModelError(
            f"{path / 'modules.json'} lists {', '.join(kinds)}; only cross-encoders of one "
            "Transformer are supported.",
            hint="Choose one that was trained for sequence classification.",
        )


def _check_labels(name: str, config: Mapping[str, Any]) -> None:
    """Refuse a classifier of several classes; transformers leaves two out of config.json."""
    architectures = config.get("architectures") or []
    if any(str(one).endswith(bi_encoder.MASKED) for one in architectures):
        raise ModelError(
            f"The model {name!r} is a masked language model, not a cross-encoder: it has no score "
            "for a pair of texts.",
            hint="Choose a model that was trained by sentence-transformers' CrossEncoder.",
        )
    labels = config.get("id2label")
    count = len(labels) if isinstance(labels, Mapping) else config.get("num_labels", 2)
    if count != 1 and any(str(one).endswith("ForSequenceClassification") for one in architectures):
        raise ModelError(
            f"The model {name!r} gives {count} scores for a pair; a reranker gives one.",
            hint="Choose a cross-encoder with one label (num_labels=1).",
        )


def _activation(name: str, general: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Return the activation, from the first place in which sentence-transformers would find it."""
    saved = config.get("sentence_transformers")
    if isinstance(saved, Mapping) and "activation_fn" in saved:
        older = saved["activation_fn"]
    else:
        older = config.get("sbert_ce_default_activation_function")
    stated = general.get("activation_fn") or older
    if stated is None:
        return "sigmoid"
    if stated not in _ACTIVATIONS:
        raise ModelError(
            f"The model {name!r} turns its output into a score by {stated!r}, which is not "
            "supported.",
            hint="Supported: torch.nn.Sigmoid and torch.nn.Identity, as activation_fn.",
        )
    return _ACTIVATIONS[stated]


def _prompt(path: Path, general: Mapping[str, Any]) -> str:
    name = general.get("default_prompt_name")
    prompts = general.get("prompts") or {}
    if name is not None and name not in prompts:
        raise ModelError(
            f"{path} names the default prompt {name!r}, which it does not define.",
            hint="Copy or download the model again, completely.",
        )
    return str(prompts.get(name) or "")


def _marks(folder: Path, config: Mapping[str, Any]) -> bool:
    settings = json_files.read_tokenizer_config(folder)
    inputs = settings.get("model_input_names")
    if isinstance(inputs, list):
        return "token_type_ids" in inputs
    kind = settings.get("tokenizer_class") or config.get("tokenizer_class")
    if not kind:
        return config.get("model_type") == "bert"
    return str(kind).removesuffix("Fast") in _MARKING

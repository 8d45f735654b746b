"""A sentence-transformers model directory, read without sentence-transformers.

Owns the meaning of the files in such a directory: pooling, prompts, the window. It mirrors what
sentence-transformers 6 does with each of them; `reference.py` compares the two after loading. Must
not know where a model is found, and imports neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retriever.encoders.checkpoint.json_files import (
    DAMAGED,
    config_sha256,
    read_json,
    read_tokenizer_config,
    read_whole_config,
    tokenizer_facts,
)
from retriever.encoders.checkpoint.modules import (
    Module,
    further_modules,
    module_fingerprint,
    read_modules,
)
from retriever.encoders.checkpoint.weights import weights_sha256
from retriever.errors import ModelError

# sentence-transformers falls back to the next of these when one is missing or empty.
_SETTINGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Settings of a Transformer module that change what is computed, and that only late-interaction,
# sparse or chat models have.
_UNSUPPORTED_SETTINGS = ("query_length", "document_length", "query_expansion", "processing_kwargs")
# Families whose learned positions begin after the padding token's, so that those up to it are lost.
_OFFSET_FAMILIES = frozenset(
    {"roberta", "xlm-roberta", "camembert", "mpnet", "roberta-prelayernorm"}
)
_ABSOLUTE_FAMILIES = frozenset({"bert", "distilbert", "electra", "albert"}) | _OFFSET_FAMILIES
# The last part of the names of architectures that predict masked words.
MASKED = "ForMaskedLM"
_HIDDEN_SIZE_KEYS = ("hidden_size", "dim", "d_model", "n_embd")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a model directory says about the model.

    Attributes:
        transformer: The directory of the transformer's weights, config and tokenizer.
        lowercase: Whether the text is lowercased before the tokenizer's own normalisation.
        config: Hash of what config.json says of the network.
        pooling: The pooling modes joined by `+`.
        further: The modules after pooling, as `Kind:hash`, a final Normalize left out.
        normalize: Whether the model itself ends in vectors of unit length.
        dimension: Length of a vector.
        window: The most tokens a text may have, special tokens and prompt included.
        special_tokens: The number of special tokens that the tokenizer adds to a text.
        prompts: The text put before a `query` and a `document`.
        doubt: Why it may not be a text embedding model; empty if its files say that it is one.
    """

    transformer: Path
    weights: str
    config: str
    tokenizer: str
    lowercase: bool
    pooling: str
    further: tuple[str, ...]
    normalize: bool
    dimension: int
    window: int
    special_tokens: int
    prompts: dict[str, str]
    doubt: str


def is_model_directory(path: Path) -> bool:
    """Return whether a directory holds a sentence-transformers model or a bare transformer."""
    try:
        return (path / "modules.json").is_file() or (path / "config.json").is_file()
    except OSError:  # the name is too long, or the folder may not be read
        return False


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a model directory.

    Raises:
        ModelError: A file is damaged or says something that is not supported.
        ModelUnavailable: A file is missing.
        UnsafeModelFile: The weights are not safetensors, or a module is not sentence-transformers'.
    """
    modules = read_modules(path)
    folder = modules[0].folder if modules else path
    config = read_whole_config(folder)
    settings = read_settings(folder) if modules else {}
    lowercase = bool(settings.get("do_lower_case", False))
    tokenizer, special_tokens = tokenizer_facts(folder, lowercase)
    pooling, width = _read_pooling(modules, config)
    general = read_general(path) if modules else {}
    return Checkpoint(
        transformer=folder,
        weights=weights_sha256(folder),
        config=config_sha256(config),
        tokenizer=tokenizer,
        lowercase=lowercase,
        pooling=pooling,
        further=tuple(module_fingerprint(module) for module in further_modules(modules)),
        normalize=any(module.kind == "Normalize" for module in modules),
        dimension=_dimension(width, modules, general),
        window=window_of(folder, settings, config),
        special_tokens=special_tokens,
        prompts=_prompts(general, path),
        doubt="" if modules else _doubt(config, pooling),
    )


def position_limit(config: Mapping[str, Any]) -> int | None:
    """Return the most tokens that a transformer has positions for, or None if nothing limits it.

    RoBERTa's 514 positions hold 512 tokens. sentence-transformers does not take that into account
    and fails with an index error on a longer text, so that the window is capped here.
    """
    positions = config.get("max_position_embeddings")
    family = config.get("model_type")
    if not isinstance(positions, int) or family not in _ABSOLUTE_FAMILIES:
        return None
    if family not in _OFFSET_FAMILIES:
        return positions
    padding = config.get("pad_token_id")
    return positions - (padding if isinstance(padding, int) else 1) - 1


# ---- what the configuration files say


def read_general(path: Path) -> dict[str, Any]:
    """Return what a bi-encoder's `config_sentence_transformers.json` says.

    Raises:
        ModelError: It is damaged, or says that the model is of another kind.
    """
    general = read_any_general(path)
    kind = general.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise ModelError(
            f"{path} is a {kind}, not a bi-encoder.",
            hint="Choose a model that gives one dense vector for a text.",
        )
    return general


def read_any_general(path: Path) -> dict[str, Any]:
    """Return what `config_sentence_transformers.json` says, whatever the kind of model."""
    return read_json(path / "config_sentence_transformers.json")


def read_settings(folder: Path, task: str = "feature-extraction") -> dict[str, Any]:
    """Return the settings of a Transformer module, from whichever of its files has them.

    Args:
        folder: The module's directory.
        task: The task that it must have been trained for.

    Raises:
        ModelError: They are damaged, or use something that is not supported.
    """
    for name in _SETTINGS:
        settings = read_json(folder / name)
        if settings:
            break
    else:
        return {}
    present = [key for key in _UNSUPPORTED_SETTINGS if settings.get(key)]
    if "message" in (settings.get("modality_config") or {}):
        present.append("modality_config: message")
    if (stated := settings.get("transformer_task", "feature-extraction")) != task:
        present.append(f"transformer_task: {stated}")
    if present:
        raise ModelError(
            f"{folder / name} sets {', '.join(present)}, which is not supported.",
            hint=f"Choose a text model for {task} without a chat template or late interaction.",
        )
    return settings


def _read_pooling(modules: list[Module], config: dict[str, Any]) -> tuple[str, int]:
    """Return the pooling modes, joined by `+`, and the length of their vectors side by side."""
    if not modules:
        hidden = next((config[key] for key in _HIDDEN_SIZE_KEYS if key in config), None)
        if not isinstance(hidden, int):
            raise ModelError("config.json states no hidden_size.", hint=DAMAGED)
        return ("lasttoken" if _is_causal(config) else "mean"), hidden
    file = next(m.folder for m in modules if m.kind == "Pooling") / "config.json"
    settings = read_json(file, required=True)
    modes = settings.get("pooling_mode") or (
        [mode for key, mode in _POOLING_KEYS.items() if settings.get(key)] or "mean"
    )
    modes = [modes] if isinstance(modes, str) else list(modes)
    unknown = [mode for mode in modes if mode not in _POOLING_KEYS.values()]
    width = settings.get("embedding_dimension", settings.get("word_embedding_dimension"))
    if unknown or not isinstance(width, int):
        raise ModelError(
            f"{file} states the pooling {modes!r} of vectors of length {width!r}.",
            hint="Known pooling modes: " + ", ".join(_POOLING_KEYS.values()),
        )
    scope = "" if settings.get("include_prompt", True) else ", without the prompt"
    return "+".join(modes) + scope, width * len(modes)


def _doubt(config: dict[str, Any], pooling: str) -> str:
    """Say what a transformer without a module list is, and how it is pooled nevertheless."""
    architectures = [str(one) for one in config.get("architectures") or []]
    is_masked = any(one.endswith(MASKED) for one in architectures)
    kind = "a masked language model" if is_masked else "a bare transformer (no modules.json)"
    how = "the mean of its tokens' vectors is" if pooling == "mean" else f"its {pooling} vector is"
    return (
        f"{kind}, not a text embedding model; {how} taken, which finds little unless it was "
        "trained for that"
    )


def _is_causal(config: dict[str, Any]) -> bool:
    architectures = config.get("architectures") or [""]
    return str(architectures[0]).endswith("ForCausalLM") and config.get("is_causal", True)


def _dimension(width: int, modules: list[Module], general: dict[str, Any]) -> int:
    for module in reversed(modules):
        if module.kind == "Pooling":
            break
        if module.kind == "Dense":
            settings = read_json(module.folder / "config.json", required=True)
            width = int(settings.get("out_features", width))
            break
    kept = general.get("truncate_dim")
    return min(width, kept) if isinstance(kept, int) else width


def window_of(folder: Path, settings: dict[str, Any], config: dict[str, Any]) -> int:
    """Return the most tokens a text may have, special tokens included.

    Args:
        folder: The directory of the tokenizer.
        settings: Of the Transformer module; empty without a module list.
        config: The transformer's config.json.

    Raises:
        ModelError: None of the files says.
    """
    arguments = settings.get("processor_kwargs") or settings.get("tokenizer_args") or {}
    stated = arguments.get("model_max_length", settings.get("max_seq_length"))
    limits = [stated]
    if stated is None:
        tokenizer = read_tokenizer_config(folder)
        positions = config.get("max_position_embeddings", -1)
        limits = [tokenizer.get("model_max_length", tokenizer.get("max_len"))]
        limits += [positions] if positions != -1 else []
    limits.append(position_limit(config))
    window = min((int(limit) for limit in limits if limit is not None), default=0)
    # transformers writes 10**30 for "no limit".
    if not 0 < window < 1 << 31:
        raise ModelError(
            f"{folder} does not say how many tokens a text may have.",
            hint='Write {"max_seq_length": 512} (or what fits) to its sentence_bert_config.json.',
        )
    return window


def _prompts(general: dict[str, Any], path: Path) -> dict[str, str]:
    known: dict[str, str | None] = {"query": None, "document": None}
    # As in SentenceTransformer: these two are always defined, so that "passage" and "corpus", which
    # encode_document tries next, are never used, nor is the default prompt.
    known |= general.get("prompts") or {}
    default = general.get("default_prompt_name")
    if default is not None and default not in known:
        raise ModelError(
            f"{path} names the default prompt {default!r}, which it does not define.",
            hint=DAMAGED,
        )
    return {role: known[role] or "" for role in ("query", "document")}

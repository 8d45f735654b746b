"""A sentence-transformers model directory, read without sentence-transformers.

Owns the meaning of the files in such a directory: the module list, pooling, prompts, the window,
the hashes of weights and tokenizer. It mirrors what sentence-transformers 6 does with each of them
(`bi_encoder.py` compares the two after loading). Must not know where a model is found, and imports
neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from retriever.encoders.tokenization import HuggingFaceTokenizer
from retriever.encoders.user_cache import Json, stamped
from retriever.encoders.weights import weights_sha256
from retriever.errors import ModelError, ModelUnavailable, UnsafeModelFile

TOKENIZER = "tokenizer.json"

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
_FURTHER_MODULES = frozenset(
    {"Dense", "LayerNorm", "Dropout", "CNN", "LSTM", "WeightedLayerPooling"}
)
_WITH_WEIGHTS = _FURTHER_MODULES - {"Dropout"}
# Settings of a Transformer module that change what is computed and that only late-interaction,
# sparse or chat models carry.
_UNSUPPORTED_SETTINGS = ("query_length", "document_length", "query_expansion", "processing_kwargs")
# Families whose learned positions start after the padding token's: one fewer for each before it.
_OFFSET_FAMILIES = frozenset(
    {"roberta", "xlm-roberta", "camembert", "mpnet", "roberta-prelayernorm"}
)
_ABSOLUTE_FAMILIES = frozenset({"bert", "distilbert", "electra", "albert"}) | _OFFSET_FAMILIES
_HIDDEN_SIZE_KEYS = ("hidden_size", "dim", "d_model", "n_embd")
_DAMAGED = "Copy or download the model again, completely."

# What saving a model again may change without changing a vector.
_NOT_THE_NETWORK = frozenset(
    {"_name_or_path", "architectures", "dtype", "gradient_checkpointing", "torch_dtype"}
    | {"transformers_version", "use_cache"}
)


@dataclass(frozen=True, slots=True)
class Module:
    """One entry of `modules.json`: the class's short name and its directory."""

    kind: str
    folder: Path


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
        special_tokens: How many the tokenizer adds to a text.
        prompts: What is put before a `query` and a `document`.
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


def is_model_directory(path: Path) -> bool:
    """Return whether a directory holds a sentence-transformers model or a bare transformer."""
    return (path / "modules.json").is_file() or (path / "config.json").is_file()


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a model directory.

    Raises:
        ModelError: A file is damaged or says something that is not supported.
        ModelUnavailable: A file is missing.
        UnsafeModelFile: The weights are not safetensors, or a module is not sentence-transformers'.
    """
    modules = _read_modules(path)
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
        further=tuple(_fingerprint(module) for module in _further(modules)),
        normalize=any(module.kind == "Normalize" for module in modules),
        dimension=_dimension(width, modules, general),
        window=window_of(folder, settings, config),
        special_tokens=special_tokens,
        prompts=_prompts(general, path),
    )


def modules_after_pooling(path: Path) -> list[Module]:
    """Return the modules that a model's pooled vectors go through, a final Normalize left out."""
    return _further(_read_modules(path))


def read_config(folder: Path) -> dict[str, Any]:
    """Return the config.json of a transformer or a module; empty where there is none.

    Raises:
        ModelError: It is damaged.
    """
    return _read_json(folder / "config.json")


def read_whole_config(folder: Path) -> dict[str, Any]:
    """Return the config.json of a transformer that is here with its weights.

    Raises:
        ModelError: It is damaged, or the directory holds an adapter only.
        ModelUnavailable: It is missing.
    """
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder} is an adapter; its base model is somewhere else.",
            hint="Merge them with peft's `merge_and_unload()` and save the whole model.",
        )
    return _read_json(folder / "config.json", required=True)


def read_tokenizer_config(folder: Path) -> dict[str, Any]:
    """Return the tokenizer_config.json beside a tokenizer; empty where there is none.

    Raises:
        ModelError: It is damaged.
    """
    return _read_json(folder / "tokenizer_config.json")


def config_sha256(config: Mapping[str, Any]) -> str:
    """Return a hash of the fields that shape the network: heads, layers, activation, …."""
    kept = {name: value for name, value in config.items() if name not in _NOT_THE_NETWORK}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def position_limit(config: Mapping[str, Any]) -> int | None:
    """Return the most tokens a transformer has positions for, or None where nothing limits it.

    sentence-transformers does not know that RoBERTa's 514 positions hold 512 tokens: a longer text
    ends there in an index error, so the window is capped here.
    """
    positions = config.get("max_position_embeddings")
    family = config.get("model_type")
    if not isinstance(positions, int) or family not in _ABSOLUTE_FAMILIES:
        return None
    if family not in _OFFSET_FAMILIES:
        return positions
    padding = config.get("pad_token_id")
    return positions - (padding if isinstance(padding, int) else 1) - 1


# ---- the module list


def read_module_list(path: Path) -> list[Module]:
    """Return the modules that a directory's `modules.json` lists; none where there is no such file.

    Raises:
        ModelError: The file is damaged, or a module is not supported.
        UnsafeModelFile: A module is not sentence-transformers', or lies outside the directory.
    """
    file = path / "modules.json"
    if not file.is_file():
        return []
    entries = _read_json_value(file)
    if not isinstance(entries, list) or not entries:
        raise ModelError(f"{file} holds no list of modules.", hint=_DAMAGED)
    return [_read_module(path, entry, file) for entry in entries]


def _read_modules(path: Path) -> list[Module]:
    modules = read_module_list(path)
    kinds = [module.kind for module in modules]
    if modules and (kinds[0] != "Transformer" or kinds.count("Pooling") != 1):
        raise ModelError(
            f"{path / 'modules.json'} lists {', '.join(kinds)}; a bi-encoder is a Transformer, one "
            "Pooling and what follows them.",
            hint="Use a text embedding model with one transformer.",
        )
    return modules


def _read_module(path: Path, entry: object, file: Path) -> Module:
    if not isinstance(entry, dict):
        raise ModelError(f"{file} has the entry {entry!r}, not an object.", hint=_DAMAGED)
    reference, folder = str(entry.get("type", "")), str(entry.get("path", ""))
    package, _, kind = reference.rpartition(".")
    if package.partition(".")[0] != "sentence_transformers":
        raise UnsafeModelFile(
            f"{file} names the module {reference!r}, which is not part of sentence-transformers: "
            "loading it would run code that came with the model.",
            hint="Use a model made of sentence-transformers' own modules.",
        )
    if kind not in _FURTHER_MODULES | {"Transformer", "Pooling", "Normalize"}:
        raise ModelError(
            f"{file} names the module {reference!r}, which is not supported.",
            hint="Supported: Transformer, Pooling, Normalize, "
            + ", ".join(sorted(_FURTHER_MODULES)),
        )
    relative = PurePosixPath(folder)
    if relative.is_absolute() or ".." in relative.parts:
        raise UnsafeModelFile(
            f"{file} places the module {reference!r} outside the model's directory, at {folder!r}.",
            hint=_DAMAGED,
        )
    return Module(kind, path / relative)


def _further(modules: list[Module]) -> list[Module]:
    rest = [module for module in modules[1:] if module.kind != "Pooling"]
    return rest[:-1] if rest and rest[-1].kind == "Normalize" else rest


def _fingerprint(module: Module) -> str:
    config = _read_json(module.folder / "config.json")
    digest = hashlib.sha256(_canonical(config))
    if module.kind in _WITH_WEIGHTS:
        digest.update(weights_sha256(module.folder).encode())
    return f"{module.kind}:{digest.hexdigest()}"


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
    """Return what `config_sentence_transformers.json` says, of whatever kind the model is."""
    return _read_json(path / "config_sentence_transformers.json")


def read_settings(folder: Path, task: str = "feature-extraction") -> dict[str, Any]:
    """Return the settings of a Transformer module, whichever of its files has them.

    Args:
        folder: The module's directory.
        task: What it must have been made for.

    Raises:
        ModelError: They are damaged, or ask for something that is not supported.
    """
    for name in _SETTINGS:
        settings = _read_json(folder / name)
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
    """Return the pooling in words and the length of its vector."""
    if not modules:
        hidden = next((config[key] for key in _HIDDEN_SIZE_KEYS if key in config), None)
        if not isinstance(hidden, int):
            raise ModelError("config.json states no hidden_size.", hint=_DAMAGED)
        return ("lasttoken" if _is_causal(config) else "mean"), hidden
    file = next(m.folder for m in modules if m.kind == "Pooling") / "config.json"
    settings = _read_json(file, required=True)
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


def _is_causal(config: dict[str, Any]) -> bool:
    architectures = config.get("architectures") or [""]
    return str(architectures[0]).endswith("ForCausalLM") and config.get("is_causal", True)


def _dimension(width: int, modules: list[Module], general: dict[str, Any]) -> int:
    for module in reversed(modules):
        if module.kind == "Pooling":
            break
        if module.kind == "Dense":
            settings = _read_json(module.folder / "config.json", required=True)
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
    # As SentenceTransformer: the two are always there, so "passage" and "corpus", which
    # encode_document tries next, are never reached, nor is the default prompt.
    known |= general.get("prompts") or {}
    default = general.get("default_prompt_name")
    if default is not None and default not in known:
        raise ModelError(
            f"{path} names the default prompt {default!r}, which it does not define.",
            hint=_DAMAGED,
        )
    return {role: known[role] or "" for role in ("query", "document")}


# ---- the tokenizer


def tokenizer_facts(folder: Path, lowercase: bool) -> tuple[str, int]:
    """Return a tokenizer's hash, and how many special tokens it adds to a text.

    Raises:
        ModelError: It is missing or damaged.
    """
    file = folder / TOKENIZER
    if not file.is_file():
        raise ModelError(
            f"{folder} has no {TOKENIZER}; older vocabulary files alone are not read.",
            hint="Write one: `AutoTokenizer.from_pretrained(path).save_pretrained(path)`.",
        )
    facts = cast("dict[str, Any]", stamped("tokenizers", file, _examine_tokenizer))
    # Only then does the setting change a token, and only then is it part of what the tokenizer is.
    lowered = "+lowercase" if lowercase and not facts["lowercases"] else ""
    return facts["sha256"] + lowered, int(facts["special_tokens"])


def _examine_tokenizer(file: Path) -> Json:
    tokenizer = _read_json(file)
    canonical = {**tokenizer, "truncation": None, "padding": None}
    normalizer = tokenizer.get("normalizer") or {}
    steps = [normalizer, *(normalizer.get("normalizers") or [])]
    return {
        "sha256": hashlib.sha256(_canonical(canonical)).hexdigest(),
        "special_tokens": HuggingFaceTokenizer.from_file(file).count_special(),
        "lowercases": any(step.get("type") == "Lowercase" for step in steps),
    }


# ---- JSON


def _read_json(file: Path, *, required: bool = False) -> dict[str, Any]:
    if not file.is_file():
        if required:
            raise ModelUnavailable(f"{file} is missing.", hint=_DAMAGED)
        return {}
    value = _read_json_value(file)
    if not isinstance(value, dict):
        raise ModelError(f"{file} is not a JSON object.", hint=_DAMAGED)
    return value


def _read_json_value(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file} is damaged: {error}.", hint=_DAMAGED) from error


def _canonical(value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode("ascii")

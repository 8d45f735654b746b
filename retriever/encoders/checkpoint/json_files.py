"""The JSON files of a model directory: reading, refusing damaged ones, hashing.

Owns the bytes of config.json, tokenizer.json and the like. Must not know what is computed from
them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from retriever.encoders.tokenization import HuggingFaceTokenizer
from retriever.encoders.user_cache import Json, stamped
from retriever.errors import ModelError, ModelUnavailable

TOKENIZER = "tokenizer.json"
DAMAGED = "Copy or download the model again, completely."

# Fields that may change when a model is saved again, without any effect on its vectors.
_NOT_THE_NETWORK = frozenset(
    {"_name_or_path", "architectures", "dtype", "gradient_checkpointing", "torch_dtype"}
    | {"transformers_version", "use_cache"}
)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the config.json of a transformer or a module; empty if there is none.

    Raises:
        ModelError: It is damaged.
    """
    return read_json(folder / "config.json")


def read_whole_config(folder: Path) -> dict[str, Any]:
    """Return the config.json of a transformer that has its own weights.

    Raises:
        ModelError: It is damaged, or the directory holds an adapter only.
        ModelUnavailable: It is missing.
    """
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder} is an adapter; its base model is somewhere else.",
            hint="Merge them with peft's `merge_and_unload()` and save the whole model.",
        )
    return read_json(folder / "config.json", required=True)


def read_tokenizer_config(folder: Path) -> dict[str, Any]:
    """Return the tokenizer_config.json beside a tokenizer; empty if there is none.

    Raises:
        ModelError: It is damaged.
    """
    return read_json(folder / "tokenizer_config.json")


def config_sha256(config: Mapping[str, Any]) -> str:
    """Return a hash of the fields that shape the network: heads, layers, activation, …."""
    kept = {name: value for name, value in config.items() if name not in _NOT_THE_NETWORK}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def tokenizer_facts(folder: Path, lowercase: bool) -> tuple[str, int]:
    """Return a tokenizer's hash, and the number of special tokens that it adds to a text.

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
    # The setting changes tokens only if the tokenizer does not lowercase by itself; only then is it
    # part of the tokenizer's identity.
    lowered = "+lowercase" if lowercase and not facts["lowercases"] else ""
    return facts["sha256"] + lowered, int(facts["special_tokens"])


def _examine_tokenizer(file: Path) -> Json:
    tokenizer = read_json(file)
    # Loading a tokenizer here switches both off, so they change no tokens; saving a model again may
    # change them in the file.
    kept = {**tokenizer, "truncation": None, "padding": None}
    normalizer = tokenizer.get("normalizer") or {}
    steps = [normalizer, *(normalizer.get("normalizers") or [])]
    return {
        "sha256": hashlib.sha256(canonical(kept)).hexdigest(),
        "special_tokens": HuggingFaceTokenizer.from_file(file).count_special(),
        "lowercases": any(step.get("type") == "Lowercase" for step in steps),
    }


def read_json(file: Path, *, required: bool = False) -> dict[str, Any]:
    """Return a file's JSON object; an empty one if there is no file and none is required.

    Raises:
        ModelError: It is damaged.
        ModelUnavailable: It is missing, and required.
    """
    if not file.is_file():
        if required:
            raise ModelUnavailable(f"{file} is missing.", hint=DAMAGED)
        return {}
    value = read_json_value(file)
    if not isinstance(value, dict):
        raise ModelError(f"{file} is not a JSON object.", hint=DAMAGED)
    return value


def read_json_value(file: Path) -> Any:
    """Return the value in a JSON file.

    Raises:
        ModelError: It is damaged.
    """
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file} is damaged: {error}.", hint=DAMAGED) from error


def canonical(value: object) -> bytes:
    """Return the form of a JSON value that is hashed: sorted keys, no spaces, ASCII."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode("ascii")

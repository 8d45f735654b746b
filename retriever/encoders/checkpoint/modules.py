"""The module list of a sentence-transformers model directory.

Owns `modules.json`: which modules are supported, and in which directories they are. Must not know
what they compute.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from retriever.encoders.checkpoint.json_files import DAMAGED, canonical, read_json, read_json_value
from retriever.encoders.checkpoint.weights import weights_sha256
from retriever.errors import ModelError, UnsafeModelFile

_FURTHER_MODULES = frozenset(
    {"Dense", "LayerNorm", "Dropout", "CNN", "LSTM", "WeightedLayerPooling"}
)
_WITH_WEIGHTS = _FURTHER_MODULES - {"Dropout"}


@dataclass(frozen=True, slots=True)
class Module:
    """One entry of `modules.json`: the class's short name and its directory."""

    kind: str
    folder: Path


def modules_after_pooling(path: Path) -> list[Module]:
    """Return the modules that a model applies to pooled vectors, without a final Normalize."""
    return further_modules(read_modules(path))


def read_module_list(path: Path) -> list[Module]:
    """Return the modules that a directory's `modules.json` lists; none if there is no such file.

    Raises:
        ModelError: The file is damaged, or a module is not supported.
        UnsafeModelFile: A module is not sentence-transformers', or lies outside the directory.
    """
    file = path / "modules.json"
    if not file.is_file():
        return []
    entries = read_json_value(file)
    if not isinstance(entries, list) or not entries:
        raise ModelError(f"{file} holds no list of modules.", hint=DAMAGED)
    return [_read_module(path, entry, file) for entry in entries]


def read_modules(path: Path) -> list[Module]:
    """Return the modules of a bi-encoder; see `read_module_list`."""
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
        raise ModelError(f"{file} has the entry {entry!r}, not an object.", hint=DAMAGED)
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
    # The file may come from a stranger and must not name directories outside its own.
    relative = PurePosixPath(folder)
    if relative.is_absolute() or ".." in relative.parts:
        raise UnsafeModelFile(
            f"{file} places the module {reference!r} outside the model's directory, at {folder!r}.",
            hint=DAMAGED,
        )
    return Module(kind, path / relative)


def further_modules(modules: list[Module]) -> list[Module]:
    """Return the modules after pooling, without a final Normalize."""
    rest = [module for module in modules[1:] if module.kind != "Pooling"]
    return rest[:-1] if rest and rest[-1].kind == "Normalize" else rest


def module_fingerprint(module: Module) -> str:
    """Return `Kind:hash` of a module's config and weights."""
    config = read_json(module.folder / "config.json")
    digest = hashlib.sha256(canonical(config))
    if module.kind in _WITH_WEIGHTS:
        digest.update(weights_sha256(module.folder).encode())
    return f"{module.kind}:{digest.hexdigest()}"

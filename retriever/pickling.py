"""Pickling of an `Index`, as the arguments that open it again in another process.

Whether the encoder can be pickled is tried first, because the error of a failed pickle does not
name the index. Nothing here loads a pickle.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import Pickler
from typing import TYPE_CHECKING, Any

from retriever.errors import InvalidConfig

if TYPE_CHECKING:
    from retriever.index import Index


def as_arguments(
    kind: type[Index], path: Path, model: Any, options: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Return the function and arguments that open an index again, for `__reduce__`.

    Raises:
        InvalidConfig: The encoder cannot be pickled.
    """
    if model is not None and not isinstance(model, str | Path):
        _try(model, path)
    return _open, (kind, path, {"model": model, **options})


def _open(kind: type[Index], path: Path, options: Mapping[str, Any]) -> Index:
    return kind.open(path, **options)


def _try(model: Any, path: Path) -> None:
    try:
        Pickler(_Nowhere()).dump(model)
    except Exception as exc:  # whatever the encoder's own __reduce__ or __getstate__ raises
        kind = type(model).__name__
        raise InvalidConfig(
            f"The index {path} cannot be pickled, because its encoder, a {kind}, cannot: {exc}.",
            hint="Open the index in the worker instead, by its path, or give the encoder a "
            "__reduce__.",
        ) from exc


class _Nowhere:
    """A file that discards what is written, since a pickled model may be large."""

    def write(self, data: bytes) -> int:
        return len(data)

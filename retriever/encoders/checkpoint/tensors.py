"""The tensors of a safetensors file, mapped into memory and not copied.

Owns the header of the format and its number types. Must not know what a tensor is for. Needs
neither torch nor the safetensors package: https://huggingface.co/docs/safetensors gives the layout.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.encoders.checkpoint.weights import weight_files
from retriever.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_DAMAGED = "Copy or download the model again."


class Tensors(Mapping[str, "NDArray[np.float32]"]):
    """The floating-point tensors of a directory's weights, by name, float32.

    Tensors stored as float32 are views of the mapped file, which takes no further memory; others
    are converted at each access. Arrays may be written to without changing the file.
    """

    def __init__(self, folder: Path) -> None:
        """Map the weights in `folder`.

        Raises:
            ModelError: A header is damaged.
            ModelUnavailable: There are no weights.
            UnsafeModelFile: The weights are only available as a pickle.
        """
        self._entries: dict[str, tuple[NDArray[np.uint8], str, tuple[int, ...]]] = {}
        for file in weight_files(folder):
            self._map(file)

    def _map(self, file: Path) -> None:
        try:
            # Copy-on-write, because runtimes use only writeable arrays without copying them.
            data = np.memmap(file, np.uint8, "c")
            start = 8 + int.from_bytes(data[:8].tobytes(), "little")
            header: dict[str, Any] = json.loads(data[8:start].tobytes())
            header.pop("__metadata__", None)
            for name, entry in header.items():
                begin, end = entry["data_offsets"]
                shape = tuple(int(size) for size in entry["shape"])
                kind = str(entry["dtype"])
                if kind not in _WIDTHS:
                    continue  # position ids and the like, which no runtime reads
                if (
                    not 0 <= begin <= end <= len(data) - start
                    or end - begin != math.prod(shape) * _WIDTHS[kind]
                ):
                    raise _damaged(file, f"the tensor {name!r} does not fit its shape {shape}")
                self._entries[name] = (data[start + begin : start + end], kind, shape)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _damaged(file, str(error)) from error

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """Return a tensor."""
        data, kind, shape = self._entries[name]
        if kind == "BF16":  # the upper half of a float32
            return (_view(data, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
        stored = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[kind]
        return _view(data, stored).astype(np.float32, copy=False).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._entries)

    def __len__(self) -> int:
        """Return how many tensors there are."""
        return len(self._entries)


def _view(data: NDArray[np.uint8], kind: str) -> NDArray[Any]:
    """Return bytes as numbers, copied if they are not aligned: the format does not promise it."""
    width = np.dtype(kind).itemsize
    aligned = data.ctypes.data % width == 0
    return np.asarray(data if aligned else data.copy()).view(kind)


def _damaged(file: Path, problem: str) -> ModelError:
    return ModelError(f"{file} is damaged: {problem}.", hint=_DAMAGED)

"""The weight files of a model: safetensors only, identified by their SHA-256.

Owns finding, checking and hashing the weight files of one module's directory. Must not know what
the tensors are for. Imports neither torch nor safetensors: the header of the format is JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import BinaryIO, cast

from retriever.encoders.user_cache import stamped
from retriever.errors import ModelError, ModelUnavailable, UnsafeModelFile

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")
_OTHER_FORMATS = (
    *("*.onnx", "onnx/*.onnx", "*.gguf", "openvino/*.xml", "openvino_model.xml"),
    *("tf_model.h5", "flax_model.msgpack", "rust_model.ot"),
)
_CHUNK = 1 << 20


def weights_sha256(folder: Path) -> str:
    """Return the SHA-256 of a directory's weights; of several files, of their names and hashes.

    A file whose `stat` has not changed since it was hashed is not read again.

    Raises:
        ModelError: A file is damaged.
        ModelUnavailable: There are no weights, or some files of them are missing.
        UnsafeModelFile: The weights are only available as a pickle.
    """
    files = weight_files(folder)
    # The plain hash of the file is what publishers state, and what `resolve_model` compares.
    if [file.name for file in files] == [_SINGLE]:
        return _file_sha256(files[0])
    digest = hashlib.sha256()
    for shard in files:
        digest.update(f"{shard.name}:{_file_sha256(shard)}\n".encode())
    return digest.hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a directory: one, or the shards that its index names.

    Raises:
        ModelError, ModelUnavailable, UnsafeModelFile: As `weights_sha256`.
    """
    single, index = folder / _SINGLE, folder / _INDEX
    if single.is_file():
        return [single]
    if not index.is_file():
        raise _no_weights(folder)
    shards = []
    for name in _shard_names(index):
        shard = folder / name
        # An index from elsewhere must not name a file outside of its own folder.
        if Path(name).name != name or not shard.is_file():
            raise ModelUnavailable(
                f"{index} names the weights {name!r}, which are not beside it.",
                hint="Copy or download the model again, completely.",
            )
        shards.append(shard)
    return shards


def _file_sha256(file: Path) -> str:
    return cast(str, stamped("weights", file, _check_and_hash))


def _shard_names(index: Path) -> list[str]:
    try:
        names = sorted(
            {str(name) for name in json.loads(index.read_bytes())["weight_map"].values()}
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"{index} is damaged: it maps no tensors to files.",
            hint="Copy or download the model again.",
        ) from error
    return names


def _no_weights(folder: Path) -> ModelError:
    pickles = [file for pattern in _PICKLES for file in sorted(folder.glob(pattern))]
    if pickles:
        return UnsafeModelFile(
            f"The weights in {folder} are only available as {pickles[0].name}, a pickle, which can "
            "run code when it is loaded.",
            hint="If you trust them, convert them: `AutoModel.from_pretrained(path)"
            f".save_pretrained(path)` writes {_SINGLE}.",
        )
    others = [file for pattern in _OTHER_FORMATS for file in sorted(folder.glob(pattern))]
    if others:
        return ModelUnavailable(
            f"The weights in {folder} are only available as {others[0].relative_to(folder)}, a "
            "format that is not supported.",
            hint=f"Get the model with its {_SINGLE}: its publisher usually has that too, and "
            "`SentenceTransformer(name).save(path)` writes it.",
        )
    return ModelUnavailable(
        f"{folder} has no {_SINGLE}.",
        hint="Copy or download the model again, completely; one that is published only as a pickle "
        "must be converted first.",
    )


def _check_and_hash(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        _check_header(file, stream)
        stream.seek(0)
        while block := stream.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def _check_header(file: Path, stream: BinaryIO) -> None:
    """Refuse a file that its tensors do not fill exactly: it is truncated or not safetensors."""
    size = os.fstat(stream.fileno()).st_size
    length = int.from_bytes(stream.read(8), "little")
    end = -1
    try:
        # A damaged length may be as large as 2**64; the file limits what is read.
        entries = json.loads(stream.read(min(length, size)))
        entries.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (ValueError, AttributeError, KeyError, TypeError, IndexError, RecursionError):
        pass  # not a header at all: `end` says so
    if end != size - 8 - length:
        raise ModelError(
            f"{file} is damaged: its {size:,} bytes are not what its header describes.",
            hint="Copy or download the model again.",
        )

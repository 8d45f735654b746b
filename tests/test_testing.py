"""`retriever.testing`: its checks pass what keeps the protocol and name what breaks it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from cross_encoders import save_with_numpy

from retriever import InvalidConfig, InvalidQuery, ModelError, RetrieverError, Tokens
from retriever.encoders.bi_encoder import load_encoder
from retriever.encoders.cross_encoder import load_cross_encoder
from retriever.testing import (
    HashEncoder,
    WordTokenizer,
    check_encoder,
    check_reranker,
    exact_search,
    unit_vectors,
)


class Letters:
    """A minimal encoder of somebody else's: one number a letter, tokens of one character."""

    identity: ClassVar = {"name": "letters", "version": 1}
    dimension = 27
    max_tokens = 1_000_000

    class tokenizer:
        @staticmethod
        def tokenize(texts: Sequence[str]) -> list[Tokens]:
            starts = [np.arange(len(text), dtype=np.int32) for text in texts]
            return [Tokens(one, one + 1, np.zeros(len(one), bool)) for one in starts]

    tokenizer = tokenizer()

    def encode_documents(self, texts: Sequence[str]) -> list[list[float]]:
        return [
            [text.lower().count(letter) + 0.5 for letter in "abcdefghijklmnopqrstuvwxyz"]
            + [len(text)]
            for text in texts
        ]

    encode_queries = encode_documents


class Spoilt(HashEncoder):
    """A hash encoder with one answer spoilt: it is given the method's answer and the texts."""

    def __init__(self, method: str, spoil: Callable[[Any, Sequence[str]], Any]) -> None:
        super().__init__(max_tokens=64)
        whole = getattr(self, method)
        setattr(self, method, lambda texts: spoil(whole(texts), texts))


class Tokenizing(HashEncoder):
    """A hash encoder whose tokens are spoilt."""

    def __init__(self, spoil: Callable[[list[Tokens], Sequence[str]], Any]) -> None:
        super().__init__()
        words = WordTokenizer()

        class Tokenizer:
            def tokenize(self, texts: Sequence[str]) -> Any:
                return spoil(words.tokenize(texts), texts)

        self.tokenizer = Tokenizer()


class Counting(WordTokenizer):
    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(one) + 2 for one in self.tokenize(texts)]


class Short(HashEncoder):
    """Reads half of the window that it names."""

    def _encode(self, texts: Sequence[str]) -> np.ndarray:
        return HashEncoder(max_tokens=16)._encode(texts)


class Changing(HashEncoder):
    """Counts its calls in its identity."""

    @property
    def identity(self) -> dict[str, Any]:
        return {**super().identity, "texts": len(self.encoded)}


class Shared(HashEncoder):
    """Keeps the texts of a call where the next one overwrites them."""

    def _encode(self, texts: Sequence[str]) -> np.ndarray:
        self.texts = texts
        time.sleep(0.02)
        return super()._encode(self.texts)


class Precise(HashEncoder):
    """Has a precision, and other vectors in float32."""

    precision = "float16"
    is_automatic = False

    def __init__(self, dimension: int = 32) -> None:
        super().__init__()
        self._float32 = HashEncoder(dimension, salt="other")

    def in_float32(self) -> HashEncoder:
        return self._float32

    def encode_exactly(self, texts: Sequence[str]) -> np.ndarray:
        return self._encode(texts)


def over(**attributes: Any) -> HashEncoder:
    encoder = HashEncoder()
    for name, value in attributes.items():
        setattr(encoder, name, value)
    return encoder


def noise(vectors: np.ndarray, _: object) -> np.ndarray:
    return vectors + np.random.default_rng().normal(0, 0.1, vectors.shape)


def truncated(found: list[Tokens], _: object) -> list[Tokens]:
    return [Tokens(t.starts[:32], t.ends[:32], t.unknown[:32]) for t in found]


def in_bytes(found: list[Tokens], texts: Sequence[str]) -> list[Tokens]:
    def offset(text: str, position: int) -> int:
        return len(text[:position].encode())

    return [
        Tokens(
            np.array([offset(text, start) for start in tokens.starts], np.int32),
            np.array([offset(text, end) for end in tokens.ends], np.int32),
            tokens.unknown,
        )
        for tokens, text in zip(found, texts, strict=True)
    ]


def padded(found: list[Tokens], _: object) -> list[Tokens]:
    longest = max((len(tokens) for tokens in found), default=0)

    def pad(part: np.ndarray) -> np.ndarray:
        last = part[-1:] if len(part) else np.zeros(1, part.dtype)
        return np.concatenate([part, np.repeat(last, longest - len(part))])

    return [Tokens(pad(t.starts), pad(t.ends), pad(t.unknown)) for t in found]


def by_batch(vectors: np.ndarray, _: object) -> np.ndarray:
    return vectors - vectors.mean(axis=0) if len(vectors) > 1 else vectors


BROKEN: dict[str, tuple[Callable[[], Any], type[RetrieverError], str, str]] = {
    # name: encoder, error, message, hint
    "no encoder": (object, InvalidConfig, "no encoder", "encode_documents"),
    "a class": (lambda: HashEncoder, InvalidConfig, "the class HashEncoder", r"HashEncoder\("),
    "no dimension": (lambda: over(dimension=None), InvalidConfig, "dimension", "integer"),
    "no window": (lambda: over(max_tokens=0), InvalidConfig, "max_tokens", "integer"),
    "no tokenizer": (lambda: over(tokenizer=None), InvalidConfig, "tokenizer", "tokenize"),
    "identity of objects": (
        lambda: type("E", (HashEncoder,), {"identity": {"model": object()}})(),
        InvalidConfig,
        "identity",
        "strings",
    ),
    "identity that changes": (Changing, ModelError, "identity of .* after encoding", "counters"),
    "tokens truncated": (lambda: Tokenizing(truncated), ModelError, "characters", "truncation off"),
    "tokens padded": (lambda: Tokenizing(padded), ModelError, "never pad", "mask padding"),
    "offsets in bytes": (lambda: Tokenizing(in_bytes), ModelError, "offsets in", "to the length"),
    "tokens of nothing": (
        lambda: Tokenizing(lambda found, _: found or found.append),
        ModelError,
        "tokenize",
        "list of Tokens",
    ),
    "tokens of other texts": (
        lambda: Tokenizing(lambda _, texts: WordTokenizer().tokenize(sorted(texts, key=len))),
        ModelError,
        "offsets|other tokens",
        "order|length",
    ),
    "counts with special tokens": (
        lambda: over(tokenizer=Counting()),
        ModelError,
        "count_tokens",
        "special tokens",
    ),
    "a window that is not read": (Short, ModelError, "32 tokens that differ in the last", "window"),
    "threads": (Shared, ModelError, "another thread meanwhile", "lock"),
    "another in float32": (Precise, ModelError, "encode_exactly", "agree"),
    "of other length in float32": (lambda: Precise(16), ModelError, "dimension 16", "32"),
}
for _role in ("encode_documents", "encode_queries"):
    for _name, (_spoil, _message, _hint) in {
        "narrow": (lambda v, _: v[:, :6], r"shape \(\d+, 6\)", "a row of 32"),
        "NaN": (lambda v, _: v * np.nan, "not finite", "a row of 32"),
        "zeros": (lambda v, _: v * 0, "zero vector", "a row of 32"),
        "strings": (lambda v, _: v.astype(str), "strings", "a row of 32"),
        "constant": (lambda v, _: v * 0 + 1, "same vector for every text", "depends on the text"),
        "random": (noise, "another vector .* is called again", "deterministic"),
        "sorted": (
            lambda v, texts: v[np.argsort([len(t) for t in texts])],
            "in another order",
            "sorting by length",
        ),
        "of the batch": (by_batch, "another order|one text alone", "undo|others of its call"),
        "None for none": (lambda v, texts: v if texts else None, "empty list", "empty array"),
    }.items():
        BROKEN[f"{_role}: {_name}"] = (
            lambda role=_role, spoil=_spoil: Spoilt(role, spoil),
            ModelError,
            f"{_role} of the encoder .*{_message}",
            _hint,
        )


@pytest.mark.parametrize(
    "encoder",
    [HashEncoder(), HashEncoder(8, max_tokens=1), HashEncoder(64, max_tokens=500), Letters()],
    ids=["hash", "a window of one token", "a window of 500", "lists and characters"],
)
def test_an_encoder_that_keeps_the_protocol_passes(encoder: Any):
    assert check_encoder(encoder) is None


@pytest.mark.model
def test_the_model_that_comes_with_the_package_passes():
    check_encoder(load_encoder("all-MiniLM-L6-v2"))


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_the_protocol_is_named_with_the_remedy(name: str):
    make, error, message, hint = BROKEN[name]
    encoder = make()
    with pytest.raises(error, match=message) as caught:
        check_encoder(encoder)
    assert type(caught.value) is error
    assert re.search(hint, caught.value.hint), caught.value.hint


# --- rerankers -----------------------------------------------------------------------------------


class Overlap:
    """Counts the words that a text shares with the query."""

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        return [len(set(query.split()) & set(text.split())) for text in texts]


class Spoiling(Overlap):
    def __init__(self, spoil: Callable[[np.ndarray, Sequence[str]], Any]) -> None:
        self._spoil = spoil

    def score(self, query: str, texts: Sequence[str]) -> Any:
        return self._spoil(np.array(super().score(query, texts), float), texts)


WRONG_SCORES: dict[str, tuple[Callable[[np.ndarray, Sequence[str]], Any], str, str]] = {
    "none": (lambda s, _: None, "None|shape", "."),
    "columns": (lambda s, _: s[:, None], "shape", "."),
    "one short": (lambda s, _: s[1:], "shape", "a finite number"),
    "infinite": (lambda s, _: s + np.inf, "not finite", "a finite number"),
    "constant": (lambda s, _: s * 0 + 7, "7 for every text", "how well"),
    "random": (
        lambda s, _: s + np.random.default_rng().normal(size=len(s)),
        "is called again",
        "deterministic",
    ),
    "sorted": (lambda s, _: np.sort(s), "another order", "order of the texts"),
    "ranks": (lambda s, _: s / max(s.sum(), 1), "one text alone", "others of its call"),
}


def test_a_reranker_that_keeps_the_protocol_passes(tmp_path: Path):
    check_reranker(Overlap())
    save_with_numpy(tmp_path / "model")
    check_reranker(load_cross_encoder(tmp_path / "model"))


@pytest.mark.parametrize("name", WRONG_SCORES)
def test_a_reranker_that_breaks_the_protocol_is_named(name: str):
    spoil, message, hint = WRONG_SCORES[name]
    with pytest.raises(ModelError, match=f"score of .*Spoiling.*({message})") as caught:
        check_reranker(Spoiling(spoil))
    assert re.search(hint, caught.value.hint)


def test_what_cannot_score_is_no_reranker():
    with pytest.raises(InvalidQuery, match="rerank is"):
        check_reranker(object())


# --- the rest ------------------------------------------------------------------------------------


def test_exact_search_orders_by_cosine_and_then_by_position():
    vectors = unit_vectors(50, 8, seed=1)
    vectors[7] = vectors[3]
    found = exact_search(vectors, vectors[3], 50)
    assert [position for position, _ in found[:2]] == [3, 7]
    assert found[0][1] == pytest.approx(1)
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    assert {position for position, _ in found} == set(range(50))
    assert np.array_equal(unit_vectors(50, 8, seed=2), unit_vectors(50, 8, seed=2))


def test_the_module_imports_neither_pytest_nor_a_model():
    code = (
        "import sys, retriever.testing; from retriever.testing import HashEncoder, check_encoder;"
        "check_encoder(HashEncoder());"
        "heavy = {'pytest', 'torch', 'transformers', 'openvino', 'faiss', 'sqlite3'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

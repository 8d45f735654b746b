"""Encoders and rerankers of somebody else's: what is wrong with them is said, and never stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retriever import (
    Document,
    Index,
    InvalidConfig,
    InvalidQuery,
    ModelError,
    ModelMismatch,
    ModelUnavailable,
    RetrieverError,
    Tokens,
)
from retriever.testing import HashEncoder, WordTokenizer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.index"


class Answering(HashEncoder):
    """A hash encoder whose answers are spoiled: documents, queries."""

    def __init__(
        self,
        documents: Callable[[np.ndarray], Any] = lambda vectors: vectors,
        queries: Callable[[np.ndarray], Any] = lambda vectors: vectors,
    ) -> None:
        super().__init__()
        self._documents, self._queries = documents, queries

    def encode_documents(self, texts: Sequence[str]) -> Any:
        return self._documents(super().encode_documents(texts))

    def encode_queries(self, texts: Sequence[str]) -> Any:
        return self._queries(super().encode_queries(texts))


async def later(vectors: np.ndarray) -> np.ndarray:
    return vectors


def fails(vectors: np.ndarray) -> np.ndarray:
    raise ConnectionError("503 Service Unavailable")


WRONG_VECTORS: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "narrow": (lambda v: v[:, :6], r"shape \(\d+, 6\)"),
    "wide": (lambda v: np.hstack([v, v]), r"shape \(\d+, 64\)"),
    "a row short": (lambda v: v[1:], "shape"),
    "flat": (lambda v: v.ravel(), "shape"),
    "None": (lambda v: None, "returned None"),
    "a number": (lambda v: 1.0, "shape"),
    "NaN": (lambda v: v * np.nan, "not finite for text 0"),
    "one infinity": (lambda v: np.where(np.eye(*v.shape) > 0, np.inf, v), "not finite"),
    "infinite in float64": (lambda v: np.full(v.shape, np.inf), "not finite"),
    "zeros": (lambda v: v * 0, "zero vector"),
    "strings": (lambda v: v.astype(str), "an ndarray of strings"),
    "complex": (lambda v: v.astype(complex), "complex"),
    "truth": (lambda v: v > 0, "bool"),
    "Decimals": (lambda v: [[Decimal(1)] * v.shape[1]] * len(v), "object"),
    "ragged": (lambda v: [row[: 5 + i % 2] for i, row in enumerate(v.tolist() * 2)], "no array"),
    "a generator": (lambda v: (row for row in v), "a generator"),
    "a coroutine": (later, "a coroutine"),
    "masked": (lambda v: np.ma.masked_greater(v, 0), "masked"),
    "an exception": (fails, "failed: ConnectionError: 503"),
}
RIGHT_VECTORS: dict[str, Callable[[np.ndarray], Any]] = {
    "lists": lambda v: v.tolist(),
    "float64": lambda v: v.astype(np.float64),
    "float16": lambda v: v.astype(np.float16),
    "long": lambda v: v * 1000,
    "too long for float32": lambda v: v.astype(np.float64) * 1e300,
    "too short for float32": lambda v: v.astype(np.float64) * 1e-300,
    "of a length that float32 cannot square": lambda v: v * np.float32(1e30),
    "of a length whose square float32 takes for zero": lambda v: v * np.float32(1e-30),
    "whole numbers": lambda v: np.round(v * 1e6).astype(np.int64),
    "a list of arrays": list,
    "by columns": np.asfortranarray,
}


@pytest.mark.parametrize("name", WRONG_VECTORS)
def test_an_encoder_that_is_wrong_makes_no_index_and_the_mended_one_does(path: Path, name: str):
    mistake, message = WRONG_VECTORS[name]
    with pytest.raises(ModelError, match=f"encode_documents of the encoder.*{message}") as caught:
        Index.open(path, model=Answering(documents=mistake))
    assert not isinstance(caught.value, ModelMismatch)
    assert caught.value.hint
    assert not path.exists()
    with Index.open(path, model=Answering()) as index:
        assert index.add(["a b"]).added == 1


@pytest.mark.parametrize("name", WRONG_VECTORS)
def test_what_turns_wrong_later_is_not_stored(path: Path, name: str):
    mistake, message = WRONG_VECTORS[name]
    encoder = Answering()
    with Index.open(path, model=encoder) as index:
        index.add(["a b", "c d"])
        encoder._documents = encoder._queries = mistake
        with pytest.raises(ModelError, match=f"encode_queries of the encoder.*{message}"):
            index.search("a b")
        with pytest.raises(ModelError, match=f"encode_documents of the encoder.*{message}"):
            index.add(["e f", "g h"])
        assert index.count() == 2
        encoder._documents = encoder._queries = lambda vectors: vectors
        assert index.add(["e f", "g h"]).added == 2
        assert index.search("e f", k=1)[0].text == "e f"


@pytest.mark.parametrize("name", RIGHT_VECTORS)
def test_any_array_of_numbers_is_taken(path: Path, name: str):
    same = RIGHT_VECTORS[name]
    with Index.open(path, model=Answering(same, same)) as index:
        index.add(["a b", "c d"])
        (hit,) = index.search("a b", k=1)
        assert (hit.text, round(hit.scores["dense"], 4)) == ("a b", 1.0)
    with Index.open(path, model=Answering()) as index:
        assert index.search("a b", k=1)[0].text == "a b"


class Plain:
    """An encoder whose every attribute can be set."""

    def __init__(self, **over: Any) -> None:
        inner = HashEncoder()
        for name in ("identity", "dimension", "max_tokens", "tokenizer"):
            setattr(self, name, over.get(name, getattr(inner, name)))
        self.encode_documents = over.get("encode_documents", inner.encode_documents)
        self.encode_queries = over.get("encode_queries", inner.encode_queries)


class Sentences:
    """As a model of another library looks: it encodes, and is no Encoder."""

    tokenizer = None

    def encode(self, texts: Sequence[str]) -> list[list[float]]:
        return [[1.0]] * len(texts)


class Raising(HashEncoder):
    @property
    def identity(self) -> dict[str, Any]:
        raise OSError("no network")


class Rude:
    def __repr__(self) -> str:
        raise ValueError("no repr")


cyclic: dict[str, Any] = {"name": "x"}
cyclic["self"] = cyclic
NO_ENCODERS: dict[str, tuple[Any, str]] = {
    "a number": (7, "model is 7, an int"),
    "bytes": (b"all-MiniLM-L6-v2", "bytes"),
    "a function": (lambda texts: texts, "no encoder"),
    "a class": (HashEncoder, "the class HashEncoder"),
    "another library's": (Sentences(), "no identity, dimension, max_tokens, encode_documents"),
    "one without a repr": (Rude(), "whose repr fails"),
    "a method that is none": (Plain(encode_queries=5), "encode_queries cannot be called"),
    "an attribute that fails": (Raising(), "identity of the encoder Raising failed: OSError"),
    **{
        f"dimension {value!r}": (Plain(dimension=value), "dimension of the encoder Plain is")
        for value in (0, -1, "64", None, 32.0, True, 2**70)
    },
    **{
        f"max_tokens {value!r}": (Plain(max_tokens=value), "max_tokens of the encoder Plain is")
        for value in (0, None, "9", float("inf"))
    },
    **{
        f"identity {value!r:.30}": (Plain(identity=value), "identity of the encoder Plain")
        for value in (
            None,
            {},
            [1],
            "name",
            {"name": 5},
            {1: 2},
            {"v": b"bytes"},
            {"v": {1, 2}},
            {"v": float("nan")},
            {"v": b"x"},
            {"v": 10**30},
            {"v": "\ud800"},
            {"v": "x" * 2_000_000},
            cyclic,
        )
    },
    **{
        f"tokenizer {value!r:.20}": (Plain(tokenizer=value), "has no tokenize")
        for value in (None, 5, WordTokenizer, "bert")
    },
}


@pytest.mark.parametrize("name", NO_ENCODERS)
def test_what_is_no_encoder_is_refused_in_words_at_the_door(path: Path, name: str):
    model, message = NO_ENCODERS[name]
    with pytest.raises(RetrieverError, match=message) as caught:
        Index.open(path, model=model)
    assert isinstance(caught.value, InvalidConfig | ModelError)
    assert caught.value.hint
    assert not path.exists()
    with Index.open(path, model=HashEncoder()) as index:
        with pytest.raises(RetrieverError, match=message):
            index.rebuild(model=model)
        with pytest.raises(RetrieverError, match=message):
            Index.open(path, model=model)
        assert index.add("still works").added == 1


def test_tuples_and_numpy_numbers_of_an_identity_are_json(path: Path):
    identity = {
        "name": "x",
        "sizes": (1, 2),
        "alpha": np.float64(0.5),
        "n": np.int64(3),
        "on": np.bool_(True),
        "weights": np.array([1, 2]),
    }
    model = Plain(identity=identity, dimension=np.int64(32), max_tokens=np.int32(32))
    with Index.open(path, model=model) as index:
        index.add(["a b"])
        stored = index.status()
    with Index.open(path, model=model) as index:
        assert index.search("a b", k=1)[0].text == "a b"
        assert index.status().model == stored.model
    plain = {"name": "x", "sizes": [1, 2], "alpha": 0.5, "n": 3, "on": True, "weights": [1, 2]}
    Index.open(path, model=Plain(identity=plain)).close()
    with pytest.raises(ModelMismatch) as caught:
        Index.open(path, model=Plain(identity={**plain, "n": 4}))
    assert caught.value.field == "n"


def test_an_encoder_of_another_width_is_refused_though_its_identity_is_the_same(path: Path):
    Index.open(path, model=Plain(identity={"name": "x"})).close()
    wide = HashEncoder(dimension=64)
    model = Plain(identity={"name": "x"}, dimension=64, encode_documents=wide.encode_documents)
    with pytest.raises(ModelMismatch) as caught:
        Index.open(path, model=model)
    assert (caught.value.field, caught.value.expected, caught.value.actual) == ("dimension", 32, 64)


class Spoiling:
    """A tokenizer whose answer is spoiled where a text says so."""

    def __init__(self, spoil: Callable[[list[Tokens]], Any]) -> None:
        self._spoil = spoil

    def tokenize(self, texts: Sequence[str]) -> Any:
        return self._spoil(WordTokenizer().tokenize(texts))


def moved(by: int) -> Callable[[list[Tokens]], list[Tokens]]:
    return lambda found: [Tokens(one.starts + by, one.ends + by, one.unknown) for one in found]


WRONG_TOKENS: dict[str, tuple[Callable[[list[Tokens]], Any], str]] = {
    "none": (lambda found: None, "returned None"),
    "too few": (lambda found: found[1:], "for 1 texts"),
    "dicts": (lambda found: [{"starts": []} for _ in found], "a dict"),
    "beyond the text": (moved(2), "of a text of 7 characters"),
    "before the text": (moved(-1), "of a text of 7 characters"),
    "descending": (
        lambda found: [Tokens(t.starts[::-1], t.ends[::-1], t.unknown) for t in found],
        "descend",
    ),
    "of two lengths": (
        lambda found: [Tokens(t.starts, t.ends[:1], t.unknown) for t in found],
        "arrays of",
    ),
    "floats": (
        lambda found: [Tokens(t.starts * 1.0, t.ends * 1.0, t.unknown) for t in found],
        "offsets of float64",
    ),
    "an exception": (lambda found: found[9], "failed: IndexError"),
}


@pytest.mark.parametrize("name", WRONG_TOKENS)
def test_a_tokenizer_that_is_wrong_is_named(path: Path, name: str):
    spoil, message = WRONG_TOKENS[name]
    with Index.open(path, model=Plain(tokenizer=Spoiling(spoil))) as index:
        with pytest.raises(ModelError, match=f"tokenize of the tokenizer.*{message}"):
            index.add(["one two"])
        assert index.count() == 0


def test_lists_and_wide_integers_are_taken_for_tokens(path: Path):
    def plain(found: list[Tokens]) -> list[Tokens]:
        return [Tokens(list(map(int, t.starts)), t.ends.astype(np.int64), t.unknown) for t in found]

    with Index.open(path, model=Plain(tokenizer=Spoiling(plain))) as index:
        assert index.add([Document("one two three " * 30, id="a")]).tokens == 90
        assert len(index.chunks("a")) > 1


def test_only_what_is_declared_is_looked_at(path: Path):
    """An attribute that happens to have a name of ours, and means something else, does no harm."""

    class Busy(HashEncoder):
        precision = 3
        cache_key = staticmethod(lambda: "x")

        def settle(self, price: float) -> None:
            raise AssertionError

        def encode_exactly(self) -> None:
            raise AssertionError

    with Index.open(path, model=Busy()) as index:
        index.add(["a b"])
        assert index.search("a b", k=1)[0].text == "a b"


def test_an_encoder_that_shares_its_name_with_a_model_is_not_taken_for_it(path: Path):
    with Index.open(path, model=Plain(identity={"name": "all-MiniLM-L6-v2", "v": 1})) as index:
        index.add(["a b"])
    own = "an encoder of the caller's own"
    with Index.open(path) as index, pytest.raises(ModelUnavailable, match=f"{own}, 'all-MiniLM"):
        index.search("a b")
    path = path.with_name("nameless")
    with Index.open(path, model=Plain(identity={"v": 1})) as index:
        index.add(["a b"])
    with Index.open(path) as index, pytest.raises(ModelUnavailable, match=f"{own}\\."):
        index.search("a b")


def test_an_identity_cannot_say_that_there_is_no_encoder(path: Path):
    with pytest.raises(InvalidConfig, match="vectors_only"):
        Index.open(path, model=Plain(identity={"name": "x", "vectors_only": True}))
    assert not path.exists()


def test_members_of_an_enum_of_strings_are_their_values(path: Path):
    class Kind(str, Enum):  # noqa: UP042 - the one whose str() is not its value
        MAIL = "mail"

    identity = {"name": Kind.MAIL, Kind.MAIL: [Kind.MAIL]}
    with Index.open(path, model=Plain(identity=identity)) as index:
        index.add([Document("a b", id="a", metadata={"kind": Kind.MAIL, Kind.MAIL: [Kind.MAIL]})])
        assert index.get("a") == Document("a b", "a", {"kind": "mail", "mail": ["mail"]})
        assert index.search("a b")[0].metadata == {"kind": "mail", "mail": ["mail"]}
    Index.open(path, model=Plain(identity={"name": "mail", "mail": ["mail"]})).close()


class Unnameable:
    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        return [1.0] * len(texts)

    @property
    def name(self) -> str:
        raise ValueError("no name")


class Unreachable:
    def __getattr__(self, name: str) -> Any:
        raise ConnectionError("no server")


@pytest.mark.parametrize("kind", [Unnameable, Unreachable])
def test_a_reranker_that_cannot_be_looked_at_is_named(path: Path, kind: type):
    with Index.open(path, model=HashEncoder()) as index:
        index.add(["a b"])
        with pytest.raises(ModelError, match=f"of the reranker {kind.__name__} failed"):
            index.search("a b", rerank=kind())


NO_NAMES = ["", "  ", "x" * 5000, "x/" * 3000, "a\0b", "\ud800", "~nobody.x/m"]


@pytest.mark.parametrize("name", NO_NAMES, ids=range(len(NO_NAMES)))
def test_a_name_that_no_model_can_have_is_refused_in_words(path: Path, name: str):
    with pytest.raises(RetrieverError) as caught:
        Index.open(path, model=name)
    assert isinstance(caught.value, InvalidConfig | ModelUnavailable)
    assert caught.value.hint
    str(caught.value).encode()
    with Index.open(path, model=HashEncoder()) as index:
        index.add(["a b"])
        with pytest.raises(RetrieverError) as caught:
            index.search("a b", rerank=name)
        assert isinstance(caught.value, InvalidQuery | ModelUnavailable)

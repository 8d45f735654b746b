"""Questions of any length and script: read whole, in windows, or refused, and never in silence."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import retriever
from retriever import Index
from retriever.canonical import unit_vector
from retriever.encoders.bi_encoder import load_encoder
from retriever.encoders.computing import Computing
from retriever.encoders.plugged import plug
from retriever.encoders.protocol import Tokens
from retriever.search import query_encoding
from retriever.testing import HashEncoder

MODEL = "all-MiniLM-L6-v2"


class PairTokens(HashEncoder):
    """An encoder whose tokenizer makes two tokens of every character."""

    def __init__(self) -> None:
        super().__init__(max_tokens=16)
        self.tokenizer = self

    def tokenize(self, texts):
        return [
            Tokens(
                np.repeat(np.arange(len(text), dtype=np.int32), 2),
                np.repeat(np.arange(1, len(text) + 1, dtype=np.int32), 2),
                np.zeros(2 * len(text), bool),
            )
            for text in texts
        ]


@pytest.fixture(scope="module")
def model():
    return load_encoder(MODEL, Computing(precision="float32"))


@pytest.fixture
def index(tmp_path: Path):
    with Index.open(tmp_path / "x.index", model=HashEncoder(max_tokens=16)) as opened:
        opened.add(["the pump is red", "tides come late", "a ferry at noon"])
        yield opened


def test_a_question_over_the_window_is_read_in_windows(index: Index):
    results = index.search(f"{'word ' * 30}. Which pump is red?")
    assert "36 tokens read in 3 windows of at most 16, their vectors averaged" in results.plan
    assert results[0].text == "the pump is red"
    assert "windows" not in index.search("word").plan
    many = index.search_many(["word", f"{'word ' * 30}. Which pump is red?", "ferry"])
    assert [hit.score for hit in many[1]] == [hit.score for hit in results]
    assert [hit.score for hit in many[2]] == [hit.score for hit in index.search("ferry")]


def test_the_vector_of_windows_is_the_mean_of_theirs(model):
    text = " ".join(f"Sentence {n} says that the pump of hall {n % 7} is red." for n in range(60))
    (whole,) = query_encoding.embed(model, [text])
    assert whole.windows > 2
    windows = query_encoding._read(model, text).windows
    assert max(model.tokenizer.count_tokens(windows)) <= model.max_query_tokens
    assert " ".join(windows) == text
    units = [unit_vector(vector, 384) for vector in model.encode_queries(windows)]
    assert np.allclose(whole.vector, unit_vector(np.sum(units, axis=0), 384), atol=1e-6)


@pytest.mark.parametrize(
    "question",
    ["펌프를 어떻게 재설정합니까 " * 20, "ü" * 3000, "word " * 5000, "0123456789abcdef" * 500],
    ids=["korean", "one word", "words", "hexadecimal"],
)
def test_what_is_said_is_true_for_the_real_tokenizer(model, question: str):
    (one,) = query_encoding.embed(model, [question])
    tokens = model.tokenizer.count(question)
    assert (one.windows > 1) == (tokens > model.max_query_tokens)
    assert ("windows" in one.note) == (one.windows > 1)
    assert all(
        count <= model.max_query_tokens or len(window) == 1
        for window in query_encoding._read(model, question).windows
        for count in model.tokenizer.count_tokens([window])
    )


def test_a_tokenizer_may_make_more_tokens_than_there_are_characters():
    (one,) = query_encoding.embed(plug(PairTokens()), ["ten letters"])
    assert one.windows > 1
    assert "22 tokens" in one.note


@pytest.mark.parametrize("question", ["🎉", "วิธีรีเซ็ตปั๊ม", "የፓምፕ ቁልፍ የት ነው"])
def test_a_question_that_the_vocabulary_lacks_says_so(model, question: str, caplog):
    with caplog.at_level(logging.WARNING, "retriever"):
        (one,) = query_encoding.embed(model, [question])
    assert "question mostly unknown" in one.note
    assert "question mostly unknown" in caplog.text


@pytest.mark.parametrize(
    "question", ["how do I reset the pump?", "Wo ist die Pumpe für Öl?", "水泵"]
)
def test_a_question_that_is_known_says_nothing(model, question: str, caplog):
    assert query_encoding.embed(model, [question])[0].note == ""
    assert not caplog.text


def test_a_short_question_in_ascii_is_not_tokenised_twice(model, monkeypatch: pytest.MonkeyPatch):
    query_encoding.embed(model, ["warm up"])
    monkeypatch.setattr(model.tokenizer, "tokenize", None)
    query_encoding.embed(model, ["how do I reset the pump?", "x" * 100])


def test_a_question_has_a_limit(index: Index):
    assert index.search("pump " * 20_000)
    with pytest.raises(retriever.LimitExceeded, match="10,000,000 characters") as caught:
        index.search("pump " * 2_000_000)
    assert (caught.value.limit, caught.value.option) == (100_000, "query")


def test_a_prompt_of_questions_leaves_less_room(model, tmp_path: Path):
    described = model.description
    longer = {**described.prompts, "query": "Represent this question for finding passages: "}
    other = type(model)(replace(described, prompts=longer))
    taken = other.tokenizer.count(longer["query"])
    assert other.max_query_tokens == model.max_tokens - taken


def test_a_reranker_that_cannot_read_all_of_it_is_said(index: Index):
    class Shortest:
        def score(self, query, texts):
            return [-float(len(text)) for text in texts]

    results = index.search("word " * 40, rerank=Shortest())
    assert "the reranker truncates the question to its window" in results.plan
    assert "reads the question" not in index.search("word", rerank=Shortest()).plan

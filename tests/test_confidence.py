"""The confidence in the best hit: what it is told from, when there is none, and what it is not."""

from __future__ import annotations

import math
from pathlib import Path

import command_line
import numpy as np
import pytest
from command_line import run, run_json

from retriever import Document, Index, Limits
from retriever.search import confidence
from retriever.search.background import LEAST, MOST, Background
from retriever.testing import HashEncoder, unit_vectors

small_models = command_line.small_models
WORDS = [f"word{n}" for n in range(500)]


def texts(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 12)) for _ in range(count)]


@pytest.fixture
def index(tmp_path: Path):
    with Index.open(tmp_path / "x.index", model=HashEncoder(dimension=256)) as opened:
        opened.add([Document(text, id=f"{n}") for n, text in enumerate(texts(200))])
        yield opened


def mean_of(index: Index) -> np.ndarray:
    index.search("x", k=1)
    view = index._views.newest
    assert view is not None
    mean = view.background.mean(view.parts, view.live)
    assert mean is not None
    return mean


def test_a_question_that_a_passage_answers_has_more_than_one_that_none_does(index: Index):
    sure = index.search(texts(200)[17]).confidence
    unsure = index.search("zymurgy quokka flummox").confidence
    assert sure is not None
    assert unsure is not None
    assert sure > 0.9
    assert unsure < 0.2


def test_it_does_not_depend_on_the_number_of_hits_nor_on_other_questions(index: Index):
    asked = [texts(200)[3], "word1 word2 word3"]
    alone = [index.search(one, k=1).confidence for one in asked]
    assert alone == [index.search(one, k=50).confidence for one in asked]
    assert alone == [one.confidence for one in index.search_many(asked, k=3)]


def test_copies_of_the_best_passage_are_no_rivals(index: Index):
    question = texts(200)[3]
    before = index.search(question).confidence
    index.add([Document(question, id=f"copy {n}") for n in range(12)])
    folded = index.search(question, k=2).confidence
    assert before is not None
    assert folded is not None
    assert folded == pytest.approx(before, abs=0.05)
    shown = index.search(question, k=2, fold=False).confidence
    assert shown is not None
    assert shown < folded - 0.02


def test_there_is_none_without_hits_or_in_a_small_index(tmp_path: Path):
    with Index.open(tmp_path / "x.index", model=HashEncoder()) as index:
        assert index.search("word1").confidence is None
        index.add([Document(text, id=f"{n}") for n, text in enumerate(texts(LEAST - 1))])
        for mode in ("dense", "lexical", "hybrid"):
            assert index.search("word1", mode=mode).confidence is None
        index.add("one more")
        for mode in ("dense", "lexical", "hybrid"):
            assert index.search("word1", mode=mode).confidence is not None
        for question in ("…", "nowhere"):
            assert index.search(question, mode="lexical").confidence is None
            assert index.search(question, mode="hybrid").confidence is not None


def test_the_background_depends_on_the_live_passages_alone(tmp_path: Path):
    count = 3 * MOST
    vectors = unit_vectors(count, 32, 5)
    documents = [
        Document(f"text {n}", id=f"{n:04}", embedding=vector) for n, vector in enumerate(vectors)
    ]
    gone = [f"{n:04}" for n in range(0, count, 7)]
    limits = Limits(tail_rows=100)
    with (
        Index.open(tmp_path / "a.index", dimension=32) as whole,
        Index.open(tmp_path / "b.index", dimension=32, limits=limits) as parts,
    ):
        whole.add(documents)
        for start in range(0, count, 300):
            parts.add(documents[start : start + 300])
            parts.search(vector=vectors[0])
        for index in (whole, parts):
            index.delete(gone)
            index.search(vector=vectors[0])
        view, other = whole._views.newest, parts._views.newest
        assert view is not None
        assert other is not None
        assert len(view.parts) != len(other.parts)
        mean = view.background.mean(view.parts, view.live)
        again = other.background.mean(other.parts, other.live)
        fresh = Background().mean(other.parts, other.live)
    assert mean is not None
    assert again is not None
    np.testing.assert_array_equal(mean, again)
    np.testing.assert_array_equal(again, fresh)
    kept = np.delete(vectors, range(0, count, 7), axis=0)
    assert np.abs(mean - kept.mean(axis=0)).max() < 0.05


def test_a_sample_is_bounded_and_not_of_one_part(tmp_path: Path):
    vectors = unit_vectors(5000, 8, 1)
    with Index.open(tmp_path / "x.index", dimension=8) as index:
        index.add([Document(f"{n}", id=f"{n}", embedding=one) for n, one in enumerate(vectors)])
        index.search(vector=vectors[0])
        view = index._views.newest
        assert view is not None
        view.background.mean(view.parts, view.live)
        sample = view.background._sample
    assert sample is not None
    assert MOST / 2 * 0.7 < len(sample.ids) < MOST * 1.3
    assert np.histogram(sample.ids, 5, (1, 5001))[0].min() > 20


def test_damaged_vectors_of_a_segment_make_no_score_of_nothing(index: Index):
    mean_of(index)
    view = index._views.newest
    assert view is not None

    class Damaged:
        ids = view.parts[-1].ids

        def vectors_at(self, positions):
            return np.full((len(positions), 256), np.nan, np.float32)

    parts = [*view.parts[:-1], Damaged()]
    assert Background().mean(parts, view.live) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("background", [-1.0, 0.0, 0.99, 1.0])
def test_it_is_a_share_whatever_the_scores_are(background: float):
    for scores in ([1.0], [-1.0], [1.0, -1.0], [-1.0] * 10, [0.5, 0.5, 0.4]):
        for one in (
            confidence.of_cosines(scores, background),
            confidence.of_shares(scores),
            confidence.of_both(scores, scores, background),
        ):
            assert one is not None
            assert 0.0 <= one <= 1.0
            assert math.isfinite(one)
    assert confidence.of_cosines([], background) is None
    assert confidence.of_shares([]) is None
    assert confidence.of_both([], [], background) is None


def test_a_word_that_the_best_hit_lacks_lowers_it():
    cosines = [0.6, *[0.4] * 9]
    has = confidence.of_both(cosines, [0.8, *[0.3] * 9], 0.05)
    lacks = confidence.of_both(cosines, [0.1, *[0.05] * 9], 0.05)
    assert has is not None
    assert lacks is not None
    assert has > 0.8
    assert lacks < has - 0.3


@pytest.mark.usefixtures("small_models")
def test_the_command_line_says_what_it_is_when_it_is_asked_for(tmp_path: Path):
    with Index.open(tmp_path / ".retriever", model=HashEncoder()) as index:
        index.add([Document(text, id=f"{n}") for n, text in enumerate(texts(60))])
        nonsense = [" ".join(f"none{n}" for n in range(s, s + 30)) for s in range(0, 600, 30)]
        weak, question = min((index.search(one).confidence or 1.0, one) for one in nonsense)
    assert weak < 0.2
    assert run_json("search", question)["confidence"] == weak
    assert f"; confidence {weak:.2f};" in run("search", "--verbose", question).stderr
    assert "confidence" not in run("search", question).stderr


def test_a_code_that_stands_nowhere_has_less_than_one_that_does(tmp_path: Path):
    with Index.open(tmp_path / "x.index", model=HashEncoder(dimension=1024)) as index:
        index.add([Document(text, id=f"{n}") for n, text in enumerate(texts(60))])
        index.add([Document(f"{texts(1)[0]} ERR_CONN_{n}", id=f"code {n}") for n in range(40, 60)])
        for mode in ("lexical", "hybrid"):
            found = index.search("ERR_CONN_42", mode=mode)
            absent = index.search("ERR_NOPE_99", mode=mode)
            assert found[0].document_id == "code 42"
            assert found.confidence is not None
            assert (absent.confidence or 0.0) < found.confidence / 2
            assert found.confidence == index.search("ERR_CONN_42", mode=mode, k=1).confidence

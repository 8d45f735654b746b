"""The terms that a lexical search is for: of questions, beginnings of words and documents."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from retriever import Index
from retriever.documents.words import Term, question_terms
from retriever.search import asking, lexical, lexical_terms
from retriever.search.asking import Asked, mean_terms
from retriever.search.view import View
from retriever.testing import HashEncoder


@contextmanager
def viewed(index: Index) -> Iterator[tuple[View, sqlite3.Connection]]:
    with index._pool.transaction() as connection:
        yield index._views.at(connection), connection


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index.open(tmp_path / "x.index", model=HashEncoder()) as opened:
        opened.add(
            {"id": f"d{n}", "text": text, "metadata": {"language": "en"}}
            for n, text in enumerate(
                [
                    "The sluice gate and the sluice keeper of the tide mill",
                    "The universal pump of the university",
                    "A sluice keeper keeps the tide out",
                    *(f"The mill number {n} stands idle" for n in range(20)),
                ]
            )
        )
        opened.add({"id": "empty", "text": ""})
        yield opened


def asked_for(index: Index, what: Asked) -> tuple[list[Term], str]:
    with viewed(index) as (view, connection):
        return lexical_terms.of_asked(view, connection, what)


def question(text: str) -> Asked:
    return asking.question(text, operators=True)


def test_the_terms_of_a_question_are_those_of_its_words(index: Index):
    found = asked_for(index, question('sluice "tide mill" -pump'))
    assert found == (question_terms("sluice tide mill", ["en"]), "")


def test_the_beginning_of_a_word_is_one_term_of_all_words_that_begin_so(index: Index):
    (mill, keep), note = asked_for(index, question("keep* mill"))
    assert mill.alternatives == ("mill",)
    assert set(keep.alternatives) == {"keep", "keeper"}
    assert note == ""
    # "universi" is no beginning of the stem of "university".
    (term,), _ = asked_for(index, question("universi*"))
    with viewed(index) as (view, connection):
        assert len(lexical.rows_with(view, connection, term, view.live)) == 1
    (term,), _ = asked_for(index, question("ZZZ*"))
    assert term.alternatives == ("zzz",)


def test_parts_of_an_identifier_do_not_begin_as_it_does(index: Index):
    index.add([{"id": f"code {n}", "text": f"It ends with ERR_{n} then"} for n in (3, 40, 41)])
    results = index.search("ERR_4*", mode="lexical")
    assert {hit.document_id for hit in results} == {"code 40", "code 41"}


def test_too_many_words_that_begin_so_are_cut_and_the_note_says_so(
    index: Index, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lexical_terms, "MAX_PREFIX_TERMS", 2)
    index.add("station stable stack stage star")
    (term,), note = asked_for(index, question("sta*"))
    assert len(set(term.alternatives) - {"sta"}) == 2
    assert note == "; sta* stands for 2 of its words"


def test_phrasings_score_the_mean_of_what_each_scores(index: Index):
    phrasings = ["sluice keeper", "sluice tide mill", "pump"]
    fused, _ = asked_for(index, asking.fused(phrasings, operators=True))
    with viewed(index) as (view, connection):
        sums: dict[int, float] = {}
        for one in phrasings:
            terms, _ = lexical_terms.of_asked(view, connection, question(one))
            found = lexical.matches(view, connection, terms, view.live)
            for chunk_id, score in zip(found.ids.tolist(), found.scores.tolist(), strict=True):
                sums[chunk_id] = sums.get(chunk_id, 0) + score / len(phrasings)
        found = lexical.matches(view, connection, fused, view.live)
    assert dict(zip(found.ids.tolist(), found.scores.tolist(), strict=True)) == pytest.approx(sums)
    assert mean_terms([[Term(("a",))], [Term(("a",), 3.0), Term(("b",))]]) == [
        Term(("a",), 2.0),
        Term(("b",), 0.5),
    ]


def test_a_document_is_searched_for_by_its_most_characteristic_terms(index: Index):
    terms, _ = asked_for(index, Asked(document="d0"))
    words = [term.alternatives[0] for term in terms]
    # Rare words of it that others have too come first; "gate" is its own alone.
    assert set(words[:2]) == {"sluic", "keeper"}
    assert "gate" not in words
    assert words.index("tide") < words.index("mill")
    assert len(words) <= lexical_terms.CHARACTERISTIC_TERMS
    with viewed(index) as (view, connection):
        found = lexical.matches(view, connection, terms, view.live)
        best = found.ids[found.scores.argsort()[::-1]].tolist()
    hits = {hit.chunk_id: hit.document_id for hit in index.search("a", k=100, fold=False)}
    assert [hits[one] for one in best[:2]] == ["d0", "d2"]


def test_a_document_without_text_and_a_vector_have_no_terms(index: Index):
    assert asked_for(index, Asked(document="empty")) == ([], "")
    assert asked_for(index, Asked(vector=[1.0])) == ([], "")

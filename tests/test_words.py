"""What a word is: terms of texts and of questions."""

from __future__ import annotations

import pytest

from retriever.documents.words import Term, question_terms, terms_of


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("foo_bar()", "foo_bar foo bar"),
        ("getHTTPResponse", "gethttpresponse get http response"),
        ("v2.3.1", "v2.3.1 2.3.1"),
        ("ERR_CONN_42:", "err_conn_42 err conn 42"),
        ("COVID-19", "covid19 covid 19"),
        ("東京都", "東 東京 京 京都 都"),
        ("Python3入門", "python3 入 入門 門"),
    ],
)
def test_identifiers_are_whole_and_in_parts(text: str, terms: str):
    assert terms_of(text, None) == terms.split()


def test_a_question_is_asked_in_the_forms_of_each_language():
    assert question_terms("Häuser", ["de", "en", None]) == [Term(("hauser", "haus"), 1.0)]
    assert question_terms("东京都", ["en"]) == [Term(("东京",), 1.0), Term(("京都",), 1.0)]


def asked(question: str, *languages: str | None) -> list[str]:
    return [term.alternatives[0] for term in question_terms(question, languages or ("en", None))]


@pytest.mark.parametrize(
    ("question", "languages", "terms"),
    [
        ("how do I change the oil of the pump?", ["en"], "change oil pump"),
        ("Was ist der Unterschied?", ["de", "en"], "unterschied"),
        ("Quelle est l'eau de la montagne ?", ["fr", "en"], "eau montagne"),
        # Nothing else is left.
        ("To be, or not?", ["de"], "to be or not"),
        ("the who", ["en"], "the who"),
        # `war` and `die` are German stop words: English questions keep them.
        ("causes of the war", ["de", "en"], "causes war"),
        ("how many people died in the war", ["de", "en"], "many people died war"),
        # A stop word inside an identifier is not one.
        ("the state_of_the_art", ["en"], "state_of_the_art state of the art"),
    ],
)
def test_stop_words_are_left_out_if_anything_else_is_there(question, languages, terms):
    assert asked(question, None, *languages) == terms.split()

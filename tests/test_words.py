"""What a word is: terms of texts and of questions."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever.documents import words
from retriever.documents.languages import detect
from retriever.documents.words import Term, fold, question_terms, terms_of
from retriever.documents.words.characters import MARKS, UNSPACED, normalised
from retriever.documents.words.splitting import forms_of, units_of
from retriever.documents.words.stemming import STEMMED
from retriever.documents.words.stop_words import stop_words

IDENTIFIERS = {
    "foo_bar": "foo_bar foo bar",
    "getHTTPResponse": "gethttpresponse get http response",
    "IndexIVFPQ": "indexivfpq index ivfpq",
    "v2.3.1": "v2.3.1 2.3.1",
    "2.3.1": "2.3.1",
    "v2.3.1-rc1": "v2.3.1-rc1 2.3.1 rc1",
    "vm.max_map_count": "vm.max_map_count vm max_map_count max map count",
    "ERR_CONN_42": "err_conn_42 err conn 42",
    "COVID-19": "covid19 covid 19",
    "state-of-the-art": "stateoftheart state of the art",
    "--no-fold": "--no-fold nofold no fold",
    "C++": "c++ c",
    "C#": "c# c",
    ".NET": ".net net",
    "node.js": "node.js node js",
    "std::vector": "std::vector std vector",
    "AT&T": "at&t at t",
    "joe.doe@example.com": "joe.doe@example.com joe.doe joe doe example.com example com",
    "https://example.com/a-b?page=2": (
        "https example.com/a-b example.com example com ab a b page 2"
    ),
    "src/a/b.py": "src/a/b.py src a b.py b py",
    r"C:\temp\x.txt": r"c:\temp\x.txt c temp x.txt x txt",
    "10.1038/s41586-020-2649": "10.1038/s41586-020-2649 10.1038 s41586-020-2649 s41586 020 2649",
    "1,000.50": "1000.50 1 000.50",
    "3.14": "3.14",
    "2024-01-15": "2024-01-15 2024 01 15",
    "d41d8cd98f00b204e9800998ecf8427e": "d41d8cd98f00b204e9800998ecf8427e",
    "550e8400-e29b-41d4": "550e8400e29b41d4 550e8400 e29b 41d4",
    "PROJ-1234": "proj1234 proj 1234",
    "__init__": "__init__ init",
    "_private": "private",
    "iPhone": "iphone phone",
    "URLs": "urls",
}
PROSE = {
    # Apostrophes: possessives, contractions, elisions, names.
    "dog's dogs’": "dog dogs",
    "don’t we're l'eau dell'acqua jusqu'ici": "dont we eau acqua ici",
    "O'Brien rock'n'roll": "obrien brien rocknroll",
    "f'foo' 'quoted'": "f foo quoted",
    "U.S.A. USA U.S. e.g.": "usa usa us eg e g",
    "*bold* _emphasis_ `code` “quoted”": "bold emphasis code quoted",
    # NFKC, but not where it would make another word.
    "ﬁnd ＦＵＬＬ ｶﾞ ℃": "find full ガ c",
    "10² m² CO₂ note³ Windows™ 2½": "10 2 m2 co2 note 3 windows 2 1 2",
    "e\u0301te\u0301 été": "ete ete",
    "soft\u00adhyphen zero\u200bwidth \ufeffmark": "softhyphen zerowidth mark",
    # Case and accents.
    "Straße STRASSE Łódź Ærø Ελλάδα ΕΛΛΆΔΑ": "strasse strasse lodz aero ελλαδα ελλαδα",
    "İstanbul ISPARTA ısparta": "istanbul isparta isparta",
    "ёлка елка": "елка елка",
    # Vowel points, letter variants and figures of other scripts.
    "مُحَمَّد محمد كتاب کتاب": "محمد محمد كتاب كتاب",
    "שָׁלוֹם שלום": "שלום שלום",
    "٢٠٢٤ २०२४ ２０２４": "2024 2024 2024",
    "हिन्दी বাংলা": "हिन्दी বাংলা",
    # Scripts without spaces.
    "東京都の水": "東 東京 京 京都 都 都の の の水 水",
    "コーヒー": "コ コー ー ーヒ ヒ ヒー ー",
    "Python3入門2024年版": "python3 入 入門 門 2024 年 年版 版",
    "한국어": "한 한국 국 국어 어",
    "น้ำดี": "น้ํ น้ํา า าดี ดี",
    "ກິນເຂົ້າ": "ກິ ກິນ ນ ນເ ເ ເຂົ້ ຂົ້ ຂົ້າ າ",
    "မြန်မာ": "မြ မြန် န် န်မာ မာ",
    "ខ្មែរ": "ខ្ ខ្មែ មែ មែរ រ",
}


@pytest.mark.parametrize("text", IDENTIFIERS)
def test_identifiers_are_whole_and_in_parts(text: str):
    assert terms_of(text, None) == IDENTIFIERS[text].split()


@pytest.mark.parametrize("text", IDENTIFIERS)
@pytest.mark.parametrize("typed", ["{}", "({})", '"{}"', "`{}`,", "“{}”.", "{}?", "see {}: it"])
def test_an_identifier_is_found_however_it_is_typed(text: str, typed: str):
    """Its first term, the whole, is asked for at full weight: in quotes, brackets, any case."""
    whole = terms_of(text, None)[1 if text.startswith("https") else 0]
    for form in (text, text.lower(), text.upper()):
        asked = question_terms(typed.format(form), ["en", None])
        assert (whole, 1.0) in [(term.alternatives[0], min(term.weight, 1.0)) for term in asked]


def test_a_call_is_found_with_and_without_its_parentheses():
    assert terms_of("foo_bar()", None) == terms_of("foo_bar", None)
    assert question_terms("foo_bar(x, y=2)", [None])[0] == Term(("foo_bar",), 1.0)


@pytest.mark.parametrize("text", PROSE)
def test_words_of_many_scripts(text: str):
    assert terms_of(text, None) == PROSE[text].split()


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("en", "running pumps", "run pump"),
        ("de", "Häuser Mueller", "Haus Müller"),
        ("fr", "élèves l'école", "élève école"),
        ("ru", "насосами", "насос"),
        ("tr", "kitapları", "kitap"),
        ("ar", "الكتاب", "كتاب"),
        ("hi", "किताबों", "किताब"),
        ("nb", "husene", "husene"),
    ],
)
def test_words_are_stemmed_by_language(language: str, one: str, other: str):
    assert terms_of(one, language) == terms_of(other, language)


def test_code_and_identifiers_are_not_stemmed():
    assert terms_of("running_pumps", "en") == ["running_pumps", "run", "pump"]
    assert terms_of("running pumps", None) == ["running", "pumps"]
    assert terms_of("running", "xx") == terms_of("running", None) == ["running"]


def test_vietnamese_keeps_its_tones():
    assert terms_of("má mà", "vi") == ["má", "mà"]
    assert terms_of("má mà", None) == ["ma", "ma"]


def test_a_question_is_asked_in_the_forms_of_each_language():
    assert question_terms("Häuser", ["de", "en", None]) == [Term(("hauser", "haus"), 1.0)]
    assert question_terms("pump", []) == [Term(("pump",), 1.0)]
    assert question_terms("pump pumps pump", ["en"]) == [Term(("pump",), 3.0)]


def test_questions_about_code_alone_are_taken_for_english():
    assert asked("how to open the index", None) == ["open", "index"]


def test_unspaced_scripts_are_asked_for_in_pairs():
    assert question_terms("东京都", ["en"]) == [Term(("东京",), 1.0), Term(("京都",), 1.0)]
    assert question_terms("水 ?", ["zh"]) == [Term(("水",), 1.0)]


def test_parts_of_an_identifier_weigh_less_than_the_whole():
    weights = {term.alternatives[0]: term.weight for term in question_terms("a.b_c", [None])}
    assert weights == {"a.b_c": 1.0, "a": 0.3, "b_c": 0.3, "b": 0.3, "c": 0.3}
    assert {term.weight for term in question_terms("long-term", [None])} == {1.0}


def asked(question: str, *languages: str | None) -> list[str]:
    return [term.alternatives[0] for term in question_terms(question, languages or ("en", None))]


@pytest.mark.parametrize(
    ("question", "languages", "terms"),
    [
        ("how do I change the oil of the pump?", ["en"], "change oil pump"),
        ("I don't know what it's for", ["en"], "know"),
        ("Was ist der Unterschied?", ["de", "en"], "unterschied"),
        ("Quelle est l'eau de la montagne ?", ["fr", "en"], "eau montagne"),
        # Nothing else is left.
        ("To be, or not?", ["de"], "to be or not"),
        ("the who", ["en"], "the who"),
        # `war` and `die` are German stop words: English questions keep them.
        ("causes of the war", ["de", "en"], "causes war"),
        ("how many people died in the war", ["de", "en"], "many people died war"),
        ("world war causes", ["de", "en"], "world war causes"),
        # A stop word inside an identifier is not one.
        ("the state_of_the_art", ["en"], "state_of_the_art state of the art"),
    ],
)
def test_stop_words_are_left_out_if_anything_else_is_there(question, languages, terms):
    assert asked(question, None, *languages) == terms.split()


@pytest.mark.parametrize("language", sorted(STEMMED | {"uk"}))
def test_stop_words_are_words_of_their_language(language: str):
    stops = stop_words(language)
    assert all(len(terms_of(word, None)) == 1 for word in stops)
    assert not any(re.search(r"\d", word) for word in stops)
    assert len(stops) == 0 or 40 < len(stops) < 250


def test_very_long_words_are_bounded():
    for text in ("x" * 65_536, "a_" * 30_000, "/".join("ab" * 30_000), "aB" * 32_768, "水" * 9_999):
        found = terms_of(text, "en")
        assert max(map(len, found)) <= 128
        assert sum(map(len, found)) <= 4 * len(text)
        assert question_terms(text, ["en"])
    assert terms_of("x" * 65_536, None) == terms_of("x" * 65_000, None)


def test_no_language_is_needed_to_find_a_phrase():
    """The terms of whole words stand together in those of any text that has them."""
    text = "The state-of-the-art foo_bar() of 東京都水道局, v2.3.1 and getHTTPResponse."
    for part in (
        "state of the art",
        "foo_bar of",
        "水道局",
        "京都水",
        "v2.3.1 and gethttpresponse",
    ):
        wanted = " ".join(terms_of(part, None))
        assert f" {wanted} " in f" {' '.join(terms_of(text, None))} "


def test_the_quick_way_for_plain_words_gives_what_the_full_one_does():
    """Plain words are not cut by the expression that finds identifiers."""
    forms = words.forms_in("en")
    for bare in ("pump", "Pump", "PUMP", "a", "iPhone", "x" * 99):
        for before in ("", "(", '"', "'", "[", "(["):
            for after in ("", ",", ".", "'", "?!", ").", ")]", "...", '."'):
                stretch = before + bare + after
                assert terms_of(stretch, "en") == forms_of(stretch, forms), stretch


anything = st.one_of(
    st.text(st.characters(), max_size=80),  # lone surrogates included
    st.text(st.sampled_from("aZé_-.'/\\:@&+#,0 9()水東がกิ한ا\u0301\u200b²½™\ud800\n"), max_size=40),
    st.lists(st.sampled_from([*IDENTIFIERS, *PROSE, "the", "running"]), max_size=5).map(" ".join),
)
languages = st.sampled_from([None, "en", "de", "tr", "ru", "ar", "vi", "zh", "ko", "nb", "??", ""])


@settings(max_examples=300)
@given(anything, languages)
def test_terms_of_any_text(text: str, language: str | None):
    found = terms_of(text, language)
    assert found == terms_of(text, language)
    for term in found:
        assert 0 < len(term) <= 512
        assert not re.search(r"\s", term)
        term.encode()
    assert fold(text) == fold(text)


@settings(max_examples=300)
@given(anything, anything, languages, st.lists(languages, max_size=3))
def test_no_word_of_a_text_is_lost(before: str, text: str, language, others):
    """Each term of a question is in a text with the question's words, whatever its language."""
    terms = set(terms_of(f"{before} {text} {before}", language))
    for term in question_terms(text, [language, *others]):
        assert terms & set(term.alternatives)
        assert term.weight > 0


def test_terms_are_the_same_in_each_process_and_thread():
    text = " ".join([*IDENTIFIERS, *PROSE])
    code = (
        "import sys; from retriever.documents.words import *;"
        "print([terms_of(sys.argv[1], l) for l in ('en', 'de', None)]);"
        "print(question_terms(sys.argv[1], ['tr', None, 'de', 'en']))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code, text],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(printed) == 1
    found: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: found.append(terms_of(text * 20, "fi"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [found[0]] * 8


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(words, "_REMEMBERED", 100)
    before = terms_of("the pumps", "en")
    many = " ".join(f"word{n}" for n in range(1_000))
    assert terms_of(many, "en") == many.split()
    assert len(words._terms["en"]) <= max(100, 1)
    assert terms_of("the pumps", "en") == before


def test_marks_and_unspaced_scripts_are_those_of_unicode():
    marks = re.compile(f"[{MARKS}]")
    assigned = [chr(n) for n in range(0x110000) if unicodedata.category(chr(n))[0] == "M"]
    assert sum(1 for c in assigned if not marks.match(c)) <= 60  # newer than Unicode 14
    unspaced = re.compile(f"[{UNSPACED}]")
    for name in ("CJK UNIFIED IDEOGRAPH-6C34", "HIRAGANA LETTER GA", "THAI CHARACTER KO KAI"):
        assert unspaced.match(unicodedata.lookup(name))
    for character in "aé٣०。、・๏฿၊។ㄱ"[:-1]:
        assert not unspaced.match(character)


def test_a_normalised_text_stays_as_it_is():
    for text in (*IDENTIFIERS, *PROSE):
        assert normalised(normalised(text)) == normalised(text)
        assert [unit.surface for unit in units_of(text)] == [
            unit.surface for unit in units_of(normalised(text))
        ]


PASSAGES = Path(__file__).resolve().parent.parent / "data" / "unspaced.jsonl"


def test_chinese_japanese_and_thai_questions_find_their_passages():
    """By the sum of inverse document frequencies, without any search engine around it."""
    rows = [json.loads(line) for line in PASSAGES.read_text(encoding="utf-8").splitlines()]
    assert Counter(row["language"] for row in rows) == {"zh": 2, "ja": 2, "th": 2}
    terms = [set(terms_of(row["text"], detect(row["text"]))) for row in rows]
    for n, row in enumerate(rows):
        scores = [0.0] * len(rows)
        for term in question_terms(row["question"], ["zh", "ja", "th"]):
            holders = [m for m, one in enumerate(terms) if one & set(term.alternatives)]
            for m in holders:
                scores[m] += term.weight / len(holders)
        assert max(range(len(rows)), key=scores.__getitem__) == n, (row["question"], scores)
        assert scores[n] > 1.5 * sorted(scores)[-2]
        assert detect(row["text"]) == row["language"]


def test_the_table_of_identifiers_in_the_documentation_is_true():
    page = (PASSAGES.parent.parent / "docs" / "search.md").read_text(encoding="utf-8")
    section = page.partition("**Identifiers**")[2].partition("In a question")[0]
    rows = re.findall(r"^\| (`.+`) \| (`.+`) \|$", section, re.M)
    assert len(rows) >= 8
    for texts, lists in rows:
        for text, terms in zip(texts.split("`, `"), lists.split("`, `"), strict=True):
            assert terms_of(text.strip("`"), None) == terms.strip("`").split("` `")

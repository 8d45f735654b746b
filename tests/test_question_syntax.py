"""The syntax of questions: what is an operator, and that everything else is text."""

from __future__ import annotations

import os
import random
import sys
import time

import pytest

from retriever.search.questions import MOST_OPERATORS, Pattern, Question, parse

# RETRIEVER_FUZZ=100000 is the long run.
RUNS = int(os.environ.get("RETRIEVER_FUZZ", "3000"))


@pytest.mark.parametrize(
    "question",
    [
        "how do I reset the pump?",
        "-v prints more than I want",
        "what does tar -x do",
        "set --flag and --no-flag",
        "below -5 degrees, at -20°",
        "e-mail, co-operate and 3 - 2",
        "a - b",
        "-",
        "--",
        "don't, 'single quotes' and rock'n'roll",
        'a 5" pipe and a 6" one',
        'an unclosed "quote is text',
        'print("hello") and a="b" and {"key": 1}',
        '""',
        '"..." and "?"',
        '" spaced "',
        '"stuck"together',
        "SELECT * FROM t, *.py, 3*4, f(*args), **bold**, a*b",
        "the A* search, C*",
        "cats AND dogs OR NOT (mice) NEAR/3 birds",
        "title:foo^2 roam~ +must {a TO b} [1 TO 2] a\\*",
        "-I/usr/include -DX=1 -std=c++17 -f(x) -@",
        '"pump*',
        "東京*",
        "-pump",
        "-pump -valve",
        '"" -pump',
        "??? -pump",
        "\0\ud800\u202e",
        "",
    ],
)
def test_what_is_not_an_operator_is_text_to_the_character(question: str):
    assert parse(question) == Question(question, question)


@pytest.mark.parametrize(
    ("question", "text", "phrases"),
    [
        ('"pump room"', "pump room", ["pump room"]),
        ("how „alte Pumpe“ works", "how alte Pumpe works", ["alte Pumpe"]),
        ("„stara pompa” i “new pump”", "stara pompa i new pump", ["stara pompa", "new pump"]),
        ("« pompe à eau »", "pompe à eau", ["pompe à eau"]),
        ("”gammal pump”", "gammal pump", ["gammal pump"]),
        ('find "a" and "b c".', "find a and b c.", ["a", "b c"]),
        ('"AND OR NOT" "AND OR NOT"', "AND OR NOT AND OR NOT", ["AND OR NOT"]),
        ('"ERR_CONN_42"?', "ERR_CONN_42?", ["ERR_CONN_42"]),
        ('"-v" option', "-v option", ["-v"]),
        ('what "says “x” there" is', "what says “x” there is", ["says “x” there"]),
        ('"东京 大学" 历史', "东京 大学 历史", ["东京 大学"]),
    ],
)
def test_quotes_of_many_languages_make_phrases(question: str, text: str, phrases: list[str]):
    assert parse(question) == Question(text, text, tuple(map(Pattern, phrases)))


@pytest.mark.parametrize(
    ("question", "text", "exclusions"),
    [
        ("jaguar -car", "jaguar", [Pattern("car")]),
        ("-car jaguar -cars, speed", "jaguar speed", [Pattern("car"), Pattern("cars")]),
        ('jaguar -"big cat"', "jaguar", [Pattern("big cat")]),
        ("jaguar -„große Katze“ -car?", "jaguar", [Pattern("große Katze"), Pattern("car")]),
        ("jaguar -car*", "jaguar", [Pattern("car", is_prefix=True)]),
        ("write -e-mail", "write", [Pattern("e-mail")]),
        ("open -foo.py -don't", "open", [Pattern("foo.py"), Pattern("don't")]),
        ("ペット -猫", "ペット", [Pattern("猫")]),
        ("जानवर -बिल्ली", "जानवर", [Pattern("बिल्ली")]),
        ("e\u0301te\u0301 -cafe\u0301", "e\u0301te\u0301", [Pattern("cafe\u0301")]),
    ],
)
def test_a_dash_at_the_beginning_of_a_word_excludes_it(
    question: str, text: str, exclusions: list[Pattern]
):
    read = parse(question)
    # What follows an excluded word up to white space is punctuation, and stays.
    assert "".join(c for c in read.text if c not in ",?").split() == text.split()
    assert read.exclusions == tuple(exclusions)
    assert read.restricts
    assert not read.phrases


def test_a_star_ends_the_beginning_of_a_word():
    assert parse("pump* room (valve*).") == Question(
        "pump room (valve*).", "room (valve*).", prefixes=("pump",)
    )
    assert parse("test_*?").prefixes == ("test_",)
    assert parse("हिन्* 4711*").prefixes == ("हिन्", "4711")
    assert not parse("pump* room").restricts


def test_all_operators_in_one_question():
    read = parse('how to prime* the "pump room" -valve -"of brass" now')
    assert read == Question(
        "how to prime the pump room now",
        "how to the pump room now",
        (Pattern("pump room"),),
        ("prime",),
        (Pattern("valve"), Pattern("of brass")),
    )
    assert str(Pattern("of brass")) == '"of brass"'
    assert str(Pattern("valve", is_prefix=True)) == "valve*"


def test_a_pasted_text_with_many_quotes_is_text():
    question = " ".join(f'"word {n}"' for n in range(MOST_OPERATORS + 1))
    read = parse(question)
    assert (read.text, read.restricts) == (question, False)
    assert "read as text" in read.note
    assert len(parse(question[: question.rindex(' "')]).phrases) == MOST_OPERATORS


_PIECES = [
    *'"„“”«»-*\'’+()^:~\\/.,? \t\n\0', "AND", "NEAR(", "foo", "foo_bar", "ё", "猫", "ก็", "e\u0301",
    "\u200d", "\u00ad", "\ud800", "--", '-"', '" ', ' "', " -", "* ", "-5", "{x}", "'; DROP TABLE",
]  # fmt: skip


def _fuzzed(random_: random.Random) -> str:
    pieces = [random_.choice(_PIECES) for _ in range(random_.randrange(30))]
    pieces += [chr(random_.randrange(sys.maxunicode + 1)) for _ in range(random_.randrange(5))]
    random_.shuffle(pieces)
    return "".join(pieces)


def _letters(text: str) -> set[str]:
    return set(filter(str.isalnum, text))


def test_any_string_is_read_and_loses_nothing_but_operators():
    random_ = random.Random(14)
    operators = 0
    for _ in range(RUNS):
        question = _fuzzed(random_)
        read = parse(question)
        kept = [*read.phrases, *read.exclusions]
        operators += len(kept) + len(read.prefixes)
        if not (kept or read.prefixes):
            assert read == Question(question, question), question
        # Every letter is searched for or excluded.
        excluded = "".join(one.text for one in read.exclusions)
        assert _letters(question) == _letters(read.text) | _letters(excluded), question
        assert all(one.text in question for one in kept)
        assert _letters(read.text) or not kept
    assert operators > RUNS / 20


@pytest.mark.parametrize(
    "piece", ['"', ' "', "“", " “", "„", " «", ' -"', "-a.", " -a", "a*", ",-"]
)
def test_a_hostile_question_is_read_in_linear_time(piece: str):
    began = time.perf_counter()
    parse(piece * (100_000 // len(piece)))
    assert time.perf_counter() - began < 2

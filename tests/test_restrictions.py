"""Phrases and excluded words: which passages they let through, compared with the plain rules."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from retriever import Document, Index
from retriever.search.allowed import AllowedRows
from retriever.search.lexical_terms import candidates
from retriever.search.questions import Pattern, parse
from retriever.search.restrictions import restrict, standing
from retriever.search.view import View
from retriever.testing import HashEncoder

TEXTS = {
    "pump": "The pump room is locked. A Pump, room 3.",
    "pumps": "Two pumps in rooms; pump-room keys.",
    "code": "def pump_room(x): return pumpRoom(x) + ERR_CONN_42",
    "apart": "A pump stands in a room.",
    "lines": "pump\n\n  room\tof Straße 5",
    "french": "L'École est fermée : «voilà tout».",
    "chinese": "东京大学的历史很长。",
    "thai": "ภาษาไทยง่ายมาก",
    "hindi": "यह एक किताब है",
    "nothing": "Entirely other words.",
}


@contextmanager
def viewed(index: Index) -> Iterator[tuple[View, sqlite3.Connection]]:
    with index._pool.transaction() as connection:
        yield index._views.at(connection), connection


def everywhere(pattern: Pattern, allowed: AllowedRows) -> np.ndarray:
    return allowed.ids


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index.open(tmp_path / "x.index", model=HashEncoder()) as opened:
        opened.add([{"id": one, "text": text} for one, text in TEXTS.items()])
        opened.add(Document("# The valve\n\nTurn it.", id="titled", title="Of brass parts"))
        yield opened


def found(index: Index, question: str) -> tuple[set[str], str]:
    with viewed(index) as (view, connection):
        narrowed = partial(candidates, view, connection)
        allowed, note = restrict(connection, parse(question), view.live, narrowed)
        plain, _ = restrict(connection, parse(question), view.live, everywhere)
        assert plain.ids.tolist() == allowed.ids.tolist()
        ids = allowed.ids.tolist()
    by_chunk = {hit.chunk_id: hit.document_id for hit in index.search("a", k=100)}
    assert len(by_chunk) == len(TEXTS) + 1
    return {by_chunk[one] for one in ids}, note


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ('"pump room"', {"pump", "pumps", "code", "lines"}),
        ('"PUMP — ROOM"', {"pump", "pumps", "code", "lines"}),
        ('"pumps"', {"pumps"}),
        ('"room pump"', set()),
        ('"ump room"', set()),
        ('"ERR_CONN_42"', {"code"}),
        ('"strasse 5"', {"lines"}),
        ('"ÉCOLE est: fermée voilà"', {"french"}),
        ('"东京大学"', {"chinese"}),
        ('"京大"', {"chinese"}),
        ('"京学"', set()),
        ('"ไทย"', {"thai"}),
        ('"किताब"', {"hindi"}),
        ('"कित"', set()),
        ('"brass parts"', {"titled"}),
        ('"the valve"', {"titled"}),
        ('"parts the valve"', set()),
        ('"pump room" "keys"', {"pumps"}),
        ('"\u200b\u200d" pump', set(TEXTS) | {"titled"}),
        ('"pump" -room', set()),
        ('"pump" -"pump room"', {"apart"}),
        ("the -pump", {"french", "chinese", "thai", "hindi", "nothing", "titled"}),
        ("the -pump* -東京 -东京", {"french", "thai", "hindi", "nothing", "titled"}),
        ("the -valve -ไทย", set(TEXTS) - {"thai"}),
    ],
)
def test_patterns_stand_where_their_words_do(index: Index, question: str, expected: set[str]):
    assert found(index, question)[0] == expected


def test_the_note_says_what_was_left_out(index: Index):
    assert found(index, '"pump room" -ERR_CONN_42')[1] == (
        '; with "pump room": 4 passages; without ERR_CONN_42: 1 passage left out'
    )
    assert found(index, '"no such phrase" -pump')[1] == '; with "no such phrase": 0 passages'
    assert found(index, "pump room")[1] == ""


def test_a_question_without_operators_leaves_the_rows_as_they_are(index: Index):
    with viewed(index) as (view, connection):
        assert restrict(connection, parse("pump"), view.live, everywhere)[0] is view.live


PIECES = [
    "Pumps", "pumping", "getHTTPResponse", "ERR_CONN_42", "v2.3.1", "e-mail", "don't", "l'école",
    "Häuser", "Häusern", "gelaufen", "foo_bar()", "réseaux", "东京大学", "東京都", "ภาษาไทย",
    "пожара", "пожар", "किताबें", "C++", "O'Brien's", "10,000", "lib/net/io.js", "x@example.com",
    "the", "of", "und", "İstanbul", "ISPARTA", "κόσμους", "--no-fold", "C", "ﬁnd", "co\u00adop",
]  # fmt: skip


def test_the_words_of_the_index_give_every_passage_that_a_pattern_may_stand_in(tmp_path: Path):
    random_ = random.Random(14)
    languages = ["en", "de", "fr", "ru", "tr", "el", "hi", "zh", None]
    texts = [
        random_.choice([" ", ", ", "-", "\n", " — "]).join(random_.choices(PIECES, k=8))
        for _ in range(150)
    ]
    with Index.open(tmp_path / "y.index", model=HashEncoder()) as opened:
        opened.add(
            {"text": text, "title": random_.choice(PIECES), "metadata": {"language": language}}
            if (language := random_.choice(languages))
            else text
            for text in texts
        )
        opened.delete([one.id or "" for one in list(opened.documents())[:20]])
        n_found = 0
        with viewed(opened) as (view, connection):
            allowed = view.live.only(view.live.ids[::2])
            for _ in range(120):
                words = random_.choices(PIECES, k=random_.choice([1, 1, 2]))
                pattern = Pattern(random_.choice([str.upper, str])(" ".join(words)))
                ids = candidates(view, connection, pattern, allowed)
                found = standing(connection, pattern, ids).tolist()
                assert found == standing(connection, pattern, allowed.ids).tolist(), pattern
                n_found += bool(found)
    assert n_found > 40

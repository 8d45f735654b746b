"""Phrases and excluded words: which passages they let through, compared with the plain rules."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from retriever import Document, Index
from retriever.search.allowed import AllowedRows
from retriever.search.questions import Pattern, parse
from retriever.search.restrictions import restrict
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
        allowed, note = restrict(connection, parse(question), view.live, everywhere)
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
        ('"ecole est fermee voila"', {"french"}),
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

"""Cursors as strings: what was written is read, and nothing else."""

from __future__ import annotations

import random
import sys
from base64 import urlsafe_b64encode
from typing import Any

import pytest

from retriever import CursorExpired, InvalidQuery
from retriever.search import cursors
from retriever.search.cursors import Page
from retriever.storage.records import Key

KEY = Key(seq=7, segment_top=3, space_id=1, chain=bytes(range(32)))
ASKED = cursors.fingerprint(["pump", 10, None])


def test_a_cursor_says_where_the_next_page_begins():
    page = cursors.read(cursors.write(KEY, ASKED, 20), ASKED)
    assert page.offset == 20
    page.require(KEY)
    # Merging segments makes no other hits.
    page.require(KEY._replace(segment_top=9))
    Page().require(KEY)


@pytest.mark.parametrize(
    ("later", "message"),
    [
        ({"seq": 8}, "is of commit 7, and the index has come to commit 8"),
        ({"chain": bytes(32)}, "another index"),
        ({"space_id": 2}, "another index"),
    ],
)
def test_a_cursor_of_another_commit_has_expired(later: dict[str, Any], message: str):
    page = cursors.read(cursors.write(KEY, ASKED, 20), ASKED)
    with pytest.raises(CursorExpired, match=f"{message}.*Search again, without cursor=") as caught:
        page.require(KEY._replace(**later))
    assert (caught.value.code, caught.value.exit_code) == ("cursor_expired", 2)


def test_a_cursor_of_another_search_is_refused():
    with pytest.raises(InvalidQuery, match="belongs to another question or other options"):
        cursors.read(cursors.write(KEY, ASKED, 20), cursors.fingerprint(["pump", 11, None]))


def test_fingerprints_tell_parts_apart():
    given = [["a", "b"], ["ab"], ["a", None, "b"], ["a", "b", ""], [b"a", b"b"], [1], [True], [1.0]]
    given += [["\ud800"], [float("nan")], [("a", "b")], []]
    assert len({cursors.fingerprint(parts) for parts in given}) == len(given)
    assert cursors.fingerprint(iter(["a", 1])) == cursors.fingerprint(["a", 1])


@pytest.mark.parametrize("cursor", [b"abc", 7, ["x"], object()])
def test_a_cursor_is_a_string(cursor: Any):
    with pytest.raises(InvalidQuery, match="cursor is "):
        cursors.read(cursor, ASKED)


def test_what_no_search_returned_is_refused():
    written = cursors.write(KEY, ASKED, 20)
    alphabet = [*map(chr, range(33, 127)), "\0", " ", "\n", "é", "\ud800", chr(sys.maxunicode)]
    random_ = random.Random(14)
    hostile = ["", "=", "A" * 1_000_000, written + "=", written + "A", " " + written, "..", "%00"]
    hostile += [written[:length] for length in range(len(written))]
    hostile += [written[:at] + random_.choice(alphabet) + written[at + 1 :] for at in range(70)]
    hostile += [written[:at] + random_.choice(alphabet) + written[at:] for at in range(70)]
    hostile += [urlsafe_b64encode(random_.randbytes(n)).decode() for n in range(200)]
    for cursor in hostile:
        if cursor != written:
            with pytest.raises(InvalidQuery, match="which no search returned"):
                cursors.read(cursor, ASKED)

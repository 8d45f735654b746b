"""Cursors: where the next page of a search begins, as a string that callers pass back.

A cursor names the commit that was searched, what was asked and how many hits came before. It can be
forged, since it grants nothing that a search does not: it is checked so that a damaged or foreign
one is an error, and never another page than the one it was given for.
"""

from __future__ import annotations

import binascii
import hashlib
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.arguments import described, shown
from retriever.errors import CursorExpired, InvalidQuery

if TYPE_CHECKING:
    from retriever.storage.records import Key

_VERSION = 1
# Version, commit, space, hits before; then the beginnings of two hashes, and of one over all.
_FIELDS = struct.Struct(">BQQI16s16s")
_CHECK_LENGTH = 5
_HINT = "Pass cursor= as the results of the page before have it, or search without it."


class Page(NamedTuple):
    """Where a page begins.

    Attributes:
        offset: The number of hits before it.
        commit: The commit that the pages are of, and its place in the index's history; empty where
            nothing was searched yet.
    """

    offset: int = 0
    commit: tuple[int, int, bytes] | None = None

    def require(self, key: Key) -> None:
        """Check that a view is the one that the page before was found in.

        Raises:
            CursorExpired: The index has changed since.
        """
        if self.commit is not None and self.commit != _commit(key):
            raise CursorExpired(
                f"The cursor is of commit {self.commit[0]}, and the index has come to commit "
                f"{key.seq} since; pages of both might repeat hits or leave some out."
                if self.commit[0] != key.seq
                else "The cursor is of another index, or of another state of this one.",
                hint="Search again, without cursor=.",
            )


def fingerprint(parts: Iterable[Any]) -> bytes:
    """Return 16 bytes that are equal for equal searches: what is asked, and with which options."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8) + data)
    return digest.digest()[:16]


def write(key: Key, asked: bytes, offset: int) -> str:
    """Return the cursor of the page that begins after `offset` hits.

    Args:
        key: That of the view that was searched.
        asked: The fingerprint of the search.
        offset: The hits of all pages before.
    """
    seq, space_id, chain = _commit(key)
    data = _FIELDS.pack(_VERSION, seq, space_id, offset, chain, asked)
    return _encoded(data)


def read(cursor: object, asked: bytes) -> Page:
    """Return where a page begins.

    Args:
        cursor: What a caller passed.
        asked: The fingerprint of the search that it is passed with.

    Raises:
        InvalidQuery: It is no cursor of ours, is damaged, or is one of another search.
    """
    if not isinstance(cursor, str):
        raise InvalidQuery(f"cursor is {described(cursor)}.", hint=_HINT)
    content = _decoded(cursor)
    if content is None:
        raise InvalidQuery(f"cursor is {shown(cursor)}, which no search returned.", hint=_HINT)
    _, seq, space_id, offset, chain, of_search = _FIELDS.unpack(content)
    if of_search != asked:
        raise InvalidQuery(
            f"cursor {shown(cursor)} belongs to another question or other options.",
            hint="Pass the question and all options as for the page before; only timeout_s may "
            "differ.",
        )
    return Page(offset, (seq, space_id, chain))


def _commit(key: Key) -> tuple[int, int, bytes]:
    return key.seq, key.space_id, key.chain[:16]


def _encoded(data: bytes) -> str:
    check = hashlib.sha256(b"retriever cursor" + data).digest()[:_CHECK_LENGTH]
    return urlsafe_b64encode(data + check).decode().rstrip("=")


def _decoded(cursor: str) -> bytes | None:
    """Return what a cursor was written from; None if `write` did not return it."""
    try:
        # A cursor is short: what is longer need not be decoded.
        data = urlsafe_b64decode(cursor[:200].encode("ascii") + b"==")[:-_CHECK_LENGTH]
    except (UnicodeEncodeError, binascii.Error):
        return None
    # The decoder passes over characters that are not of its alphabet.
    is_ours = len(data) == _FIELDS.size and data[0] == _VERSION and _encoded(data) == cursor
    return data if is_ours else None

"""Find documents of one call that are stored already, or that contradict one another.

Keeps what a call of `add` has to remember of the documents that it has read. That is little,
however many there are: stored documents are looked up in the catalog, and only ranges of their
primary keys are kept here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from retriever.canonical import content_of
from retriever.documents.validation import same_id
from retriever.storage import catalog
from retriever.storage.records import Space
from retriever.storage.writer import Writer
from retriever.types import Document


class _Read(NamedTuple):
    """A document that is read and not yet stored, and its position in the call."""

    position: int
    document: Document


class Repeats:
    """Tells for each document of one call whether it is stored already.

    Args:
        writer: Where documents are stored.
        space: The space that is searched.
    """

    def __init__(self, writer: Writer, space: Space) -> None:
        self._writer = writer
        self._space = space
        self._waiting: dict[str, _Read] = {}
        # Documents that follow one another in the call are mostly stored under consecutive primary
        # keys. For each such run: the first key; the key after the last, and the first position.
        self._first_pks: list[int] = []
        self._runs: list[tuple[int, int]] = []
        # One bit for each primary key; set if the document was found unchanged.
        self._unchanged = bytearray()

    def require_consistent(self, document: Document, position: int) -> None:
        """Raise if this call has brought another document with the same id.

        Raises:
            InvalidDocument: Both positions are named, as far as they are known.
        """
        name = document.id or ""
        if waiting := self._waiting.get(name):
            if content_of(waiting.document) != content_of(document):
                raise same_id(name, waiting.position, position)
            return
        pk = catalog.document_pk(self._writer.connection, name)
        if pk is not None and self._is_of_this_call(pk) and not self._is_stored(document, pk):
            raise same_id(name, self._position_of(pk), position)

    def is_there(self, document: Document, position: int) -> bool:
        """Return whether a document is stored, or about to be, exactly as it is.

        If it is not, it is noted as one that is about to be. Call `require_consistent` first.
        """
        name = document.id or ""
        if name in self._waiting:
            return True
        pk = catalog.document_pk(self._writer.connection, name)
        if pk is not None and self._is_stored(document, pk):
            self._note_unchanged(pk)
            return True
        self._waiting[name] = _Read(position, document)
        return False

    def is_stored_from(self, document: Document, path: bytes) -> bool:
        """Return whether a document of a file is stored exactly as it is, from that file."""
        name = document.id or ""
        pk = catalog.document_pk(self._writer.connection, name)
        if pk is None:
            return False
        owner = catalog.file_of_document(self._writer.connection, name)
        return owner is not None and owner.path == path and self._is_stored(document, pk)

    def forget(self, document_id: str) -> None:
        """Forget a document that was read and will not be stored."""
        self._waiting.pop(document_id, None)

    def note_stored(self, documents: Iterable[Document]) -> None:
        """Note that documents of this call are committed."""
        given = (document.id or "" for document in documents)
        names = [name for name in given if name in self._waiting]
        pks = catalog.document_pks(self._writer.connection, names)
        for name in names:
            read, pk = self._waiting.pop(name), pks.get(name)
            if pk is None:
                continue
            # Primary keys are never used twice. So those of new documents ascend, the list of first
            # keys stays sorted, and only the last run can be continued.
            if self._position_of(pk - 1) == read.position - 1:
                self._runs[-1] = (pk + 1, self._runs[-1][1])
            else:
                self._first_pks.append(pk)
                self._runs.append((pk + 1, read.position))

    def _is_stored(self, document: Document, pk: int) -> bool:
        """Return whether what is stored under a document's id is that document."""
        connection, chunking = self._writer.connection, self._space.chunking
        stored = catalog.document(connection, document.id or "")
        # Without a ledger it is not chunked, as after a repair, and must be stored again.
        if stored is None or catalog.ledger_of(connection, chunking.id, pk) is None:
            return False
        embedding = catalog.precomputed_vector(connection, self._space, pk)
        return content_of(stored, embedding) == content_of(document)

    def _is_of_this_call(self, pk: int) -> bool:
        return self._position_of(pk) is not None or self._is_unchanged(pk)

    def _position_of(self, pk: int) -> int | None:
        """Return the position in this call of the document that it stored under a key."""
        place = bisect_right(self._first_pks, pk) - 1
        if place < 0:
            return None
        end, position = self._runs[place]
        return position + pk - self._first_pks[place] if pk < end else None

    def _is_unchanged(self, pk: int) -> bool:
        byte, bit = divmod(pk, 8)
        return byte < len(self._unchanged) and bool(self._unchanged[byte] >> bit & 1)

    def _note_unchanged(self, pk: int) -> None:
        byte, bit = divmod(pk, 8)
        if byte >= len(self._unchanged):
            # Twice as long as needed, so that ascending keys do not extend it each time.
            self._unchanged.extend(bytes(2 * byte + 64 - len(self._unchanged)))
        self._unchanged[byte] |= 1 << bit

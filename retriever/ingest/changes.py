"""What a commit stores whole: a document, or some documents of a file together with its record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retriever.storage import catalog
from retriever.storage.records import FileRow
from retriever.types import Document

if TYPE_CHECKING:
    import sqlite3


@dataclass(slots=True)
class Change:
    """A step from one state of the index to the next; one commit holds all of it or nothing.

    A file with few documents is one change. One with many is several: the record of all but the
    last says `partial`, so that the next run reads the file again if the last one never came.

    Attributes:
        documents: What to add or replace, in order. None at all for a mere record of a file.
        file: The record of the file that they are from, as it is to be stored; None for documents
            that were added by hand.
        total: How many documents the file gives in all, in the change that completes it: documents
            of an earlier version that are not among them are removed. None keeps them.
        continues: Whether documents of the file are in an earlier change of this call.
        removes_file: Whether the file is forgotten, with its documents.
        renamed_from: What the file, and its documents, were called before.
        size: What encoding the documents costs, compared with other changes of the call: bytes for
            files, characters for documents.
    """

    documents: Sequence[Document] = ()
    file: FileRow | None = None
    total: int | None = None
    continues: bool = False
    removes_file: bool = False
    renamed_from: bytes | None = None
    size: int = 0

    @property
    def has_effect(self) -> bool:
        """Return whether there is anything to store."""
        return bool(self.documents) or self.file is not None

    @property
    def is_partial(self) -> bool:
        """Return whether further documents of the same file follow."""
        return self.file is not None and self.file.state == "partial"

    def is_outdated(self, connection: sqlite3.Connection) -> bool:
        """Return whether it is the record of a file whose documents are no longer the same.

        Another writer may have deleted, restored or replaced them since the file was planned. The
        rest of a file is outdated too where its first documents were deleted meanwhile.
        """
        if self.file is None or self.removes_file:
            return False
        now, is_indexed = catalog.file_at(connection, self.file.path), self.file.state == "indexed"
        if self.continues:
            return now is None or now.state == "deleted"
        if self.documents or self.total is not None:
            return False
        if now is None:
            return is_indexed
        if "deleted" in (now.state, self.file.state):
            return now.state != self.file.state
        return is_indexed and now.state in ("indexed", "partial") and not now.is_whole

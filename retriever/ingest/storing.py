"""Store changes: the rows of their documents and files, inside one transaction."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from retriever import names
from retriever.documents.languages import language_of
from retriever.ingest.changes import Change
from retriever.ingest.pipeline import Done
from retriever.ingest.tally import IngestTally
from retriever.storage import catalog
from retriever.storage.records import FileRow, Space
from retriever.storage.transaction import Encoded, Transaction
from retriever.types import Document, FileOutcome

if TYPE_CHECKING:
    from collections.abc import Mapping

_WAS_ADDED = " was added"
_log = logging.getLogger("retriever")


def store(
    transaction: Transaction,
    space: Space,
    changes: Done[Change],
    failed: Mapping[bytes, str],
) -> IngestTally:
    """Store changes with what was encoded for their documents; return what was done.

    Args:
        transaction: The commit that they are part of.
        space: The space that is searched.
        changes: In order.
        failed: Files of which a part was left out, by name, with the reason: they are recorded as
            failed, whatever their other parts say.
    """
    return _Storing(transaction, space, changes, failed).run(changes)


class _Storing:
    def __init__(
        self,
        transaction: Transaction,
        space: Space,
        changes: Done[Change],
        failed: Mapping[bytes, str],
    ) -> None:
        self._transaction = transaction
        self._connection = transaction.connection
        self._space = space
        self._failed = failed
        self._covered = catalog.last_covered(self._connection, space.chunking.id)
        wanted = (document.id or "" for change, _ in changes for document in change.documents)
        self._there = catalog.existing_ids(self._connection, wanted)
        self._tally = IngestTally(commits=1)

    def run(self, changes: Done[Change]) -> IngestTally:
        for change, encoded in changes:
            if change.file is None:
                self._add(change.documents, encoded)
            else:
                self._store_file(change, change.file, encoded)
        return self._tally

    def _add(self, documents: Iterable[Document], encoded: Iterable[Encoded]) -> None:
        """Store documents that were added by hand."""
        for document, one in zip(documents, encoded, strict=True):
            name = document.id or ""
            if name in self._there:
                self._take_from_file(name)
            self._put(document, one, None)

    def _take_from_file(self, document_id: str) -> None:
        """Have a file whose document is replaced by hand read by the next run, and back then."""
        owner = catalog.file_of_document(self._connection, document_id)
        if owner is not None and owner.state in ("indexed", "partial"):
            self._transaction.put_file(owner._replace(reason=f"{document_id!r}{_WAS_ADDED}"))

    def _store_file(self, change: Change, file: FileRow, encoded: Iterable[Encoded]) -> None:
        """Store a file's record with documents of it."""
        if change.renamed_from is not None:
            # First, because all that follows uses the new name, and the ids that come from it.
            self._transaction.rename_file(change.renamed_from, file.path, self._covered)
            self._there.update(catalog.ids_of_file(self._connection, file.path))
        if change.removes_file:
            self._tally.removed += self._remove_from(file.path, 0)
            self._transaction.forget_file(file.path)
            return
        if change.is_outdated(self._connection):
            return
        if reason := self._failed.get(file.path):
            file = FileRow(file.path, "failed", reason)
        elif change.continues:
            file = self._still_incomplete(file)
        file_id = self._transaction.put_file(file)
        for document, one in zip(change.documents, encoded, strict=True):
            name = document.id or ""
            if name in self._there:
                self._warn_of_document_by_hand(name, file.path)
            self._put(document, one, file_id)
        if change.total is not None:
            self._tally.removed += self._remove_from(file.path, change.total)

    def _still_incomplete(self, file: FileRow) -> FileRow:
        """Return the record of a file, of which a document may have been replaced meanwhile."""
        now = catalog.file_at(self._connection, file.path)
        replaced = now is not None and now.reason is not None and now.reason.endswith(_WAS_ADDED)
        return file._replace(reason=now.reason) if now and replaced else file

    def _warn_of_document_by_hand(self, document_id: str, path: bytes) -> None:
        owner = catalog.file_of_document(self._connection, document_id)
        if (owner is None or owner.path != path) and catalog.existing_ids(
            self._connection, [document_id]
        ):
            _log.warning(
                "%s: the file replaces a document that was added under its name", document_id
            )

    def _remove_from(self, path: bytes, total: int) -> int:
        """Remove the documents of a file that are not among its first `total`; return how many."""
        removed = 0
        for document_id in catalog.ids_of_file(self._connection, path):
            row = names.row_of(path, document_id)
            if row is None or row >= total:
                self._transaction.delete_document(document_id, self._covered)
                removed += 1
        return removed

    def _put(self, document: Document, encoded: Encoded, file_id: int | None) -> None:
        """Store a document in place of the one of its id, if there is one."""
        name, tally = document.id or "", self._tally
        is_there = name in self._there and self._transaction.delete_document(name, self._covered)
        # A later change of the same batch may bring this id again.
        self._there.add(name)
        language = language_of(document)
        self._transaction.add_document(self._space, document, encoded, file_id, language=language)
        tally.replaced += is_there
        tally.added += not is_there
        tally.note(name, len(encoded.chunks), encoded.ledger)
        if isinstance(doubt := document.metadata.get("encoding_doubt"), str):
            tally.doubtful.append(FileOutcome(name, "indexed", doubt))

"""Read an index from an untrusted source, so that its documents can be added to a new index.

An attacker can choose every byte of such an index, including the checksums. Only its documents are
read, and the embeddings that were supplied with them; both are validated as if a caller had passed
them to `Index.add`. Its segments, computed vectors, file records, pending vectors and quarantine
are never read, and the model that it names is never loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from retriever import opening
from retriever.arguments import shown
from retriever.config import Chunking, ChunkingLike
from retriever.encoders.checkpoint.resolve import is_same_model
from retriever.errors import (
    IndexCorrupt,
    IndexNotFound,
    InvalidConfig,
    ModelUnavailable,
    UsageError,
)
from retriever.storage import catalog, head_file, schema
from retriever.storage.head_file import check_head
from retriever.storage.pool import reading
from retriever.types import Document, Progress, ProgressCallback

if TYPE_CHECKING:
    import sqlite3

    from retriever.storage.records import Space


@contextmanager
def open_foreign(directory: Path) -> Iterator[ForeignIndex]:
    """Open an index read-only, in one read transaction, and check every page of its database.

    The connection can read only the tables of the index format: a view, a trigger, a virtual table
    or an altered table is refused. All checks and reads see the same snapshot, so that nothing can
    be exchanged between a check and the read that relies on it.

    Raises:
        IndexNotFound: There is no index at `directory`.
        IndexCorrupt: It is damaged, or not an index.
        DataLoss: Acknowledged commits are missing.
        FormatMismatch: It has another format.
    """
    try:
        opening.require_index(directory)
        opening.require_database(directory)
        # HEAD is read before the snapshot begins, as `check_head` requires. If that fails, the
        # error is kept until the schema is checked: the cause may be an index of another format.
        head, error = _head(directory)
        with reading(directory) as connection:
            schema.check_pages(connection, str(directory))
            if error is not None:
                raise error
            check_head(directory, head, connection)
            yield ForeignIndex(directory, connection, catalog.active_space(connection))
    except IndexNotFound as exc:
        exc.hint = "Name the directory of the index to read."
        raise
    except IndexCorrupt as exc:
        exc.hint = "Nothing was adopted. Ask the author of the index for an undamaged copy."
        raise


def _head(directory: Path) -> tuple[head_file.Head | None, IndexCorrupt | None]:
    try:
        return head_file.read_head(directory), None
    except IndexCorrupt as exc:
        return None, exc


class ForeignIndex:
    """The documents of an untrusted index, readable until the block of `open_foreign` ends.

    Args:
        directory: The index.
        connection: A restricted, read-only connection inside a read transaction.
        space: The active space, with the recorded model, chunking and dimension.
    """

    def __init__(self, directory: Path, connection: sqlite3.Connection, space: Space) -> None:
        self._directory = directory
        self._connection = connection
        self._space = space

    def dimension_without(self, model: Any, *, discard: bool) -> int | None:
        """Return the dimension for a new index without a model, or None if a model is given.

        Raises:
            ModelUnavailable: The documents were encoded by a model, and none is given.
            InvalidConfig: The embeddings are to be discarded, and there is no model either.
        """
        if model is not None:
            return None
        if not self._space.has_encoder:
            if discard:
                raise InvalidConfig(
                    f"{self._directory} was created without a model; without its embeddings "
                    "nothing could be searched.",
                    hint="Pass model= (--model) too, to encode the texts, or keep the embeddings.",
                )
            return self._space.dimension
        name = shown(self._space.identity.get("name"))
        raise ModelUnavailable(
            f"No model was given. {self._directory} names {name}, but the model that an untrusted "
            "index names is not loaded automatically.",
            hint="Pass model= (--model): that model if you trust it, or any other.",
        )

    def chunking(self, changes: ChunkingLike) -> Chunking:
        """Return its chunking with the options that the caller gave.

        Raises:
            InvalidConfig: They are not options of a chunking.
        """
        return self._space.chunking.options.with_options(changes)

    def keeps_embeddings(self, space: Space, *, discard: bool) -> bool:
        """Return whether the embeddings that were supplied with documents are copied.

        Args:
            space: The active space of the new index.
            discard: Whether to discard them and encode the texts.

        Raises:
            InvalidConfig: They are of another model, and `discard` is not set.
        """
        if discard:
            return False
        if not space.has_encoder or self._is_same_model(space):
            return True
        if supplied := catalog.count_precomputed(self._connection, self._space.chunking.id):
            raise InvalidConfig(
                f"{supplied:,} documents of {self._directory} were added with an embedding of "
                "another model.",
                hint="To encode their texts instead, pass discard_embeddings=True "
                "(--discard-embeddings).",
            )
        return False

    def _is_same_model(self, space: Space) -> bool:
        if not self._space.has_encoder or self._space.dimension != space.dimension:
            return False
        return is_same_model(self._space.identity, space.identity)

    def documents(self, *, embeddings: bool) -> Iterator[Document]:
        """Yield every document in order of id; `embeddings` adds those that were supplied.

        Raises:
            IndexCorrupt: A row is damaged or invalid; the error names it.
        """
        last, count = "", 0
        while page := catalog.documents_after(self._connection, last):
            if embeddings:
                page = catalog.with_embeddings(self._connection, page)
            yield from page
            count += len(page)
            last = page[-1].id or ""
        # The rows are read by the index on ids, which may disagree with the table.
        if count != catalog.count(self._connection, "documents"):
            raise self._damaged(f"only {count:,} of its documents are listed by their ids")

    def refuse(self, position: int, error: UsageError) -> NoReturn:
        """Raise IndexCorrupt for a document that `Index.add` would refuse."""
        raise self._damaged(
            f"document {position} in order of id is invalid. {error.message}"
        ) from error

    def _damaged(self, what: str) -> IndexCorrupt:
        return IndexCorrupt(
            f"{self._directory} is damaged: {what.rstrip('.')}.",
            path=str(self._directory),
            check="documents",
        )

    def counted(self, progress: ProgressCallback | None) -> ProgressCallback | None:
        """Return a callback that adds the stage and the total number of documents."""
        if progress is None:
            return None
        total = catalog.count(self._connection, "documents")

        def tell(done: Progress) -> None:
            progress(replace(done, stage="adopt", total=total))

        return tell

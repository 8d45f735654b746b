"""Reading an index that a stranger may have made, so that its documents can be added to one's own.

A stranger chooses every byte of such an index, checksums included. Only its documents are taken,
and the embeddings that were supplied with them; both are validated as if a caller had passed them
to `Index.add`. Its segments, computed vectors, file records, pending vectors and quarantine are
never read, and the model that it names is never looked for.
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
from retriever.encoders.checkpoint.resolve import check_identity
from retriever.errors import (
    IndexCorrupt,
    IndexNotFound,
    InvalidConfig,
    ModelMismatch,
    ModelUnavailable,
    UsageError,
)
from retriever.storage import catalog, head_file, schema
from retriever.storage.pool import reading
from retriever.storage.writer import check_head
from retriever.types import Document, Progress, ProgressCallback

if TYPE_CHECKING:
    import sqlite3

    from retriever.storage.records import Space


@contextmanager
def open_foreign(directory: Path) -> Iterator[ForeignIndex]:
    """Open an index read-only, in one read transaction, and check every page of its database.

    The connection may read the tables of the index format and nothing else: a view, a trigger, a
    virtual table or an altered table is refused. All checks and reads see the same snapshot, so
    that nothing can be exchanged between a check and the read that relies on it.

    Raises:
        IndexNotFound: There is no index at `directory`.
        IndexCorrupt: It is damaged, or is not a plain index.
        DataLoss: Commits that were acknowledged are missing.
        FormatMismatch: It has another format.
    """
    try:
        opening.require_index(directory)
        opening.require_database(directory)
        # HEAD is read before the snapshot begins, as `check_head` wants it; an error of it waits,
        # because only the database can tell whether this is an index of another format.
        head, error = _head(directory)
        with reading(directory) as connection:
            schema.check_pages(connection, str(directory))
            if error is not None:
                raise error
            check_head(directory, head, connection)
            yield ForeignIndex(directory, connection, catalog.active_space(connection))
    except IndexNotFound as exc:
        exc.hint = "Name the directory of the index that is to be read."
        raise
    except IndexCorrupt as exc:
        exc.hint = "Nothing was adopted. Ask whoever made the index for a sound copy of it."
        raise


def _head(directory: Path) -> tuple[head_file.Head | None, IndexCorrupt | None]:
    try:
        return head_file.read_head(directory), None
    except IndexCorrupt as exc:
        return None, exc


class ForeignIndex:
    """The documents of an index that is not trusted, readable until `open_foreign` ends.

    Args:
        directory: The index.
        connection: A restricted, read-only connection inside a read transaction.
        space: The active space: the model's recorded identity, the chunking, the dimension.
    """

    def __init__(self, directory: Path, connection: sqlite3.Connection, space: Space) -> None:
        self._directory = directory
        self._connection = connection
        self._space = space

    def dimension_without(self, model: Any, *, discard: bool) -> int | None:
        """Return the dimension to create an index without a model for, or None where one is given.

        Raises:
            ModelUnavailable: The documents were encoded by a model, and the caller named none.
            InvalidConfig: The embeddings are all that can be searched, and are to be discarded.
        """
        if model is not None:
            return None
        if not self._space.has_encoder:
            if discard:
                raise InvalidConfig(
                    f"{self._directory} was made without a model, so that without its embeddings "
                    "nothing could be searched.",
                    hint="Pass model= (--model) too, to encode the texts, or keep the embeddings.",
                )
            return self._space.dimension
        name = shown(self._space.identity.get("name"))
        raise ModelUnavailable(
            f"No model was named. {self._directory} says that it was built with {name}, but an "
            "index that a stranger may have made does not choose which model is loaded.",
            hint="Name a model with model= (--model): the same one if you trust it, or another.",
        )

    def chunking(self, changes: ChunkingLike) -> Chunking:
        """Return its chunking with the options that a caller gave.

        Raises:
            InvalidConfig: They are no options of a chunking.
        """
        return self._space.chunking.options.with_options(changes)

    def keeps_embeddings(self, space: Space, *, discard: bool) -> bool:
        """Return whether the embeddings that were supplied with documents are taken along.

        Args:
            space: The active space of the new index.
            discard: Whether the caller gives them up, so that their texts are encoded.

        Raises:
            InvalidConfig: They are of another model and were not given up.
        """
        if discard:
            return False
        if not space.has_encoder or self._is_same_model(space):
            return True
        if supplied := catalog.count_precomputed(self._connection, self._space.chunking.id):
            raise InvalidConfig(
                f"{supplied:,} documents of {self._directory} were added with an embedding, which "
                "is not one of this model.",
                hint="To have their texts encoded instead, pass discard_embeddings=True "
                "(--discard-embeddings).",
            )
        return False

    def _is_same_model(self, space: Space) -> bool:
        if not self._space.has_encoder or self._space.dimension != space.dimension:
            return False
        try:
            check_identity(self._space.identity, space.identity)
        except ModelMismatch:
            return False
        return True

    def documents(self, *, embeddings: bool) -> Iterator[Document]:
        """Yield every document in order of id; `embeddings` adds those that were supplied.

        Raises:
            IndexCorrupt: A row is damaged or cannot be one of ours; its id is named.
        """
        last, count = "", 0
        while page := catalog.documents_after(self._connection, last):
            if embeddings:
                page = catalog.with_embeddings(self._connection, page)
            yield from page
            count += len(page)
            last = page[-1].id or ""
        # The index on ids, by which they are read, may disagree with the table.
        if count != catalog.count(self._connection, "documents"):
            raise self._damaged(f"{count:,} of its documents can be found by their ids")

    def refuse(self, position: int, error: UsageError) -> NoReturn:
        """Raise IndexCorrupt for a document that `Index.add` would not accept from a caller."""
        raise self._damaged(f"document {position} by id is unusable. {error.message}") from error

    def _damaged(self, what: str) -> IndexCorrupt:
        return IndexCorrupt(
            f"{self._directory} is damaged: {what.rstrip('.')}.",
            path=str(self._directory),
            check="documents",
        )

    def counted(self, progress: ProgressCallback | None) -> ProgressCallback | None:
        """Return a callback that is told the number of documents, and that they are adopted."""
        if progress is None:
            return None
        total = catalog.count(self._connection, "documents")

        def tell(done: Progress) -> None:
            progress(replace(done, stage="adopt", total=total))

        return tell

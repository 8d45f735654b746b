"""`Index`: reading documents, vectors and status."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retriever import arguments
from retriever.documents.validation import read_ids
from retriever.encoders.protocol import CountsTokens
from retriever.errors import InvalidConfig, InvalidFilter
from retriever.index.state import IndexState
from retriever.search.document_ids import find_id, find_pk, not_found
from retriever.storage import catalog
from retriever.types import Chunk, Document

# Modules that only writing and maintenance need are imported where they are called, so that a
# search on the command line does not wait for them.
if TYPE_CHECKING:
    from retriever.filters import FilterLike
    from retriever.reports import IndexStatus
    from retriever.types import Vector

_PAGE = 64


class Reading(IndexState):
    """The methods of `Index` that read its content."""

    def get(self, document_id: str) -> Document | None:
        """Return a document, or None; with its unit-length embedding, if it was added with one.

        Raises:
            IndexCorrupt: The document is damaged.
        """
        with self._pool.transaction() as connection:
            meant = find_id(connection, document_id) or document_id
            found = catalog.document(connection, meant)
            return found and catalog.with_embeddings(connection, [found])[0]

    def id_of(self, *names: str) -> str | None:
        """Return the id of the document for the first of some names that has one, or None.

        A name is a document's id, an id that looks the same (Unicode NFC or NFD), or the name of
        its file as the file system returns it, with surrogate escapes. `get`, `chunks` and
        `delete` accept such names too.
        """
        with self._pool.transaction() as connection:
            meant = (find_id(connection, name) for name in names)
            return next((one for one in meant if one is not None), None)

    @property
    def base(self) -> Path:
        """Return the folder that names of files are relative to, where it is now."""
        with self._pool.transaction() as connection:
            return Path(self._file_states.base(connection).path)

    def count(self, *, filter: FilterLike | None = None) -> int:
        """Return the number of documents.

        Args:
            filter: Count those that pass it, as for `search`.

        Raises:
            InvalidFilter: The filter does not follow the grammar, or asks about `page` or
                `heading`, which passages have.
        """
        if filter is None:
            with self._pool.transaction() as connection:
                return catalog.count(connection, "documents")
        from retriever.index import filtered

        asked = filtered.of_documents(filter)
        with self._pool.transaction() as connection:
            return len(filtered.matching(connection, asked))

    def fields(self) -> list[str]:
        """Return the fields that documents can be filtered by, in order: all that any document has.

        A field inside of an object is named by its path, with dots.
        """
        from retriever.index import filtered

        with self._pool.transaction() as connection:
            return filtered.fields(connection)

    def facets(
        self, field: str, *, filter: FilterLike | None = None, limit: int = 100
    ) -> list[tuple[Any, int]]:
        """Return the values of a field with the number of documents that have each.

        Values are strings, numbers, booleans and None, the most frequent first; dates are their
        ISO 8601 strings, and whole numbers are integers. A document with a list counts for each
        different element.

        Args:
            field: The field, as in a filter.
            filter: Count only documents that pass it, as for `search`.
            limit: How many values to return at most.

        Raises:
            InvalidFilter: As for `count`; or `field` is `id`, `page` or `heading`.
        """
        from retriever.index import filtered

        path, asked = filtered.of_field(field), filtered.of_documents(filter)
        hint = "Pass the number of values, from 1."
        limit = arguments.whole(limit, "limit", least=1, error=InvalidFilter, hint=hint)
        with self._pool.transaction() as connection:
            return filtered.facets(connection, path, asked, limit)

    def documents(
        self, *, filter: FilterLike | None = None, embeddings: bool = True
    ) -> Iterator[Document]:
        """Return the documents in order of id, read a page at a time.

        The documents can be added to another index: if one was added with an embedding, it has
        that embedding, float32 `(dimension,)`, of unit length.

        Args:
            filter: Only those that pass it when this is called, as for `search`. One that is
                deleted or replaced before its page is read is left out.
            embeddings: Whether to read such embeddings.

        Raises:
            IndexCorrupt: A document is damaged.
            InvalidFilter: As for `count`.
        """
        if filter is None:
            return self._all_documents(embeddings=embeddings)
        from retriever.index import filtered

        asked = filtered.of_documents(filter)
        with self._pool.transaction() as connection:
            pks = filtered.in_order(connection, asked)
        return self._some_documents(pks, embeddings=embeddings)

    def _some_documents(self, pks: list[int], *, embeddings: bool) -> Iterator[Document]:
        for start in range(0, len(pks), _PAGE):
            with self._pool.transaction() as connection:
                page = catalog.documents_by_pk(connection, pks[start : start + _PAGE])
                if embeddings:
                    page = catalog.with_embeddings(connection, page)
            yield from page

    def _all_documents(self, *, embeddings: bool) -> Iterator[Document]:
        # Pages follow one another by id, because positions shift when others add or delete
        # meanwhile. Each has a transaction of its own: a slow caller would otherwise keep an old
        # snapshot open, which holds up `compact`.
        last = ""
        while True:
            with self._pool.transaction() as connection:
                page = catalog.documents_after(connection, last)
                if embeddings:
                    page = catalog.with_embeddings(connection, page)
            if not page:
                return
            yield from page
            last = page[-1].id or ""

    def vectors(self, ids: Iterable[str] | str | None = None) -> dict[str, Vector]:
        """Return the vectors of documents' chunks, computed or supplied.

        Args:
            ids: Document ids; None means all documents, whose vectors must fit in memory.

        Returns:
            For each id a float32 array `(n_chunks, dimension)`, rows of unit length in the order
            of `chunks`; `(0, dimension)` for a document without text.

        Raises:
            DocumentNotFound: An id is not in the index.
            IndexCorrupt: A vector is damaged.
        """
        if ids is None:
            wanted = [document.id or "" for document in self.documents(embeddings=False)]
        else:
            wanted = read_ids(ids)
        with self._pool.transaction() as connection:
            space = catalog.active_space(connection)
            found = {}
            for document_id in wanted:
                meant = find_id(connection, document_id)
                pk = None if meant is None else catalog.document_pk(connection, meant)
                if pk is None and ids is None:
                    continue  # Another writer has deleted it since the ids were listed.
                if pk is None:
                    raise not_found(document_id, catalog.similar_ids(connection, document_id))
                found[document_id] = catalog.vectors_of_document(connection, space, pk)
            return found

    def chunks(self, document_id: str) -> list[Chunk]:
        """Return a document's chunks, in order.

        Raises:
            DocumentNotFound: The id is not in the index.
            IndexCorrupt: A chunk is damaged.
        """
        with self._pool.transaction() as connection:
            pk = find_pk(connection, document_id)
            return catalog.chunks_of(connection, pk, catalog.active_space(connection).chunking.id)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, as the index's model counts them.

        Special tokens are left out. Loads the model.

        Raises:
            InvalidConfig: The index has no model.
            ModelMismatch, ModelUnavailable: As for `open`.
        """
        with self._pool.transaction() as connection:
            space = catalog.active_space(connection)
        if not space.has_encoder:
            raise InvalidConfig(
                f"{self.path} has no model that counts tokens: embeddings came with its documents.",
                hint="Count characters.",
            )
        tokenizer = self._encoders.encoder_for(space).tokenizer
        if isinstance(tokenizer, CountsTokens):
            return tokenizer.count_tokens(texts)
        return [len(tokens) for tokens in tokenizer.tokenize(texts)]

    def status(self) -> IndexStatus:
        """Return counts, model, token ledger, problem files, sizes and the lock's holder."""
        from retriever.storage import inspection

        with self._pool.transaction() as connection:
            base = Path(self._file_states.base(connection).path)
            return inspection.status(self.path, connection, base=base)

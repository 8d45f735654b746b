"""Encode documents again from their stored text, and chunk them again if necessary.

For another model or chunking, a new space is filled beside the active one. With the same options,
tokenizer and window the new space shares the active chunking, whose chunks keep their ids.
Otherwise it has a chunking of its own. After a repair, documents whose chunks were lost are chunked
and encoded again in the active space.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from retriever.config import ChunkingLike
from retriever.documents.chunking import Chunker
from retriever.documents.drafts import Chunked
from retriever.encoders.checkpoint.resolve import is_same_model
from retriever.encoders.loading import EncoderSource
from retriever.errors import IndexBusy, InvalidConfig, ModelError, RetrieverError
from retriever.ingest.commits import require_active, share_of
from retriever.ingest.pipeline import EncodingPipeline
from retriever.ingest.spaces import encoder_to_write, new_space
from retriever.ingest.tally import IngestTally
from retriever.limits import Limits
from retriever.reports import IngestReport
from retriever.storage import catalog
from retriever.storage.records import Space
from retriever.storage.transaction import Encoded, Transaction
from retriever.storage.writer import Writer
from retriever.types import Document, Ledger, Progress, ProgressCallback

_GROUP = 256
_PAGE = 16


@dataclass(slots=True)
class _Stored:
    """A stored document that is encoded again, with its primary key."""

    pk: int
    documents: Sequence[Document]

    @property
    def size(self) -> int:
        """Return the size of its text in bytes."""
        return sum(len(document.text.encode()) for document in self.documents)


@dataclass(slots=True)
class _Rebuild:
    """A rebuild in progress.

    Attributes:
        writer: The writer of the index.
        active: The space that searches use until the end.
        fresh: The new space as it is wanted, not stored.
        building: The stored space that is being filled.
        loses_embeddings: Whether supplied embeddings would be lost, which must be refused.
        give_way: Lets waiting writers write; returns whether any did.
    """

    writer: Writer
    active: Space
    fresh: Space
    building: Space
    loses_embeddings: bool
    give_way: Callable[[], bool]

    def let_others_write(self) -> None:
        """Let waiting writers write, unless they start another rebuild."""
        if self.give_way():
            _require_unchanged(self.writer, self.active, self.building)

    def next_space(self) -> Space | None:
        """Return the space to fill, or None once it is complete.

        Each check is repeated because another writer may have added documents meanwhile: with
        embeddings that would be lost, or that keep the space from sharing the active chunking.
        """
        if self.loses_embeddings:
            _require_none_precomputed(self.writer, self.active)
        shares = self.building.chunking == self.active.chunking
        if shares and not _can_share(self.writer, self.active, self.fresh):
            self.building = _resume_or_begin(self.writer, self.active, self.fresh)
        is_complete = not catalog.incomplete_documents(self.writer.connection, self.building, 1)
        return None if is_complete else self.building


def rebuild(
    writer: Writer,
    encoders: EncoderSource,
    chunking: ChunkingLike,
    progress: ProgressCallback | None,
    *,
    keeps_model: bool,
    discard_embeddings: bool,
    limits: Limits,
    give_way: Callable[[], bool] = lambda: False,
) -> tuple[IngestReport, Space]:
    """Fill a new space beside the active one, then swap them in one commit.

    If neither model nor chunking changes, every document is chunked again nevertheless, so that an
    index can adopt an improved chunker. With `keeps_model` the encoder must be the active space's.
    Supplied embeddings are of no use with another model; with `discard_embeddings` they are
    dropped, and their texts are encoded.

    Raises:
        InvalidConfig: There are such embeddings, and they are not to be discarded.

    Returns:
        What was done, and the new active space.
    """
    began = time.monotonic()
    active = catalog.active_space(writer.connection)
    encoder = encoders.encoder_like(active) if keeps_model else encoders.encoder()
    wanted = active.chunking.options.with_options(chunking)
    Chunker(encoder.tokenizer, encoder.max_tokens, wanted)  # refuses options that do not fit
    is_same = is_same_model(active.identity, encoder.identity)
    loses_embeddings = not (is_same or discard_embeddings)
    # Before a new space is stored: a call that is refused leaves nothing behind.
    if loses_embeddings:
        _require_none_precomputed(writer, active)
    fresh = new_space(encoder, wanted, "building")
    # Sharing keeps the chunks; with the same model a rebuild is there to make them anew.
    building = _resume_or_begin(writer, active, fresh, may_share=not is_same)
    run = _Rebuild(writer, active, fresh, building, loses_embeddings, give_way)
    tally = IngestTally()
    try:
        while (space := run.next_space()) is not None:
            fill(
                writer,
                space,
                encoders,
                tally,
                donors=[active] if is_same else [],
                stage="rebuild",
                progress=progress,
                limits=limits,
                let_others_write=run.let_others_write,
            )
        # Only `give_way` releases the lock: nobody has written since the space was found complete.
        with writer.transaction() as change:
            change.replace_space(active, run.building)
        tally.commits += 1
    except BaseException as exc:
        exc.report = tally.report()  # type: ignore[attr-defined]
        raise
    tally.seconds = time.monotonic() - began
    return tally.report(), catalog.active_space(writer.connection)


def _can_share(writer: Writer, active: Space, fresh: Space) -> bool:
    """Return whether a new space can share the active chunking, so that nothing is chunked again.

    A document with a supplied embedding is one chunk, however long it is; another model must split
    its text. A document that is not chunked yet, after a repair, would get chunks that have no
    vectors in the active space.
    """
    chunking = active.chunking
    return (
        chunking.cuts_like(fresh.chunking)
        and not catalog.count_precomputed(writer.connection, chunking.id)
        and not catalog.has_unchunked(writer.connection, chunking.id)
    )


def _resume_or_begin(
    writer: Writer, active: Space, fresh: Space, *, may_share: bool = True
) -> Space:
    """Return the space of an unfinished rebuild with the same model and chunking, or a new one."""
    if may_share and _can_share(writer, active, fresh):
        fresh = replace(fresh, chunking=active.chunking)
    left = catalog.building_space(writer.connection)
    if left is not None and _is_alike(left, fresh):
        return left
    with writer.transaction() as change:
        if left is not None:
            change.drop_space(left)
        return change.add_space(fresh)


def _is_alike(left: Space, fresh: Space) -> bool:
    """Return whether an unfinished space has the model and chunking of a new one."""
    # By state as well: a space that shares the active chunking is filled in another way.
    return (
        left.chunking.state == fresh.chunking.state
        and left.chunking.cuts_like(fresh.chunking)
        and is_same_model(left.identity, fresh.identity)
    )


def _require_unchanged(writer: Writer, active: Space, building: Space) -> None:
    """Refuse to continue if another writer has rebuilt the index meanwhile."""
    require_active(writer, active)
    left = catalog.building_space(writer.connection)
    if left is None or left.id != building.id:
        raise IndexBusy(
            f"Another writer has started another rebuild of {writer.directory}.",
            hint="Wait for that rebuild, then repeat the call if it is still needed.",
        )


def _require_none_precomputed(writer: Writer, active: Space) -> None:
    """Refuse to lose supplied embeddings, which cannot be computed again."""
    brought = catalog.count_precomputed(writer.connection, active.chunking.id)
    if brought:
        raise InvalidConfig(
            "A rebuild with another model would lose the embeddings that were supplied with "
            f"documents: {brought:,} of them.",
            hint="Keep them: leave model= out, or save them first with `retriever export` or "
            "Index.vectors(). To have their texts encoded instead, pass discard_embeddings=True "
            "(--discard-embeddings).",
        )


def fill(
    writer: Writer,
    space: Space,
    encoders: EncoderSource,
    tally: IngestTally,
    *,
    donors: list[Space],
    stage: str,
    progress: ProgressCallback | None,
    limits: Limits | None = None,
    let_others_write: Callable[[], object] = lambda: None,
) -> None:
    """Encode every document that is incomplete in a space, in commits of bounded size.

    A document with chunks in the space's chunking keeps them; any other is chunked. Others may
    write while the encoder is busy, and after each commit.
    """
    limits = limits or Limits()
    total = catalog.count(writer.connection, "documents")
    left, size = catalog.count_incomplete(writer.connection, space)
    before = total - left - tally.replaced
    # A new space in the active chunking gets vectors for existing chunks, and must not change them.
    shares = space.state != space.chunking.state
    item = ""

    def tell() -> None:
        if progress is not None:
            done, share = before + tally.replaced, share_of(pipeline.size, size)
            progress(Progress(stage, done, total, "documents", pipeline.tokens, item, share))

    pipeline = EncodingPipeline(
        writer,
        space,
        lambda: encoder_to_write(writer, space, encoders),
        donors=donors,
        after_slice=tell,
        while_waiting=let_others_write,
        stored_chunks=partial(_stored_chunks, writer, space) if shares else None,
        limits=limits,
    )
    encoded_before = tally.encoded
    stored = _incomplete(writer, space, [space, *donors])
    documents = min(_GROUP, limits.commit_documents)
    with closing(pipeline.encode(stored, documents=documents, refuse=_refuse)) as groups:
        for encoded in groups:
            group = _store(writer, space, encoded, shares=shares)
            tally.commits += 1
            tally.encoded = encoded_before + pipeline.encoded
            for document, one in group:
                tally.replaced += 1
                item = document.id or ""
                tally.note(item, len(one.chunks), one.ledger)
            pipeline.forget(one for _, one in group)
            tell()
            let_others_write()


def _store(
    writer: Writer,
    space: Space,
    group: Sequence[tuple[_Stored, Sequence[Encoded]]],
    *,
    shares: bool,
) -> list[tuple[Document, Encoded]]:
    """Commit encoded documents; return those that were not deleted since they were read."""
    covered = _covered(writer, space)
    existing = catalog.existing_pks(writer.connection, [stored.pk for stored, _ in group])
    done = []
    with writer.transaction() as change:
        for stored, (one,) in group:
            if stored.pk not in existing:
                continue
            if shares:
                _add_missing(change, space, one)
            else:
                change.delete_chunks(space.chunking, stored.pk, covered)
                change.add_chunks(space, stored.pk, one)
            done.append((stored.documents[0], one))
    return done


def _add_missing(change: Transaction, space: Space, encoded: Encoded) -> None:
    """Add the vectors of a document's chunks that still exist and have no vector.

    Another writer may have continued this rebuild, or chunked the document again, meanwhile.
    """
    ids = [chunk.id or 0 for chunk in encoded.chunks]
    missing = catalog.chunks_without_vector(change.connection, space, ids)
    rows = [row for row, chunk_id in enumerate(ids) if chunk_id in missing]
    change.add_vectors(space, [ids[row] for row in rows], encoded.vectors[rows])


def _refuse(_: _Stored, document: Document, error: RetrieverError) -> _Stored:
    """End the call: a document of the index must not be missing from the new space."""
    raise ModelError(
        f"Document {document.id!r} cannot be encoded: {error.message}",
        hint="The index is unchanged. Fix the encoder, or delete the document first.",
    ) from error


def _incomplete(writer: Writer, space: Space, carriers: list[Space]) -> Iterator[_Stored]:
    """Yield the documents that are incomplete in a space, with supplied embeddings."""
    # By page and key instead of with one cursor: commits come in between, and `give_way` replaces
    # the connection.
    last_pk = 0
    while found := catalog.incomplete_documents(writer.connection, space, _PAGE, last_pk):
        last_pk = found[-1][0]
        for pk, document in found:
            yield _Stored(pk, [replace(document, embedding=_carried(writer, carriers, pk))])


def _stored_chunks(writer: Writer, space: Space, document: Document) -> Chunked:
    """Return a document's chunks and ledger in a space's chunking."""
    connection, chunking_id = writer.connection, space.chunking.id
    pk = catalog.document_pk(connection, document.id or "")
    ledger = None if pk is None else catalog.ledger_of(connection, chunking_id, pk)
    if pk is None or ledger is None:  # deleted since it was read, so nothing will be stored
        return Chunked((), Ledger(), [])
    chunks = tuple(catalog.chunks_of(connection, pk, chunking_id))
    return Chunked(chunks, ledger, [None] * len(chunks))


def _covered(writer: Writer, space: Space) -> int:
    """Return the last chunk id of a space's segments; only the active space has any."""
    if space.state != "active":
        return 0
    return catalog.last_covered(writer.connection, space.chunking.id)


def _carried(writer: Writer, spaces: list[Space], pk: int) -> Any:
    """Return the supplied embedding of a document, if any of the spaces has it."""
    for space in spaces:
        vector = catalog.precomputed_vector(writer.connection, space, pk)
        if vector is not None:
            return vector
    return None

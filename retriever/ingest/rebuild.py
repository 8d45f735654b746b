"""Encode documents again from their stored text, and chunk them where that is needed.

After a change of model or of chunking a new space is filled beside the active one. With the same
options, tokenizer and window the new space is of the same chunking: its chunks are there already,
and keep their ids. Otherwise it has a chunking of its own. After a repair, documents whose chunks
were lost are chunked and encoded again in the active space.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from retriever.config import ChunkingLike, Limits
from retriever.documents.chunking import Chunker
from retriever.documents.drafts import Chunked
from retriever.encoders.checkpoint.resolve import check_identity
from retriever.encoders.loading import EncoderSource
from retriever.errors import IndexBusy, InvalidConfig, ModelError, ModelMismatch, RetrieverError
from retriever.ingest.commits import require_active, share_of
from retriever.ingest.pipeline import EncodingPipeline
from retriever.ingest.spaces import encoder_to_write, new_space
from retriever.ingest.tally import IngestTally
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
    """A document that is chunked again, by its primary key."""

    pk: int
    documents: Sequence[Document]

    @property
    def size(self) -> int:
        """Return the bytes of its text."""
        return sum(len(document.text.encode()) for document in self.documents)


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

    With the model that the index has, and the chunking too, every document is cut again all the
    same: it is how an index takes up a chunker that cuts better. With
    `keeps_model` the encoder must be the active space's. Another model takes no embeddings that
    callers brought: with `discard_embeddings` they go, and their texts are encoded.

    Raises:
        InvalidConfig: There are such embeddings, and they were not given up.

    Returns:
        What was done, and the space that is active now.
    """
    began = time.monotonic()
    active = catalog.active_space(writer.connection)
    encoder = encoders.encoder_like(active) if keeps_model else encoders.encoder()
    wanted = active.chunking.options.with_options(chunking)
    Chunker(encoder.tokenizer, encoder.max_tokens, wanted)
    is_same = _same_model(active.identity, encoder.identity)
    loses_embeddings = not (is_same or discard_embeddings)
    if loses_embeddings:
        _require_none_precomputed(writer, active)
    fresh = new_space(encoder, wanted, "building")
    building = _resume_or_begin(writer, active, fresh, may_share=not is_same)
    donors = [active] if is_same else []
    tally = IngestTally()

    def let_others_write() -> None:
        if give_way():
            _require_unchanged(writer, active, building)

    try:
        while True:
            if loses_embeddings:  # another writer may have had a turn meanwhile
                _require_none_precomputed(writer, active)
            if building.chunking == active.chunking and not _can_share(writer, active, fresh):
                # Another writer has brought embeddings meanwhile, whose texts are to be cut.
                building = _resume_or_begin(writer, active, fresh)
            if not catalog.incomplete_documents(writer.connection, building, 1):
                break
            fill(
                writer,
                building,
                encoders,
                tally,
                donors=donors,
                stage="rebuild",
                progress=progress,
                limits=limits,
                let_others_write=let_others_write,
            )
        with writer.transaction() as change:
            change.replace_space(active, building)
        tally.commits += 1
    except BaseException as exc:
        exc.report = tally.report()  # type: ignore[attr-defined]
        raise
    tally.seconds = time.monotonic() - began
    return tally.report(), catalog.active_space(writer.connection)


def _can_share(writer: Writer, active: Space, fresh: Space) -> bool:
    """Return whether a new space can be of the active chunking, so that nothing is cut again.

    A document with an embedding of its own is one chunk however long it is; another model has to
    cut its text. A document that is not cut yet, after a repair, would have chunks without vectors
    in the active space.
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
    """Return the space of an unfinished rebuild to the same ends, or a new one."""
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
    """Return whether an unfinished space is what a new one would become."""
    return (
        left.chunking.state == fresh.chunking.state
        and left.chunking.cuts_like(fresh.chunking)
        and _same_model(left.identity, fresh.identity)
    )


def _require_unchanged(writer: Writer, active: Space, building: Space) -> None:
    """Refuse to go on where another writer has rebuilt the index meanwhile."""
    require_active(writer, active)
    left = catalog.building_space(writer.connection)
    if left is None or left.id != building.id:
        raise IndexBusy(
            f"Another writer has begun another rebuild of {writer.directory}.",
            hint="Agree on one, and repeat the call.",
        )


def _require_none_precomputed(writer: Writer, active: Space) -> None:
    """Refuse to lose embeddings that cannot be made again here."""
    brought = catalog.count_precomputed(writer.connection, active.chunking.id)
    if brought:
        raise InvalidConfig(
            "A rebuild with another model would lose the embeddings that documents brought: "
            f"{brought:,} of them.",
            hint="Keep them: leave model= out, or save them first with `retriever export` or "
            "Index.vectors(). To have their texts encoded instead, pass discard_embeddings=True "
            "(--discard-embeddings).",
        )


def _same_model(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    try:
        check_identity(one, other)
    except ModelMismatch:
        return False
    return True


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
    """Encode every document that a space does not hold whole, committing as it goes.

    A document that is cut for the space's chunking keeps its chunks; any other is cut.

    Others may write whenever the encoder is waited for, and after each commit.
    """
    limits = limits or Limits()
    total = catalog.count(writer.connection, "documents")
    left, work = catalog.count_incomplete(writer.connection, space)
    before = total - left - tally.replaced
    # A space that is filled for chunks that the active one has too must leave them as they are.
    shares = space.state != space.chunking.state
    item = ""

    def tell() -> None:
        if progress is not None:
            done, share = before + tally.replaced, share_of(pipeline.size, work)
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
    works = _incomplete(writer, space, [space, *donors])
    documents = min(_GROUP, limits.commit_documents)
    with closing(pipeline.encode(works, documents=documents, refuse=_refuse)) as groups:
        for group in groups:
            covered = _covered(writer, space)
            there = catalog.existing_pks(writer.connection, [stored.pk for stored, _ in group])
            group = [(stored, encoded) for stored, encoded in group if stored.pk in there]
            with writer.transaction() as change:
                for stored, (one,) in group:
                    if shares:
                        _add_missing(change, space, one)
                    else:
                        change.delete_chunks(space.chunking, stored.pk, covered)
                        change.add_chunks(space, stored.pk, one)
            tally.commits += 1
            tally.encoded = encoded_before + pipeline.encoded
            for stored, (one,) in group:
                tally.replaced += 1
                tally.note(stored.documents[0].id or "", len(one.chunks), one.ledger)
            pipeline.forget(one for _, (one,) in group)
            if group:
                item = group[-1][0].documents[0].id or ""
            tell()
            let_others_write()


def _add_missing(change: Transaction, space: Space, encoded: Encoded) -> None:
    """Add the vectors of a document's chunks that are still there and have none.

    Another writer may have gone on with the same rebuild, or cut the document again, since.
    """
    ids = [chunk.id or 0 for chunk in encoded.chunks]
    missing = catalog.chunks_without_vector(change.connection, space, ids)
    rows = [row for row, chunk_id in enumerate(ids) if chunk_id in missing]
    change.add_vectors(space, [ids[row] for row in rows], encoded.vectors[rows])


def _refuse(_: _Stored, document: Document, error: RetrieverError) -> _Stored:
    """End the call: a document that is in the index is not dropped from its new vectors."""
    raise ModelError(
        f"Document {document.id!r} cannot be encoded: {error.message}",
        hint="What was there is as it was. Mend the encoder, or delete the document first.",
    ) from error


def _incomplete(writer: Writer, space: Space, carriers: list[Space]) -> Iterator[_Stored]:
    """Yield the documents that a space does not hold whole, with embeddings callers brought."""
    last_pk = 0
    while found := catalog.incomplete_documents(writer.connection, space, _PAGE, last_pk):
        last_pk = found[-1][0]
        for pk, document in found:
            yield _Stored(pk, [replace(document, embedding=_carried(writer, carriers, pk))])


def _stored_chunks(writer: Writer, space: Space, document: Document) -> Chunked:
    """Return the chunks and the ledger that a document has in a space's chunking."""
    connection, chunking_id = writer.connection, space.chunking.id
    pk = catalog.document_pk(connection, document.id or "")
    ledger = None if pk is None else catalog.ledger_of(connection, chunking_id, pk)
    if pk is None or ledger is None:  # deleted since it was read: what is encoded is not stored
        return Chunked((), Ledger(), [])
    chunks = tuple(catalog.chunks_of(connection, pk, chunking_id))
    return Chunked(chunks, ledger, [None] * len(chunks))


def _covered(writer: Writer, space: Space) -> int:
    """Return the last chunk id of a space's segments; only the active space has any."""
    if space.state != "active":
        return 0
    return catalog.last_covered(writer.connection, space.chunking.id)


def _carried(writer: Writer, spaces: list[Space], pk: int) -> Any:
    """Return the embedding a caller brought for a document, if it is in any of the spaces."""
    for space in spaces:
        vector = catalog.precomputed_vector(writer.connection, space, pk)
        if vector is not None:
            return vector
    return None

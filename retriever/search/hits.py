"""Hits from a ranking: texts, sources and file states, read in the ranking's own transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from retriever.storage import catalog, checksums, records
from retriever.storage.table import damaged
from retriever.types import FileState, Hit

if TYPE_CHECKING:
    import sqlite3

    from retriever.search.file_states import FileStates
    from retriever.search.folding import Copies, Folding
    from retriever.search.ranking import Ranking
    from retriever.search.view import View


class Answer(NamedTuple):
    """What the first stage found for one query.

    Attributes:
        hits: Best first.
        texts: Of each hit the text that the encoder saw, which a reranker reads as well.
    """

    hits: list[Hit]
    texts: list[str]


def read(
    view: View,
    connection: sqlite3.Connection,
    ranking: Ranking,
    folding: Folding,
    file_states: FileStates,
    first_rank: int = 1,
) -> Answer:
    """Return the hits of a ranking.

    Args:
        view: What was searched; of the connection's read transaction.
        connection: Where chunks and documents are read.
        ranking: The chunks, best first.
        folding: What knows the copies of a chunk.
        file_states: What knows whether a file has changed since it was indexed.
        first_rank: The rank of the first.

    Raises:
        IndexCorrupt: A chunk is missing, or its text is not the one that was encoded.
    """
    chunking = view.space.chunking.options
    stored = catalog.fetch_chunks(connection, ranking.ids)
    origins = {found.file for found in stored.values() if found.file}
    states: Mapping[records.FileRow | None, FileState | None] = file_states.of(
        connection, view.key.chain, origins
    )
    answer = Answer([], [])
    for position, chunk_id in enumerate(ranking.ids):
        found = stored.get(chunk_id)
        if found is None:
            raise damaged("chunks", chunk_id, str(file_states.directory))
        text = chunking.encoded_text(found.chunk, found.title)
        # A checksum covers one row. The hash ties the passage, which is made from several rows, to
        # the text whose vector was ranked.
        if checksums.text_hash(text) != found.text_hash:
            document_id = found.chunk.document_id
            raise damaged("texts", document_id, str(file_states.directory))
        copies = folding.copies(chunk_id)
        state = states.get(found.file)
        answer.hits.append(_hit(first_rank, ranking, position, found, copies, state))
        answer.texts.append(text)
    return answer


def _hit(
    first_rank: int,
    ranking: Ranking,
    position: int,
    found: records.StoredChunk,
    copies: Copies | None,
    file_state: FileState | None,
) -> Hit:
    chunk = found.chunk
    metadata = dict(found.metadata)
    if found.title is not None:
        metadata.setdefault("title", found.title)
    return Hit(
        rank=first_rank + position,
        score=ranking.scores[position],
        scores={name: values[position] for name, values in ranking.components.items()},
        document_id=chunk.document_id or "",
        chunk_id=chunk.id or 0,
        text=chunk.text,
        metadata=metadata,
        source=found.source,
        span=chunk.span,
        lines=chunk.lines,
        page=chunk.page,
        heading=chunk.heading,
        duplicates=copies.chunks if copies else 0,
        also_in=copies.document_ids if copies else (),
        file_state=file_state,
    )

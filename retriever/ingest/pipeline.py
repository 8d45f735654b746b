"""Chunk and encode documents, running the encoder in a background thread.

While the encoder works on one group of documents, the calling thread stores the group before it
and reads and chunks the next one. Everything but the encoder stays in the calling thread: the
iterator that documents come from, the catalog, callbacks. This module decides the order of the
groups and bounds what is in memory at a time; it does not know what a commit is.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeAlias

import numpy as np

from retriever.documents import rules
from retriever.documents.chunking import Chunker, as_one_chunk
from retriever.documents.drafts import Chunked
from retriever.encoders.checked import CheckedEncoder, Tokenized
from retriever.encoders.protocol import Tokenizer
from retriever.encoders.worker import EncoderThread, Pending
from retriever.errors import RetrieverError
from retriever.ingest.groups import Group, ItemT, equal_shares, in_groups
from retriever.ingest.refusals import Refusals
from retriever.limits import Limits
from retriever.storage import catalog, checksums
from retriever.storage.pending import PendingVectors
from retriever.storage.records import Space
from retriever.storage.transaction import Encoded
from retriever.storage.writer import Writer
from retriever.types import Chunk, Document, Ledger

if TYPE_CHECKING:
    from retriever.encoders.worker import Vectors

Done: TypeAlias = list[tuple[ItemT, list[Encoded]]]
Refuse: TypeAlias = Callable[[ItemT, Document, RetrieverError], ItemT]
VectorOrRow: TypeAlias = "Vectors | tuple[Pending, int]"
"""A vector, or the call of the encoder that is going to return it, and the row it is in."""


@dataclass(slots=True)
class _Queued(Generic[ItemT]):
    """A group that is chunked, and of which the missing vectors are queued for the encoder.

    Attributes:
        group: The items.
        chunked: The chunks and the ledger of each document.
        hashes: For each document, the hash of the text that is encoded for each chunk.
        vectors_by_hash: The vectors of these texts.
        slices: The calls of the encoder that make those that are missing.
    """

    group: Group[ItemT]
    chunked: list[tuple[tuple[Chunk, ...], Ledger]]
    hashes: list[list[bytes]]
    vectors_by_hash: dict[bytes, VectorOrRow]
    slices: list[_Slice]

    @property
    def is_encoded(self) -> bool:
        return all(part.vectors.is_done for part in self.slices)


@dataclass(slots=True)
class _Slice:
    """One call of the encoder: what it returns, for which texts, and how many tokens they have."""

    vectors: Pending
    names: list[bytes]
    tokens: int


class EncodingPipeline:
    """Turns documents into `Encoded`: chunks, hashes, vectors and ledger, for one space.

    A text that the index holds already is not encoded again: its vector is taken from this space,
    from `donors`, or from the vectors of a large document that were kept before it was committed.

    Args:
        writer: The index.
        space: Which encoder and chunking.
        encoder: Returns the encoder; called when the first text has to be chunked or encoded.
        donors: Other spaces of the same encoder.
        after_slice: Called after each call of the encoder.
        while_waiting: Called now and then while the encoder is waited for.
        stored_chunks: Returns the chunks of a document that is chunked already; None has every
            document chunked.
        limits: How much is encoded at a time.

    Attributes:
        encoded: Chunks that were encoded.
        tokens: Tokens in these.
        size: The sum of the sizes of the items that are encoded, and for one that is being encoded
            the share that is done: what progress is computed from.
    """

    def __init__(
        self,
        writer: Writer,
        space: Space,
        encoder: Callable[[], CheckedEncoder],
        donors: Sequence[Space] = (),
        after_slice: Callable[[], None] = lambda: None,
        while_waiting: Callable[[], object] = lambda: None,
        stored_chunks: Callable[[Document], Chunked] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._writer = writer
        self._space = space
        self._after_slice = after_slice
        self._while_waiting = while_waiting
        self._stored_chunks = stored_chunks
        self._donors = (space, *donors)
        self._pending = PendingVectors(writer.directory, space)
        self._encoder = cache(encoder)
        self._chunking = space.chunking.options
        self._rules = rules.recorded(space.chunking.cutter)
        self._chunker: Chunker | None = None
        self._tokenizer: Tokenizer | None = None
        self._recent: dict[bytes, VectorOrRow] = {}
        self._refusals = Refusals()
        self._limits = limits or Limits()
        self.encoded = 0
        self.tokens = 0
        self.size = 0.0

    def encode(
        self,
        items: Iterable[ItemT],
        *,
        documents: int,
        refuse: Refuse[ItemT],
        seconds: float = math.inf,
    ) -> Generator[Done[ItemT], None, None]:
        """Yield items in order, a group at a time, with what to store for each document.

        The iterator reads ahead of what it yields. An error of `items` or of the tokenizer is
        raised after all complete groups before it have been yielded. Close the iterator when
        leaving early: that ends its thread as soon as the encoder returns from the call that it is
        in, which is waited for a moment only.

        Args:
            items: Read in the thread that iterates.
            documents: Documents that make a group complete, however short they are.
            refuse: Given an item, a document of it that cannot be encoded, and the reason, returns
                what is yielded in its place: an item without documents.
            seconds: Time after which a group is complete, at the next of `items`.
        """
        limits = self._limits
        groups = in_groups(
            items, documents=documents, characters=limits.group_characters, seconds=seconds
        )
        queue: deque[_Queued[ItemT]] = deque()
        deferred = _DeferredError()
        with EncoderThread(self._limits.interrupt_seconds) as thread:
            while not deferred.has_error:
                group = None
                with deferred:
                    group = next(groups, None)
                if group is None:
                    break
                if group.is_complete:
                    while not self._fits(queue, group):
                        yield self._finish(queue.popleft(), thread, refuse)
                    with deferred:
                        queue.append(self._begin(group, thread))
                # What is encoded by now is handed on at once, and so is a group that is over the
                # limit on its own: nothing more is read until it is done.
                while queue and (
                    queue[0].is_encoded or _characters(queue) > limits.queued_characters
                ):
                    yield self._finish(queue.popleft(), thread, refuse)
            while queue:
                yield self._finish(queue.popleft(), thread, refuse)
        deferred.release()

    def _fits(self, queue: Sequence[_Queued[ItemT]], group: Group[ItemT]) -> bool:
        """Return whether a group can be queued; a single group may have any size."""
        if not queue:
            return True
        fits = _characters(queue) + group.characters <= self._limits.queued_characters
        return fits and len(queue) < self._limits.queued_groups

    def forget(self, encoded: Iterable[Encoded]) -> None:
        """Forget the vectors of committed documents, which the catalog has now."""
        for one in encoded:
            if not one.precomputed:
                for name in one.hashes:
                    self._recent.pop(name, None)
                self._pending.discard(one.hashes)

    def _begin(self, group: Group[ItemT], thread: EncoderThread) -> _Queued[ItemT]:
        """Chunk a group and queue those of its texts that are neither stored nor queued already."""
        documents = [document for item in group.items for document in item.documents]
        chunked = self._chunk(documents)
        texts: dict[bytes, tuple[Tokenized, int]] = {}
        hashes: list[list[bytes]] = []
        for document, (chunks, _, ids) in zip(documents, chunked, strict=True):
            title = document.title
            wanted = [self._chunking.encoded_text(chunk, title) for chunk in chunks]
            hashes.append([checksums.text_hash(text) for text in wanted])
            if document.embedding is None:
                sizes = (chunk.tokens for chunk in chunks)
                inputs = map(Tokenized, wanted, ids)
                texts.update(zip(hashes[-1], zip(inputs, sizes, strict=True), strict=True))
        missing = self._missing(list(texts))
        slices = self._submit({name: texts[name] for name in missing}, thread)
        # Taken now: a commit before this group is finished may remove them from `_recent`.
        vectors_by_hash = {name: self._recent[name] for name in texts}
        # From here on the token ids are held by the calls of the encoder alone.
        kept = [(chunks, ledger) for chunks, ledger, _ in chunked]
        return _Queued(group, kept, hashes, vectors_by_hash, slices)

    def _chunk(self, documents: Sequence[Document]) -> list[Chunked]:
        if self._stored_chunks is not None:
            return [self._stored_chunks(document) for document in documents]
        own = [d for d in documents if d.embedding is None and d.text and not d.text.isspace()]
        if own and self._chunker is None:
            encoder = self._encoder()
            self._tokenizer = encoder.tokenizer
            self._chunker = Chunker(
                self._tokenizer, encoder.max_tokens, self._chunking, self._rules
            )
        chunked = iter(
            self._refusals.chunk(self._chunker, self._tokenizer, own)
            if self._chunker and self._tokenizer
            else ()
        )
        needs = {id(document) for document in own}
        return [
            next(chunked) if id(document) in needs else as_one_chunk(document)
            for document in documents
        ]

    def _missing(self, names: list[bytes]) -> list[bytes]:
        """Return the texts that have to be encoded; the others have a vector in `_recent` then."""
        missing = [name for name in names if name not in self._recent]
        for donor in self._donors:
            stored = catalog.vectors_by_text(self._writer.connection, donor, missing)
            self._recent.update({name: np.frombuffer(data, "<f4") for name, data in stored.items()})
            missing = [name for name in missing if name not in stored]
        if missing:
            self._recent.update(self._pending.find(missing))
            missing = [name for name in missing if name not in self._recent]
        return missing

    def _submit(
        self, texts: dict[bytes, tuple[Tokenized, int]], thread: EncoderThread
    ) -> list[_Slice]:
        """Queue texts for the encoder, sorted by length, so that little padding is computed."""
        if not texts:
            return []
        encoder = self._encoder()
        names = sorted(texts, key=lambda name: -texts[name][1])
        # The encoder truncates longer texts, so they cost no more than its window.
        sizes = [min(texts[name][1], encoder.max_tokens) for name in names]
        slices = []
        for some in equal_shares(sizes, self._limits.encode_tokens):
            wanted = [texts[name][0] for name in names[some]]
            vectors = thread.submit(partial(self._encode, encoder, names[some], wanted))
            for row, name in enumerate(names[some]):
                self._recent[name] = vectors, row
            tokens = sum(texts[name][1] for name in names[some])
            slices.append(_Slice(vectors, names[some], tokens))
        return slices

    def _keep(self, part: _Slice, slices: int) -> None:
        """Save the vectors of a large document to disk: it is committed only when it is whole."""
        if slices > 1:
            vectors = part.vectors.result()
            sound = np.flatnonzero(vectors.any(axis=1))  # a refused text has a row of zeros
            self._pending.keep([part.names[row] for row in sound], vectors[sound])

    def _encode(
        self, encoder: CheckedEncoder, names: list[bytes], texts: list[Tokenized]
    ) -> Vectors:
        """Return vectors of unit length. This is what runs in the background thread."""
        vectors = self._refusals.encode(encoder, names, texts)
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        norms[norms == 0] = 1  # a refused text has a row of zeros
        unit: Vectors = (vectors / norms).astype(np.float32)
        return unit

    def _finish(
        self, queued: _Queued[ItemT], thread: EncoderThread, refuse: Refuse[ItemT]
    ) -> Done[ItemT]:
        """Wait for a group's vectors and assemble what is stored for each of its documents."""
        to_encode = sum(part.tokens for part in queued.slices)
        before, tokens = self.size, 0
        for part in queued.slices:
            thread.wait(part.vectors, self._while_waiting)
            self._keep(part, len(queued.slices))
            self.encoded += len(part.names)
            self.tokens += part.tokens
            tokens += part.tokens
            self.size = before + queued.group.size * tokens / max(to_encode, 1)
            self._after_slice()
        self.size = before + queued.group.size
        known = {
            name: found[0].result()[found[1]] if isinstance(found, tuple) else found
            for name, found in queued.vectors_by_hash.items()
        }
        parts = zip(queued.chunked, queued.hashes, strict=True)
        done: Done[ItemT] = []
        for item in queued.group.items:
            encoded = []
            refused: tuple[Document, RetrieverError] | None = None
            for document in item.documents:
                (chunks, ledger), names = next(parts)
                own = names if document.embedding is None else ()
                if reason := self._refusals.reason(document, own):
                    refused = refused or (document, reason)
                dimension = self._space.dimension
                encoded.append(_assemble(document, chunks, ledger, names, known, dimension))
            if refused is not None:
                self.forget(encoded)
                item, encoded = refuse(item, *refused), []
            done.append((item, encoded))
        return done


def _characters(queue: Iterable[_Queued[ItemT]]) -> int:
    return sum(queued.group.characters for queued in queue)


def _assemble(
    document: Document,
    chunks: tuple[Chunk, ...],
    ledger: Ledger,
    hashes: list[bytes],
    known: dict[bytes, Vectors],
    dimension: int,
) -> Encoded:
    if document.embedding is not None:
        return Encoded(
            chunks,
            hashes,
            np.asarray(document.embedding, np.float32)[None, :],
            ledger,
            precomputed=True,
        )
    if not chunks:
        return Encoded((), (), np.empty((0, dimension), np.float32), ledger)
    return Encoded(chunks, hashes, np.stack([known[name] for name in hashes]), ledger)


class _DeferredError:
    """Catches the error of a block, to be raised once the groups before it are done.

    An interrupt is not an `Exception`, so it is not caught.
    """

    def __init__(self) -> None:
        self._error: Exception | None = None

    @property
    def has_error(self) -> bool:
        return self._error is not None

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self._error = error
        return True

    def release(self) -> None:
        """Raise the error that was caught, if any."""
        error, self._error = self._error, None
        if error is not None:
            raise error

"""Documents to what is stored of them, with the encoder at work in a thread of its own.

While the encoder works on one group of documents, the calling thread has the group before stored
and reads and chunks the next one. Everything but the encoder stays in the calling thread: the
iterator that documents come from, the catalog, callbacks. This owns the order of the groups and
bounds what is in memory at a time; it must not know what a commit is.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

import numpy as np

from retriever.documents.chunking import Chunker, as_one_chunk
from retriever.documents.drafts import Chunked
from retriever.encoders.checked import CheckedEncoder, Tokenized
from retriever.encoders.protocol import Tokenizer
from retriever.encoders.worker import EncoderThread, Pending
from retriever.errors import RetrieverError
from retriever.ingest.refusals import Refusals
from retriever.storage import catalog, checksums
from retriever.storage.pending import PendingVectors
from retriever.storage.records import Space
from retriever.storage.transaction import Encoded
from retriever.storage.writer import Writer
from retriever.types import Chunk, Document, Ledger

if TYPE_CHECKING:
    from retriever.encoders.worker import Vectors

GROUP_CHARACTERS = 100_000
"""Text that is worth a call of the tokenizer and of the encoder."""

ENCODE_TOKENS = 32_768
"""The longest call of the encoder; progress is told, and an interrupt heeded, after each."""

AHEAD_GROUPS = 2
"""Groups with the encoder: one that it works on, and one so that it need not wait for the next."""

AHEAD_CHARACTERS = 4_000_000
"""Text with the encoder; a larger group is there alone, and nothing is read meanwhile."""


class HasDocuments(Protocol):
    """What a pipeline is given and gives back undivided, with what to store for its documents."""

    @property
    def documents(self) -> Sequence[Document]: ...  # noqa: D102
    @property
    def size(self) -> int: ...  # noqa: D102


ItemT = TypeVar("ItemT", bound=HasDocuments)
Done: TypeAlias = list[tuple[ItemT, list[Encoded]]]
Refuse: TypeAlias = Callable[[ItemT, Document, RetrieverError], ItemT]
VectorOrRow: TypeAlias = "Vectors | tuple[Pending, int]"
"""A vector, or the row of what the encoder is going to return."""


@dataclass(slots=True)
class _Group(Generic[ItemT]):
    """Works that are read, chunked and encoded together."""

    items: list[ItemT] = field(default_factory=list)
    documents: int = 0
    characters: int = 0
    size: int = 0
    began: float = field(default_factory=time.monotonic)
    is_complete: bool = False

    def add(self, item: ItemT) -> None:
        self.items.append(item)
        self.documents += max(1, len(item.documents))
        self.characters += sum(len(document.text) for document in item.documents)
        self.size += item.size


@dataclass(slots=True)
class _Ahead(Generic[ItemT]):
    """A group that is chunked, and with the encoder as far as its vectors are not known."""

    group: _Group[ItemT]
    chunked: list[tuple[tuple[Chunk, ...], Ledger]]
    hashes: list[list[bytes]]
    vectors_by_hash: dict[bytes, VectorOrRow]
    slices: list[_Slice]

    @property
    def is_encoded(self) -> bool:
        return all(part.vectors.is_done for part in self.slices)


@dataclass(slots=True)
class _Slice:
    """One call of the encoder."""

    vectors: Pending
    names: list[bytes]
    tokens: int


class EncodingPipeline:
    """Documents to `Encoded`: chunks, hashes, vectors and ledger, for one space.

    Embeddings are taken from this space and from `donors`, spaces of the same encoder, where
    they hold the text. With `stored_chunks`, which returns those of a document that is cut
    already, nothing is cut.

    Attributes:
        encoded: Chunks that were encoded.
        tokens: Tokens in these.
        size: The sum of the sizes of the items that are encoded, and the part of one that is: by
            these its caller knows how far it has come.
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
        self._chunker: Chunker | None = None
        self._tokenizer: Tokenizer | None = None
        self._recent: dict[bytes, VectorOrRow] = {}
        self._refusals = Refusals()
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

        The iterator reads ahead of what it yields. An error of `items` or of the tokenizer comes
        after all complete groups before it. Close it when leaving early: that ends its thread
        once the encoder has finished the call it is in, which is waited for a moment only.

        Args:
            items: Read in the thread that iterates.
            documents: Documents that make a group complete, however short they are.
            refuse: Given an item with a document that the encoder cannot do, and the reason,
                returns what is yielded in its place: an item without documents.
            seconds: Time after which a group is complete, at the next of `items`.
        """
        groups = _groups(items, documents, seconds)
        ahead: deque[_Ahead[ItemT]] = deque()
        held = _Held()
        with EncoderThread() as thread:
            while not held.has_error:
                group = None
                with held:
                    group = next(groups, None)
                if group is None:
                    break
                if group.is_complete:
                    while not _has_room(ahead, group):
                        yield self._finish(ahead.popleft(), thread, refuse)
                    with held:
                        ahead.append(self._begin(group, thread))
                while ahead and (ahead[0].is_encoded or _characters(ahead) > AHEAD_CHARACTERS):
                    yield self._finish(ahead.popleft(), thread, refuse)
            while ahead:
                yield self._finish(ahead.popleft(), thread, refuse)
        held.release()

    def forget(self, encoded: Iterable[Encoded]) -> None:
        """Keep the vectors of these no longer: they are committed, and found in the catalog."""
        for one in encoded:
            if not one.precomputed:
                for name in one.hashes:
                    self._recent.pop(name, None)
                self._pending.settle(one.hashes)

    def _begin(self, group: _Group[ItemT], thread: EncoderThread) -> _Ahead[ItemT]:
        """Chunk a group and hand the encoder what is neither stored nor with it already."""
        documents = [document for item in group.items for document in item.documents]
        chunked = self._chunk(documents)
        texts: dict[bytes, tuple[Tokenized, int]] = {}
        hashes: list[list[bytes]] = []
        for document, (chunks, _, ids) in zip(documents, chunked, strict=True):
            wanted = [self._chunking.encoded_text(chunk) for chunk in chunks]
            hashes.append([checksums.text_hash(text) for text in wanted])
            if document.embedding is None:
                sizes = (chunk.tokens for chunk in chunks)
                inputs = map(Tokenized, wanted, ids)
                texts.update(zip(hashes[-1], zip(inputs, sizes, strict=True), strict=True))
        missing = self._missing(list(texts))
        slices = self._submit({name: texts[name] for name in missing}, thread)
        vectors_by_hash = {name: self._recent[name] for name in texts}
        # From here on the token ids are held by the calls of the encoder alone.
        kept = [(chunks, ledger) for chunks, ledger, _ in chunked]
        return _Ahead(group, kept, hashes, vectors_by_hash, slices)

    def _chunk(self, documents: Sequence[Document]) -> list[Chunked]:
        if self._stored_chunks is not None:
            return [self._stored_chunks(document) for document in documents]
        own = [d for d in documents if d.embedding is None and d.text and not d.text.isspace()]
        if own and self._chunker is None:
            encoder = self._encoder()
            self._tokenizer = encoder.tokenizer
            self._chunker = Chunker(self._tokenizer, encoder.max_tokens, self._chunking)
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
        """Return the texts to encode; the vectors of stored ones are in `_recent` then."""
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
        """Have texts encoded, those of like length together, so that little is padded."""
        if not texts:
            return []
        encoder = self._encoder()
        names = sorted(texts, key=lambda name: -texts[name][1])
        sizes = [min(texts[name][1], encoder.max_tokens) for name in names]
        slices = []
        for some in _shares(sizes, ENCODE_TOKENS):
            wanted = [texts[name][0] for name in names[some]]
            vectors = thread.submit(partial(self._encode, encoder, names[some], wanted))
            for row, name in enumerate(names[some]):
                self._recent[name] = vectors, row
            tokens = sum(texts[name][1] for name in names[some])
            slices.append(_Slice(vectors, names[some], tokens))
        return slices

    def _keep(self, part: _Slice, slices: int) -> None:
        """Keep the vectors of a large document, which is committed only when it is whole."""
        if slices > 1:
            vectors = part.vectors.result()
            sound = np.flatnonzero(vectors.any(axis=1))  # without those of texts that are refused
            self._pending.keep([part.names[row] for row in sound], vectors[sound])

    def _encode(
        self, encoder: CheckedEncoder, names: list[bytes], texts: list[Tokenized]
    ) -> Vectors:
        """Return vectors of unit length; all that is done in the other thread."""
        vectors = self._refusals.encode(encoder, names, texts)
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        norms[norms == 0] = 1  # of a text that is refused
        unit: Vectors = (vectors / norms).astype(np.float32)
        return unit

    def _finish(
        self, ahead: _Ahead[ItemT], thread: EncoderThread, refuse: Refuse[ItemT]
    ) -> Done[ItemT]:
        """Wait for a group's vectors and put together what is stored for it."""
        to_encode = sum(part.tokens for part in ahead.slices)
        before, tokens = self.size, 0
        for part in ahead.slices:
            thread.wait(part.vectors, self._while_waiting)
            self._keep(part, len(ahead.slices))
            self.encoded += len(part.names)
            self.tokens += part.tokens
            tokens += part.tokens
            self.size = before + ahead.group.size * tokens / max(to_encode, 1)
            self._after_slice()
        self.size = before + ahead.group.size
        known = {
            name: place[0].result()[place[1]] if isinstance(place, tuple) else place
            for name, place in ahead.vectors_by_hash.items()
        }
        parts = zip(ahead.chunked, ahead.hashes, strict=True)
        done: Done[ItemT] = []
        for item in ahead.group.items:
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


def _groups(items: Iterable[ItemT], documents: int, seconds: float) -> Iterator[_Group[ItemT]]:
    """Yield the group in hand after each item, complete or not.

    The next item may be long in coming: meanwhile the caller sees to what is encoded.
    """
    group: _Group[ItemT] = _Group()
    for item in items:
        group.add(item)
        group.is_complete = (
            group.documents >= documents
            or group.characters >= GROUP_CHARACTERS
            or time.monotonic() - group.began >= seconds
        )
        yield group
        if group.is_complete:
            group = _Group()
    if group.items:
        group.is_complete = True
        yield group


def _characters(ahead: Iterable[_Ahead[ItemT]]) -> int:
    return sum(each.group.characters for each in ahead)


def _has_room(ahead: Sequence[_Ahead[ItemT]], group: _Group[ItemT]) -> bool:
    """Return whether a group may join those with the encoder; one alone may be of any size."""
    if not ahead:
        return True
    fits = _characters(ahead) + group.characters <= AHEAD_CHARACTERS
    return fits and len(ahead) < AHEAD_GROUPS


def _shares(sizes: list[int], limit: int) -> Iterator[slice]:
    """Yield slices of about equal sums, so few that none is much over the limit."""
    fair = sum(sizes) / math.ceil(max(sum(sizes), 1) / limit)
    start = total = 0
    for position, size in enumerate(sizes, 1):
        total += size
        if total >= fair or position == len(sizes):
            yield slice(start, position)
            start, total = position, 0


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


class _Held:
    """Holds back the error of a block until it is its turn; an interrupt passes at once."""

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
        """Raise the error, if there was one."""
        error, self._error = self._error, None
        if error is not None:
            raise error

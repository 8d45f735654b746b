"""Read planned files: bytes to documents, a bounded number of them at a time.

`read` knows a file's path and how to read it, and nothing of an index: it takes and yields plain
values that can be pickled, so that it can run in another process. `read_in_order` runs it in the
calling thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from retriever import names
from retriever.documents import parsers, sources
from retriever.documents.stamps import FileStamp
from retriever.documents.validation import to_document
from retriever.errors import IngestError, RetrieverError, UnsupportedFormat, UsageError
from retriever.ingest.planning import PlannedFile
from retriever.limits import Limits
from retriever.types import MAX_FILE_SIZE, Document

PartState: TypeAlias = Literal["partial", "indexed", "same", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How files are read.

    Attributes:
        dimension: Length of the index's vectors, for checking documents.
        max_file_size: Larger files are not read, in bytes.
        encoding: What files without a byte order mark are in; None means to find out.
        limits: How much of a file is handed on at a time; see `commit_documents` and
            `part_characters`.
    """

    dimension: int
    max_file_size: int = MAX_FILE_SIZE
    encoding: str | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class FilePart:
    """What was read of a file: all of it, or some of its documents.

    Attributes:
        state: `partial` if more follows, `indexed` if these are the last documents, `same` if the
            content is as recorded, `skipped` or `failed` if it cannot be used.
        documents: In order, with ids and sources.
        total: Documents of the file up to and including these.
        reason: Why it cannot be used.
        stamp: What tells whether the file has changed since; None where it must be read again.
        sha256: Of its content; None if that could not be read.
    """

    state: PartState
    documents: tuple[Document, ...] = ()
    total: int = 0
    reason: str = ""
    stamp: FileStamp | None = None
    sha256: bytes | None = None


Read: TypeAlias = Callable[[PlannedFile], Iterator[FilePart]]


def read_in_order(
    planned: Iterable[PlannedFile], read: Read
) -> Iterator[tuple[PlannedFile, Iterator[FilePart]]]:
    """Yield every planned file with the parts that are read of it, none where it is not read.

    Here a file is opened when its parts are asked for, and one part is in memory at a time.
    Whatever takes the place of this loop to read ahead in several processes must keep the order,
    bound the parts that wait, and raise an error of `read` at its turn.
    """
    for one in planned:
        yield one, read(one) if one.step == "read" else iter(())


def read(planned: PlannedFile, options: ReadOptions) -> Iterator[FilePart]:
    """Yield the documents of a file in parts; the last part says how it ended.

    A file of few documents is one part, so that it is stored whole or not at all. What can be
    wrong with a file is a state of a part, not an error.
    """
    try:
        content = sources.read(planned.file, max_file_size=options.max_file_size)
    except IngestError as exc:
        yield FilePart("failed", reason=_reason(exc, planned))
        return
    found = FilePart("indexed", stamp=content.stamp, sha256=content.sha256)
    recorded = planned.known.row.sha256 if planned.known else None
    if planned.same_content is not None and recorded == content.sha256:
        yield replace(found, state="same")
        return
    total = 0
    try:
        for documents, is_last in _parts(_documents(content.data, planned, options), options):
            total += len(documents)
            state: PartState = "indexed" if is_last else "partial"
            yield replace(found, state=state, documents=tuple(documents), total=total)
    except UnsupportedFormat as exc:
        yield replace(found, state="skipped", reason=_reason(exc, planned), total=total)
    # A document that is over a limit concerns its file alone, not the call.
    except (IngestError, UsageError) as exc:
        yield replace(found, state="failed", reason=_reason(exc, planned), total=total)


def _documents(data: bytes, planned: PlannedFile, options: ReadOptions) -> Iterator[Document]:
    """Yield a file's documents, checked, with ids and sources."""
    path = os.fspath(planned.file.path)
    for position, document in enumerate(parsers.parse(data, path, options.encoding)):
        named = replace(
            document,
            id=names.id_of(planned.name, position),
            source=document.source or names.of_path(planned.name),
        )
        yield to_document(named, position, options.dimension)


def _parts(
    documents: Iterator[Document], options: ReadOptions
) -> Iterator[tuple[list[Document], bool]]:
    """Yield documents in lists of bounded size, and whether each list is the last one."""
    limits = options.limits
    part: list[Document] = []
    characters = 0
    for document in documents:
        # A full part is handed on only when another document follows: the last is never empty.
        if len(part) >= limits.commit_documents or characters >= limits.part_characters:
            yield part, False
            part, characters = [], 0
        part.append(document)
        characters += len(document.text)
    yield part, True


def _reason(exc: RetrieverError, planned: PlannedFile) -> str:
    """Return an error's message and hint without the file's name, which stands beside them."""
    path = planned.file.path
    text = str(exc).removeprefix(f"{path} ").replace(f" of {path} ", " ")
    return text.replace(f" ({names.id_of(planned.name)!r})", "")

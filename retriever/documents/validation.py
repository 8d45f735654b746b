"""Check what a caller passes as documents, and bring it into one canonical form."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from datetime import date, datetime
from difflib import get_close_matches
from typing import Any, TypeAlias

import numpy as np

from retriever.arguments import as_whole, described, kind_of, shown
from retriever.canonical import (
    MAX_DEPTH,
    MAX_JSON,
    content_of,
    described_by,
    moment,
    of_numpy,
    structure_of,
    to_json,
    unit_vector,
)
from retriever.errors import InvalidDocument, LimitExceeded, UsageError
from retriever.types import Document, Heading

MAX_TEXT_BYTES = 500_000_000
_INT64 = 1 << 63
_DEEPEST = 10**100  # levels of headings: more digits would not be read back
_FIELDS = tuple(field.name for field in fields(Document))

Consistent: TypeAlias = Callable[[Document, int], None]
OnInvalid: TypeAlias = Callable[[int, UsageError], None]


def read_documents(
    values: Iterable[Document | Mapping[str, Any] | str] | Document | Mapping[str, Any] | str,
    dimension: int,
    consistent: Consistent | None = None,
    *,
    has_encoder: bool = True,
    on_invalid: OnInvalid | None = None,
) -> Iterator[Document]:
    """Yield checked documents with ids; lists and tuples are checked whole before the first.

    Args:
        values: What a caller handed in.
        dimension: Length of the vectors of the index.
        consistent: Given a document and its position, raises if another document of the call has
            its id and other content. Used for iterators, which may have too many ids to keep here.
        has_encoder: Whether the index can encode a text that comes without an embedding.
        on_invalid: Takes the position and the error of a document that is unusable, which is
            then passed over. None raises the error.

    Raises:
        InvalidDocument: A document is unusable, or two have one id and other content.
        LimitExceeded: A text is over 500 MB; metadata, or headings and pages together, are over
            16 million characters as JSON.
    """
    if isinstance(values, str | Document | Mapping):
        values = [values]
    if not isinstance(values, Iterable):
        raise InvalidDocument(
            f"A {type(values).__name__} is no document and no series of documents.",
            hint="Pass Documents, dicts or strings; files are read by add_files.",
        )
    if isinstance(values, list | tuple):
        kept = _checked(values, dimension, _InList().require_consistent, has_encoder, on_invalid)
        return iter(list(kept))
    return _checked(values, dimension, consistent, has_encoder, on_invalid)


def _checked(
    values: Iterable[Any],
    dimension: int,
    require_consistent: Consistent | None,
    has_encoder: bool,
    on_invalid: OnInvalid | None,
) -> Iterator[Document]:
    # `require_consistent` counts the documents that are handed on, as the caller of this does.
    taken = 0
    for position, value in enumerate(values):
        try:
            document = to_document(value, position, dimension)
            _require_embedding(document, position, dimension, has_encoder)
            if require_consistent is not None:
                require_consistent(document, taken)
        except UsageError as exc:
            if on_invalid is None:
                raise
            on_invalid(position, exc)
        else:
            taken += 1
            yield document


def _require_embedding(
    document: Document, position: int, dimension: int, has_encoder: bool
) -> None:
    if not has_encoder and document.embedding is None and document.text.strip():
        raise InvalidDocument(
            f"Document {position} ({document.id!r}) brings no embedding, and this index has no "
            "model to make one.",
            hint=f"Pass embedding=, {dimension} finite numbers, or give the index a model: "
            "rebuild(model=…, discard_embeddings=True).",
        )


class _InList:
    """Raises for a document of a list if an earlier one has its id and other content."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, Document]] = {}

    def require_consistent(self, document: Document, position: int) -> None:
        name = document.id or ""
        first, earlier = self._known.setdefault(name, (position, document))
        if earlier is not document and content_of(earlier) != content_of(document):
            raise same_id(name, first, position)


def same_id(document_id: str, first: int | None, second: int) -> InvalidDocument:
    """Return the error for two documents of one call; the first one's position may be unknown."""
    which = f"Documents {first} and {second}"
    if first is None:
        which = f"Document {second} and an earlier one"
    return InvalidDocument(
        f"{which} of this call have the same id {document_id!r} and other content.",
        hint="Give each its own id, or pass only the later one.",
    )


def _default_id(document: Document) -> str:
    """Return an id for a canonical document without one: a hash of all that it holds."""
    if document.embedding is None and not described_by(document):
        return hashlib.sha256(document.text.encode()).hexdigest()
    return content_of(document)


def to_document(value: Any, position: int, dimension: int) -> Document:
    """Return a canonical document: id given, metadata plain JSON, embedding of unit length."""
    where = f"Document {position}"
    document = _convert(value, where)
    check_text(document.text, f"The text of {where}")
    data = document.text.encode()
    if len(data) > MAX_TEXT_BYTES:
        raise LimitExceeded(
            f"The text of {where} has {len(data):,} bytes; the limit is {MAX_TEXT_BYTES:,}.",
            limit=MAX_TEXT_BYTES,
            value=len(data),
            option="text",
            hint="Split it into several documents.",
        )
    if document.id is not None:
        if not isinstance(document.id, str) or not document.id:
            raise InvalidDocument(
                f"{where} has the id {shown(document.id)}.",
                hint="An id is a string that is not empty; str() makes one of a number.",
            )
        where = f"{where} ({document.id!r})"
    for name, text in (("id", document.id), ("source", document.source), ("title", document.title)):
        if text is not None:
            check_text(text, f"The {name} of {where}")
    document = replace(
        document,
        headings=_headings(document.headings, where, len(document.text)),
        pages=_pages(document.pages, where, len(document.text)),
        metadata=_metadata(document.metadata, where),
        embedding=_embedding(document.embedding, where, dimension),
    )
    _require_small(document.metadata, "metadata", where)
    _require_small(structure_of(document), "headings and pages", where)
    return document if document.id is not None else replace(document, id=_default_id(document))


def read_ids(ids: Iterable[str] | str) -> list[str]:
    """Return document ids, or names that stand for them, each once, in order.

    Raises:
        InvalidDocument: There is something else among them.
    """
    if isinstance(ids, str):
        ids = [ids]
    if isinstance(ids, bytes | Mapping | Document) or not isinstance(ids, Iterable):
        raise InvalidDocument(
            f"The id of a document is {described(ids)}.",
            hint="Pass an id, which is a string, or several of them.",
        )
    wanted: list[Any] = list(ids)
    for document_id in wanted:
        if not isinstance(document_id, str):
            check_text(document_id, "A document id")
    return list(dict.fromkeys(wanted))


def _convert(value: Any, where: str) -> Document:
    if isinstance(value, Document):
        return value
    if isinstance(value, str):
        return Document(value)
    if not isinstance(value, Mapping):
        raise InvalidDocument(
            f"{where} is {kind_of(value)}.",
            hint="Pass a Document, a dict with a 'text', or a string.",
        )
    for name in value:
        if name not in _FIELDS:
            close = get_close_matches(str(name), _FIELDS, 1)
            meant = f"Did you mean {close[0]!r}? " if close else ""
            raise InvalidDocument(
                f"{where} has an unknown field {name!r}.",
                hint=f"{meant}Fields are {', '.join(_FIELDS)}; put others under 'metadata'.",
            )
    if "text" not in value:
        raise InvalidDocument(f"{where} has no 'text'.", hint="Give it one; it may be empty.")
    return Document(**value)


def check_text(text: Any, what: str) -> None:
    """Raise for what is not a string that has a UTF-8 form.

    Raises:
        InvalidDocument: Naming `what` it is.
    """
    if not isinstance(text, str):
        raise InvalidDocument(f"{what} is {kind_of(text)}.", hint=_how_to_be_text(text))
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidDocument(
            f"{what} holds a lone surrogate, {text[exc.start]!r}, at character {exc.start}.",
            hint="Replace it, for example with text.encode('utf-8', 'replace').decode().",
        ) from exc


def _how_to_be_text(value: Any) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return "Decode it to a string first."
    return "Pass a string." if value is None else "Pass a string; str() makes one of other values."


def _metadata(metadata: Any, where: str) -> dict[str, Any]:
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise InvalidDocument(
            f"The metadata of {where} is {kind_of(metadata)}.", hint="Pass a dict."
        )
    return dict(_object(metadata, f"the metadata of {where}", 1))


def _require_small(value: Mapping[str, Any], what: str, where: str) -> None:
    """Raise for JSON that is larger than storage reads back."""
    size = len(to_json(value)) if value else 0
    if size > MAX_JSON:
        raise LimitExceeded(
            f"The {what} of {where}, as JSON, are {size:,} characters; the limit is {MAX_JSON:,}.",
            limit=MAX_JSON,
            value=size,
            option=what,
            hint="Put text into `text`; all else only describes it.",
        )


def _object(value: Mapping[Any, Any], path: str, depth: int) -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        check_text(key, f"A key in {path}")
        yield str.__str__(key), _plain(inner, f"{key!r} in {path}", depth + 1)


def _plain(value: Any, path: str, depth: int) -> Any:
    what = path[:1].upper() + path[1:]
    if depth > MAX_DEPTH + 1:
        raise InvalidDocument(
            f"{what} is nested more than {MAX_DEPTH} deep.", hint="Flatten the metadata."
        )
    # Before int, which bool is a subclass of: True must not become 1.
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        check_text(value, what)
        return str.__str__(value)  # not what an Enum of strings makes of it
    if isinstance(value, int) and -_INT64 <= value < _INT64:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    # Before date, which datetime is a subclass of.
    if isinstance(value, datetime):
        return _moment(value, what)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, np.generic | np.ndarray) and (plain := of_numpy(value)) is not value:
        return _plain(plain, path, depth)
    if isinstance(value, list | tuple):
        return [_plain(inner, f"an item of {path}", depth + 1) for inner in value]
    if isinstance(value, Mapping):
        return dict(_object(value, path, depth))
    raise InvalidDocument(
        f"{what} is {described(value)}, which cannot be stored.",
        hint="For a number that is missing, pass None or leave it out."
        if isinstance(value, float)
        else "Metadata may hold strings, 64-bit integers, finite floats, booleans, None, dates, "
        "datetimes, lists and dicts. Turn other values into one of these, as str() does.",
    )


def _moment(value: datetime, path: str) -> str:
    try:
        return moment(value)
    except ValueError as exc:
        raise InvalidDocument(
            f"{path} is {shown(value)}.", hint="Leave it out, or pass None."
        ) from exc
    except OverflowError as exc:
        raise InvalidDocument(
            f"{path} is {value!r}, outside the years 1 to 9999 in UTC.", hint="Give it in UTC."
        ) from exc


def _headings(value: Any, where: str, length: int) -> tuple[Heading, ...]:
    headings = []
    for heading in value if isinstance(value, list | tuple) else [value]:
        is_heading = isinstance(heading, list | tuple) and len(heading) == len(Heading._fields)
        start, level, title = heading if is_heading else (None, None, None)
        offset, depth = _offset(start, length), as_whole(level)
        if offset is None or depth is None or abs(depth) > _DEEPEST or not isinstance(title, str):
            break
        headings.append(Heading(offset, depth, title))
    else:
        if headings == sorted(headings, key=lambda heading: heading.start):
            for heading in headings:
                check_text(heading.title, f"A heading of {where}")
            return tuple(headings)
    raise InvalidDocument(
        f"The headings of {where} are {shown(value)}.",
        hint="Pass (start, level, title) in ascending order of start, or none; a start is a "
        f"character of the text, which has {length}.",
    )


def _offset(value: Any, length: int) -> int | None:
    """Return a character offset of a text, its end included; None for anything else."""
    offset = as_whole(value)
    return offset if offset is not None and 0 <= offset <= length else None


def _pages(value: Any, where: str, length: int) -> tuple[int, ...]:
    given = value if isinstance(value, list | tuple) else [None]
    starts = [offset for start in given if (offset := _offset(start, length)) is not None]
    if len(starts) < len(given) or starts != sorted(starts):
        raise InvalidDocument(
            f"The pages of {where} are {shown(value)}.",
            hint="Pass the character offsets at which pages begin, ascending, or none; the text "
            f"has {length} characters.",
        )
    return tuple(starts)


def _embedding(value: Any, where: str, dimension: int) -> Any:
    if value is None:
        return None
    try:
        return unit_vector(value, dimension)
    except ValueError as exc:
        raise InvalidDocument(
            f"The embedding of {where} {exc}.", hint=f"Pass {dimension} finite numbers."
        ) from exc

"""Documents from standard input: JSON Lines, or the whole of it as one text."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias

from retriever.cli import output, streams
from retriever.errors import IngestError, InvalidDocument, UsageError

if TYPE_CHECKING:
    from retriever.types import IngestReport

Form: TypeAlias = Literal["jsonl", "text"]
FIELDS = ("text", "id", "title", "source", "metadata", "embedding")


class StandardInput:
    """The documents that are piped in.

    Each line is a document if the first line that is not blank is a JSON object with a `text`,
    or if `form` says so. Otherwise the whole is the text of one document.

    Args:
        stream: Bytes; defaults to the process's standard input.
        form: `jsonl` or `text`; None looks at the first line.
        document_id: The id of the one document, where it is text.
        encoding: What a text is in; None means to find out.
    """

    def __init__(
        self,
        stream: BinaryIO | None = None,
        *,
        form: Form | None,
        document_id: str | None,
        encoding: str | None = None,
    ) -> None:
        self._stream = stream or sys.stdin.buffer
        self._form = form
        self._id = document_id
        self._encoding = encoding
        self._line = 0

    def add_to(self, add: Callable[[Iterator[dict[str, Any]]], IngestReport]) -> IngestReport:
        """Hand the documents to `Index.add`, line by line; an error names the line.

        Raises:
            InvalidDocument: A line is no document; batches before it are committed.
        """
        try:
            return add(self._read())
        except UsageError as exc:
            if self._line:
                exc.message = f"Line {self._line}: {exc.message}"
            raise

    def _read(self) -> Iterator[dict[str, Any]]:
        with streams.reading_input():
            yield from self._documents()

    def _documents(self) -> Iterator[dict[str, Any]]:
        if self._stream.isatty():
            output.note("Reading from the terminal; end with Ctrl-D on a line of its own.")
        head: list[bytes] = []
        for line in self._stream:
            head.append(line)
            if line.strip():
                break
        if self._form == "jsonl" or (self._form is None and head and _is_document(head[-1])):
            if self._id is not None:
                raise InvalidDocument(
                    "--id is for one text, not for lines of JSON.",
                    hint="Give each object an 'id' of its own.",
                )
            yield from self._lines(head)
        else:
            yield self._whole(head)

    def _lines(self, head: list[bytes]) -> Iterator[dict[str, Any]]:
        for number, line in enumerate(chain(head, self._stream), 1):
            self._line = number
            if line.strip():
                yield _parse(line)
        self._line = 0

    def _whole(self, head: list[bytes]) -> dict[str, Any]:
        from retriever.documents.decoding import decode, decode_as
        from retriever.documents.parsers.text import encoding_metadata

        data = b"".join(head) + self._stream.read()
        try:
            name = "standard input"
            found = decode_as(data, name, self._encoding) if self._encoding else decode(data, name)
        except IngestError as exc:
            raise InvalidDocument(exc.message, hint=exc.hint or "Pipe in text.") from exc
        text = found.text
        if not text.strip():
            raise InvalidDocument(
                "Standard input is empty: there is nothing to index.",
                hint="Pipe in a text, or JSON Lines with --jsonl.",
            )
        return {"text": text, "id": self._id, "metadata": encoding_metadata(found)}


def _is_document(line: bytes) -> bool:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "text" in value


def _parse(line: bytes) -> dict[str, Any]:
    """Return the document that a line is."""
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        raise InvalidDocument(
            f"not UTF-8 at byte {exc.start + 1}.", hint="JSON Lines are UTF-8."
        ) from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidDocument(f"not JSON: {exc}.", hint=_EXAMPLE) from exc
    if not isinstance(value, dict):
        raise InvalidDocument(f"a {type(value).__name__}, not an object.", hint=_EXAMPLE)
    for name in ("headings", "pages"):
        if name in value:
            raise InvalidDocument(
                f"unknown field {name!r}.",
                hint=f"Fields are {', '.join(FIELDS)}; put others under 'metadata'.",
            )
    return value


_EXAMPLE = 'Each line is an object such as {"text": "…", "id": "a1", "metadata": {"year": 2024}}.'

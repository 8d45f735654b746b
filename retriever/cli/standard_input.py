"""Read documents from standard input: JSON in three forms, or one text."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias

from retriever.cli import json_input, output, streams
from retriever.cli.json_input import Piece
from retriever.errors import IngestError, InvalidDocument, RetrieverError, UsageError

if TYPE_CHECKING:
    from retriever.reports import IngestReport

    OnInvalid: TypeAlias = Callable[[int, UsageError], None]
    Add: TypeAlias = Callable[[Iterator[dict[str, Any]], OnInvalid | None], IngestReport]

Form: TypeAlias = Literal["jsonl", "text"]
OnError: TypeAlias = Literal["skip", "stop"]
_Found: TypeAlias = Literal["lines", "array", "objects", "text"]
_NAMES = {
    "lines": "JSON Lines",
    "array": "an array of JSON objects",
    "objects": "JSON objects one after another",
    "text": "one text",
}
_LIKE_JSON = re.compile(r'\s*(?:\{\s*"|\[\s*\{)')
# Bounds the memory: every line of a large input may be unusable.
_KEPT_FAILURES = 1_000
_NUMBERED = re.compile(r"\bDocuments? \d+( and (?:\d+|an earlier one) of this call)?")


class StandardInput:
    """The documents on standard input.

    The input is JSON if it begins with an object that has a text, or with an array of objects, or
    if `form` says so. Otherwise the whole input is the text of one document. The detected form is
    printed to stderr.

    Args:
        stream: A binary stream; defaults to the process's standard input.
        form: `jsonl` (JSON in any of its forms) or `text`; None detects it from the beginning.
        document_id: The id of the document, if the input is one text.
        encoding: The character encoding of a text; None detects it.
        text_field: The field of an object that holds its text.
        on_error: Whether an object that is not a document is skipped and reported, or ends the
            call.
        quiet: Whether to print nothing about the form.
    """

    def __init__(
        self,
        stream: BinaryIO | None = None,
        *,
        form: Form | None,
        document_id: str | None,
        encoding: str | None = None,
        text_field: str = "text",
        on_error: OnError = "skip",
        quiet: bool = False,
    ) -> None:
        self._stream = stream or sys.stdin.buffer
        self._form = form
        self._id = document_id
        self._encoding = encoding
        self._text_field = text_field
        self._skips = on_error == "skip"
        self._quiet = quiet
        self._place = ""
        self._usable = self._failed = 0
        self._failures: list[tuple[str, RetrieverError]] = []

    def add_to(self, add: Add) -> IngestReport:
        """Pass the documents to `Index.add`, one after another.

        An object that is not a document is listed in the report's `failed`, by the line it begins
        in. With `on_error="stop"` it ends the call, and the error names the line.

        Raises:
            InvalidDocument: None of the objects is a document; or, with `on_error="stop"`, one is
                not. Batches before it are committed.
        """
        try:
            report = add(self._read(), self._pass_over if self._skips else None)
        except BaseException as exc:
            if isinstance(exc, UsageError) and self._place:
                exc.message = f"{self._place}: {_of_this(exc.message)}"
            if (kept := getattr(exc, "report", None)) is not None:
                exc.report = self._with_failures(kept)  # type: ignore[attr-defined]
            raise
        return self._with_failures(report)

    def _with_failures(self, report: IngestReport) -> IngestReport:
        """Return the report with the skipped objects added to `failed`."""
        from retriever.types import FileOutcome

        failed = list(report.failed)
        for place, exc in self._failures:
            reason = f"{_of_this(exc.message)} {exc.hint}".strip()
            failed.append(FileOutcome(_lower(place), "failed", reason))
        if (more := self._failed - len(self._failures)) > 0:
            reason = f"{more:,} more failed; their reasons are not listed."
            failed.append(FileOutcome("standard input", "failed", reason))
        return replace(report, failed=tuple(failed))

    def _pass_over(self, _: int, exc: RetrieverError) -> None:
        """Record that the object just read is not a document."""
        self._failed += 1
        if len(self._failures) < _KEPT_FAILURES:
            self._failures.append((self._place, exc))

    def _read(self) -> Iterator[dict[str, Any]]:
        with streams.reading_input():
            if self._stream.isatty():
                output.note("Reading from the terminal; end with Ctrl-D on a line of its own.")
            head, form = self._recognise()
            if form == "text":
                yield self._whole(head)
            else:
                yield from self._documents(form, head)

    # --- which form it is ---------------------------------------------------------------------

    def _recognise(self) -> tuple[list[bytes], _Found]:
        """Return the lines that had to be read to detect the form, and the form."""
        # Standard input cannot be rewound, so that what is read here is kept and read again.
        head: list[bytes] = []
        form = "text" if self._form == "text" else self._form_of(head)
        if form == "text" and self._form == "jsonl":
            form = "lines"
        if form != "text" and self._id is not None:
            raise InvalidDocument(
                f"--id is for one text; this is {_NAMES[form]}.",
                hint="Give each object an 'id' of its own, or pass --text.",
            )
        if self._form is None and form != "text" and any(line.strip() for line in head):
            self._require_text(head, form)
        if not self._quiet and (self._form, form) not in (("text", "text"), ("jsonl", "lines")):
            output.note(f"Reading standard input as {_NAMES[form]}.")
        return head, form

    def _form_of(self, head: list[bytes]) -> _Found:
        """Detect the form from the first lines, which are appended to `head`."""
        # Limited, because a text or binary data without line breaks is one line of any size.
        first = self._line(head, json_input.BLOCK).removeprefix(json_input.BOM).lstrip()
        if head and not first:  # the byte order mark is on a line of its own
            first = self._line(head, json_input.BLOCK).lstrip()
        if first.startswith(b"["):
            while first.strip() == b"[" and (line := self._line(head)):
                first += line
            inside = first[1:].strip()
            return "array" if inside.startswith(b"{") or inside == b"]" else "text"
        if not first.startswith(b"{"):
            return "text"
        if not first.endswith(b"\n"):
            head.append(self._stream.readline())
            first += head[-1]
        if _is_object(first):
            return "lines"
        if _are_objects(first):
            return "objects"
        if _is_object(self._line(head)):  # the first line is broken, the second is not
            return "lines"
        blocks = chain(list(head), self._kept(head))
        piece = next(json_input.objects(blocks, in_array=False), Piece(0, b""))
        return "objects" if _is_object(piece.data) else "text"

    def _line(self, head: list[bytes], at_most: int = -1) -> bytes:
        """Read the next line that is not blank, or the first `at_most` bytes of it."""
        while line := self._stream.readline(at_most):
            head.append(line)
            if line.strip():
                return line
        return b""

    def _kept(self, head: list[bytes]) -> Iterator[bytes]:
        for line in self._stream:
            head.append(line)
            yield line

    def _require_text(self, head: list[bytes], form: _Found) -> None:
        """Refuse JSON whose first object is complete but does not have the text field."""
        for piece in _pieces(form, head):
            try:
                value = json.loads(piece.data.decode("utf-8-sig"))
            except (ValueError, RecursionError):
                return
            if isinstance(value, dict) and self._text_field not in value:
                raise InvalidDocument(
                    f"Standard input is {_NAMES[form]}, but the first has no field "
                    f"{self._text_field!r}: it has {json_input.fields_of(value)}.",
                    hint="Name the field that holds the text with --text-field, or pass --text to "
                    "index all of it as one text.",
                )
            return

    # --- what is in it ------------------------------------------------------------------------

    def _documents(self, form: _Found, head: list[bytes]) -> Iterator[dict[str, Any]]:
        number = 0
        for number, piece in enumerate(_pieces(form, chain(head, self._rest(form))), 1):
            self._place = f"Line {piece.line}" if form == "lines" else _object(number, piece)
            try:
                document = json_input.parse(piece.data, self._text_field)
            except InvalidDocument as exc:
                if not self._skips:
                    raise
                self._pass_over(number, exc)
            else:
                yield document
        # An error after the last object, such as that of a commit, concerns no line.
        self._place = ""
        if number and self._failed == number:
            self._place, first = self._failures[0]
            of_many = f"None of {number:,} {'lines' if form == 'lines' else 'objects'} is usable. "
            raise InvalidDocument(
                first.message, hint=f"{of_many if number > 1 else ''}{first.hint}"
            )

    def _rest(self, form: _Found) -> Iterable[bytes]:
        if form == "lines":
            return self._stream
        # `read1` returns what has arrived; `read` would wait for a full block.
        read = getattr(self._stream, "read1", self._stream.read)
        return iter(lambda: read(json_input.BLOCK), b"")

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
        is_other = found.encoding.lower() not in ("utf-8", "utf-8-sig", "ascii")
        if self._form is None and is_other and _LIKE_JSON.match(text):
            raise InvalidDocument(
                f"Standard input looks like JSON in {found.encoding}; JSON is UTF-8.",
                hint="Convert it, or pass --text to index it as one text.",
            )
        return {"text": text, "id": self._id, "metadata": encoding_metadata(found)}


def _pieces(form: _Found, blocks: Iterable[bytes]) -> Iterator[Piece]:
    if form == "lines":
        return json_input.lines(blocks)
    return json_input.objects(blocks, in_array=form == "array")


def _object(number: int, piece: Piece) -> str:
    return f"Object {number}, line {piece.line}"


def _of_this(message: str) -> str:
    """Replace `Document 3` in a message by "this object".

    `Index.add` counts the documents that it gets; a user counts the lines or objects of the input,
    of which some were skipped.
    """
    found = _NUMBERED.search(message)
    if found is None:
        return message
    before, after = message[: found.start()], message[found.end() :]
    this = "this object" if before else "This object"
    return f"{before}{this}{' and an earlier one' if found[1] else ''}{after}"


def _lower(place: str) -> str:
    return f"{place[:1].lower()}{place[1:]}"


def _is_object(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data.decode("utf-8-sig")), dict)
    except (ValueError, RecursionError):
        return False


def _are_objects(line: bytes) -> bool:
    """Return whether a line is an object, optionally followed by a comma or another object."""
    try:
        text = line.decode("utf-8-sig").strip()
        value, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    after = text[end:].lstrip(", \t")
    return isinstance(value, dict) and (not after or after.startswith("{"))

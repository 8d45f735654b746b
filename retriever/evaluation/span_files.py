"""Read questions with marked answers from files.

Two forms are read, both of one JSON object a line. A file of one's own marks characters of the
documents of an index:

    {"text": "Where does the pump stand?", "document": "manual.md", "spans": [[120, 164]]}

An `answers.jsonl` beside `queries.jsonl` and `corpus.jsonl` of a BEIR folder quotes the answers,
each of which is enough:

    {"query_id": "7", "corpus_id": "d3", "answers": [{"text": "in the cellar", "start": 20}]}
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

from retriever import arguments
from retriever.documents.validation import MAX_TEXT_BYTES
from retriever.errors import InvalidEvaluation
from retriever.evaluation.json_lines import Line, existing, read_objects
from retriever.evaluation.spans import Reference, SpanQuestion
from retriever.types import Document

_EXAMPLE = '{"text": "Where is it?", "document": "manual.md", "spans": [[120, 164]]}'
_QUOTED = (
    '{"query_id": "7", "corpus_id": "d3", "answers": [{"text": "in the cellar", "start": 20}]}'
)
_TEXT = '{"_id": "7", "text": "…"}'
_KEPT_TEXTS = 64
# Stands for text that is not known because its document is not in the index.
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"


class Texts(Protocol):
    """Where the texts of documents are found: an `Index`, or a mapping of texts by id."""

    def get(self, document_id: str, /) -> Document | str | None:
        """Return a document or its text, or None if there is none with that id."""
        ...


class _Text(NamedTuple):
    document: str
    text: str


_Lookup: TypeAlias = "Callable[[str], _Text | None]"


class _Place(NamedTuple):
    """A line of a file, for errors."""

    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"

    def error(self, message: str, hint: str) -> InvalidEvaluation:
        return InvalidEvaluation(message, hint=hint, path=str(self.path), line=self.line)


def read_span_questions(
    files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], texts: Texts | None = None
) -> list[SpanQuestion]:
    """Return the questions of files, in order, with their marked answers.

    A question without an id gets the name of its file and the number of its line, `own.jsonl:3`.

    Args:
        files: One or several files of either form. Files of marked characters need `texts`.
        texts: The index, or the texts by document id, that the characters are counted in. The
            quotes of an `answers.jsonl` are counted in the `text` of its `corpus.jsonl`; if the
            document of the index begins with the title, they are moved by the title's length.
            None leaves them where they are.

    Raises:
        InvalidEvaluation: A line is not as described, a mark is outside its document, a quote is
            not where it should be, a question occurs twice, or there is none. The error has the
            file and the line.
        UnreadableFile: A file cannot be read.
    """
    if isinstance(files, str | os.PathLike):
        files = [files]
    known = _lookup(texts)
    read = _Questions()
    for file in files:
        path = Path(file)
        lines = read_objects(path, example=_EXAMPLE)
        first = next(lines, None)
        if first is None:
            raise InvalidEvaluation(
                f"{path} has no question.", hint=f"Each line is one, such as {_EXAMPLE}."
            )
        reader = _Quoted(path, known) if _is_quoted(first) else _Marked(path, known)
        for line in _chained(first, lines):
            read.add(reader.question(line), _Place(path, line.number))
    return read.questions


def collection_of(files: Sequence[Path]) -> Path | None:
    """Return the folder whose `corpus.jsonl` is beside all files, if all of them quote answers.

    Raises:
        InvalidEvaluation, UnreadableFile: As `read_span_questions`.
    """
    folders = {path.absolute().parent for path in files}
    folder = folders.pop()
    if folders or not existing(folder / "corpus.jsonl").exists():
        return None
    firsts = (next(read_objects(path, example=_EXAMPLE), None) for path in files)
    return folder if all(first and _is_quoted(first) for first in firsts) else None


def _is_quoted(line: Line) -> bool:
    return "query_id" in line.value or "answers" in line.value


def _chained(first: Line, rest: Iterator[Line]) -> Iterator[Line]:
    yield first
    yield from rest


def _lookup(texts: Texts | None) -> _Lookup | None:
    """Return a function from a document id to its text in the index; None if it has none."""

    @lru_cache(_KEPT_TEXTS)
    def look_up(document: str) -> _Text | None:
        found = None if texts is None else texts.get(document)
        if found is None:
            return None
        if isinstance(found, str):
            return _Text(document, found)
        # An index finds ids in either normal form of Unicode; its hits have the stored one.
        return _Text(found.id or document, found.text)

    return look_up if texts is not None else None


class _Questions:
    """The questions read so far; refuses one that is there already."""

    def __init__(self) -> None:
        self.questions: list[SpanQuestion] = []
        self._ids: dict[str, _Place] = {}
        self._unnamed: dict[tuple[str, str], _Place] = {}

    def add(self, question: SpanQuestion, place: _Place) -> None:
        before = self._ids.setdefault(question.id, place)
        if before is not place:
            raise place.error(
                f"has the question {arguments.shown(question.id)} again, after {before}.",
                "Put all its answers into one line, or give each question an id of its own.",
            )
        if question.id == _id_of(place):
            before = self._unnamed.setdefault((question.text, question.document), place)
            if before is not place:
                raise place.error(
                    f"asks {arguments.shown(question.text)} of "
                    f"{arguments.shown(question.document)} again, after {before}.",
                    'Put its answers into one line, as "alternatives", or give both an "id".',
                )
        self.questions.append(question)


def _id_of(place: _Place) -> str:
    return str(place)


class _Marked:
    """Reads lines that mark characters."""

    def __init__(self, path: Path, known: _Lookup | None) -> None:
        if known is None:
            raise InvalidEvaluation(
                f"The questions of {path} mark characters of documents whose texts are not given.",
                hint="Pass the index, or a mapping of texts by document id, as texts.",
            )
        self._path = path
        self._known = known

    def question(self, line: Line) -> SpanQuestion:
        place = _Place(self._path, line.number)
        row = line.value
        text = _string(row, "text", place, _EXAMPLE)
        document = _identifier(row, "document", place) if "document" in row else None
        if ("spans" in row) == ("alternatives" in row):
            raise place.error(
                'has neither "spans" nor "alternatives".'
                if "spans" not in row
                else 'has both "spans" and "alternatives".',
                f"Mark the answer as in {_EXAMPLE}.",
            )
        answers = [row["spans"]] if "spans" in row else _list(row, "alternatives", place)
        alternatives = tuple(self._answer(spans, document, place) for spans in answers)
        identifier = _identifier(row, "id", place) if "id" in row else _id_of(place)
        return _question(identifier, text, alternatives, place)

    def _answer(self, spans: Any, document: str | None, place: _Place) -> tuple[Reference, ...]:
        if not isinstance(spans, list) or not spans:
            raise place.error(
                "has an answer without spans."
                if spans == []
                else f"has the answer {arguments.shown(spans)}, which is not a list of spans.",
                f"Mark it as in {_EXAMPLE}.",
            )
        return tuple(self._reference(span, document, place) for span in spans)

    def _reference(self, span: Any, document: str | None, place: _Place) -> Reference:
        start, end = _offsets(span, place)
        if isinstance(span, dict) and "document" in span:
            document = _identifier(span, "document", place)
        if document is None:
            raise place.error('has no "document".', f"Name the document's id as in {_EXAMPLE}.")
        found = self._known(document)
        if found is None:
            return Reference(document, start, _UNKNOWN * (end - start))
        if end > len(found.text):
            raise place.error(
                f"has the span {arguments.shown(span)}, which ends after the end of "
                f"{arguments.shown(document)}, a text of {len(found.text):,} characters.",
                "Count in characters, not in bytes, of the text that `retriever export` prints.",
            )
        return Reference(found.document, start, found.text[start:end])


def _offsets(span: Any, place: _Place) -> tuple[int, int]:
    """Return the start and the end of a span.

    Raises:
        InvalidEvaluation: They are not whole numbers with 0 <= start < end.
    """
    given = [span.get("start"), span.get("end")] if isinstance(span, dict) else span
    if not isinstance(given, list) or len(given) != 2:
        raise place.error(
            f"has the span {arguments.shown(span)}.", "A span is [start, end], such as [120, 164]."
        )
    start, end = map(arguments.as_whole, given)
    if start is None or end is None:
        raise place.error(
            f"has the span {arguments.shown(span)}, whose offsets are not whole numbers.",
            "A span is [start, end]: characters of the document's text, from 0.",
        )
    if end > MAX_TEXT_BYTES:
        raise place.error(
            f"has the span {arguments.shown(span)}, which ends after any document.",
            f"A text has {MAX_TEXT_BYTES:,} characters at most.",
        )
    if not 0 <= start < end:
        raise place.error(
            f"has the span {arguments.shown(span)}, which is empty or begins before the text.",
            "A span is [start, end] with 0 <= start < end; the character at end is left out.",
        )
    return start, end


class _Quoted:
    """Reads lines that quote answers of a BEIR folder's documents."""

    def __init__(self, path: Path, known: _Lookup | None) -> None:
        self._path = path
        self._known = known
        self._queries = _texts_beside(path, "queries.jsonl")
        self._corpus = _texts_beside(path, "corpus.jsonl")

    def question(self, line: Line) -> SpanQuestion:
        place = _Place(self._path, line.number)
        row = line.value
        identifier = _identifier(row, "query_id", place)
        document = _identifier(row, "corpus_id", place)
        text = self._queries.get(identifier)
        if text is None or not text.strip():
            raise place.error(
                f"has the query {arguments.shown(identifier)}, which has no text in "
                f"{self._path.with_name('queries.jsonl')}.",
                "Both files must be of the same collection.",
            )
        answers = _list(row, "answers", place)
        alternatives = tuple((self._reference(answer, document, place),) for answer in answers)
        return _question(identifier, text, alternatives, place)

    def _reference(self, answer: Any, document: str, place: _Place) -> Reference:
        if not isinstance(answer, dict):
            raise place.error(f"has the answer {arguments.shown(answer)}.", f"Write {_QUOTED}.")
        quote = _string(answer, "text", place, _QUOTED)
        start = arguments.as_whole(answer.get("start"))
        if start is None or start < 0:
            raise place.error(
                f'has an answer whose "start" is {arguments.shown(answer.get("start"))}.',
                "It is the number of characters of the document's text before the answer.",
            )
        own = self._corpus.get(document)
        if own is not None:
            _check_quote(own, start, quote, document, place)
        found = None if self._known is None else self._known(document)
        if found is None:
            return Reference(document, start, quote)
        if own is not None:
            start += _moved(own, found.text, document, place)
        _check_quote(found.text, start, quote, document, place)
        return Reference(found.document, start, quote)


def _check_quote(text: str, start: int, quote: str, document: str, place: _Place) -> None:
    there = text[start : start + len(quote)]
    if there != quote:
        raise place.error(
            f"has the answer {arguments.shown(quote)} at character {start:,} of "
            f"{arguments.shown(document)}, where the text is {arguments.shown(there)}.",
            "Count in characters of the document's text, not in bytes.",
        )


def _moved(own: str, indexed: str, document: str, place: _Place) -> int:
    """Return by how many characters the text of a corpus is moved in the index, by its title."""
    bare = own.strip()
    at = indexed.find(bare)
    if at < 0:
        raise place.error(
            f"has answers in {arguments.shown(document)}, whose text in the index is not that of "
            f"{place.path.with_name('corpus.jsonl')}.",
            "Index this corpus, or name the index of it with -i.",
        )
    return at - (len(own) - len(own.lstrip()))


def _texts_beside(path: Path, name: str) -> Mapping[str, str]:
    """Return the texts of a file beside another, by `_id`; none if it is not there."""
    beside = existing(path.with_name(name))
    texts = {}
    for line in read_objects(beside, example=_TEXT) if beside.exists() else ():
        place = _Place(beside, line.number)
        text = line.value.get("text")
        if not isinstance(text, str):
            raise place.error(f'has the "text" {arguments.shown(text)}.', f"Write {_TEXT}.")
        texts[_identifier(line.value, "_id", place)] = text
    return texts


def _question(
    identifier: str, text: str, alternatives: tuple[tuple[Reference, ...], ...], place: _Place
) -> SpanQuestion:
    try:
        return SpanQuestion(identifier, text, alternatives)
    except InvalidEvaluation as exc:
        raise place.error("has an answer that is only white space.", exc.hint) from exc


def _string(row: Mapping[str, Any], name: str, place: _Place, example: str) -> str:
    value = row.get(name)
    if isinstance(value, str) and value.strip():
        return value
    if name not in row:
        keys = ", ".join(map(arguments.shown, row)) or "none"
        raise place.error(f'has no "{name}"; its keys are {keys}.', f"Write {example}.")
    raise place.error(
        f'has the "{name}" {arguments.shown(value)}.',
        "It is a string with at least one character that is not white space.",
    )


def _identifier(row: Mapping[str, Any], name: str, place: _Place) -> str:
    """Return an id, which may be written as a whole number."""
    value = row.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value:
        return value
    raise place.error(
        f'has no "{name}".' if name not in row else f'has the "{name}" {arguments.shown(value)}.',
        "An id is a string that is not empty.",
    )


def _list(row: Mapping[str, Any], name: str, place: _Place) -> list[Any]:
    value = row.get(name)
    if isinstance(value, list) and value:
        return value
    raise place.error(
        f'has no "{name}".' if name not in row else f'has the "{name}" {arguments.shown(value)}.',
        "It is a list of at least one answer.",
    )

"""The commands `list`, `export` and `status`; none of them loads a model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from retriever.cli import filtering, naming, output, reports
from retriever.cli.options import Command, Settings, common
from retriever.cli.passages import cells

if TYPE_CHECKING:
    from retriever.config import Chunking
    from retriever.reports import FileCounts, IndexStatus, TokenCounts
    from retriever.types import Document, FileOutcome

_LABEL = 11
_DOT = " · "
_SHOWN_FILES = 50


@click.command(
    "list",
    cls=Command,
    examples=[
        "retriever list",
        "retriever list | cut -f1 | grep '^drafts/' | xargs -d '\\n' retriever delete",
        "retriever list --filter 'folder = drafts and year >= 2020'",
        "retriever list --json | jq '.documents[] | select(.metadata.year == 2024).id'",
    ],
)
@filtering.option("documents")
@click.option("--jsonl", "as_jsonl", is_flag=True, help="Print one JSON object for each document.")
@common
def list_documents(settings: Settings, *, asked: str | None, as_jsonl: bool) -> None:
    r"""List the documents, one per line: id, tab, title.

    Ids are printed as other commands accept them; control characters are written as escapes such
    as \u001b.
    """
    from retriever.index import Index

    if settings.as_json and as_jsonl:
        raise click.UsageError("--json and --jsonl exclude each other.")
    with Index.open(settings.path, read_only=True) as opened:
        documents = opened.documents(filter=asked, embeddings=False)
        if asked is not None:
            filtering.note_unknown(opened, asked)
        if settings.as_json:
            listed = [_described(document) for document in documents]
            path = os.fspath(settings.path)
            output.say_json({"schema": 1, "index": path, "count": len(listed), "documents": listed})
        elif as_jsonl:
            output.say_lines(output.to_json(_described(document)) for document in documents)
        else:
            output.say_lines(map(_line, documents))


@click.command(
    cls=Command,
    examples=[
        "retriever export | gzip > documents.jsonl.gz",
        "retriever export | retriever index - --jsonl -i copy.index",
    ],
)
@common
def export(settings: Settings) -> None:
    """Print the documents as JSON Lines, which `index - --jsonl` reads.

    Each line is a JSON object with id, text and metadata, and if the document has them: source,
    title, the embedding it came with, and the character offsets of headings and pages. Vectors
    that the index computed are not exported.
    """
    from retriever.index import Index

    with Index.open(settings.path, read_only=True) as opened:
        output.say_lines(output.to_json(_exported(document)) for document in opened.documents())


def _exported(document: Document) -> dict[str, Any]:
    import numpy as np

    vector = document.embedding
    fields: dict[str, Any] = {
        "id": document.id,
        "text": document.text,
        "metadata": dict(document.metadata),
        "source": document.source,
        "title": document.title,
        "embedding": None if vector is None else np.asarray(vector).tolist(),
        "headings": document.headings or None,
        "pages": document.pages or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _described(document: Document) -> dict[str, Any]:
    return {
        "id": document.id,
        "title": document.title,
        "source": document.source,
        "metadata": dict(document.metadata),
        "characters": len(document.text),
    }


def _line(document: Document) -> str:
    line = click.style(naming.shown(document.id or ""), fg="cyan")
    return f"{line}\t{output.in_one_line(document.title)}" if document.title else line


@click.command(
    cls=Command,
    examples=[
        "retriever status",
        "retriever status --json | jq '.problem_files'",
    ],
)
@common
def status(settings: Settings) -> None:
    """Show what an index holds.

    Prints counts, the model, the chunking, how many tokens were encoded and truncated, which files
    were skipped or failed and why, documents in a script that the model does not know, and data
    that was lost.
    """
    from retriever.index import Index

    with Index.open(settings.path, read_only=True) as opened:
        found = opened.status()
    if settings.as_json:
        output.say_json({"schema": 1, **found.to_dict()})
    else:
        output.say_lines(_status_lines(found, every=settings.verbose))


def _status_lines(found: IndexStatus, *, every: bool) -> Iterator[str]:
    path = found.path
    if os.pardir in path.parts:  # it was found in a folder above
        path = path.resolve()
    yield _row("Index", click.style(naming.shown(os.fspath(path)), fg="cyan"))
    if found.base != path.resolve().parent:
        yield _row("Base", naming.shown(os.fspath(found.base)))
    yield _row("Documents", *_documents(found))
    yield _row("Files", *_files(found.files))
    yield _row("Model", *_model(found.model))
    if found.precisions:
        yield _row("Precision", *_precisions(found.precisions))
    yield _row("Chunking", *chunking_facts(found.chunking))
    yield _row("Tokens", *_tokens(found.tokens))
    yield _row("Storage", *_storage(found))
    if found.locked_by:
        holder = found.locked_by
        since = f"process {holder.pid} on {holder.host} since {holder.since}"
        yield _row("Writer", since if holder.pid else "another process")
    if found.building:
        yield _row("Rebuild", f"to {found.building} was interrupted; repeat it to continue")
    yield from _problem_lines(found, every=every)


def _row(label: str, *values: str) -> str:
    """Return a labelled row; values that do not fit are continued on lines below."""
    rows, used = [""], 0
    for value in values:
        needed = cells(click.unstyle(value))
        if used and _LABEL + used + len(_DOT) + needed > output.width():
            rows[-1] += _DOT.rstrip()
            rows, used = [*rows, ""], 0
        rows[-1] += f"{_DOT if used else ''}{value}"
        used += needed + (len(_DOT) if used else 0)
    return click.style(label.ljust(_LABEL), bold=True) + f"\n{' ' * _LABEL}".join(rows)


def _documents(found: IndexStatus) -> Iterator[str]:
    yield f"{found.documents:,}"
    if found.unchunked_documents:
        yield f"{found.unchunked_documents:,} not encoded yet: run `retriever repair`"
    if found.empty_documents:
        yield f"{found.empty_documents:,} without text"
    yield output.count(found.chunks, "chunk")


def _files(states: FileCounts) -> Iterator[str]:
    for state, number in states.to_dict().items():
        if number or state not in ("partial", "deleted"):
            yield f"{number:,} {state}"


def _model(model: Mapping[str, Any]) -> Iterator[str]:
    if model.get("vectors_only"):
        yield "none: embeddings come with the documents"
    else:
        yield output.in_one_line(str(model["name"]))
    yield f"{model['dimension']} dimensions"
    if "max_tokens" in model:
        yield f"window of {output.count(model['max_tokens'], 'token')}"


def _precisions(precisions: Mapping[str, float]) -> Iterator[str]:
    for name, cosine in precisions.items():
        exact = name == "float32"
        yield name if exact else f"{name}, cosine {cosine:.5f} to float32"


def chunking_facts(chunking: Chunking) -> Iterator[str]:
    """Yield how documents are cut, a phrase for each thing."""
    if chunking.unit == "document":
        yield "one vector per document, truncated at the window"
        return
    tokens = chunking.tokens
    yield "windows of the encoder" if tokens is None else f"windows of {tokens} tokens"
    yield f"overlap of {chunking.overlap}" if chunking.overlap else "no overlap"
    if chunking.prefix_title:
        yield "titles put before each chunk"
    if chunking.prefix_headings:
        yield "headings put before each chunk"


def _tokens(tokens: TokenCounts) -> Iterator[str]:
    yield f"{tokens.corpus:,} in the documents"
    yield f"{tokens.encoded:,} encoded"
    yield _warned(f"{tokens.truncated:,} truncated", wrong=tokens.truncated > 0)
    share = tokens.unknown / tokens.corpus if tokens.corpus else 0.0
    yield _warned(f"{tokens.unknown:,} unknown", wrong=share > 0.01)


def _warned(text: str, *, wrong: bool) -> str:
    return click.style(text, fg="yellow") if wrong else text


def _storage(found: IndexStatus) -> Iterator[str]:
    yield output.size(found.bytes_on_disk)
    yield output.count(len(found.segments), "segment")
    yield f"{output.count(found.tail_rows, 'row')} outside them"
    yield f"commit {found.seq:,}"
    yield f"format {found.format}"


def _problem_lines(found: IndexStatus, *, every: bool) -> Iterator[str]:
    if found.losses:
        yield ""
        yield click.style("Losses:", fg="red", bold=True)
        for loss in found.losses:
            yield f"  {loss.at}  {output.in_one_line(loss.detail)}"
    if found.problem_files:
        yield ""
        yield click.style("Files left out:", fg="yellow", bold=True)
        yield from _files_left_out(found.problem_files, every=every)
    if unfamiliar := found.unfamiliar:
        yield ""
        heading = "Documents in a script that the model does not know:"
        yield click.style(heading, fg="yellow", bold=True)
        for document in unfamiliar if every else unfamiliar[:_SHOWN_FILES]:
            share = f"{document.unknown_share:.0%}"
            name = naming.shown(document.document_id)
            yield f"  {name}: {click.style(f'{share} of its tokens are unknown', dim=True)}"
        if not every and len(unfamiliar) > _SHOWN_FILES:
            yield f"  and {len(unfamiliar) - _SHOWN_FILES:,} more: `retriever status -v` lists them"


def _files_left_out(outcomes: Sequence[FileOutcome], *, every: bool) -> Iterator[str]:
    skipped = [outcome for outcome in outcomes if outcome.state == "skipped"]
    failed = [outcome for outcome in outcomes if outcome.state != "skipped"]
    yield from reports.left_out(skipped, failed, every=every, at_most=_SHOWN_FILES)

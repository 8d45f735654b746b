"""The commands `index`, `rebuild` and `delete`, which change the documents of an index."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from retriever.cli import filtering, naming, options, output, reports
from retriever.cli.opening import create, open_existing
from retriever.cli.options import Command, Settings, common
from retriever.cli.standard_input import Form, OnError, StandardInput

STRICT = 6
_STANDARD_INPUT = "-"
# Options that are passed on to `Index.open` and to `Index.add_files`.
_FOR_OPENING = (
    "base",
    "dimension",
    "dimensions",
    "threads",
    "precision",
    "device",
    "lock_timeout_s",
)
_FOR_FILES = ("glob", "prune", "checksum", "restore", "follow_links", "max_file_size")


@click.command(
    cls=Command,
    examples=[
        "retriever index manuals/",
        "retriever index manuals/ notes.md --glob '**/*.{md,rst}' --prune",
        "retriever index papers/ -i papers.index --model ./my-model --chunk-tokens 128",
        "retriever index - --jsonl < tickets.jsonl",
        "man tar | col -b | retriever index - --id tar",
        "retriever index - --jsonl --dimension 1536 -i vectors.index < embedded.jsonl",
    ],
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH…|-", shell_complete=options.files)
@options.model()
@click.option(
    "--dimension",
    type=int,
    metavar="N",
    help="Create an index without a model, for documents with embeddings of N dimensions.",
)
@click.option(
    "--glob",
    metavar="PATTERN",
    help="Index only files that match, e.g. '**/*.{md,rst}', relative to each PATH.",
)
@click.option(
    "--prune", is_flag=True, help="Remove documents whose files no longer exist below PATH."
)
@click.option(
    "--base",
    type=click.Path(path_type=Path),
    shell_complete=options.folders,
    metavar="DIR",
    help="The folder that file names are relative to. Recorded in the index; the default is the "
    "folder that contains the index.",
)
@click.option(
    "--checksum",
    is_flag=True,
    help="Read every file and compare its content. By default a file with the same size, times and "
    "inode counts as unchanged.",
)
@click.option(
    "--restore",
    is_flag=True,
    help="Index files again whose documents were deleted, even if they have not changed since.",
)
@click.option(
    "--follow-links",
    is_flag=True,
    help="Follow symbolic links below PATH. A file found through a link is named by the link.",
)
@click.option(
    "--max-file-size",
    type=options.Size(),
    metavar="SIZE",
    default="100MB",
    show_default=True,
    help="Skip files larger than this.",
)
@click.option(
    "--encoding",
    metavar="NAME",
    help="Character encoding of the input, e.g. cp1252. By default it is detected. With it, "
    "unchanged files are read again too.",
)
@click.option(
    "--strict", is_flag=True, help="Exit with 6 if any file or line was skipped or failed."
)
@click.option("--jsonl", "form", flag_value="jsonl", help="With -: the input is JSON.")
@click.option("--text", "form", flag_value="text", help="With -: the input is one text.")
@click.option(
    "--id", "document_id", metavar="ID", help="With - and one text: the id of the document."
)
@click.option(
    "--text-field",
    metavar="NAME",
    help="With - and JSON: the field that holds the text. Unknown fields become metadata.",
)
@click.option(
    "--on-error",
    type=click.Choice(["skip", "stop"]),
    help="With - and JSON: what to do with an object that is not a document: skip and report it "
    "(the default), or stop.",
)
@options.model_options
@options.chunk_options
@options.download
@options.threads
@options.precision
@options.device
@options.lock_timeout
@common
def index(
    settings: Settings,
    /,
    paths: tuple[str, ...],
    *,
    model: str | None,
    strict: bool,
    form: Form | None,
    document_id: str | None,
    encoding: str | None,
    text_field: str | None,
    on_error: OnError | None,
    **given: Any,
) -> int | None:
    """Index files and folders, reading only what changed.

    The index is created if there is none in this folder or a folder above it. Hidden files and
    files that .gitignore or .retrieverignore match are skipped. A file that cannot be read does
    not stop the run: it is reported with the reason, here and in `retriever status`. Repeat an
    interrupted run to continue it.

    With - the documents come from standard input: JSON Lines, an array of objects, or objects one
    after another. Each object has a text (or the field that --text-field names), and optionally
    id, title, source, metadata and embedding. Input that is not JSON is the text of one document.
    The form is detected and printed; --jsonl and --text set it.
    """
    opening = {name: given.pop(name) for name in _FOR_OPENING}
    prompts = given.pop("query_prompt"), given.pop("document_prompt")
    opening["prompt"] = options.given_prompt(*prompts)
    opening["allow_download"] = given.pop("download")
    files = {name: given.pop(name) for name in _FOR_FILES}
    for_input = {"text_field": text_field, "on_error": on_error}
    _check_source(paths, form, document_id, {**files, "base": opening["base"]}, for_input)
    _check_encoding(form, encoding)
    if opening["dimension"] is not None and paths != (_STANDARD_INPUT,):
        raise click.UsageError(
            "--dimension is for documents that come with embeddings: give PATH as -."
        )
    chunking = options.given_chunking(**given)
    with settings.progress("index") as progress:
        opened = open_existing(settings.path, model, chunking, opening)
        created = opened is None
        if opened is None:
            if paths != (_STANDARD_INPUT,):
                _check_files(paths, files)
            opened = create(settings.path, model, chunking, opening)
        with opened as target:
            if paths == (_STANDARD_INPUT,):
                source = StandardInput(
                    form=form,
                    document_id=document_id,
                    encoding=encoding,
                    text_field=text_field or "text",
                    on_error=on_error or "skip",
                    quiet=settings.quiet,
                )
                report = source.add_to(
                    lambda documents, on_invalid: target.add(
                        documents, on_invalid=on_invalid, progress=progress
                    )
                )
            else:
                report = target.add_files(paths, **files, encoding=encoding, progress=progress)
    reports.print_index_report(settings, paths, report, created=created)
    return STRICT if strict and (report.skipped or report.failed) else None


def _check_source(
    paths: tuple[str, ...],
    form: Form | None,
    document_id: str | None,
    files: dict[str, Any],
    for_input: dict[str, Any],
) -> None:
    """Refuse options that do not apply to the given kind of input."""
    if _STANDARD_INPUT not in paths:
        if form is not None or document_id is not None or any(for_input.values()):
            raise click.UsageError(
                "--jsonl, --text, --id, --text-field and --on-error are for standard input: give "
                "PATH as -."
            )
        return
    if len(paths) > 1:
        raise click.UsageError("- is standard input and cannot be combined with other paths.")
    given = [name for name in ("base", *_FOR_FILES[:-1]) if files[name]]
    if given:
        option = given[0].replace("_", "-")
        raise click.UsageError(f"--{option} is for files, not for standard input.")
    if for_input["text_field"] == "":
        raise click.UsageError("--text-field is empty; name the field that holds the text.")
    if form == "text" and any(for_input.values()):
        raise click.UsageError("--text-field and --on-error are for JSON, not for --text.")
    if document_id is not None and form == "jsonl":
        raise click.UsageError("--id is for one text; with --jsonl each object has its own id.")


def _check_encoding(form: Form | None, encoding: str | None) -> None:
    """Refuse an encoding that does not exist before an index is created."""
    if encoding is None:
        return
    if form == "jsonl":
        raise click.UsageError("--encoding is for text: JSON Lines are UTF-8.")
    from retriever.documents.decoding import check_encoding

    check_encoding(encoding)


def _check_files(paths: tuple[str, ...], files: dict[str, Any]) -> None:
    """Refuse a mistyped path or glob, which must not leave an empty index behind."""
    from retriever.documents.walk import Walk
    from retriever.ingest.folder import as_paths

    Walk(as_paths(paths), glob=files["glob"], max_file_size=files["max_file_size"])


@click.command(
    cls=Command,
    examples=[
        "retriever rebuild --model ./my-model",
        "retriever rebuild --chunk-tokens 128 --overlap 32",
    ],
)
@options.model(help_text="The new model. Default: the present one.")
@click.option(
    "--discard-embeddings",
    is_flag=True,
    help="With a new model: drop the embeddings that came with documents, and encode their "
    "texts instead.",
)
@options.model_options
@options.chunk_options
@options.download
@options.threads
@options.precision
@options.device
@options.lock_timeout
@common
def rebuild(
    settings: Settings,
    /,
    *,
    model: str | None,
    discard_embeddings: bool,
    query_prompt: str | None,
    document_prompt: str | None,
    dimensions: int | None,
    download: bool,
    threads: int | None,
    precision: str,
    device: str | None,
    lock_timeout_s: float,
    **given: Any,
) -> None:
    """Chunk and encode every document again.

    Use it to change the model or the chunking of an index. The texts are in the index; the files
    are not needed. Options that are not given stay as they are, except that a new --chunk-tokens
    resets the overlap. Until the rebuild is complete, searches use the old vectors. Repeat an
    interrupted rebuild to continue it.
    """
    from retriever.index import Index

    with (
        settings.progress("rebuild") as progress,
        Index.open(
            settings.path,
            threads=threads,
            precision=precision,
            device=device,
            lock_timeout_s=lock_timeout_s,
        ) as opened,
    ):
        chunking = options.given_chunking(**given)
        report = opened.rebuild(
            model=model,
            prompt=options.given_prompt(query_prompt, document_prompt),
            dimensions=dimensions,
            chunking=chunking,
            allow_download=download,
            discard_embeddings=discard_embeddings,
            progress=progress,
        )
    reports.print_rebuild_report(settings, report)


@click.command(
    cls=Command,
    examples=[
        "retriever delete manuals/old-pump.md",
        "retriever delete kb-7 kb-8 --purge",
        "retriever delete --filter 'folder = drafts and not year >= 2020' --dry-run",
    ],
)
@click.argument("ids", nargs=-1, metavar="[ID…]", shell_complete=options.files)
@filtering.option("documents")
@click.option(
    "--dry-run", is_flag=True, help="With --filter: print how many would be deleted, and stop."
)
@click.option(
    "--purge", is_flag=True, help="Also erase their text and vectors from the index's files."
)
@click.option("--missing-ok", is_flag=True, help="Ignore ids that are not in the index.")
@options.lock_timeout
@common
def delete(
    settings: Settings,
    ids: tuple[str, ...],
    *,
    asked: str | None,
    dry_run: bool,
    purge: bool,
    missing_ok: bool,
    lock_timeout_s: float,
) -> None:
    """Delete documents, by id, path or filter; files are not touched.

    With --filter all documents are deleted whose metadata passes; see `retriever facets`.

    If an id is not in the index, nothing is deleted. `retriever list` shows the ids. A file that
    still exists is not indexed again until its content changes, or until it is restored with
    `retriever index --restore`.
    """
    from retriever.index import Index

    if bool(ids) == (asked is not None):
        raise click.UsageError("Give ids or --filter EXPR, and not both.")
    if dry_run and asked is None:
        raise click.UsageError("--dry-run needs --filter EXPR.")
    with Index.open(settings.path, lock_timeout_s=lock_timeout_s, read_only=dry_run) as opened:
        if asked is not None:
            filtering.note_unknown(opened, asked)
        if dry_run:
            number = opened.count(filter=asked)
        elif asked is not None:
            number = opened.delete(filter=asked, purge=purge)
        else:
            meant = [naming.document_id(opened, name) for name in ids]
            number = opened.delete(meant, purge=purge, missing_ok=missing_ok)
    if settings.as_json:
        said = {"deleted": number, "purged": purge and not dry_run, "dry_run": dry_run}
        output.say_json({"schema": 1, "index": os.fspath(settings.path), **said})
    elif dry_run:
        output.say(f"Would delete {output.count(number, 'document')}.")
    elif not settings.quiet:
        done = "Deleted and purged" if purge else "Deleted"
        output.say(f"{done} {output.count(number, 'document')}.")

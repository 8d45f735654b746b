"""The command `adopt`: copy the documents of an untrusted index into a new one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from retriever.cli import options, reports
from retriever.cli.options import Command, Settings


@click.command(
    cls=Command,
    examples=[
        "retriever adopt ~/Downloads/manuals.index manuals.index --model all-MiniLM-L6-v2",
        "retriever adopt received.index own.index -m ./my-model --chunk-tokens 128",
        "retriever adopt vectors.index own.index --json | jq '.added'",
    ],
)
@click.argument(
    "stranger", metavar="SOURCE", type=options.AnyPath(), shell_complete=options.folders
)
@click.argument("path", metavar="TARGET", type=options.AnyPath(), shell_complete=options.folders)
@options.model(
    help_text="The model of the new index, by name or path. The model that SOURCE names is not "
    "loaded unless you name it here."
)
@click.option(
    "--discard-embeddings",
    is_flag=True,
    help="Drop the embeddings that documents were added with, and encode their texts instead.",
)
@options.model_options
@options.chunk_options
@options.download
@options.threads
@options.precision
@options.device
@options.reporting
def adopt(
    settings: Settings,
    /,
    *,
    stranger: Path,
    model: str | None,
    discard_embeddings: bool,
    query_prompt: str | None,
    document_prompt: str | None,
    dimensions: int | None,
    download: bool,
    threads: int | None,
    precision: str,
    device: str | None,
    **given: Any,
) -> None:
    """Copy the documents of an untrusted index into a new one.

    Use it for an index from somebody else, which may be crafted to attack the program that opens
    it. Every byte of SOURCE is checked, and SOURCE is not changed. Its documents are copied to
    TARGET and encoded with --model; its vectors, segments and records of files are not used.
    Documents that came from files are plain documents in TARGET, which `retriever index` does not
    update or prune. Embeddings that documents were added with are kept if they are of the same
    model. An index that was made without a model (--dimension) needs no --model: its embeddings are
    copied.

    Chunking options that are not given are as in SOURCE. TARGET must not exist, or must be an empty
    directory. If SOURCE is damaged, or the command fails or is interrupted, TARGET is not created.
    """
    from retriever.index import Index

    with settings.progress("adopt") as progress:
        report = Index.adopt(
            stranger,
            settings.path,
            model=model,
            prompt=options.given_prompt(query_prompt, document_prompt),
            dimensions=dimensions,
            chunking=options.given_chunking(**given),
            allow_download=download,
            threads=threads,
            precision=precision,
            device=device,
            discard_embeddings=discard_embeddings,
            progress=progress,
        )
    reports.print_adopt_report(settings, os.fspath(stranger), report)

"""The command `eval beir`: index a collection in BEIR layout, search it, score what is found."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retriever.cli import naming, options, output, ranking, reports
from retriever.cli.evaluation import collection_index, output_files, score_table
from retriever.cli.options import Command, Settings

if TYPE_CHECKING:
    from retriever.config import SearchOptions
    from retriever.evaluation.scoring import Evaluation

_FOR_OPENING = ("dimensions", "threads", "precision", "device", "lock_timeout_s")


def _default_index(ctx: click.Context, _: click.Parameter, given: Path | None) -> Path | None:
    """Return the index directory: as given, or named like the collection, in this folder."""
    if given is not None or ctx.resilient_parsing:
        return given
    from retriever.evaluation.beir import Collection

    folder: Path = ctx.params["folder"]
    Collection.open(folder)  # a folder that is none is refused before the index's place is
    return collection_index.default_path(folder, ctx)


@click.command(
    cls=Command,
    examples=[
        "retriever eval beir scifact/",
        "retriever eval beir scifact/ --chunking document -i scifact-document.index",
        "retriever eval beir scifact/ --split train -m nDCG@10 -m R@1000",
        "retriever eval beir scifact/ --rerank models/my-cross-encoder --candidates 200",
        "retriever eval beir scifact/ --json | jq '.runs[0].measures'",
        "retriever eval compare --qrels scifact/qrels/test.tsv scifact.test.run "
        "scifact-document.test.run",
    ],
)
@click.argument("folder", metavar="FOLDER", type=options.AnyPath(), shell_complete=options.folders)
@click.option(
    "--split",
    metavar="NAME",
    default="test",
    show_default=True,
    help="The file of qrels/ to score by.",
)
@click.option(
    "-i",
    "--index",
    "path",
    metavar="DIR",
    type=options.AnyPath(),
    callback=_default_index,
    shell_complete=options.folders,
    show_default="FOLDER.index, in the current folder",
    help="The index directory; it is created if it does not exist.",
)
@options.model("--model")  # -m is --measure
@click.option(
    "-k",
    "--k",
    "depth",
    type=click.IntRange(min=1),
    metavar="N",
    help="Documents in each ranking.  [default: 100, or as many as the measures look at]",
)
@click.option(
    "-m",
    "--measure",
    "measures",
    metavar="MEASURE",
    multiple=True,
    help="A measure, such as nDCG@10 or R@1000; may be repeated. Default: nDCG@10, AP, RR@10, "
    "R@100 and others.",
)
@click.option(
    "--run",
    "run_path",
    type=options.AnyPath(),
    metavar="FILE",
    shell_complete=options.files,
    help="Where to write the rankings, as a TREC run. Default: beside the index, with its name, "
    "the split, what was chosen of --mode, --fusion, --weight and --rerank, and .run.",
)
@ranking.option
@options.reranking(
    "Reorder each ranking with a cross-encoder, given by name or path.",
    "Number of passages that the cross-encoder scores for each query; at least as many as there "
    "are documents in a ranking (-k).  [default: as many]",
)
@click.option(
    "--prune",
    is_flag=True,
    help="Delete the documents of an existing index that are not in the corpus. Otherwise such an "
    "index is refused.",
)
@click.option(
    "--keep-identical-ids",
    is_flag=True,
    help="Keep a document that is the query itself (the same id and text) in the query's ranking. "
    "By default it is left out, as BEIR does for ArguAna.",
)
@options.model_options
@options.chunk_options
@options.download
@options.threads
@options.precision
@options.device
@options.lock_timeout
@options.reporting
def beir(
    settings: Settings,
    /,
    *,
    folder: Path,
    split: str,
    model: str | None,
    depth: int | None,
    measures: tuple[str, ...],
    run_path: Path | None,
    mode: str,
    fusion: str,
    weight: float | None,
    rerank: str | None,
    candidates: int | None,
    prune: bool,
    keep_identical_ids: bool,
    download: bool,
    **given: Any,
) -> None:
    """Evaluate an index on a collection in BEIR layout.

    Indexes the corpus of FOLDER, searches for the queries that the split judges, and scores the
    rankings. FOLDER holds corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv. A document is its title
    and its text, joined by a space, and is ranked by its best chunk. The index is kept: the next
    call encodes only what has changed in the corpus, and an interrupted call continues where it
    stopped.

    Published figures are of one vector for each document, which encodes its first window: to
    compare with them, pass --chunking document --mode dense. The default is the chunking of
    `retriever index`, which encodes documents to their end. The chunking is fixed when an index is
    created, so use an index for each (-i).

    The rankings are written as a TREC run, which `retriever eval runs` and `retriever eval compare`
    read. Measures are means over the queries that the split judges, with 95 % bootstrap intervals.
    """
    from retriever.evaluation import DEFAULT_MEASURES, Collection, add_collection, evaluate
    from retriever.evaluation.evaluating import needed_depth
    from retriever.evaluation.measures import parse

    opening = {name: given.pop(name) for name in _FOR_OPENING}
    prompts = given.pop("query_prompt"), given.pop("document_prompt")
    opening |= {"prompt": options.given_prompt(*prompts), "allow_download": download}
    # All that may be refused is looked at before an index is created, and before hours of encoding.
    wanted = list(parse(measures or DEFAULT_MEASURES))
    collection = Collection.open(folder)
    qrels, queries = collection.qrels(split), collection.queries(split)
    needed = needed_depth(wanted, qrels)
    ranked = {"mode": mode, "fusion": fusion, "weight": weight}
    asked = _search_options(rerank, candidates, depth or needed, ranked)
    target = run_path or _default_run(settings.path, split, rerank, ranked)
    if run_path is not None or target.exists():  # its folder is made with the index
        output_files.check("--run", target, _read(folder, settings.path))
    with settings.progress("read") as progress:
        collection.document_ids(progress)
        chunking = options.given_chunking(**given)
        opened, created = collection_index.open_or_create(settings.path, model, chunking, opening)
        with opened as index:
            if rerank is not None:
                index.search_many(["?"], options=asked)  # loads the reranker
            report = add_collection(index, collection, prune=prune, progress=progress)
            evaluation = evaluate(
                index,
                queries,
                qrels,
                asked,
                measures=wanted,
                depth=asked.k,
                ignore_identical_ids=not keep_identical_ids,
                progress=progress,
            )
    evaluation.run.write(target)
    if settings.as_json:
        run = {"run": os.fspath(target), **evaluation.to_dict()}
        output.say_json(
            {
                "schema": 1,
                "collection": os.fspath(folder),
                "split": split,
                "index": os.fspath(settings.path),
                "created": created,
                "ingest": report.to_dict(),
                "runs": [run],
            }
        )
        return
    if not settings.quiet:
        reports.print_index_report(settings, ("-",), report, created=created)
        for line in _remarks(evaluation.settings, needed):
            output.note(line)
    output.say_lines(_table(evaluation))
    if not settings.quiet:
        output.say(f"The run is {naming.shown(os.fspath(target))}.")


def _search_options(
    rerank: str | None, candidates: int | None, depth: int, ranked: Mapping[str, Any]
) -> SearchOptions:
    from retriever.config import SearchOptions

    reranking = options.given_reranking(rerank, candidates)
    if candidates is not None and candidates < depth:
        raise click.UsageError(
            f"--candidates {candidates} is fewer than the {depth} documents of a ranking: all of "
            f"them are reranked. Leave it out, or shorten the rankings with -k {candidates}."
        )
    return SearchOptions(
        k=depth, group="document", fold=False, operators=False, **reranking, **ranked
    )


def _default_run(index: Path, split: str, rerank: str | None, ranked: Mapping[str, Any]) -> Path:
    """Return the path of the run: beside the index, with the name of all that may differ."""
    from retriever.evaluation.evaluating import reranker_name

    index = index.absolute()
    name = index.name.removesuffix(".index").lstrip(".") or "index"
    parts = [name, split, ranking.name_of(**ranked), reranker_name(rerank), "run"]
    return Path(os.path.relpath(index.parent / ".".join(part for part in parts if part)))


def _read(folder: Path, index: Path) -> list[Path]:
    """Return the files of a collection and of an index."""
    return [*folder.glob("*.jsonl*"), *folder.glob("qrels/*"), *index.rglob("*")]


def _remarks(settings: Mapping[str, Any], needed: int) -> Iterator[str]:
    """Yield what a reader of the figures should know."""
    depth, missing = settings["options"]["k"], settings["judged_documents_missing"]
    if depth < needed:
        yield f"Rankings have {depth:,} documents, but the measures look at {needed:,}."
    if missing:
        yield (
            f"{missing:,} of {output.count(settings['judged_documents'], 'judged document')} are "
            "not in the corpus; no ranking can hold them."
        )
    if settings["identical_ids"]:
        yield (
            f"{len(settings['identical_ids']):,} of the queries are documents of the corpus and "
            "were left out of their own rankings; --keep-identical-ids keeps them."
        )


def _table(evaluation: Evaluation) -> Iterator[str]:
    """Yield the measures with their intervals, and what they are measures of."""
    yield from score_table.of_one(evaluation.measures, evaluation.intervals)
    facts = evaluation.settings
    noun = "query" if facts["queries"] == 1 else "queries"
    yield (
        f"{facts['queries']:,} {noun}, {output.count(facts['documents'], 'document')} in "
        f"{output.count(facts['chunks'], 'chunk')}, {facts['options']['k']:,} documents a ranking; "
        f"searched in {output.duration(facts['search_s'])}."
    )
    yield from score_table.made_with(facts)

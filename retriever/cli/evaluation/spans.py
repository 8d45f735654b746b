"""The command `eval spans`: how much of marked answers a reader of the hits gets to see."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retriever.cli import naming, options, output, ranking, reports
from retriever.cli.evaluation import collection_index, inputs, output_files, score_table
from retriever.cli.options import Command, Settings

if TYPE_CHECKING:
    from retriever.config import SearchOptions
    from retriever.evaluation.span_evaluation import SpanEvaluation, Unit
    from retriever.index import Index

_TITLES = {
    "recall": "recall",
    "precision": "precision",
    "iou": "IoU",
    "answer": "answer",
    "answer_in_passage": "in a passage",
}
_BESIDE = ("corpus.jsonl", "queries.jsonl", "corpus.jsonl.gz", "queries.jsonl.gz")
_COLLECTION = f"{__name__}.collection"


def _budgets(_: click.Context, __: click.Parameter, given: str) -> tuple[int, ...]:
    """Return the budgets of a list such as 1000,2000."""
    try:
        budgets = tuple(int(part) for part in given.split(","))
    except ValueError:
        budgets = (0,)
    if min(budgets) < 1:
        raise click.BadParameter(f"'{given}' is not a list of whole numbers such as 1000,2000.")
    return budgets


def _files(ctx: click.Context, _: click.Parameter, given: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return the files, which are there."""
    if not ctx.resilient_parsing:
        inputs.check_files(given, "answers.jsonl")
    return given


def _index(ctx: click.Context, _: click.Parameter, given: Path | None) -> Path | None:
    """Return the index directory; None where no collection is beside the files."""
    if given is not None or ctx.resilient_parsing:
        return given
    from retriever.evaluation.span_files import collection_of

    folder = collection_of(ctx.params["paths"])
    ctx.meta[_COLLECTION] = folder
    return None if folder is None else collection_index.default_path(folder, ctx)


@click.command(
    cls=Command,
    examples=[
        "retriever eval spans questions.jsonl",
        "retriever eval spans questions.jsonl --budget 500,1500 --unit tokens",
        "retriever eval spans squad/answers.jsonl -i squad.index --per-question scores.jsonl",
        "retriever eval spans questions.jsonl --json | jq '.budgets[].recall'",
    ],
)
@click.argument(
    "paths",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=options.AnyPath(),
    callback=_files,
    shell_complete=options.files,
)
@click.option(
    "--budget",
    "budgets",
    metavar="N[,N...]",
    default="1000,2000,4000,8000",
    show_default=True,
    callback=_budgets,
    help="How much may be read for a question, best passages first.",
)
@click.option(
    "--unit",
    type=click.Choice(["characters", "tokens"]),
    default="characters",
    show_default=True,
    help="What budgets are counted in; tokens are those of the index's model.",
)
@click.option(
    "-k",
    "--k",
    type=int,
    metavar="N",
    help="Read at most N passages for a question.  [default: as many as fill the largest budget; "
    "with --rerank the candidates]",
)
@ranking.option
@options.reranking()
@click.option(
    "--per-question",
    type=options.AnyPath(),
    metavar="FILE",
    shell_complete=options.files,
    help="Write the scores of each question to a file, one JSON object a line.",
)
@options.model()
@options.download
@options.threads
@options.precision
@options.device
@click.option(
    "-i",
    "--index",
    "path",
    metavar="DIR",
    type=options.AnyPath(),
    envvar="RETRIEVER_INDEX",
    callback=_index,
    shell_complete=options.folders,
    show_default="$RETRIEVER_INDEX, else for an answers.jsonl the index of its collection, else "
    ".retriever here or in a folder above",
    help="The index directory.",
)
@options.reporting
def spans(
    settings: Settings,
    /,
    *,
    paths: tuple[Path, ...],
    budgets: tuple[int, ...],
    unit: Unit,
    k: int | None,
    mode: str,
    fusion: str,
    weight: float | None,
    rerank: str | None,
    candidates: int | None,
    per_question: Path | None,
    download: bool,
    **loading: Any,
) -> None:
    """Measure how much of marked answers is in the hits.

    A language model that answers from the hits can read only a limited context. This command
    searches the index for each question of the files and reads the passages, best first, up to a
    budget of characters or tokens; a passage that exceeds it is cut.

    \b
    recall        share of the answer's characters that were read
    precision     share of the characters read that are the answer's
    IoU           intersection over union of the answer and what was read
    answer        share of questions with an answer that was read whole
    in a passage  the same, within a single passage

    Below each mean is its 95 % bootstrap interval; documents are drawn, each with its questions.

    \b
    FILE has one JSON object a line, in one of two forms:
      {"text": "Where is it?", "document": "manual.md", "spans": [[120, 164]]}
      {"query_id": "7", "corpus_id": "d3", "answers": [{"text": "here", "start": 20}]}

    In the first form, a span is [start, end] in characters of the document's text, from 0, and all
    spans of a line together are the answer. In place of "spans", "alternatives" is a list of such
    answers, each of which is enough. The second form is the answers.jsonl of a BEIR folder, with
    its queries.jsonl beside it. Without -i, its corpus.jsonl is indexed first, as by `retriever
    eval beir`, or the index that an earlier call created is brought up to date.
    """  # noqa: D301 - click reads the character
    from retriever.evaluation.adding import add_collection
    from retriever.evaluation.beir import Collection
    from retriever.evaluation.output_files import write_whole
    from retriever.evaluation.span_evaluation import evaluate_spans
    from retriever.evaluation.span_files import read_span_questions

    ranked = {"mode": mode, "fusion": fusion, "weight": weight}
    asked = _options(k, rerank, candidates, ranked)
    if per_question is not None:
        beside = (path.with_name(name) for path in paths for name in _BESIDE)
        read = [*paths, *beside, *settings.path.rglob("*")]
        output_files.check("--per-question", per_question, read)
    folder = click.get_current_context().meta.get(_COLLECTION)
    added = None
    with settings.progress("load the model and search") as progress:
        opened, created = _open(settings.path, folder, allow_download=download, **loading)
        with opened as index:
            if folder is not None:
                added = add_collection(index, Collection(folder), progress=progress)
            questions = read_span_questions(paths, index)
            found = evaluate_spans(
                index,
                questions,
                asked,
                budgets=budgets,
                unit=unit,
                fill=k is None and rerank is None,
                progress=progress,
            )
    if per_question is not None:
        rows = "".join(output.to_json(row) + "\n" for row in found.rows())
        write_whole(per_question, rows.encode("utf-8", "backslashreplace"))
    if found.missing and not settings.quiet:
        named = naming.shown(found.missing[0])
        output.note(
            f"{output.count(len(found.missing), 'document')} with marked answers not in the index, "
            f"such as {named}; what is only there counts as not found."
        )
    if settings.as_json:
        output.say_json({"schema": 1, "index": found.settings["index"], **found.to_dict()})
        return
    if added is not None:
        reports.print_index_report(settings, ("-",), added, created=created)
    output.say_lines(_lines(settings.path, found))


def _open(
    path: Path, folder: Path | None, *, model: str | None, **opening: Any
) -> tuple[Index, bool]:
    """Return the open index, and whether it was created, as that of a collection may be."""
    from retriever.index import Index

    if folder is None:
        return Index.open(path, read_only=True, model=model, **opening), False
    return collection_index.open_or_create(path, model, None, opening)


def _options(
    k: int | None, rerank: str | None, candidates: int | None, ranked: Mapping[str, Any]
) -> SearchOptions:
    from retriever.config import SearchOptions

    asked = SearchOptions(**options.given_reranking(rerank, candidates), **ranked)
    if k is None and rerank is None:
        return asked
    return replace(asked, k=asked.candidates if k is None else k)


def _lines(index: Path, found: SpanEvaluation) -> Iterator[str]:
    """Yield a row for each measure and a column for each budget, and what was evaluated."""
    documents = len({question.document for question in found.questions})
    counts = (
        f"{output.count(len(found.questions), 'question')} about "
        f"{output.count(documents, 'document')}"
    )
    columns = {budget: f"{budget:,}" for budget in found.budgets}
    means = {
        title: {column: found.measures[budget][name] for budget, column in columns.items()}
        for name, title in _TITLES.items()
    }
    ends = {
        title: {column: found.intervals[budget][name] for budget, column in columns.items()}
        for name, title in _TITLES.items()
    }
    if documents > 1:  # one says nothing of others
        yield f"{counts}; means by budget, with 95 % intervals"
        yield from score_table.lines(found.unit, means, ends)
    else:
        yield f"{counts}; means by budget"
        yield from score_table.lines(found.unit, means)
    facts = found.settings
    yield (
        f"{output.count(facts['documents'], 'document')} in "
        f"{output.count(facts['chunks'], 'chunk')}; index {naming.shown(os.fspath(index))}."
    )
    yield from score_table.made_with(facts)

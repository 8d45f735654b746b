"""The command `eval runs`: score TREC runs against qrels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from retriever import arguments
from retriever.cli import options, output
from retriever.cli.evaluation import inputs, score_table
from retriever.cli.options import Command, Settings

if TYPE_CHECKING:
    from retriever.evaluation import Evaluation


@click.command(
    cls=Command,
    examples=[
        "retriever eval runs --qrels qrels.txt bm25.trec dense.trec",
        "retriever eval runs --qrels qrels.txt bm25.trec -m nDCG@10 -m 'P(rel=2)@5'",
        "retriever eval runs --qrels qrels.txt dense.trec --per-query -m AP",
        "retriever eval runs --qrels test.tsv *.trec --json | jq '.runs[] | [.run, .measures.AP]'",
    ],
)
@click.argument("paths", metavar="RUN...", nargs=-1, required=True, shell_complete=options.files)
@click.option(
    "--qrels",
    "qrels_path",
    metavar="QRELS",
    required=True,
    shell_complete=options.files,
    help="The judgements: TREC qrels, or a file of qrels/ of a collection in BEIR layout.",
)
@click.option(
    "-m",
    "--measure",
    "measures",
    metavar="MEASURE",
    multiple=True,
    help="A measure as ir-measures or trec_eval names it, such as nDCG@10, AP, MRR@10, "
    "'P(rel=2)@5' or recall_100; may be repeated. Default: nDCG@10, AP, RR@10, R@100, P@10, "
    "Success@10, Rprec and Judged@10.",
)
@click.option("--per-query", is_flag=True, help="Also print the values of each query.")
@options.reporting
def runs(
    settings: Settings,
    /,
    *,
    paths: tuple[str, ...],
    qrels_path: str,
    measures: tuple[str, ...],
    per_query: bool,
) -> None:
    """Score TREC runs against judgements, as trec_eval does.

    Prints the mean of each measure over the queries of QRELS, with its 95 % bootstrap interval. A
    query without results counts as zero; queries of RUN that are not in QRELS do not count.
    Documents are ranked by score, ties by id in descending order; the column of the rank is not
    used. Files may be gzipped.
    """
    from retriever.evaluation import DEFAULT_MEASURES, Qrels, Run, score
    from retriever.evaluation.measures import parse

    inputs.check_distinct(paths)
    wanted = list(parse(measures or DEFAULT_MEASURES))
    qrels = Qrels.read(arguments.path(qrels_path, "The path of the qrels"))
    found: dict[str, Evaluation] = {}
    for path in paths:
        found[path] = score(Run.read(arguments.path(path, "The path of a run")), qrels, wanted)
        if not settings.quiet:
            for remark in _remarks(path, found[path]):
                output.note(remark)
    if settings.as_json:
        described = [_described(path, one, per_query=per_query) for path, one in found.items()]
        output.say_json({"schema": 1, "qrels": qrels_path, "runs": described})
        return
    output.say_lines(_lines(found, per_query=per_query))


def _described(path: str, found: Evaluation, *, per_query: bool) -> dict[str, Any]:
    answer = {"run": path, **found.to_dict()}
    if per_query:
        answer["per_query"] = {name: dict(values) for name, values in found.per_query.items()}
    return answer


def _lines(found: Mapping[str, Evaluation], *, per_query: bool) -> Iterator[str]:
    first = next(iter(found.values()))
    queries = f"{len(first.qrels):,} {'query' if len(first.qrels) == 1 else 'queries'}"
    if len(found) == 1:
        yield f"Means over {queries}"
        yield from score_table.of_one(first.measures, first.intervals)
    else:
        yield f"Means over {queries}; 95 % intervals"
        yield from score_table.lines(
            "run",
            {path: one.measures for path, one in found.items()},
            {path: one.intervals for path, one in found.items()},
        )
    for path, one in found.items():
        if per_query:
            yield ""
            yield click.style(output.in_one_line(path), bold=True)
            rows = {
                query: {name: values[query] for name, values in one.per_query.items()}
                for query in one.qrels
            }
            yield from score_table.lines("query", rows)


def _remarks(path: str, found: Evaluation) -> Iterator[str]:
    name = output.in_one_line(path)
    if found.ignored:
        ignored, queries = len(found.ignored), len(found.run)
        yield (
            f"{name}: queries that are not in the qrels do not count: {ignored:,} of {queries:,}, "
            f"such as {arguments.shown(found.ignored[0])}."
        )
    if found.missing:
        yield (
            f"{name}: queries without results count as zero: {len(found.missing):,} of "
            f"{len(found.qrels):,}, such as {arguments.shown(found.missing[0])}."
        )

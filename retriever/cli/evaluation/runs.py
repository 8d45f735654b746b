"""The command `eval runs`: score TREC runs against qrels."""

from __future__ import annotations

import os
from pathlib import Path

import click

from retriever.cli import options, output
from retriever.cli.options import Command, Settings


@click.command(
    cls=Command,
    examples=[
        "retriever eval runs --qrels qrels.txt bm25.trec dense.trec",
        "retriever eval runs --qrels qrels.txt bm25.trec -m nDCG@10 -m 'P(rel=2)@5'",
        "retriever eval runs --qrels test.tsv dense.trec --json | jq '.runs[].measures'",
    ],
)
@click.argument("paths", metavar="RUN...", nargs=-1, required=True, type=options.AnyPath())
@click.option("--qrels", metavar="QRELS", required=True, type=options.AnyPath(), help="Judgements.")
@click.option("-m", "--measure", "measures", metavar="MEASURE", multiple=True, help="A measure.")
@click.option("--per-query", is_flag=True, help="Print the values of each query, too.")
@options.reporting
def runs(
    settings: Settings,
    /,
    *,
    paths: tuple[Path, ...],
    qrels: Path,
    measures: tuple[str, ...],
    per_query: bool,
) -> None:
    """Score TREC runs against qrels."""
    from retriever.evaluation import DEFAULT_MEASURES, Qrels, Run, score

    judged = Qrels.read(qrels)
    answers = []
    for path in paths:
        found = score(Run.read(path), judged, measures or DEFAULT_MEASURES)
        answer = {"run": os.fspath(path), **found.to_dict()}
        if per_query:
            answer["per_query"] = {name: dict(each) for name, each in found.per_query.items()}
        answers.append(answer)
    if settings.as_json:
        output.say_json({"schema": 1, "qrels": os.fspath(qrels), "runs": answers})
        return
    for answer in answers:
        output.say(answer["run"])
        for name, value in answer["measures"].items():
            output.say(f"  {name}  {value:.4f}")

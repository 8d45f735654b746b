"""The command `eval compare`: whether runs differ by more than chance, and on which queries."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retriever.cli import options, output
from retriever.cli.evaluation import inputs, output_files
from retriever.cli.evaluation.comparison_tables import Tables
from retriever.cli.options import Command, Settings
from retriever.errors import InvalidEvaluation

if TYPE_CHECKING:
    from retriever.evaluation import Comparison, QueryScores

_DEFAULT = ("nDCG@10",)
_MARKDOWN = (".md", ".markdown")
_STDOUT = Path("-")


@click.command(
    cls=Command,
    examples=[
        "retriever eval compare --qrels qrels.txt bm25.trec dense.trec",
        "retriever eval compare --qrels qrels.txt --baseline bm25.trec *.trec -m nDCG@10 -m AP",
        "retriever eval compare --qrels qrels.txt *.trec --queries queries.jsonl --hardest 20",
        "retriever eval compare --qrels qrels.txt *.trec --plot runs.png --markdown report.md",
        "retriever eval compare --qrels qrels.txt a.trec b.trec --json | jq '.differences[0].p'",
    ],
)
@click.argument("paths", metavar="RUN...", nargs=-1, required=True, type=options.AnyPath())
@click.option(
    "--qrels",
    metavar="QRELS",
    required=True,
    type=options.AnyPath(),
    help="The judgements: TREC qrels, or a file of qrels/ of a collection in BEIR layout.",
)
@click.option(
    "-m",
    "--measure",
    "measures",
    metavar="MEASURE",
    multiple=True,
    help="A measure to compare by, such as AP or R@100; may be repeated.  [default: nDCG@10]",
)
@click.option(
    "--baseline",
    metavar="RUN",
    type=options.AnyPath(),
    help="Compare every other run with this one only, instead of every two runs.",
)
@click.option(
    "--queries",
    metavar="FILE",
    type=options.AnyPath(),
    help="The texts of the queries: BEIR's queries.jsonl, or lines of an id, a tab and a text.",
)
@click.option(
    "--hardest",
    metavar="N",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="List the N queries with the lowest mean over the runs, and the N on which the runs "
    "differ most, by the first measure.",
)
@click.option("--per-query", is_flag=True, help="List the scores of every query.")
@click.option(
    "--plot",
    metavar="FILE",
    type=options.AnyPath(),
    help="Draw the means and the differences of all queries, by the first measure, to FILE.png "
    "or FILE.svg.",
)
@click.option(
    "--markdown",
    metavar="FILE",
    type=options.AnyPath(),
    help="Write the tables as Markdown to FILE.md; - for standard output, in place of the tables "
    "for the terminal.",
)
@options.reporting
def compare(
    settings: Settings,
    /,
    *,
    paths: tuple[Path, ...],
    qrels: Path,
    measures: tuple[str, ...],
    baseline: Path | None,
    queries: Path | None,
    hardest: int,
    per_query: bool,
    plot: Path | None,
    markdown: Path | None,
) -> None:
    """Test whether runs differ significantly, and show where.

    Prints the mean of each run with its 95 % bootstrap interval. For every two runs it prints the
    difference of the means with its interval, the p-value of a paired randomisation test, and on
    how many queries the first run of the pair is better, equal and worse (+/=/−). A difference is
    significant if p, corrected for the number of comparisons by Holm's procedure, is at most 0.05.

    All comparisons of a call are corrected together, so every further run and measure makes a
    difference harder to show: name only what you want to know. No significant difference does not
    mean that the runs are equal; the notes below the table say how large a difference the queries
    would probably have shown.

    Files of --plot and --markdown are replaced if they exist. The exit code is 0 whether or not
    there is a difference.
    """
    if settings.as_json and markdown == _STDOUT:
        raise click.UsageError("--json and --markdown - both print to standard output.")
    runs = _with_baseline(paths, baseline)
    _check_runs(runs)
    _check_outputs(plot, markdown, [*runs, qrels, *([queries] if queries else [])])
    with settings.progress("read and compare"):
        found, texts = _compared(runs, qrels, measures or _DEFAULT, baseline, queries)
        if plot is not None:
            from retriever.evaluation import plots

            plots.plot(found, plot)
        report = (
            "" if markdown is None else _report(found, texts, hardest=hardest, per_query=per_query)
        )
        if markdown is not None and markdown != _STDOUT:
            _write(markdown, report)
        tables = list(Tables(found, texts).lines(hardest=hardest, per_query=per_query))
    if settings.as_json:
        answer = _as_json(found, texts, hardest=hardest, per_query=per_query)
        output.say_json({"schema": 1, "qrels": os.fspath(qrels), **answer})
    elif markdown == _STDOUT:
        output.say_lines(output.visible(line) for line in report.splitlines())
    else:
        output.say_lines(tables)


def _with_baseline(paths: Sequence[Path], baseline: Path | None) -> list[Path]:
    """Return the runs, and the baseline before them if it is not one of them."""
    if baseline is None or baseline in paths:
        return list(paths)
    return [baseline, *paths]


def _compared(
    runs: Sequence[Path],
    qrels: Path,
    measures: Sequence[str],
    baseline: Path | None,
    queries: Path | None,
) -> tuple[Comparison, dict[str, str]]:
    from retriever.evaluation import Qrels, Run, compare, read_queries, score

    judged = Qrels.read(qrels)
    texts = {} if queries is None else read_queries(queries)
    if queries is not None and not any(query in texts for query in judged):
        raise InvalidEvaluation(
            f"{os.fspath(queries)} has none of the queries of {os.fspath(qrels)}.",
            hint="Pass the file with the texts of the judged queries.",
        )
    evaluations = [score(Run.read(path), judged, measures) for path in runs]
    found = compare(
        evaluations,
        names=[os.fspath(path) for path in runs],
        baseline=None if baseline is None else os.fspath(baseline),
        measures=tuple(evaluations[0].measures),
    )
    return found, texts


# --- before anything is computed -------------------------------------------------------------


def _check_runs(runs: Sequence[Path]) -> None:
    if len(runs) < 2:
        raise InvalidEvaluation(
            f"{os.fspath(runs[0])} is one run, and a comparison needs two.",
            hint="Name another run; `retriever eval runs` measures one.",
        )
    inputs.check_distinct(runs)


def _check_outputs(plot: Path | None, markdown: Path | None, inputs: Sequence[Path]) -> None:
    if plot is not None:
        from retriever.evaluation import plots

        plots.check(plot)
        output_files.check("--plot", plot, inputs)
    if markdown is not None and markdown != _STDOUT:
        output_files.check("--markdown", markdown, inputs)
        if markdown.suffix.lower() not in _MARKDOWN and not markdown.is_char_device():
            raise InvalidEvaluation(
                f"--markdown {os.fspath(markdown)!r} does not end in .md.",
                hint="Name a file that ends in .md, or - for standard output.",
            )


# --- what is written -------------------------------------------------------------------------


def _report(found: Comparison, texts: Mapping[str, str], *, hardest: int, per_query: bool) -> str:
    from retriever.evaluation import to_markdown

    return to_markdown(found, texts=texts, hardest=hardest, per_query=per_query)


def _write(path: Path, report: str) -> None:
    from retriever.evaluation.output_files import write_whole

    write_whole(path, report.encode("utf-8", "backslashreplace"))


def _as_json(
    found: Comparison, texts: Mapping[str, str], *, hardest: int, per_query: bool
) -> dict[str, Any]:
    answer = found.to_dict()
    answer["hardest"] = list(_listed(found.hardest(hardest), texts))
    answer["most_different"] = list(_listed(found.most_different(hardest), texts))
    if per_query:
        answer["per_query"] = {
            measure: {one.query_id: dict(one.scores) for one in found.per_query(measure)}
            for measure in found.measures
        }
    return answer


def _listed(queries: Sequence[QueryScores], texts: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for one in queries:
        text = {"text": texts[one.query_id]} if one.query_id in texts else {}
        yield {"query": one.query_id, **text, "scores": dict(one.scores)}

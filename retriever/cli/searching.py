"""The command `search`: find passages and print them with their sources."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from retriever.cli import filtering, naming, options, output, passages, ranking, streams
from retriever.cli.options import Settings, common
from retriever.cli.questions import TakesQuestion

if TYPE_CHECKING:
    from retriever.config import SearchOptions
    from retriever.types import Hit, Results

NOTHING_FOUND = 1
_SNIPPET_LINES = 4
_INDENT = "    "
_STATES = {"changed": "changed since indexed", "gone": "file is gone"}


@click.command(
    cls=TakesQuestion,
    examples=[
        'retriever search "how do I reset the pump?"',
        "retriever search --mode lexical ERR_CONN_42",
        "retriever search -k 3 --group document --full who answers for the cistern",
        "retriever search \"visitor levy\" --json | jq '.hits[].citation'",
        'retriever search "visitor levy" --jsonl | head -1',
        'retriever search "-v prints more than I want"',
        "retriever search 'reset the \"feed pump\" -valve'",
        "retriever search --like manuals/pump.md",
        "retriever search --filter 'year >= 2020 and language in (en, de)' pump reset",
        'retriever search --timeout 2 "how do I reset the pump?"',
        'retriever search --rerank models/my-cross-encoder "how do I reset the pump?"',
    ],
)
@click.argument("query", nargs=-1, metavar="QUERY|-")
@click.option(
    "--like",
    metavar="DOCUMENT",
    help="Find passages like this document, given by id or file, in place of a question.",
)
@click.option("-k", "--k", type=int, default=10, show_default=True, help="Number of hits.")
@click.option(
    "--group", type=click.Choice(["document"]), help="Show only the best hit of each document."
)
@filtering.option("passages of documents")
@ranking.option
@click.option(
    "--min-score",
    type=float,
    metavar="SCORE",
    help="Show no hit of a lower score, on the scale of the mode or of the cross-encoder.",
)
@options.reranking()
@click.option(
    "--no-fold",
    is_flag=True,
    help="Show identical passages separately, instead of as one hit with a count.",
)
@click.option(
    "--no-operators",
    is_flag=True,
    help="Read quotes, stars and dashes in the question as text.",
)
@click.option(
    "--cursor",
    metavar="CURSOR",
    help="Show the next hits: the `cursor` that --json printed for the same question and options.",
)
@click.option(
    "--timeout",
    type=float,
    metavar="SECONDS",
    help="Give up after this long; the exit code is then 5. Steps are not interrupted.",
)
@click.option("--full", is_flag=True, help="Show whole passages instead of their beginning.")
@click.option("--jsonl", "as_jsonl", is_flag=True, help="Print one JSON object for each hit.")
@options.model(help_text="The model that the index was built with.")
@options.download
@options.threads
@options.precision
@options.device
@common
def search(
    settings: Settings,
    /,
    query: tuple[str, ...],
    *,
    k: int,
    group: Literal["document"] | None,
    asked: str | None,
    mode: Literal["hybrid", "dense", "lexical"],
    fusion: Literal["convex", "rrf"],
    weight: float | None,
    min_score: float | None,
    rerank: str | None,
    candidates: int | None,
    no_fold: bool,
    like: str | None,
    no_operators: bool,
    cursor: str | None,
    timeout: float | None,
    full: bool,
    as_jsonl: bool,
    download: bool,
    **loading: Any,
) -> int | None:
    """Find the passages that answer a question.

    Ranks by meaning and words. Prints the best hits first, each with its rank, score, path:line,
    the headings above the passage, and the beginning of the passage. The score is from 0 to 1; with
    --mode dense it is the cosine similarity, with --mode lexical the BM25 score, with --rerank that
    of the cross-encoder. Identical passages are one hit:
    "+3 identical" counts the others and names their documents. A hit is marked if its file has
    changed or is gone since it was indexed. Control characters are made
    visible.

    In a question, "a phrase" must stand in the passage, -word and -"a phrase" may not, and word*
    stands for all words that begin so. Everything else is text: a dash or star elsewhere, AND, OR,
    parentheses, an option such as -v or --flag.

    Quote a question that contains special characters of the shell or begins with a dash; phrases
    need single quotes around the question. Put -- before a single word that begins with a dash.
    With - the question is read from standard input.
    The exit code is 1 if nothing is found.
    """
    from retriever.config import SearchOptions
    from retriever.index import Index

    if bool(query) == (like is not None):
        raise click.UsageError("Give a question, or a document with --like; and not both.")
    if settings.as_json and as_jsonl:
        raise click.UsageError("--json and --jsonl exclude each other.")
    wanted = SearchOptions(
        k=k,
        group=group,
        fold=not no_fold,
        operators=not no_operators,
        mode=mode,
        fusion=fusion,
        weight=weight,
        min_score=min_score,
        timeout_s=timeout,
        filter=asked,
        **options.given_reranking(rerank, candidates),
    )
    question = None if like is not None else _question(query)
    with (
        settings.progress("load the model and search"),
        Index.open(
            settings.path,
            read_only=True,
            allow_download=download,
            **loading,
        ) as opened,
    ):
        results = opened.search(question, document=like, cursor=cursor, options=wanted)
        base = opened.base
        if asked is not None:
            filtering.note_unknown(opened, asked)
    if settings.as_json:
        output.say_json(_answer(question, like, wanted, results))
    elif as_jsonl:
        output.say_lines(output.to_json(hit.to_dict()) for hit in results)
    else:
        _print_hits(settings, results, full=full, base=base, asked=asked)
    return None if results else NOTHING_FOUND


def _question(words: tuple[str, ...]) -> str:
    if words == ("-",):
        with streams.reading_input():
            return sys.stdin.buffer.read().decode("utf-8", "replace").strip()
    return " ".join(words)


def _answer(
    question: str | None, like: str | None, asked: SearchOptions, results: Results
) -> dict[str, Any]:
    return {
        "schema": 1,
        "query": question,
        "like": like,
        "k": asked.k,
        "group": asked.group,
        "rerank": asked.rerank,
        "candidates": None if asked.rerank is None else asked.candidates,
        "fold": asked.fold,
        "operators": asked.operators,
        "mode": asked.mode,
        "fusion": asked.fusion if asked.mode == "hybrid" else None,
        "weight": asked.weight,
        "min_score": asked.min_score,
        "cursor": results.cursor,
        "filter": filtering.shown(asked.filter),
        "exact": results.exact,
        "confidence": results.confidence,
        "plan": results.plan,
        "timings": {name: round(seconds, 6) for name, seconds in results.timings.items()},
        "hits": [hit.to_dict() for hit in results],
    }


def _print_hits(
    settings: Settings, results: Results, *, full: bool, base: Path | None, asked: str | None
) -> None:
    if not results:
        output.note(_nothing(results, asked))
    output.say_lines(_lines(results, full=full, base=base))
    if not results.exact and not settings.quiet:
        output.note(f"These may not be the best hits: {results.plan}.")
    if settings.verbose:
        took = ", ".join(f"{name[:-2]} {t:.3f} s" for name, t in results.timings.items())
        told = results.confidence
        sure = "" if told is None else f"; confidence {told:.2f}"
        output.note(f"{output.count(len(results), 'hit')}{sure}; {results.plan}; {took}")


def _nothing(results: Results, asked: str | None) -> str:
    """Return why there are no hits: the question's operators, its filter, or an empty index."""
    _, *notes = results.plan.split("; ")
    said = "; ".join(note for note in notes if note.startswith(("with ", "without ")))
    if said:
        return f"Nothing found {said}. --no-operators searches for the words as text."
    why = "the index contains no text" if asked is None else "no passage passes the filter"
    return f"Nothing found: {why}."


def _lines(results: Results, *, full: bool, base: Path | None = None) -> Iterator[str]:
    columns = output.width() - len(_INDENT)
    for hit in results:
        if hit.rank > 1:
            yield ""
        yield _headline(hit, base)
        if hit.also_in:
            also = ", ".join(naming.located(name, base) for name in hit.also_in)
            for line in passages.wrap(f"also in {also}", columns):
                yield _INDENT + click.style(line, dim=True)
        if hit.heading:
            headings = " › ".join(map(output.in_one_line, hit.heading))
            for line in passages.wrap(headings, columns):
                yield _INDENT + click.style(line, bold=True)
        if full:
            text = passages.whole(hit.text, columns)
        else:
            text = iter(passages.snippet(hit.text, hit.heading, columns, _SNIPPET_LINES))
        for line in text:
            yield (_INDENT + line).rstrip()


def _headline(hit: Hit, base: Path | None) -> str:
    rank = click.style(f"{hit.rank:>2}", bold=True)
    score = click.style(f"{hit.score:.3f}", fg="green")
    citation = click.style(naming.cited(hit, base), fg="cyan")
    page = click.style(f"  page {hit.page}", dim=True) if hit.page is not None else ""
    same = click.style(f"  +{hit.duplicates:,} identical", dim=True) if hit.duplicates else ""
    words = _STATES.get(hit.file_state or "")
    state = click.style(f"  {words}", fg="yellow") if words else ""
    return f"{rank}  {score}  {citation}{page}{state}{same}"

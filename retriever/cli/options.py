"""Options that commands share, and their values."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeAlias, TypeVar

import click

from retriever import arguments
from retriever.cli import output
from retriever.cli.default_index import locate
from retriever.cli.progress import ProgressDisplay
from retriever.encoders.computing import AUTO, PRECISIONS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    _IntegerType: TypeAlias = click.ParamType[int]
else:
    _IntegerType = click.ParamType  # not generic before click 8.4

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])
Code: TypeAlias = "int | None"

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
DEFAULT_MODEL = "all-MiniLM-L6-v2"
LOCK_TIMEOUT_S = 10.0
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


class PrintsHelp(click.Command):
    """A command whose help is printed like any other result: a full disk is an error."""

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Return the option `--help`."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.callback = _show_help
        return option


def _show_help(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        output.say(ctx.get_help())
        ctx.exit()


class Command(PrintsHelp):
    """A command whose help ends with examples.

    Args:
        examples: Lines of shell.
    """

    def __init__(self, *args: Any, examples: Sequence[str], **kwargs: Any) -> None:
        super().__init__(*args, **{"context_settings": HELP, **kwargs})
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples without wrapping them."""
        formatter.write("\nExamples:\n")
        for example in self.examples:
            formatter.write(f"  {example}\n")


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of the options that every command has.

    Attributes:
        path: The index directory; the current folder for a command without one.
        as_json: Whether to print the result as one JSON object.
        verbose: Whether to print details while working, to standard error.
        quiet: Whether to print nothing but requested results and errors.
    """

    path: Path
    as_json: bool
    verbose: bool
    quiet: bool

    def progress(self, stage: str) -> ProgressDisplay:
        """Return a progress display for a long call."""
        return ProgressDisplay(stage, wanted=not self.quiet)


class AnyPath(click.Path):
    """A path; a leading `~` is the home folder, even if the shell did not expand it."""

    def convert(self, value: Any, _: click.Parameter | None, __: click.Context | None) -> Any:
        """Return the path.

        Raises:
            InvalidConfig: It is empty, or not a possible path.
        """
        return arguments.path(value, "The path")


def files(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Complete file names in the shell: for paths, models and document ids."""
    return _completed_by_the_shell(incomplete, "file")


def folders(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Complete folder names in the shell."""
    return _completed_by_the_shell(incomplete, "dir")


def _completed_by_the_shell(incomplete: str, kind: str) -> list[CompletionItem[str]]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type=kind)]


def common(function: Callable[Concatenate[Settings, P], Code]) -> Callable[P, Code]:
    """Add the options that every command has; the command receives them as `Settings`."""
    index = click.option(
        "-i",
        "--index",
        "path",
        metavar="DIR",
        type=AnyPath(),
        envvar="RETRIEVER_INDEX",
        shell_complete=folders,
        show_default="$RETRIEVER_INDEX, else .retriever here or in a folder above",
        help="The index directory.",
    )
    return index(reporting(function))


def reporting(function: Callable[Concatenate[Settings, P], Code]) -> Callable[P, Code]:
    """Add the options for output.

    A command on an index has a parameter `path`, the index directory.
    """

    @click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
    @click.option("-v", "--verbose", is_flag=True, help="Print details to standard error.")
    @click.option("-q", "--quiet", is_flag=True, help="Print no progress, warnings or summary.")
    @functools.wraps(function)
    def command(*args: P.args, **kwargs: P.kwargs) -> Code:
        options: dict[str, Any] = kwargs
        names = ("as_json", "verbose", "quiet")
        given = {"path": options.pop("path", Path())}
        given |= {name: options.pop(name) for name in names}
        if given["path"] is None:
            is_quiet = given["quiet"] or given["as_json"] or options.get("as_jsonl", False)
            given["path"] = locate(quiet=is_quiet)
        settings = Settings(**given)
        _send_log_to_stderr(settings)
        return function(settings, *args, **kwargs)

    return command


class _StderrHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        output.note(output.visible(f"{record.levelname.lower()}: {record.getMessage()}"))


def _send_log_to_stderr(settings: Settings) -> None:
    logger = logging.getLogger("retriever")
    # A handler of an earlier command in this process would print every record again.
    logger.handlers = [h for h in logger.handlers if not isinstance(h, _StderrHandler)]
    logger.addHandler(_StderrHandler())
    logger.setLevel(
        logging.DEBUG if settings.verbose else logging.ERROR if settings.quiet else logging.WARNING
    )


# --- writing ---------------------------------------------------------------------------------


def lock_timeout(function: F) -> F:
    """Add `--lock-timeout`."""
    return click.option(
        "--lock-timeout",
        "lock_timeout_s",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        default=LOCK_TIMEOUT_S,
        show_default=True,
        help="Seconds to wait for another writer to finish.",
    )(function)


def model(
    *names: str,
    help_text: str = f"Name or path of the model. A new index uses {DEFAULT_MODEL} by default; an "
    "existing one accepts only the model it was built with.",
) -> Callable[[F], F]:
    """Return a decorator that adds `-m` and `--model`, or only the names that are given."""
    return click.option(
        *(names or ("-m", "--model")), metavar="MODEL", shell_complete=files, help=help_text
    )


def download(function: F) -> F:
    """Add `--download`."""
    return click.option(
        "--download",
        is_flag=True,
        help="Download the model from the Hugging Face Hub if it is not on this machine.",
    )(function)


def model_options(function: F) -> F:
    """Add `--query-prompt`, `--document-prompt` and `--dimensions`."""
    # Reversed, as decorators are applied from the last to the first, so that the help lists them in
    # this order.
    for option in reversed(_MODEL_OPTIONS):
        function = option(function)
    return function


def given_prompt(query_prompt: str | None, document_prompt: str | None) -> dict[str, str] | None:
    """Return the prompts that were given on the command line, None if none was."""
    given = {"query": query_prompt, "document": document_prompt}
    return {role: prompt for role, prompt in given.items() if prompt is not None} or None


_MODEL_OPTIONS = (
    click.option(
        "--query-prompt",
        metavar="TEXT",
        help="Text to put before each question, instead of the model's own prompt. Recorded in the "
        "index.",
    ),
    click.option("--document-prompt", metavar="TEXT", help="The same, before each document."),
    click.option(
        "--dimensions",
        type=int,
        metavar="N",
        help="Keep only the first N dimensions of each vector, for models trained for it "
        "(Matryoshka). Recorded in the index.",
    ),
)


def threads(function: F) -> F:
    """Add `--threads`."""
    return click.option(
        "--threads", type=click.IntRange(min=1), metavar="N", help="Use at most N threads."
    )(function)


def precision(function: F) -> F:
    """Add `--precision`."""
    return click.option(
        "--precision",
        type=click.Choice([AUTO, *PRECISIONS]),
        default=AUTO,
        show_default=True,
        help="Precision of the model's arithmetic. auto: for documents the fastest on this machine "
        "that keeps the quality, for questions float32. float32 is exact; int8 is faster on a CPU "
        "and loses some quality.",
    )(function)


def device(function: F) -> F:
    """Add `--device`."""
    return click.option(
        "--device",
        metavar="DEVICE",
        help="Device for the model: cpu, cuda, cuda:1. Default: a GPU if torch can see one, else "
        "cpu (int8 always uses the CPU).",
    )(function)


class Size(_IntegerType):
    """A number of bytes, as `500000`, `100MB` or `10MiB`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?I?)B?", str(value).strip().upper())
        if found is None or found[2] not in _UNITS:
            self.fail(f"{value!r} is not a size; write 500kB, 100MB or 2GiB.", param, ctx)
        return int(float(found[1]) * _UNITS[found[2]])


# --- searching -------------------------------------------------------------------------------


def reranking(
    rerank: str = "Reorder the best passages with a cross-encoder, given by name or path. Better "
    "results, but slower.",
    candidates: str = "Number of passages that the cross-encoder scores.  [default: 50, or -k if "
    "that is more]",
) -> Callable[[F], F]:
    """Return a decorator that adds `--rerank` and `--candidates`, with these helps."""

    def add(function: F) -> F:
        function = click.option("--candidates", type=int, metavar="N", help=candidates)(function)
        return click.option("--rerank", metavar="MODEL", shell_complete=files, help=rerank)(
            function
        )

    return add


def given_reranking(rerank: str | None, candidates: int | None) -> dict[str, Any]:
    """Return the fields `rerank` and `candidates` of the options of a search.

    Raises:
        UsageError: There are candidates, and no model to read them.
    """
    if candidates is None:
        return {"rerank": rerank}
    if rerank is None:
        raise click.UsageError("--candidates needs --rerank MODEL, which reads the candidates.")
    return {"rerank": rerank, "candidates": candidates}


# --- chunking --------------------------------------------------------------------------------


def chunk_options(function: F) -> F:
    """Add the chunk options; each is None unless it was given."""
    for option in reversed(_CHUNK_OPTIONS):
        function = option(function)
    return function


_CHUNK_OPTIONS = (
    click.option(
        "--chunking",
        "unit",
        type=click.Choice(["window", "document"]),
        help="window (the default): split documents into chunks that fit the encoder's window. "
        "document: one vector for each document, of its first window only.",
    ),
    click.option(
        "--chunk-tokens",
        "tokens",
        type=int,
        metavar="N",
        help="Maximum chunk length in tokens. Default: 128, or the encoder's window if that is "
        "less.",
    ),
    click.option(
        "--overlap",
        type=int,
        metavar="N",
        help="Tokens that a chunk repeats from the one before it. Default: 0.",
    ),
    click.option(
        "--prefix-headings/--no-prefix-headings",
        default=None,
        help="Encode each chunk with the headings above it before its text.",
    ),
    click.option(
        "--prefix-title/--no-prefix-title",
        default=None,
        help="Encode each chunk with the document's title before its text.",
    ),
)


def given_chunking(**options: Any) -> dict[str, Any] | None:
    """Return the chunk options given on the command line, or None if there are none."""
    return {name: value for name, value in options.items() if value is not None} or None

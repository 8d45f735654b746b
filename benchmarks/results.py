"""Writes RESULTS.md: runs the command of each table, and keeps what it prints and nothing else.

    python -m benchmarks.results --list
    python -m benchmarks.results --data DIR --peers PYTHON --models DIR --not-quiet
    python -m benchmarks.results --data DIR --peers PYTHON --models DIR --quiet --resume

Every command runs in a fresh process on the commit that is checked out; a tree with changes is
refused. RESULTS.md is the template RESULTS.in.md with, at the mark of each table, its command, the
circumstances and what stood between the marks of `tables.py` in the output. Tables of earlier runs
on the same commit and the same processor stay; `--resume` runs only those that are not there yet.
A table whose command fails, or lacks what it needs, is left out and named at the end.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from . import tables
from .machine import processor

ROOT = Path(__file__).parent.parent
TEMPLATE, RESULTS = "benchmarks/RESULTS.in.md", "benchmarks/RESULTS.md"
# Words of a command that stand for what the options say.
NEEDS = {
    "DATA": "the data folder",
    "MODELS": "the folder with all-mpnet-base-v2",
    "PEERS": "the interpreter of the environment of encode/peers.txt",
    "STORES": "the interpreter of the environment of filtered/peers.txt",
    "SPLITTERS": "the interpreter of the environment of chunking/peers.txt",
}
ABSENT = "Not measured on this commit."


@dataclass(frozen=True)
class Table:
    """One entry of the page.

    Attributes:
        name: The name of its mark in the template, and on the command line.
        title: What is shown.
        command: As it is typed at the root of the repository; words of `NEEDS` are replaced.
        minutes: What it takes on two idle cores.
        quiet: Whether it times something, so that other programs would falsify it.
    """

    name: str
    title: str
    command: str
    minutes: float
    quiet: bool = False

    @property
    def needs(self) -> list[str]:
        """Return the words of the command that options replace."""
        return [word for word in self.command.split() if word in NEEDS]


ENCODE = "python -m benchmarks.encode"
ONE = "OMP_NUM_THREADS=1 python -m"
TWO = "OMP_NUM_THREADS=2 python -m"
TABLES = (
    Table(
        "golden",
        "published runs, scored by retriever.evaluation",
        "python -m benchmarks.golden --data DATA",
        0.5,
    ),
    Table(
        "parity",
        "all-MiniLM-L6-v2 beside the published figures and sentence-transformers",
        f"{TWO} benchmarks.parity --data DATA",
        14,
    ),
    Table(
        "parity-mpnet",
        "all-mpnet-base-v2 beside the published figure",
        f"{TWO} benchmarks.parity --data DATA --model all-mpnet-base-v2 --models MODELS",
        16,
    ),
    Table(
        "long-documents",
        "whole documents beside their first window",
        f"{TWO} benchmarks.parity --long --data DATA",
        3,
    ),
    Table(
        "chunking-choose",
        "ways of cutting documents on training material",
        f"{TWO} benchmarks.chunking choose --data DATA --peers SPLITTERS",
        20,
    ),
    Table(
        "chunking-confirm",
        "the default chunks on other collections",
        f"{TWO} benchmarks.chunking confirm --data DATA --peers SPLITTERS",
        20,
    ),
    Table(
        "chunking-cost",
        "what an index costs in each setting",
        f"{TWO} benchmarks.chunking cost --data DATA --peers SPLITTERS",
        5,
        quiet=True,
    ),
    Table(
        "long-questions",
        "questions beyond the encoder's window",
        f"{TWO} benchmarks.long_questions --every 50 --data DATA",
        3,
    ),
    Table(
        "bulk",
        "encoding beside other runtimes",
        f"{ENCODE} bulk --limit 40 --runs 3 --data DATA --peers PEERS",
        8,
        quiet=True,
    ),
    Table(
        "ingest",
        "from texts to an index beside other systems",
        f"{ENCODE} ingest --limit 100 --runs 3 --data DATA --peers PEERS",
        6,
        quiet=True,
    ),
    Table(
        "cold",
        "a search from the command line",
        f"{ENCODE} cold --data DATA --peers PEERS",
        3,
        quiet=True,
    ),
    Table(
        "warm",
        "a search in a warm process beside other systems",
        f"{ENCODE} warm --limit 100 --runs 3 --data DATA --peers PEERS",
        6,
        quiet=True,
    ),
    Table(
        "rerank",
        "a cross-encoder beside CrossEncoder.predict",
        f"{ENCODE} rerank --data DATA --peers PEERS",
        1,
        quiet=True,
    ),
    Table(
        "install",
        "a fresh install",
        f"{ENCODE} install",
        2,
    ),
    Table(
        "confidence",
        "what the confidence in the first hit is worth",
        "OMP_NUM_THREADS=1 python -m benchmarks.confidence measure --data DATA",
        4,
    ),
    Table(
        "filtered",
        "filtered search beside other systems",
        "OMP_NUM_THREADS=1 python -m benchmarks.filtered --data DATA --peers STORES",
        12,
        quiet=True,
    ),
    Table(
        "lexical-grid",
        "BM25 by k1 and b",
        f"{ONE} benchmarks.lexical grid --data DATA",
        4,
    ),
    Table(
        "lexical-quality",
        "lexical search beside other engines",
        f"{ONE} benchmarks.lexical quality --data DATA",
        8,
    ),
    Table(
        "lexical-unspaced",
        "questions in Chinese, Japanese and Thai",
        f"{ONE} benchmarks.lexical unspaced",
        1,
    ),
    Table(
        "lexical-latency",
        "a lexical question, and a change, among many passages",
        f"{ONE} benchmarks.lexical latency --data DATA --passages 100000 1000000",
        60,
        quiet=True,
    ),
    Table(
        "hybrid-choose",
        "what training collections choose for hybrid search",
        f"{TWO} benchmarks.hybrid choose --data DATA",
        15,
    ),
    Table(
        "hybrid-confirm",
        "dense, lexical and hybrid search",
        f"{TWO} benchmarks.hybrid confirm --data DATA",
        20,
    ),
    Table(
        "hybrid-confirm-mpnet",
        "the same with a larger model, on SciFact",
        f"{TWO} benchmarks.hybrid confirm --only scifact --data DATA --models MODELS "
        "--model all-mpnet-base-v2",
        40,
    ),
    Table(
        "durability",
        "what the durability harness did to indexes",
        "OMP_NUM_THREADS=1 python -m benchmarks.durability kill points power faults damage hostile "
        "locks readers --share 0.05",
        6,
    ),
    Table(
        "shared-memory",
        "readers of one index",
        "python -m benchmarks.shared_memory",
        1,
    ),
    Table(
        "storage",
        "adding, opening, searching and verifying",
        f"{TWO} benchmarks.storage_cost",
        3,
        quiet=True,
    ),
)


@dataclass(frozen=True)
class Ran:
    """What the command of a table printed, and when and where."""

    name: str
    command: str
    commit: str
    processor: str
    date: str
    load: float
    seconds: float
    tables: list[str]

    def __str__(self) -> str:
        circumstances = (
            f"{self.date}, load average {self.load:.1f} before it, {_took(self.seconds)}"
        )
        return "\n\n".join([f"`{self.command}`", f"{circumstances}.", *self.tables])


def _took(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


# --- the commit ---------------------------------------------------------------------------------


def commit(root: Path) -> str:
    """Return the commit that is checked out; end the program where the tree differs from it."""
    changed = [
        line[3:]
        for line in _git(root, "status", "--porcelain", "--untracked-files=all").splitlines()
        if line[3:] != RESULTS
    ]
    if changed:
        sys.exit(f"The tree differs from its commit: {', '.join(changed[:5])}. Commit it first.")
    return _git(root, "rev-parse", "HEAD").strip()


def _git(root: Path, *arguments: str) -> str:
    ran = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"git {arguments[0]}: {ran.stderr.strip()}")
    return ran.stdout


# --- running ------------------------------------------------------------------------------------


def run(table: Table, given: Mapping[str, str], work: Path, root: Path) -> Ran:
    """Run a table's command.

    Raises:
        ValueError: It lacks something, failed, or printed no table; the message says which.
    """
    missing = [NEEDS[word] for word in table.needs if not given.get(word)]
    if missing:
        raise ValueError(f"skipped: it needs {' and '.join(missing)}")
    at, load = commit(root), os.getloadavg()[0]
    variables, words = split(table.command, given)
    log = work / f"{table.name}.log"
    began = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        code = subprocess.run(
            words, cwd=root, env={**os.environ, **variables}, stdout=file, stderr=subprocess.STDOUT
        ).returncode
    if code:
        raise ValueError(f"failed with {code}; see {log}")
    found = tables.printed(log.read_text("utf-8", errors="replace"))
    if not found:
        raise ValueError(f"printed no table; see {log}")
    if commit(root) != at:
        raise ValueError("another commit was checked out while it ran")
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    seconds = time.monotonic() - began
    return Ran(table.name, table.command, at, processor(), date, load, seconds, found)


def split(command: str, given: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the environment variables in front of a command, and its words."""
    words = shlex.split(command)
    variables = {}
    while re.match(r"[A-Z_]+=", words[0]):
        name, _, variables[name] = words.pop(0).partition("=")
    return variables, [
        sys.executable if word == "python" else given.get(word, word) for word in words
    ]


def kept(wanted: Sequence[Table], work: Path, at: str) -> dict[str, Ran]:
    """Return what earlier runs of the same commands on this commit and processor printed."""
    found = {}
    for table in wanted:
        path = work / f"{table.name}.json"
        if path.exists():
            ran = Ran(**json.loads(path.read_text("utf-8")))
            if (ran.commit, ran.processor, ran.command) == (at, processor(), table.command):
                found[table.name] = ran
    return found


# --- the page -----------------------------------------------------------------------------------


def mark(name: str) -> str:
    """Return the line of the template that a table takes the place of."""
    return f"<!-- {name} -->"


def page(template: str, ran: Mapping[str, Ran]) -> str:
    """Return the template with every table that was measured."""

    def filled(found: re.Match[str]) -> str:
        name = found[1]
        content = _circumstances(ran) if name == "machine" else str(ran.get(name, ABSENT))
        return f"{mark(name)}\n{content}\n{mark('/' + name)}"

    return re.sub(r"^<!-- ([a-z-]+) -->$", filled, template, flags=re.MULTILINE)


def _circumstances(ran: Mapping[str, Ran]) -> str:
    if not ran:
        return ABSENT
    one = next(iter(ran.values()))
    version = ".".join(map(str, sys.version_info[:3]))
    return f"Commit `{one.commit[:12]}` on {one.processor}, Python {version}."


# --- the command --------------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = [table.name for table in TABLES]
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(names)} [all]")
    for word, what in NEEDS.items():
        kind = "DIR" if "folder" in what else "PYTHON"
        parser.add_argument(f"--{word.lower()}", metavar=kind, default="", help=what)
    parser.add_argument("--work", type=Path, default=Path("work/results"), help="output and state")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quiet", action="store_true", help="only what needs an idle machine")
    which.add_argument("--not-quiet", action="store_true", help="only what does not")
    parser.add_argument("--resume", action="store_true", help="leave out what is measured already")
    parser.add_argument("--list", action="store_true", help="print the tables and end")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and end")
    options = parser.parse_args(arguments)
    if unknown := set(options.tables) - set(names):
        parser.error(f"no table is named {', '.join(sorted(unknown))}; there are {names}")
    return options


def chosen(options: argparse.Namespace) -> list[Table]:
    """Return the tables that the options ask for."""
    return [
        table
        for table in TABLES
        if (not options.tables or table.name in options.tables)
        and (not options.quiet or table.quiet)
        and (not options.not_quiet or not table.quiet)
    ]


def show_list(wanted: Sequence[Table]) -> None:
    rows = [
        [one.name, one.title, f"{one.minutes:g}", "yes" if one.quiet else "no", f"`{one.command}`"]
        for one in wanted
    ]
    columns = ["table", "shows", "minutes", "idle machine", "command"]
    tables.show(f"{sum(one.minutes for one in wanted):g} minutes in all", columns, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    wanted = chosen(options)
    given = {word: getattr(options, word.lower()) for word in NEEDS}
    if options.list:
        show_list(wanted)
        return 0
    at = commit(ROOT)
    options.work.mkdir(parents=True, exist_ok=True)
    ran = kept(TABLES, options.work, at)
    absent = {}
    for table in wanted:
        if options.resume and table.name in ran:
            continue
        if options.dry_run:
            variables, words = split(table.command, given)
            print(*(f"{name}={value}" for name, value in variables.items()), shlex.join(words))
            continue
        print(f"{table.name}: about {table.minutes:g} min", flush=True)
        ran.pop(table.name, None)
        try:
            ran[table.name] = one = run(table, given, options.work, ROOT)
        except ValueError as error:
            absent[table.name] = str(error)
            print(f"  {error}", flush=True)
            continue
        (options.work / f"{table.name}.json").write_text(json.dumps(asdict(one)), "utf-8")
        (ROOT / RESULTS).write_text(page((ROOT / TEMPLATE).read_text("utf-8"), ran), "utf-8")
    if options.dry_run:
        return 0
    (ROOT / RESULTS).write_text(page((ROOT / TEMPLATE).read_text("utf-8"), ran), "utf-8")
    for table in TABLES:
        if table.name not in ran:
            print(f"Not in RESULTS.md: {table.name} ({absent.get(table.name, 'not run')})")
    return 1 if absent else 0


if __name__ == "__main__":
    sys.exit(main())

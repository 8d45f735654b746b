"""Runs the examples of README.md and docs/*.md and compares what they print.

Two kinds of block are run, in the order of the file, in one folder that holds the sample corpus:

- `console`: lines that begin with `$ ` are commands; the lines after one are its output, standard
  error included. A line that ends in a backslash goes on in the next. A command must succeed unless
  `echo $?` follows it.
- `python`: a program that goes on where the last Python block ended. What it prints is in the
  `text` block that follows; without one it must print nothing.

A line of output that is only `...` stands for any lines. Numbers with a decimal point may differ by
0.01, because processors round differently; times, sizes, dates, the numbers of commits and the
folder's own path are not compared. A block whose first line is `# needs …` (a network, a GPU) is
shown and not run.

    python tests/documentation.py            # which examples no longer print what they show
    python tests/documentation.py --write    # write into the files what they print now
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDER = "/home/you/haldrey"
"""What the files show in place of the folder that the examples are run in."""

TOLERANCE = 0.01
_FENCE = re.compile(r"^(```+)(\w*)\s*$")
_NEEDS = re.compile(r"^# needs \w+")
_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_VARYING = (
    (
        re.compile(r'"((?:\w+_s|seconds|bytes|bytes_\w+|at|since|cursor)"): "?[^,}"]+"?'),
        r'"\1: <varies>',
    ),
    (re.compile(r"\b[\d.,]+ (?:s|ms|seconds)\b"), "<time>"),
    (re.compile(r"\b[\d.,]+ (?:bytes|B|kB|MB|GB)\b"), "<size>"),
    (re.compile(r"\bcommit \d+|\b\d+ commits?\b|\b\d+ rows in\b"), "<commits>"),
    (re.compile(r"^Precision .*"), "<precision>"),
    (
        re.compile(r"\b\d{4}-\d\d-\d\d[T ][\d:.]+(?:Z|[+-]\d\d:\d\d)?"),
        "<date>",
    ),
)


@dataclass
class Block:
    """A fenced block: its lines, without the fences, and the line of the file they begin at."""

    language: str
    start: int
    lines: list[str] = field(default_factory=list)

    @property
    def is_run(self) -> bool:
        """Return whether the block is an example that can run here."""
        return self.language in ("console", "python") and not self.needs

    @property
    def needs(self) -> str:
        """Return what the block says that it needs, or nothing."""
        first = self.lines[0] if self.lines else ""
        return first if _NEEDS.match(first) else ""


@dataclass
class Outcome:
    """What an example printed, and what the file shows; `place` is the range of lines it shows."""

    title: str
    place: tuple[int, int]
    expected: list[str]
    printed: list[str]
    failure: str = ""

    @property
    def difference(self) -> str:
        """Return how the two differ; empty if they do not."""
        if self.failure:
            return f"{self.title}\n{self.failure}"
        if matches(self.expected, self.printed):
            return ""
        lines = ["--- shown", *self.expected, "--- printed", *self.printed]
        return "\n".join([self.title, *lines])


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a Markdown text."""
    found: list[Block] = []
    fence = ""
    for number, line in enumerate(text.splitlines()):
        match = _FENCE.match(line)
        if not fence and match:
            fence = match[1]
            found.append(Block(match[2], number + 1))
        elif fence and line.strip() == fence:
            fence = ""
        elif fence:
            found[-1].lines.append(line)
    assert not fence, f"the block at line {found[-1].start} is not closed"
    return found


def matches(expected: list[str], printed: list[str]) -> bool:
    """Return whether output is as shown, up to what may vary."""
    wanted = [_normalised(line) for line in _trimmed(expected)]
    given = [_normalised(line) for line in _trimmed(printed)]
    return _match(wanted, given)


def _match(wanted: list[str], given: list[str]) -> bool:
    if not wanted:
        return not given
    if wanted[0] == "...":
        return any(_match(wanted[1:], given[start:]) for start in range(len(given) + 1))
    return bool(given) and _is_same(wanted[0], given[0]) and _match(wanted[1:], given[1:])


def _is_same(wanted: str, given: str) -> bool:
    if _NUMBER.sub("<number>", wanted) != _NUMBER.sub("<number>", given):
        return False
    pairs = zip(_NUMBER.findall(wanted), _NUMBER.findall(given), strict=True)
    return all(abs(float(one) - float(other)) <= TOLERANCE for one, other in pairs)


def _normalised(line: str) -> str:
    for pattern, name in _VARYING:
        line = pattern.sub(name, line)
    return line.rstrip()


def _trimmed(lines: list[str]) -> list[str]:
    last = len(lines)
    while last and not lines[last - 1].strip():
        last -= 1
    return lines[:last]


class Session:
    """A folder with the sample corpus, in which the examples of one file are run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.names: dict[str, Any] = {"__name__": "__main__"}
        shutil.copytree(ROOT / "data", self.folder / "data")
        self.tools = Path(tempfile.mkdtemp(prefix="retriever-bin-"))
        program = self.tools / "retriever"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m retriever "$@"\n')
        program.chmod(0o755)

    def close(self) -> None:
        """Close the indexes that Python examples left open."""
        for value in self.names.values():
            if type(value).__module__.startswith("retriever") and hasattr(value, "close"):
                value.close()
        shutil.rmtree(self.tools)

    def run(self, path: Path) -> Iterator[Outcome]:
        """Run the examples of a file, in order."""
        found = blocks(path.read_text(encoding="utf-8"))
        for number, block in enumerate(found):
            following = found[number + 1] if number + 1 < len(found) else None
            if not block.is_run:
                continue
            title = f"{path.name}:{block.start}"
            if block.language == "console":
                yield from self._console(title, block)
            else:
                yield self._python(title, block, following)

    def _console(self, title: str, block: Block) -> Iterator[Outcome]:
        steps = _steps(block)
        mark = "=== end of output "
        script = "set -o pipefail\n" + "".join(
            f"{command}\n__status=$?\nprintf '{mark}%s\\n' $__status\n(exit $__status)\n"
            for command, _, _ in steps
        )
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        outputs = done.stdout.split(mark)
        printed = [outputs[0], *(rest.split("\n", 1)[1] for rest in outputs[1:])]
        statuses = [rest.split("\n", 1)[0] for rest in outputs[1:]]
        for number, (command, expected, place) in enumerate(steps):
            name = f"{title} $ {command}"
            if number >= len(statuses):
                yield Outcome(name, place, expected, [], f"The shell ended early.\n{printed[-1]}")
                return
            lines = self._shown(printed[number])
            is_asked = number + 1 < len(steps) and steps[number + 1][0] == "echo $?"
            is_bad = statuses[number] != "0" and not is_asked
            failure = f"exit code {statuses[number]}\n{printed[number]}" if is_bad else ""
            yield Outcome(name, place, expected, lines, failure)

    def _python(self, title: str, block: Block, following: Block | None) -> Outcome:
        shown = following if following is not None and following.language == "text" else None
        place = (shown.start, shown.start + len(shown.lines)) if shown else (0, 0)
        printed = io.StringIO()
        failure = ""
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            # Lines before it keep the numbers that tracebacks show those of the file.
            code = compile("\n" * block.start + "\n".join(block.lines), title, "exec")
            with contextlib.redirect_stdout(printed):
                exec(code, self.names)  # the examples are the project's own
        except Exception:
            failure = traceback.format_exc()
        finally:
            os.chdir(before)
        lines = self._shown(printed.getvalue())
        return Outcome(title, place, shown.lines if shown else [], lines, failure)

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "RETRIEVER_INDEX"}
        path = f"{self.tools}{os.pathsep}{os.environ['PATH']}"
        return {**kept, "PATH": path, "COLUMNS": "80", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1"}

    def _shown(self, output: str) -> list[str]:
        shown = output.replace(str(self.folder), FOLDER)
        return [line.rstrip() for line in shown.splitlines()]


def _steps(block: Block) -> list[tuple[str, list[str], tuple[int, int]]]:
    """Return the commands of a console block, each with its output and the lines of that."""
    steps: list[tuple[str, list[str], tuple[int, int]]] = []
    goes_on = False
    for number, line in enumerate(block.lines, block.start):
        if goes_on:
            command = steps[-1][0] + "\n" + line
            steps[-1] = (command, [], (number + 1, number + 1))
        elif line.startswith("$ "):
            command = line[2:]
            steps.append((command, [], (number + 1, number + 1)))
        else:
            assert steps, f"line {number + 1}: output before any command"
            command, output, (start, _) = steps[-1]
            steps[-1] = (command, [*output, line], (start, number + 1))
            continue
        goes_on = command.endswith("\\")
    return steps


def write(path: Path, outcomes: list[Outcome]) -> None:
    """Put what examples printed in the place of what the file shows."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for outcome in sorted(outcomes, key=lambda one: one.place, reverse=True):
        if outcome.failure or not outcome.difference or outcome.place == (0, 0):
            continue
        start, end = outcome.place
        lines[start:end] = outcome.printed
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Run the examples of the files named, or of all; see the module."""
    named = [Path(name).resolve() for name in arguments if name != "--write"]
    is_wrong = False
    for path in named or FILES:
        with tempfile.TemporaryDirectory() as folder:
            session = Session(Path(folder))
            try:
                outcomes = list(session.run(path))
            finally:
                session.close()
        for outcome in outcomes:
            if outcome.difference:
                is_wrong = True
                sys.stdout.write(f"{outcome.difference}\n\n")
        if "--write" in arguments:
            write(path, outcomes)
    return int(is_wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

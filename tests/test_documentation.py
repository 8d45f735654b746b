"""README.md, docs/ and the docstrings show what the program prints, names and accepts."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import click
import documentation
import pytest
from documentation import FILES, ROOT, Session

import retriever
from retriever import Index, Limits, evaluation
from retriever.cli.program import main

PROSE = [*FILES, *(ROOT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md"))]
LINKED = [*PROSE, *sorted((ROOT / "benchmarks").rglob("*.md"))]
MODULES = [
    path
    for path in sorted((ROOT / "retriever").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]
PACKAGE = ROOT / "retriever"
PACKAGES = "documents|encoders|ingest|search|storage"
OF_AN_INDEX = ("quarantine/", ".retrieverignore", ".gitignore")
MOST_BYTES_OF_README = 6_144
MOST_BLOCKS_NOT_RUN = 3


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A folder with the sample corpus, where the examples run."""
    session = Session(tmp_path)
    monkeypatch.chdir(session.folder)
    yield session
    session.close()


@pytest.mark.model
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_example_prints_what_the_file_shows(session: Session, path: Path):
    outcomes = list(session.run(path))
    different = [outcome.difference for outcome in outcomes if outcome.difference]
    assert not different, "\n\n".join(
        [*different, f"If this is right: python tests/documentation.py --write {path.name}"]
    )
    assert len(outcomes) == len(list(_examples(path)))


def _examples(path: Path) -> Iterator[str]:
    """Yield the commands and programs of a file that are to run."""
    for block in documentation.blocks(path.read_text(encoding="utf-8")):
        if block.is_run:
            commands = [line for line in block.lines if line.startswith("$ ")]
            yield from commands if block.language == "console" else ["\n".join(block.lines)]


@pytest.mark.model
@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_every_docstring_example_runs(session: Session, path: Path):
    assert "doctest: +SKIP" not in path.read_text(encoding="utf-8")
    parts = path.relative_to(ROOT).with_suffix("").parts
    module = importlib.import_module(".".join(part for part in parts if part != "__init__"))
    tried = 0
    for example in doctest.DocTestFinder(exclude_empty=True).find(module, globs={}):
        runner = doctest.DocTestRunner(checker=_Rounded(), optionflags=doctest.ELLIPSIS)
        example.globs.update(vars(module))
        printed: list[str] = []
        runner.run(example, out=printed.append)
        assert not runner.failures, "".join(printed)
        tried += runner.tries
    assert tried


class _Rounded(doctest.OutputChecker):
    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return documentation.matches(want.splitlines(), got.splitlines()) or super().check_output(
            want, got, optionflags
        )


def test_examples_that_do_not_run_say_why_and_are_few():
    found = [block for path in PROSE for block in _blocks(path)]
    assert {block.language for block in found} <= {"console", "python", "text"}
    assert len([block for block in found if block.needs]) <= MOST_BLOCKS_NOT_RUN


def _blocks(path: Path) -> list[documentation.Block]:
    return documentation.blocks(path.read_text(encoding="utf-8"))


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= MOST_BYTES_OF_README


def test_every_command_and_option_is_in_the_page_of_the_command_line():
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    page += (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8")
    context = main.make_context("retriever", [], resilient_parsing=True)
    missing = []
    for name, command in _commands(main, context):
        options = [option for parameter in command.params for option in parameter.opts]
        missing += [f"`{name}" for _ in [0] if f"`{name}" not in page]
        missing += [o for o in options if o.startswith("--") and f"{o}" not in page]
    assert sorted(set(missing)) == []


def _commands(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its name, those of groups as `group command`."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            inner = click.Context(command, parent=context)
            yield from ((f"{name} {one}", found) for one, found in _commands(command, inner))


def test_every_public_name_and_method_is_in_the_pages():
    page = "".join(path.read_text(encoding="utf-8") for path in FILES)
    methods = [name for name in vars(Index) if not name.startswith("_")]
    missing = [
        name
        for name in [*retriever.__all__, *evaluation.__all__, *methods]
        if not re.search(rf"\b{re.escape(name)}\b", page) and name != "__version__"
    ]
    assert missing == []


def test_every_limit_is_in_the_page_of_python():
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    table = text.partition("## Limits")[2].partition("## ")[0]
    assert re.findall(r"`(\w+)`(?=.*\|.*\|)", table) == [
        limit.name for limit in dataclasses.fields(Limits)
    ]


def test_every_exit_code_is_in_the_page_of_the_command_line():
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    table = page.partition("## Exit codes")[2].partition("\n## ")[0]
    codes = {getattr(retriever, name).exit_code for name in _errors()} | {0, 1, 6, 130, 143}
    shown = {
        int(code) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.M) for code in row.split(",")
    }
    assert shown == codes


def _errors() -> list[str]:
    tree = ast.parse((ROOT / "retriever" / "errors.py").read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


@pytest.mark.parametrize("path", LINKED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(path: Path):
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(target)
    assert broken == []


def _anchors(path: Path) -> set[str]:
    """Return the anchors of a Markdown file's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.name)
def test_the_pages_name_files_that_exist(path: Path):
    """A path in backquotes is there, from the root or in the package: what moves moves here too."""
    text = path.read_text(encoding="utf-8")
    drawn = re.findall(rf"^(?:[\w ]+ )?((?:{PACKAGES})/\w+)(?: |$)", text, re.M)  # the two flows
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    named = re.findall(r"`([\w.-]+(?:/[\w.-]+)*(?:/|\.py|\.md|\.toml|\.txt))`", text)
    named += [name + ("/" if (PACKAGE / name).is_dir() else ".py") for name in drawn]
    places = (ROOT, PACKAGE)
    missing = [name for name in named if not any((place / name).exists() for place in places)]
    assert [name for name in missing if not name.startswith(OF_AN_INDEX)] == []


# --- the runner itself: it must notice what changes ---------------------------------------------


@pytest.mark.parametrize(
    ("shown", "printed", "is_same"),
    [
        ("0.514  a.md:1", "0.517  a.md:1", True),  # another processor
        ("0.514  a.md:1", "0.534  a.md:1", False),
        ("0.514  a.md:1", "0.514  a.md:2", False),
        ("added in 3.31 s.", "added in 12 s.", True),
        ("51 added in 3.31 s.", "52 added in 3.31 s.", False),
        ("Storage 819.8 kB", "Storage 1.2 MB", True),
        ('"total_s": 0.37}', '"total_s": 1.2e-05}', True),
        ("first\n...\nlast", "first\nsecond\nthird\nlast", True),
        ("first\n...\nlast", "first\nsecond", False),
        ("first", "first\nsecond", False),
        ("", "anything", False),
    ],
)
def test_outputs_are_compared_up_to_what_may_vary(shown: str, printed: str, is_same: bool):
    assert documentation.matches(shown.splitlines(), printed.splitlines()) is is_same


@pytest.mark.parametrize(
    ("example", "is_right"),
    [
        ("```console\n$ echo one\none\n$ echo two\ntwo\n```\n", True),
        ("```console\n$ echo one\ntwo\n```\n", False),
        ("```console\n$ echo one\n```\n", False),
        ("```console\n$ false\n```\n", False),
        ("```console\n$ false\n$ echo $?\n1\n```\n", True),
        ("```console\n$ exit 3\n```\n", False),
        ("```console\n# needs a network\n$ false\n```\n", True),
        ("```python\na = 1\n```\n```python\nprint(a)\n```\n```text\n1\n```\n", True),
        ("```python\nprint(1)\n```\n```text\n2\n```\n", False),
        ("```python\nprint(1)\n```\n", False),
        ("```python\nraise ValueError\n```\n", False),
    ],
)
def test_an_example_that_prints_something_else_is_found(
    session: Session, example: str, is_right: bool
):
    page = session.folder / "page.md"
    page.write_text(example)
    outcomes = list(session.run(page))
    assert all(not outcome.difference for outcome in outcomes) is is_right


def test_what_examples_print_now_can_be_written_into_the_file(session: Session):
    page = session.folder / "page.md"
    page.write_text("```console\n$ echo one\ntwo\nthree\n$ echo four\n```\ntext\n")
    documentation.write(page, list(session.run(page)))
    assert page.read_text() == "```console\n$ echo one\none\n$ echo four\nfour\n```\ntext\n"

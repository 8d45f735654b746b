"""RESULTS.md holds what the commands of `benchmarks/results.py` print, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from benchmarks import results, tables
from benchmarks.results import TABLES, Table

ROOT = Path(__file__).parent.parent
TEMPLATE = (ROOT / results.TEMPLATE).read_text("utf-8")
PAGE = (ROOT / results.RESULTS).read_text("utf-8")
BLOCK = re.compile(r"^<!-- ([a-z-]+) -->\n(.*?)\n<!-- /\1 -->$", re.MULTILINE | re.DOTALL)
COMMANDS = {table.name: table.command for table in TABLES}


def test_every_table_has_its_place_in_the_template() -> None:
    marks = re.findall(r"^<!-- ([a-z-]+) -->$", TEMPLATE, re.MULTILINE)
    assert sorted(marks) == sorted(["machine", *COMMANDS])
    assert not re.search(r"^\|", TEMPLATE, re.MULTILINE)


def test_the_page_is_the_template_with_tables_of_the_list() -> None:
    assert BLOCK.sub(lambda found: results.mark(found[1]), PAGE) == TEMPLATE
    measured = {name: content for name, content in BLOCK.findall(PAGE) if "|" in content}
    assert {name: content.splitlines()[0] for name, content in measured.items()} == {
        name: f"`{COMMANDS[name]}`" for name in measured
    }


def test_figures_of_other_pages_stand_in_the_section_that_they_link_to() -> None:
    """A linked figure, such as [0.57 s](benchmarks/RESULTS.md#cold-search), is in its section."""
    sections = {
        title.lower().replace(" ", "-"): content
        for title, content in re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", PAGE, re.MULTILINE)
    }
    linked = re.compile(r"\[([^]]*)\]\((?:\.\./)?benchmarks/RESULTS\.md#([a-z-]+)\)")
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for text, anchor in linked.findall(path.read_text("utf-8")):
            section = sections[anchor]
            if results.ABSENT in section:
                continue
            printed = set(re.findall(r"[\d,.]*\d", section))
            wanted = re.findall(r"[\d,.]*\d", text)
            assert all(
                one.removeprefix("0") in {n.removeprefix("0") for n in printed} for one in wanted
            ), f"{path.name}: {text!r} is not in {anchor}"


def test_printed_tables_are_found_between_their_marks(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show("A title", ["name", "count"], [["a|b", "1,000"], ["c", 2]], "A note.")
    assert tables.printed(f"noise | of it\n{capsys.readouterr().out}") == [
        "A title\n\n| name | count |\n| ---- | ----: |\n| a\\|b | 1,000 |\n| c    |     2 |"
        "\n\nA note."
    ]


# --- running commands -----------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit."""
    root = tmp_path / "repository"
    (root / "benchmarks").mkdir(parents=True)
    git(root, "init", "-q")
    (root / "file").write_text("a\n")
    git(root, "add", "file")
    git(root, "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "-m", "One")
    return root


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(root), *arguments], check=True)


def printing(code: str) -> str:
    """Return a command that runs Python code which may print a table."""
    begin, end = tables.BEGIN, tables.END
    return f"NOISE=1 python -c \"import os; {code}; print('{begin}\\n| a |\\n{end}')\""


def test_a_table_is_what_its_command_prints(repository: Path, tmp_path: Path) -> None:
    command = printing("assert os.environ['NOISE'] == '1'; print('noise')")
    ran = results.run(Table("one", "", command, 1), {}, tmp_path, repository)
    assert ran.tables == ["| a |"]
    assert ran.commit == results.commit(repository)
    assert str(ran).startswith(f"`{command}`\n\n{ran.date}, load average ")
    assert results.page("# R\n\n<!-- one -->\n\n<!-- two -->\n", {"one": ran}) == (
        f"# R\n\n<!-- one -->\n{ran}\n<!-- /one -->\n"
        f"\n<!-- two -->\n{results.ABSENT}\n<!-- /two -->\n"
    )


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (printing("raise SystemExit(3)"), "failed with 3"),
        ("python -c \"print('| a |')\"", "printed no table"),
        ("python -c pass --data DATA", "it needs the data folder"),
        (printing("open('file', 'w').write('b')"), "The tree differs from its commit: file"),
    ],
)
def test_a_command_that_fails_has_no_table(
    repository: Path, tmp_path: Path, command: str, why: str
) -> None:
    with pytest.raises((ValueError, SystemExit), match=why):
        results.run(Table("one", "", command, 1), {}, tmp_path, repository)


def test_a_tree_with_changes_is_refused_but_for_the_page(repository: Path) -> None:
    (repository / results.RESULTS).write_text("new")
    assert re.fullmatch("[0-9a-f]{40}", results.commit(repository))
    (repository / "other").write_text("new")
    with pytest.raises(SystemExit, match="differs from its commit: other"):
        results.commit(repository)


def test_earlier_tables_count_only_of_the_same_commit_and_command(tmp_path: Path) -> None:
    table = Table("one", "", "python -c pass", 1)
    ran = results.Ran("one", table.command, "abc", results.processor(), "2026-01-01", 0.1, 2.0, [])
    (tmp_path / "one.json").write_text(json.dumps(ran.__dict__))
    assert results.kept([table], tmp_path, "abc") == {"one": ran}
    assert results.kept([table], tmp_path, "abd") == {}
    assert results.kept([Table("one", "", "python -c 1", 1)], tmp_path, "abc") == {}


def test_words_of_a_command_are_replaced_by_what_is_given() -> None:
    variables, words = results.split("A=1 B_C=2 python -m x --data DATA", {"DATA": "/a b"})
    assert variables == {"A": "1", "B_C": "2"}
    assert words[1:] == ["-m", "x", "--data", "/a b"]


def test_the_list_and_a_wrong_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert results.main(["--list", "--quiet"]) == 0
    listed = capsys.readouterr().out
    assert all((f"| {table.name} " in listed) == table.quiet for table in TABLES)
    with pytest.raises(SystemExit, match="2"):
        results.main(["nonesuch"])

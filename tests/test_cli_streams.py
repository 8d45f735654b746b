"""The command line where standard input, output or error is closed, full, or read no further."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import stand_in

from retriever import Index
from retriever.testing import HashEncoder

COMMANDS = {
    "help": "--help",
    "help of a command": "search --help",
    "version": "--version",
    "completion": "",
    "index": "index docs",
    "search": "search pump",
    "search --json": "search pump --json",
    "list": "list",
    "status": "status --json",
    "delete": "delete docs/1.md",
    "verify": "verify",
    "repair": "repair",
    "compact": "compact",
    "backup": "backup copy.index",
    "rebuild": "rebuild",
    "adopt": "adopt .retriever own.index --model hash",
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    docs.mkdir()
    for number in range(3):
        (docs / f"{number}.md").write_text(f"# Pump {number}\n\nText of file {number}.\n")
    with Index.open(tmp_path / ".retriever", model=HashEncoder()) as opened:
        opened.add_files(docs)
    (docs / "new.md").write_text("One more.\n")
    return tmp_path


def shell(place: Path, name: str, redirection: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command in bash with its streams redirected."""
    arguments = COMMANDS.get(name, name)
    before = "_RETRIEVER_COMPLETE=bash_source " if name == "completion" else ""
    line = f'{before}"$0" "$@" {arguments} {redirection}'
    return subprocess.run(
        ["bash", "-c", line, *stand_in.command_line()],
        cwd=place,
        capture_output=True,
        timeout=120,
        check=False,
    )


def require_sound(place: Path) -> None:
    with Index.open(place / ".retriever", model=HashEncoder()) as opened:
        report = opened.verify(deep=True)
    assert report.ok, report.problems


@pytest.mark.parametrize("name", COMMANDS)
def test_without_stderr_everything_works(place: Path, name: str):
    done = shell(place, name, "2>&-")
    assert done.returncode == 0
    assert done.stdout != b""
    require_sound(place)


@pytest.mark.parametrize("name", COMMANDS)
def test_results_that_have_nowhere_to_go_are_an_error(place: Path, name: str):
    for redirection, why in ((">&-", b"standard output is closed"), (">/dev/full", b"No space")):
        done = shell(place, name, redirection)
        assert done.returncode == 8, done.stderr
        if "--json" not in COMMANDS[name]:
            assert done.stderr.startswith(b"error: The results cannot be written: " + why)
            assert done.stderr.count(b"\n") == 2
        assert b"Traceback" not in done.stderr
        if name in ("delete", "backup", "adopt"):
            break
    require_sound(place)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "rebuild"])
def test_a_reader_that_reads_no_further_is_no_error(place: Path, name: str):
    done = shell(place, name, "| true; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("name", ["index -", "index - --jsonl", "index - --text", "search -"])
def test_a_closed_stdin_is_said(place: Path, name: str):
    done = shell(place, name, "<&-")
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.startswith(b"error: Standard input cannot be read: it is closed.")
    assert b"stays" not in done.stderr
    require_sound(place)


def test_commands_that_do_not_read_stdin_work_without_it(place: Path):
    for name in ("index", "search", "status"):
        done = shell(place, name, "<&-")
        assert (done.returncode, done.stderr) == (0, b"")
    require_sound(place)


def test_with_all_streams_closed_the_work_is_done_and_the_exit_code_tells(place: Path):
    assert shell(place, "index --quiet docs", "<&- >&- 2>&-").returncode == 0
    assert shell(place, "status", "<&- >&- 2>&-").returncode == 8
    assert shell(place, "status -i none", "<&- >&- 2>&-").returncode == 3
    require_sound(place)
    with Index.open(place / ".retriever") as opened:
        assert opened.get("docs/new.md") is not None


def test_a_shell_that_is_not_known_is_no_answer(place: Path):
    line = shell(place, "completion", "")
    assert line.returncode == 0
    done = subprocess.run(
        stand_in.command_line(),
        cwd=place,
        env={**os.environ, "_RETRIEVER_COMPLETE": "nosuch_source"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: Completion is not supported")


def test_errors_that_cannot_be_printed_keep_their_exit_code(place: Path):
    for redirection in ("2>&-", "2>/dev/full"):
        assert shell(place, "status -i none", redirection).returncode == 3
        assert shell(place, "search --nonsense", redirection).returncode == 2

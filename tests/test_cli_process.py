"""The command line as a process: imports, terminals, pipes, signals, and the real model."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import stand_in
from click.testing import Result
from command_line import cli_runner

from retriever import Document, Index
from retriever.cli import main
from retriever.testing import HashEncoder

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "retriever"]
# The command line with a small encoder that takes a while for each call.
SLOW = stand_in.command_line(text_s=1 / 600)
HEAVY = {"torch", "transformers", "sentence_transformers", "sklearn", "scipy"}


@pytest.fixture
def index(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    docs.mkdir()
    for number in range(40):
        (docs / f"{number:02}.md").write_text(f"# Title {number}\n\nText of file {number}.\n")
    with Index.open(tmp_path / ".retriever", model=HashEncoder()) as opened:
        opened.add_files(docs)
    return tmp_path / ".retriever"


def environment(**changes: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    return {**kept, "TERM": "xterm-256color", **changes}


def run(
    *arguments: str,
    cwd: Path,
    command: list[str] = COMMAND,
    encoding: str = "utf-8",
    **changes: str,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, *arguments],
        cwd=cwd,
        env=environment(**changes),
        capture_output=True,
        encoding=encoding,
        timeout=120,
        check=False,
    )


# --- what is imported ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "also"),
    [
        (["--help"], {"faiss", "sqlite_utils", "numpy", "sqlite3", "tokenizers"}),
        (["--version"], {"faiss", "sqlite_utils", "numpy", "sqlite3", "tokenizers"}),
        (["search", "--help"], {"faiss", "sqlite_utils", "numpy", "sqlite3", "tokenizers"}),
        (["list"], {"faiss", "sqlite_utils"}),
        (["status"], {"faiss", "sqlite_utils"}),
        (["verify"], {"faiss"}),
        (["backup", "copy"], {"faiss", "sqlite_utils"}),
        (["index", "docs"], {"faiss", "sqlite_utils"}),
        (["delete", "docs/00.md"], {"faiss", "sqlite_utils"}),
        (["compact"], {"sqlite_utils"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_imports_no_more_than_it_needs(index: Path, arguments: list[str], also: set[str]):
    command = [sys.executable, "-X", "importtime", "-m", "retriever"]
    done = run(*arguments, cwd=index.parent, command=command)
    assert done.returncode == 0, done.stderr
    imported = set(re.findall(r"\| +(\w+)(?:\.\S*)?$", done.stderr, re.MULTILINE))
    assert "retriever" in imported
    assert imported & (HEAVY | {"rich"} | also) == set()


# --- terminals and pipes ---------------------------------------------------------------------


def run_on_terminal(
    *arguments: str, cwd: Path, command: list[str] = COMMAND, **changes: str
) -> tuple[int, str]:
    """Run a command on a terminal of its own; return its exit code and what was drawn."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [*command, *arguments],
        cwd=cwd,
        env=environment(COLUMNS="100", **changes),
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    drawn = b""
    while True:
        select.select([controller], [], [], 60)
        try:
            part = os.read(controller, 65536)
        except OSError as exc:
            if exc.errno != errno.EIO:  # how Linux says that the other side is closed
                raise
            break
        if not part:
            break
        drawn += part
    os.close(controller)
    return process.wait(timeout=60), drawn.decode()


def test_colour_is_for_terminals_that_want_it(index: Path):
    code, drawn = run_on_terminal("list", cwd=index.parent)
    assert code == 0
    assert "\x1b[36mdocs/00.md\x1b[0m\tTitle 0" in drawn
    for variables in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b" not in run_on_terminal("list", cwd=index.parent, **variables)[1]
    assert "\x1b" not in run("list", cwd=index.parent).stdout
    assert "\x1b[31m" in run_on_terminal("nonsense", cwd=index.parent)[1]


def test_json_is_indented_on_a_terminal_only(index: Path):
    drawn = run_on_terminal("status", "--json", cwd=index.parent)[1]
    assert '{\r\n  "schema": 1,' in drawn
    assert run("status", "--json", cwd=index.parent).stdout.count("\n") == 1


def test_progress_is_drawn_on_a_terminal_only(tmp_path: Path, index: Path):
    many = tmp_path / "many"
    many.mkdir()
    for number in range(1_200):
        (many / f"{number}.txt").write_text(f"unlike the others {number} " * 30)
    code, drawn = run_on_terminal("index", "many", cwd=tmp_path, command=SLOW)
    assert code == 0
    assert re.search(r"[\d,]+/1,200 files · [\d,]+ files/s", drawn)
    assert re.search(r"[\d,]+ tokens/s · \d:\d\d:\d\d left", drawn)
    assert "1,200 documents added in" in drawn
    (many / "new.txt").write_text("one more")
    done = run("index", "many", cwd=tmp_path, command=SLOW)
    assert done.stderr == ""
    assert "1 document added in" in done.stdout


@pytest.mark.parametrize("arguments", [["list"], ["list", "--jsonl"], ["status"], ["verify"]])
def test_a_closed_pipe_is_no_error(index: Path, arguments: list[str]):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=index.parent,
        env=environment(),
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_closed_pipe_does_not_hide_damage(index: Path):
    (index / "HEAD").write_bytes(b"nonsense")
    line = f"set -o pipefail; {sys.executable} -m retriever verify | true"
    assert subprocess.run(["bash", "-c", line], cwd=index.parent, check=False).returncode == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_stdout_is_said(index: Path):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "list"],
            cwd=index.parent,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 8
    assert b"error: The results cannot be written: No space left on device." in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_terminal_without_unicode_gets_escapes(index: Path):
    with Index.open(index, model=HashEncoder()) as opened:
        opened.add(Document("größer", id="größer", title="日本"))
    plain = {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    done = run("list", cwd=index.parent, encoding="latin-1", **plain)
    assert done.returncode == 0
    assert "größer\t\\u65e5\\u672c" in done.stdout
    answer = json.loads(run("list", "--json", cwd=index.parent, **plain).stdout)
    assert answer["documents"][-1]["title"] == "日本"


# --- Ctrl-C ----------------------------------------------------------------------------------


def interrupted(
    *arguments: str, cwd: Path, command: list[str], when: Callable[[], bool], **pipes: int
) -> tuple[int, str]:
    """Run a command and send it SIGINT as soon as `when()`; return exit code and stderr."""
    process = subprocess.Popen(
        [*command, *arguments],
        cwd=cwd,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        # pytest itself may run with SIGINT ignored, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **pipes,
    )
    deadline = time.monotonic() + 60
    while not when():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)  # past the commit, or the lock, that was waited for
    process.send_signal(signal.SIGINT)
    return process.wait(timeout=60), process.communicate()[1]


def test_ctrl_c_keeps_what_was_committed_and_says_how_to_go_on(tmp_path: Path, index: Path):
    many = tmp_path / "many"
    many.mkdir()
    for number in range(1_800):
        (many / f"{number}.txt").write_text(f"unlike the others {number}")
    reader = Index.open(index)

    def is_committed() -> bool:
        return reader.count() > 40

    code, said = interrupted(
        "index", "many", cwd=tmp_path, command=SLOW, when=is_committed, stdout=subprocess.DEVNULL
    )
    kept = reader.count() - 40
    reader.close()
    assert code == 130
    assert "Traceback" not in said
    assert said == (
        f"error: Interrupted. {kept:,} documents were committed and stay.\n"
        "hint: Run the same command again to continue.\n"
    )
    assert 0 < kept < 1_800
    answer = json.loads(run("index", "many", "--json", cwd=tmp_path, command=SLOW).stdout)
    assert (answer["unchanged"], answer["added"]) == (kept, 1_800 - kept)
    assert run("verify", cwd=tmp_path).returncode == 0


def test_ctrl_c_while_reading_standard_input(tmp_path: Path, index: Path):
    reader = Index.open(index)
    code, said = interrupted(
        *("index", "-", "--json"),
        cwd=tmp_path,
        command=COMMAND,
        when=lambda: reader.status().locked_by is not None,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert reader.status().locked_by is None
    reader.close()
    assert code == 130
    answer = json.loads(said)
    assert answer["error"]["code"] == "interrupted"
    assert answer["report"]["added"] == 0


# --- the real model --------------------------------------------------------------------------

QUESTION = "What do I do when someone is stung by a bee and cannot breathe?"


@pytest.fixture(scope="module")
def handbook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few files of the sample handbook beside an index that the command line made of them."""
    place = tmp_path_factory.mktemp("handbook")
    for name in ("health", "water"):
        shutil.copytree(ROOT / "data" / "handbook" / name, place / "docs" / name)
    done = ask(place, "index", str(place / "docs"))
    assert "documents added in" in done.stdout
    return place


def ask(place: Path, *arguments: str) -> Result:
    done = cli_runner().invoke(main, [*arguments, "-i", str(place / "handbook.index")])
    assert done.exit_code == 0, done.stderr
    return done


@pytest.mark.model
def test_the_real_model_answers_with_sources_and_is_loaded_only_when_needed(handbook: Path):
    done = ask(handbook, "search", QUESTION, "-k", "3")
    line = r" 1  0\.\d{3}  (/\S*/docs/health/bee-sting-allergy\.md):\d+\n    \S"
    cited = re.match(line, done.stdout)
    assert cited is not None
    assert Path(cited[1]).is_file()
    assert done.stdout.count("\n\n") == 2
    answer = json.loads(ask(handbook, "search", QUESTION, "-k", "3", "--json").stdout)
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3]
    best = answer["hits"][0]
    assert best["score"] > 0.5
    text = (handbook / best["source"]).read_text(encoding="utf-8")
    assert text[slice(*best["span"])] == best["text"]
    assert answer["exact"] is True

    # An unchanged folder is indexed again without loading the model.
    place = ["index", "docs", "-i", "handbook.index", "--model", "all-MiniLM-L6-v2"]
    command = [sys.executable, "-X", "importtime", "-m", "retriever"]
    done = run(*place, cwd=handbook, command=command)
    assert done.returncode == 0
    assert "Nothing to index: " in done.stdout
    imported = set(re.findall(r"\| +(\w+)(?:\.\S*)?$", done.stderr, re.MULTILINE))
    assert imported & HEAVY == set()


def test_a_model_that_is_not_here_is_exit_code_7(tmp_path: Path):
    (tmp_path / "a.txt").write_text("a text")
    done = run("index", "a.txt", "--model", "no-such-model", cwd=tmp_path)
    assert done.returncode == 7
    assert "error: The model 'no-such-model' is not on this machine." in done.stderr
    assert "--download" in done.stderr
    assert not (tmp_path / ".retriever").exists()


@pytest.mark.model
def test_a_question_in_a_fresh_process_imports_no_more_than_it_needs(handbook: Path):
    command = [sys.executable, "-X", "importtime", "-m", "retriever"]
    done = run("search", QUESTION, "-i", "handbook.index", cwd=handbook, command=command)
    assert done.returncode == 0
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert {"numpy", "tokenizers"} <= imported
    assert imported & (HEAVY | {"numpy.ma", "openvino", "rich", "sqlite_utils"}) == set()

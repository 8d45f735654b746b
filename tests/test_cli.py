"""The command line in-process: help, looking, care, searching, errors, the documented schema."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import command_line
import pytest
from click.testing import CliRunner
from collections_in_beir_layout import write_collection
from command_line import error_of, run, run_json
from cross_encoders import save_with_numpy

from retriever import Document, Index
from retriever.cli import failures, main, options
from retriever.encoders.computing import Computing
from retriever.encoders.cross_encoder import load_cross_encoder
from retriever.errors import IndexBusy, RetrieverError, StorageError
from retriever.storage.locking import WriteLock
from retriever.testing import HashEncoder

small_models = command_line.small_models
folder = command_line.folder
index = command_line.index
pytestmark = pytest.mark.usefixtures("small_models")

SCHEMA = Path(failures.__file__).with_name("SCHEMA.md").read_text(encoding="utf-8")
CONTEXT = click.Context(main)
COMMANDS = main.list_commands(CONTEXT)
GROUP = main.get_command(CONTEXT, "eval")
EVALUATING = [f"eval {name}" for name in GROUP.list_commands(CONTEXT)]
SINGLE = [name for name in COMMANDS if name != "eval"]
MAKE_AN_INDEX = ("index", "repair")


def command_of(name: str) -> click.Command:
    group = GROUP if name.startswith("eval ") else main
    return group.get_command(CONTEXT, name.rpartition(" ")[2])


# --- help ------------------------------------------------------------------------------------


def test_help_shows_a_first_session_and_every_command_in_order():
    done = run("-h")
    assert done.exit_code == 0
    assert "retriever index manuals/" in done.stdout
    assert "130  interrupted" in done.stdout
    listed = re.findall(r"^  (\w+)  ", done.stdout.partition("Commands:")[2], re.MULTILINE)
    assert listed == COMMANDS
    assert "..." not in done.stdout.partition("Commands:")[2]


@pytest.mark.parametrize("name", SINGLE + EVALUATING)
def test_every_command_teaches_by_examples_that_parse(name: str):
    command = command_of(name)
    done = run(*name.split(), "--help")
    assert done.exit_code == 0
    assert done.stdout == run(*name.split(), "-h").stdout
    assert isinstance(command, options.Command)
    write_collection(Path("scifact"))
    Path("squad").mkdir()
    for name in ("questions.jsonl", "squad/answers.jsonl"):
        Path(name).touch()
    for example in command.examples:
        assert f"  {example}\n" in done.stdout
        for part in re.split(r"[|<]", example):
            words = shlex.split(part) if "retriever" in part else []
            if words[:1] == ["retriever"]:
                size = 3 if words[1] == "eval" else 2
                parsed = command_of(" ".join(words[1:size]))
                assert parsed.make_context(words[size - 1], words[size:]).params


def test_without_a_command_the_help_goes_to_stderr_with_exit_code_2():
    done = run()
    assert (done.exit_code, done.stdout) == (2, "")
    assert "A first session" in done.stderr


def test_version():
    done = run("--version")
    assert (done.exit_code, done.stderr) == (0, "")
    assert re.fullmatch(r"retriever \d+\.\d+\.\d+\S*\n", done.stdout)


def test_an_unknown_command_is_answered_with_the_nearest():
    done = run("serch", "x")
    assert done.exit_code == 2
    assert "no command 'serch'. Did you mean 'search'?" in done.stderr
    assert "Commands: index, search" in run("xyzzy").stderr


# --- list, status, delete --------------------------------------------------------------------


def test_list_in_its_three_forms(index: Path):
    assert run("list").stdout == ("docs/bees.txt\ndocs/levy.rst\tLevy\ndocs/pump.md\tThe pump\n")
    answer = run_json("list")
    lines = run("list", "--jsonl").stdout.splitlines()
    assert [json.loads(line) for line in lines] == answer["documents"]
    assert (answer["schema"], answer["count"]) == (1, 3)
    assert answer["documents"][2]["characters"] == 48
    assert run("list", "--json", "--jsonl").exit_code == 2


def test_status_names_what_was_left_out(index: Path, folder: Path):
    (folder / "blob.bin").write_bytes(bytes(range(256)))
    (folder / "long.txt").write_text("\n".join(letter * 101 for letter in "abcdefgh"))
    assert run("index", "docs").exit_code == 0
    shown = run("status").stdout
    assert "Documents  4 · 5 chunks" in shown
    assert "Files      4 indexed · 1 skipped · 0 failed" in shown
    assert "hash · 32 dimensions" in shown
    assert re.search(
        r"Tokens +\d+ in the documents · \d+ encoded · 0 truncated · 8 unknown\n", shown
    )
    assert (
        "Files left out:\n  not read: 1 other binary file:\n    docs/blob.bin: is binary" in shown
    )
    assert (
        "Documents in a script that the model does not know:\n  docs/long.txt: 100% of its" in shown
    )
    assert run_json("status")["problem_files"][0]["path"] == "docs/blob.bin"


def test_status_names_the_writer_and_the_cut(folder: Path):
    (folder / "long.txt").write_text("word " * 100)
    assert "68 tokens truncated" in run("index", "docs", "--chunking", "document").stdout
    assert "68 truncated" in run("status").stdout
    lock = WriteLock(Path(".retriever"))
    lock.acquire(1)
    try:
        assert re.search(r"Writer +process \d+ on ", run("status").stdout)
        done = run("delete", "docs/pump.md", "--lock-timeout", "0.05")
    finally:
        lock.release()
    assert done.exit_code == 5
    assert "wait longer with --lock-timeout" in done.stderr


def test_delete(index: Path):
    done = run("delete", "docs/pump.mdx")
    assert done.exit_code == 3
    assert "Did you mean 'docs/pump.md'?" in done.stderr
    assert run("delete", "docs/pump.md", "nix").exit_code == 3
    assert run_json("delete", "docs/pump.md", "nix", "--missing-ok")["deleted"] == 1
    assert run("delete", "docs/bees.txt", "--purge").stdout == "Deleted and purged 1 document.\n"
    assert run("list").stdout == "docs/levy.rst\tLevy\n"
    assert b"swarm hangs" not in (index / "store.db").read_bytes()


# --- care ------------------------------------------------------------------------------------


def test_verify_compact_and_backup_of_a_sound_index(index: Path):
    shown = run("verify", "--deep")
    assert shown.exit_code == 0
    assert shown.stdout.count("✓") == 10
    assert "The index is sound." in shown.stdout
    assert re.match(r"Compacted .*B to .*B; 2 segments written\.", run("compact").stdout)
    assert set(run_json("compact")) >= {"schema", "index", "bytes_before", "bytes_after"}
    assert run_json("verify")["ok"] is True
    assert run("verify", "--quiet").stdout == ""
    assert run("backup", "copy.index").stdout.startswith("Copied 3 documents to /")
    assert run("backup", "copy.index").exit_code == 2
    assert run_json("status", "-i", "copy.index")["documents"] == 3
    assert run("repair").stdout == "Nothing to repair: the index is sound.\n"


def damage(index: Path, text: bytes) -> None:
    """Change a text behind the catalog's back."""
    database = index / "store.db"
    data = database.read_bytes()
    assert text in data
    database.write_bytes(data.replace(text, text.swapcase()))


@pytest.mark.damages
def test_damage_is_found_and_mended(index: Path):
    damage(index, b"The swarm hangs")
    shown = run("verify")
    assert shown.exit_code == 4
    assert "✗ documents" in shown.stdout
    assert "The index is damaged: " in shown.stdout
    assert "/.retriever`" in shown.stdout
    answer = run("verify", "--json")
    assert answer.exit_code == 4
    assert json.loads(answer.stdout)["ok"] is False
    mended = run("repair")
    assert mended.exit_code == 0, mended.stdout
    assert "lost docs/bees.txt: " in mended.stdout
    assert "set aside " in mended.stdout
    assert "The index is sound again." in mended.stdout
    assert run("verify").exit_code == 0
    assert "Losses:" in run("status").stdout
    assert run("index", "docs").exit_code == 0
    assert run_json("list")["count"] == 3


@pytest.mark.damages
def test_an_index_too_damaged_to_open_is_verified_all_the_same(index: Path):
    (index / "HEAD").write_bytes(b"nonsense")
    assert run("status").exit_code == 4
    answer = run("verify", "--json")
    assert answer.exit_code == 4
    report = json.loads(answer.stdout)
    assert [check["name"] for check in report["checks"] if not check["ok"]] == ["head"]
    assert run("repair").exit_code == 0
    assert run("verify").exit_code == 0


@pytest.mark.parametrize("extra", [[], ["--download"]])
def test_repair_fetches_a_model_only_where_it_may(
    index: Path, monkeypatch: pytest.MonkeyPatch, extra: list[str]
):
    asked = []

    def resolve(name: str, *, allow_download: bool, options: object) -> HashEncoder:
        asked.append((name, allow_download))
        return HashEncoder()

    monkeypatch.setattr("retriever.encoders.checkpoint.resolve.resolve_model", resolve)
    assert run("repair", "--model", "hash", *extra).exit_code == 0
    assert asked == [("hash", bool(extra))]


@pytest.mark.damages
def test_lost_commits_need_consent(index: Path, tmp_path: Path):
    store = (index / "store.db").read_bytes()
    with Index.open(index, model=HashEncoder()) as opened:
        opened.add("one more")
    (index / "store.db").write_bytes(store)
    for name in ("store.db-wal", "store.db-shm"):
        (index / name).unlink(missing_ok=True)
    done = run("repair")
    assert done.exit_code == 4
    assert "--accept-loss" in done.stderr
    assert run("repair", "--accept-loss").exit_code == 0
    assert "Losses:" in run("status").stdout


# --- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in SINGLE if name not in MAKE_AN_INDEX])
def test_a_missing_index_is_not_found(name: str, tmp_path: Path):
    argument = {"search": ["x"], "delete": ["x"], "backup": ["x"]}.get(name, [])
    where = ["none.index", "own.index"] if name == "adopt" else ["-i", "none.index"]
    done = run(name, *argument, *where, "--json")
    assert done.exit_code == 3
    assert error_of(done)["code"] == "index_not_found"
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_no_index(folder: Path):
    assert run("status", "-i", "docs").exit_code == 3
    done = run("index", "docs", "-i", "docs")
    assert done.exit_code == 2
    assert "is not an index and is not empty" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["search"],
        ["search", "x", "--nonsense"],
        ["search", "x", "-k", "many"],
        ["search", "x", "--candidates", "5"],
    ],
)
def test_usage_errors(arguments: list[str]):
    done = run(*arguments)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert "See `main search --help`." in done.stderr
    assert error_of(run(*arguments, "--json"))["code"] == "usage_error"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["x", "-k", "0"], "invalid_query"),
        (["x", "-k", "-1"], "invalid_query"),
        (["x", "-k", "1000000000"], "limit_exceeded"),
        (["x", "--rerank", ""], "invalid_query"),
        (["x", "--rerank", "m", "--candidates", "0"], "invalid_query"),
        (["x", "--rerank", "m", "--candidates", "1001"], "limit_exceeded"),
        ([""], "invalid_query"),
        (["-"], "invalid_query"),
    ],
)
def test_queries_that_cannot_be_asked(index: Path, arguments: list[str], code: str):
    done = run("search", *arguments, "--json")
    assert done.exit_code == 2
    assert error_of(done)["code"] == code


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["-v flag"], "-v flag"),
        (["-20 degrees"], "-20 degrees"),
        (["-20", "degrees", "-k", "2"], "-20 degrees"),
        (["-k", "2", "--the name", "of the pump"], "--the name of the pump"),
        (["- an item"], "- an item"),
        (["-k 2"], "-k 2"),
        (["a", "-i means inplace", "b"], "a -i means inplace b"),
        (["--", "-q", "--json"], "-q --json"),
        (["-qk", "2", "pump"], "pump"),
        (["-vi", "-my index", "pump"], "pump"),
        (["--index=-my index", "pump"], "pump"),
        (["-i-my index", "pump"], "pump"),
        (["-i", "-my index", "--", "pump", "-k"], "pump -k"),
    ],
)
def test_a_question_may_begin_with_a_dash(index: Path, arguments: list[str], asked: str):
    assert run("backup", "--", "-my index").exit_code == 0
    assert json.loads(run("search", "--json", *arguments).stdout)["query"] == asked


@pytest.mark.parametrize("word", ["--pump", "-x", "-pump"])
def test_one_word_that_is_no_option_is_answered_with_the_way_out(index: Path, word: str):
    done = run("search", word)
    assert done.exit_code == 2
    assert "hint: Put -- before it if it is not meant as an option." in done.stderr
    assert json.loads(run("search", "--json", "--", word).stdout)["query"] == word
    assert "Put --" not in run("status", word).stderr


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("index man", "file"),
        ("index manuals/ -q man", "file"),
        ("backup man", "file"),
        ("delete man", "file"),
        ("search x --rerank man", "file"),
        ("index --model man", "file"),
        ("status -i man", "dir"),
    ],
)
def test_the_shell_completes_names_of_files(line: str, kind: str):
    words = f"retriever {line}"
    variables = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    runner = CliRunner(env={**variables, "_RETRIEVER_COMPLETE": "bash_complete"})
    assert runner.invoke(main, prog_name="retriever").stdout == f"{kind},man\n"


def exit_codes() -> Iterator[tuple[type[RetrieverError], int]]:
    kinds = [RetrieverError]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        yield kind, kind.exit_code


def test_exit_codes_are_those_of_the_help():
    codes = {code for _, code in exit_codes()}
    listed = {int(code) for code in re.findall(r"^ *(\d+)  |  (?=\d)", run("-h").stdout) if code}
    assert codes == {2, 3, 4, 5, 6, 7, 8, 130}
    assert listed <= codes | {0, 1}


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make `status` fail in a given way."""

    def fail(exc: BaseException) -> None:
        def callback(*_: object, **__: object) -> None:
            raise exc

        monkeypatch.setattr(main.get_command(CONTEXT, "status"), "callback", callback)

    return fail


def test_a_bug_is_one_line_and_a_traceback_only_when_verbose(failing: Any):
    failing(ZeroDivisionError("by \x1b[31mzero"))
    done = run("status")
    assert done.exit_code == failures.BUG == 70
    assert done.stderr.startswith("error: Unexpected ZeroDivisionError: by ␛[31mzero\nhint: ")
    assert "Traceback" not in done.stderr
    assert "Traceback" in run("status", "--verbose").stderr
    assert error_of(run("status", "--json"))["code"] == "bug"


@pytest.mark.parametrize(
    ("exc", "code", "says"),
    [
        (RetrieverError("Nothing fits."), 8, "error: Nothing fits.\n"),
        (StorageError("The database cannot be read."), 8, "cannot be read.\n"),
        (IndexBusy("The database is busy."), 5, "is busy.\n"),
        (PermissionError(13, "Permission denied", "/x"), 8, "'/x' cannot be used: Permission d"),
        (BrokenPipeError(32, "Broken pipe"), 8, "A file or stream cannot be used: Broken pipe."),
        (click.Abort(), 130, "error: Interrupted.\n"),
        (click.FileError("x", "no such file"), 2, "no such file"),
        (ValueError("odd"), 70, "Unexpected ValueError: odd"),
    ],
)
def test_no_error_shares_the_exit_code_of_an_answer(
    failing: Any, exc: Exception, code: int, says: str
):
    failing(exc)
    done = run("status")
    assert done.exit_code == code
    assert says in done.stderr
    assert done.stdout == ""


def test_an_error_is_json_only_where_the_output_was_to_be(index: Path):
    for arguments in (["index", "-", "--jsonl"], ["search", "--nonsense", "--", "--json"]):
        done = run(*arguments, stdin='{"text": 5}\n{"text": "x", "pages": 1}')
        assert not done.stderr.startswith("{"), done.stderr
    for arguments in (["list", "--jsonl"], ["search", "x", "--jsonl"], ["index", "-", "--json"]):
        assert error_of(run(*arguments, "--nonsense"))["code"] == "usage_error"


def test_standalone_mode_returns_the_code():
    assert main.main(["status", "-q"], standalone_mode=False) == 3
    with pytest.raises(SystemExit) as stopped:
        main(["status", "-q"])
    assert stopped.value.code == 3


# --- schema ----------------------------------------------------------------------------------


def documented(section: str) -> set[str]:
    """Return the fields in the first column of a section's table, or row of the last table."""
    body = re.search(rf"^#+ {re.escape(section)}\n(.*?)(?=^#|\Z)", SCHEMA, re.MULTILINE | re.DOTALL)
    assert body is not None
    rows = re.findall(r"^\| (`.*?) \|", body[1], re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_every_answer_has_the_documented_fields(folder: Path):
    (folder / "blob.bin").write_bytes(bytes(range(256)))
    report = documented("`index`, `rebuild`, `adopt`") | {"schema", "index"}
    assert set(run_json("index", "docs")) == report | {"paths", "created"}
    assert set(run_json("rebuild")) == report
    (document, *_) = run_json("list")["documents"]
    assert set(document) == documented("`list`")
    assert set(run_json("status")) == documented("`status`") | {"schema"}
    assert set(run_json("verify")) == documented("`verify`") | {"schema"}
    assert set(run_json("repair")) == documented("`repair`") | {"schema"}
    for command, argument in (("delete", "docs/pump.md"), ("compact", ""), ("backup", "copy")):
        answer = run_json(command, *filter(None, [argument]))
        row = re.search(rf"^\| `{command}` \| (.*) \|", SCHEMA, re.MULTILINE)
        assert row is not None
        assert set(answer) == set(re.findall(r"`(\w+)`", row[1])) | {"schema", "index"}


def test_the_documented_error_is_the_one_printed():
    done = run("status", "--json")
    assert set(error_of(done)) == documented("Errors") - {"report", "usage_error"} - {
        "index_not_found"
    }


def test_search_answers_with_the_documented_fields(index: Path):
    answer = run_json("search", "prime", "the", "pump", "-k", "2")
    head = re.search(r"## `search`\n`\{(.*)\}`", SCHEMA)
    assert head is not None
    assert set(answer) == set(re.findall(r'"(\w+)"', head[1]))
    assert (answer["query"], answer["k"], answer["exact"]) == ("prime the pump", 2, True)
    assert set(answer["hits"][0]) == documented("Hit")
    assert answer["hits"][0]["citation"] == "docs/pump.md:1"
    lines = run("search", "prime the pump", "-k", "2", "--jsonl").stdout.splitlines()
    assert [json.loads(line) for line in lines] == answer["hits"]
    asked = run_json("search", "-", "-k", "2", stdin="prime the pump\n")
    assert asked["hits"] == answer["hits"]


def test_search_for_people(index: Path):
    done = run("search", "prime the pump", "-k", "1")
    assert done.exit_code == 0
    assert re.fullmatch(
        r" 1  0\.\d{3}  docs/pump\.md:1\n    The pump\n    Prime the pump before you start it\.\n",
        done.stdout,
    )
    assert "    # The pump\n\n    Prime the" in run("search", "prime", "--full").stdout
    verbose = run("search", "prime the pump", "-k", "1", "--verbose")
    assert "1 hit; " in verbose.stderr
    assert run("search", "x", "--json", "--jsonl").exit_code == 2


def test_group_gives_each_document_once(index: Path):
    with Index.open(index, model=HashEncoder()) as opened:
        opened.add(Document("pump. " * 200, id="long"))
    assert len(run_json("search", "pump", "-k", "9", "--no-fold")["hits"]) == 9
    folded = run_json("search", "pump", "-k", "9")
    assert folded["fold"]
    assert sorted(hit["duplicates"] for hit in folded["hits"])[-1] > 3
    hits = run_json("search", "pump", "-k", "9", "--group", "document")["hits"]
    assert sorted(hit["document_id"] for hit in hits) == [
        "docs/bees.txt",
        "docs/levy.rst",
        "docs/pump.md",
        "long",
    ]


def test_rerank_puts_passages_in_the_order_of_a_cross_encoder(index: Path, tmp_path: Path):
    model = save_with_numpy(tmp_path / "models" / "tiny")
    plain = run_json("search", "prime the pump")
    assert (plain["rerank"], plain["candidates"]) == (None, None)
    options = ("--rerank", "models/tiny", "--candidates", "20", "--precision", "float32")
    answer = run_json("search", "prime the pump", *options)
    assert set(answer) == set(plain)
    assert (answer["rerank"], answer["candidates"]) == ("models/tiny", 20)
    assert answer["timings"].keys() - plain["timings"].keys() == {"rerank_s"}
    assert answer["plan"].endswith("; reranked 3 by models/tiny")
    texts = {hit["citation"]: hit["text"] for hit in plain["hits"]}
    encoder = load_cross_encoder(model, Computing(precision="float32"))
    wanted = dict(zip(texts, encoder.score("prime the pump", list(texts.values())), strict=True))
    assert [hit["citation"] for hit in answer["hits"]] == sorted(
        wanted, key=lambda citation: -wanted[citation]
    )
    for rank, hit in enumerate(answer["hits"], 1):
        assert hit["rank"] == rank
        assert set(hit["scores"]) == {"dense", "lexical", "fused", "rerank"}
        assert (
            hit["score"]
            == hit["scores"]["rerank"]
            == pytest.approx(float(wanted[hit["citation"]]), abs=1e-6)
        )
    printed = run("search", "prime the pump", "-k", "1", *options, "--verbose")
    assert printed.stdout.startswith(f" 1  {answer['hits'][0]['score']:.3f}  ")
    assert "reranked 3 by models/tiny; " in printed.stderr
    missing = run("search", "x", "--rerank", "models/none", "--json")
    assert (missing.exit_code, error_of(missing)["code"]) == (7, "model_unavailable")


def test_nothing_found_is_exit_code_1(tmp_path: Path):
    Index.open(tmp_path / ".retriever", model=HashEncoder()).close()
    done = run("search", "anything")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "Nothing found: the index contains no text.\n"
    answer = run("search", "anything", "--json")
    assert (answer.exit_code, json.loads(answer.stdout)["hits"]) == (1, [])


def test_every_command_has_the_common_options():
    without = ("adopt", "eval runs", "eval compare")  # adopt names two, as arguments
    for name in SINGLE + EVALUATING:
        command = command_of(name)
        names = {o for p in command.params if isinstance(p, click.Option) for o in p.opts}
        assert names >= {"--json", "-v", "--verbose", "-q", "--quiet"}, name
        assert (names >= {"-i", "--index"}) == (name not in without), name

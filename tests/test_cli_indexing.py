"""The command line in-process: what changes an index, and documents from standard input."""

from __future__ import annotations

from pathlib import Path

import command_line
import pytest
from command_line import cli_runner, error_of, run, run_json
from support import HashEncoder

from retriever import Index
from retriever.cli import main, options
from retriever.encoders.plugged import plug

small_models = command_line.small_models
folder = command_line.folder
index = command_line.index
pytestmark = pytest.mark.usefixtures("small_models")


# --- index -----------------------------------------------------------------------------------


def test_index_creates_an_index_and_then_reads_only_what_changed(folder: Path):
    first = run("index", "docs")
    assert first.exit_code == 0, first.stderr
    assert "Created .retriever." in first.stdout
    assert "3 documents added in" in first.stdout
    assert first.stderr == ""
    assert "Nothing to index: 3 files unchanged." in run("index", "docs").stdout
    (folder / "pump.md").write_text("# The pump\n\nNever prime it.\n")
    (folder / "bees.txt").unlink()
    changed = run("index", "docs")
    assert "1 document replaced in" in changed.stdout
    assert "1 file gone from disk but kept in the index; --prune removes them" in changed.stdout
    assert "1 document removed in" in run("index", "docs", "--prune").stdout
    assert [d["id"] for d in run_json("list")["documents"]] == ["docs/levy.rst", "docs/pump.md"]


def test_index_json_is_the_report(folder: Path):
    (folder / "blob.bin").write_bytes(bytes(range(256)))
    answer = run_json("index", "docs")
    assert (answer["schema"], answer["index"], answer["paths"]) == (1, ".retriever", ["docs"])
    assert (answer["created"], answer["added"], answer["failed"]) == (True, 3, [])
    (skipped,) = answer["skipped"]
    assert (skipped["path"], skipped["state"]) == ("docs/blob.bin", "skipped")
    assert run_json("index", "docs")["created"] is False


def test_a_bad_file_is_listed_and_matters_only_under_strict(folder: Path):
    (folder / "big.txt").write_text("word " * 400)
    done = run("index", "docs", "--max-file-size", "1kB")
    assert done.exit_code == 0
    assert (
        "  not read: 1 file over the size limit:\n    docs/big.txt: 2,000 bytes, over"
        in done.stdout
    )
    assert run("index", "docs", "--max-file-size", "1kB", "--strict").exit_code == 6
    assert run("index", "docs", "--max-file-size", "1MB", "--strict").exit_code == 0
    assert run("index", "docs", "--strict", "--quiet").stdout == ""


def test_what_is_not_read_is_counted_by_kind_and_what_failed_is_listed(folder: Path):
    for number in range(12):
        (folder / f"{number}.html").write_text("<p>x")
    for number in range(27):
        (folder / f"{number}.pdf").write_bytes(b"%PDF-1.7")
        (folder / f"broken-{number}.txt").write_bytes(b"\xff\xfe\x00\xd8x")
    (folder / "only.ipynb").write_text("{}")
    done = run("index", "docs")
    assert done.exit_code == 0
    counts = "not read: 27 PDF, 12 HTML, 1 notebook"
    assert f"\n  {counts} (`retriever status -v` lists them)\n" in done.stdout
    assert ".html" not in done.stdout
    assert "\n  27 files failed:\n    docs/broken-0.txt: begins with the mark of UTF" in done.stdout
    assert done.stdout.count("docs/broken-") == 20
    assert "\n    and 7 more: `retriever status -v` lists them\n" in done.stdout
    assert run("index", "docs", "-v").stderr.count(".pdf: is PDF, which no parser reads yet.") == 27
    shown = run("status").stdout
    assert counts in shown
    assert (shown.count("docs/broken-"), shown.count(".pdf")) == (27, 0)
    shown = run("status", "-v").stdout
    assert (shown.count("docs/broken-"), shown.count(".pdf")) == (27, 27)
    for left_out in run_json("status")["problem_files"]:
        assert left_out["path"] not in left_out["reason"]
    answer = run_json("index", "docs")
    assert (len(answer["skipped"]), len(answer["failed"])) == (40, 27)


def test_a_script_that_the_model_does_not_know_is_said_at_once(folder: Path):
    (folder / "long.txt").write_text("\n".join(letter * 101 for letter in "abcdefgh"))
    done = run("index", "docs")
    assert "1 document in a script or language that the model hardly knows" in done.stdout
    answer = run_json("rebuild")
    assert [one["document_id"] for one in answer["unfamiliar"]] == ["docs/long.txt"]


@pytest.mark.parametrize(
    ("text", "number"),
    [("500", 500), ("100MB", 10**8), ("1.5gb", 15 * 10**8), ("2 KiB", 2048), ("3M", 3 * 10**6)],
)
def test_sizes(text: str, number: int):
    assert options.Size().convert(text, None, None) == number


@pytest.mark.parametrize("text", ["", "MB", "-1", "1 parsec", "1e9"])
def test_what_is_no_size(text: str, folder: Path):
    done = run("index", "docs", "--max-file-size", text)
    assert done.exit_code == 2
    assert "is not a size; write 500kB" in done.stderr


def test_a_path_that_is_not_there_is_not_found_and_leaves_no_index(tmp_path: Path):
    done = run("index", "dosc")
    assert done.exit_code == 3
    assert "'dosc' cannot be read: No such file or directory." in done.stderr
    assert run("index", ".", "--glob", "*.{md").exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_the_index_is_named_by_option_or_environment(folder: Path, tmp_path: Path):
    assert run("index", "docs", "-i", "one.index").exit_code == 0
    assert run_json("status", "--index", "one.index")["documents"] == 3
    named = cli_runner(env={"RETRIEVER_INDEX": str(tmp_path / "one.index")})
    assert named.invoke(main, ["status"]).exit_code == 0
    assert run("status").exit_code == 3


def test_chunk_options_are_kept_and_compared_only_when_given(folder: Path):
    assert run("index", "docs", "--chunk-tokens", "16", "--overlap", "2").exit_code == 0
    assert run("index", "docs").exit_code == 0
    assert run("index", "docs", "--overlap", "2").exit_code == 0
    for changed in (["--overlap", "3"], ["--chunking", "document"], ["--prefix-headings"]):
        done = run("index", "docs", *changed)
        assert done.exit_code == 2
        assert "was created with chunking" in done.stderr
        assert "retriever rebuild" in done.stderr
    assert run("index", "docs", "-i", "b", "--chunk-tokens", "16", "--overlap", "9").exit_code == 2


def test_rebuild_changes_only_the_options_given(index: Path):
    answer = run_json("rebuild", "--overlap", "2")
    assert (answer["replaced"], answer["index"]) == (3, ".retriever")
    assert run_json("status")["chunking"]["overlap"] == 2
    assert run("rebuild", "--chunk-tokens", "16").stdout.startswith("3 documents rebuilt in")
    found = run_json("status")["chunking"]
    assert found == {"unit": "window", "tokens": 16, "overlap": 4, "prefix_headings": False}
    assert run("rebuild", "--chunking", "document").exit_code == 0
    assert run_json("status")["chunking"]["unit"] == "document"


def test_another_model_is_refused(index: Path, monkeypatch: pytest.MonkeyPatch):
    other = plug(HashEncoder(salt="other"))
    monkeypatch.setattr("retriever.encoders.bi_encoder.load_encoder", lambda *_, **__: other)
    (index.parent / "docs" / "new.txt").write_text("A new file.")
    done = run("index", "docs", "--json")
    assert done.exit_code == 7
    assert error_of(done)["code"] == "model_mismatch"


# --- standard input --------------------------------------------------------------------------

LINES = '\n{"text": "one", "id": "a", "metadata": {"year": 2024}}\n\n{"text": "two", "id": "b"}\n'


@pytest.mark.parametrize("extra", [[], ["--jsonl"]])
def test_json_lines_are_one_document_each(extra: list[str]):
    assert run_json("index", "-", *extra, stdin=LINES)["added"] == 2
    documents = run_json("list")["documents"]
    assert [d["id"] for d in documents] == ["a", "b"]
    assert documents[0]["metadata"] == {"year": 2024}


@pytest.mark.parametrize("text", ["plain\nwords", '{"not": "a document"}', "{\n broken", LINES])
def test_anything_else_is_one_text(text: str):
    arguments = ["--text"] if text is LINES else []
    assert run("index", "-", "--id", "x", *arguments, stdin=text).exit_code == 0
    with Index.open(".retriever") as opened:
        document = opened.get("x")
    assert document is not None
    assert document.text == text


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("{oops", "Line 5: not JSON"),
        ("[1]", "Line 5: a list, not an object"),
        ('{"txt": "x"}', "Line 5: Document 2 has an unknown field 'txt'"),
        ('{"text": 7}', "Line 5: The text of Document 2 is a int"),
        ('{"text": "x", "id": "a"}', "Line 5: Documents 0 and 2 of this call have the same id 'a'"),
        ('{"text": "x", "metadata": {"a": NaN}}', "Line 5: 'a' in the metadata"),
        ('{"text": "\\ud800"}', "Line 5: The text of Document 2 holds a lone surrogate"),
        ('{"text": "x", "embedding": [1, 2]}', "Line 5: The embedding of Document 2"),
        ('{"text": "x", "pages": ["?"]}', "Line 5: unknown field 'pages'"),
        ("[" * 100_000, "Line 5: not JSON"),
    ],
)
def test_a_bad_line_is_named(bad: str, says: str):
    done = run("index", "-", stdin=LINES + bad)
    assert done.exit_code == 2
    assert f"error: {says}" in done.stderr
    assert "Nothing was committed." in done.stderr
    assert "hint: " in done.stderr


def test_a_line_in_another_encoding_is_named():
    done = run("index", "-", "--jsonl", stdin=b'{"text": "na\xefve"}')
    assert done.exit_code == 2
    assert "Line 1: not UTF-8 at byte 13." in done.stderr


@pytest.mark.parametrize(
    ("stdin", "says"), [(b"", "is empty"), (b" \n", "is empty"), (bytes(range(32)), "binary")]
)
def test_standard_input_that_is_no_text(stdin: bytes, says: str):
    done = run("index", "-", stdin=stdin)
    assert done.exit_code == 2
    assert says in done.stderr
    assert run_json("index", "-", "--jsonl")["added"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["-", "docs"],
        ["docs", "--jsonl"],
        ["docs", "--id", "x"],
        ["-", "--prune"],
        ["-", "--glob", "*"],
        ["-", "--jsonl", "--id", "x"],
    ],
)
def test_options_that_make_no_sense_together(arguments: list[str], folder: Path, tmp_path: Path):
    assert run("index", *arguments, stdin="x").exit_code == 2
    assert not (tmp_path / ".retriever").exists()

"""The command line in-process: what changes an index, and documents from standard input."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import command_line
import pytest
from command_line import cli_runner, error_of, run, run_json
from hypothesis import given
from hypothesis import strategies as st

from retriever import Index
from retriever.cli import json_input, main, options
from retriever.cli.standard_input import StandardInput
from retriever.encoders.plugged import plug
from retriever.testing import HashEncoder

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
    assert "1 document replaced in" in changed.stdout, changed.stderr
    assert "1 file missing from disk but kept in the index; --prune removes it" in changed.stdout
    pruned = run("index", "docs", "--prune").stdout
    assert "1 document removed in" in pruned
    assert "token" not in pruned
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
    assert found == {
        "unit": "window",
        "tokens": 16,
        "overlap": 0,
        "prefix_headings": False,
        "prefix_title": False,
    }
    assert run("rebuild", "--prefix-title").exit_code == 0
    assert run_json("status")["chunking"] == {**found, "prefix_title": True}
    assert run("rebuild", "--chunking", "document").exit_code == 0
    assert run_json("status")["chunking"]["unit"] == "document"


def test_another_model_is_refused(index: Path, monkeypatch: pytest.MonkeyPatch):
    other = plug(HashEncoder(salt="other"))
    monkeypatch.setattr("retriever.encoders.bi_encoder.load_encoder", lambda *_, **__: other)
    (index.parent / "docs" / "new.txt").write_text("A new file.")
    done = run("index", "docs", "--json")
    assert done.exit_code == 7
    assert error_of(done)["code"] == "model_mismatch"


def test_an_index_without_a_model_is_said_to_be_new_once():
    line = '{"id": "a", "text": "x", "embedding": [1, 0]}\n'
    made = ("index", "-", "--dimension", "2", "-i", "vectors.index")
    both = run(*made, "--model", "hash", stdin=line)
    assert both.exit_code == 2
    assert not Path("vectors.index").exists()
    assert [run_json(*made, stdin=line)["created"] for _ in range(2)] == [True, False]
    other = run("index", "-", "--dimension", "3", "-i", "vectors.index", stdin=line)
    assert "holds vectors of 2 numbers, not of 3" in other.stderr


# --- standard input --------------------------------------------------------------------------

LINES = '\n{"text": "one", "id": "a", "metadata": {"year": 2024}}\n\n{"text": "two", "id": "b"}\n'
OBJECTS = [json.loads(line) for line in LINES.split("\n") if line]
ARRAY = json.dumps(OBJECTS)
FORMS = {
    "JSON Lines": [LINES, f"\ufeff{LINES}"],
    "an array of JSON objects": [
        ARRAY,
        f"\ufeff {ARRAY}",
        json.dumps(OBJECTS, indent=1),
        f"[\n\n{ARRAY[1:]}",
        "\n".join(json.dumps([one]) for one in OBJECTS),
    ],
    "JSON objects one after another": [
        "\n".join(json.dumps(one, indent=2) for one in OBJECTS),
        "".join(map(json.dumps, OBJECTS)),
        "\n\n".join(json.dumps(one, indent=2) for one in OBJECTS) + "\n",
        ",\n".join(map(json.dumps, OBJECTS)),
        "".join(map(json.dumps, OBJECTS)) + "\n" + json.dumps(OBJECTS[0]),
    ],
}


@pytest.mark.parametrize("extra", [[], ["--jsonl"]])
@pytest.mark.parametrize(
    ("form", "text"), [(form, text) for form, texts in FORMS.items() for text in texts]
)
def test_json_is_read_in_all_its_forms_and_the_form_is_said(form: str, text: str, extra: list[str]):
    done = run("index", "-", *extra, "--json", stdin=text)
    assert json.loads(done.stdout)["added"] == 2
    is_named = extra and form == "JSON Lines"
    assert done.stderr == ("" if is_named else f"Reading standard input as {form}.\n")
    documents = run_json("list")["documents"]
    assert [d["id"] for d in documents] == ["a", "b"]
    assert documents[0]["metadata"] == {"year": 2024}
    assert run("index", "-", "-q", stdin=text).stderr == ""


@pytest.mark.parametrize("pad", [0, 1 << 16, 200_000])
@pytest.mark.parametrize("exactly", [False, True])
def test_a_first_line_may_be_of_any_length(pad: int, exactly: bool):
    first = {"text": "The pump is red.", "id": "a", "metadata": {"pad": ""}}
    if exactly:
        pad -= len(json.dumps(first))
    first["metadata"]["pad"] = "x" * pad
    done = run("index", "-", "--json", stdin=f"{json.dumps(first)}\n{json.dumps(OBJECTS[1])}\n")
    report = json.loads(done.stdout)
    assert (report["added"], report["failed"]) == (2, [])


@pytest.mark.parametrize(
    "text",
    [
        "plain\nwords",
        "{\n broken",
        "[1] Smith 2004",
        "[ ] to do\n[x] done\n",
        '["a", "b"]',
        '{ "so" she said }',
        LINES,
    ],
)
def test_anything_else_is_one_text(text: str):
    arguments = ["--text"] if text is LINES else []
    done = run("index", "-", "--id", "x", *arguments, stdin=text)
    assert done.exit_code == 0
    assert done.stderr == ("" if arguments else "Reading standard input as one text.\n")
    with Index.open(".retriever") as opened:
        document = opened.get("x")
    assert document is not None
    assert document.text == text


FOREIGN = [
    {"id": 1, "content": "The pump is red.", "url": "https://x.org/1", "metadata": {"year": 2024}},
    {"id": 2, "content": "Bees swarm.", "price": 3.5},
]


@pytest.mark.parametrize(
    "text",
    ["\n".join(map(json.dumps, FOREIGN)), json.dumps(FOREIGN), json.dumps(FOREIGN[0], indent=2)],
)
def test_another_name_of_the_text_is_asked_for(text: str):
    done = run("index", "-", stdin=text)
    assert done.exit_code == 2
    assert "the first has no field 'text': it has id, content, " in done.stderr
    assert "--text-field" in done.stderr
    assert run_json("list")["count"] == 0
    assert run("index", "-", "--text-field", "body", stdin=text).exit_code == 2
    assert run("index", "-", "--text-field", "content", stdin=text).exit_code == 0
    with Index.open(".retriever") as opened:
        document = opened.get("1")
    assert document is not None
    assert document.text == "The pump is red."
    assert document.metadata == {"url": "https://x.org/1", "year": 2024}


BAD_LINES = [
    ("{oops", "not JSON"),
    ('{"text": "cut of', "not JSON"),
    ("[1]", "an array, not an object"),
    ("7", "a number, not an object"),
    ('{"txt": "x"}', "unknown field 'txt'. Did you mean 'text'?"),
    ('{"id": "c"}', "has no 'text'"),
    ('{"text": 7}', "the field 'text' is a number, not a string."),
    ('{"text": null}', "the field 'text' is null, not a string."),
    ('{"text": "x", "id": true}', "has the id True"),
    ('{"text": "x", "metadata": {"a": NaN}}', "'a' in the metadata"),
    ('{"text": "x", "metadata": {"a": 1e999}}', "'a' in the metadata"),
    ('{"text": "\\ud800"}', "holds a lone surrogate"),
    ('{"text": "x", "embedding": [1, 2]}', "The embedding of this object"),
    (
        f'{{"text": "x", "embedding": [{"9" * 400}, {"1, " * 30} 1]}}',
        "The embedding of this object",
    ),
    (f'{{"text": "x", "metadata": {{"n": {"9" * 5000}}}}}', "not JSON"),
    ('{"text": "x", "pages": ["?"]}', "The pages of this object"),
    ("[" * 100_000, "not JSON"),
    (b'{"text": "na\xefve"}', "not UTF-8 at byte 13."),
]


@pytest.mark.parametrize(("bad", "says"), BAD_LINES)
def test_a_bad_line_costs_itself_and_is_named(bad: str | bytes, says: str):
    line = bad if isinstance(bad, bytes) else bad.encode()
    stdin = LINES.encode() + line + b'\n{"text": "three", "id": "c"}'
    done = run("index", "-", "--json", stdin=stdin)
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    assert report["added"] == 3
    (failed,) = report["failed"]
    assert (failed["path"], failed["state"]) == ("line 5", "failed")
    assert says in failed["reason"]
    again = run("index", "-", "--strict", stdin=stdin)
    assert again.exit_code == 6
    assert "  1 line failed:\n    line 5: " in again.stdout
    stopped = run("index", "-", "--on-error", "stop", stdin=stdin)
    assert stopped.exit_code == 2
    assert re.search(r"error: Line 5: .*" + re.escape(says.split(". Did")[0]), stopped.stderr)
    assert "Nothing was committed." in stopped.stderr
    assert "hint: " in stopped.stderr


def test_an_id_that_comes_twice_costs_the_second(index: Path):
    done = run(
        "index", "-", "--json", stdin=LINES + '{"text": "x", "id": "a"}\n{"text": "c", "id": 3}'
    )
    report = json.loads(done.stdout)
    assert report["added"] == 3
    reason = report["failed"][0]["reason"]
    assert reason.startswith(
        "This object and an earlier one have the same id 'a' and other content."
    )
    with Index.open(index) as opened:
        assert opened.get("a").text == "one"
        assert opened.get("3").text == "c"


def test_bad_objects_of_an_array_cost_themselves():
    good = [{"text": f"Note {number}", "id": str(number)} for number in range(3)]
    first, second, third = json.dumps(good[0]), json.dumps(good[1], indent=1), json.dumps(good[2])
    array = f'[{first},\n 7, {{"text": nul}},\n{second}, {third}'
    report = run_json("index", "-", stdin=array)
    assert report["added"] == 3
    assert [failed["path"] for failed in report["failed"]] == [
        "object 2, line 2",
        "object 3, line 2",
        "object 6, line 6",
    ]
    assert "a number, not an object" in report["failed"][0]["reason"]
    assert "cut off" in report["failed"][2]["reason"]
    cut = json.dumps(good, indent=2)[:-30]
    assert run_json("index", "-", stdin=cut)["unchanged"] == 2


@pytest.mark.parametrize("stdin", ['{"text": 5}', '{"text": 5}\n{"text": null}\n', '[{"text": 1}]'])
def test_input_of_which_nothing_is_usable_is_an_error(stdin: str):
    done = run("index", "-", "--jsonl", stdin=stdin)
    assert done.exit_code == 2
    assert re.search(
        r"error: (Line 1|Object 1, line 1): the field 'text' is (a number|null), not", done.stderr
    )


def test_the_list_of_bad_lines_is_bounded():
    lines = "\n".join(['{"text": "one"}', *["{}"] * 1_069])
    report = run_json("index", "-", stdin=lines)
    assert (report["added"], len(report["failed"])) == (1, 1_001)
    assert report["failed"][-1]["reason"] == "69 more failed; their reasons are not listed."
    shown = run("index", "-", stdin=lines).stdout
    assert shown.count("    line ") == 20
    assert "    and 981 more: --json lists them all" in shown


@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=3),
            st.recursive(
                st.text(alphabet='a{}[]"\\,\n€', max_size=6) | st.integers() | st.none(),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.text(max_size=2), inner, max_size=3)
                ),
                max_leaves=6,
            ),
            max_size=4,
        ),
        max_size=6,
    ),
    st.integers(min_value=1, max_value=40),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_objects_are_cut_out_of_any_blocks(
    objects: list[dict[str, object]], size: int, indent: int | None, in_array: bool
):
    text = (
        json.dumps(objects, indent=indent, ensure_ascii=False)
        if in_array
        else "\n".join(json.dumps(one, indent=indent, ensure_ascii=False) for one in objects)
    )
    data = text.encode()
    blocks = [data[start : start + size] for start in range(0, len(data), size)]
    pieces = list(json_input.objects(blocks, in_array=in_array))
    assert [json.loads(piece.data) for piece in pieces] == objects
    for piece in pieces:
        first = data.split(b"\n")[piece.line - 1]
        assert piece.data.split(b"\n")[0] in first


def test_a_long_array_is_read_as_it_comes(tmp_path: Path):
    """Only the object in hand, and a block, is in memory."""
    read = 0

    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:
            nonlocal read
            text = b'{"text": "x"},' * (len(buffer) // 14) or b" "
            text = b"[" + text[:-1] if read == 0 else text
            buffer[: len(text)] = text
            read += len(text)
            return len(text)

    source = StandardInput(io.BufferedReader(Endless()), form=None, document_id=None, quiet=True)
    documents = source._read()
    assert [next(documents)["text"] for _ in range(3)] == ["x"] * 3
    assert read < 1_000_000


@pytest.mark.parametrize(
    ("stdin", "says"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (bytes(range(32)), "binary"),
        ("\ufeff" + LINES.strip(), "looks like JSON in utf-16"),
    ],
)
def test_standard_input_that_is_no_text(stdin: bytes | str, says: str):
    data = stdin if isinstance(stdin, bytes) else stdin.encode("utf-16-le")
    done = run("index", "-", stdin=data)
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
        ["-", "--text", "--text-field", "x"],
        ["-", "--text", "--on-error", "skip"],
        ["-", "--text-field", ""],
        ["docs", "--text-field", "x"],
        ["docs", "--on-error", "stop"],
    ],
)
def test_options_that_make_no_sense_together(arguments: list[str], folder: Path, tmp_path: Path):
    assert run("index", *arguments, stdin="x").exit_code == 2
    assert not (tmp_path / ".retriever").exists()


def test_equal_documents_of_standard_input_are_counted_as_documents(index: Path):
    text = '{"text": "See chapter 2."}\n{"text": "The pump is red."}\n{"text": "See chapter 2."}\n'
    assert "1 document unchanged" in run("index", "-", stdin=text).stdout
    assert "Nothing to index: 3 documents unchanged." in run("index", "-", stdin=text).stdout

"""What the command line prints of a text: nothing hidden, nothing wider than the terminal."""

from __future__ import annotations

import io
import json
import time

import pytest
from click import unstyle
from hypothesis import given
from hypothesis import strategies as st

from retriever import Hit, Progress, Results, Span
from retriever.cli import bars, inspect, output, passages, searching

HOSTILE = "\x1b[2J\x1b]0;owned\x07 \x9b31m \u202eevil\u2066 z\u200bw\U000e0041 \u2028 a\rb \x7f"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31mred\x07", "␛[31mred␇"),
        ("\x9b2J\x7f", "<U+009B>2J␡"),
        ("a\u202eb\u2069c\u200f", "a<U+202E>b<U+2069>c<U+200F>"),
        ("a\u200bb\ufeffc\u2060\xad", "a<U+200B>b<U+FEFF>c<U+2060><U+00AD>"),
        ("x\U000e0041\U000e0100", "x<U+E0041><U+E0100>"),
        ("one\r\ntwo\rthree\n\tfour", "one\ntwo␍three\n\tfour"),
        ("a\u2028b\u0085c\x0bd", "a<U+2028>b<U+0085>c␋d"),
        ("☀\ufe0f ok, ☀\ufe0f\ufe01 hides", "☀\ufe0f ok, ☀\ufe0f<U+FE01> hides"),
        ("Çà et là, größer, 日本語, हिन्दी, عربى", "Çà et là, größer, 日本語, हिन्दी, عربى"),
    ],
)
def test_hidden_characters_are_shown_by_name(raw: str, shown: str):
    assert output.visible(raw) == shown


@given(st.text(st.characters(codec=None, categories=None)))
def test_visible_text_can_be_shown_as_it_is(text: str):
    shown = output.visible(text)
    assert output.visible(shown) == shown
    assert all(letter >= " " or letter in "\n\t" for letter in shown)
    shown.encode()


@given(st.text(st.characters(codec="utf-8")))
def test_json_is_safe_on_a_terminal_and_says_the_same(text: str):
    printed = output.to_json({"text": text})
    assert json.loads(printed) == {"text": text}
    assert output.visible(printed) == printed
    assert "\n" not in printed


@pytest.mark.parametrize(
    ("text", "columns"), [("abc", 3), ("größe", 5), ("日本", 4), ("e\u0301", 1), ("🐝", 2), ("", 0)]
)
def test_cells(text: str, columns: int):
    assert passages.cells(text) == columns


@given(st.text(alphabet="ab 日\u0301", max_size=80), st.integers(min_value=2, max_value=30))
def test_wrapping_keeps_every_word_and_the_width(text: str, width: int):
    text = output.in_one_line(text)
    lines = list(passages.wrap(text, width))
    assert all(passages.cells(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_a_snippet_leaves_out_its_heading_and_says_that_it_goes_on():
    text = "## Normal running\n\nThe plant starts and stops by itself. " + "It hums. " * 40
    lines = passages.snippet(text, ("Pump", "Normal running"), 30, 2)
    assert lines[0] == "The plant starts and stops by"
    assert lines[1].endswith(" …")
    assert all(passages.cells(line) <= 30 for line in lines)
    rst = "======\nTitle\n======\n\n- first\n- second"
    assert passages.snippet(rst, ("Title",), 40, 4) == ["- first - second"]
    assert passages.snippet("# Title\n", ("Title",), 40, 4) == ["# Title"]
    code = "### Use the `a_b` *option*\nBody"
    assert passages.snippet(code, ("Top", "Use the a_b option"), 40, 4) == ["Body"]
    assert passages.snippet("Titles differ", ("Title",), 40, 4) == ["Titles differ"]


def test_a_whole_passage_keeps_its_lines_and_indentation():
    text = "def f():\r\n\treturn 1\n\n" + "word " * 8
    assert list(passages.whole(text, 20)) == [
        "def f():",
        "    return 1",
        "",
        "word word word word",
        "word word word word",
    ]


def a_hit(rank: int = 1, **changes: object) -> Hit:
    values: dict[str, object] = {
        "rank": rank,
        "score": 0.5,
        "scores": {"dense": 0.5},
        "document_id": "a",
        "chunk_id": rank,
        "text": HOSTILE,
        "metadata": {},
        "source": f"{HOSTILE}.md",
        "span": Span(0, 4),
        "lines": (3, 4),
        "page": 7,
        "heading": (HOSTILE, "B"),
    }
    return Hit(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("full", [True, False])
def test_hits_from_a_hostile_document_cannot_touch_the_terminal(full: bool):
    printed = "\n".join(
        searching._lines(
            Results((a_hit(1, duplicates=1200, also_in=(HOSTILE,)), a_hit(2))), full=full
        )
    )
    plain = unstyle(printed)
    assert output.visible(plain) == plain
    assert "␛[2J␛]0;owned␇" in plain
    assert "<U+202E>evil" in plain
    assert ":3  page 7  +1,200 identical" in plain
    assert "also in " in plain


@pytest.mark.parametrize("columns", [20, 40, 80, 300])
def test_hits_fill_the_terminal_but_not_more(columns: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    hit = a_hit(
        text="wörter und 日本語 " * 60,
        source="s",
        heading=("h" * 50, "x " * 50),
        also_in=("d" * 70, "文書 " * 20),
    )
    for full in (True, False):
        lines = unstyle("\n".join(searching._lines(Results((hit,)), full=full))).split("\n")
        assert max(map(passages.cells, lines)) <= max(24, min(columns, 100))


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1_234_567, "1.2 MB"), (10**13, "10.0 TB")],
)
def test_sizes_for_people(number: int, text: str):
    assert output.size(number) == text


def test_durations_and_counts_for_people():
    assert output.duration(0.123) == "0.12 s"
    assert output.duration(12.34) == "12.3 s"
    assert output.duration(3725) == "1:02:05"
    assert output.count(1, "file") == "1 file"
    assert output.count(1234, "file") == "1,234 files"


def test_a_rate_falls_while_nothing_is_done():
    rate = bars.Rate()
    rate.see(100)
    time.sleep(0.02)
    first = rate.per_second()
    time.sleep(0.02)
    assert 0 < rate.per_second() < first


def test_progress_shows_amount_rates_and_time_left(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm-256color")
    now = 1_000.0
    display = bars.Bars("index", lambda: now)
    display._rich.console.file = io.StringIO()
    now += 5
    display.update(Progress("index", 2, 8, "files", 5_000, "a\x1b[2Jb.md"))
    now += 5
    display.update(Progress("index", 4, 8, "files", 9_000, "a\x1b[2Jb.md"))
    display._rich.console.print(display._rich.get_renderable())
    drawn = display._rich.console.file.getvalue()
    for expected in ("index", "4/8 files · ", " files/s · ", " tokens/s · ", " left", "a␛[2Jb.md"):
        assert expected in drawn
    assert "\x1b[2J" not in drawn


@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
def test_progress_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, width: int):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm-256color")
    now = 1_000.0
    display = bars.Bars("index", lambda: now)
    display._rich.console.file = io.StringIO()
    for seconds, share in ((100, 0.01), (600, 0.08)):
        now = 1_000.0 + seconds
        display.update(Progress("index", 1_049, 12_345, "files", 900, "a" * 300, share))
    display._rich.console.print(display._rich.get_renderable())
    (drawn,) = display._rich.console.file.getvalue().splitlines()
    assert len(drawn) <= width
    assert "1,049/12,345 files" in drawn
    assert "1:49:3" in drawn
    assert " left" in drawn


@pytest.mark.parametrize("width", [60, 80])
def test_tokens_are_told_where_nothing_else_moves(monkeypatch: pytest.MonkeyPatch, width: int):
    """The first files may be long: a narrow terminal, too, shows that something goes on."""
    monkeypatch.setenv("COLUMNS", str(width))
    display = bars.Bars("index")
    display.update(Progress("index", 0, 776, "files", 65_536, "a"))
    shown = display._facts.render(display._rich.tasks[0]).plain
    assert shown == "0/776 files · 65,536 tokens"


def test_time_left_is_not_told_before_it_can_be_judged():
    display = bars.Bars("index")
    display.update(Progress("index", 1, 245, "files", 900, "a"))
    assert "left" not in display._facts.render(display._rich.tasks[0]).plain
    display._facts._left._began -= 60
    assert "left" not in display._facts.render(display._rich.tasks[0]).plain


def test_the_terminal_is_asked_how_wide_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "57")
    assert output.width() == 57
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setattr("sys.__stdout__", None)
    assert output.width() == 80


def test_a_row_of_status_goes_on_below_where_it_does_not_fit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "30")
    assert unstyle(inspect._row("Model", "hash", "384 dimensions", "window")) == (
        "Model      hash ·\n           384 dimensions ·\n           window"
    )
    monkeypatch.setenv("COLUMNS", "80")
    assert unstyle(inspect._row("Files", "1", "2", "3")) == "Files      1 · 2 · 3"

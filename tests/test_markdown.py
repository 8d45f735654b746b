"""Markdown as a reader sees it: titles, blocks, front matter, and tables in parts."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from retriever import Document, Index
from retriever.config import Chunking
from retriever.documents.chunking import Chunker
from retriever.documents.parsers import markdown, parse
from retriever.documents.tables import find_tables
from retriever.testing import HashEncoder


def outline(text: str) -> list[tuple[int, str]]:
    [document] = parse(text.encode(), "a.md")
    assert document.text == text
    starts = [heading.start for heading in document.headings]
    assert starts == sorted(set(starts))
    assert all(start == 0 or text[start - 1] in "\r\n" for start in starts)
    return [(heading.level, heading.title) for heading in document.headings]


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("`__init__.py` explained", "__init__.py explained"),
        ("The `_private` helper", "The _private helper"),
        ("`f(*args, **kwargs)`", "f(*args, **kwargs)"),
        ("``a ` b``", "a ` b"),
        ("Every 2 * 3 * 4 grid", "Every 2 * 3 * 4 grid"),
        ("All *.md files", "All *.md files"),
        ("C\\# and \\_\\_all\\_\\_", "C# and __all__"),
        ("snake_case_name and __dunder__", "snake_case_name and dunder"),
        ("**Bold** and _slanted_ *words*", "Bold and slanted words"),
        ("\\*not slanted\\*", "*not slanted*"),
        ("Q&amp;A &copy; &#35; &unknown;", "Q&A © # &unknown;"),
        ('See [the *docs*](https://x.org/a_b "title")', "See the docs"),
        ("See [the docs][ref] and [no ref]", "See the docs and no ref"),
        ("![A *red* pump](pump.png) first", "A red pump first"),
        ("[![Build](b.svg)](ci)", "Build"),
        ("<b>Raw</b> <!-- no --> HTML<br>", "Raw HTML"),
        ("a < b and c > d", "a < b and c > d"),
        ("<https://example.org/x>", "https://example.org/x"),
        ("Pump {#anchor .cls}", "Pump"),
        ("Pump {v2}", "Pump {v2}"),
        ("Closed ##", "Closed"),
        ("C#", "C#"),
    ],
)
def test_a_title_is_what_a_reader_sees(written: str, seen: str) -> None:
    text = f"# {written}\n\n{written} x\n---\n\n[ref]: https://example.org\n[no ref]: x\n"
    assert outline(text)[0] == (1, seen)
    assert outline(text)[1][0] == 2


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Two\nlines\n---\n", [(2, "Two lines")]),
        ("# One\ntext\n===\n", [(1, "One"), (1, "text")]),
        ("<div>\n# no\n</div>\n\n# Yes\n", [(1, "Yes")]),
        ("<pre>\n\n# no\n\n</pre>\n# Yes\n", [(1, "Yes")]),
        ("<script>\n# no\n\n## no\n</script>\n# Yes\n", [(1, "Yes")]),
        ("<!-- a\n\n# no\n\n-->\n# Yes\n", [(1, "Yes")]),
        ("    # code\n\n# Yes\n", [(1, "Yes")]),
        ("- a\n\n      # code\n\n# Yes\n", [(1, "Yes")]),
        ("- ```\n  # no\n  ```\n\n# Yes\n", [(1, "Yes")]),
        ("1. ## Step one\n\n   text\n\n2. ## Step two\n", [(2, "Step one"), (2, "Step two")]),
        ("> # Quoted\n\n# Yes\n", [(1, "Yes")]),
        ("> ```\n> # no\n# Yes\n", [(1, "Yes")]),
        ("~~~ `a`\n# no\n~~~\n# Yes\n", [(1, "Yes")]),
        ('<h1 align="center">\n  The <b>Big</b> &amp; Pump\n</h1>\n', [(1, "The Big & Pump")]),
        ('<p><h2><img src="x" alt="Logo"> Name</h2></p>\n', [(2, "Logo Name")]),
        ("<div>\n<!-- <h1>no</h1> --><pre><h1>no</h1></pre>\n<h3>Yes</h3>\n</div>\n", [(3, "Yes")]),
        ("Term\n: # no\n\n| a |\n|---|\n| # no |\n", []),
    ],
)  # fmt: skip
def test_blocks_are_those_of_commonmark(text: str, wanted: list[tuple[int, str]]) -> None:
    assert outline(text) == wanted
    assert outline(text.replace("\n", "\r\n")) == wanted


@pytest.mark.parametrize(
    ("front", "title"),
    [
        ('title: "A \\"big\\" pump: 2"', 'A "big" pump: 2'),
        ("title: 'It''s a pump'", "It's a pump"),
        ("title: A pump # with a comment", "A pump"),
        ("title: C# for pumps", "C# for pumps"),
        ("title: A pump: the manual", "A pump: the manual"),
        ("title: |\n  A pump\n  in two lines\ntags: [a]", "A pump in two lines"),
        ("title: >-\n  A pump\n\n  folded\ntags: [a]", "A pump folded"),
        ("title:\n  on the next line\ntags: [a]", "on the next line"),
        ("title: of several\n  lines\nx: y", "of several lines"),
        ('"title": quoted key', "quoted key"),
        ("subtitle: no\ntitle: yes it is", "yes it is"),
        ("title: [a, b]", "H"),
        ("title:\ntags: [a]", "H"),
        ("tags:\n  title: inner", "H"),
    ],
)
def test_front_matter_is_read_as_yaml(front: str, title: str) -> None:
    [document] = parse(f"---\n{front}\n---\n# H\n".encode(), "a.md")
    assert document.title == title
    assert [heading.title for heading in document.headings] == ["H"]


def test_front_matter_in_toml() -> None:
    [document] = parse(b'+++\ntags = ["a"]\ntitle = """A\npump"""\n+++\n# H\n', "a.md")
    assert document.title == "A pump"


def test_a_large_file_is_read_in_parts_that_part_no_block() -> None:
    part = (
        "# Title {n}\n\ntext\n\n```\n# no\n" + "code\n" * 9_000 + "```\n\n<div>\n# no\n</div>\n\n"
    )
    text = "".join(part.replace("{n}", str(n)) for n in range(40))
    assert len(text) > 4 * markdown._PART
    assert outline(text) == [(1, f"Title {n}") for n in range(40)]


@pytest.mark.parametrize(
    "unit",
    [">", "> ", "- ", "a\n", "- a\n", "[x]: y\n", "[\n", "<h1>", "<div><pre>", "|\n", "<a\n"],
)
def test_odd_markdown_takes_linear_time(unit: str) -> None:
    began = time.process_time()
    parse((unit * (300_000 // len(unit))).encode(), "a.md")
    assert time.process_time() - began < 8


# --- tables

HEADER = "| name | price | unit |"
ROWS = "".join(f"| pump {n} | {n}.50 | piece |\n" for n in range(40))
TABLE = f"# Prices\n\nAll of them.\n\n{HEADER}\n|------|-------|:----:|\n{ROWS}\nAfter the table.\n"


def test_tables_are_found() -> None:
    [table] = find_tables(TABLE)
    assert table.header == HEADER
    assert TABLE[table.start : table.end].rstrip().endswith("| pump 39 | 39.50 | piece |")
    assert [one.header for one in find_tables("a \\| b | c\r\n-|-\r\n1|2\r\n")] == [
        "| a \\| b | c |"
    ]
    for text in ("a | b\n\n---|---\n", "---|---\n", "a\n---\nb | c\n", "|-\n|-\n|-\n", ""):
        assert find_tables(text) == []


@pytest.mark.parametrize("prefix_headings", [False, True])
def test_a_header_row_goes_with_each_part_of_its_table(
    tmp_path: Path, prefix_headings: bool
) -> None:
    chunking = {"prefix_headings": prefix_headings}
    encoder = HashEncoder(max_tokens=64)
    with Index.open(tmp_path / "i", model=encoder, chunking=chunking) as index:
        [document] = parse(TABLE.encode(), "a.md")
        index.add([{"text": TABLE, "id": "a", "headings": document.headings}])
        chunks = index.chunks("a")
        parts = [one for one in chunks if HEADER not in one.text and "| pump" in one.text]
        assert len(parts) > 4
        for chunk in chunks:
            assert chunk.text == TABLE[slice(*chunk.span)]
            assert chunk.tokens <= 64
            is_part = chunk in parts
            assert (chunk.heading[-1] == HEADER) == is_part
            [seen] = [text for text in encoder.encoded if text.endswith(chunk.text)][:1]
            assert (f"{HEADER}\n" in seen.removesuffix(chunk.text)) == is_part
        assert index.status().tokens.truncated == 0
        hit = index.search("pump 30 price", k=1)[0]
        assert hit.heading == ("Prices", HEADER)
        assert index.verify(deep=True).ok
        index.rebuild(chunking={"overlap": 0})
        assert index.chunks("a")[2].heading == ("Prices", HEADER)
        assert index.verify(deep=True).ok


def test_a_header_that_is_too_long_for_the_window_is_left_out() -> None:
    tokenizer = HashEncoder().tokenizer
    [(chunks, ledger)] = Chunker(tokenizer, 16, Chunking()).chunk([Document(TABLE)])
    assert ledger.truncated == 0
    assert all(HEADER not in chunk.heading for chunk in chunks)
    wide = "| " + " | ".join(f"column {n}" for n in range(500)) + " |"
    text = TABLE.replace(HEADER, wide)
    [(chunks, ledger)] = Chunker(tokenizer, 254, Chunking()).chunk([Document(text)])
    assert ledger.truncated == 0
    assert len(chunks[-1].heading[-1] if chunks[-1].heading else "") <= 160


def test_a_document_that_is_one_chunk_has_no_header_row() -> None:
    vector = np.ones(4, np.float32)
    for chunking in (Chunking("document"), Chunking()):
        [(chunks, _)] = Chunker(HashEncoder().tokenizer, 512, chunking).chunk(
            [Document(TABLE, embedding=vector)]
        )
        assert chunks[0].heading == ()

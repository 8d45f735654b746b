"""Bytes to documents: encodings, formats, headings; nothing replaced, nothing slow."""

from __future__ import annotations

import codecs
import gzip
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever.documents.decoding import decode
from retriever.documents.parsers import may_read, parse, registered
from retriever.errors import UnreadableFile, UnsupportedFormat
from retriever.types import Document, Heading


def parse_one(text: str, path: str) -> Document:
    [document] = parse(text.encode(), path)
    assert document.text == text
    assert (document.id, document.source) == (None, None)
    return document


def outline(text: str, path: str) -> list[tuple[int, str]]:
    """Return levels and titles, having checked that each heading begins its line."""
    headings = parse_one(text, path).headings
    for heading in headings:
        assert heading.start == 0 or text[heading.start - 1] in "\r\n"
        assert 0 <= heading.start < len(text)
    assert [h.start for h in headings] == sorted({h.start for h in headings})
    return [(heading.level, heading.title) for heading in headings]


# --- encodings

SAMPLES = {
    "cp1252": "Die Mühle steht still, “weil” der Wind zu stark weht – schöne Grüße an alle. ",
    "iso8859-1": "L'éolienne s'arrête dès que le vent dépasse la limite fixée à l'été dernier. ",
    "cp1250": "Wiatrak zatrzymuje się, gdy wiatr jest zbyt silny; później znów się obraca. ",
    "iso8859-2": "Naukowcy zauważyli, że zmiana rytmu snu w dni wolne prowadzi do zmęczenia. ",
    "cp1251": "Ветряная мельница останавливается, когда ветер слишком сильный для её крыльев. ",
    "koi8-r": "Насос перестаёт работать, когда рассол поднимается до верхнего поплавка в шахте. ",
    "cp1253": "Ο ανεμόμυλος σταματά όταν ο άνεμος είναι πολύ δυνατός για τα φτερά του μύλου. ",
    "cp1254": "Köylüler akşam yemeğini birlikte yer ve yarın için hazırlık yaparlar. Çocuklar ise "
    "nehrin kıyısında oynamayı çok severler, çünkü su ılık ve temizdir. ",
    "cp1255": "כאשר הרוח חזקה מדי הטחנה נעצרת ואיש אינו יודע מתי היא תסתובב שוב בלילה. ",
    "cp1256": "تتوقف طاحونة الهواء عندما تكون الريح قوية جدا ولا يعرف أحد متى تدور من جديد. ",
    "shift_jis": "風が強すぎると風車は止まります。点検は必ず二人で行ってください。カタカナも少し。",
    "euc_jp": "風が強すぎると風車は止まります。点検は必ず二人で行ってください。カタカナも少し。",
    "iso2022_jp": "風が強すぎると風車は止まります。点検は必ず二人で行ってください。",
    "gb18030": "风太大的时候风车会停下来。检查必须由两个人一起进行，请不要忘记关闭水泵。",
    "big5": "風太大的時候風車會停下來。檢查必須由兩個人一起進行，請不要忘記關閉水泵。",
    "euc_kr": "바람이 너무 강하면 풍차가 멈춥니다. 점검은 반드시 두 사람이 함께 해야 합니다.",
}


@pytest.mark.parametrize("encoding", SAMPLES)
def test_encodings_are_recognised_and_named(encoding: str) -> None:
    text = (SAMPLES[encoding] + "\r\n") * 6
    [document] = parse(text.encode(encoding), "a.txt")
    assert document.text == text
    named = document.metadata["encoding"]
    assert text.encode(named).decode(encoding) == text


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("marked", [True, False])
def test_wide_encodings_with_and_without_a_mark(encoding: str, marked: bool) -> None:
    text = "The harbour pump – 海風 👍\n" * 5
    mark = "\ufeff".encode(encoding) if marked else b""
    assert decode(mark + text.encode(encoding), "a.txt") == (text, encoding, "")


def test_utf8_has_no_encoding_metadata_and_loses_only_its_mark() -> None:
    text = "caf\u00e9 \r\n\rline\n"
    for data in (text.encode(), codecs.BOM_UTF8 + text.encode()):
        assert parse(data, "a.txt") == [Document(text)]


def test_an_encoding_that_a_file_declares_is_believed_if_it_decodes() -> None:
    text = '<?xml version="1.0" encoding="KOI8-R"?>\n<a>Насос</a>'
    assert decode(text.encode("koi8-r"), "a.xml") == (text, "koi8-r", "")
    source = "# -*- coding: latin-1 -*-\nx = 'é'\n"
    assert decode(source.encode("latin-1"), "a.py") == (source, "iso8859-1", "")
    unknown = "# coding: unheard-of\n" + SAMPLES["cp1252"] * 4
    assert decode(unknown.encode("cp1252"), "a.py").text == unknown
    wrong = "# coding: rot13, unicode_escape\nx = 'déjà vu, élève'\n"
    assert decode(wrong.encode(), "a.py") == (wrong, "utf-8", "")


def test_a_late_byte_beyond_ascii_is_found() -> None:
    text = "plain words\n" * 20_000 + SAMPLES["cp1252"] * 4
    assert decode(text.encode("cp1252"), "a.txt").text == text


def test_a_broken_wide_file_is_refused() -> None:
    with pytest.raises(UnreadableFile, match="UTF-16-LE"):
        parse(codecs.BOM_UTF16_LE + b"a\x00b", "a.txt")


def test_bytes_of_no_encoding_are_refused() -> None:
    with pytest.raises((UnreadableFile, UnsupportedFormat)) as caught:
        parse(random.Random(1).randbytes(2_000).translate(None, bytes(range(0x20))), "a.txt")
    assert caught.value.hint


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02\x03" * 100,
        b"text and\x00zero",
        random.Random(3).randbytes(5000),
        bytes(b for b in random.Random(4).randbytes(5000) if b),
        gzip.compress(b"text" * 100, mtime=0),
        b"\x7fELF\x02\x01\x01" + bytes(64),
    ],
)
def test_binary_files_are_refused(data: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match="binary") as caught:
        parse(data, "a")
    assert caught.value.hint


def test_terminal_colours_are_text() -> None:
    text = "\x1b[31mred\x1b[0m\n" * 10
    assert parse_one(text, "build.log").text == text


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=300), suffix=st.sampled_from(["txt", "md", "rst", "py", "c", ""]))
def test_any_bytes_are_parsed_or_refused(data: bytes, suffix: str) -> None:
    try:
        [document] = parse(data, f"a.{suffix}")
    except (UnsupportedFormat, UnreadableFile) as error:
        told = (bool(error.hint), error.path)
    else:
        assert document.text.encode() is not None
        assert all(0 <= heading.start < len(document.text) for heading in document.headings)
        told = (True, f"a.{suffix}")
    assert told == (True, f"a.{suffix}")


# --- registry


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("a.html", "HTML"),
        ("dir/A.HTM", "HTML"),
        ("a.ipynb", "Jupyter notebook"),
        ("a.eml", "mail"),
        ("a.pdf", "PDF"),
        ("a.docx", "Word"),
        ("a.pptx", "PowerPoint"),
        ("a.xlsx", "Excel"),
        ("a.odt", "OpenDocument"),
        ("a.epub", "EPUB"),
        ("a.rtf", "RTF"),
    ],
)
def test_formats_without_a_parser_are_named(path: str, named: str) -> None:
    with pytest.raises(UnsupportedFormat, match=f"{named}, which no parser reads yet") as caught:
        parse(b"anything", path)
    assert caught.value.path == path
    assert caught.value.hint


@pytest.mark.parametrize(
    "path", ["a.zip", "a.tar.gz", "a.PNG", "a.mp3", "a.mp4", "a.woff2", "a.so"]
)
def test_known_binary_formats_are_refused_by_name(path: str) -> None:
    with pytest.raises(UnsupportedFormat, match="binary"):
        parse(b"anything", path)


def test_signatures_count_whatever_the_name() -> None:
    with pytest.raises(UnsupportedFormat, match="is PDF, which no parser reads"):
        parse(b"%PDF-1.7\n...", "a.txt")
    with pytest.raises(UnsupportedFormat, match="archive"):
        parse(b"PK\x03\x04 and so on", "a.md")


@pytest.mark.parametrize("path", ["notes", "a.txt", "a.csv", "a.json", "a.toml", "a.unheard-of"])
def test_anything_else_is_plain_text(path: str) -> None:
    assert parse_one("# not a heading\n", path) == Document("# not a heading\n")


def test_an_empty_file_is_an_empty_document() -> None:
    for path in ("a.txt", "a.md", "a.rst", "a.py", "a"):
        assert parse_one("", path).headings == ()


# --- Markdown


def test_markdown_headings_and_title() -> None:
    text = (
        "intro\n\n# The *Big* `Pump` #\n\ntext\n\n## See [the docs](https://x.org/a_b) {#anchor}\n"
        "Setext one\n===\n\n  Setext two\n  ---\n\n#hashtag\n####### seven\n\\# escaped\n#\n### \n"
        "   ### three spaces ###\n    # code\n#\tTab\n# snake_case_name\n# C#\n"
    )
    assert outline(text, "a.md") == [
        (1, "The Big Pump"),
        (2, "See the docs"),
        (1, "Setext one"),
        (2, "Setext two"),
        (3, "three spaces"),
        (1, "Tab"),
        (1, "snake_case_name"),
        (1, "C#"),
    ]
    assert parse_one(text, "a.md").title == "The Big Pump"


def test_markdown_headings_know_their_place() -> None:
    text = "é\r\n\r\nTitle\r\n=====\r\n\r\ntext\r\r## Lone returns\rmore"
    assert parse_one(text, "a.md").headings == (
        Heading(text.index("Title"), 1, "Title"),
        Heading(text.index("## Lone"), 2, "Lone returns"),
    )


def test_markdown_code_is_not_searched_for_headings() -> None:
    text = (
        "```sh\n# comment\n~~~\n````\n# Real\n~~~~\n# no\n```\n~~~\n# no\n~~~~~\n## Real two\n"
        "``` inline ```\n## Real three\n<!--\n# no\n-->\n## Real four\n```\n# never closed\n"
    )
    assert outline(text, "a.markdown") == [
        (1, "Real"),
        (2, "Real two"),
        (2, "Real three"),
        (2, "Real four"),
    ]


def test_markdown_rules_and_lists_are_no_headings() -> None:
    text = "para\n\n---\n\n- item\n---\n\n> quote\n===\n\n| a |\n---\n\n1. one\n---\n\n"
    assert outline(text, "a.md") == []


def test_front_matter_is_kept_as_text_and_gives_the_title() -> None:
    text = "---\ntitle: 'The Pump'\ntags: [a]\n# no: heading\n---\n# Heading\n"
    document = parse_one(text, "a.md")
    assert (document.title, document.headings) == ("The Pump", (Heading(50, 1, "Heading"),))
    assert parse_one('+++\ntitle = "Toml"\n+++\n', "a.md").title == "Toml"
    assert parse_one("---\ntitle: >\n  folded\n---\n# H\n", "a.md").title == "folded"
    assert parse_one("---\nno: end\n# H\n", "a.md").title == "H"
    assert parse_one("## Only two\n", "a.md").title is None


# --- reStructuredText


def test_restructuredtext_levels_are_styles_in_order() -> None:
    text = (
        "=====\nManual\n=====\n\nIntro.\n\nPumps\n=====\n\nStopping\n--------\n\ntext\n\n"
        "Wind\n====\n\n~~~~\n\nDeep :ref:`here <x>`\n--------------------\n"
    )
    assert outline(text.replace("=====\nManual\n=====", "======\nManual\n======"), "a.rst") == [
        (1, "Manual"),
        (2, "Pumps"),
        (3, "Stopping"),
        (2, "Wind"),
        (3, "Deep here"),
    ]


def test_restructuredtext_overlined_headings_begin_at_the_overline() -> None:
    text = "text\n\n########\n Title\n########\n\n*Sub*\n#####\n"
    document = parse_one(text, "a.rst")
    assert document.headings == (Heading(6, 1, "Title"), Heading(text.index("*Sub*"), 2, "Sub"))
    assert document.title == "Title"


def test_restructuredtext_that_is_no_heading() -> None:
    text = (
        "A paragraph of\ntwo lines\n---------\n\n::\n\n  Literal\n  =======\n\n"
        "===== =====\nA     B\n===== =====\n\nLong line over\n--\n\n------\n\n.. note::\n"
    )
    assert outline(text, "a.rst") == []


def test_restructuredtext_wide_titles() -> None:
    assert outline("風車\n====\n\nA\n-\n", "a.rst") == [(1, "風車")]


# --- source code


def test_python_outline() -> None:
    text = (
        '"""Doc."""\r\nimport os\r\n\r\n@decorate(\r\n    1)\r\nclass Pump:\r\n'
        '    """é"""\r\n    def stop(self): ...\r\n    @property\r\n    async def state(self):\r\n'
        "        def inner(): ...\r\n\r\ndef main():\r\n    x = '\\d'\r\n"
    )
    document = parse_one(text, "pump.py")
    assert document.metadata == {"code": "python"}
    assert [(h.level, h.title) for h in document.headings] == [
        (1, "Pump"),
        (2, "stop"),
        (2, "state"),
        (1, "main"),
    ]
    starts = [text[h.start :].split("\r\n")[0] for h in document.headings]
    assert starts == ["@decorate(", "    def stop(self): ...", "    @property", "def main():"]


@pytest.mark.parametrize(
    "text",
    ["print 'two'\n", "(" * 5000, "-" * 100_000 + "1", "x = \\", "def f(:\n", "\x0cdef f(): 0"],
)
def test_python_that_does_not_parse_is_text(text: str) -> None:
    document = parse_one(text, "a.py")
    assert document.metadata == {"code": "python"}


@pytest.mark.parametrize(
    ("path", "code"),
    [("a.rs", "rust"), ("x/Makefile", "make"), ("Dockerfile", "dockerfile"), ("a.CPP", "cpp")],
)
def test_source_code_names_its_language(path: str, code: str) -> None:
    assert parse_one("# x\n", path) == Document("# x\n", metadata={"code": code})


# --- time

_LENGTH = 1_000_000


@pytest.mark.parametrize(
    "text",
    [
        "# " + "a " * (_LENGTH // 2),
        "# " + "#" * _LENGTH + "x",
        "# " + "# " * (_LENGTH // 2) + "x",
        "=" * _LENGTH + "x",
        "==" + " " * _LENGTH + "x",
        " " * _LENGTH + "x\n---\n",
        "`" * _LENGTH + "x`",
        "[" * _LENGTH,
        "<!--" * (_LENGTH // 4),
        "a\n---\n" * (_LENGTH // 6),
        "```\n" * (_LENGTH // 4),
        "---\n" * (_LENGTH // 4),
        "title:" + " " * _LENGTH,
        "\r" * _LENGTH,
        "\r\n" * (_LENGTH // 2),
        "é" + "x" * _LENGTH,
    ],
    ids=range(16),
)
@pytest.mark.parametrize("suffix", ["md", "rst"])
def test_parsing_takes_linear_time(text: str, suffix: str) -> None:
    began = time.process_time()
    parse(text.encode(), f"a.{suffix}")
    assert time.process_time() - began < 5


def test_decoding_takes_linear_time() -> None:
    data = b"x" * _LENGTH + "Grüße aus der Mühle, schöne Gäste".encode("cp1252") * 50_000
    began = time.process_time()
    assert decode(data, "a.txt").text == data.decode("cp1252")
    assert time.process_time() - began < 5


def test_a_text_with_a_zero_byte_is_binary_and_not_chinese() -> None:
    with pytest.raises(UnsupportedFormat, match="zero bytes"):
        parse(b"hello\0world this is text with a nul\n", "odd.txt")
    (document,) = parse("hello Größe\n".encode("utf-16-le"), "wide.txt")
    assert document.text == "hello Größe\n"


def test_parser_of_a_binary_format_gets_its_bytes_as_they_are() -> None:
    def parse_pdf(data: bytes, path: str) -> list[Document]:
        return [Document(data.hex(), title=path)]

    data = b"%PDF-1.7\xff\x00"
    with registered({".pdf": parse_pdf}, binary=True):
        assert may_read("a.PDF")
        for encoding in (None, "latin-1"):
            [document] = parse(data, "a.PDF", encoding)
            assert (document.text, document.title) == (data.hex(), "a.PDF")
        with pytest.raises(UnsupportedFormat, match="is PDF"):
            parse(data, "a.txt")  # by its signature
    assert not may_read("a.pdf")
    with pytest.raises(UnsupportedFormat, match="is PDF"):
        parse(data, "a.pdf")

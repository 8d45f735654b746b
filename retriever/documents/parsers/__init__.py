"""Choose the parser of a file by its name.

A new format is one module with a function from bytes and path to documents, and one line here: in
`PARSERS` if it is text, in `BINARY_PARSERS` if not, as for PDF. A
format with many documents in a file, such as rows or messages, yields them one at a time: they are
then stored as they come, and no more than a part of them is in memory. Whatever has no parser and
no known binary format is plain text if it decodes as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import PurePath
from typing import TypeAlias

from retriever.documents.decoding import decode_as
from retriever.documents.parsers.markdown import parse_markdown
from retriever.documents.parsers.restructuredtext import parse_restructuredtext
from retriever.documents.parsers.source_code import BY_NAME, parse_source_code
from retriever.documents.parsers.text import encoding_metadata, parse_text
from retriever.errors import UnsupportedFormat
from retriever.types import Document

Parser: TypeAlias = Callable[[bytes, str], Iterable[Document]]
"""From the bytes and the path of a file to its documents, without ids; errors as `parse`."""

PARSERS: dict[str, Parser] = {
    **dict.fromkeys(BY_NAME, parse_source_code),
    **dict.fromkeys((".md", ".mdx", ".markdown", ".mkd", ".mdown"), parse_markdown),
    **dict.fromkeys((".rst", ".rest"), parse_restructuredtext),
}
"""Parsers of text by a file's name or, for most, its suffix in lower case."""

BINARY_PARSERS: dict[str, Parser] = {}
"""Parsers of other formats, by suffix in lower case; none yet.

They get the bytes as they are, whatever encoding is asked for, and come before the tables below,
so that a suffix may stay in these.
"""

_UNPARSED = {
    "HTML": ".html .htm .xhtml",
    "Jupyter notebook": ".ipynb",
    "mail": ".eml .mbox .msg",
    "PDF": ".pdf",
    "Word": ".doc .docx .docm .dot .dotx",
    "PowerPoint": ".ppt .pptx .pptm .pps .ppsx",
    "Excel": ".xls .xlsx .xlsm .xlsb",
    "OpenDocument": ".odt .ods .odp .odg .fodt .fods .fodp",
    "EPUB": ".epub .mobi .azw3",
    "RTF": ".rtf",
}
_BINARY = {
    "an archive": ".zip .tar .gz .tgz .bz2 .xz .zst .7z .rar .lz4 .jar .war .whl .deb .rpm .iso",
    "an image": ".png .jpg .jpeg .gif .bmp .tif .tiff .webp .ico .heic .avif .psd .svg .svgz .eps",
    "audio": ".mp3 .wav .flac .ogg .oga .opus .m4a .aac .wma .aiff .mid",
    "video": ".mp4 .mkv .avi .mov .webm .wmv .flv .m4v .mpg .mpeg .ogv",
    "a font": ".ttf .otf .woff .woff2 .eot",
    "a program": ".exe .dll .so .dylib .pyc .pyo .class .wasm .pyd",
    "a database or data file": ".db .sqlite .sqlite3 .parquet .arrow .feather .npy .npz .h5 .hdf5 "
    ".pkl .pickle .pt .pth .onnx .safetensors .faiss",
}
_FORMATS = {suffix: name for name, all_ in _UNPARSED.items() for suffix in all_.split()}
_KINDS = {suffix: kind for kind, all_ in _BINARY.items() for suffix in all_.split()}
# What a file is whatever it is called; most other binary formats have zero bytes early on.
_SIGNATURES = (
    (b"%PDF-", "PDF"),
    (b"{\\rtf", "RTF"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"GIF8", "an image"),
    (b"PK\x03\x04", "an archive"),
    (b"\x1f\x8b", "an archive"),
    (b"SQLite format 3\x00", "a database or data file"),
)


@contextmanager
def registered(more: Mapping[str, Parser], *, binary: bool = False) -> Iterator[None]:
    """Have files read by further parsers within a block.

    For tests, and for trying a parser that is to be added. It holds for the whole process.

    Args:
        more: The parsers, as in `PARSERS`.
        binary: Whether they are of formats that are not text, as in `BINARY_PARSERS`.
    """
    parsers = BINARY_PARSERS if binary else PARSERS
    before = dict(parsers)
    parsers.update(more)
    try:
        yield
    finally:
        parsers.clear()
        parsers.update(before)


def may_read(path: str) -> bool:
    """Return whether a file's name leaves it open that `parse` returns documents of it."""
    suffix = PurePath(path).suffix.lower()
    return suffix in BINARY_PARSERS or (suffix not in _FORMATS and suffix not in _KINDS)


def parse(data: bytes, path: str, encoding: str | None = None) -> Iterable[Document]:
    """Return the documents of a file, without ids and sources.

    Where its parser yields them one at a time, errors may come in between.

    The text is the file's, only a byte order mark is dropped. Title and headings are given where
    the format has them; `metadata["encoding"]` where it was not UTF-8, `encoding_doubt` where
    that is a weak guess or bytes made no sense, `metadata["code"]` for source code.

    Args:
        data: The bytes of the file.
        path: Names the file, and its format by the suffix.
        encoding: What a text without a byte order mark is in; None means to find out.

    Raises:
        UnsupportedFormat: If the file is binary, or of a format that no parser reads yet.
        UnreadableFile: If its encoding is broken or not recognised.
    """
    name = PurePath(path).name
    suffix = PurePath(path).suffix.lower()
    if (binary := BINARY_PARSERS.get(suffix)) is not None:
        return binary(data, path)
    if (kind := _FORMATS.get(suffix)) is not None:
        raise _no_parser(path, kind)
    if (kind := _KINDS.get(suffix)) is not None:
        raise _binary(path, kind)
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            raise _no_parser(path, kind) if kind in _UNPARSED else _binary(path, kind)
    parser = PARSERS.get(name) or PARSERS.get(suffix, parse_text)
    if encoding is None:
        return parser(data, path)
    decoded = decode_as(data, path, encoding)
    # A parser takes bytes: it gets the text in the one encoding that needs no guess.
    documents = parser(decoded.text.encode(), path)
    known = encoding_metadata(decoded)
    return (replace(one, metadata={**known, **one.metadata}) for one in documents)


def _no_parser(path: str, name: str) -> UnsupportedFormat:
    return UnsupportedFormat(
        f"{path} is {name}, which no parser reads yet.",
        path=path,
        reader="parsers",
        hint="Convert it to text or Markdown and index that.",
    )


def _binary(path: str, kind: str) -> UnsupportedFormat:
    return UnsupportedFormat(
        f"{path} is binary: {kind}.",
        path=path,
        reader="parsers",
        hint="Leave it out with --glob or .retrieverignore.",
    )

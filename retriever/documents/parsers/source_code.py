"""Parse source code: its language by the file's name, and for Python classes and functions."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from pathlib import PurePath

from retriever.documents.decoding import decode
from retriever.documents.parsers.lines import with_plain_line_ends
from retriever.documents.parsers.text import encoding_metadata
from retriever.types import Document, Heading

# The syntax tree takes some hundred bytes for each byte of source.
_MAX_OUTLINED = 2_000_000

LANGUAGES = {
    "bash": ".bash .sh .zsh .ksh",
    "c": ".c .h",
    "cmake": ".cmake CMakeLists.txt",
    "cpp": ".cc .cpp .cxx .hh .hpp .hxx .cu .cuh",
    "csharp": ".cs",
    "css": ".css .scss .sass .less",
    "dart": ".dart",
    "dockerfile": "Dockerfile Containerfile .dockerfile",
    "elixir": ".ex .exs",
    "erlang": ".erl .hrl",
    "fortran": ".f .f90 .f95",
    "go": ".go",
    "haskell": ".hs",
    "java": ".java",
    "javascript": ".js .cjs .mjs .jsx",
    "julia": ".jl",
    "kotlin": ".kt .kts",
    "lua": ".lua",
    "make": "Makefile makefile GNUmakefile .mk",
    "nix": ".nix",
    "objective-c": ".m .mm",
    "ocaml": ".ml .mli",
    "perl": ".pl .pm",
    "php": ".php",
    "powershell": ".ps1 .psm1",
    "protobuf": ".proto",
    "python": ".py .pyi .pyx SConstruct",
    "r": ".r .R",
    "ruby": ".rb Gemfile Rakefile",
    "rust": ".rs",
    "scala": ".scala .sbt",
    "sql": ".sql",
    "starlark": ".bzl BUILD.bazel",
    "swift": ".swift",
    "typescript": ".ts .tsx .mts .cts",
    "verilog": ".v .sv",
    "vue": ".vue",
    "zig": ".zig",
}
"""Programming languages by the suffixes and names of their files."""

BY_NAME = {name: language for language, names in LANGUAGES.items() for name in names.split()}


def parse_source_code(data: bytes, path: str) -> list[Document]:
    """Return a source file as one document, `metadata["code"]` being its language.

    The headings of Python are its classes and functions, with methods one level below.

    Raises:
        UnsupportedFormat: If the file is binary.
        UnreadableFile: If its encoding is broken or not recognised.
    """
    decoded = decode(data, path)
    name = PurePath(path)
    language = BY_NAME.get(name.name) or BY_NAME.get(name.suffix.lower(), "")
    metadata = {**encoding_metadata(decoded), **({"code": language} if language else {})}
    headings = tuple(_python_outline(decoded.text)) if language == "python" else ()
    return [Document(decoded.text, metadata=metadata, headings=headings)]


def _python_outline(text: str) -> Iterator[Heading]:
    if len(text) > _MAX_OUTLINED:
        return
    try:
        with warnings.catch_warnings():
            # Doubtful escapes in an indexed file are not warnings about this program.
            warnings.simplefilter("ignore")
            module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # another version of Python, or not Python: the text is indexed all the same
    plain = with_plain_line_ends(text)
    lines = [0, *(found.end() for found in re.finditer("\n", plain))]
    yield from _definitions(module.body, lines, 1)


def _definitions(body: list[ast.stmt], lines: list[int], level: int) -> Iterator[Heading]:
    for node in body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        # `lineno` is the line of `def` or `class`, and decorators come before it.
        first = min(node.lineno, *(part.lineno for part in [*node.decorator_list, node]))
        yield Heading(lines[first - 1], level, node.name)
        if isinstance(node, ast.ClassDef) and level == 1:
            yield from _definitions(node.body, lines, level + 1)

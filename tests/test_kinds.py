"""Files that were left out, counted by kind, and why: never with the path repeated."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from retriever import Index
from retriever.documents import kinds
from retriever.testing import HashEncoder

FILES = {
    "a.html": (b"<p>x", "HTML"),
    "a.pdf": (b"%PDF-1.7", "PDF"),
    "a.ipynb": (b"{}", "Jupyter notebook"),
    "a.eml": (b"From: x", "mail"),
    "a.docx": (b"PK\x03\x04", "Word"),
    "a.xlsx": (b"PK\x03\x04", "Excel"),
    "a.odt": (b"PK\x03\x04", "OpenDocument"),
    "a.rtf": (b"{\\rtf1", "RTF"),
    "a.zip": (b"PK\x03\x04", "archive"),
    "a.png": (b"\x89PNG", "image"),
    "a.mp3": (b"ID3", "audio"),
    "a.mp4": (b"x", "video"),
    "a.ttf": (b"x", "font"),
    "a.exe": (b"MZ", "program"),
    "a.npy": (b"x", "database or data file"),
    "unnamed": (b"GIF89a", "image"),
    "blob": (bytes(range(256)), "binary"),
    "large.txt": (b"word " * 3_000, "too large"),
    "broken.txt": (b"\xff\xfe\x00\xd8x", "other"),
}


@pytest.fixture
def left_out(tmp_path: Path) -> dict[str, str]:
    """Index one file of each kind; return the reason recorded for each that was left out."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, (data, _) in FILES.items():
        (folder / name).write_bytes(data)
    (folder / "shortcut").symlink_to("a.html")
    os.mkfifo(folder / "fifo.d")
    with (
        socket.socket(socket.AF_UNIX) as bound,
        Index.open(tmp_path / "i.index", model=HashEncoder()) as index,
    ):
        bound.bind(os.path.relpath(folder / "bound"))
        report = index.add_files(folder, max_file_size=10_000)
        problems = index.status().problem_files
    assert sorted(report.skipped + report.failed) == sorted(
        (found.path, found.state, found.reason) for found in problems
    )
    return {Path(found.path).name: found.reason for found in problems}


def test_every_reason_tells_the_kind_and_not_the_path(left_out: dict[str, str], tmp_path: Path):
    others = {"shortcut": "symbolic link", "fifo.d": "named pipe", "bound": "socket"}
    expected = {name: kind for name, (_, kind) in FILES.items()} | others
    assert {name: kinds.kind_of(reason) for name, reason in left_out.items()} == expected
    for name, reason in left_out.items():
        assert name not in reason
        assert str(tmp_path) not in reason


def test_kinds_are_counted_most_first():
    html, pdf = "is HTML, which no parser reads yet. Convert it.", "is binary: an image. Leave it."
    assert kinds.counted([pdf, *[html] * 1_200, pdf]) == "1,200 HTML, 2 images"
    assert kinds.counted(["a socket"]) == "1 socket"
    assert kinds.counted([]) == ""

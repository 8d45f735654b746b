"""The texts of queries, from JSON Lines and from lines with tabs."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from threading import Thread

import pytest

from retriever.errors import InvalidEvaluation, UnreadableFile
from retriever.evaluation import read_queries


def test_texts_of_queries_are_read_from_both_formats(tmp_path: Path):
    texts = {"1": "wie weit ist der Mond", "ü-2": "月までの距離は"}
    objects = "\n".join(json.dumps({"_id": one, "text": text}) for one, text in texts.items())
    (tmp_path / "queries.jsonl").write_text(f"\ufeff{objects}\r\n\n", encoding="utf-8")
    lines = "".join(f"{one}\t{text}\r\n" for one, text in texts.items())
    (tmp_path / "topics.tsv").write_text(f"\ufeff{lines}", encoding="utf-8", newline="")
    assert read_queries(tmp_path / "queries.jsonl") == texts
    assert read_queries(tmp_path / "topics.tsv") == texts
    (tmp_path / "numbers.jsonl").write_text('{"_id": 7, "text": "seven"}\n')
    assert read_queries(tmp_path / "numbers.jsonl") == {"7": "seven"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"_id": "1", "text": "a"}\n{"_id": "1", "text": "b"}\n', ":2 has the query '1' again"),
        ('{"_id": "1", "text": "a"}\n\n{"id": "2"}\n', ":3 has no `_id` and `text`"),
        ('{"_id": "1", "text": "a"}\n["2"]\n', ":2 is ['2'], not a JSON object"),
        ('{"_id": "1", "text": null}\n', ":1 has no `_id` and `text`"),
        ('{"_id": "1", \n', ":1 is not JSON"),
        ("1\ta\n2 b\n", ":2 has no tab: '2 b'"),
        (b"1\tcaf\xe9\n", ":1 is not UTF-8"),
    ],
)
def test_queries_that_cannot_be_read_name_the_line(tmp_path: Path, content, message: str):
    path = tmp_path / "queries"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidEvaluation, match=re.escape(message)):
        read_queries(path)


@pytest.mark.parametrize("line", ['{{"_id": "{0}", "text": "a"}}\n', "{0}\ta\n"])
def test_queries_are_read_from_a_pipe(tmp_path: Path, line: str):
    """More of them than a first look at the file would take."""
    pipe = tmp_path / "queries"
    os.mkfifo(pipe)
    ids = [f"q{number}" for number in range(20_000)]
    writer = Thread(target=pipe.write_text, args=("".join(map(line.format, ids)),))
    writer.start()
    assert list(read_queries(pipe)) == ids
    writer.join()


def test_queries_that_do_not_exist_are_refused(tmp_path: Path):
    with pytest.raises(UnreadableFile, match="missing"):
        read_queries(tmp_path / "missing")

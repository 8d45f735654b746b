"""A small collection in BEIR layout, written by the tests; in several scripts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

CORPUS: tuple[dict[str, Any], ...] = (
    {"_id": "d1", "title": "The pump", "text": "Prime the pump before you start it."},
    {"_id": "d2", "title": "", "text": "The swarm hangs in the apple tree."},
    {"_id": "d3", "text": "Visitors pay two crowns a night.", "year": 2024},
    {"_id": "d4", "title": None, "text": "Насос остановлен до утра."},
    {"_id": "d5", "title": "井戸", "text": "井戸の水は冷たい。", "metadata": {"url": "a"}},
    {"_id": "d6", "title": "Twins", "text": "Identical twice."},
    {"_id": "d7", "title": "Twins", "text": "Identical twice."},
    {"_id": "d8", "title": "", "text": ""},
)
QUERIES = {
    "q1": "how do I start the pump",
    "q2": "where does the swarm hang",
    "q3": "что с насосом",
    "q4": "井戸の水",
    "q5": "identical twins",
    "train": "what do visitors pay",
}
QRELS = {
    "q1": {"d1": 2, "d2": 0},
    "q2": {"d2": 1},
    "q3": {"d4": 1, "d1": 1},
    "q4": {"d5": 1},
    "q5": {"d6": 1, "d7": 1},
}


def json_lines(objects: Iterable[Mapping[str, Any]], end: str = "\n") -> str:
    return "".join(json.dumps(one, ensure_ascii=False) + end for one in objects)


def tsv(qrels: Mapping[str, Mapping[str, int]], end: str = "\n") -> str:
    rows = [f"{q}\t{d}\t{grade}{end}" for q, grades in qrels.items() for d, grade in grades.items()]
    return f"query-id\tcorpus-id\tscore{end}" + "".join(rows)


def write_collection(
    folder: Path,
    *,
    corpus: Iterable[Mapping[str, Any]] = CORPUS,
    queries: Mapping[str, str] = QUERIES,
    qrels: Mapping[str, Mapping[str, int]] = QRELS,
) -> Path:
    """Write the collection with a split `test` and one `train`; return its folder."""
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(json_lines(corpus), "utf-8")
    objects = [{"_id": name, "text": text} for name, text in queries.items()]
    (folder / "queries.jsonl").write_text(json_lines(objects), "utf-8")
    (folder / "qrels" / "test.tsv").write_text(tsv(qrels), "utf-8")
    (folder / "qrels" / "train.tsv").write_text(tsv({"train": {"d3": 1}}), "utf-8")
    return folder

"""Questions in Chinese, Japanese and Thai: the place of their passage among those of `data/`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from .. import beir
from ..tables import show
from .engines import ENGINES

ROWS = Path(__file__).parents[2] / "data" / "unspaced.jsonl"


def unspaced(work: Path, wanted: Sequence[str]) -> dict[str, list[int | None]]:
    """Print the place at which each engine has the passage of each question."""
    rows = list(beir.read_lines(ROWS))
    report: dict[str, list[int | None]] = {}
    for engine in ENGINES:
        if wanted and engine.__name__.lower() not in wanted:
            continue
        with tempfile.TemporaryDirectory(dir=work) as folder:
            one = engine(Path(folder))
            one.add([row["text"] for row in rows])
            places: list[int | None] = []
            for number, row in enumerate(rows):
                found = [place for place, _ in one.search(row["question"], 10)]
                places.append(found.index(number) + 1 if number in found else None)
            report[one.name] = places
            one.close()
    show(
        f"Place of the passage among {len(rows)}, by the language of passage and question",
        ["engine", *(f"{row['_id']} ({row['language']})" for row in rows)],
        [[name, *(str(p) if p else "not found" for p in row)] for name, row in report.items()],
    )
    return report

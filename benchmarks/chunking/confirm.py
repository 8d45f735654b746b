"""Confirms the default on what it was not chosen on, beside peers' splitters.

By marked answers on SQuAD's development articles and on covidqa's long papers; by nDCG@10 on both
(question to article), on Cranfield and on SciFact, whose abstracts mostly fit one window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import tables
from .peers import BEST, CONFIRMED, peers
from .scoring import score
from .systems import BEFORE, DEFAULT, System, kept_whole, sized

if TYPE_CHECKING:
    from .runner import Options

NEEDS = tuple(f"retrieval/{name}" for name in ("squad-dev", "covidqa", "cranfield", "scifact"))
SOURCES = ("squad-dev", "covidqa", "cranfield", "scifact")


def run(options: Options) -> dict[str, Any]:
    """Print the tables of each collection."""
    report = {}
    for name in options.wanted(SOURCES):
        source = options.source(name)
        mine: list[System] = list(options.settings or (DEFAULT, BEFORE))
        others: list[System] = []
        if source.has_spans and not options.settings:
            mine += [sized(136, 0), sized(160, 0)]
            others += peers(options.peers, CONFIRMED)
        elif not options.settings:
            mine.append(kept_whole(254))
            others += peers(options.peers, BEST)
        ours = [score(system, source, options.vectors) for system in mine]
        theirs = [score(system, source, options.vectors) for system in others]
        report[name] = tables.show_source(source, ours + theirs, mine[0].name)
        if theirs and source.has_spans:
            tables.show_equal(source, ours, theirs)
    return report

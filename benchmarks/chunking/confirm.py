"""Confirms the default on what it was not chosen on, beside peers' splitters.

By marked answers on SQuAD's development articles and on covidqa's long papers; by nDCG@10 on both
(question to article), on Cranfield and on SciFact, whose abstracts mostly fit one window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import tables
from .peers import PEERS, peers
from .scoring import score
from .systems import DEFAULT, WINDOWS, System, sized

if TYPE_CHECKING:
    from .runner import Options

NEEDS = tuple(f"retrieval/{name}" for name in ("squad-dev", "covidqa", "cranfield", "scifact"))
SOURCES = ("squad-dev", "covidqa", "cranfield", "scifact")


def run(options: Options) -> dict[str, Any]:
    """Print the tables of each collection."""
    report = {}
    for name in options.wanted(SOURCES):
        source = options.source(name)
        systems: list[System] = list(options.settings or (DEFAULT, WINDOWS))
        if not options.settings:
            if not source.has_spans:
                systems.append(sized(128, 0, keep_whole=0))
            else:
                systems += peers(options.peers, PEERS)
        found = [score(system, source, options.vectors) for system in systems]
        report[name] = tables.show_source(source, found, systems[0].name)
    return report

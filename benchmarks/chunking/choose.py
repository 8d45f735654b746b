"""Chooses the default: sizes, overlaps, titles and headings in front, short documents kept whole.

Only on training material: two samples of SQuAD's training articles, MedQuAD's answers (judged by
document) and Markdown files. Peers' splitters have their best size from here too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import sources, tables
from .peers import PEERS, peers
from .scoring import score
from .systems import DEFAULT, WINDOWS, Ours, System, sized

if TYPE_CHECKING:
    from .runner import Options

SIZES = (64, 96, 128, 160, 192)
NEEDS = (sources.TRAINING, "documents.tar.xz")
SOURCES = ("squad-train", "squad-train-2", "medquad", "markdown")


def rows(name: str) -> list[Ours]:
    """Return this package's rows for a collection."""
    found = [DEFAULT, WINDOWS, sized(None, 0)]
    if name == "squad-train-2":
        return found + [sized(size, 0) for size in (96, 128, 160)]
    found += [sized(size, 0) for size in SIZES]
    if name == "medquad":
        return [*found, *(sized(size, 0, keep_whole=256) for size in (96, 128))]
    found += [sized(128, overlap) for overlap in (16, 32)]
    found.append(sized(128, 0, prefix_title=True))
    if name == "markdown":
        found += [sized(128, 0, prefix_headings=True)]
        found += [sized(128, 0, prefix_title=True, prefix_headings=True)]
    return found


def run(options: Options) -> dict[str, Any]:
    """Print the tables of each collection."""
    report = {}
    for name in options.wanted(SOURCES):
        source = options.source(name)
        systems: list[System] = list(options.settings or rows(name))
        if name in ("squad-train", "markdown") and not options.settings:
            systems += peers(options.peers, PEERS)
        found = [score(system, source, options.vectors) for system in systems]
        report[name] = tables.show_source(source, found, systems[0].name)
        if len(systems) > len(rows(name)):
            mine = [one for one in found if one.system.startswith("retriever")]
            tables.show_equal(source, mine, [one for one in found if one not in mine])
    return report

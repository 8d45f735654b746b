"""Chooses the default: sizes, overlaps, rules, what is put in front, what is kept whole.

Only on training material: two samples of SQuAD's training articles; its paragraphs and MedQuAD's
answers, judged by document; and Markdown files. Peers' splitters have their best size from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retriever.documents.rules import FIRST, RULES

from . import sources, tables
from .markdown import ARCHIVE
from .peers import MARKDOWN, PEERS, peers
from .scoring import score
from .systems import BEFORE, DEFAULT, Ours, System, kept_whole, sized

if TYPE_CHECKING:
    from .runner import Options

NEEDS = (sources.TRAINING, ARCHIVE)
SIZES = (64, 96, 136, 160, 192, 254)
SIZE = 128  # of the default, and of the rows that change something else
RULES_OF = {
    "former rules": FIRST,
    "paragraphs not kept apart": RULES._replace(paragraphs=False),
    "paragraphs under 64 tokens joined": RULES._replace(least=0.5),
    "paragraphs never joined": RULES._replace(least=0.0),
    "long paragraphs not divided evenly": RULES._replace(even=False),
    "former ranks": RULES._replace(ranks=1),
    "a sentence is worth a word": RULES._replace(worth=(0, 1, 1, 1, 4, 5)),
}
"""What each rule is worth: the present ones but for one, at one size."""


def _sizes(*sizes: int) -> list[Ours]:
    return [sized(size, 0) for size in sizes]


def _rules() -> list[Ours]:
    return [
        Ours(f"retriever {SIZE}, {name}", {"tokens": SIZE, "overlap": 0}, rules)
        for name, rules in RULES_OF.items()
    ]


def _overlaps() -> list[Ours]:
    return [sized(SIZE, overlap) for overlap in (16, 32)]


def _fronts() -> list[Ours]:
    fronts = ({"prefix_title": True}, {"prefix_headings": True})
    return [sized(SIZE, 0, **front) for front in (*fronts, fronts[0] | fronts[1])]


def _kept() -> list[Ours]:
    return [kept_whole(limit) for limit in (192, 254)]


ROWS = {
    "squad-train": [*_sizes(*SIZES), *_overlaps(), *_rules(), sized(SIZE, 0, prefix_title=True)],
    "squad-train-2": _sizes(96, 160),
    "squad-paragraphs": [*_sizes(96, 254), *_kept()],
    "medquad": [*_sizes(96, 254), *_kept()],
    "scifact-train": [kept_whole(254)],
    "markdown": [*_sizes(96, 192, 254), *_overlaps(), *_rules(), *_fronts()],
}


def run(options: Options) -> dict[str, Any]:
    """Print the tables of each collection."""
    report = {}
    for name in options.wanted(tuple(ROWS)):
        source = options.source(name)
        mine: list[System] = list(options.settings or [DEFAULT, BEFORE, *ROWS[name]])
        others: list[System] = []
        if name in ("squad-train", "markdown") and not options.settings:
            others += peers(options.peers, PEERS if name == "squad-train" else MARKDOWN)
        ours = [score(system, source, options.vectors) for system in mine]
        theirs = [score(system, source, options.vectors) for system in others]
        report[name] = tables.show_source(source, ours + theirs, mine[0].name)
        if name == "markdown":
            tables.show_kinds(source, ours + theirs)
        if theirs:
            tables.show_equal(source, ours, theirs)
    return report

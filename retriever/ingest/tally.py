"""Counts of a call that changes documents, while it goes on."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from retriever.reports import IngestReport
from retriever.types import FileOutcome, Ledger, Unfamiliar


@dataclass(slots=True)
class IngestTally:
    """What a call has done so far; `IngestReport`, which has the same fields, explains them."""

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    empty: int = 0
    removed: int = 0
    missing: int = 0
    deleted: int = 0
    skipped: list[FileOutcome] = field(default_factory=list)
    failed: list[FileOutcome] = field(default_factory=list)
    doubtful: list[FileOutcome] = field(default_factory=list)
    unfamiliar: list[Unfamiliar] = field(default_factory=list)
    excluded: int = 0
    chunks: int = 0
    noise: int = 0
    encoded: int = 0
    tokens: int = 0
    truncated: int = 0
    commits: int = 0
    seconds: float = 0.0

    def note(self, document_id: str, chunks: int, ledger: Ledger) -> None:
        """Count a document that was written: its chunks, and what became of its tokens."""
        self.empty += not chunks
        self.chunks += chunks
        self.noise += ledger.noise
        self.tokens += ledger.tokens
        self.truncated += ledger.truncated
        if ledger.is_unfamiliar:
            self.unfamiliar.append(Unfamiliar(document_id, round(ledger.unknown_share, 4)))

    def add(self, other: IngestTally) -> None:
        """Add the counts of another tally, that of a batch which was committed."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def report(self) -> IngestReport:
        """Return what was done, as a value."""
        noted: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        lists = {name: tuple(value) for name, value in noted.items() if isinstance(value, list)}
        return IngestReport(**{**noted, **lists})

"""One check of `verify`: its name, and what it found wrong."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Check:
    """One check: its name, and what it found wrong."""

    name: str
    detail: str = ""
    problems: list[str] = field(default_factory=list)

    def blame(self, problem: str) -> None:
        """Note a problem."""
        self.problems.append(problem)

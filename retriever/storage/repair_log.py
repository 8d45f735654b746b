"""What a repair notes while it works, from which its report is made."""

from __future__ import annotations

from retriever.reports import LostDocument, RepairReport, VerifyReport


class RepairLog:
    """What was done, set aside and lost so far; `RepairReport` says what each list holds."""

    def __init__(self) -> None:
        self.actions: list[str] = []
        self.quarantined: list[str] = []
        self.lost: list[LostDocument] = []

    def __bool__(self) -> bool:
        """Return whether the repair has done or found anything yet."""
        return bool(self.actions or self.quarantined or self.lost)

    def report(self, verified: VerifyReport | None, *, finished: bool = True) -> RepairReport:
        """Return the report of a repair that ends here.

        Args:
            verified: The verification afterwards, if the index could be verified.
            finished: Whether the repair did all that it set out to do.
        """
        return RepairReport(
            actions=tuple(self.actions),
            quarantined=tuple(self.quarantined),
            lost=tuple(self.lost),
            verify=verified,
            ok=finished and verified is not None and verified.ok,
        )

"""What the parts are asked."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..machine import machine
from . import ROOT, sources
from .sources import Source
from .systems import Ours
from .vectors import Vectors


@dataclass(frozen=True)
class Options:
    """What a part is asked to do.

    Attributes:
        data: The data folder.
        work: Where archives are unpacked and vectors are kept.
        peers: The interpreter of the environment with the peers, or None to leave them out.
        model: The encoder.
        only: Parts of names of collections; none means all.
        settings: Rows of this package's chunker instead of those of the part.
    """

    data: Path
    work: Path
    peers: str | None
    model: str
    only: Sequence[str] = ()
    settings: Sequence[Ours] = ()

    @cached_property
    def vectors(self) -> Vectors:
        """Return the encoder with what it has encoded before."""
        return Vectors(self.work / "vectors", self.model)

    def wanted(self, names: Sequence[str]) -> list[str]:
        """Return the collections that are to be measured."""
        return [name for name in names if not self.only or name in self.only]

    def source(self, name: str) -> Source:
        """Return a collection."""
        return sources.load(name, self.data, self.work)

    def about(self) -> dict[str, Any]:
        """Return what the figures are from: machine, commit, model and precision."""
        described = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=False,
        )
        return {
            "machine": machine(),
            "commit": described.stdout.strip() or "unknown",
            "model": Path(self.model).name,
            "precision": self.vectors.encoder.precision,
        }

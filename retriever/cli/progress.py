"""Progress on a terminal: what is done, the rate and the time left; nothing elsewhere."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

from retriever.cli import signals

if TYPE_CHECKING:
    from retriever.cli.bars import Bars
    from retriever.types import Progress

_PATIENCE_S = 0.4
_CLEAR = b"\r\x1b[2K\x1b[?25h"
"""Empties the line and shows the cursor again."""


class ProgressDisplay:
    """A `progress=` callback that draws on stderr, and clears its line at the end.

    It appears after a moment, so that a quick command neither flickers nor imports rich, and in
    a thread, so that it also shows while a model is loaded.

    Args:
        stage: What is going on, until the first call says so.
        wanted: False shows nothing; so does a stderr that is not a terminal.
    """

    def __init__(self, stage: str, *, wanted: bool = True) -> None:
        self._stage = stage
        self._wanted = wanted and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._lock = threading.RLock()  # an interrupt may come inside a block
        self._timer = threading.Timer(_PATIENCE_S, self._appear)
        self._timer.daemon = True
        self._bars: Bars | None = None
        self._latest: Progress | None = None
        self._is_over = False

    def __enter__(self) -> ProgressDisplay:
        if self._wanted:
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            self._is_over = True
            if self._bars is not None:
                self._bars.stop()
                signals.clear_with(b"")

    def __call__(self, progress: Progress) -> None:
        """Show how far the call has come."""
        if not self._wanted:
            return
        with self._lock:
            self._latest = progress
            if self._bars is not None:
                self._bars.update(progress)

    def _appear(self) -> None:
        from retriever.cli.bars import Bars

        # Outside of the lock, because importing rich takes time in which no report should have to
        # wait.
        bars = Bars(self._stage)
        with self._lock:
            if self._is_over:
                return
            if self._latest is not None:
                bars.update(self._latest)
            # Before rich hides the cursor, so that it is shown again whenever the process is ended.
            signals.clear_with(_CLEAR)
            bars.start()
            self._bars = bars

"""Progress on a terminal: how far, how fast, how long still; nothing anywhere else."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from retriever.cli import output

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from retriever.types import Progress

_PATIENCE_S = 0.4
_ROOM_FOR_A_BAR = 72
_ROOM_FOR_ITEMS = 110


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
        self._lock = threading.Lock()
        self._timer = threading.Timer(_PATIENCE_S, self._appear)
        self._timer.daemon = True
        self._bars: Bars | None = None
        self._task: Any = None
        self._latest: Progress | None = None
        self._is_over = False
        self._tokens_began: tuple[float, int] | None = None

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

    def __call__(self, progress: Progress) -> None:
        """Take in how far the call has come."""
        if not self._wanted:
            return
        with self._lock:
            self._latest = progress
            if self._bars is not None:
                self._update(self._bars, progress)

    def _appear(self) -> None:
        bars = _bars()
        with self._lock:
            if self._is_over:
                return
            self._bars = bars
            self._task = bars.add_task(self._stage, total=None, amount="", pace="", item="")
            if self._latest is not None:
                self._update(bars, self._latest)
            bars.start()

    def _update(self, bars: Bars, progress: Progress) -> None:
        total = "" if progress.total is None else f"/{progress.total:,}"
        bars.update(
            self._task,
            description=progress.stage,
            completed=progress.done,
            total=progress.total,
            amount=f"{progress.done:,}{total} {progress.unit}",
            pace=self._pace(bars, progress),
            item=output.in_one_line(progress.item),
        )

    def _pace(self, bars: Bars, progress: Progress) -> str:
        """Return the rates, of tokens since the first were encoded."""
        paces = []
        speed = bars.tasks[0].speed
        if speed:
            paces.append(f"{speed:,.{0 if speed >= 10 else 1}f} {progress.unit}/s")
        now = time.monotonic()
        if progress.tokens and self._tokens_began is None:
            self._tokens_began = (now, progress.tokens)
        if self._tokens_began is not None:
            began, before = self._tokens_began
            if now > began and progress.tokens > before:
                paces.append(f"{(progress.tokens - before) / (now - began):,.0f} tokens/s")
        return " · ".join(paces)


def _bars() -> Bars:
    """Return a display that fits the terminal; rich is imported here only."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    console = Console(stderr=True)
    columns: list[ProgressColumn] = [
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False, style="bold"),
    ]
    if console.width >= _ROOM_FOR_A_BAR:
        columns.append(BarColumn(bar_width=20))
    columns.append(TextColumn("{task.fields[amount]}", markup=False))
    if console.width >= _ROOM_FOR_A_BAR:
        columns.append(TextColumn("{task.fields[pace]}", markup=False, style="dim"))
    columns += [TimeElapsedColumn(), TimeRemainingColumn(compact=True)]
    if console.width >= _ROOM_FOR_ITEMS:
        room = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        columns.append(
            TextColumn("{task.fields[item]}", markup=False, style="dim", table_column=room)
        )
    return Progress(
        *columns, console=console, transient=True, refresh_per_second=8, redirect_stdout=False
    )

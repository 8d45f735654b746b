"""Progress drawn on a terminal; the only module that imports rich.

Spinner, bar and elapsed time are rich's own columns. Rates and the time left are not, for two
reasons. Reports come in steps that may be minutes apart, between which rich's `speed` and
`time_remaining` stand still: a step of ten minutes leaves them at what they were, and the one after
without a value, since its 30 seconds of samples are empty. And rich extrapolates from the count of
files, whose sizes differ, where `Progress.share` is of the text.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import TypeAlias

from rich import progress as rich
from rich.console import Console
from rich.table import Column
from rich.text import Text

from retriever.cli import output
from retriever.types import Progress

_WIDTH_FOR_BAR = 80
_WIDTH_FOR_RATES = 100
_WIDTH_FOR_ITEMS = 140
_WIDTH_OF_FACTS = 110
_NEVER = 1 << 62
_WINDOW_S = 30.0
_MIN_SECONDS = 3.0
_MIN_SHARE = 0.03
_LONG_MEASURED_S = 20.0
_MIN_STEP_S = 0.25

Clock: TypeAlias = Callable[[], float]


class Bars:
    """One line on stderr with the latest `Progress`; narrow terminals get fewer columns.

    Args:
        stage: What is done, until the first report says it.
        clock: Returns seconds, for rates and the time left.
    """

    def __init__(self, stage: str, clock: Clock = time.monotonic) -> None:
        console = Console(stderr=True)
        self._item_width = max(0, console.width - _WIDTH_OF_FACTS)
        self._facts = _Facts(clock, rates=console.width >= _WIDTH_FOR_RATES)
        columns: list[rich.ProgressColumn] = [
            rich.SpinnerColumn(),
            rich.TextColumn("{task.description}", markup=False, style="bold"),
        ]
        if console.width >= _WIDTH_FOR_BAR:
            columns.append(rich.BarColumn(bar_width=20))
        columns += [rich.TimeElapsedColumn(), self._facts]
        if console.width >= _WIDTH_FOR_ITEMS:
            rest = Column(no_wrap=True, overflow="ellipsis", ratio=1)
            columns.append(
                rich.TextColumn("{task.fields[item]}", markup=False, style="dim", table_column=rest)
            )
        self._rich = rich.Progress(
            *columns, console=console, transient=True, refresh_per_second=8, redirect_stdout=False
        )
        self._task = self._rich.add_task(stage, total=None, item="")

    def start(self) -> None:
        """Start drawing, in a thread that rich starts."""
        self._rich.start()

    def stop(self) -> None:
        """Stop drawing and clear the line."""
        self._rich.stop()

    def update(self, progress: Progress) -> None:
        """Show how far the call has come."""
        self._facts.see(progress)
        self._rich.update(
            self._task,
            description=progress.stage,
            # When all is encoded the last commit is still to come: the bar stays a little short of
            # the total, or rich would take the task as finished and stop its clock.
            completed=min(progress.done, (progress.total or _NEVER) - 0.01),
            total=progress.total,
            item=output.in_one_line(progress.item)[: self._item_width],
        )


class Rate:
    """Units per second over the last half minute; it falls while nothing is done."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque([(clock(), 0)])

    def see(self, done: int) -> None:
        """Record how many units are done by now."""
        now = self._clock()
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] < now - _WINDOW_S:
            self._seen.popleft()

    def per_second(self) -> float:
        """Return the rate as of now."""
        (began, before), (_, done) = self._seen[0], self._seen[-1]
        return (done - before) / max(self._clock() - began, 1e-3)


class TimeLeft:
    """Estimates the seconds left from the share of the work that is done.

    Time before the first report of progress is not counted, since a model may have been loaded
    meanwhile. The rate is measured over the later half of the time, or over the last half minute if
    that is longer: steady, yet following where long texts come after short ones. Between two
    reports the estimate counts down; when the next one is overdue, it grows.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._seen: deque[tuple[float, float]] = deque()

    def see(self, share: float) -> None:
        """Record that a share of the work, from 0 to 1, is done by now."""
        now = self._clock()
        if share <= 0 or (self._seen and share <= self._seen[-1][1]):
            return
        # Reports in quick succession count as one step, since `seconds` calls a report overdue by
        # the average length of a step.
        if self._seen and now - self._seen[-2 if len(self._seen) > 1 else -1][0] < _MIN_STEP_S:
            self._seen.pop()
        self._seen.append((now, share))
        oldest = now - max(_WINDOW_S, (now - self._began) / 2)
        while len(self._seen) > 2 and self._seen[1][0] < oldest:
            self._seen.popleft()

    def seconds(self) -> float | None:
        """Return the seconds left, or None while there is too little to estimate from."""
        now = self._clock()
        if len(self._seen) < 2 or now - self._began < _MIN_SECONDS:
            return None
        (first, before), (last, share) = self._seen[0], self._seen[-1]
        is_enough = share >= _MIN_SHARE or last - first >= _LONG_MEASURED_S
        if not is_enough or share >= 1:
            return None
        # A report that takes twice the average step means that the rate has fallen.
        overdue = last + 2 * (last - first) / (len(self._seen) - 1)
        waited = min(now, overdue) - last
        took = last - first + max(0.0, now - overdue)
        return max(0.0, (1 - share) * took / (share - before) - waited)


class _Facts(rich.ProgressColumn):
    """`49/51 files · 2.2 files/s · 1,300 tokens/s · 0:00:01 left`."""

    def __init__(self, clock: Clock, *, rates: bool) -> None:
        super().__init__(Column(no_wrap=True))
        self._shows_rates = rates
        self._latest: Progress | None = None
        self._units, self._tokens, self._left = Rate(clock), Rate(clock), TimeLeft(clock)

    def see(self, progress: Progress) -> None:
        self._latest = progress
        self._units.see(progress.done)
        self._tokens.see(progress.tokens)
        share = progress.share
        if share is None:
            share = progress.done / progress.total if progress.total else 0.0
        self._left.see(share)

    def render(self, task: rich.Task) -> Text:
        latest = self._latest
        if latest is None:
            return Text()
        total = "" if latest.total is None else f"/{latest.total:,}"
        facts = [f"{latest.done:,}{total} {latest.unit}"]
        pace = self._units.per_second()
        if self._shows_rates and pace:
            facts.append(f"{_number(pace)} {latest.unit}/s")
        left = self._left.seconds()
        if self._shows_rates and latest.tokens:
            facts.append(f"{_number(self._tokens.per_second())} tokens/s")
        elif latest.tokens and left is None:  # nothing else moves while the first files are encoded
            facts.append(output.count(latest.tokens, "token"))
        if left is not None:
            facts.append(f"{timedelta(seconds=round(left))} left")
        return Text(" · ".join(facts))


def _number(pace: float) -> str:
    return f"{pace:,.0f}" if pace >= 10 else f"{pace:.1f}"

"""Cut the power at any moment: rebuild what the disk may hold then, and check the index in it.

All kinds of work are done once and recorded, call by call (`shim.py`). A trial takes a moment of a
recording and one of the states that `disk.py` allows for it; in that state the index must open,
verify, and hold every acknowledged call. Backups that were acknowledged must too. In some trials
the power goes a second time, while the index recovers from the first. Between the calls, fsyncs
fail and processes die (`incidents.py`); what was pending at a failed fsync is lost for good.
"""

from __future__ import annotations

import itertools
import json
import logging
import random
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from retriever import Index

from . import disk, incidents, shim, work
from .runner import Failure, Options, Outcome, Seen, require, run_trials

STATES = 80  # to a recording
INDEX = "stores/of/one.index"  # its directories are made by the index
BACKUPS = {3: "backups/early", 12: "backups/late", 24: "last"}  # after the call of this number
_POLICIES = [*disk.POLICIES, "half", "half"]  # where it is random, more states differ
_NEAR = 3
_AGAIN = 0.25  # of the states, in which the recovery is cut short too
_LEFT_OUT = 0.8  # of the backups that were made some calls ago


class MarkJournal:
    """A journal among the recorded events."""

    def intend(self, call: work.Call) -> None:
        """See `work.Journal`."""
        shim.mark("intent " + json.dumps(call))

    def acknowledge(self, call: work.Call) -> None:
        """See `work.Journal`."""
        shim.mark(f"done {call['number']}")


@dataclass
class Story:
    """What the marks before a cut say.

    Attributes:
        created: The call that creates the index has returned.
        calls: The calls announced, each with `done`.
        backups: Each backup that was begun: how many calls it holds, and whether it returned.
    """

    created: bool = False
    calls: list[work.Call] = field(default_factory=list)
    backups: dict[str, tuple[int, bool]] = field(default_factory=dict)

    @classmethod
    def read(cls, marks: list[str]) -> Story:
        """Return the story that marks tell."""
        story = cls()
        for mark in marks:
            word, _, rest = mark.partition(" ")
            if word == "created":
                story.created = True
            elif word == "intent":
                story.calls.append({**json.loads(rest), "done": False})
            elif word == "done":
                story.calls[-1]["done"] = True
            elif word in ("backup", "kept"):
                story.backups[rest] = (len(story.calls), word == "kept")
            else:
                raise ValueError(mark)
        return story

    def known(self, count: int | None = None) -> work.Known:
        """Return what the acknowledged ones among the first calls have left."""
        known: work.Known = {}
        work.split(known, self.calls[:count])
        return known

    @property
    def cut_short(self) -> work.Call | None:
        """Return the call that did not return, or the damage done on purpose and not mended yet."""
        if not self.calls:
            return None
        last = self.calls[-1]
        return last if not last["done"] or last["kind"] in ("rot", "break") else None


def run(options: Options) -> Outcome:
    """Make the recordings, then check states of each."""
    shim.load()
    options = replace(options, folder=options.folder.resolve())
    outcome = run_trials("power", replace(options, count=0, only=None), _trial)
    wanted = sorted({number // STATES for number in options.numbers})
    for number in wanted:
        one = replace(options, only=number)
        if options.only is not None and _log(one.folder / "any", number).exists():
            continue  # a trial is repeated in its own recording: a new one would differ
        outcome.failures += run_trials("recording", one, _record).failures
    if not outcome.failures:
        began = time.monotonic()
        outcome = run_trials("power", options, _trial)
        outcome.notes["states a second"] = round(outcome.trials / (time.monotonic() - began), 1)
    outcome.notes["recordings"] = len(wanted)
    return outcome


# --- recording -------------------------------------------------------------------------------


def _log(folder: Path, number: int) -> Path:
    """Return the recording of a number; `folder` is that of any trial."""
    return folder.parent / f"recording-{number}.log"


def _begin() -> None:
    logging.disable(logging.WARNING)  # files that repair rebuilds are not news here


def _number(seed: str) -> int:
    return int(seed.rpartition("-")[2])


def _record(seed: str, folder: Path) -> Seen:
    _begin()
    log, root = _log(folder, _number(seed)), folder / "disk"
    log.unlink(missing_ok=True)
    root.mkdir()
    shim.watch(root)
    shim.record(log)
    _work(seed, root)
    shim.record(None)
    _require_complete(log, root)
    # The directory of a trial goes when it ends; where the recording was made must stay known.
    log.with_suffix(".root").write_text(str(root))
    return Counter()


def _work(seed: str, root: Path) -> None:
    rng = random.Random(f"script {seed}")
    script = [*work.SCRIPT, *rng.choices(work.MIX, k=6)]
    known: work.Known = {}
    session = work.Session(root / INDEX)
    shim.mark("created")
    planned = work.calls(seed, known, script)
    for call in work.make_calls(session, MarkJournal(), known, planned):
        if target := BACKUPS.get(call["number"]):
            shim.mark(f"backup {target}")
            session.index.backup(root / target)
            shim.mark(f"kept {target}")
        if call["kind"] not in ("rot", "break"):
            incidents.maybe(session.path, root, rng)
    session.index.close()


def _require_complete(log: Path, root: Path) -> None:
    """Require that the recording, with nothing lost, is what the disk really holds."""
    rebuilt = disk.replay(shim.read(log), root, "weak", "everything", random.Random(0))
    seen: disk.Files = {}
    for path in root.rglob("*"):
        seen[str(path.relative_to(root))] = path.read_bytes() if path.is_file() else None
    ours, theirs = _comparable(rebuilt.files), _comparable(seen)
    names = sorted(ours.keys() | theirs.keys())
    differing = [name for name in names if ours.get(name, b"?") != theirs.get(name, b"?")]
    require(not differing, f"the recorder has missed writes to {differing[:5]}")


def _comparable(files: disk.Files) -> disk.Files:
    """Leave out what is written through memory (-shm)."""
    return {name: content for name, content in files.items() if "-shm" not in name}


# --- a state ---------------------------------------------------------------------------------


def _trial(seed: str, folder: Path) -> Seen:
    _begin()
    rng = random.Random(f"state {seed}")
    log = _log(folder, _number(seed) // STATES)
    events = list(shim.read(log))
    cut = _choose_cut(events, rng)
    model, policy = rng.choice(disk.MODELS), rng.choice(_POLICIES)
    root = log.with_suffix(".root").read_text()
    state = disk.replay(events[:cut], root, model, policy, rng, failed_syncs=True)
    story = Story.read(state.marks)
    seen: Seen = Counter({f"model: {model}": 1, f"policy: {policy}": 1})
    seen["with acknowledged calls"] += any(call["done"] for call in story.calls)
    last = story.calls[-1]["kind"] if story.calls else "creation"
    where = f"{model}, {policy}, event {cut} of {len(events)} in {log.name}, last {last}"
    try:
        if rng.random() < _AGAIN:
            where += ", and again in the recovery"
            state = _cut_again(_comparable(state.files), story, folder, model, policy, rng)
            seen["cut again in the recovery"] += 1
        seen["something was dropped"] += state.dropped > 0
        seen["torn"] += state.torn > 0
        disk.materialise(_comparable(state.files), folder / "disk")
        seen += _check_index(folder / "disk" / INDEX, story)
        seen += _check_backups(folder / "disk", story, rng)
    except Exception as exc:
        what = str(exc) if isinstance(exc, Failure) else traceback.format_exc()
        raise Failure(f"{where}: {what}") from exc
    return seen


def _cut_again(
    before: disk.Files, story: Story, folder: Path, model: str, policy: str, rng: random.Random
) -> disk.State:
    """Let the index recover from a state, and return a state in the midst of that."""
    root, log = folder / "first", folder / "recovery.log"
    disk.materialise(before, root)
    shim.watch(root)
    shim.record(log)
    path, cut_short = root / INDEX, story.cut_short
    if story.created and cut_short and cut_short["kind"] in ("rot", "break", "repair"):
        Index.repair_path(path, model=work.encoder(), limits=work.LIMITS)
    with work.open_index(path, create=not story.created) as index:
        index.compact()
    shim.record(None)
    events = list(shim.read(log))
    events = events[: _choose_cut(events, rng)]
    return disk.replay(events, root, model, policy, rng, before=before)


def _choose_cut(events: list[shim.Event], rng: random.Random) -> int:
    """Choose a moment: beside an fsync, a rename or a mark, within some call, or any at all."""
    how = rng.randrange(4)
    if how == 0:
        return rng.randint(0, len(events))
    marks = [number for number, event in enumerate(events) if event.kind == "mark"]
    marks = [0, *marks, len(events) - 1]
    begin, end = rng.choice(list(itertools.pairwise(marks)))
    if how == 1:
        return rng.randint(begin, end)
    kinds = ("fsync", "rename", "mark")
    among = range(begin, end + 1) if how == 2 else range(len(events))
    near = rng.choice([number for number in among if events[number].kind in kinds] or [end])
    return min(max(near + rng.randint(-_NEAR, _NEAR), 0), len(events))


def _check_index(path: Path, story: Story) -> Seen:
    if not story.created:
        work.open_index(path, create=True).close()
    known, cut_short = story.known(), story.cut_short
    return work.check(path, known, cut_short)


def _check_backups(folder: Path, story: Story, rng: random.Random) -> Seen:
    """Require of a backup what it holds; one that has not returned is whole or not there."""
    seen: Seen = Counter()
    for number, (target, (count, is_kept)) in enumerate(story.backups.items(), 1):
        if not is_kept and not (folder / target).exists():
            seen["backups cut short"] += 1
            continue
        is_old = number < len(story.backups) or count < len(story.calls)
        if is_old and rng.random() < _LEFT_OUT:
            continue
        require((folder / target).is_dir(), f"the backup {target} is gone")
        work.check(folder / target, story.known(count), None)
        seen["backups"] += 1
    return seen

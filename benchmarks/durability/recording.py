"""Every call that changes files while a store is written, from which the power can be cut.

A process is started with the shim; what it records must lead to the very files that it left, or the
store cannot be judged by it.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import disk, shim
from .process import SCRIPT, Bench, Unjudged

KINDS = [*SCRIPT, "add", "mixed"]


@dataclass
class Recording:
    """What happened beneath a directory, in order; the marks are the notes of `process.write`."""

    root: Path
    events: list[shim.Event]

    def acknowledged(self) -> list[int]:
        """Return after how many events each call returned."""
        return [n for n, event in enumerate(self.events, 1) if event.data == b"done"]

    def moment(self, rng: random.Random) -> int:
        """Return a moment to cut the power at, in or after any call.

        Half are just after a call has returned, because stores are idle most of the time; some
        make thousands of small writes in one call, so that moments in calls alone favour others.
        """
        ends = self.acknowledged()
        at = rng.randrange(len(ends))
        begin = ends[at - 1] if at else self.events.index(next(filter(_is_ready, self.events))) + 1
        return rng.choice([ends[at], rng.randint(begin + 1, ends[at])])

    def state(self, cut: int, model: str, policy: str, rng: random.Random) -> disk.State:
        """Return a state that the disk may be in after so many events."""
        return disk.replay(self.events[:cut], self.root, model, policy, rng)


def _is_ready(event: shim.Event) -> bool:
    return event.data == b"ready"


def record(bench: Bench, seed: str) -> Recording:
    """Write a store under the shim; require that the record leads to the same files.

    The store's own directory is taken to last from the moment it is made, as if its users had made
    it long before: no store is blamed for not syncing the directory above it.
    """
    root, log = (bench.folder / "disk").resolve(), (bench.folder / "log").resolve()
    root.mkdir()
    log.unlink(missing_ok=True)
    writer = bench.process(LD_PRELOAD=str(shim.build()), SHIM_WATCH=str(root), SHIM_LOG=str(log))
    try:
        writer.ask(do="write", path=root / "store", journal=None, seed=seed, kinds=KINDS)
    finally:
        writer.end()
    there = {
        str(file.relative_to(root)): None if file.is_dir() else file.read_bytes()
        for file in root.rglob("*")
    }
    events = _with_renames(list(shim.read(log)), root, there)
    made = next(n for n, event in enumerate(events) if event.kind == "mkdir")
    events.insert(made + 1, _event("fsync", str(root)))
    # What is written through memory maps is not recorded; of SQLite's -shm nothing is lost by that.
    differ = [name for name in _differ(_rebuilt(events, root), there) if "-shm" not in name]
    if differ:
        raise Unjudged(f"{len(differ)} files are not as recorded: {', '.join(differ[:2])}")
    return Recording(root, events)


def _event(kind: str, path: str, target: str = "") -> shim.Event:
    return shim.Event(kind, 0, 0, path, target, b"", False, False)


def _rebuilt(events: list[shim.Event], root: Path) -> disk.Files:
    return disk.replay(events, root, "weak", "everything", random.Random(0)).files


def _differ(rebuilt: disk.Files, there: disk.Files) -> list[str]:
    names = sorted(rebuilt.keys() | there.keys())
    return [name for name in names if rebuilt.get(name, b"?") != there.get(name, b"?")]


def _with_renames(events: list[shim.Event], root: Path, there: disk.Files) -> list[shim.Event]:
    """Add renames of temporary files that were made past the C library, and so past the shim.

    Rust's tempfile (LanceDB) does so. A temporary file that is gone in truth was given, right
    after its last write, the name in its directory under which its content is; where the content
    is no longer there, the name that a later one in that directory got, which replaced it.
    """
    rebuilt = _rebuilt(events, root)
    last: dict[str, int] = {}
    for number, event in enumerate(events):
        name = event.path.removeprefix(f"{root}/")
        if event.kind == "write" and name in rebuilt and name not in there:
            last[name] = number
    free: dict[tuple[str, bytes | None], list[str]] = defaultdict(list)
    for name, content in there.items():
        free[_parent(name), content].append(name)
    renames: dict[int, shim.Event] = {}
    replaced: dict[str, str] = {}
    for name, number in sorted(last.items(), key=lambda item: -item[1]):
        same = free[_parent(name), rebuilt[name]]
        target = same.pop() if same else replaced.get(_parent(name), "")
        if target:
            replaced.setdefault(_parent(name), target)
            renames[number] = _event("rename", f"{root}/{name}", f"{root}/{target}")
    return list(_inserted(events, renames))


def _inserted(events: list[shim.Event], after: dict[int, shim.Event]) -> Iterator[shim.Event]:
    for number, event in enumerate(events):
        yield event
        if number in after:
            yield after[number]


def _parent(name: str) -> str:
    return name.rpartition("/")[0]

"""The model of a disk: what it may hold after the power was cut between two recorded calls.

A recording (`shim.py`) is every call that changed files beneath a directory that was empty when it
began. For any other program, record a child with the environment `LD_PRELOAD=<shim.build()>`,
`SHIM_WATCH=<directory>`, `SHIM_LOG=<file>` (absolute paths without symbolic links). Then

    events = list(shim.read(log))
    state = disk.replay(events[:cut], directory, model, policy, rng)
    disk.materialise(state.files, folder)   # rebuilds `directory` as `folder`
    state.marks                             # the texts of the marks before the cut, in order

Files are objects with names, as inodes are. What a successful fsync of an object covered is there;
of the rest the model says what may have become of it, and the policy chooses:

- `journalled` (ext4, but hostile to data): changes of names and truncations become durable in
  order, and any fsync makes all earlier ones durable. Data not synced may be lost.
- `weak` (POSIX at its worst): a change in a directory is durable once that directory was synced;
  until then each happened or did not, independently of all others, and a file whose name is lost
  is gone. A file's fsync says nothing of its name. Truncations keep their order within a file.
- `weak, split`: as `weak`, and the two halves of a rename are independent too, so that both names
  or neither may be left.

In all of them the data of a file not synced is lost or kept per sector of 512 bytes, a later write
without an earlier one; a sector is never torn. What is lost beyond the synced end reads as zeros;
the size is anything from the synced one, or the last durable truncation, to the largest written.
`failed_syncs` drops the data pending when an fsync fails, as Linux does, for good.

Not modelled: memory-mapped writes (they are not recorded), permissions, times, symbolic links, old
content of the medium showing through holes, damage to what was synced.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

from .shim import Event

MODELS = ["journalled", "weak", "weak, split"]
POLICIES = ["nothing", "everything", "half", "names only", "data only", "prefix"]
SECTOR = 512

Files: TypeAlias = "dict[str, bytes | None]"


class _Write(NamedTuple):
    time: int
    offset: int
    data: bytes


class _Resize(NamedTuple):
    time: int
    size: int


class _Entry(NamedTuple):
    time: int
    half: str
    name: str
    node: _File | _Directory | None


@dataclass(eq=False)
class _File:
    synced: bytearray = field(default_factory=bytearray)
    pending: list[_Write | _Resize] = field(default_factory=list)

    def sync(self) -> None:
        for change in self.pending:
            if isinstance(change, _Resize):
                _resize(self.synced, change.size)
            else:
                _write(self.synced, change.offset, change.data)
        self.pending.clear()


@dataclass(eq=False)
class _Directory:
    now: dict[str, _File | _Directory] = field(default_factory=dict)
    synced: dict[str, _File | _Directory] = field(default_factory=dict)
    pending: list[_Entry] = field(default_factory=list)

    def set(self, time: int, half: str, name: str, node: _File | _Directory | None) -> None:
        _set(self.now, name, node)
        self.pending.append(_Entry(time, half, name, node))

    def sync(self) -> None:
        self.synced = dict(self.now)
        self.pending.clear()


_Node: TypeAlias = "_File | _Directory"


def _set(entries: dict[str, _Node], name: str, node: _Node | None) -> None:
    if node is None:
        entries.pop(name, None)
    else:
        entries[name] = node


def _resize(content: bytearray, size: int) -> None:
    if size < len(content):
        del content[size:]
    else:
        content.extend(bytes(size - len(content)))


def _write(content: bytearray, offset: int, data: bytes) -> None:
    if offset > len(content):
        _resize(content, offset)
    content[offset : offset + len(data)] = data


@dataclass
class State:
    """What a disk may hold.

    Attributes:
        files: Relative path to content; None for a directory.
        marks: The texts of the marks before the cut, in order.
        dropped: Changes, or sectors, that did not survive.
        torn: Writes of which a part survived.
    """

    files: Files
    marks: list[str]
    dropped: int = 0
    torn: int = 0


def replay(
    events: Iterable[Event],
    root: str | Path,
    model: str,
    policy: str,
    rng: random.Random,
    *,
    before: Mapping[str, bytes | None] | None = None,
    failed_syncs: bool = False,
) -> State:
    """Return one state that a disk may be in after the events.

    Args:
        events: Those before the cut.
        root: The directory that was watched.
        model: One of `MODELS`.
        policy: One of `POLICIES`: which of the changes that need not have survived did.
        rng: Chooses where the policy leaves a choice.
        before: What the directory held, all of it synced, if it was not empty.
        failed_syncs: A failed fsync loses what was pending, whatever succeeds later.
    """
    disk = Disk(root, model, before=before, failed_syncs=failed_syncs)
    for event in events:
        disk.apply(event)
    return disk.state(policy, rng)


def materialise(files: Mapping[str, bytes | None], folder: Path) -> None:
    """Write a state into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        if content is None:
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(content)


class Disk:
    """The objects beneath a directory: what programs see, and what is sure to last."""

    def __init__(
        self,
        root: str | Path,
        model: str,
        *,
        before: Mapping[str, bytes | None] | None = None,
        failed_syncs: bool = False,
    ) -> None:
        if model not in MODELS:
            raise ValueError(model)
        self._base = str(root)
        self._model = model
        self._failed_syncs = failed_syncs
        self._root = _Directory()
        self._handles: dict[int, _Node] = {}
        self._dirty: set[_Directory] = set()
        self._time = 0
        self._floor = 0
        self.marks: list[str] = []
        for name, content in sorted((before or {}).items()):
            node = _Directory() if content is None else _File(bytearray(content))
            self._name("before", f"{self._base}/{name}", node)
        for directory in self._dirty:
            directory.sync()

    def apply(self, event: Event) -> None:
        """Take in one event."""
        self._time += 1
        kind = event.kind
        if kind == "mark":
            self.marks.append(event.data.decode())
        elif kind == "open":
            self._open(event)
        elif kind in ("write", "truncate", "fsync", "fsync failed"):
            self._change(event)
        elif kind == "rename":
            self._rename(event)
        elif kind == "link":
            self._name("link", event.target, self._find(event.path) or _File())
        elif kind == "mkdir":
            if event.path != self._base:
                self._name("mkdir", event.path, _Directory())
        elif kind in ("unlink", "rmdir"):
            self._name(kind, event.path, None)
        else:
            raise ValueError(kind)

    # --- names ---------------------------------------------------------------------------------

    def _parts(self, path: str) -> list[str] | None:
        """Return the names from the root to a path; None where it is elsewhere."""
        if path != self._base and not path.startswith(self._base + "/"):
            return None
        return [part for part in path[len(self._base) :].split("/") if part not in ("", ".")]

    def _find(self, path: str) -> _Node | None:
        parts = self._parts(path)
        if parts is None:
            return None
        node: _Node | None = self._root
        for part in parts:
            node = node.now.get(part) if isinstance(node, _Directory) else None
        return node

    def _name(self, half: str, path: str, node: _Node | None) -> None:
        """Give a name to an object, or remove the name."""
        parts = self._parts(path)
        if not parts:
            return
        parent = self._find(path.rstrip("/").rpartition("/")[0])
        if not isinstance(parent, _Directory):
            raise ValueError(f"{path} has no directory: it was made before the recording began")  # noqa: TRY004
        parent.set(self._time, half, parts[-1], node)
        self._dirty.add(parent)

    def _rename(self, event: Event) -> None:
        node = self._find(event.path) or _File()
        if self._find(event.target) is node:
            return  # two names of one object: POSIX leaves both
        self._name("target", event.target, node)
        self._name("source", event.path, None)

    # --- content -------------------------------------------------------------------------------

    def _open(self, event: Event) -> None:
        node = None if event.created else self._find(event.path)
        if node is None:
            node = _File()
            self._name("create", event.path, node)
        elif event.truncated and isinstance(node, _File):
            node.pending.append(_Resize(self._time, 0))
        self._handles[event.handle] = node

    def _change(self, event: Event) -> None:
        node = self._handles.get(event.handle) or self._find(event.path)
        if event.kind == "fsync" and node is not None:
            self._sync(node)
        elif isinstance(node, _File):
            if event.kind == "write":
                node.pending.append(_Write(self._time, event.offset, event.data))
            elif event.kind == "truncate":
                node.pending.append(_Resize(self._time, event.offset))
            elif self._failed_syncs:
                node.pending.clear()

    def _sync(self, node: _Node) -> None:
        if isinstance(node, _File):
            node.sync()
        if self._model == "journalled":
            self._floor = self._time
            for directory in self._dirty:
                directory.sync()
            self._dirty.clear()
        elif isinstance(node, _Directory):
            node.sync()

    # --- what is left --------------------------------------------------------------------------

    def state(self, policy: str, rng: random.Random) -> State:
        """Return one state that the disk may be in now; see `replay`."""
        fate = _Fate(self._model, policy, rng, self._floor, self._time)
        state = State({}, list(self.marks))
        contents: dict[_File, bytes] = {}
        waiting: list[tuple[str, _Directory]] = [("", self._root)]
        while waiting:
            base, directory = waiting.pop()
            for name, node in sorted(_entries(directory, fate).items()):
                if isinstance(node, _Directory):
                    state.files[base + name] = None
                    waiting.append((f"{base}{name}/", node))
                else:
                    if node not in contents:
                        contents[node] = _content(node, fate)
                    state.files[base + name] = contents[node]
        state.dropped, state.torn = fate.dropped, fate.torn
        return state


class _Fate:
    """What became of each change that need not have survived, by a policy."""

    def __init__(self, model: str, policy: str, rng: random.Random, floor: int, now: int) -> None:
        if policy not in POLICIES:
            raise ValueError(policy)
        self.policy = policy
        self.dropped = self.torn = 0
        self._rng = rng
        self._split = model == "weak, split"
        self._odds = rng.choice([0.1, 0.5, 0.5, 0.9])
        self._is_whole = rng.random() < 0.3
        self._until = now - rng.choice([rng.randrange(12), rng.randint(0, now)])
        journalled = {"nothing": floor, "data only": floor, "half": rng.randint(floor, now)}
        until = max(floor, self._until) if policy == "prefix" else journalled.get(policy, now)
        self._names_until = until if model == "journalled" else None
        self._names: dict[tuple[int, str], bool] = {}

    def _happens(self, time: int, sure: str) -> bool:
        if self.policy == "half":
            return self._rng.random() < self._odds
        if self.policy == "prefix":
            return time <= self._until
        return self.policy in ("everything", sure)

    def has_name(self, entry: _Entry) -> bool:
        """Return whether a change of a name survived; a rename is one, unless it is split."""
        if self._names_until is not None:
            survives = entry.time <= self._names_until
        else:
            key = (entry.time, entry.half if self._split else "")
            if key not in self._names:
                self._names[key] = self._happens(entry.time, "names only")
            survives = self._names[key]
        self.dropped += not survives
        return survives

    def is_shrunk(self, change: _Resize) -> bool:
        """Return whether a truncation survived; if it did not, nothing after it did."""
        if self._names_until is not None:
            survives = change.time <= self._names_until
        else:
            survives = self._happens(change.time, "names only")
        self.dropped += not survives
        return survives

    def write(self, content: bytearray, change: _Write) -> None:
        """Let none, all or some sectors of a write reach the content."""
        end = change.offset + len(change.data)
        if self.policy != "half" or self._is_whole:
            if self._happens(change.time, "data only"):
                _write(content, change.offset, change.data)
            else:
                self.dropped += 1
                _resize(content, max(len(content), end))
            return
        _resize(content, max(len(content), end))
        kept = lost = 0
        at = change.offset
        while at < end:
            to = min(end, at - at % SECTOR + SECTOR)
            if self._rng.random() < self._odds:
                content[at:to] = change.data[at - change.offset : to - change.offset]
                kept += 1
            else:
                lost += 1
            at = to
        self.dropped += lost
        self.torn += bool(kept and lost)

    def size(self, least: int, sizes: list[tuple[int, int]]) -> int:
        """Return a file's size, given the sure one and `(time, size)` of what made it longer."""
        most = max((size for _, size in sizes), default=least)
        if self.policy == "prefix":
            return max((size for time, size in sizes if time <= self._until), default=least)
        if self.policy == "half":
            between = self._rng.randint(least, most)
            choices = [least, most, self._rng.choice([least, *(size for _, size in sizes)])]
            return self._rng.choice([*choices, between, between - between % SECTOR or least])
        if self.policy == "names only":
            return self._rng.choice([least, most])
        return least if self.policy == "nothing" else most


def _entries(directory: _Directory, fate: _Fate) -> dict[str, _Node]:
    entries = dict(directory.synced)
    for entry in directory.pending:
        if fate.has_name(entry):
            _set(entries, entry.name, entry.node)
    return entries


def _content(file: _File, fate: _Fate) -> bytes:
    content = bytearray(file.synced)
    least = len(content)
    sizes: list[tuple[int, int]] = []
    for change in file.pending:
        if isinstance(change, _Write):
            fate.write(content, change)
        elif change.size >= len(content):
            _resize(content, change.size)
        elif fate.is_shrunk(change):
            _resize(content, change.size)
            least, sizes = len(content), []
        else:
            break
        if len(content) > least:
            sizes.append((change.time, len(content)))
    size = fate.size(least, sizes)
    return bytes(content[: max(least, size)])

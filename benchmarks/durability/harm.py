"""Kinds of damage: what disks, copies and people do to the files of an index."""

from __future__ import annotations

import os
import random
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from retriever.storage import layout

from .healthy import Healthy, stamp_again

Edit: TypeAlias = Callable[[Path, random.Random], str]
PAGES = [512, 4096, 8192]
CLASSES = {
    layout.DATABASE: "database",
    f"{layout.DATABASE}-wal": "log",
    f"{layout.DATABASE}-shm": "shared memory",
    layout.HEAD: "head",
    layout.LOCK: "lock",
    layout.IGNORE: "ignore",
}
SEGMENT_CLASSES = {"vectors", "ids"}
WEIGHTS = {
    "database": 5.0,
    "log": 5.0,
    "shared memory": 0.7,
    "head": 1.5,
    "lock": 0.3,
    "ignore": 0.2,
    "vectors": 2.5,
    "ids": 2.0,
}


@dataclass
class Victim:
    """An index to be damaged, and what was done to it.

    Attributes:
        path: A copy of the healthy index, closed.
        kinds: Names of the kinds of damage done.
        classes: Which classes of files were touched.
        told: What exactly was done.
    """

    healthy: Healthy
    path: Path
    rng: random.Random
    kinds: list[str] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)
    told: list[str] = field(default_factory=list)

    def names(self) -> list[str]:
        """Return the files that are there."""
        return sorted(path.name for path in self.path.iterdir() if path.is_file())

    def choose(self, names: list[str] | None = None) -> str:
        """Choose a file, and note its class."""
        by_class: dict[str, list[str]] = {}
        for name in self.names() if names is None else names:
            by_class.setdefault(class_of(name), []).append(name)
        kinds = sorted(by_class)
        (kind,) = self.rng.choices(kinds, [WEIGHTS[kind] for kind in kinds])
        name = self.rng.choice(by_class[kind])
        self.classes.add(kind)
        return name


def class_of(name: str) -> str:
    """Return the class of a file of the index."""
    return CLASSES.get(name) or ("ids" if name.endswith(".ids") else "vectors")


# --- in one file -----------------------------------------------------------------------------


def _write(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def _read(path: Path, at: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(at)
        return file.read(size)


def flip(path: Path, rng: random.Random) -> str:
    """Flip one bit."""
    at, bit = rng.randrange(path.stat().st_size), rng.randrange(8)
    _write(path, at, bytes([_read(path, at, 1)[0] ^ 1 << bit]))
    return f"bit {bit} of byte {at} of {path.name}"


def scribble(path: Path, rng: random.Random) -> str:
    """Write one byte, or up to eight, at random."""
    at, size = rng.randrange(path.stat().st_size), rng.choice([1, 1, 2, 4, 8])
    size = min(size, path.stat().st_size - at)
    _write(path, at, rng.randbytes(size))
    return f"{size} bytes at {at} of {path.name} at random"


def zero(path: Path, rng: random.Random) -> str:
    """Zero a sector or a page: a write that was lost."""
    size, page = path.stat().st_size, rng.choice(PAGES)
    at = rng.randrange(0, size, page)
    _write(path, at, bytes(min(page, size - at)))
    return f"{page} bytes at {at} of {path.name} zeroed"


def misplace(path: Path, rng: random.Random) -> str:
    """Write a sector or a page over another one of the same file: a misdirected write."""
    size, page = path.stat().st_size, rng.choice(PAGES)
    source, at = rng.randrange(0, size, page), rng.randrange(0, size, page)
    data = _read(path, source, min(page, size - at))
    _write(path, at, data)
    return f"{len(data)} bytes at {source} of {path.name} written at {at} too"


def cut(path: Path, rng: random.Random) -> str:
    """Truncate at a random place."""
    size = rng.randrange(path.stat().st_size)
    os.truncate(path, size)
    return f"{path.name} cut to {size} bytes"


def empty(path: Path, _: random.Random) -> str:
    """Truncate to nothing."""
    os.truncate(path, 0)
    return f"{path.name} emptied"


def append(path: Path, rng: random.Random) -> str:
    """Append garbage."""
    garbage = rng.choice([rng.randbytes(rng.randrange(1, 9000)), bytes(8192), b"\n"])
    with path.open("ab") as file:
        file.write(garbage)
    return f"{len(garbage)} bytes appended to {path.name}"


def remove(path: Path, _: random.Random) -> str:
    """Delete the file."""
    path.unlink()
    return f"{path.name} removed"


def become_directory(path: Path, _: random.Random) -> str:
    """Put a directory in the file's place."""
    path.unlink()
    path.mkdir()
    return f"{path.name} replaced by a directory"


SAME_SIZE: list[Edit] = [flip, scribble, zero, misplace]


# --- among files -----------------------------------------------------------------------------


def _in_place(edit: Edit) -> Callable[[Victim], str]:
    def do(victim: Victim) -> str:
        path = victim.path / victim.choose()
        if path.stat().st_size or edit in (append, remove, become_directory):
            return edit(path, victim.rng)
        return append(path, victim.rng)

    return do


def aim(victim: Victim) -> str:
    """Flip one bit of a text, metadata, a title, a vector or a field, wherever it is."""
    path = victim.path / layout.DATABASE
    data = path.read_bytes() if path.is_file() else b""
    content = victim.rng.choice(victim.healthy.contents)
    places = [found.start() for found in re.finditer(re.escape(content), data)]
    if not places:
        return _in_place(flip)(victim)
    victim.classes.add("database")
    at = victim.rng.choice(places) + victim.rng.randrange(len(content))
    _write(path, at, bytes([data[at] ^ 1 << victim.rng.randrange(8)]))
    return f"a bit of byte {at} of {path.name}, in {content[:40]!r}"


def _hide(victim: Victim) -> str:
    there = [name for name in victim.names() if (victim.path / name).stat().st_size]
    return hide(victim.path / victim.choose(there), victim.rng)


def hide(path: Path, rng: random.Random) -> str:
    """Change bytes and put the time of modification back."""
    before = path.stat()
    told = rng.choice(SAME_SIZE)(path, rng)
    _put_back(path, before.st_mtime_ns)
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        time.sleep(0.005)  # the clock of the file system is coarse
        _put_back(path, before.st_mtime_ns)
    return f"{told}, its time put back"


def _put_back(path: Path, mtime_ns: int) -> None:
    os.utime(path, ns=(mtime_ns, mtime_ns))


def rot(victim: Victim) -> str:
    """Change bytes of a segment so that no stamp tells of it, as disks do; first of all damage."""
    names = [name for name in victim.names() if name.startswith(layout.SEGMENT)]
    told = victim.rng.choice(SAME_SIZE)(victim.path / victim.choose(names), victim.rng)
    stamp_again(victim.path)
    return f"{told}, and stamped"


def swap(victim: Victim) -> str:
    """Swap two files of segments."""
    names = [name for name in victim.names() if name.startswith(layout.SEGMENT)]
    if len(names) < 2:
        return _in_place(remove)(victim)
    one = victim.choose(names)
    others = [name for name in names if name != one]
    alike = [name for name in others if name.endswith(Path(one).suffix)]
    pair = [name for name in others if Path(name).stem == Path(one).stem]
    groups = [group for group in (alike, pair) if group] or [others]  # a kind may have one file
    other = victim.choose(victim.rng.choice(groups))
    aside = victim.path / "aside"
    (victim.path / one).rename(aside)
    (victim.path / other).rename(victim.path / one)
    aside.rename(victim.path / other)
    return f"{one} and {other} swapped"


def go_back(victim: Victim) -> str:
    """Put an older copy in the place of a file."""
    older = victim.rng.choice(victim.healthy.older)
    there = [path.name for path in older.iterdir() if (victim.path / path.name).is_file()]
    name = victim.choose(there)
    _restore(victim, older, name)
    return f"{name} as it was in {older.stem}"


def go_back_in_part(victim: Victim) -> str:
    """Put older copies in the place of some files, at times of all."""
    older = victim.rng.choice(victim.healthy.older)
    share = victim.rng.choice([0.2, 0.5, 0.8, 1.0])
    there = [
        path.name for path in sorted(older.iterdir()) if not (victim.path / path.name).is_dir()
    ]
    chosen = [name for name in there if victim.rng.random() < share]
    for name in chosen:
        victim.classes.add(class_of(name))
        _restore(victim, older, name)
    return f"{', '.join(chosen) or 'nothing'} as in {older.stem}"


def _restore(victim: Victim, older: Path, name: str) -> None:
    copy = victim.rng.choice([shutil.copyfile, shutil.copy2])
    copy(older / name, victim.path / name)


KINDS: dict[str, tuple[int, Callable[[Victim], str]]] = {
    "bit flipped": (20, _in_place(flip)),
    "bit of content": (8, aim),
    "bytes": (12, _in_place(scribble)),
    "zeroed": (10, _in_place(zero)),
    "misdirected": (8, _in_place(misplace)),
    "cut": (8, _in_place(cut)),
    "emptied": (3, _in_place(empty)),
    "appended": (5, _in_place(append)),
    "removed": (4, _in_place(remove)),
    "directory": (2, _in_place(become_directory)),
    "time put back": (6, _hide),
    "rot": (6, rot),
    "swapped": (5, swap),
    "older file": (6, go_back),
    "older files": (6, go_back_in_part),
}
TWO = 0.2


def damage(victim: Victim) -> None:
    """Do one kind of damage, at times two."""
    count = 2 if victim.rng.random() < TWO else 1
    for _ in range(count):
        _damage_once(victim)
        if "rot" in victim.kinds:
            return


def _damage_once(victim: Victim) -> None:
    names = [name for name in KINDS if name != "rot" or not victim.kinds]
    (kind,) = victim.rng.choices(names, [KINDS[name][0] for name in names])
    victim.told.append(KINDS[kind][1](victim))
    victim.kinds.append(kind)

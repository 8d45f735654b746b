"""The interposed system calls: building `shim.c`, loading it, telling it what to do.

It is loaded with LD_PRELOAD, so a process has it from its start or not at all: `load` begins the
program again with it. Linux with a C compiler is needed, and no rights beyond that.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_name("shim.c")
EVENTS = ["open", "write", "fsync", "rename", "unlink", "link", "mkdir", "rmdir", "truncate"]
NAMES = [*EVENTS, "mark", "fsync failed"]
ACTIONS = {"kill before": 1, "kill after": 2, "fail": 3, "short": 4}
_HEAD = struct.Struct("<BIQqHHI")


class Event(NamedTuple):
    """One call that succeeded, or a mark.

    Attributes:
        kind: One of `NAMES`.
        handle: Which open file it was made on; each `open` begins a new handle.
        offset: Where a write went, or the size a truncation left.
        path: What was opened, renamed, linked, removed or synced.
        target: What a rename or link made.
        data: What was written; the text of a mark.
        created: An open made the file.
        truncated: An open emptied the file.
        writing: An open was for more than reading; no rule counts those that are not.
    """

    kind: str
    handle: int
    offset: int
    path: str
    target: str
    data: bytes
    created: bool
    truncated: bool
    writing: bool = False


def unavailable() -> str:
    """Return why the shim cannot be used here, or an empty string."""
    if not sys.platform.startswith("linux"):
        return "system calls are interposed on Linux only"
    if shutil.which("cc") is None:
        return "a C compiler (cc) is needed to interpose system calls"
    return ""


def build() -> Path:
    """Compile the shim, once per version of its source, and return the library."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    library = Path(tempfile.gettempdir()) / f"durability-shim-{os.getuid()}-{digest}.so"
    if not library.exists():
        fresh = library.with_suffix(f".{os.getpid()}")
        command = ["cc", "-O1", "-Wall", "-shared", "-fPIC", "-o", str(fresh), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)
        fresh.replace(library)
    return library


def load() -> None:
    """Begin this program again under the shim, unless it is there."""
    if is_loaded():
        os.environ.pop("LD_PRELOAD", None)
        return
    if reason := unavailable():
        raise SystemExit(f"This part cannot run: {reason}.")
    environment = {**os.environ, "LD_PRELOAD": str(build())}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def is_loaded() -> bool:
    """Return whether this process runs under the shim."""
    return hasattr(ctypes.CDLL(None), "shim_arm")


def watch(directory: Path) -> None:
    """Look at the files beneath a directory, and at no others."""
    ctypes.CDLL(None).shim_watch(os.fsencode(directory))


def record(log: Path | None) -> None:
    """Append every event to a file from now on, or stop."""
    ctypes.CDLL(None).shim_record(None if log is None else os.fsencode(log))


def mark(text: str) -> None:
    """Write a mark among the recorded events."""
    ctypes.CDLL(None).shim_mark(text.encode())


def arm(
    action: str,
    events: list[str],
    place: str = "",
    nth: int = 1,
    error: int = 0,
    *,
    sticky: bool = False,
) -> None:
    """Act on the n-th of the events at a place (any place, if empty); replaces what was armed."""
    bits = sum(1 << EVENTS.index(name) for name in events)
    call = ctypes.CDLL(None).shim_arm
    call.argtypes = [
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_char_p,
        ctypes.c_long,
        ctypes.c_int,
        ctypes.c_int,
    ]
    call(ACTIONS[action], bits, place.encode(), nth, error, int(sticky))


def disarm() -> None:
    """Let every call through."""
    ctypes.CDLL(None).shim_arm(0, 0, None, 0, 0, 0)


def fired() -> int:
    """Return how often the rule has acted."""
    return int(ctypes.CDLL(None).shim_fired())


def retried_fsyncs() -> int:
    """Return how often fsync was called on a file after it failed, with nothing written between."""
    return int(ctypes.CDLL(None).shim_retried_fsyncs())


def read(log: Path) -> Iterator[Event]:
    """Yield the recorded events in order."""
    raw = log.read_bytes()
    at = 0
    while at + _HEAD.size <= len(raw):
        event, flags, handle, offset, path_size, target_size, size = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        path = os.fsdecode(raw[at : at + path_size])
        at += path_size
        target = os.fsdecode(raw[at : at + target_size])
        at += target_size
        data = raw[at : at + size]
        at += size
        bits = (bool(flags & bit) for bit in (1, 2, 4))
        yield Event(NAMES[event], handle, offset, path, target, data, *bits)


def place(path: str, directory: Path) -> str:
    """Return the place of a path, as the shim names it."""
    import re

    relative = path.removeprefix(str(directory)).lstrip("/")
    return re.sub(r"[0-9A-Fa-f]{8,}", "*", relative) if relative else "."

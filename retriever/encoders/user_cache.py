"""Facts that this package remembers between runs in the user's cache, to avoid repeating a check.

Owns `$XDG_CACHE_HOME/retriever` (else `~/.cache/retriever`): one small JSON file for each kind of
fact, replaced by an atomic rename. To delete any of it costs only time, so that a cache which is
missing, damaged or not writable is never an error. Must not know what the facts mean.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"

# A file is read and written as a whole, so it must stay small.
_MAX_ENTRIES = 256
_STAMP_IS_SAFE_NS = 100_000_000  # longer than a tick of any file system's clock


def recall(kind: str, key: str) -> Json:
    """Return the fact remembered under `key`, or None."""
    match _entries(_file(kind)).get(key):
        case [int(check), fact] if check == _check(fact):
            return fact
    return None


def remember(kind: str, key: str, fact: Json) -> None:
    """Store a fact; if two processes store at the same time, one fact may be lost."""
    file = _file(kind)
    if file is None:
        return
    entries = _entries(file)
    # Removed first, so that it moves to the end of the dict: the oldest entries are dropped below.
    entries.pop(key, None)
    entries[key] = [_check(fact), fact]
    newest = dict(list(entries.items())[-_MAX_ENTRIES:])
    with contextlib.suppress(OSError):
        _replace(file, json.dumps(newest, indent=0))


def stamped(kind: str, path: Path, compute: Callable[[Path], Json]) -> Json:
    """Return `compute(path)`, or what it returned when the file's `stat` was the same.

    Args:
        kind: Names the fact; also names the cache file.
        path: The file the fact is about; symbolic links are followed.
        compute: Derives the fact from the file.

    Raises:
        OSError: When the file cannot be examined, or as `compute` raises.
    """
    real = path.resolve()
    before = _stamp(real)
    known = recall(kind, str(real))
    if isinstance(known, dict) and known.get("stamp") == before and "fact" in known:
        return known["fact"]
    fact = compute(real)
    # A file that was written within the last tick of the clock can change again without changing
    # its stamp, and what is remembered of it would then be wrong.
    is_safe = time.time_ns() - real.stat().st_ctime_ns > _STAMP_IS_SAFE_NS
    if is_safe and _stamp(real) == before:
        remember(kind, str(real), {"stamp": before, "fact": fact})
    return fact


def _stamp(path: Path) -> list[Json]:
    stat = path.stat()
    return [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _check(fact: Json) -> int:
    # A damaged entry may still be valid JSON, and its fact would then pass for the outcome of a
    # check.
    return zlib.crc32(json.dumps(fact, sort_keys=True).encode())


def _file(kind: str) -> Path | None:
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        # By the XDG specification a relative path is invalid and must be ignored.
        base = base if base.is_absolute() else Path.home() / ".cache"
    except RuntimeError:  # no home directory
        return None
    return base / "retriever" / f"{kind}.json"


def _entries(file: Path | None) -> dict[str, Json]:
    if file is None:
        return {}
    try:
        entries = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _replace(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=file.name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(temporary).replace(file)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise

"""Has the harness teeth? Deliberately broken variants of the package, each of which must be caught.

A mutant replaces functions of the package by name, in the processes of the trials alone: a part is
run as a program with the mutant's name in `MUTANT`, and `benchmarks.durability` applies it as it is
imported. No source is copied or edited, and the package has no switch that could be left on. A name
that is no longer there is an error, here and in `tests/test_kill.py`.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeAlias

from . import MUTANT, ROOT
from .runner import Options, Outcome

Function: TypeAlias = "Callable[..., Any]"
Change: TypeAlias = "Callable[[Any], Any]"
"""What takes the place of a function (or another attribute), given the original."""

FILES = "retriever.storage.files"
SEGMENTS = "retriever.storage.segments"
WRITER = "retriever.storage.writer"
LOCKING = "retriever.storage.locking"


class Mutant(NamedTuple):
    """A broken variant.

    Attributes:
        name: What is broken.
        changes: Called for the replacements, by `module:attribute` or `module:Class.attribute`.
            Those of one mutant may share state, which is made anew for each process.
        parts: Which parts ought to catch it, and how many trials they are given.
    """

    name: str
    changes: Callable[[], dict[str, Change]]
    parts: dict[str, int]


def find(target: str) -> tuple[Any, str]:
    """Return where an attribute is, a module or a class, and its name there.

    Raises:
        ImportError, AttributeError: It is no longer there.
    """
    module, _, path = target.partition(":")
    *classes, name = path.split(".")
    place: Any = importlib.import_module(module)
    for one in classes:
        place = getattr(place, one)
    if name not in vars(place):
        raise AttributeError(f"{target} is not defined")
    return place, name


def apply(name: str) -> None:
    """Break the package in this process."""
    (mutant,) = (mutant for mutant in MUTANTS if mutant.name == name)
    for target, change in mutant.changes().items():
        place, attribute = find(target)
        setattr(place, attribute, change(getattr(place, attribute)))


# --- what is put in a function's place -----------------------------------------------------------


def _no_op(_: Function) -> Function:
    return lambda *_, **__: None


def _always(value: object) -> Change:
    return lambda _: lambda *_, **__: value


def _unsynced(is_wanted: Callable[[str], bool]) -> Callable[[], dict[str, Change]]:
    """Publish some files without fsync; the directory is synced as ever."""

    def changes() -> dict[str, Change]:
        being_published = [""]

        def publishing(publish: Function) -> Function:
            def call(directory: Path, name: str, *arguments: Any, **options: Any) -> Any:
                being_published.append(name)
                try:
                    return publish(directory, name, *arguments, **options)
                finally:
                    being_published.pop()

            return call

        def syncing(sync: Function) -> Function:
            def call(descriptor: int) -> None:
                is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
                if not (is_file and is_wanted(being_published[-1])):
                    sync(descriptor)

            return call

        return {f"{FILES}:publish": publishing, f"{FILES}:sync": syncing}

    return changes


def _without_parents_synced() -> dict[str, Change]:
    """Create an index without syncing the directories above the one that it is in."""
    made: list[Path] = []

    def making(make: Function) -> Function:
        def call(directory: Path) -> None:
            made.append(directory)
            try:
                make(directory)
            finally:
                made.pop()

        return call

    def syncing(sync: Function) -> Function:
        def call(directory: Path) -> None:
            if not made or directory in (made[-1], made[-1].parent):
                sync(directory)

        return call

    return {f"{FILES}:make_directory": making, f"{FILES}:sync_directory": syncing}


def _synchronous_normal() -> dict[str, Change]:
    def connecting(connect: Function) -> Function:
        def call(directory: Path, mode: str, **options: Any) -> Any:
            connection = connect(directory, mode, **options)
            if mode != "ro":
                connection.execute("PRAGMA synchronous=NORMAL")
            return connection

        return call

    return {"retriever.storage.connections:connect": connecting}


def _head_before_commit() -> dict[str, Change]:
    from retriever.storage import head_file

    def writing(write_commit: Function) -> Function:
        def call(writer: Any, previous: Any, change: Any) -> bytes:
            chain = write_commit(writer, previous, change)
            writer._acknowledge(head_file.Head(change.seq, chain))
            return chain

        return call

    return {f"{WRITER}:Writer._write_commit": writing}


def _in_place() -> dict[str, Change]:
    """Give a segment the name of the first one it replaces, whose row is dropped beforehand."""
    reused: list[str] = []

    def publishing(publish: Function) -> Function:
        def call(writer: Any, series: Any, ranges: Any) -> Any:
            replaced = [
                segment
                for segment in series.segments(writer.connection)
                if any(after < segment.last_id and segment.first_id <= to for after, to in ranges)
            ]
            for segment in replaced[:1]:
                reused.append(segment.files[0].name.partition(".")[0])
                writer.connection.execute("DELETE FROM segments WHERE id = ?", (segment.id,))
            try:
                return publish(writer, series, ranges)
            finally:
                reused.clear()

        return call

    def naming(segment_name: Function) -> Function:
        return lambda seq: reused.pop() if reused else segment_name(seq)

    return {f"{SEGMENTS}:publish": publishing, f"{FILES}:segment_name": naming}


def _used_again(_: Function) -> Function:
    return lambda seq: f"segment-{seq:012d}-{0:012d}"


def _only_files_locked(fcntl: Any) -> SimpleNamespace:
    def flock(descriptor: int, operation: int) -> None:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            fcntl.flock(descriptor, operation)

    return SimpleNamespace(**{**vars(fcntl), "flock": flock})


def _unlocked(fcntl: Any) -> SimpleNamespace:
    return SimpleNamespace(**{**vars(fcntl), "flock": lambda *_: None})


class _Equal(int):
    """A checksum that is equal to every other."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


def _any_crc(checksums: Any) -> SimpleNamespace:
    crc = checksums.crc
    return SimpleNamespace(**{**vars(checksums), "crc": lambda *given: _Equal(crc(*given))})


def _closed_like_any_other() -> dict[str, Change]:
    """Close the writer's connection plainly, whatever had failed."""
    closing: list[bool] = []

    def close(original: Function) -> Function:
        def call(writer: Any) -> None:
            closing.append(True)
            try:
                original(writer)
            finally:
                closing.pop()

        return call

    def abandoning(abandon: Function) -> Function:
        def call(connection: Any, *arguments: Any, **options: Any) -> None:
            if closing:
                connection.close()
            else:
                abandon(connection, *arguments, **options)

        return call

    return {
        f"{WRITER}:Writer.close": close,
        "retriever.storage.connections:abandon": abandoning,
    }


def _signed(sign: Function) -> Function:
    def call(lock: Any) -> bool:
        sign(lock)
        return True

    return call


def _outside_of_a_transaction(transaction: Function) -> Function:
    @contextmanager
    def call(pool: Any) -> Iterator[Any]:
        with transaction(pool) as connection:
            was_begun = connection.in_transaction
            if was_begun:
                connection.execute("COMMIT")
            yield connection
            if was_begun:
                connection.execute("BEGIN")  # for the COMMIT that follows

    return call


def _one(target: str, change: Change) -> Callable[[], dict[str, Change]]:
    return lambda: {target: change}


MUTANTS = [
    Mutant("HEAD is not synced", _unsynced(lambda name: name == "HEAD"), {"power": 300}),
    Mutant(
        "segments are not synced",
        _unsynced(lambda name: name.startswith("segment-")),
        {"power": 300},
    ),
    Mutant(
        "the directories around a new index are not synced",
        _without_parents_synced,
        {"power": 300},
    ),
    Mutant("synchronous=NORMAL", _synchronous_normal, {"power": 300}),
    Mutant("HEAD before COMMIT", _head_before_commit, {"points": 400}),
    Mutant("a segment is rewritten in place", _in_place, {"points": 400}),
    Mutant(
        "a segment's name is used again",
        _one(f"{FILES}:segment_name", _used_again),
        {"points": 200},
    ),
    Mutant("the lock is not taken", _one(f"{LOCKING}:fcntl", _unlocked), {"locks": 20}),
    Mutant(
        "a forked worker keeps the lock",
        _one(f"{LOCKING}:WriteLock.abandon_all", _no_op),  # all that is done after a fork
        {"locks": 40},
    ),
    Mutant(
        "only LOCK is locked, which may be replaced",
        _one(f"{LOCKING}:fcntl", _only_files_locked),
        {"locks": 40},
    ),
    Mutant(
        "a forked child may go on with its parent's writer",
        _one(f"{WRITER}:Writer._require_own", _no_op),
        {"locks": 40},
    ),
    Mutant(
        "checksums of rows are not compared",
        lambda: dict.fromkeys(
            ("retriever.storage.table:checksums", "retriever.storage.rows:checksums"), _any_crc
        ),
        {"damage": 500},
    ),
    Mutant(
        "stamps and hashes of segments are not compared",
        _one(f"{SEGMENTS}:is_intact", _always(True)),
        {"damage": 500},
    ),
    Mutant(
        "repair does not name the embeddings it lost",
        _one("retriever.storage.salvage:Salvage._name_lost_embeddings", _no_op),
        {"damage": 800},
    ),
    Mutant(
        "the fields of a deleted document stay",
        _one("retriever.storage.field_rows:FieldRows.remove", _no_op),
        {"kill": 100},
    ),
    Mutant(
        "a failed commit's log is closed like any other", _closed_like_any_other, {"faults": 300}
    ),
    Mutant(
        "what a process that died has left in the log is built upon",
        _one(f"{LOCKING}:WriteLock._sign", _signed),
        {"power": 800},
    ),
    Mutant(
        "the pages of a stranger's index are not checked before it is adopted",
        _one("retriever.storage.schema:check_pages", _no_op),
        {"hostile": 1},
    ),
    Mutant(
        "a reader reads outside of a transaction",
        _one("retriever.storage.pool:ReadPool.transaction", _outside_of_a_transaction),
        {"readers": 20},
    ),
]


# --- running the parts ---------------------------------------------------------------------------

# A replacement that no longer fits what it replaces, or a harness that no longer fits the package,
# has caught nothing.
_MISFIT = re.compile(
    r'benchmarks/durability/\w+\.py", line \d+, in .*\n.*\n(?: *[~^]+\n)?'
    r"(TypeError|AttributeError|NameError): .*"
)


def run(options: Options) -> Outcome:
    """Apply each mutant and run its parts; one that survives them all is a failure."""
    outcome = Outcome("mutants")
    began = time.monotonic()
    table = []
    for number, mutant in enumerate(MUTANTS):
        if options.only not in (None, number):
            continue
        outcome.trials += 1
        caught = _try(mutant, options)
        table.append(f"{mutant.name}: {caught or 'NOT CAUGHT'}")
        print(table[-1], flush=True)
        if not caught:
            outcome.failures.append(f"mutant {number} survives: {mutant.name}")
    outcome.seconds = time.monotonic() - began
    outcome.notes["caught by"] = table
    return outcome


def _try(mutant: Mutant, options: Options) -> str:
    """Return which part has caught a mutant in which trial, and how, or an empty string."""
    for part, count in mutant.parts.items():
        command = [sys.executable, "-m", "benchmarks.durability", part, "--count", str(count)]
        command += ["--seed", str(options.seed), "--jobs", str(options.jobs), "--first"]
        command += ["--folder", str(options.folder / "trials")]
        environment = {**os.environ, MUTANT: mutant.name}
        ran = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800
        )
        shutil.rmtree(options.folder / "trials", ignore_errors=True)
        failed = [line for line in ran.stdout.splitlines() if line.startswith("FAILED ")]
        if (
            ran.returncode not in (0, 1)
            or _MISFIT.search(ran.stdout)
            or (ran.returncode and not failed)
        ):
            raise SystemExit(f"{mutant.name}: {part} did not run: {ran.stdout}{ran.stderr}")
        if failed:
            return f"{failed[0].removeprefix('FAILED ')[:160]}"
    return ""

"""Has the harness teeth? Deliberately broken variants of the package, each of which must be caught.

A mutant is the package with one text replaced. It is run in a copy of the tree, so that a mutant
whose text is no longer in the source fails loudly, through the parts that ought to catch it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from . import ROOT
from .runner import Options, Outcome


class Edit(NamedTuple):
    """One text of the package, which must occur exactly once, and what takes its place."""

    file: str
    old: str
    new: str


class Mutant(NamedTuple):
    """A broken variant.

    Attributes:
        name: What is broken.
        edits: How.
        parts: Which parts ought to catch it, and how many trials they are given.
    """

    name: str
    edits: tuple[Edit, ...]
    parts: dict[str, int]


_SYNC = "                sync(file.fileno())\n            temporary.replace(path)\n"
_COMMIT = """                    chain = self._write_commit(previous, change)
                    self._commit("COMMIT")
"""
_ACKNOWLEDGE = "                    self._acknowledge(files.Head(change.seq, chain))\n"
_NAME = "files_ = _write_files(writer, space, span, name, row_count, build)"
_OLD_NAME = """name = old[0].files[0].name[:-6] if old else name
            old = [s for s in old if s.files[0].name[:-6] != name]
            files_ = _write_files(writer, space, span, name, row_count, build)
            connection.execute("DELETE FROM segments WHERE files LIKE ?", (f"%{name}%",))"""
_FORK = """    for lock in list(_held):
        lock.abandon_all()
"""


def _mutant(name: str, file: str, old: str, new: str, **parts: int) -> Mutant:
    return Mutant(name, (Edit(file, old, new),), parts)


MUTANTS = [
    _mutant(
        "HEAD is not synced",
        "storage/files.py",
        _SYNC,
        _SYNC.replace("sync(", "name == HEAD or sync("),
        power=300,
    ),
    _mutant(
        "segments are not synced",
        "storage/files.py",
        _SYNC,
        _SYNC.replace("sync(", "SEGMENT in name or sync("),
        power=300,
    ),
    _mutant(
        "the directories around a new index are not synced",
        "storage/files.py",
        "            sync_directory(parent.parent)\n",
        "",
        power=300,
    ),
    _mutant(
        "synchronous=NORMAL",
        "storage/connections.py",
        '"synchronous=FULL"',
        '"synchronous=NORMAL"',
        power=300,
    ),
    _mutant(
        "HEAD before COMMIT",
        "storage/writer.py",
        _COMMIT,
        _COMMIT.replace(
            "                    self._c", _ACKNOWLEDGE + "                    self._c"
        ),
        points=400,
    ),
    _mutant("a segment is rewritten in place", "storage/segments.py", _NAME, _OLD_NAME, points=400),
    _mutant(
        "a segment's name is used again",
        "storage/files.py",
        'f"{SEGMENT}{seq:012d}-{secrets.token_hex(6)}"',
        'f"{SEGMENT}{seq:012d}-{0:012d}"',
        points=200,
    ),
    _mutant(
        "the lock is not taken",
        "storage/locking.py",
        "import fcntl\n",
        "import types\n\n    fcntl = types.SimpleNamespace(flock=lambda *_: None, LOCK_EX=2,"
        " LOCK_NB=4, LOCK_UN=8, LOCK_SH=1)\n",
        locks=20,
    ),
    _mutant("a forked worker keeps the lock", "storage/locking.py", _FORK, "", locks=40),
    _mutant(
        "only LOCK is locked, which may be replaced",
        "storage/locking.py",
        "fcntl.flock(self._root, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        locks=40,
    ),
    _mutant(
        "a forked child may go on with its parent's writer",
        "storage/writer.py",
        "        if self._pid != os.getpid():\n",
        "        if False:\n",
        locks=40,
    ),
    Mutant(
        "checksums of rows are not compared",
        (
            Edit("storage/records.py", " or crc32(checksums.pack(kind, *values)) != row[-1]:", ":"),
            Edit("storage/records.py", " or checksums.keyed_crc(pk, utf8) != crc:", ":"),
            Edit("storage/records.py", " or checksums.keyed_crc(chunk_id, data) != crc:", ":"),
        ),
        {"damage": 500},
    ),
    _mutant(
        "stamps and hashes of segments are not compared",
        "storage/segments.py",
        "return all(_is_intact(directory / file.name, file) for file in segment.files)",
        "return True",
        damage=500,
    ),
    _mutant(
        "repair does not name the embeddings it lost",
        "storage/salvage.py",
        "        self._name_lost_embeddings()\n",
        "",
        damage=800,
    ),
    _mutant(
        "a failed commit's log is closed like any other",
        "storage/writer.py",
        "if self._is_broken and self._pid == os.getpid():",
        "if False:",
        faults=300,
    ),
    _mutant(
        "what a process that died has left in the log is built upon",
        "storage/locking.py",
        "if not self._sign():",
        "if not self._sign() and False:",
        power=800,
    ),
    _mutant(
        "segments of an index that is not trusted are read",
        "search/view.py",
        "        if not self._trust:\n            tail",
        "        if False:\n            tail",
        hostile=1,
    ),
    _mutant(
        "a reader reads outside of a transaction",
        "storage/pool.py",
        """                self._begin(connection)
                yield connection
                connection.execute("COMMIT")
""",
        """                self._begin(connection)
                connection.execute("COMMIT")
                yield connection
""",
        readers=20,
    ),
]


def run(options: Options) -> Outcome:
    """Build each mutant and run its parts; one that survives them all is a failure."""
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
    tree = options.folder / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("retriever", "benchmarks", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    for edit in mutant.edits:
        break_copy(tree / "retriever", tree / "retriever", edit, mutant.name)
    for part, count in mutant.parts.items():
        command = [sys.executable, "-m", "benchmarks.durability", part, "--count", str(count)]
        command += ["--seed", str(options.seed), "--jobs", str(options.jobs), "--first"]
        command += ["--folder", str(options.folder / "trials")]
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        ran = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=1800
        )
        shutil.rmtree(options.folder / "trials", ignore_errors=True)
        failed = [line for line in ran.stdout.splitlines() if line.startswith("FAILED ")]
        if ran.returncode == 1 and failed:
            return f"{failed[0].removeprefix('FAILED ')[:160]}"
        if ran.returncode != 0:
            raise SystemExit(f"{mutant.name}: {part} did not run: {ran.stdout}{ran.stderr}")
    return ""


def break_copy(package: Path, target: Path, edit: Edit, name: str) -> None:
    """Make an edit of a package's file, in a copy below `target`."""
    source = (package / edit.file).read_text()
    if source.count(edit.old) != 1:
        raise SystemExit(f"Mutant {name!r} is out of date: its text is not once in {edit.file}.")
    (target / edit.file).parent.mkdir(parents=True, exist_ok=True)
    (target / edit.file).write_text(source.replace(edit.old, edit.new))

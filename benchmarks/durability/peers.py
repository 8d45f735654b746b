"""The same mishaps for other stores: killed, one bit flipped, the power cut.

    python -m benchmarks.durability peers --count 60 --seed 1

Each store that is installed gets the same work, the same moments and the same questions, as far as
it runs at the same speed. Only what happens to this project's index counts as a failure; the others
are there to compare. `DURABILITY_STORES=LanceDB,txtai` limits a run to stores of these names.

Choices one may dispute:

- Vectors are random and supplied, so that writes follow each other faster than where an encoder
  is waited for, and a kill meets a write more often.
- A call that was cut short may be done, undone or half done, but each of its documents must be
  there as it was or as it should become: one that was to be replaced must not be gone.
- In damage each file is as likely as any other, so a store of many small files (LanceDB) is hit
  less often where its documents are. Texts and the ids found are compared, scores are not. A store
  that can verify itself is asked to, after it was read.
- The power is cut within a second or two of the writes, when nothing has reached the disk of its
  own accord; half a minute later it would have. `journalled` keeps the order of names but, unlike
  ext4 as it is usually mounted, not the data of a file that was truncated and written again;
  `weak` is the least that POSIX promises. See `disk.py`.
- No store had been compacted or optimised, and none has more than a few thousand documents.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import disk, shim
from .process import (
    SCRIPT,
    Bench,
    Ended,
    Unjudged,
    Verdict,
    Versions,
    apply,
    make_text,
    make_vector,
)
from .recording import Recording, record
from .runner import Options, Outcome
from .stores import OURS, STORES, Store, label, missing

PROBES = 40
SEARCHES = 20
KILL_S = (0.05, 3.0)

FINE, CLOSED, LOST = "fine", "cannot open or read", "acknowledged lost"
UNFOUND, CRASH, HANG = "not findable", "crash", "hang"
RAISED, WRONG, SAME = "error raised", "silently wrong", "no visible effect"
BY_CHECK = "found by its verify"
UNJUDGED = "not judged"
_OPENED = [FINE, CLOSED, LOST, UNFOUND, CRASH, HANG, UNJUDGED]
MODELS = {"power, journalled": "journalled", "power, weak": "weak"}
COLUMNS = {
    "kill": _OPENED,
    "damage": [RAISED, BY_CHECK, WRONG, SAME, CRASH, HANG, UNJUDGED],
    **dict.fromkeys(MODELS, _OPENED),
}
GOOD = {FINE, RAISED, BY_CHECK, SAME}


# --- kill, and what both kill and power ask ----------------------------------------------------


def kill(bench: Bench, options: Options, number: int, folder: Path) -> Verdict:
    """Kill a writer at a random moment; look at what is left."""
    rng = random.Random(f"{options.seed}-{number}")
    journal, path = folder / "journal", folder / "store"
    writer = bench.process()
    try:
        seed = f"{options.seed}-{number} work"
        writer.tell(do="write", path=path, journal=journal, seed=seed, kinds=None)
        writer.kill_after(journal, rng.uniform(*KILL_S))
    finally:
        writer.end()
    return judge(bench, path, journal.read_text().split("\n")[:-1], rng)


def story(notes: list[str]) -> tuple[dict[str, int], Versions, list[str]]:
    """Return what was acknowledged, the call cut short, and the ids of the last finished call."""
    known: dict[str, int] = {}
    cut_short: Versions = {}
    last: list[str] = []
    for line in notes:
        if line.startswith("intent "):
            cut_short = json.loads(line.removeprefix("intent "))
        elif line == "done":
            apply(known, cut_short)
            last, cut_short = list(cut_short), {}
    return known, cut_short, last


def judge(bench: Bench, path: Path, notes: list[str], rng: random.Random) -> Verdict:
    """Return what became of a store, by the notes made while it was written.

    Nothing was acknowledged before the first batch, so a store that is then empty is fine.
    """
    known, cut_short, last = story(notes)
    sure = {name: version for name, version in known.items() if name not in cut_short}
    recent = [name for name in last if name in sure]
    probes = rng.sample(recent, min(len(recent), PROBES // 2))
    probes += rng.sample(sorted(sure), min(len(sure), PROBES // 2))
    vectors = [make_vector(name, sure[name]).tolist() for name in probes]
    try:
        answer = bench.look(path, vectors)
    except Ended as end:
        return end.verdict
    if "error" in answer:
        return Verdict(CLOSED, answer["error"])
    if answer.get("problems"):
        return Verdict(CLOSED, f"verify: {answer['problems'][0]}")
    texts: dict[str, str] = answer["texts"]
    is_half = 0 < sum(texts.get(n) == _text(n, v) for n, v in cut_short.items()) < len(cut_short)
    if wrong := _wrong(texts, known, cut_short):
        return Verdict(LOST, wrong, is_half)
    unfound = [name for name, hits in zip(probes, answer["hits"], strict=True) if name not in hits]
    if unfound:
        return Verdict(UNFOUND, f"{len(unfound)} of {len(probes)} by their own vectors", is_half)
    return Verdict(FINE, "", is_half)


def _text(name: str, version: int | None) -> str | None:
    return None if version is None else make_text(name, version)


def _wrong(texts: dict[str, str], known: dict[str, int], cut_short: Versions) -> str:
    """Say which documents are neither as acknowledged nor as the call cut short made them."""
    kinds: Counter[str] = Counter()
    for name in texts.keys() | known.keys():
        found = texts.get(name)
        allowed = {_text(name, known.get(name))}
        if name in cut_short:
            allowed.add(_text(name, cut_short[name]))
        if found not in allowed:
            gone = "missing" if found is None else "wrong"
            kinds[gone if name in known else "back though deleted"] += 1
    return ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))


# --- damage ----------------------------------------------------------------------------------


@dataclass
class Healthy:
    """A store of 300 documents, closed, and what it answers."""

    path: Path
    files: list[Path]
    vectors: list[list[float]]
    answer: dict[str, Any]


def healthy(bench: Bench, options: Options) -> Healthy:
    """Write a store, close it, and require the right answers of two copies."""
    path, journal = bench.folder / "healthy", bench.folder / "healthy.journal"
    journal.unlink(missing_ok=True)
    writer = bench.process()
    try:
        seed = f"{options.seed} healthy"
        writer.ask(do="write", path=path, journal=journal, seed=seed, kinds=SCRIPT)
    finally:
        writer.end()
    known, _, _ = story(journal.read_text().splitlines())
    rng = random.Random(seed)
    vectors = [
        [value + rng.gauss(0, 0.02) for value in make_vector(name, known[name]).tolist()]
        for name in rng.sample(sorted(known), SEARCHES)
    ]
    answers = []
    for number in range(2):
        copy = shutil.copytree(path, bench.folder / f"copy-{number}" / "store")
        answers.append(bench.look(copy, vectors))
        shutil.rmtree(copy.parent)
    if answers[0] != answers[1] or answers[0].get("texts") != {
        name: make_text(name, version) for name, version in known.items()
    }:
        raise Unjudged(f"undamaged, it answers {str(answers[0])[:300]}")
    # By size first: some stores name their files at random.
    files = [
        file.relative_to(path)
        for file in sorted(path.rglob("*"), key=lambda file: (file.stat().st_size, file.name))
        if file.is_file() and file.stat().st_size and not _is_left_out(file.name)
    ]
    return Healthy(path, files, vectors, answers[0])


def _is_left_out(name: str) -> bool:
    """Return whether a file is a lock, or an index of SQLite's that is made again."""
    return name.lower().lstrip(".") == "lock" or name.endswith("-shm")


def damage(bench: Bench, options: Options, number: int, folder: Path, base: Healthy) -> Verdict:
    """Flip one bit of one file, each file as likely as any other; read everything and search."""
    rng = random.Random(f"{options.seed}-{number}")
    path = shutil.copytree(base.path, folder / "store")
    file = path / rng.choice(base.files)
    content = bytearray(file.read_bytes())
    bit = rng.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    where = f"bit {bit} of {file.relative_to(path)}"
    try:
        answer = bench.look(path, base.vectors)
    except Ended as end:
        return Verdict(end.verdict.name, f"{where}: {end.verdict.detail}")
    if "error" in answer:
        return Verdict(RAISED, f"{where}: {answer['error']}")
    if answer.get("problems"):
        return Verdict(BY_CHECK, f"{where}: {answer['problems'][0]}")
    parts = [part for part in ("texts", "hits") if answer[part] != base.answer[part]]
    return Verdict(WRONG, f"{where}: {' and '.join(parts)}") if parts else Verdict(SAME, where)


# --- power loss --------------------------------------------------------------------------------


def power(
    bench: Bench, options: Options, number: int, folder: Path, recording: Recording, model: str
) -> Verdict:
    """Cut the power at a random moment; look at one of the states the disk may be in."""
    rng = random.Random(f"{options.seed}-{number}")
    cut = recording.moment(rng)
    policy = rng.choice(disk.POLICIES)
    state = recording.state(cut, model, policy, rng)
    disk.materialise(state.files, folder)
    verdict = judge(bench, folder / "store", state.marks, rng)
    return verdict._replace(detail=f"{policy}, call {cut}: {verdict.detail}")


def require_faithful(bench: Bench, recording: Recording) -> None:
    """Require that a store is fine wherever a call had returned and nothing was lost."""
    for number, cut in enumerate(recording.acknowledged()):
        rng = random.Random(number)
        state = recording.state(cut, "weak", "everything", rng)
        folder = bench.folder / f"nothing-lost-{number}"
        disk.materialise(state.files, folder)
        verdict = judge(bench, folder / "store", state.marks, rng)
        if verdict.name != FINE:
            raise Unjudged(f"the record is not faithful: after call {number}, {verdict}")
        shutil.rmtree(folder)


# --- all of it ---------------------------------------------------------------------------------


def run(options: Options) -> Outcome:
    """Try every installed store in turn."""
    outcome = Outcome("peers", notes={test: {} for test in COLUMNS})
    began = time.monotonic()
    names = [name for name in os.environ.get("DURABILITY_STORES", "").split(",") if name]
    if unknown := set(names) - {store.name for store in STORES}:
        raise SystemExit(f"DURABILITY_STORES names no store: {', '.join(sorted(unknown))}.")
    outcome.notes.update({"not installed": [], "has a verify": [], "half done": {}, "examples": {}})
    for store in STORES:
        if names and store.name not in names:
            continue
        if module := missing(store):
            outcome.notes["not installed"].append(f"{store.name} ({module})")
            continue
        if store.check:
            outcome.notes["has a verify"].append(store.name)
        with _bench(store, options) as bench:
            _run_store(outcome, options, bench)
    outcome.seconds = time.monotonic() - began
    print(table(outcome), flush=True)
    return outcome


@contextmanager
def _bench(store: type[Store], options: Options) -> Iterator[Bench]:
    folder = options.folder.resolve() / "".join(c if c.isalnum() else "-" for c in store.name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    bench = Bench(store, folder)
    try:
        yield bench
    finally:
        bench.close()


def _run_store(outcome: Outcome, options: Options, bench: Bench) -> None:
    _run_test(outcome, options, bench, "kill", lambda n, at: kill(bench, options, n, at))
    try:
        base = healthy(bench, options)
    except (Ended, Unjudged) as error:
        _set_aside(outcome, bench, "damage", str(error))
    else:
        _run_test(
            outcome, options, bench, "damage", lambda n, at: damage(bench, options, n, at, base)
        )
    if reason := shim.unavailable():
        outcome.notes["power"] = f"not tried: {reason}"
        return
    try:
        recording = record(bench, f"{options.seed} record")
        require_faithful(bench, recording)
    except (Ended, Unjudged) as error:
        for test in MODELS:
            _set_aside(outcome, bench, test, str(error))
        return
    for test, model in MODELS.items():

        def cut(number: int, folder: Path, model: str = model) -> Verdict:
            return power(bench, options, number, folder, recording, model)

        _run_test(outcome, options, bench, test, cut)


def _set_aside(outcome: Outcome, bench: Bench, test: str, why: str) -> None:
    outcome.notes[test][label(bench.store)] = {UNJUDGED: why}
    if bench.store is OURS:
        outcome.failures.append(f"{test} of {bench.store.name}: {why}")


def _run_test(
    outcome: Outcome,
    options: Options,
    bench: Bench,
    test: str,
    trial: Callable[[int, Path], Verdict],
) -> None:
    """Make the trials of one test with one store."""
    counts: Counter[str] = Counter()
    name = label(bench.store)

    def one(number: int) -> tuple[int, Path, Verdict]:
        folder = bench.folder / f"{test.replace(', ', '-')}-{options.seed}-{number}"
        folder.mkdir()
        try:
            return number, folder, trial(number, folder)
        except Unjudged as error:
            return number, folder, Verdict(UNJUDGED, str(error))

    with ThreadPoolExecutor(options.jobs) as threads:
        for number, folder, verdict in threads.map(one, options.numbers):
            counts[verdict.name] += 1
            outcome.trials += 1
            outcome.seen[f"{test}: {verdict.name}"] += 1
            line = f"{test} {options.seed}-{number} of {name}: {verdict.name} {verdict.detail}"
            if options.verbose:
                print(line, flush=True)
            if verdict.half_done:
                halves = outcome.notes["half done"]
                halves[f"{name}, {test}"] = halves.get(f"{name}, {test}", 0) + 1
            if verdict.name not in GOOD:
                outcome.notes["examples"].setdefault(f"{name}, {test}, {verdict.name}", line)
                if bench.store is OURS:
                    outcome.failures.append(f"{line}; kept in {folder}")
                    continue
            shutil.rmtree(folder, ignore_errors=True)
    outcome.notes[test][name] = dict(counts)


def table(outcome: Outcome) -> str:
    """Return the outcome as Markdown, a table a test."""
    lines: list[str] = []
    for test, columns in COLUMNS.items():
        rows: dict[str, dict[str, Any]] = outcome.notes[test]
        if not rows:
            continue
        shown = [c for c in columns if any(c in row for row in rows.values())]
        lines += ["", f"| {test} | {' | '.join(shown)} |", "|---" * (len(shown) + 1) + "|"]
        lines += [
            f"| {name} | {' | '.join(str(row.get(column, 0)) for column in shown)} |"
            for name, row in rows.items()
        ]
    verifiers = ", ".join(outcome.notes["has a verify"]) or "none"
    skipped = ", ".join(outcome.notes["not installed"]) or "none"
    halves = ", ".join(f"{name}: {n}" for name, n in outcome.notes["half done"].items()) or "none"
    lines += ["", f"Stores with a way to verify what is stored: {verifiers}."]
    lines += [f"Calls left half done, which no store is blamed for: {halves}."]
    return "\n".join([*lines, f"Not installed: {skipped}.", ""])

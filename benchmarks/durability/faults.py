"""Let the disk fail: the n-th open, write, fsync, rename, ... of all kinds of work is refused.

Also: a database that may not grow, files that may not, rights taken away, odd paths, stray files
and a clock that goes backwards. A call that meets a fault returns all the same or raises one of our
errors; what it says of durability is true; the same `Index` object goes on once the fault is gone;
another process then finds everything as it should be. Where an fsync has failed, the directory is
also rebuilt without the data that was pending then, and must hold what was acknowledged later.
"""

from __future__ import annotations

import datetime
import errno
import json
import os
import random
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from retriever.errors import DataLoss, IndexCorrupt, RetrieverError, WriteFailed
from retriever.storage import layout, pool, writer

from . import disk, shim, work
from .refusals import (
    CONDITIONS,
    COPY,
    FOLDER,
    Condition,
    Events,
    Rule,
    learn,
    on_connect,
    repeated_fsyncs,
)
from .runner import Failure, Options, Outcome, Seen, require, run_trials

SITUATIONS = {
    "work": 74,
    "creation": 6,
    "backup": 6,
    "verify": 2,
    "page limit": 4,
    "file size": 4,
    "rights": 4,
}
_PLACES = ["an index", "índice ∂ 索引", "new\nline", "100%25?mode=rw#x"]
_AFTER = 3  # calls of the script that follow the failure
_BACKUP_AFTER = 8

Error = BaseException | None


def run(options: Options) -> Outcome:
    """Make `options.count` trials."""
    shim.load()
    learned = run_trials("faults", replace(options, count=1, only=None, seed=0), learn)
    if not learned.ok:
        return learned
    events: Events = {}
    for name, number in learned.seen.items():
        phase, kind, place = name.split("|")
        events.setdefault(phase, {})[kind, place] = number
    return run_trials("faults", options, lambda seed, folder: Trial(seed, folder, events).run())


# --- trials ----------------------------------------------------------------------------------


class Trial:
    """One index, one fault."""

    def __init__(self, seed: str, folder: Path, events: Events) -> None:
        self.rng = random.Random(f"faults {seed}")
        self.seed, self.folder, self.area = seed, folder, folder / FOLDER
        self.area.mkdir()
        odd = self.rng.random() < 0.06
        self.path = self.area / (self.rng.choice(_PLACES) if odd else "i.index")
        self.situation = self.rng.choices(list(SITUATIONS), list(SITUATIONS.values()))[0]
        condition = CONDITIONS.get(self.situation)
        self.fault: Rule | Condition = (
            condition(self.rng, self.path)
            if condition
            else Rule.draw(self.rng, events[self.situation])
        )
        self.known: work.Known = {}
        self.seen: Seen = Counter([f"situation {self.situation}"])
        self.errors: list[str] = []
        self.log = folder / "log"
        self.reads = self.rng.random() < 0.5

    def run(self) -> Seen:
        """Do the work, meet the fault, and look at what is left."""
        try:
            self._run()
        except Failure as failure:
            raise Failure(self._told(str(failure))) from None
        except BaseException:
            raise Failure(self._told(traceback.format_exc())) from None
        return self.seen

    def _told(self, text: str) -> str:
        met = "".join(f"\n  met: {error}" for error in self.errors)
        return f"[{self.situation}: {self.fault}; {self.path.name!r}] {text}{met}"

    def _run(self) -> None:
        if self.rng.random() < 0.05:
            self._turn_clock_back()
        if self.rng.random() < 0.2:
            self.seen["small log"] += 1
            on_connect(lambda _: "wal_autocheckpoint=20")
        shim.watch(self.path)
        shim.record(self.log)
        if self.situation == "creation":
            self._create()
        self.session = work.Session(self.path)
        if self.rng.random() < 0.05:
            self.seen["empty files about"] += 1
            for name in (
                "segment-000000000000-0123456789ab.faiss",
                "notes.txt",
                "HEAD.0a1b2c3d.tmp",
            ):
                (self.path / name).touch()
        if self.situation in ("backup", "verify"):
            self._work(limit=_BACKUP_AFTER)
            self._copy() if self.situation == "backup" else self._verify()
        else:
            self._work(limit=6 if self.situation == "creation" else len(work.SCRIPT))
        self._count_fault()
        self.session.index.close()
        shim.record(None)
        left = [name for name in _open_files() if str(self.path) in name]
        require(not left, f"left open: {left}")
        self._check_elsewhere(self.path, dict(self.known))
        self._check_stray()
        self._check_dropped()

    def _turn_clock_back(self) -> None:
        """Let every commit be made a day before the one before it."""
        self.seen["clock goes back"] += 1
        day = [0]

        def now() -> str:
            day[0] += 1
            past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=day[0])
            return past.isoformat(timespec="milliseconds")

        writer.now = now

    def _count_fault(self) -> None:
        fault = self.fault
        self.seen["fired" if fault.has_fired else "did not fire"] += 1
        if fault.has_fired:
            self.seen[f"kind {fault.kind}"] += 1
            self.seen["sticky"] += fault.sticky
            if isinstance(fault, Rule):
                self.seen[f"error {errno.errorcode[fault.error]}"] += 1
            if not self.errors:
                self.seen["harmless"] += 1
        self.seen["fsyncs after a failed one"] += shim.retried_fsyncs()

    def _attempt(self, what: Callable[[], Any]) -> Error:
        """Make a call; return one of our errors, raise Failure for any other."""
        try:
            what()
        except RetrieverError as exc:
            self.errors.append(f"{type(exc).__name__} {exc.message}")
            self.seen[f"raised {type(exc).__name__}"] += 1
            if isinstance(exc, WriteFailed):
                self.seen[f"durable {exc.durable}"] += 1
            harmed = isinstance(exc, IndexCorrupt | DataLoss)
            require(not harmed, f"a refused call is told as damage: {exc}")
            return exc
        return None

    # --- the script --------------------------------------------------------------------------

    def _work(self, *, limit: int) -> None:
        """Make the calls of the script; the fault begins with one and ends where one fails."""
        is_rule = isinstance(self.fault, Rule)
        begin = 0 if is_rule else self.rng.randrange(limit)
        armed = self.situation in ("work", *CONDITIONS)
        left = limit
        for call in work.calls(self.seed, self.known, work.SCRIPT[:limit]):
            if armed and call["number"] == begin:
                self.fault.begin()
            if (
                self.reads
                and self.situation != "rights"
                and call["kind"] not in ("repair", "rot", "break")
            ):
                self.session.index.count()
            if call["kind"] in ("rot", "break"):
                with self.fault.paused():
                    self.session.perform(call)
                continue
            error = self._attempt(lambda call=call: self.session.perform(call))
            if error is None:
                self._acknowledge(call)
            else:
                self._recover(call, error)
                left = min(left, call["number"] + 1 + _AFTER)
            if call["number"] + 1 >= left and work.SCRIPT[call["number"] + 1 : limit][:1] != [
                "repair"
            ]:
                break
        self.fault.end()

    def _acknowledge(self, call: work.Call) -> None:
        work.apply(self.known, call)
        shim.mark(json.dumps(self.known))

    def _recover(self, call: work.Call, error: Error) -> None:
        """After a call has failed: go on reading and writing, with the fault and without."""
        is_open = call["kind"] not in ("reopen", "repair")
        again = None
        if self.fault.sticky and is_open and self.fault.kind != "rights":
            again = self._go_on()
        if is_open and self.rng.random() < 0.3:
            self.session.index.close()  # with the fault, if it is one that stays
            is_open = False
        self.fault.end()
        if call["kind"] == "repair":
            work._finish_repair(self.path)
        if not is_open:
            self.session.reopen()
        index = self.session.index
        found = {document.id or "": document for document in index.documents()}
        if call["kind"] not in ("reopen", "repair"):
            self._check_call(call, error, found)
        if again is not None:
            there = "again" in found
            told = again.durable if isinstance(again, WriteFailed) else False
            require(there == told, f"an add said {again!r}, but there is {there}")
        if "again" in found:
            self.known["again"] = 1
        work.check_documents(index, found, self.known)
        work.check_searches(index)
        work.require_free_lock(self.path)
        self._add("next")

    def _add(self, name: str) -> None:
        call = {"versions": {name: len(self.known)}}
        self.session.index.add([work.make_document(name, len(self.known))])
        require(self.session.index.get(name) is not None, "the next document is not there")
        self._acknowledge(call)

    def _go_on(self) -> Error:
        """Search and add while the fault stays; return the error of the add, if there was one."""
        index = self.session.index
        query = np.random.default_rng(0).standard_normal(work.DIMENSION)
        had_reader = bool(index._pool._idle)
        error = self._attempt(lambda: (index.count(), index.search(vector=query)))
        if error is not None:
            self.seen["reads refused"] += 1
            require(not had_reader, f"a search fails while writing does: {error}")
        error = self._attempt(lambda: index.add([work.make_document("again", 1)]))
        self.seen["went on writing" if error is None else "writes go on failing"] += 1
        return error

    def _check_call(self, call: work.Call, error: Error, found: dict[str, Any]) -> None:
        """Require that what a failed call has left is a prefix, and just what it says."""
        work._check_prefix(found, self.known, call)
        versions = call["versions"]
        done = {n: v for n, v in versions.items() if work._is_new(found.get(n), v)}
        report = getattr(error, "report", None)
        durable = isinstance(error, WriteFailed) and error.durable
        if call["kind"] in ("add", "replace"):
            told = report.added + report.replaced if report else 0
            require(told == len(done), f"told of {told} documents, {len(done)} are there")
            require(not durable or done, "nothing is durable of a call that said so")
        elif call["kind"] in ("delete", "purge") and versions:
            require(bool(done) == durable, f"durable={durable}, but {len(done)} are deleted")
        work.apply(self.known, {"versions": done})

    # --- creating, copying, verifying --------------------------------------------------------

    def _create(self) -> None:
        self.fault.begin()
        error = self._attempt(lambda: work.open_index(self.path, create=True).close())
        if error is not None and self.fault.sticky:
            self._attempt(lambda: work.open_index(self.path, create=True).close())
        self.fault.end()
        work.open_index(self.path, create=True).close()
        shim.mark("{}")

    def _copy(self) -> None:
        target = self.area / COPY
        shim.watch(self.area)
        self.fault.begin()
        error = self._attempt(lambda: self.session.index.backup(target))
        self.fault.end()
        shim.watch(self.path)
        left = [path.name for path in self.area.iterdir() if path.name.endswith(".tmp")]
        may_stay = self.fault.sticky and self.fault.kind in ("unlink", "rmdir", "open")
        require(not left or may_stay, f"a failed backup has left {left}")
        if error is None or (target / layout.HEAD).exists():
            self._check_elsewhere(target, dict(self.known))
        else:
            require(not target.exists(), "a failed backup has left a part of its target")
        self.session.index.backup(self.area / "second copy")
        self._check_elsewhere(self.area / "second copy", dict(self.known))

    def _verify(self) -> None:
        self.session.index.close()
        self.fault.begin()
        reports: list[Any] = []
        error = self._attempt(
            lambda: reports.append(work.Index.verify_path(self.path, deep=self.rng.random() < 0.5))
        )
        if error is None:
            require(reports[0].ok, f"verify blames a refused call: {reports[0].problems}")
        self._attempt(lambda: work.Index.open(self.path, check="full").close())
        self.fault.end()
        self.session.reopen()

    # --- what is left ------------------------------------------------------------------------

    def _check_elsewhere(self, path: Path, known: work.Known) -> None:
        """Check an index in a process of its own; `known` takes in what the check has added."""
        result = self.folder / "result"
        pid = os.fork()
        if pid == 0:
            text = ""
            try:
                work.check(path, known, None)
            except BaseException:
                text = traceback.format_exc()
            result.write_text(text)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        require(status == 0, f"checking crashed: {status}")
        require(not result.read_text(), f"{path.name} afterwards: {result.read_text()}")

    def _check_stray(self) -> None:
        with pool.reading(self.path) as connection:
            rows = connection.execute("SELECT files FROM segments").fetchall()
        named = {file["name"] for (described,) in rows for file in json.loads(described)}
        stray = [
            path.name
            for path in self.path.iterdir()
            if layout.IS_TEMPORARY(path.name)
            or (layout.SEGMENT_FILE(path.name) and path.name not in named)
        ]
        require(not stray, f"stray files are left: {stray}")

    def _check_dropped(self) -> None:
        """Rebuild the directory without what was pending at a failed fsync, at a later mark."""
        events = list(shim.read(self.log))
        failed = [i for i, event in enumerate(events) if event.kind == "fsync failed"]
        if not failed:
            return
        retried = repeated_fsyncs(events, self.path)
        require(not retried, f"an fsync was repeated on what a failed one dropped: {retried}")
        marks = [i for i, event in enumerate(events) if event.kind == "mark" and i > failed[0]]
        self.seen["rebuilt after a failed fsync"] += bool(marks)
        for cut in self.rng.sample(marks, min(3, len(marks))):
            model, policy = self.rng.choice(disk.MODELS[:2]), self.rng.choice(disk.POLICIES)
            state = disk.replay(
                events[: cut + 1], self.path, model, policy, self.rng, failed_syncs=True
            )
            folder = self.folder / f"disk-{cut}"
            disk.materialise(state.files, folder)
            try:
                self._check_elsewhere(folder, json.loads(events[cut].data))
            except Failure as failure:
                text = f"without what a failed fsync dropped ({model}, {policy}, {cut}): {failure}"
                raise Failure(text) from None


def _open_files() -> list[str]:
    """Return the paths of the descriptors of this process."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(descriptor.readlink()))
        except OSError:
            continue
    return found

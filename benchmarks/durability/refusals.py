"""What may be refused: the n-th call of a kind, by the shim, or something of the surroundings."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from retriever.storage import connections, layout

from . import shim, work
from .runner import Seen

KINDS = {"open": 3, "write": 5, "fsync": 6, "rename": 2, "unlink": 2, "truncate": 2} | {
    "link": 1,
    "mkdir": 1,
    "rmdir": 1,
}
_SPACE = [errno.ENOSPC, errno.EIO, errno.EDQUOT]
ERRORS = {kind: [*_SPACE, errno.EROFS] for kind in KINDS} | {
    "open": [*_SPACE, errno.EROFS, errno.EACCES, errno.EMFILE],
    "write": _SPACE,
    "fsync": _SPACE,
}
FOLDER, COPY = "area", "copy"

Events: TypeAlias = "dict[str, dict[tuple[str, str], int]]"


def learn(_: str, folder: Path) -> Seen:
    """Return how many events of each kind and place each phase has."""
    seen: Seen = Counter()
    area = folder / FOLDER
    path = area / "i.index"
    area.mkdir()

    def record(phase: str, watched: Path, what: Callable[[], Any]) -> Any:
        log = folder / f"{phase}.log"
        shim.watch(watched)
        shim.record(log)
        result = what()
        shim.record(None)
        for event in shim.read(log):
            if event.kind in KINDS:
                place = shim.place(event.target or event.path, watched)
                seen[f"{phase}|{event.kind}|{place}"] += 1
        return result

    session = record("creation", path, lambda: work.Session(path))
    journal, known = work.FileJournal(folder / "journal"), {}
    planned = work.calls("0", known, work.SCRIPT)
    record("work", path, lambda: list(work.make_calls(session, journal, known, planned)))
    session.index.close()
    record("verify", path, lambda: work.Index.verify_path(path, deep=True))
    index = work.open_index(path)
    record("backup", area, lambda: index.backup(area / COPY))
    index.close()
    return seen


@dataclass
class Rule:
    """A fault that the shim makes: the n-th event of a kind, at a place or anywhere."""

    kind: str
    place: str
    nth: int
    error: int
    sticky: bool
    action: str = "fail"
    fired: int = 0
    is_armed: bool = False

    @classmethod
    def draw(cls, rng: random.Random, events: dict[tuple[str, str], int]) -> Rule:
        """Choose a rule that the events counted will meet."""
        kinds = sorted({kind for kind, _ in events})
        kind = rng.choices(kinds, [KINDS[name] for name in kinds])[0]
        places = sorted(place for name, place in events if name == kind)
        place = rng.choice(["", *places] if rng.random() < 0.7 else [""])
        count = sum(
            number for (name, at), number in events.items() if name == kind and place in ("", at)
        )
        action = "short" if kind == "write" and rng.random() < 0.2 else "fail"
        nth = rng.randint(1, count)
        return cls(kind, place, nth, rng.choice(ERRORS[kind]), rng.random() < 0.35, action)

    def __str__(self) -> str:
        word = errno.errorcode[self.error]
        often = "and all later ones" if self.sticky else "once"
        return (
            f"{self.action} {self.kind} {self.nth} at {self.place or 'any place'}: {word}, {often}"
        )

    def begin(self) -> None:
        """Arm the shim."""
        self._arm(self.nth)

    def _arm(self, nth: int) -> None:
        self.is_armed = True
        shim.arm(self.action, [self.kind], self.place, nth, self.error, sticky=self.sticky)

    def end(self) -> None:
        """Let every call through."""
        self.is_armed = False
        self.fired += shim.fired()
        shim.disarm()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let every call through for a while."""
        was_armed, count = self.is_armed, int(ctypes.CDLL(None).shim_count())
        self.end()
        yield
        if not was_armed:
            return
        if not self.fired:
            self._arm(self.nth - count)
        elif self.sticky:
            self._arm(1)

    @property
    def has_fired(self) -> bool:
        """Return whether a call was refused."""
        return self.fired + shim.fired() > 0


@dataclass
class Condition:
    """A fault of the surroundings, from one call of the script to the first that fails."""

    text: str
    start: Callable[[], Callable[[], None]]
    kind: str
    sticky: bool = True
    has_fired: bool = False
    _stop: Callable[[], None] | None = None

    def __str__(self) -> str:
        return self.text

    def begin(self) -> None:
        """Let it be so."""
        self._stop = self.start()
        self.has_fired = True

    def end(self) -> None:
        """Let it be over."""
        if self._stop is not None:
            self._stop()
        self._stop = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let it be otherwise for a while."""
        was_so = self._stop is not None
        self.end()
        yield
        if was_so:
            self.begin()


def on_connect(pragma: Callable[[int], str]) -> Callable[[], None]:
    """Have connections that write run a pragma, made from the number of pages, until it is undone.

    Returns:
        How to undo it.
    """
    connect = connections.connect

    def with_pragma(directory: Path, mode: Any, **options: Any) -> Any:
        connection = connect(directory, mode, **options)
        try:
            if mode != "ro":
                (pages,) = connection.execute("PRAGMA page_count").fetchone()
                connection.execute(f"PRAGMA {pragma(pages)}")
        except BaseException:
            connection.close()
            raise
        return connection

    connections.connect = with_pragma
    return lambda: setattr(connections, "connect", connect)


def _page_limit(rng: random.Random, path: Path) -> Condition:
    spare = rng.choice([0, 1, 3, 10, 40])

    def start() -> Callable[[], None]:
        return on_connect(lambda pages: f"max_page_count={pages + spare}")

    return Condition(f"the database may grow by {spare} pages", start, "page limit")


def _file_size(rng: random.Random, path: Path) -> Condition:
    size = rng.choice([1 << 12, 1 << 15, 1 << 16, 1 << 18, rng.randrange(1 << 20)])

    def start() -> Callable[[], None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return Condition(f"files may have {size} bytes", start, "file size")


def _rights(rng: random.Random, path: Path) -> Condition:
    name = rng.choice(["", layout.DATABASE, layout.HEAD, layout.LOCK])
    mode = rng.choice([0o500, 0] if name == "" else [0o400, 0])

    def start() -> Callable[[], None]:
        drop_capabilities()
        target = path / name
        target.chmod(mode)

        def stop() -> None:
            path.chmod(0o700)
            # SQLite makes the log as the database is.
            for name in (*layout.DATABASE_FILES, layout.HEAD, layout.LOCK):
                if (path / name).exists():
                    (path / name).chmod(0o600)

        return stop

    return Condition(f"chmod {mode:o} {name or 'the directory'}", start, "rights")


def drop_capabilities() -> None:
    """Have permissions count for root too, in this process and for good."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        if libc.capset(header, (ctypes.c_uint32 * 6)()):
            raise OSError(ctypes.get_errno(), "capset")


CONDITIONS = {"page limit": _page_limit, "file size": _file_size, "rights": _rights}


def repeated_fsyncs(events: list[shim.Event], base: Path) -> list[str]:
    """Return the files synced again after an fsync dropped data, with nothing written between."""
    found: list[str] = []
    dirty: set[str] = set()
    dropped: set[str] = set()
    for event in events:
        if event.kind in ("write", "truncate"):
            dirty.add(event.path)
            dropped.discard(event.path)
        elif event.kind == "fsync failed" and event.path in dirty:
            dropped.add(event.path)
        elif event.kind == "fsync":
            if event.path in dropped:
                found.append(shim.place(event.path, base))
            dirty.discard(event.path)
        elif event.kind in ("unlink", "rename"):
            for path in (event.path, event.target):
                dirty.discard(path)
                dropped.discard(path)
    return found

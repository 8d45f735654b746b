"""What every test gets: a cache of its own, and a look at what it left behind."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from retriever import Index
from retriever.search.segment_kinds import KINDS
from retriever.storage import integrity

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's cache out of the tests and the tests out of the user's cache."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """Undo what the command line does to the log, in a test or in a fixture of a whole module.

    `--quiet` would silence every later test, and its handler speak in them.
    """
    _as_imported()
    yield
    _as_imported()


def _as_imported() -> None:
    logger = logging.getLogger("retriever")
    logger.setLevel(logging.NOTSET)
    logger.handlers = []


def open_index_files() -> list[str]:
    """Return the index files that this process holds open."""
    found = []
    for descriptor in Path("/proc/self/fd").glob("*"):
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue
        if target.endswith(("store.db", "store.db-wal", "store.db-shm", "/LOCK")):
            found.append(target)
    return found


@pytest.fixture(autouse=True)
def verified_on_close(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Verify every index that a test closes, and notice descriptors and locks that leak.

    After Lucene's MockDirectoryWrapper, which checks every directory a test closes. Tests that
    damage an index on purpose are marked `damages`.
    """
    if request.node.get_closest_marker("damages"):
        yield
        return
    before = set(open_index_files())
    close = Index.close
    owner = os.getpid()

    def close_and_verify(index: Index) -> None:
        close(index)
        is_mine = os.getpid() == owner  # not a forked child's, which may not even open it
        if is_mine and (index.path / "store.db").exists() and os.access(index.path, os.W_OK):
            report = integrity.verify(index.path, kinds=KINDS)
            assert report.ok, report.problems

    monkeypatch.setattr(Index, "close", close_and_verify)
    yield
    leaked = set(open_index_files()) - before
    if leaked:
        gc.collect()
        leaked = set(open_index_files()) - before
    assert not leaked, f"left open: {sorted(leaked)}"

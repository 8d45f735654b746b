"""The state of an open index, which all parts of `Index` share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from retriever.encoders.loading import Encoders
from retriever.errors import IndexReadOnly
from retriever.limits import Limits
from retriever.search.file_states import FileStates
from retriever.search.reranker_source import RerankerSource
from retriever.search.searcher import Searcher
from retriever.search.view import Views
from retriever.storage.pool import ReadPool
from retriever.types import Document, ProgressCallback
from retriever.write_session import WriteSessions

# Modules that only writing and maintenance need are imported where they are called, so that a
# search on the command line does not wait for them.
if TYPE_CHECKING:
    from retriever.reports import CompactReport
    from retriever.storage.writer import Writer

DocumentLike: TypeAlias = "Document | Mapping[str, Any] | str"
PathLike: TypeAlias = "str | os.PathLike[str]"


class IndexState:
    """The path, connections, encoders and views of an open index; the base of `Index`'s parts."""

    def __init__(
        self,
        path: Path,
        pool: ReadPool,
        encoders: Encoders,
        rerankers: RerankerSource,
        *,
        read_only: bool,
        threads: int | None,
        lock_timeout_s: float,
        base: Path | None,
        limits: Limits,
        options: Mapping[str, Any],
    ) -> None:
        """Use `Index.open`."""
        self.path = path
        self._options = options
        self._pool = pool
        self._encoders = encoders
        self._read_only = read_only
        self._threads = threads
        self._lock_timeout_s = lock_timeout_s
        self._base = base
        self._limits = limits
        self._file_states = FileStates(path, base)
        self._views = Views(path)
        pool.on_replaced = self._views.forget_index
        self._searcher = Searcher(path, pool, self._views, encoders, rerankers, self._file_states)
        self._sessions = WriteSessions(
            path, pool, self._views, limits=limits, lock_timeout_s=lock_timeout_s
        )

    def _check_writable(self) -> None:
        self._pool.check()
        if self._read_only:
            raise IndexReadOnly(
                f"{self.path} was opened with read_only=True.", hint="Open it without."
            )

    @contextmanager
    def _session(self) -> Iterator[Writer]:
        self._check_writable()
        with self._sessions.session() as writer:
            yield writer

    def _compact(
        self,
        writer: Writer,
        progress: ProgressCallback | None,
        give_way: Callable[[], bool] = lambda: False,
    ) -> CompactReport:
        # The view maps segments that are about to be replaced. A mapped file keeps its space on
        # disk after it has been deleted.
        self._views.forget()
        from retriever import maintenance

        return maintenance.compact(writer, self._lock_timeout_s, progress, give_way, self._limits)

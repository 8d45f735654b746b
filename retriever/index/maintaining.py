"""`Index`: checking, repairing, compacting and backing up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retriever import arguments, opening
from retriever.encoders.loading import EncoderSource, Model
from retriever.errors import InvalidConfig
from retriever.index.state import IndexState, PathLike
from retriever.limits import Limits
from retriever.search.segment_kinds import KINDS
from retriever.types import ProgressCallback

# Modules that only writing and maintenance need are imported where they are called, so that a
# search on the command line does not wait for them.
if TYPE_CHECKING:
    from retriever.reports import BackupReport, CompactReport, RepairReport, VerifyReport


class Maintaining(IndexState):
    """The methods of `Index` that maintain it."""

    def compact(self, *, progress: ProgressCallback | None = None) -> CompactReport:
        """Merge segments and remove every byte of deleted text and vectors.

        Raises:
            IndexBusy: A reader kept an old snapshot open; everything else is done and durable.
            IndexLocked, IndexReadOnly, WriteFailed: As `add`.
        """
        arguments.callback(progress, "progress")
        with self._session() as writer:
            return self._compact(writer, progress, self._sessions.give_way)

    def verify(
        self, *, deep: bool = False, progress: ProgressCallback | None = None
    ) -> VerifyReport:
        """Check every stored byte and return a report, whose `ok` is the verdict.

        Args:
            deep: Also compare every vector of every segment with the catalog's.
            progress: Called with a `Progress` for each check.

        Raises:
            IndexClosed: The index is closed.
        """
        self._pool.check()
        return self.verify_path(self.path, deep=deep, progress=progress)

    @classmethod
    def verify_path(
        cls,
        path: PathLike,
        *,
        deep: bool = False,
        progress: ProgressCallback | None = None,
    ) -> VerifyReport:
        """Check an index that `open` may refuse; see `verify`.

        Raises:
            IndexNotFound: Nothing is at `path`.
        """
        directory = opening.require_index(arguments.path(path, "path").absolute())
        arguments.flag(deep, "deep")
        arguments.callback(progress, "progress")
        from retriever.storage import integrity

        return integrity.verify(directory, kinds=KINDS, deep=deep, progress=progress)

    def repair(
        self, *, accept_loss: bool = False, progress: ProgressCallback | None = None
    ) -> RepairReport:
        """Repair what `verify` finds; use `repair_path` if the index cannot be opened.

        The index stays open, whatever the outcome, and uses the repaired files.

        Raises:
            IndexBusy: Searches of another thread did not end in time.
            DataLoss, IndexCorrupt, IndexLocked, IndexReadOnly, WriteFailed, ModelUnavailable: As
                `repair_path`.
        """
        arguments.flag(accept_loss, "accept_loss")
        arguments.callback(progress, "progress")
        self._check_writable()
        if self._sessions.is_open:
            raise InvalidConfig(
                f"{self.path} cannot be repaired inside writing().", hint="Leave the block first."
            )
        from retriever import maintenance

        self._pool.close_idle(-1)
        try:
            return maintenance.repair(
                self.path,
                self._encoders.source,
                accept_loss=accept_loss,
                limits=self._limits,
                lock_timeout_s=self._lock_timeout_s,
                progress=progress,
            )
        finally:
            self._views.forget_index()

    @classmethod
    def repair_path(
        cls,
        path: PathLike,
        *,
        model: Model | None = None,
        accept_loss: bool = False,
        allow_download: bool = False,
        lock_timeout_s: float | None = 10.0,
        limits: Limits | None = None,
        progress: ProgressCallback | None = None,
    ) -> RepairReport:
        """Repair a damaged index. Nothing is deleted; damaged files are moved to `quarantine/`.

        Segments are built again from rows, and embeddings from texts. What cannot be saved is
        listed under `lost`.

        Args:
            path: The index directory. An `Index` that is open there uses the repaired files.
            model: The encoder, if it cannot be loaded by the name in the index.
            accept_loss: Continue although acknowledged commits are missing; `status` shows the
                loss permanently.
            allow_download: As for `open`.
            lock_timeout_s: As for `open`.
            limits: As for `open`.
            progress: Called with a `Progress` for each step.

        Raises:
            DataLoss: Acknowledged commits are missing and `accept_loss` is not set.
            IndexCorrupt: The rows that describe model and vectors cannot be read.
            IndexNotFound, IndexLocked, IndexReadOnly, WriteFailed.
        """
        directory = opening.require_index(arguments.path(path, "path").absolute())
        for name, value in {
            "accept_loss": accept_loss,
            "allow_download": allow_download,
        }.items():
            arguments.flag(value, name)
        arguments.callback(progress, "progress")
        limits = arguments.instance(limits, "limits", Limits) or Limits()
        from retriever import maintenance

        return maintenance.repair(
            directory,
            EncoderSource(model, allow_download=allow_download),
            accept_loss=accept_loss,
            limits=limits,
            lock_timeout_s=arguments.seconds(lock_timeout_s, "lock_timeout_s"),
            progress=progress,
        )

    def backup(self, target: PathLike) -> BackupReport:
        """Copy the index, as of one commit, to a new directory; the copy can be opened.

        Raises:
            IndexExists: Something is at `target` already.
            IndexCorrupt, WriteFailed.
        """
        self._pool.check()
        from retriever.storage import backup

        copy = arguments.path(target, "target").absolute()
        return backup.backup(self.path, copy)

"""`Index`: adding, deleting and rebuilding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from retriever import arguments
from retriever.config import ChunkingLike
from retriever.documents.validation import OnInvalid, read_ids
from retriever.encoders.loading import Model, no_encoder
from retriever.encoders.model_options import ModelOptions
from retriever.errors import IndexReadOnly, WriteFailed
from retriever.index.state import DocumentLike, IndexState, PathLike, find_id, not_found
from retriever.storage import catalog
from retriever.storage.records import Space
from retriever.storage.writer import Writer
from retriever.types import MAX_FILE_SIZE, ProgressCallback

# Modules that only writing and maintenance need are imported where they are called, so that a
# search on the command line does not wait for them.
if TYPE_CHECKING:
    from retriever.ingest.commits import Ingest
    from retriever.reports import IngestReport


class Writing(IndexState):
    """What changes the content of an `Index`."""

    @contextmanager
    def writing(self) -> Iterator[Self]:
        """Hold LOCK across several calls, so that no other writer comes between them.

        Raises:
            IndexLocked: Another writer held it for `lock_timeout_s`; the error names it.
            IndexReadOnly: The index was opened read-only, or cannot be written.
        """
        with self._session():
            yield self

    def add(
        self,
        documents: Iterable[DocumentLike] | DocumentLike,
        *,
        on_invalid: OnInvalid | None = None,
        progress: ProgressCallback | None = None,
    ) -> IngestReport:
        """Add documents; one whose id is already there replaces the earlier version.

        On return the documents survive process kill and power loss, and every later search sees
        them. They are committed in batches of at most 1,000 or 5 seconds; if the call fails, a
        prefix is kept, counted in the exception's `.report`. A list is checked whole first. An
        iterator is read in this thread, somewhat ahead of what is committed; the encoder works in
        another, and an interrupt waits a moment at most for the call that it is in. A document of
        which the encoder cannot do a text, while it does others, is left out, and is in the
        report's `failed` with the reason; if that is all there are, its error is raised.

        A document that is there exactly as it is, embedding included, is unchanged: nothing is
        encoded or written for it, and it keeps its chunk ids. Where only the metadata differs, or
        what else is not encoded, the embeddings are kept.

        Args:
            documents: Documents, dicts of their fields, or strings (the text).
            on_invalid: Called with the position, from 0, and the error of a document that is
                unusable, which is then passed over; None ends the call with the error.
            progress: Called with a `Progress` now and then, in this thread.

        Raises:
            InvalidDocument: One is unusable, or two in this call have one id and other content.
            IndexLocked, IndexReadOnly, WriteFailed: Nothing half-written is visible.
            ModelError: The encoder does nothing any more.
            ModelMismatch, ModelUnavailable: As for `open`.
        """
        arguments.callback(progress, "progress")
        from retriever.ingest.added import add_documents

        with self._session() as writer:
            ingest = self._ingest(writer, catalog.active_space(writer.connection), progress)
            return add_documents(ingest, documents, on_invalid)

    def _ingest(self, writer: Writer, space: Space, progress: ProgressCallback | None) -> Ingest:
        from retriever.ingest.commits import Ingest
        from retriever.ingest.spaces import encoder_to_write

        return Ingest(
            writer,
            space,
            lambda: encoder_to_write(writer, space, self._encoders.of(space)),
            lambda: self._sessions.maintain(writer, space),
            progress,
            give_way=self._sessions.give_way,
            limits=self._limits,
        )

    def add_files(
        self,
        paths: PathLike | Sequence[PathLike],
        *,
        glob: str | None = None,
        prune: bool = False,
        checksum: bool = False,
        restore: bool = False,
        follow_links: bool = False,
        max_file_size: int = MAX_FILE_SIZE,
        encoding: str | None = None,
        progress: ProgressCallback | None = None,
    ) -> IngestReport:
        """Index files and folders, reading only what changed since the last call.

        A call that is cut short goes on where it stopped when repeated. A file that cannot be
        used never ends the call: it is in the report, and in `status`, with the reason.

        A file's id is its path relative to the index's `base`, or its absolute path outside it.
        After `Index.open(base=…)` with another base than is recorded, files that are found at
        their names below the new base keep their names, since their folder has moved; files that
        are still where they were get names relative to the new one. Nothing is encoded again.

        Args:
            paths: Files or folders. Hidden, ignored (`.gitignore`, `.retrieverignore`) and
                version-control entries below them are passed over and counted.
            glob: Only files matching this, such as `**/*.{md,rst}`, relative to each path.
            prune: Remove documents of files that no longer exist, beneath `paths` only.
            checksum: Read every file and compare its content, where otherwise one whose size,
                times and inode are as they were counts as unchanged.
            restore: Index files again whose documents were deleted. Otherwise such a file stays
                out until its content changes, counted in the report's `deleted`.
            follow_links: Follow symbolic links below `paths`; a file that is reached by a link has
                the link's name. Otherwise they are skipped and counted.
            max_file_size: Larger files are skipped, in bytes.
            encoding: The character encoding of files without a byte order mark, as Python names
                it; all of them are read again. By default UTF-8 is recognised, then what a file
                declares, then what it reads like; the report's `doubtful` has weak guesses.
            progress: Called with a `Progress` for each file.

        Raises:
            UnreadableFile: One of `paths` does not exist.
            InvalidConfig: There is no such `encoding`.
            IndexLocked, IndexReadOnly, WriteFailed, ModelMismatch, ModelUnavailable: As `add`.
        """
        from retriever.ingest import folder

        options = folder.FolderOptions(
            glob, prune, checksum, restore, follow_links, max_file_size, encoding
        )
        arguments.callback(progress, "progress")
        walk = options.walk(paths)
        with self._session() as writer:
            space = catalog.active_space(writer.connection)
            if not space.has_encoder:
                raise no_encoder(space)
            ingest = self._ingest(writer, space, progress)
            return folder.add_files(ingest, walk, options, base=self._base)

    def delete(
        self, ids: Iterable[str] | str, *, purge: bool = False, missing_ok: bool = False
    ) -> int:
        """Delete documents; return how many there were.

        A file whose documents are all deleted is remembered: `add_files` leaves it out until its
        content changes, or `restore=True`.

        Args:
            ids: Document ids.
            purge: Also leave no byte of their text or vectors in the index's files. Rewrites the
                database and the segments concerned; what repair set aside in `quarantine/` is
                yours to delete, and a warning names it.
            missing_ok: Pass over ids that are not there.

        Raises:
            DocumentNotFound: An id is not there; nothing was deleted.
            InvalidDocument: What is given is no id.
            IndexLocked, IndexReadOnly, WriteFailed: As `add`.
        """
        from retriever import maintenance

        wanted = read_ids(ids)
        arguments.flag(purge, "purge")
        arguments.flag(missing_ok, "missing_ok")
        with self._session() as writer:
            meant = {name: find_id(writer.connection, name) for name in wanted}
            missing = [name for name in wanted if meant[name] is None]
            if missing and not missing_ok:
                raise not_found(missing[0], catalog.similar_ids(writer.connection, missing[0]))
            there = list(dict.fromkeys(name for name in meant.values() if name is not None))
            maintenance.delete(writer, there, self._sessions.give_way, self._limits)
            space = catalog.active_space(writer.connection)
            self._sessions.maintain(writer, space)
            if purge and there:
                with _after_commit():
                    self._compact(writer, None)
                maintenance.warn_of_quarantine(self.path)
            return len(there)

    def rebuild(
        self,
        *,
        model: Model | None = None,
        prompt: str | Mapping[str, str] | None = None,
        dimensions: int | None = None,
        chunking: ChunkingLike = None,
        allow_download: bool = False,
        discard_embeddings: bool = False,
        progress: ProgressCallback | None = None,
    ) -> IngestReport:
        """Chunk and encode every document again from its stored text.

        Searches go on in the old vectors until the new ones are complete; then one commit swaps
        them. A call that is cut short goes on where it stopped when repeated.

        Args:
            model: The new model; None keeps the present one.
            prompt: As for `open`; with `dimensions`, of the new model, or of the present one in
                place of those that it was used with.
            dimensions: As for `open`.
            chunking: The new chunking; None keeps the present one.
            allow_download: As for `open`.
            discard_embeddings: Give up embeddings that documents brought, which are not of the
                new model, and encode their texts. Otherwise they are kept by a rebuild with the
                present model, and make one with another model an error. `vectors` returns them,
                and `documents` and `get` with their documents.
            progress: Called with a `Progress` now and then.

        Raises:
            InvalidConfig: The chunking does not fit the model, or embeddings that documents
                brought would be lost.
            ModelUnavailable, IndexLocked, IndexReadOnly, WriteFailed: As `add`.
        """
        from retriever.ingest import rebuild
        from retriever.storage import segments

        arguments.flag(allow_download, "allow_download")
        arguments.flag(discard_embeddings, "discard_embeddings")
        asked = ModelOptions.given(prompt, dimensions)
        arguments.callback(progress, "progress")
        with self._session() as writer:
            active = catalog.active_space(writer.connection)
            source = self._encoders.of(active)
            if asked and model is None:
                model = source.name_of(active)
            if model is not None:
                source = source.of_model(model, allow_download=allow_download, options=asked)
            with self._encoders.switching_to(source, active):
                report, space = rebuild.rebuild(
                    writer,
                    source,
                    chunking,
                    progress,
                    keeps_model=model is None,
                    discard_embeddings=discard_embeddings,
                    limits=self._limits,
                    give_way=self._sessions.give_way,
                )
            self._sessions.maintain(writer, space)
            with _after_commit():
                segments.sweep(writer)
            return report


@contextmanager
def _after_commit() -> Iterator[None]:
    """Have a failure say that the call's commit is durable."""
    try:
        yield
    except (WriteFailed, IndexReadOnly) as exc:
        raise WriteFailed(exc.message, hint=exc.hint, durable=True) from exc

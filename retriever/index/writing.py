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
from retriever.errors import IndexReadOnly, InvalidFilter, WriteFailed
from retriever.index.state import DocumentLike, IndexState, PathLike
from retriever.search.document_ids import find_id, not_found
from retriever.storage import catalog
from retriever.storage.records import Space
from retriever.types import MAX_FILE_SIZE, ProgressCallback

# Modules that only writing and maintenance need are imported where they are called, so that a
# search on the command line does not wait for them.
if TYPE_CHECKING:
    from sqlite3 import Connection

    from retriever.filters import FilterLike
    from retriever.ingest.commits import Ingest
    from retriever.reports import IngestReport
    from retriever.storage.writer import Writer


class Writing(IndexState):
    """The methods of `Index` that change its documents."""

    @contextmanager
    def writing(self) -> Iterator[Self]:
        """Hold the lock for several calls, so that no other writer writes between them.

        Raises:
            IndexLocked: Another writer held the lock for `lock_timeout_s`; the error names it.
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
        """Add documents; one whose id is already in the index replaces the earlier version.

        On return the documents survive process kill and power loss, and every later search sees
        them. They are committed in batches of at most 1,000 or 5 seconds. If the call fails, the
        batches committed so far are kept and counted in the exception's `.report`. A list is
        checked completely first. An iterator is read in this thread, somewhat ahead of the commits,
        and the encoder runs in another; an interrupt waits briefly for a running call of the
        encoder. If the encoder fails for the text of one document but not for others, the document
        is left out and listed in the report's `failed`; if it fails for all, the error is raised.

        A document with the same content as in the index, including its embedding, is unchanged:
        nothing is encoded or written, and it keeps its chunk ids. If only fields differ that are
        not encoded, such as metadata, the embeddings are kept.

        Args:
            documents: Documents, dicts of their fields, or strings (the text).
            on_invalid: Called with the position, from 0, and the error of an invalid document,
                which is then skipped; with None the error is raised.
            progress: Called with a `Progress` from time to time, in this thread.

        Raises:
            InvalidDocument: A document is invalid, or two in this call have the same id and
                different content.
            IndexLocked, IndexReadOnly, WriteFailed: No partial batch is visible.
            ModelError: The encoder fails for every text.
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

        An interrupted call continues where it stopped when it is repeated. A file that cannot be
        read does not end the call: it is listed with the reason in the report and in `status`.

        A file's id is its path relative to the index's `base`, or its absolute path outside it.
        After `Index.open(base=…)` with a base other than the recorded one, files that exist under
        their names below the new base keep these names, since their folder has moved; files that
        are still in their old location get names relative to the new base. Nothing is encoded
        again.

        Args:
            paths: Files or folders. Hidden, ignored (`.gitignore`, `.retrieverignore`) and
                version-control entries below them are left out and counted.
            glob: Only files matching this, such as `**/*.{md,rst}`, relative to each path.
            prune: Remove documents of files that no longer exist, below `paths` only.
            checksum: Read every file and compare its content. Otherwise a file with the same size,
                times and inode counts as unchanged.
            restore: Index files again whose documents were deleted. Otherwise such a file is left
                out until its content changes, and counted in the report's `deleted`.
            follow_links: Follow symbolic links below `paths`; a file found through a link is named
                by the link. Otherwise links are skipped and counted.
            max_file_size: The size in bytes above which files are skipped.
            encoding: The character encoding of files without a byte order mark, by its Python
                name; all files are read again. By default the encoding is detected: UTF-8, then
                what the file declares, then statistics; the report lists weak guesses as
                `doubtful`.
            progress: Called with a `Progress` for each file.

        Raises:
            UnreadableFile: One of `paths` does not exist.
            InvalidConfig: `encoding` is unknown.
            IndexLocked, IndexReadOnly, WriteFailed, ModelMismatch, ModelUnavailable: As `add`.
        """
        from retriever.ingest import folder

        options = folder.FolderOptions(
            glob, prune, checksum, restore, follow_links, max_file_size, encoding
        )
        arguments.callback(progress, "progress")
        # Before the lock is taken, so that a path that does not exist is refused without waiting
        # for it.
        walk = options.walk(paths)
        with self._session() as writer:
            space = catalog.active_space(writer.connection)
            if not space.has_encoder:
                raise no_encoder(space)
            ingest = self._ingest(writer, space, progress)
            return folder.add_files(ingest, walk, options, base=self._base)

    def delete(
        self,
        ids: Iterable[str] | str | None = None,
        *,
        filter: FilterLike | None = None,
        purge: bool = False,
        missing_ok: bool = False,
    ) -> int:
        """Delete documents; return how many were deleted.

        A file whose documents are all deleted is recorded: `add_files` leaves it out until its
        content changes, or `restore=True`.

        Args:
            ids: Document ids.
            filter: Instead of ids: delete the documents that pass it, as for `search`. These are
                the ones of one moment: no other writer writes before all are deleted. It must have
                a condition.
            purge: Also remove every byte of their text and vectors from the index's files. Rewrites
                the database and the segments that hold them. Files in `quarantine/` are not
                changed; a warning names them.
            missing_ok: Ignore ids that are not in the index.

        Raises:
            DocumentNotFound: An id is not in the index; nothing was deleted.
            InvalidDocument: A value is not a possible id.
            InvalidFilter: The filter is empty, or does not follow the grammar; or ids and a filter
                are given, or neither.
            IndexLocked, IndexReadOnly, WriteFailed: As `add`.
        """
        from retriever import maintenance

        if (ids is None) == (filter is None):
            raise InvalidFilter(
                "delete takes ids or filter=, and exactly one of them.",
                hint="Pass the ids of documents, or a filter such as {'year': {'$lt': 2020}}.",
            )
        asked = None
        if filter is not None:
            from retriever.index import filtered

            asked = filtered.to_delete(filter)
        wanted = [] if ids is None else read_ids(ids)
        arguments.flag(purge, "purge")
        arguments.flag(missing_ok, "missing_ok")
        with self._session() as writer:
            if asked is None:
                there = _existing(writer.connection, wanted, missing_ok=missing_ok)
                give_way = self._sessions.give_way
            else:
                there = filtered.ids(writer.connection, asked)
                give_way = _never
            maintenance.delete(writer, there, give_way, self._limits)
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

        Searches use the old vectors until the new ones are complete; one commit then replaces them.
        An interrupted call continues where it stopped when it is repeated.

        Args:
            model: The new model; None keeps the present one.
            prompt: As for `open`. Without `model`, `prompt` and `dimensions` change those of the
                present model.
            dimensions: As for `open`.
            chunking: The new chunking; None keeps the present one.
            allow_download: As for `open`.
            discard_embeddings: With a new model, drop the embeddings that were supplied with
                documents, and encode their texts. Otherwise a rebuild with the present model keeps
                such embeddings, and one with another model is an error. `vectors`, `documents` and
                `get` return them.
            progress: Called with a `Progress` from time to time.

        Raises:
            InvalidConfig: The chunking does not fit the model, or supplied embeddings would be
                lost.
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


def _existing(connection: Connection, wanted: Iterable[str], *, missing_ok: bool) -> list[str]:
    """Return the ids of the documents that some names stand for.

    Raises:
        DocumentNotFound: There is none for a name, and that is not ok.
    """
    meant = {name: find_id(connection, name) for name in wanted}
    missing = [name for name in meant if meant[name] is None]
    if missing and not missing_ok:
        raise not_found(missing[0], catalog.similar_ids(connection, missing[0]))
    # Several names may stand for one document, which is counted once.
    return list(dict.fromkeys(name for name in meant.values() if name is not None))


def _never() -> bool:
    return False


@contextmanager
def _after_commit() -> Iterator[None]:
    """Mark errors of a block as raised after the call's commit, which is durable."""
    try:
        yield
    except (WriteFailed, IndexReadOnly) as exc:
        raise WriteFailed(exc.message, hint=exc.hint, durable=True) from exc

"""`Index`, the public class. It delegates to the packages below it and holds no algorithm."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from retriever import arguments, names, opening, pickling
from retriever.config import ChunkingLike, Limits, SearchOptions
from retriever.documents.validation import OnInvalid, check_text, read_ids
from retriever.encoders.computing import Computing
from retriever.encoders.forward import blas
from retriever.encoders.loading import Encoders, EncoderSource, Model, no_encoder
from retriever.encoders.model_options import ModelOptions
from retriever.errors import (
    DocumentNotFound,
    IndexReadOnly,
    InvalidConfig,
    InvalidQuery,
    WriteFailed,
)
from retriever.search import vectors
from retriever.search.file_states import FileStates
from retriever.search.reranker_source import RerankerLike, RerankerSource
from retriever.search.searcher import Searcher, as_list, query_or_vector
from retriever.search.segment_kinds import KINDS
from retriever.search.view import Views
from retriever.storage import base_folder, catalog
from retriever.storage.pool import ReadPool
from retriever.storage.records import Space
from retriever.storage.writer import Writer
from retriever.types import (
    MAX_FILE_SIZE,
    Chunk,
    Document,
    ProgressCallback,
    Results,
)
from retriever.write_session import WriteSessions

# Modules that only writing and maintenance need are imported where they are called, so that a
# search on the command line does not wait for them.
if TYPE_CHECKING:
    import sqlite3

    from numpy.typing import ArrayLike

    from retriever.ingest.commits import Ingest
    from retriever.reports import (
        BackupReport,
        CompactReport,
        IndexStatus,
        IngestReport,
        RepairReport,
        VerifyReport,
    )
    from retriever.types import Vector

DocumentLike: TypeAlias = "Document | Mapping[str, Any] | str"
PathLike: TypeAlias = "str | os.PathLike[str]"


class Index:
    """A directory of documents that answers questions.

    Made by `Index.open`. Safe to use from any thread; after a fork every call raises
    `IndexClosed`: open it in the worker, which must not be forked inside `writing()`. It pickles
    as its path, model and options, so that a worker that is spawned opens it anew. Reading takes
    no lock and never blocks writing; one process writes at a time.

    Examples:
        >>> with Index.open("water.index", model="all-MiniLM-L6-v2") as index:
        ...     report = index.add_files("data/handbook/water")
        ...     for hit in index.search("The pump trips twice, may I press again?", k=1):
        ...         print(f"{hit.score:.2f}", hit.citation)
        0.42 data/handbook/water/tarn-lift-pump.md:18
    """

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
        self._sessions = WriteSessions(path, pool, self._views, lock_timeout_s=lock_timeout_s)

    # --- opening and closing ------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        path: PathLike,
        *,
        model: Model | None = None,
        dimension: int | None = None,
        prompt: str | Mapping[str, str] | None = None,
        dimensions: int | None = None,
        chunking: ChunkingLike = None,
        base: PathLike | None = None,
        read_only: bool = False,
        allow_download: bool = False,
        threads: int | None = None,
        lock_timeout_s: float | None = 10.0,
        precision: str = "auto",
        device: str | None = None,
        check: Literal["quick", "full"] = "quick",
        limits: Limits | None = None,
    ) -> Index:
        """Open an index; create it if nothing is at `path` and `model` is given.

        Opening an existing index takes no lock, writes nothing and loads no model.

        Args:
            path: The index directory. In every path a leading `~` is the home folder.
            model: A name (`all-MiniLM-L6-v2`), a path, a `SentenceTransformer` object, or an
                `Encoder`. Needed to create; on an existing index it must be the model that the
                index was built with.
            dimension: Create an index without a model, for embeddings of this length that come
                with the documents: each needs an `embedding`, and searches a `vector`. Later
                opens need not name it.
            prompt: What `model` wants before each question, or a dict of what it wants before a
                `query` and a `document`, in place of its own prompts.
            dimensions: Keep the first so many numbers of each vector of `model`, scaled to unit
                length again: for models that were trained to be shortened (Matryoshka). Prompts
                and dimensions are recorded in the index; later opens need not name them.
            chunking: How documents are cut: a `Chunking`, its fields as a dict, `"document"` for
                one vector per document, or None for windows of the encoder. Fixed at creation.
            base: The folder that files are named, and cited, relative to, wherever the index is.
                It is recorded in the index at creation, by default as the index's parent, and
                found again when index and folder move together or only the index moves. Another
                base is recorded by the next `add_files`: see there.
            read_only: Refuse every call that writes.
            allow_download: Fetch a missing model from the hub. Otherwise nothing is fetched.
            threads: Cap on the threads of faiss, of the encoder, and of NumPy while it works for
                this index, from 1 to 1,024.
            lock_timeout_s: Seconds a writing call waits for another writer; 0 does not wait, None
                and infinity wait for ever. A long call that lets others write between its commits
                waits for at least ten minutes to go on.
            precision: What a model that is named computes in. `auto` is, for documents, the
                fastest precision of this machine that keeps the quality (bfloat16 on processors
                that multiply it, else float32), and float32 for questions, whose scores are then
                the same in every process; on a GPU it is float16 for both. `float32` is exact to
                1e-5. `int8` is faster still on a CPU, costs some quality, and is never chosen for
                you. One that is named holds for questions too. It is no part of the model's
                identity: an index built in one precision opens in another.
            device: Where a model that is named is computed: `cpu`, or a torch device such as
                `cuda:1`. None takes a GPU where there is one, and torch, else the CPU; with
                `int8` the CPU.
            check: `full` verifies every stored byte first.
            limits: How much is read, encoded and committed at a time; None for the defaults. They
                hold for calls of this object and are not recorded.

        Raises:
            IndexNotFound: Nothing is there and no model was given, or it is another directory.
            InvalidConfig: An option is no such thing, `chunking` is not what the index was created
                with, `base` is no folder, or there is no such `device`, or no such `precision`
                there.
            MissingDependency: A GPU is named as `device`, and torch is not installed.
            ModelMismatch: `model` is not the one that the index was built with; names the field.
            ModelUnavailable: The model is not on this machine.
            FormatMismatch: The index was written in another format.
            IndexCorrupt: Stored bytes are not what was written.
            DataLoss: Acknowledged commits are missing.
            IndexClosed: This process was forked from one that was just writing or reading there.
        """
        base = None if base is None else base_folder.given(base)
        # What opens it anew in a worker; options that come later are not forgotten.
        once = ("cls", "path", "model", "dimension", "prompt", "dimensions", "chunking", "check")
        options = {name: given for name, given in locals().items() if name not in (*once, "once")}
        for name in ("read_only", "allow_download"):
            arguments.flag(options[name], name)
        arguments.choice(check, "check", ("quick", "full"))
        lock_timeout_s = arguments.seconds(lock_timeout_s, "lock_timeout_s")
        limits = arguments.instance(limits, "limits", Limits) or Limits()
        directory = arguments.path(path, "path").absolute()
        computing = Computing(threads=threads, device=device, precision=precision)
        asked = ModelOptions.given(prompt, dimensions)
        names_model = model is not None or bool(asked)
        source = EncoderSource(
            model, allow_download=allow_download, computing=computing, options=asked
        )
        pool = opening.open_or_create(
            directory,
            source,
            chunking,
            base=base,
            dimension=opening.check_dimension(dimension, names_model=names_model),
            may_create=(model is not None or dimension is not None) and not read_only,
            lock_timeout_s=lock_timeout_s,
        )
        index = cls(
            directory,
            pool,
            Encoders(source),
            RerankerSource(allow_download=allow_download, computing=computing),
            read_only=read_only,
            threads=computing.threads,
            lock_timeout_s=lock_timeout_s,
            base=base,
            limits=limits,
            options=options,
        )
        if check == "full":
            try:
                from retriever.storage import integrity

                integrity.require_intact(directory, KINDS)
            except BaseException:
                index.close()
                raise
        return index

    @classmethod
    def adopt(
        cls,
        stranger: PathLike,
        target: PathLike,
        *,
        model: Model | None = None,
        prompt: str | Mapping[str, str] | None = None,
        dimensions: int | None = None,
        chunking: ChunkingLike = None,
        allow_download: bool = False,
        threads: int | None = None,
        precision: str = "auto",
        device: str | None = None,
        discard_embeddings: bool = False,
        progress: ProgressCallback | None = None,
    ) -> IngestReport:
        """Copy the documents of an index that a stranger may have made into a new one of your own.

        `open` is for indexes whose maker you trust: it uses their vectors and loads the model that
        they name. This call takes text, ids, metadata, sources, titles, headings and pages, checks
        each document as `add` does, and encodes the texts with your model. The vectors that the
        stranger's model is said to have computed are not used, since only encoding again could
        tell whether they are right; nor are segments and records of files read: documents that
        came from files become documents that were added, which `add_files` does not look after.

        The new index is written beside `target` and renamed: if the call fails, there is none.

        Args:
            stranger: The index to read. It is not changed.
            target: The directory to create.
            model: As for `open`. It is needed unless the index was made without a model
                (`dimension=`); then its documents are adopted with their embeddings.
            prompt: As for `open`, with `dimensions`: of your model; the recorded ones are not used.
            dimensions: As for `open`.
            chunking: As for `open`; what is not given is as in the stranger's index.
            allow_download: As for `open`.
            threads: As for `open`.
            precision: As for `open`.
            device: As for `open`.
            discard_embeddings: Encode the texts of documents that were added with an embedding.
                Otherwise such embeddings are kept where they are said to be of your model, and
                are an error where they are of another.
            progress: Called with a `Progress` now and then.

        Returns:
            What was written, counted as by `add`. A document of which your encoder cannot do a
            text, while it does others, is left out and listed under `failed`.

        Raises:
            IndexNotFound: There is no index at `stranger`.
            IndexExists: Something is at `target` already.
            IndexCorrupt: A page, a row or a document of the stranger's index is not as ours are.
            DataLoss, FormatMismatch: As for `open`.
            ModelUnavailable: No model was given and one is needed, or it is not on this machine.
            InvalidConfig: As for `open`; or there are embeddings of another model.
            WriteFailed: The new index cannot be written.
        """
        from retriever import adopting
        from retriever.storage.backup import directory_when_complete

        source = arguments.path(stranger, "stranger").absolute()
        own = arguments.path(target, "target").absolute()
        arguments.flag(discard_embeddings, "discard_embeddings")
        arguments.callback(progress, "progress")
        with (
            directory_when_complete(own) as aside,
            adopting.open_foreign(source) as foreign,
            cls.open(
                aside,
                model=model,
                dimension=foreign.dimension_without(model, discard=discard_embeddings),
                prompt=prompt,
                dimensions=dimensions,
                chunking=foreign.chunking(chunking),
                allow_download=allow_download,
                threads=threads,
                precision=precision,
                device=device,
            ) as index,
        ):
            with index._pool.transaction() as connection:
                space = catalog.active_space(connection)
            keeps = foreign.keeps_embeddings(space, discard=discard_embeddings)
            try:
                return index.add(
                    foreign.documents(embeddings=keeps),
                    on_invalid=foreign.refuse,
                    progress=foreign.counted(progress),
                )
            except BaseException as exc:
                exc.report = None  # type: ignore[attr-defined]  # nothing of it stays
                raise

    def close(self) -> None:
        """Close the index; harmless when it is closed already, and in a forked child."""
        if self._pool.is_inherited:
            return
        self._views.forget()
        self._pool.close()
        if self._sessions.has_written:
            self._sessions.has_written = False
            opening.tidy(self.path)

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Index({os.fspath(self.path)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Be pickled as path, model and options, so that another process opens the index anew.

        Raises:
            InvalidConfig: Its encoder cannot be pickled, or it is inside `writing()`, where the
                other one would wait for this one.
        """
        if self._sessions.is_of_this_thread:
            raise InvalidConfig(
                f"{self.path} cannot be pickled inside writing(): whoever opens it would wait for "
                "this block to end.",
                hint="Leave the block first.",
            )
        return pickling.as_arguments(
            type(self), self.path, self._encoders.source.model, self._options
        )

    # --- writing ------------------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[Index]:
        """Hold LOCK across several calls, so that no other writer comes between them.

        Raises:
            IndexLocked: Another writer held it for `lock_timeout_s`; the error names it.
            IndexReadOnly: The index was opened read-only, or cannot be written.
        """
        with self._session():
            yield self

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
            meant = {name: _meant(writer.connection, name) for name in wanted}
            missing = [name for name in wanted if meant[name] is None]
            if missing and not missing_ok:
                raise _not_found(missing[0], catalog.similar_ids(writer.connection, missing[0]))
            there = list(dict.fromkeys(name for name in meant.values() if name is not None))
            maintenance.delete(writer, there, self._sessions.give_way)
            space = catalog.active_space(writer.connection)
            self._sessions.maintain(writer, space)
            if purge and there:
                with _after_commit():
                    self._compact(writer, None)
                maintenance.warn_of_quarantine(self.path)
            return len(there)

    def compact(self, *, progress: ProgressCallback | None = None) -> CompactReport:
        """Merge segments, drop deleted rows, and leave no byte of deleted text or vectors.

        Raises:
            IndexBusy: A reader kept an old snapshot open; all else is done and durable.
            IndexLocked, IndexReadOnly, WriteFailed: As `add`.
        """
        arguments.callback(progress, "progress")
        with self._session() as writer:
            return self._compact(writer, progress, self._sessions.give_way)

    def _compact(
        self,
        writer: Writer,
        progress: ProgressCallback | None,
        give_way: Callable[[], bool] = lambda: False,
    ) -> CompactReport:
        self._views.forget()
        from retriever import maintenance

        return maintenance.compact(writer, self._lock_timeout_s, progress, give_way)

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

    # --- searching ----------------------------------------------------------------------------

    def search(
        self,
        query: str | None = None,
        *,
        k: int = 10,
        vector: ArrayLike | None = None,
        group: Literal["document"] | None = None,
        rerank: RerankerLike | None = None,
        candidates: int = 50,
        fold: bool = True,
        options: SearchOptions | None = None,
    ) -> Results:
        """Return the `min(k, n)` chunks most similar to a question, best first.

        The search is exact. Every commit acknowledged before the call is seen. Identical passages
        are one hit, which counts them, and take no place from others; see `fold`.

        With `rerank`, a cross-encoder reads the question together with each of the
        `max(k, candidates)` most similar chunks, as the encoder saw them (with their headings
        where the index was made so), and the hits are the k that it scores highest. A hit's score
        is then the reranker's, on a scale of its own; `scores` holds both, `dense` and `rerank`.

        Args:
            query: The question, of at most 100,000 characters. One beyond the encoder's window is
                read in windows, and the mean of their vectors is searched with; `plan` says so,
                and says if the encoder's vocabulary lacks most of it.
            k: Hits wanted, from 1 to 100,000; to 1,000 with `rerank`.
            vector: An embedding to search with instead, `(dimension,)`; no model is needed.
            group: `"document"` gives the best chunk of each of the k best documents. With
                `rerank` all candidates are reranked before the best chunk of each document is
                kept; where they come from fewer than k documents, the most similar chunk of each
                further one is reranked too.
            rerank: The name or path of a cross-encoder (BERT, RoBERTa, DistilBERT or MPNet family
                without any extra), a `CrossEncoder` object of sentence-transformers, or an object
                with `score(query, texts)`. It is loaded at its
                first use and kept. None does not rerank.
            candidates: How many chunks are reranked, from 1 to 1,000.
            fold: Whether chunks of equal text and embedding are one hit, the one of the lowest
                chunk id: `hit.duplicates` counts the others and `hit.also_in` names documents of
                theirs. It is done before `group` and `rerank`. False gives each its own hit.
            options: The five options above as one object, which can be made once and handed on.
                They are then left at their defaults.

        Raises:
            InvalidQuery: The query is empty, or `k`, `vector`, `rerank` or `candidates` is
                unusable, or there is no question to rerank by, or an option is given beside
                `options`.
            LimitExceeded: `k` is over 100,000, or it or `candidates` over 1,000 with `rerank`.
            ModelError: The reranker cannot be used.
            ModelMismatch, ModelUnavailable: As for `open`.
            IndexCorrupt: A row that would have been returned is damaged.
        """
        if (query is None) == (vector is None):
            raise query_or_vector()
        options = _search_options(options, k, group, rerank, candidates, fold)
        texts = None if query is None else [query]
        return self._search(texts, None if vector is None else [vector], options)[0]

    def search_many(
        self,
        queries: Sequence[str] | None = None,
        *,
        k: int = 10,
        vectors: ArrayLike | None = None,
        group: Literal["document"] | None = None,
        rerank: RerankerLike | None = None,
        candidates: int = 50,
        fold: bool = True,
        options: SearchOptions | None = None,
    ) -> list[Results]:
        """Search for several questions in one pass; `results[i]` answers `queries[i]`.

        Args:
            queries: The questions.
            k: Hits wanted for each.
            vectors: Embeddings to search with instead, `(n, dimension)`.
            group: As for `search`.
            rerank: As for `search`.
            candidates: As for `search`, for each question.
            fold: As for `search`.
            options: As for `search`.

        Raises:
            InvalidQuery, LimitExceeded, ModelError, ModelMismatch, ModelUnavailable,
                IndexCorrupt: As `search`.
        """
        if (queries is None) == (vectors is None):
            raise query_or_vector()
        if queries is None:
            vectors = as_list(vectors, "vectors")
        else:
            queries = [queries] if isinstance(queries, str) else as_list(queries, "queries")
        options = _search_options(options, k, group, rerank, candidates, fold)
        return self._search(queries, vectors, options)

    def _search(
        self, queries: Sequence[str] | None, given: Any, options: SearchOptions
    ) -> list[Results]:
        self._pool.check()
        vectors.limit_threads(self._threads)
        with blas.at_most(self._threads):
            return self._searcher.search(queries, given, options)

    # --- reading ------------------------------------------------------------------------------

    def get(self, document_id: str) -> Document | None:
        """Return a document, or None; with its embedding, of unit length, if it brought one.

        Raises:
            IndexCorrupt: It is damaged.
        """
        with self._pool.transaction() as connection:
            meant = _meant(connection, document_id) or document_id
            found = catalog.document(connection, meant)
            return found and catalog.with_embeddings(connection, [found])[0]

    def id_of(self, *names: str) -> str | None:
        """Return the id of the document that the first of some names means, or None.

        A document is meant by its id, by an id that reads alike (NFC and NFD of Unicode), and by
        the name of its file as the file system gives it, surrogate escapes included. `get`,
        `chunks` and `delete` take such names as well.
        """
        with self._pool.transaction() as connection:
            meant = (_meant(connection, name) for name in names)
            return next((one for one in meant if one is not None), None)

    @property
    def base(self) -> Path:
        """Return the folder that names of files are relative to, where it is now."""
        with self._pool.transaction() as connection:
            return Path(self._file_states.base(connection).path)

    def count(self) -> int:
        """Return the number of documents."""
        with self._pool.transaction() as connection:
            return catalog.count(connection, "documents")

    def documents(self, *, embeddings: bool = True) -> Iterator[Document]:
        """Yield every document in order of id, a page of them at a time.

        What is yielded can be added to another index: an embedding that a document brought is in
        it, float32 `(dimension,)`, of unit length.

        Args:
            embeddings: Whether to read those.

        Raises:
            IndexCorrupt: One is damaged.
        """
        last = ""
        while True:
            with self._pool.transaction() as connection:
                page = catalog.documents_after(connection, last)
                if embeddings:
                    page = catalog.with_embeddings(connection, page)
            if not page:
                return
            yield from page
            last = page[-1].id or ""

    def vectors(self, ids: Iterable[str] | str | None = None) -> dict[str, Vector]:
        """Return the vectors of documents' chunks, whoever made them.

        Args:
            ids: Document ids; None means all documents, whose vectors must fit in memory.

        Returns:
            For each id a float32 array `(n_chunks, dimension)`, rows of unit length in the order
            of `chunks`; `(0, dimension)` for a document without text.

        Raises:
            DocumentNotFound: There is no such document.
            IndexCorrupt: A vector is damaged.
        """
        if ids is None:
            wanted = [document.id or "" for document in self.documents(embeddings=False)]
        else:
            wanted = read_ids(ids)
        with self._pool.transaction() as connection:
            space = catalog.active_space(connection)
            found = {}
            for document_id in wanted:
                meant = _meant(connection, document_id)
                pk = None if meant is None else catalog.document_pk(connection, meant)
                if pk is None:
                    raise _not_found(document_id, catalog.similar_ids(connection, document_id))
                found[document_id] = catalog.vectors_of_document(connection, space, pk)
            return found

    def chunks(self, document_id: str) -> list[Chunk]:
        """Return a document's chunks, in order.

        Raises:
            DocumentNotFound: There is no such document.
            IndexCorrupt: A chunk is damaged.
        """
        with self._pool.transaction() as connection:
            meant = _meant(connection, document_id)
            pk = None if meant is None else catalog.document_pk(connection, meant)
            if pk is None:
                raise _not_found(document_id, catalog.similar_ids(connection, document_id))
            return catalog.chunks_of(connection, pk, catalog.active_space(connection).chunking.id)

    def status(self) -> IndexStatus:
        """Return counts, model, token ledger, problem files, sizes and the lock's holder."""
        from retriever.storage import inspection

        with self._pool.transaction() as connection:
            base = Path(self._file_states.base(connection).path)
            return inspection.status(self.path, connection, base=base)

    # --- maintenance --------------------------------------------------------------------------

    def verify(
        self, *, deep: bool = False, progress: ProgressCallback | None = None
    ) -> VerifyReport:
        """Check every stored byte and return a report; `ok` is the verdict.

        Args:
            deep: Also compare every vector of every segment with the catalog's.
            progress: Called with a `Progress` for each check.
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
        """Mend what `verify` finds; see `repair_path`, which works when `open` refuses.

        The index stays open, whatever the outcome, and goes on with what was mended.

        Raises:
            IndexBusy: Another thread searched all the time.
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
        progress: ProgressCallback | None = None,
    ) -> RepairReport:
        """Mend a damaged index: nothing is deleted, damaged files go to `quarantine/`.

        Segments are built again from rows, embeddings from text. What cannot be saved is listed
        under `lost`.

        Args:
            path: The index directory. An `Index` that is open on it goes on with what is mended.
            model: The encoder, where it cannot be found by the name in the index.
            accept_loss: Go on without acknowledged commits that are gone; `status` shows the
                loss for ever.
            allow_download: As for `open`.
            lock_timeout_s: As for `open`.
            progress: Called with a `Progress` for each step.

        Raises:
            DataLoss: Acknowledged commits are missing and `accept_loss` is not set.
            IndexCorrupt: Not even the index's settings can be read.
            IndexNotFound, IndexLocked, IndexReadOnly, WriteFailed.
        """
        directory = opening.require_index(arguments.path(path, "path").absolute())
        for name, value in {
            "accept_loss": accept_loss,
            "allow_download": allow_download,
        }.items():
            arguments.flag(value, name)
        arguments.callback(progress, "progress")
        from retriever import maintenance

        return maintenance.repair(
            directory,
            EncoderSource(model, allow_download=allow_download),
            accept_loss=accept_loss,
            lock_timeout_s=arguments.seconds(lock_timeout_s, "lock_timeout_s"),
            progress=progress,
        )

    def backup(self, target: PathLike) -> BackupReport:
        """Copy the index, at one commit, to a new directory; the copy is an index that opens.

        Raises:
            IndexExists: Something is at `target` already.
            IndexCorrupt, WriteFailed.
        """
        self._pool.check()
        from retriever.storage import backup

        copy = arguments.path(target, "target").absolute()
        return backup.backup(self.path, copy)


def _search_options(
    options: SearchOptions | None,
    k: int,
    group: Literal["document"] | None,
    rerank: RerankerLike | None,
    candidates: int,
    fold: bool,
) -> SearchOptions:
    """Return the options that a search was given, either as one object or one by one."""
    given: dict[str, Any] = {
        "k": k,
        "group": group,
        "rerank": rerank,
        "candidates": candidates,
        "fold": fold,
    }
    if options is None:
        return SearchOptions(**given)
    if not isinstance(options, SearchOptions):
        raise InvalidQuery(
            f"options is {arguments.described(options)}.", hint="Pass a SearchOptions object."
        )
    for name, value in given.items():
        # A keyword at its default cannot be told from one that was not given.
        default = getattr(SearchOptions, name)
        if type(value) is not type(default) or value != default:
            raise InvalidQuery(
                f"{name} is {arguments.shown(value)}, and options is given as well.",
                hint=f"Pass one of them: options=dataclasses.replace(options, {name}=…).",
            )
    return options


@contextmanager
def _after_commit() -> Iterator[None]:
    """Have a failure say that the call's commit is durable."""
    try:
        yield
    except (WriteFailed, IndexReadOnly) as exc:
        raise WriteFailed(exc.message, hint=exc.hint, durable=True) from exc


def _meant(connection: sqlite3.Connection, name: str) -> str | None:
    """Return the id of the document that a name means, if it is in the index."""
    possible = names.meanings(name) if isinstance(name, str) else [name]
    for document_id in possible or [name]:
        check_text(document_id, "A document id")
    there = catalog.existing_ids(connection, possible)
    return next((document_id for document_id in possible if document_id in there), None)


def _not_found(document_id: str, known: list[str]) -> DocumentNotFound:
    same = [name for name in known if name.lower() == document_id.lower()]
    close = same or get_close_matches(document_id, known, 1)
    return DocumentNotFound(
        f"The index holds no document {document_id!r}.",
        hint=f"Did you mean {close[0]!r}?" if close else "`retriever list` shows all ids.",
    )
